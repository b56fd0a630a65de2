"""Faults that an honest site can find by itself before it sends anything: wrong units, swapped labels, a stale model, copied rows, missing numbers.

The report is for the site's own people: it names columns and shares of its records, so it stays there, costs no privacy and is on no ledger. Whether a
site takes part must not depend on it in a way that others see, unless a person decides so. A site compares its records with the ranges that the schema
declares (public) and with a summary of its own last export, which it keeps (`summarise`).

A check that uses chance alone (labels) states its error rate; the others are thresholds on what cannot happen by chance in a table of the usual size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

LABEL_ALARM = 1e-6
"""Probability that labels of an unchanged rate are reported."""

UNITS = {
    18.0: "glucose in mg/dl in place of mmol/l",
    88.4: "creatinine in umol/l in place of mg/dl",
    38.67: "cholesterol in mg/dl in place of mmol/l",
    17.1: "bilirubin in umol/l in place of mg/dl",
    2.54: "inches in place of centimetres, or the reverse",
    2.2046: "pounds in place of kilograms",
    10.0: "a power of ten",
    100.0: "a power of ten, or per cent in place of a share",
    1000.0: "a power of ten, such as mg in place of g",
}
"""Factors between units that are often confused, for the wording alone."""


class Fault(NamedTuple):
    """One finding.

    Attributes:
      kind: "units", "labels", "stale", "duplicates" or "missing".
      seen: what was seen, a sentence.
      do: what to do, a sentence.
    """

    kind: str
    seen: str
    do: str

    def __str__(self) -> str:
        return f"{self.seen} {self.do}"


class Summary(NamedTuple):
    """What a site keeps of an export, for the next one; it never leaves the site.

    Attributes:
      medians: float64 `[F]`.
      spreads: float64 `[F]`, between the 10th and the 90th percentile.
      positives: records of label 1.
      records: records in all.
      duplicates: share of rows that are copies of an earlier one.
    """

    medians: np.ndarray
    spreads: np.ndarray
    positives: int
    records: int
    duplicates: float


def summarise(features: np.ndarray, labels: np.ndarray) -> Summary:
    """The summary of an export: features float `[n, F]` in their own units, labels 0/1 `[n]`.

    Raises:
      ValueError: there is no record, or lengths differ.
    """
    x, y = _table(features, labels)
    low, middle, high = np.nanquantile(x, [0.1, 0.5, 0.9], axis=0)
    return Summary(middle, high - low, int((y > 0).sum()), len(y), copied(x, y))


def missing_numbers(features: np.ndarray, names: Sequence[str]) -> list[Fault]:
    """Columns with entries that are NaN or infinite: a gradient of such a record is none, and the site would send noise alone."""
    bad = ~np.isfinite(np.asarray(features, np.float64))
    return [
        Fault(
            "missing",
            f"Column {names[i]!r}: {int(bad[:, i].sum())} of {len(bad)} entries are no finite number.",
            "Fill them with the schema's public value for missing results, or leave those records out.",
        )
        for i in np.flatnonzero(bad.any(axis=0)).tolist()
    ]


def outside_ranges(
    features: np.ndarray, names: Sequence[str], bounds: Mapping[str, tuple[float, float]], *, share: float = 0.05
) -> list[Fault]:
    """Columns of which more than a share lies outside its declared public range.

    Args:
      features: `[n, F]`, in the units of the declaration, not standardised.
      names: F names.
      bounds: declared (low, high) of columns; columns without one are not looked at.
      share: what an honest export may exceed: a few outliers are cut by the clamp anyway.
    """
    x, found = np.asarray(features, np.float64), []
    for i, name in enumerate(names):
        if name not in bounds:
            continue
        low, high = bounds[name]
        outside = float(np.mean((x[:, i] < low) | (x[:, i] > high)))
        if outside > share:
            middle = float(np.nanmedian(x[:, i]))
            found.append(
                Fault(
                    "units",
                    f"Column {name!r}: {100 * outside:.0f} % of the values lie outside the declared range {low:g} to {high:g} (median {middle:g}).",
                    f"Check the unit of the export{_by_factor(middle, (low + high) / 2)}; do not widen the range before you know.",
                )
            )
    return found


def changed_columns(
    features: np.ndarray, names: Sequence[str], past: Summary, *, spreads: float = 1.5, least: int = 20
) -> list[Fault]:
    """Columns whose median moved by more than so many of the past's spreads (10th to 90th percentile) since the site's last export.

    The median of n records moves by about 0.5 / sqrt(n) spreads by chance, so with 20 records 1.5 spreads are more than ten standard deviations.

    Raises:
      ValueError: the past is of another number of columns.
    """
    x = np.asarray(features, np.float64)
    if past.medians.shape != (x.shape[1],):
        raise ValueError(
            f"the summary is of {past.medians.size} columns, the export has {x.shape[1]}: make a new summary with the new schema."
        )
    if min(len(x), past.records) < least:
        return []
    middle = np.nanmedian(x, axis=0)
    moved = np.abs(middle - past.medians) > spreads * np.maximum(past.spreads, 1e-12)
    return [
        Fault(
            "units",
            f"Column {names[i]!r}: its median was {past.medians[i]:g} in your last export and is {middle[i]:g} now.",
            f"Check the unit and the source of the column{_by_factor(middle[i], past.medians[i])}.",
        )
        for i in np.flatnonzero(moved).tolist()
    ]


def changed_labels(labels: np.ndarray, past: Summary, *, alarm: float = LABEL_ALARM) -> list[Fault]:
    """Labels whose rate does not fit the site's own past, by the exact tail of two binomial samples of one rate (Fisher's test: hypergeometric).

    An honest export is reported with a probability of at most `alarm`, if records are independent (assumed).
    """
    from scipy import stats

    y = np.asarray(labels) > 0
    ones, count = int(y.sum()), y.size
    if not count or not past.records:
        return []
    law = stats.hypergeom(past.records + count, past.positives + ones, count)
    tail = 2 * min(float(law.cdf(ones)), float(law.sf(ones - 1)))
    if tail >= alarm:
        return []
    swapped = stats.hypergeom(past.records + count, past.positives + count - ones, count)
    fits = 2 * min(float(swapped.cdf(count - ones)), float(swapped.sf(count - ones - 1))) > 1e-3
    rate, before = ones / count, past.positives / past.records
    remedy = (
        "With 0 and 1 exchanged it would fit: check which value of the export means yes."
        if fits
        else "Check the definition of the label and the period of the export."
    )
    return [
        Fault(
            "labels",
            f"{100 * rate:.1f} % of the labels are 1; in your last export it was {100 * before:.1f} % (chance: below {alarm:g}).",
            remedy,
        )
    ]


def stale_model(announced: tuple[int, str], received: tuple[int, str]) -> list[Fault]:
    """A model that is not the one of the announced round: an update of an old one pulls the sum back.

    Args:
      announced: (round, hash of the parameters) of the round's terms.
      received: the same of what lies here.
    """
    if announced == received:
        return []
    (number, mark), (own, mine) = announced, received
    seen = (
        f"The round is number {number}, the model here is of round {own}."
        if number != own
        else f"The model here has the hash {mine[:12]}, the terms of round {number} name {mark[:12]}."
    )
    return [
        Fault("stale", seen, "Fetch the model of this round again before you train; send nothing from the old one.")
    ]


def copied(features: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows, with their label, that are exact copies of an earlier row."""
    rows = np.column_stack([np.asarray(features, np.float64), np.asarray(labels, np.float64)])
    return 1.0 - len(np.unique(rows, axis=0)) / len(rows) if len(rows) else 0.0


def duplicated_rows(
    features: np.ndarray, labels: np.ndarray, past: Summary | None = None, *, share: float = 0.2
) -> list[Fault]:
    """Copies of rows beyond a share, over that of the site's past: an export that was appended to itself counts every patient twice.

    A table of few coarse columns has equal rows by nature; its past says how many.
    """
    found = copied(features, labels)
    usual = 0.0 if past is None else past.duplicates
    if found <= usual + share:
        return []
    return [
        Fault(
            "duplicates",
            f"{100 * found:.0f} % of the rows are exact copies of earlier ones ({100 * usual:.0f} % in the past).",
            "Check whether the export was appended to itself: a person's record may count once only, or the privacy of that person is not what is stated.",
        )
    ]


def check_site(
    features: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    past: Summary | None = None,
) -> list[Fault]:
    """All checks of a table, in the order in which they should be mended; empty where nothing was found.

    Args:
      features: float `[n, F]` in their own units.
      labels: 0/1 `[n]`.
      names: F names.
      bounds: declared public ranges of columns.
      past: `summarise` of the site's last export; None at the first.

    Raises:
      ValueError: there is no record, or lengths differ.
    """
    x, y = _table(features, labels)
    if len(names) != x.shape[1]:
        raise ValueError(f"{len(names)} names for {x.shape[1]} columns.")
    found = missing_numbers(x, names) + outside_ranges(x, names, bounds or {})
    if past is not None:
        found += changed_columns(x, names, past) + changed_labels(y, past)
    return found + duplicated_rows(x, y, past)


def _table(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(features, np.float64), np.asarray(labels)
    if x.ndim != 2 or not len(x) or y.shape != (len(x),):
        raise ValueError(
            f"features {x.shape} and labels {y.shape}: give rows by columns with at least one row, and a label each."
        )
    return x, y


def _by_factor(now: float, before: float) -> str:
    if not (now and before) or now / before <= 0:
        return ""
    ratio = max(now / before, before / now)
    near = [words for factor, words in UNITS.items() if abs(np.log(ratio / factor)) < 0.15]
    return f" (a factor of {ratio:.3g}: perhaps {'; or '.join(near)})" if near else ""
