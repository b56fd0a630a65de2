"""New rows after training: a file, a data frame or dicts, encoded the way the training table fixed."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedjax_poisson.data.tables.csv_table import MISSING_TOKENS, Table, read_table
from fedjax_poisson.data.tables.schema import ColumnSpec, Encoder, Schema, encode_columns

Rows = str | os.PathLike[str] | Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]
"""A CSV file's path, columns by name (a dict of lists or arrays, a data frame), or one dict for each row."""


def encode_rows(encoder: Encoder, rows: Rows) -> np.ndarray:
    """Features of new rows, float32 `[m, F]`.

    Columns that the encoder does not know (a label, an identifier) are left out. A missing value (an empty field, None, NaN) becomes what it became in
    training, also where training dropped or refused such records.

    Raises:
        ValueError: A column is absent, or a value is not what its column holds; the message names row and column.
    """
    table = rows_table(rows)
    return encode_columns(table, encoder.schema, encoder.released).values.astype(np.float32)


def plain_encoder(names: Sequence[str], bounds: np.ndarray) -> Encoder:
    """The encoder of a data set whose columns are its features: numbers as they are.

    Args:
        names: F feature names.
        bounds: float32 `[F, 2]`.
    """
    specs = [
        ColumnSpec(name, "number", (float(low), float(high))) for name, (low, high) in zip(names, bounds, strict=True)
    ]
    return Encoder(Schema(tuple(specs), "impute"))


def rows_table(rows: Rows) -> Table:
    """Rows as the text columns that a file would have held.

    Raises:
        ValueError: There is no row, or columns have different lengths.
    """
    if isinstance(rows, str | os.PathLike):
        return read_table(rows)
    if hasattr(rows, "columns") and hasattr(rows, "to_dict"):  # a data frame
        columns = {str(name): list(rows[name]) for name in rows.columns}
    elif isinstance(rows, Mapping):
        columns = {str(name): list(values) for name, values in rows.items()}
    else:
        names = dict.fromkeys(name for row in rows for name in row)
        columns = {str(name): [row.get(name) for row in rows] for name in names}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"the columns have different lengths: {lengths}; give every row a value (None where it is missing)"
        )
    count = next(iter(lengths.values()), 0)
    if not count:
        raise ValueError("there is no row to encode; give at least one")
    texts = {name: [_text(value) for value in values] for name, values in columns.items()}
    return Table("the rows given", texts, list(range(1, count + 1)), ",")


def _text(value: Any) -> str:
    """A value as a file would spell it."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(int(value))
    text = str(value).strip()
    return "" if text.lower() in MISSING_TOKENS else text
