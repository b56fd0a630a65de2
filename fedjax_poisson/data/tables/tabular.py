"""A user's table as `Sites`: one delimited text file, one line per record, and one column that names the site."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from fedjax_poisson.data.blocks import join
from fedjax_poisson.data.one_site import OneSite, placed_among
from fedjax_poisson.data.placement import Placement, place_records, table_sites
from fedjax_poisson.data.sites import Provenance, Sites
from fedjax_poisson.data.splitting import SplitRules
from fedjax_poisson.data.tables.columns import Column, FromData, Missing, column_of, encode
from fedjax_poisson.data.tables.csv_table import Table, canonical, read_table
from fedjax_poisson.data.tables.declarations import checked_levels
from fedjax_poisson.data.tables.labels import LabelSpec, TableLabel, check_label, read_label, refuse_missing
from fedjax_poisson.data.tables.remedies import option
from fedjax_poisson.data.tables.schema import Encoder, Schema, spec_of
from fedjax_poisson.data.tables.spec import TableSpec, check_spec
from fedjax_poisson.data.tables.suspicion import label_copies, refuse_constants, refuse_spellings
from fedjax_poisson.data.tables.warnings import learned_facts, people_warnings, split_warnings

Bounds = Mapping[str, tuple[float, float] | FromData] | FromData
Levels = Mapping[str, Sequence[str] | FromData] | FromData | None
_Declaration = TypeVar("_Declaration")
_Word = TypeVar("_Word", bound=str)


def from_csv(
    path: str | os.PathLike[str],
    *,
    label: str | Sequence[str],
    site: str | OneSite,
    patient: str | None = None,
    positive: str | Sequence[str] | None = None,
    classes: Sequence[str] | FromData | None = None,
    label_bounds: Sequence[float] | None = None,
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
) -> Sites:
    """Read a table with a label and a site column.

    The label has two values, unless declared otherwise: `classes` for one of several, a list of columns for several yes/no labels of each record,
    `label_bounds` for a number.

    Columns that are neither label, site nor patient become features: numbers as they are, yes/no columns as 0/1, other
    text one-hot over its levels. Anything not declared that had to be read from the records (ranges of numbers by
    default, levels only on request) is listed in `Sites.uncovered`: no epsilon covers such facts. The kind of
    each column (number, yes/no, text) is assumed to be public, like its name.

    Args:
        path: The file: comma, semicolon, tab or bar separated, UTF-8, header line first; `.gz` is unpacked.
        label: Column of the label, or a list of columns that are 0/1, true/false or yes/no.
        site: Column that gives the site of a record; or `OneSite`, where all records are of one site and those of the others lie elsewhere.
        patient: Column that identifies the patient of a record. With it the patient is the privacy unit and is never split between
            training and test; without it the record is.
        positive: The label value (or values) that count as 1; needed unless the label is 0/1, true/false or yes/no.
        classes: The values of a label with several, in order; "other" collects undeclared ones. `"from_data"` takes those in the
            table, which is not private.
        label_bounds: `(lower, upper)`, the public range of a label that is a number; values outside are clipped to it.
        categorical: Levels of text columns, `{"sex": ["F", "M"]}`; the level "other" collects undeclared values, the
            level "missing" takes missing ones. A column's `"from_data"` (or `"from_data"` for all) takes the levels
            from the records, which is not private.
        bounds: Public ranges of numeric columns, `{"age": (0, 110)}`; every number needs one, or `"from_data"` in its
            place. The default `"from_data"` takes all ranges from the training records, which is not private.
        missing: "impute" sets a missing number to `fill`, else to the middle of its declared range (the training median
            if the range is from the data), a missing flag to 0 and a missing category to no level; "indicate" does so
            and adds a 0/1 feature `<column>_missing` for every column; "drop" leaves out records with a missing value;
            "refuse" stops at the first.
        fill: Values for missing numbers by column.
        drop: Columns to leave out.
        sites_per_patient: The largest number of sites at which a patient may have records; more are refused
            (`splitting.check_sites_per_patient` says what each costs).
        min_site_records: Sites with fewer records are merged into the site "other".
        test_fraction: Fraction of each site's patients held out.
        split_seed: Seed of that split.
        delimiter: Field separator, detected from the header if None.
        encoding: Text encoding of the file.

    Returns:
        The records, with sites in the order of their names.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: An argument has the wrong type, a column does not exist, the label is not binary, a site, label or patient
            is missing, a value is outside its declared levels, a column is an identifier, a date, constant or a copy of the
            label, or the file is malformed; the message names column, line and remedy.
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
    declared = LabelSpec(label, positive, classes, label_bounds, whole=not isinstance(site, OneSite))
    check_label(declared)
    check_spec(spec, site=site)
    table = read_table(path, delimiter=delimiter, encoding=encoding)
    columns = feature_columns(table, spec, label)
    table, dropped = without_gaps(table, [*declared.columns, *columns], missing)
    return table_records(table, spec, columns, read_label(table, declared), notes=dropped)


def table_records(
    table: Table, spec: TableSpec, columns: Sequence[str], label: TableLabel, *, notes: Sequence[str]
) -> Sites:
    """Records of a table whose labels are known, read as `spec` says."""
    placement, places, people = place_table(table, spec, label.strata)
    parts = [
        column_of(table.path, name, table.columns[name], table.lines, placement.train, table.delimiter != ",")
        for name in columns
    ]
    alone = isinstance(spec.site, OneSite)  # what one site's records have in common says nothing about all
    warnings = [] if alone else split_warnings(table.path, label, placement)
    warnings += people_warnings(people, len(placement.site_names if alone else set(places)))
    warnings += label_copies(parts, label)
    levels = checked_levels(spec.categorical)
    blocks, specs = [], []
    for column in parts:
        range_, value = declared_for(spec.bounds, column.name), (spec.fill or {}).get(column.name)
        made = encode(column, levels=declared_for(levels, column.name), bounds=range_, missing=spec.missing, fill=value)
        blocks.append(made)
        specs.append(spec_of(column, made, bounds=range_, fill=value))
    block = join(blocks)
    if not alone:
        refuse_constants([column for column in parts if not _speaks_of(column, spec)])
    return table_sites(
        block,
        label.values,
        placement,
        label.names,
        table_provenance(table, [*notes, *label.notes]),
        only=only_of(spec),
        label_bounds=label.bounds,
        warnings=[*block.warnings, *warnings],
        uncovered=[*label.uncovered, *learned_facts(block.learned)],
        encoder=Encoder(Schema(tuple(specs), spec.missing)),
    )


def table_provenance(table: Table, notes: Sequence[str]) -> Provenance:
    """The source of a user's table, and its name on a ledger."""
    return Provenance(
        name=os.path.basename(table.path), source=table.path, notes=tuple(notes), identity=table_identity(table)
    )


def place_table(table: Table, spec: TableSpec, labels: np.ndarray) -> tuple[Placement, list[str], list[str] | None]:
    """Sites, patients and split of a table, and the names that they were made from.

    Args:
        table: Its text.
        spec: Names the columns of the site and the patient, and has the rules.
        labels: int32 `[n]` or `[n, K]`, what the split is stratified by.

    Raises:
        ValueError: A site or patient is missing, or a site is spelt in two ways; or as in `place_records`.
    """
    if not isinstance(spec.site, OneSite):
        refuse_missing(table, spec.site, "site", "name every record's site")
    if spec.patient is not None:
        refuse_missing(table, spec.patient, "patient", "give every record a patient")
    people = None if spec.patient is None else [canonical(text) for text in table.columns[spec.patient]]
    if isinstance(spec.site, OneSite):
        places = [spec.site.name] * len(table.lines)
        rules = dataclasses.replace(spec.rules, min_site_records=1)
        alone = place_records(labels, places, people, rules, source=table.path)
        return placed_among(alone, spec.site), places, people
    places = [canonical(text) for text in table.columns[spec.site]]
    refuse_spellings(table.path, "site", places, table.lines)
    return place_records(labels, places, people, spec.rules, source=table.path), places, people


def only_of(spec: TableSpec) -> str | None:
    """The one site whose records a table holds; None where a column names several."""
    return spec.site.name if isinstance(spec.site, OneSite) else None


def _speaks_of(column: Column, spec: TableSpec) -> bool:
    """Whether a constant column was meant: something was declared about it, or its gaps are a feature."""
    declared = any(
        declared_for(each, column.name) not in (None, "from_data") for each in (spec.categorical, spec.bounds)
    )
    return declared or (spec.missing == "indicate" and bool(column.missing.any()))


def feature_columns(table: Table, spec: TableSpec, label: str | Sequence[str], **others: str) -> list[str]:
    """The columns to learn from: all that have no role and are not dropped; `others` are further roles.

    Raises:
        ValueError: A named column does not exist, or a declaration contradicts its role.
    """
    own = {"label": label} if isinstance(label, str) else {f"label {k}": name for k, name in enumerate(label, 1)}
    sited = {} if isinstance(spec.site, OneSite) else {"site": spec.site}
    roles = own | sited | others | ({} if spec.patient is None else {"patient": spec.patient})
    for role, name in roles.items():
        table.column(name, role)
    if len(set(roles.values())) < len(roles):
        given = ", ".join(f"{role} {name!r}" for role, name in roles.items())
        raise ValueError(f"{table.path}: {', '.join(roles)} must be different columns; got {given}")
    role_of = {name: role for role, name in roles.items()}
    for name in spec.drop:
        table.column(name, "drop")
        if name in role_of:
            raise ValueError(
                f"{table.path}: drop names the column {name!r}, which is the {role_of[name]}; name it once"
            )
    unused = {*role_of, *spec.drop}
    columns = [name for name in table.columns if name not in unused]
    if not columns:
        raise ValueError(f"{table.path}: no column is left to learn from except {', '.join(roles.values())}")
    for role, declared in (("categorical", spec.categorical), ("bounds", spec.bounds), ("fill", spec.fill)):
        for name in declared if isinstance(declared, Mapping) else ():
            table.column(name, role)
            if name in unused:
                what = f"is the {role_of[name]}" if name in role_of else "is dropped"
                raise ValueError(f"{role} names the column {name!r}, which {what}; leave it out of {role}")
    listed_twice = [set(each) if isinstance(each, Mapping) else set() for each in (spec.categorical, spec.bounds)]
    both = listed_twice[0] & listed_twice[1]
    if both:
        raise ValueError(
            f"declared both as categorical and with bounds: {', '.join(sorted(both))}; a column is one or the other"
        )
    return columns


def declared_for(declared: Mapping[str, _Declaration] | _Word | None, name: str) -> _Declaration | _Word | None:
    """The user's declaration for one column: an entry of the mapping, or the word that applies to all columns."""
    return declared.get(name) if isinstance(declared, Mapping) else declared


def without_gaps(table: Table, names: Sequence[str], missing: Missing) -> tuple[Table, list[str]]:
    """Apply the policies that look at whole records: "drop" and "refuse"."""
    if missing not in ("drop", "refuse"):
        return table, []
    kept = []
    for row, line in enumerate(table.lines):
        gaps = [name for name in names if table.columns[name][row] == ""]
        if gaps and missing == "refuse":
            raise ValueError(
                f"{table.path}, line {line}: no value in {', '.join(gaps)}; "
                f"fill it in, or take another policy: {option('missing', 'impute')}, 'indicate' or 'drop'"
            )
        if not gaps:
            kept.append(row)
    if not kept:
        raise ValueError(
            f"{table.path}: every record has a missing value, so 'drop' leaves none; use {option('missing', 'impute')}"
        )
    columns = {name: [values[row] for row in kept] for name, values in table.columns.items()}
    count = len(table.lines) - len(kept)
    notes = [f"{count} of {len(table.lines)} records with a missing value dropped"] if count else []
    return table._replace(columns=columns, lines=[table.lines[row] for row in kept]), notes


def table_identity(table: Table) -> str:
    """What names a table on a ledger: its file's name and the names of its columns, whatever part they play in a run."""
    columns = "\n".join(sorted(table.columns))
    return f"{os.path.basename(table.path)}, {len(table.columns)} columns {hashlib.sha256(columns.encode()).hexdigest()[:12]}"
