"""The schema of a table: the kinds and declarations of its columns, and what was released about columns that declare neither range nor levels.

A column is *open* when its range or its levels are not declared and have to be released privately before it can be encoded. `encode_columns` is a
function of a schema, released facts and rows: training records and later rows are encoded by the same function, and nothing else
about the records determines the features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from fedjax_poisson.data.blocks import Block, flags, join
from fedjax_poisson.data.tables.bins import BUCKETS, text_buckets
from fedjax_poisson.data.tables.columns import Column, FromData, Missing, column_of, encode, flag_values, train_median
from fedjax_poisson.data.tables.csv_table import Table, numeric
from fedjax_poisson.data.tables.declarations import LARGEST_VALUE

Kind = Literal["number", "flag", "levels", "open_number", "open_text"]

MOST_LEVELS = 50
"""Levels of an open text column that become features, so that the number of features is bounded before anything is released."""


class ColumnSpec(NamedTuple):
    """What is publicly known about a column before anything is released.

    Attributes:
        name: Its name.
        kind: "number" with declared bounds, "flag" (0/1, yes/no), "levels" (declared), or "open_number" and "open_text".
        bounds: Declared range of a number.
        fill: Declared value for a missing number.
        levels: Declared levels.
    """

    name: str
    kind: Kind
    bounds: tuple[float, float] | None = None
    fill: float | None = None
    levels: tuple[str, ...] = ()


class Schema(NamedTuple):
    """All columns in the order of the file.

    Attributes:
        columns: One entry a column.
        missing: "indicate" adds a 0/1 feature for a missing value to every column; all else fills.
    """

    columns: tuple[ColumnSpec, ...]
    missing: Missing

    def named(self, kind: Kind) -> tuple[str, ...]:
        """Names of the columns of a kind."""
        return tuple(column.name for column in self.columns if column.kind == kind)


class Released(NamedTuple):
    """What was released about the open columns: a function of opened private sums and of nothing else.

    Attributes:
        ranges: Column to its range.
        fills: Column to the value for its missing numbers.
        levels: Column to the buckets that became features, in increasing order.
        refined: Whether the second release, of ranges, is in it.
    """

    ranges: Mapping[str, tuple[float, float]]
    fills: Mapping[str, float]
    levels: Mapping[str, tuple[int, ...]]
    refined: bool


class Encoder(NamedTuple):
    """How the rows of a table become features: fixed once, the same for the records that were learned from and for rows that come later.

    Attributes:
        schema: What the columns are.
        released: What was released about open columns; None where there are none.
    """

    schema: Schema
    released: Released | None = None


def spec_of(
    column: Column, block: Block, *, bounds: tuple[float, float] | FromData | None, fill: float | None
) -> ColumnSpec:
    """What `columns.encode` made of a column, as a specification that encodes later rows alike.

    Args:
        column: The column.
        block: What it became.
        bounds: As they were declared; `"from_data"` makes the training median the value for missing numbers.
        fill: As it was declared.
    """
    prefix = f"{column.name}="
    if block.names[0].startswith(prefix):
        levels = tuple(name[len(prefix) :] for name in block.names if name.startswith(prefix))
        return ColumnSpec(column.name, "levels", levels=levels)
    if block.binary[0]:
        return ColumnSpec(column.name, "flag")
    lower, upper = block.bounds[0].tolist()
    if fill is None and bounds == "from_data":
        fill = train_median(column)
    return ColumnSpec(column.name, "number", (lower, upper), None if fill is None else float(fill))


def most_features(schema: Schema) -> int:
    """A public bound on the number of features, whatever will be released."""
    widths = {"number": 1, "flag": 1, "open_number": 1, "open_text": MOST_LEVELS + 1}
    indicator = int(schema.missing == "indicate")
    return sum(widths.get(column.kind, len(column.levels)) + indicator for column in schema.columns)


def encode_columns(table: Table, schema: Schema, released: Released | None, train: np.ndarray | None = None) -> Block:
    """Features of the rows of a table; its notes do not count anything.

    A number keeps its value (clipping to its range comes later), or its fill where it is missing. An open text column becomes `name#bucket` for
    every released bucket and `name#other` for all that fall into none of them, values never seen before included.

    Args:
        table: Rows with at least the schema's columns.
        schema: What the columns are.
        released: What was released about open columns; None where there are none.
        train: bool `[n]`; for messages only.

    Raises:
        ValueError: A column is absent, a number is not one, or a declared level does not exist; the message names the line.
    """
    rows = len(table.lines)
    train = np.ones(rows, bool) if train is None else train
    return join([_encode_one(table, spec, schema.missing, released, train) for spec in schema.columns])


def encoder_to_json(encoder: Encoder) -> dict[str, Any]:
    """An encoder as JSON values; floats come back bit for bit."""
    released = None if encoder.released is None else released_to_json(encoder.released)
    return {"schema": schema_to_json(encoder.schema), "released": released}


def encoder_from_json(found: Mapping[str, Any]) -> Encoder:
    """What `encoder_to_json` wrote."""
    released = None if found["released"] is None else released_from_json(found["released"])
    return Encoder(schema_from_json(found["schema"]), released)


def schema_to_json(schema: Schema) -> dict[str, Any]:
    """A schema as JSON values."""
    return {"missing": schema.missing, "columns": [spec._asdict() for spec in schema.columns]}


def schema_from_json(found: Mapping[str, Any]) -> Schema:
    """What `schema_to_json` wrote."""
    columns = [
        ColumnSpec(
            each["name"],
            each["kind"],
            None if each["bounds"] is None else (float(each["bounds"][0]), float(each["bounds"][1])),
            each["fill"],
            tuple(each["levels"]),
        )
        for each in found["columns"]
    ]
    return Schema(tuple(columns), found["missing"])


def released_to_json(released: Released) -> dict[str, Any]:
    """Released facts as JSON values; floats come back bit for bit."""
    return {
        "ranges": {name: list(pair) for name, pair in released.ranges.items()},
        "fills": dict(released.fills),
        "levels": {name: list(kept) for name, kept in released.levels.items()},
        "buckets": BUCKETS,
        "refined": released.refined,
    }


def released_from_json(found: Mapping[str, Any]) -> Released:
    """What `released_to_json` wrote.

    Raises:
        ValueError: It was released over another number of buckets.
    """
    if found["buckets"] != BUCKETS:
        raise ValueError(
            f"the levels were released over {found['buckets']} buckets, but text is hashed into {BUCKETS} here; release them again"
        )
    return Released(
        ranges={name: (float(low), float(high)) for name, (low, high) in found["ranges"].items()},
        fills={name: float(value) for name, value in found["fills"].items()},
        levels={name: tuple(int(bucket) for bucket in kept) for name, kept in found["levels"].items()},
        refined=bool(found["refined"]),
    )


def _encode_one(
    table: Table, spec: ColumnSpec, missing: Missing, released: Released | None, train: np.ndarray
) -> Block:
    texts = table.column(spec.name)
    column = column_of(table.path, spec.name, texts, table.lines, train, table.delimiter != ",")
    if spec.kind in ("open_number", "open_text") and released is None:
        raise ValueError(f"column {spec.name!r} has no released range or levels; release them before encoding")
    if spec.kind == "levels":
        return encode(column, levels=spec.levels, bounds=None, missing=missing, fill=None)._replace(notes=())
    if spec.kind == "number":
        assert spec.bounds is not None
        fill = sum(spec.bounds) / 2 if spec.fill is None else spec.fill
        return _number(column, spec.bounds, fill, missing)
    if spec.kind == "open_number":
        assert released is not None
        fill = released.fills[spec.name] if spec.fill is None else spec.fill
        return _number(column, released.ranges[spec.name], fill, missing)
    if spec.kind == "flag":
        values, names = _flag_values(column)[:, None], [spec.name]
    else:
        assert released is not None
        kept = np.array(released.levels[spec.name], np.int32)
        hits = text_buckets(spec.name, texts)[:, None] == kept
        values = np.concatenate([hits, ~hits.any(axis=1, keepdims=True)], axis=1)
        names = [*(f"{spec.name}#{bucket}" for bucket in kept.tolist()), f"{spec.name}#other"]
    if missing == "indicate":
        values, names = np.concatenate([values, column.missing[:, None]], axis=1), [*names, f"{spec.name}_missing"]
    return flags(names, values)


def _number(column: Column, bounds: tuple[float, float], fill: float, missing: Missing) -> Block:
    """A number with its range; unlike `columns.encode` it says nothing about the values, which would be a fact about the records."""
    found = numeric(column.texts, column.decimal_comma)
    if found is None:
        odd = next(i for i, text in enumerate(column.texts) if numeric([text], column.decimal_comma) is None)
        raise ValueError(
            f"{column.path}, line {column.lines[odd]}: column {column.name!r} must be a number; saw {column.texts[odd]!r}"
        )
    values = np.clip(
        np.array(found), -LARGEST_VALUE, LARGEST_VALUE
    )  # far outside every range, where it is clipped anyway
    gaps = np.isnan(values)
    block = Block(
        (column.name,), np.where(gaps, fill, values)[:, None], np.array([bounds], np.float64), np.array([False])
    )
    if missing != "indicate":
        return block
    return join([block, flags([f"{column.name}_missing"], gaps[:, None])])


def _flag_values(column: Column) -> np.ndarray:
    """0/1 of a column that is known to be yes/no, 0 where missing; later rows may spell it in another way than the first (1 for yes)."""
    truth = []
    for text in column.distinct:
        value = [math.nan] if text == "" else flag_values([text])
        if value is None:
            line = column.line_of(text)
            raise ValueError(
                f"{column.path}, line {line}: column {column.name!r} is yes/no, but holds {text!r}; write 0 or 1"
            )
        truth += value
    return np.nan_to_num(np.array(truth)[column.codes], nan=0.0)
