"""Tables of times to an event: a label for "within the horizon", and the times themselves for a C-index."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fedjax_poisson.data.sites import Sites
from fedjax_poisson.data.splitting import SplitRules
from fedjax_poisson.data.tables.columns import Missing, column_of, flag_values
from fedjax_poisson.data.tables.csv_table import Table, line_list, numeric, read_table
from fedjax_poisson.data.tables.declarations import is_finite
from fedjax_poisson.data.tables.labels import TableLabel, refuse_missing
from fedjax_poisson.data.tables.remedies import option
from fedjax_poisson.data.tables.spec import TableSpec, check_spec
from fedjax_poisson.data.tables.suspicion import refuse_thousands
from fedjax_poisson.data.tables.tabular import (
    Bounds,
    Levels,
    feature_columns,
    table_records,
    without_gaps,
)


class Survival(NamedTuple):
    """Records of several sites with their times.

    Attributes:
        sites: The records; the label is whether the event came by the horizon.
        time: float64 `[n]`, in the file's unit, when the event or the censoring was; the order of `sites`.
        event: bool `[n]`, True where the event was seen.
    """

    sites: Sites
    time: np.ndarray
    event: np.ndarray


def from_survival_csv(
    path: str | os.PathLike[str],
    *,
    time: str,
    event: str,
    site: str,
    horizon: float | None = None,
    patient: str | None = None,
    categorical: Levels = None,
    bounds: Bounds = "from_data",
    missing: Missing = "impute",
    fill: Mapping[str, float] | None = None,
    drop: Sequence[str] = (),
    sites_per_patient: int = 1,
    min_site_records: int = 20,
    test_fraction: float = 0.34,
    split_seed: int = 0,
    delimiter: str | None = None,
    encoding: str = "utf-8-sig",
) -> Survival:
    """Read a table with a time and an event column.

    Neither becomes a feature. With a horizon the label is 1 where the event came at or before it and 0 where the record was
    followed to it without one; a record censored earlier has no label and is left out, which `Sites.provenance` counts.
    Leaving it out is harmless only if censoring has nothing to do with risk. Without a horizon all records are kept and the
    label is whether the event was seen at all, which depends on how long each was followed: use it with the times, not alone.

    Args:
        path: The file, as for `from_csv`.
        time: Column of the time to the event or to censoring, a number that is not negative.
        event: Column that says which of the two it is: 0/1, true/false or yes/no, 1 being the event.
        site: Column that says where a record is from.
        horizon: In the unit of `time`, or None.
        patient: Column that says whose record it is.
        categorical: As for `from_csv`, and so are all that follow.
        bounds: Public ranges of numeric columns.
        missing: What to do about missing values.
        fill: Values for missing numbers by column.
        drop: Columns to leave out.
        sites_per_patient: The most sites that a patient may have records at.
        min_site_records: Sites with fewer records are merged into the site "other".
        test_fraction: Fraction of each site's patients held out.
        split_seed: Seed of that split.
        delimiter: Field separator, found from the header if None.
        encoding: Text encoding of the file.

    Returns:
        The records with their times, in one order.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As for `from_csv`; or a time or event is missing or malformed, or all labels are equal; the message names
            the line.
    """
    if horizon is not None and not (is_finite(horizon) and horizon > 0):
        raise ValueError(f"horizon is {horizon!r}; expected a positive time in the unit of {time!r}, or None")
    spec = TableSpec(
        site=site,
        patient=patient,
        categorical=categorical,
        bounds=bounds,
        missing=missing,
        fill=fill,
        drop=drop,
        rules=SplitRules(
            sites_per_patient=sites_per_patient,
            min_site_records=min_site_records,
            test_fraction=test_fraction,
            split_seed=split_seed,
        ),
    )
    check_spec(spec, event=event, site=site, time=time)
    table = read_table(path, delimiter=delimiter, encoding=encoding)
    columns = feature_columns(table, spec, event, time=time)
    table, dropped = without_gaps(table, [event, time, *columns], missing)
    refuse_missing(table, site, "site", "name every record's site")  # also of those that the horizon leaves out
    followed = _Followed(table, _times(table, time), _events(table, event))
    if horizon is None:
        labels, names = followed.event.astype(np.int32), (f"{event}=0", f"{event}=1")
        notes = ["no horizon: label 1 = the event was seen"]
    else:
        followed, lost = _with_a_label(followed, horizon)
        labels = (followed.event & (followed.time <= horizon)).astype(np.int32)
        names = (f"no {event} by {time} {horizon:g}", f"{event} by {time} {horizon:g}")
        notes = [
            f"label 1 = {event} at {time} <= {horizon:g}; {lost} records censored before that have no label, left out"
        ]
    if len(labels) == 0 or labels.min() == labels.max():
        raise ValueError(
            f"{table.path}: every record has the same label ({names[0]} or {names[1]}); choose another horizon"
        )
    sites = table_records(
        followed.table, spec, columns, TableLabel(labels, names, None, labels, tuple(notes)), notes=dropped
    )
    return Survival(sites, followed.time, followed.event)


class _Followed(NamedTuple):
    table: Table
    time: np.ndarray
    event: np.ndarray


def _with_a_label(followed: _Followed, horizon: float) -> tuple[_Followed, int]:
    """The records that had the event by the horizon or were followed to it, and how many were not."""
    table, times, seen = followed
    kept = np.flatnonzero((seen & (times <= horizon)) | (times >= horizon))
    table = table._replace(
        columns={name: [texts[row] for row in kept] for name, texts in table.columns.items()},
        lines=[table.lines[row] for row in kept],
    )
    return _Followed(table, times[kept], seen[kept]), len(times) - len(kept)


def _times(table: Table, name: str) -> np.ndarray:
    refuse_missing(table, name, "time", f"fill them in, or leave such records out: {option('missing', 'drop')}")
    comma = table.delimiter != ","
    refuse_thousands(column_of(table.path, name, table.columns[name], table.lines, np.ones(0, bool), comma))
    for text, line in zip(table.columns[name], table.lines, strict=True):
        parsed = numeric([text], comma)
        if parsed is None or parsed[0] < 0:
            raise ValueError(f"{table.path}, line {line}: {name} should be a time, a number of 0 or more; saw {text!r}")
    return np.array(numeric(table.columns[name], comma), np.float64)


def _events(table: Table, name: str) -> np.ndarray:
    refuse_missing(table, name, "event", f"fill them in, or leave such records out: {option('missing', 'drop')}")
    parsed = flag_values(table.columns[name])
    if parsed is None:
        odd = [line for line, text in zip(table.lines, table.columns[name], strict=True) if flag_values([text]) is None]
        seen = ", ".join(sorted(set(table.columns[name]))[:8])
        where = f" (look at {line_list(odd)})" if odd else ""
        raise ValueError(f"{table.path}: {name} should be 0/1, true/false or yes/no; it holds {seen}{where}")
    return np.array(parsed) == 1
