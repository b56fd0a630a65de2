"""The label of a table: one of two values, one of several classes, several yes/no columns, or a number with a public range.

What a user declares decides which: nothing (or `positive`) for two values, `classes` for several, a list of columns for several labels, `label_bounds`
for a number. Nothing is guessed from the values, since a guess would depend on the records.
"""

from __future__ import annotations

import collections
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from fedjax_poisson.data.tables.columns import flag_values
from fedjax_poisson.data.tables.csv_table import Table, canonical, line_list, listed, numeric, numeric_or_none
from fedjax_poisson.data.tables.declarations import FROM_DATA, LARGEST_VALUE, check_positive, is_finite
from fedjax_poisson.data.tables.remedies import option
from fedjax_poisson.data.tables.suspicion import refuse_spellings

Task = Literal["binary", "multiclass", "multilabel", "regression"]

MOST_CLASSES = 50
"""Classes that are taken from the records, and that may be declared: each costs parameters, and so noise."""

_STRATA = 10  # equal parts of a number's public range, of which each side of the split gets its share


class LabelSpec(NamedTuple):
    """What is declared about the label; the fields are the arguments of `from_csv`.

    Attributes:
        label: Its column, or several.
        positive: Values that count as 1, of one label with two values.
        classes: Values of one label with several, or "from_data".
        bounds: Public range of a number.
        whole: Whether the table has the records of all sites; one site's records may all have the same label, for others have the rest.
    """

    label: str | Sequence[str]
    positive: str | Sequence[str] | None = None
    classes: Sequence[str] | str | None = None
    bounds: Sequence[float] | None = None
    whole: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        """The label's columns."""
        return (self.label,) if isinstance(self.label, str) else tuple(self.label)


class TableLabel(NamedTuple):
    """The label of every record.

    Attributes:
        values: int32 `[n]` class numbers, int32 `[n, K]` of 0 and 1, or float32 `[n]` numbers within their bounds.
        names: Of the classes, of the K labels, or of the number.
        bounds: Public range of a number; None for all else.
        strata: int32 `[n]` or `[n, K]`, what a split is stratified by.
        notes: How the label was read.
        uncovered: As in `Sites`.
    """

    values: np.ndarray
    names: tuple[str, ...]
    bounds: tuple[float, float] | None
    strata: np.ndarray
    notes: tuple[str, ...] = ()
    uncovered: tuple[tuple[str, str], ...] = ()


def check_label(spec: LabelSpec) -> None:
    """Refuse declarations of the wrong type, and those that contradict each other.

    Raises:
        ValueError: With what was seen and what to write instead.
    """
    names = spec.label
    if isinstance(names, str) or not isinstance(names, Sequence):
        _check_name(names)
    elif len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(
            f"label is {list(names)!r}; expected different columns for several labels, at least two: {_listed_option('label', ['died', 'readmitted'])}"
        )
    else:
        for name in names:
            _check_name(name)
    check_positive(spec.positive)
    _check_classes(spec.classes)
    _check_bounds(spec.bounds)
    several = ["several labels"] * (not isinstance(names, str))
    given = [name for name in ("positive", "classes", "bounds") if getattr(spec, name) is not None]
    words = [*several, *(name.replace("bounds", "label_bounds") for name in given)]
    if len(words) > 1:
        raise ValueError(
            f"{' and '.join(words)} contradict each other: a label has two values (positive), several classes (classes) or is a number (label_bounds), and "
            "several labels are yes/no columns, for which nothing of this is given; leave one out"
        )


def read_label(table: Table, spec: LabelSpec) -> TableLabel:
    """The label as declared; every record must have one.

    Raises:
        ValueError: A value is missing or is not what was declared; the message names column, line and remedy.
    """
    for name in spec.columns:
        refuse_missing(table, name, "label", f"fill them in, or leave such records out: {option('missing', 'drop')}")
    if not isinstance(spec.label, str):
        return _several(table, spec.columns, spec.whole)
    if spec.bounds is not None:
        return _number(table, spec.label, (float(spec.bounds[0]), float(spec.bounds[1])), spec.whole)
    if spec.classes is not None:
        return _classes(table, spec.label, spec.classes, spec.whole)
    return _binary(table, spec.label, spec.positive, spec.whole)


def refuse_missing(table: Table, name: str, role: str, remedy: str) -> None:
    """Refuse a column with a missing value, with the lines where it is missing."""
    lines = [line for line, text in zip(table.lines, table.columns[name], strict=True) if text == ""]
    if lines:
        raise ValueError(f"{table.path}: no {role} in column {name!r} on {line_list(lines)}; {remedy}")


def _binary(table: Table, label: str, positive: str | Sequence[str] | None, whole: bool) -> TableLabel:
    texts, seen = _values(table, label)
    if positive is None:
        flags = flag_values(texts)
        if flags is None:
            raise ValueError(_not_binary(table, label, texts, seen))
        labels = np.array(flags).astype(np.int32)
        names, note = (f"{label}=0", f"{label}=1"), []
    else:
        wanted = [canonical(value) for value in ([positive] if isinstance(positive, str) else positive)]
        unknown = [value for value in wanted if value not in seen]
        if unknown and whole:
            raise ValueError(
                f"{table.path}: no record has the label {unknown[0]!r}; the values of {label!r} are {listed(seen)}"
            )
        labels = np.isin(texts, wanted).astype(np.int32)
        names = (f"{label} other", f"{label}={'|'.join(wanted)}")
        note = [f"label 1 = {label} in ({', '.join(wanted)}), 0 = any other value"]
    if whole and labels.min() == labels.max():
        raise ValueError(
            f"{table.path}: every record has the same label ({labels[0]}), so there is nothing to learn; bring records of both kinds"
        )
    return TableLabel(labels, names, None, labels, tuple(note))


def _not_binary(table: Table, label: str, texts: Sequence[str], seen: Sequence[str]) -> str:
    counts = collections.Counter(texts)
    rare = min(seen, key=lambda text: counts[text])
    lines = [line for line, text in zip(table.lines, texts, strict=True) if text == rare]
    where = f" ({rare!r} is on {line_list(lines)})" if len(lines) <= 5 else ""
    parsed = numeric(seen, table.delimiter != ",")
    ways = [f"Say which count as 1, for example {option('positive', seen[-1])}"]
    if len(seen) <= MOST_CLASSES:
        ways.append(f"or learn all of them as classes: {_declared_classes(seen)}")
    if parsed is not None:
        ways.append(f"or learn a number in a public range: {_declared_bounds()}")
    return (
        f"{table.path}: the label {label!r} is not binary: it has {len(seen)} values, {', '.join(seen[:8])}"
        f"{', ...' if len(seen) > 8 else ''}{where}. {'; '.join(ways)}"
    )


def _classes(table: Table, label: str, declared: Sequence[str] | str, whole: bool) -> TableLabel:
    texts, seen = _values(table, label)
    uncovered: tuple[tuple[str, str], ...] = ()
    if declared == FROM_DATA:
        if len(seen) > MOST_CLASSES:
            raise ValueError(
                f"{table.path}: the label {label!r} has {len(seen)} values; as classes at most {MOST_CLASSES} are taken. Declare those that matter and "
                f"'other' for the rest, {_declared_classes(seen)}, or, if it is a number, its public range: {_declared_bounds()}"
            )
        names = tuple(seen)
        uncovered = (
            (f"the classes of the label {label!r} were taken from the records", f"--classes {','.join(names[:8])}"),
        )
    else:
        names = tuple(canonical(str(value)) for value in declared)
    if len(names) < 2:
        raise ValueError(
            f"{table.path}: every record has the same label ({names[0]!r}), so there is nothing to learn; bring records of several kinds"
        )
    place = {name: k for k, name in enumerate(names)}
    unknown = [text for text in seen if text not in place]
    if unknown and "other" not in place:
        line = table.lines[texts.index(unknown[0])]
        raise ValueError(
            f"{table.path}, line {line}: the label {label!r} is {unknown[0]!r}, which is not a declared class ({listed(names)}); add it, or add the class "
            "'other' to collect the rest"
        )
    labels = np.array([place.get(text, place.get("other", 0)) for text in texts], np.int32)
    if whole and labels.min() == labels.max():
        raise ValueError(
            f"{table.path}: every record has the same label ({names[labels[0]]!r}), so there is nothing to learn; bring records of several kinds"
        )
    return TableLabel(labels, names, None, labels, uncovered=uncovered)


def _several(table: Table, names: Sequence[str], whole: bool) -> TableLabel:
    found = []
    for name in names:
        texts, seen = _values(table, name)
        flags = flag_values(texts)
        if flags is None:
            raise ValueError(
                f"{table.path}: the label {name!r} has the values {listed(seen, 8)}; of several labels each must be 0/1, true/false or yes/no: write it so, "
                f"or learn it alone as classes: {_declared_classes(seen)}"
            )
        if whole and min(flags) == max(flags):
            raise ValueError(
                f"{table.path}: every record has the same label {name!r} ({flags[0]:g}), so there is nothing to learn from it; leave it out of --label"
            )
        found.append(flags)
    labels = np.array(found).T.astype(np.int32)
    return TableLabel(labels, tuple(names), None, labels)


def _number(table: Table, label: str, bounds: tuple[float, float], whole: bool) -> TableLabel:
    texts = table.columns[label]
    comma = table.delimiter != ","
    values = numeric(texts, comma)
    if values is None:
        odd = next(row for row, text in enumerate(texts) if numeric_or_none(text, comma) is None)
        raise ValueError(
            f"{table.path}, line {table.lines[odd]}: the label {label!r} has bounds, so it must be a number; saw {texts[odd]!r}; correct it, or declare its "
            f"values as classes: {_declared_classes(['A', 'B', 'C'])}"
        )
    low, high = bounds
    labels = np.clip(np.array(values), low, high)
    if whole and labels.min() == labels.max():
        raise ValueError(
            f"{table.path}: every label lies at {labels[0]:g} after it is clipped to {low:g}..{high:g}, so there is nothing to learn; correct --label-bounds"
        )
    strata = np.minimum((labels - low) / (high - low) * _STRATA, _STRATA - 1).astype(np.int32)
    note = f"{label}: values outside {low:g}..{high:g} are clipped to that range"
    return TableLabel(labels.astype(np.float32), (label,), bounds, strata, (note,))


def _values(table: Table, name: str) -> tuple[list[str], list[str]]:
    """The texts of a column and its different values, in order."""
    texts = [canonical(text) for text in table.columns[name]]
    refuse_spellings(table.path, "label", texts, table.lines)
    return texts, sorted(set(texts))


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError(f"label is {name!r}; expected the name of one column, as text, or a list of such names")


def _check_classes(classes: Any) -> None:
    if classes is None or (isinstance(classes, str) and classes == FROM_DATA):
        return
    named = not isinstance(classes, str | Mapping) and isinstance(classes, Sequence)
    if not named or not all(isinstance(each, str | int) and not isinstance(each, bool) for each in classes):
        raise ValueError(
            f"classes is {classes!r}; expected a list of label values or 'from_data': {_declared_classes(['A', 'B', 'C'])}"
        )
    if not 2 <= len(classes) <= MOST_CLASSES or len({str(each) for each in classes}) < len(classes):
        raise ValueError(
            f"classes are {list(classes)!r}; expected 2 to {MOST_CLASSES} different ones: {_declared_classes(['A', 'B', 'other'])}"
        )


def _check_bounds(bounds: Any) -> None:
    if bounds is None:
        return
    two = isinstance(bounds, Sequence) and not isinstance(bounds, str) and len(bounds) == 2
    if not two or not all(is_finite(end) and abs(end) <= LARGEST_VALUE for end in bounds) or not bounds[0] < bounds[1]:
        raise ValueError(
            f"label_bounds is {bounds!r}; expected the public range of the label, two finite numbers, lower < upper: {_declared_bounds()}"
        )
    if not math.isfinite(float(np.float32(bounds[1]) - np.float32(bounds[0]))) or np.float32(bounds[0]) == np.float32(
        bounds[1]
    ):
        raise ValueError(
            f"label_bounds {bounds!r} are too close for single precision (24 bits); subtract a constant or change the unit"
        )


def _declared_classes(values: Sequence[str]) -> str:
    return _listed_option("classes", [*values[:6], "other"] if len(values) > 6 else values)


def _listed_option(name: str, values: Sequence[str]) -> str:
    """A list in both spellings."""
    return f"--{name} {shlex.quote(','.join(values))} ({name}={list(values)!r} in Python)"


def _declared_bounds() -> str:
    return "--label-bounds 0 100 (label_bounds=(0, 100) in Python)"
