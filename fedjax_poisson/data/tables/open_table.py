"""A user's table whose ranges or levels are still to be released: read, typed and split, but not encoded.

`from_csv` needs ranges and levels; undeclared ones are read from the records, which no epsilon covers. Here they stay open: the
table gives the public bin of each training record, a private histogram is released over the bins (`federated.private_columns`), and
the table is encoded with the released facts.

The following are still assumed to be public, and the notes say so: names of columns, labels and sites, and the kind of each column (number, yes/no,
text), which is read from the records unless the column is named in `bounds` or `categorical`. No error depends on how often a value occurs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from fedjax_poisson.data.one_site import OneSite
from fedjax_poisson.data.placement import Placement, table_sites
from fedjax_poisson.data.sites import Sites
from fedjax_poisson.data.splitting import SplitRules
from fedjax_poisson.data.tables.bins import BUCKETS, LINEAR, OCTAVES, linear_bins, octave_bins, text_buckets
from fedjax_poisson.data.tables.columns import Column, FromData, Missing, column_of, encode, flag_values
from fedjax_poisson.data.tables.csv_table import Table, canonical, numeric, read_table
from fedjax_poisson.data.tables.declarations import check_missing
from fedjax_poisson.data.tables.labels import LabelSpec, TableLabel, check_label, read_label
from fedjax_poisson.data.tables.schema import ColumnSpec, Encoder, Released, Schema, encode_columns
from fedjax_poisson.data.tables.spec import TableSpec
from fedjax_poisson.data.tables.tabular import (
    declared_for,
    feature_columns,
    only_of,
    place_table,
    table_provenance,
    without_gaps,
)
from fedjax_poisson.data.tables.warnings import learned_facts

Private = Literal["private"]
Bounds = Mapping[str, tuple[float, float] | FromData | Private] | FromData | Private
Levels = Mapping[str, Sequence[str] | FromData | Private] | FromData | Private | None


class OpenTable(NamedTuple):
    """A table with open columns.

    Attributes:
        table: Its text.
        schema: Its feature columns.
        label: The label of every record.
        placement: Sites, patients and split.
        notes: What was done.
        uncovered: As in `Sites`.
        only: As in `Sites`.
    """

    table: Table
    schema: Schema
    label: TableLabel
    placement: Placement
    notes: tuple[str, ...]
    uncovered: tuple[tuple[str, str], ...]
    only: str | None = None


class Binned(NamedTuple):
    """Which bins the training records fall into.

    Attributes:
        bins: int32 `[n, columns]`, coordinates of one long histogram; -1 where a record has no value.
        site: int32 `[n]`.
        group: int64 `[n]`, whose record it is.
        size: Length of the histogram.
    """

    bins: np.ndarray
    site: np.ndarray
    group: np.ndarray
    size: int


def read_open(
    path: str | os.PathLike[str],
    *,
    label: str | Sequence[str],
    site: str | OneSite,
    patient: str | None = None,
    positive: str | Sequence[str] | None = None,
    classes: Sequence[str] | FromData | None = None,
    label_bounds: Sequence[float] | None = None,
    categorical: Levels = "private",
    bounds: Bounds = "private",
    missing: Missing = "impute",
    fill: Mapping[str, float] | None = None,
    drop: Sequence[str] = (),
    sites_per_patient: int = 1,
    min_site_records: int = 1,
    test_fraction: float = 0.34,
    split_seed: int = 0,
    delimiter: str | None = None,
    encoding: str = "utf-8-sig",
) -> OpenTable:
    """Read a table and leave open what is "private".

    Args:
        path: The file; it and all other arguments are those of `from_csv`, except:
        label: Label column, or several.
        site: Site column, or the one site of all records.
        patient: Patient column, or None where the record is the unit.
        positive: Label values that count as 1.
        classes: Values of a label with several.
        label_bounds: Public range of a label that is a number.
        categorical: "private" leaves the levels of all text columns open; in a mapping, those of a column, which is then
            declared to be text.
        bounds: "private" leaves the ranges of all numbers open; in a mapping, that of a column, which is then declared to be a
            number.
        missing: As in `from_csv`.
        fill: Declared values for missing numbers; an open number is filled with its released median otherwise.
        drop: Columns to leave out.
        sites_per_patient: The most sites that a patient may have records at.
        min_site_records: Sites with fewer records are merged into "other". Which do is a fact taken from the records, so
            anything but 1, no merging, is in `uncovered`.
        test_fraction: Fraction of each site's patients held out.
        split_seed: Seed of that split.
        delimiter: Field separator.
        encoding: Text encoding.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As in `from_csv`.
    """
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
    check_missing(missing)
    declared = LabelSpec(label, positive, classes, label_bounds, whole=not isinstance(site, OneSite))
    check_label(declared)
    table = read_table(path, delimiter=delimiter, encoding=encoding)
    names = feature_columns(table, spec, label)
    table, _ = without_gaps(table, [*declared.columns, *names], missing)
    known = read_label(table, declared)
    placement, _, _ = place_table(table, spec, known.strata)
    found = [
        _specify(
            column_of(table.path, name, table.columns[name], table.lines, placement.train, table.delimiter != ","),
            declared_for(categorical, name),
            declared_for(bounds, name),
            missing,
            (fill or {}).get(name),
            is_text=_named(categorical, name),
            is_number=_named(bounds, name),
        )
        for name in names
    ]
    facts = [fact for _, learned in found for fact in learned]
    looked_up = [name for name in names if not (_named(categorical, name) or _named(bounds, name))]
    return OpenTable(
        table,
        Schema(tuple(spec for spec, _ in found), missing),
        known,
        placement,
        (*known.notes, *_kind_notes(looked_up)),
        (*known.uncovered, *learned_facts(facts)),
        only_of(spec),
    )


def first_bins(opened: OpenTable) -> Binned:
    """The first histogram: octaves of every open number, then buckets of every open text column; training records only."""
    numbers, texts = opened.schema.named("open_number"), opened.schema.named("open_text")
    bins = [octave_bins(_numbers(opened, name)) for name in numbers]
    bins += [text_buckets(name, opened.table.columns[name]) for name in texts]
    return _binned(opened, bins, [OCTAVES] * len(numbers) + [BUCKETS] * len(texts))


def refined_bins(opened: OpenTable, released: Released) -> Binned:
    """The second histogram: equal bins of the released range of every open number; training records only."""
    numbers = opened.schema.named("open_number")
    bins = [linear_bins(_numbers(opened, name), *released.ranges[name]) for name in numbers]
    return _binned(opened, bins, [LINEAR] * len(numbers))


def encode_sites(opened: OpenTable, released: Released | None) -> Sites:
    """The table as `Sites`, its open columns encoded by what was released about them."""
    block = encode_columns(opened.table, opened.schema, released, opened.placement.train)
    return table_sites(
        block,
        opened.label.values,
        opened.placement,
        opened.label.names,
        table_provenance(opened.table, [*opened.notes, *_released_notes(opened.schema)]),
        label_bounds=opened.label.bounds,
        uncovered=opened.uncovered,
        encoder=Encoder(opened.schema, released),
        only=opened.only,
    )


def _binned(opened: OpenTable, own: list[np.ndarray], widths: list[int]) -> Binned:
    train = opened.placement.train
    starts = np.concatenate([[0], np.cumsum(widths)]).astype(np.int32)
    columns = [np.where(bins < 0, -1, start + bins) for bins, start in zip(own, starts[:-1], strict=True)]
    bins = np.stack(columns, axis=1).astype(np.int32) if columns else np.zeros((len(train), 0), np.int32)
    return Binned(bins[train], opened.placement.site[train], opened.placement.group[train], int(starts[-1]))


def _numbers(opened: OpenTable, name: str) -> np.ndarray:
    parsed = numeric(opened.table.columns[name], opened.table.delimiter != ",")
    assert parsed is not None  # its kind says so
    return np.array(parsed)


def _specify(
    column: Column,
    levels: Sequence[str] | str | None,
    bounds: tuple[float, float] | str | None,
    missing: Missing,
    fill: float | None,
    *,
    is_text: bool,
    is_number: bool,
) -> tuple[ColumnSpec, tuple[tuple[str, str], ...]]:
    """The kind of one column, and what was taken from the records for it although it is not open ("from_data")."""
    name = column.name
    if levels is not None and not isinstance(levels, str):
        return ColumnSpec(name, "levels", levels=tuple(canonical(level) for level in levels)), ()
    if bounds is not None and not isinstance(bounds, str):
        return ColumnSpec(name, "number", bounds=(float(bounds[0]), float(bounds[1])), fill=fill), ()
    if is_text and levels == "private":
        return ColumnSpec(name, "open_text"), ()
    if not (is_text or is_number) and flag_values(column.texts) is not None:
        return ColumnSpec(name, "flag"), ()
    holds_numbers = numeric(column.texts, column.decimal_comma) is not None
    if holds_numbers and bounds == "private":
        return ColumnSpec(name, "open_number", fill=fill), ()
    if is_number and bounds == "private":
        place = next(i for i, text in enumerate(column.texts) if numeric([text], column.decimal_comma) is None)
        raise ValueError(
            f"{column.path}, line {column.lines[place]}: column {name!r} has bounds, so it must be a number; saw {column.texts[place]!r}"
        )
    if not holds_numbers and levels == "private":
        return ColumnSpec(name, "open_text"), ()
    block = encode(
        column,
        levels="from_data" if levels == "from_data" else None,
        bounds="from_data" if bounds == "from_data" else None,
        missing=missing,
        fill=fill,
    )
    if not holds_numbers:
        own = tuple(feature.removeprefix(f"{name}=") for feature in block.names if feature.startswith(f"{name}="))
        return ColumnSpec(name, "levels", levels=own), block.learned
    lower, upper = block.bounds[0]
    values = np.array(numeric(column.texts, column.decimal_comma))[column.train]
    middle = float(np.nanmedian(values)) if fill is None else fill
    return ColumnSpec(name, "number", bounds=(float(lower), float(upper)), fill=middle), block.learned


def _named(declared: Bounds | Levels, name: str) -> bool:
    return isinstance(declared, Mapping) and name in declared


def _kind_notes(looked_up: Sequence[str]) -> list[str]:
    if not looked_up:
        return []
    return [
        f"taken to be public: whether a column holds numbers, yes/no or text ({', '.join(looked_up)}); name a column in bounds or "
        "categorical to declare it"
    ]


def _released_notes(schema: Schema) -> list[str]:
    notes = []
    if numbers := schema.named("open_number"):
        notes.append(
            f"released privately: ranges and stand-ins for missing numbers of {', '.join(numbers)}, from noisy histograms"
        )
    if texts := schema.named("open_text"):
        notes.append(
            f"released privately: which of {BUCKETS} hash buckets of {', '.join(texts)} are frequent; a feature column#bucket stands for the "
            "levels in it, whose names were not released, column#other for all others"
        )
    notes.append("missing flags are 0; missing numbers are a released or declared value; missing text is a level")
    return notes
