"""A user's own table as `Sites`: one delimited text file, one line for each record, one column that names the site."""

from __future__ import annotations

import collections
import os
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from .blocks import join
from .columns import Column, FromData, Missing, encode, flag_values
from .csv_table import Table, canonical, line_list, read_table
from .layout import lay_out, table_sites
from .sites import Sites

Bounds = Mapping[str, tuple[float, float] | FromData] | FromData
Levels = Mapping[str, Sequence[str] | FromData] | FromData | None
_Declaration = TypeVar("_Declaration")
_Word = TypeVar("_Word", bound=str)


def from_csv(
    path: str | os.PathLike[str],
    *,
    label: str,
    site: str,
    patient: str | None = None,
    positive: str | Sequence[str] | None = None,
    categorical: Levels = None,
    bounds: Bounds = "from_data",
    missing: Missing = "impute",
    fill: Mapping[str, float] | None = None,
    drop: Sequence[str] = (),
    min_site_records: int = 20,
    test_fraction: float = 0.34,
    split_seed: int = 0,
    delimiter: str | None = None,
    encoding: str = "utf-8-sig",
) -> Sites:
    """Read a table with a binary label and a site column.

    Columns that are neither label, site nor patient become features: numbers as they are, yes/no columns as 0/1, other
    text one-hot over its levels. What is not declared and had to be looked up in the records (ranges of numbers by
    default, levels only on request) is listed in `Sites.warnings`: such facts are not covered by epsilon. The kind of
    each column (number, yes/no, text) is taken to be public, as its name is.

    Args:
        path: The file: comma, semicolon, tab or bar separated, UTF-8, header line first; `.gz` is unpacked.
        label: Column of the label.
        site: Column that says where a record is from.
        patient: Column that says whose record it is. With it the patient is the privacy unit and is never split between
            training and test; without it the record is.
        positive: The label value (or values) that count as 1; needed unless the label is 0/1, true/false or yes/no.
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
        min_site_records: Sites with fewer records are merged into the site "other".
        test_fraction: Fraction of each site's patients held out.
        split_seed: Seed of that split.
        delimiter: Field separator, found from the header if None.
        encoding: Text encoding of the file.

    Returns:
        The records, sites in the order of their names.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A column does not exist, the label is not binary, a site, label or patient is missing, a value is
            outside its declared levels, or the file is malformed; the message names column, line and remedy.
    """
    table = read_table(path, delimiter=delimiter, encoding=encoding)
    columns = feature_columns(table, label, site, patient, drop, categorical, bounds, fill)
    if missing not in ("impute", "indicate", "drop", "refuse"):
        raise ValueError(f"missing is {missing!r}; expected 'impute', 'indicate', 'drop' or 'refuse'")
    table, dropped = without_gaps(table, [label, *columns], missing)
    refuse_missing(table, site, "site", "name every record's site")
    refuse_missing(table, label, "label", "fill them in, or leave such records out with missing='drop'")
    labels, class_names, coded = binary_label(table, label, positive)
    return table_records(
        table,
        columns,
        labels,
        class_names,
        site=site,
        patient=patient,
        categorical=categorical,
        bounds=bounds,
        missing=missing,
        fill=fill,
        min_site_records=min_site_records,
        test_fraction=test_fraction,
        split_seed=split_seed,
        notes=[*dropped, *coded],
    )


def table_records(
    table: Table,
    columns: Sequence[str],
    labels: np.ndarray,
    class_names: tuple[str, ...],
    *,
    site: str,
    patient: str | None,
    categorical: Levels,
    bounds: Bounds,
    missing: Missing,
    fill: Mapping[str, float] | None,
    min_site_records: int,
    test_fraction: float,
    split_seed: int,
    notes: Sequence[str],
) -> Sites:
    """Records of a table whose labels are known, int32 `[n]`; the other arguments are those of `from_csv`."""
    if patient is not None:
        refuse_missing(table, patient, "patient", "give every record a patient")
    layout = lay_out(
        labels,
        [canonical(text) for text in table.columns[site]],
        None if patient is None else [canonical(text) for text in table.columns[patient]],
        min_site_records=min_site_records,
        test_fraction=test_fraction,
        split_seed=split_seed,
    )
    block = join(
        [
            encode(
                Column(table.path, name, table.columns[name], table.lines, layout.train, table.delimiter != ","),
                levels=declared_for(categorical, name),
                bounds=declared_for(bounds, name),
                missing=missing,
                fill=(fill or {}).get(name),
            )
            for name in columns
        ]
    )
    return table_sites(
        block,
        labels,
        layout,
        class_names=class_names,
        name=os.path.basename(table.path),
        source=table.path,
        notes=notes,
        warnings=learned_facts(block.learned),
    )


def feature_columns(
    table: Table,
    label: str,
    site: str,
    patient: str | None,
    drop: Sequence[str],
    categorical: Levels,
    bounds: Bounds,
    fill: Mapping[str, float] | None,
    **others: str,
) -> list[str]:
    """The columns to learn from: all that have no role and are not dropped; `others` are further roles.

    Raises:
        ValueError: A named column does not exist, or a declaration contradicts its role.
    """
    roles = {"label": label, "site": site, **others} | ({} if patient is None else {"patient": patient})
    for role, name in roles.items():
        table.column(name, role)
    if len(set(roles.values())) < len(roles):
        raise ValueError(f"{table.path}: {', '.join(roles)} must be different columns; got {roles}")
    for name in drop:
        table.column(name, "drop")
    columns = [name for name in table.columns if name not in (*roles.values(), *drop)]
    if not columns:
        raise ValueError(f"{table.path}: no column is left to learn from beside {', '.join(roles.values())}")
    for role, declared in (("categorical", categorical), ("bounds", bounds), ("fill", fill)):
        for name in declared if isinstance(declared, Mapping) else ():
            table.column(name, role)
            if name not in columns:
                raise ValueError(f"{role} names the column {name!r}, which is dropped or is the label, site or patient")
    both = set(categorical if isinstance(categorical, Mapping) else ()) & set(
        bounds if isinstance(bounds, Mapping) else ()
    )
    if both:
        raise ValueError(
            f"declared both as categorical and with bounds: {', '.join(sorted(both))}; a column is one or the other"
        )
    return columns


def declared_for(declared: Mapping[str, _Declaration] | _Word | None, name: str) -> _Declaration | _Word | None:
    """What a user said about one column: an entry of the mapping, or the word that stands for all columns."""
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
                "fill it in, or pass missing='impute', 'indicate' or 'drop'"
            )
        if not gaps:
            kept.append(row)
    if not kept:
        raise ValueError(f"{table.path}: every record has a missing value, so missing='drop' leaves none; use 'impute'")
    columns = {name: [values[row] for row in kept] for name, values in table.columns.items()}
    count = len(table.lines) - len(kept)
    notes = [f"{count} of {len(table.lines)} records with a missing value dropped"] if count else []
    return table._replace(columns=columns, lines=[table.lines[row] for row in kept]), notes


def binary_label(
    table: Table, label: str, positive: str | Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, str], list[str]]:
    """Labels int32 `[n]` of 0 and 1, the names of the two classes, and notes on how they were coded."""
    texts = [canonical(text) for text in table.columns[label]]
    seen = sorted(set(texts))
    if positive is None:
        flags = flag_values(texts)
        if flags is None:
            counts = collections.Counter(texts)
            rare = min(seen, key=lambda text: counts[text])
            lines = [line for line, text in zip(table.lines, texts, strict=True) if text == rare]
            where = f" ({rare!r} is on {line_list(lines)})" if len(lines) <= 5 else ""
            raise ValueError(
                f"{table.path}: the label {label!r} is not binary: it has {len(seen)} values, {', '.join(seen[:8])}"
                f"{', ...' if len(seen) > 8 else ''}{where}. "
                f"Say which count as 1, for example positive={seen[-1]!r}"
            )
        labels = np.array(flags).astype(np.int32)
        names, note = (f"{label}=0", f"{label}=1"), []
    else:
        wanted = [canonical(value) for value in ([positive] if isinstance(positive, str) else positive)]
        unknown = [value for value in wanted if value not in seen]
        if unknown:
            raise ValueError(
                f"{table.path}: no record has the label {unknown[0]!r}; the values of {label!r} are {', '.join(seen)}"
            )
        labels = np.isin(texts, wanted).astype(np.int32)
        names = (f"{label} other", f"{label}={'|'.join(wanted)}")
        note = [f"label 1 = {label} in ({', '.join(wanted)}), 0 = any other value"]
    if labels.min() == labels.max():
        raise ValueError(f"{table.path}: every record has the same label ({labels[0]}); there is nothing to learn")
    return labels, names, note


def refuse_missing(table: Table, name: str, role: str, remedy: str) -> None:
    """Refuse a column with a missing value, with the lines where it is missing."""
    lines = [line for line, text in zip(table.lines, table.columns[name], strict=True) if text == ""]
    if lines:
        raise ValueError(f"{table.path}: no {role} in column {name!r} on {line_list(lines)}; {remedy}")


def learned_facts(learned: Sequence[tuple[str, str]]) -> list[str]:
    """One warning for each kind of fact that was taken from the records (`Block.learned`), with the declaration that would replace it."""
    warnings = []
    for argument in ("bounds", "categorical", "fill"):
        facts = [fact for kind, fact in learned if kind == argument]
        if facts:
            warnings.append(
                f"taken from the records, so not covered by epsilon: {argument}={{{', '.join(facts)}}}. "
                f"Replace these by values that are public whatever the records are, and declare them as {argument}"
            )
    return warnings
