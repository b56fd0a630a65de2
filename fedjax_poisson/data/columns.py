"""From one text column to numeric features: numbers with bounds, yes/no flags, one-hot levels; missing values, openly.

What a column may tell the world beforehand is public: its name, its kind (number, flag, category), its bounds and its
levels. The layout of the features depends on these alone, never on the records, unless a caller asks for `"from_data"`,
and then every such fact is reported as a warning: it is a release that no epsilon covers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from .blocks import Block, flags, join
from .csv_table import canonical, line_list, numeric

FromData = Literal["from_data"]
Missing = Literal["impute", "indicate", "drop", "refuse"]

# Pairs that mean false/true by public convention, in lower case; a column of these needs no declared levels.
_FLAGS = (("0", "1"), ("false", "true"), ("f", "t"), ("no", "yes"), ("n", "y"))
_MOST_LEVELS = 50
# The share of training values a derived bound leaves outside on each side: one typing error must not set the range.
_TAIL = 0.005


class Column(NamedTuple):
    """One text column with what is needed to speak about it.

    Attributes:
        path: File it is from, for messages.
        name: Its name.
        texts: n values, the empty string where missing.
        lines: n line numbers of the file.
        train: bool `[n]`; facts taken from the data are taken from training records only.
        decimal_comma: Whether "3,5" may be a number.
    """

    path: str
    name: str
    texts: Sequence[str]
    lines: Sequence[int]
    train: np.ndarray
    decimal_comma: bool

    @property
    def missing(self) -> np.ndarray:
        """Where the value is missing, bool `[n]`."""
        return np.array([text == "" for text in self.texts])


def flag_values(texts: Sequence[str]) -> list[float] | None:
    """Read 0/1, true/false, t/f, yes/no or y/n (any case) as 0.0 and 1.0, NaN where missing; None if it is not that."""
    words = [canonical(text).lower() for text in texts]
    present = set(words) - {""}
    for no, yes in _FLAGS:
        if present and present <= {no, yes}:
            return [math.nan if word == "" else float(word == yes) for word in words]
    return None


def encode(
    column: Column,
    *,
    levels: Sequence[str] | FromData | None,
    bounds: tuple[float, float] | FromData | None,
    missing: Missing,
    fill: float | None,
) -> Block:
    """Turn a column into features.

    Args:
        column: The text.
        levels: Declared levels of a category, "from_data", or None where nothing is declared.
        bounds: Declared `(lower, upper)` of a number, "from_data", or None where nothing is declared.
        missing: "impute" or "indicate" (impute and add a 0/1 column `<name>_missing`).
        fill: Declared value for a missing number.

    Returns:
        The block of features.

    Raises:
        ValueError: The column needs a declaration it does not have, or holds a value outside its declared levels.
    """
    if levels is not None and levels != "from_data":
        return _one_hot(column, [canonical(level) for level in levels], missing, False)
    if bounds is None or bounds == "from_data":
        truth = flag_values(column.texts)
        if truth is not None:
            return _flag(column, np.array(truth), missing)
        if column.missing.all():
            raise ValueError(
                f"{column.path}: column {column.name!r} has no value at all; leave it out: drop=({column.name!r},)"
            )
    numbers = numeric(column.texts, column.decimal_comma)
    if numbers is not None:
        return _number(column, np.array(numbers), bounds, missing, fill)
    if bounds is not None and bounds != "from_data":
        place = next(i for i, text in enumerate(column.texts) if numeric([text], column.decimal_comma) is None)
        raise ValueError(
            f"{column.path}, line {column.lines[place]}: column {column.name!r} has bounds, so it must be a number; "
            f"saw {column.texts[place]!r}"
        )
    seen = sorted({canonical(text) for text in column.texts} - {""})
    if levels == "from_data" and len(seen) <= _MOST_LEVELS:
        gap = ["missing"] if column.missing.any() and "missing" not in seen else []
        return _one_hot(column, seen + gap, missing, True)
    raise ValueError(_declare_levels(column, seen))


def _number(
    column: Column,
    values: np.ndarray,
    bounds: tuple[float, float] | FromData | None,
    missing: Missing,
    fill: float | None,
) -> Block:
    name, gaps = column.name, np.isnan(values)
    notes, learned = [], []
    if bounds is None:
        raise ValueError(
            f"{column.path}: column {name!r} is a number without declared bounds; declare its public range, "
            f"for example bounds={{{name!r}: (0, 100)}}, or let the range be taken from the data, "
            f"which is not private: bounds={{{name!r}: 'from_data'}}"
        )
    if bounds == "from_data":
        _refuse_identifier(column, values)
        known = values[column.train & ~gaps]
        if len(known) == 0:
            raise ValueError(
                f"{column.path}: column {name!r} has no value in any training record; leave it out: drop=({name!r},)"
            )
        lower, upper = _derived_bounds(known)
        middle, origin = float(np.median(known)), "the median of the training records"
        learned.append(("bounds", f"{name!r}: ({lower:g}, {upper:g})"))
        if gaps.any() and fill is None:
            learned.append(("fill", f"{name!r}: {middle:g}"))
    else:
        lower, upper = float(bounds[0]), float(bounds[1])
        if not (math.isfinite(lower) and math.isfinite(upper) and lower < upper):
            raise ValueError(f"bounds of {name!r} are {bounds}; expected two finite numbers, lower < upper")
        middle, origin = (lower + upper) / 2, "the middle of its public range"
    if fill is not None:
        middle, origin = float(fill), "the declared value"
    if column.decimal_comma and any("," in text for text in column.texts):
        notes.append(f"{name}: commas were read as decimal commas (3,5 is 3.5)")
    if gaps.any():
        notes.append(f"{name}: {int(gaps.sum())} missing values set to {middle:g}, {origin}")
    block = Block((name,), np.where(gaps, middle, values)[:, None], np.array([[lower, upper]]), np.array([False]))
    return _with_indicator(block, name, gaps, missing)._replace(notes=tuple(notes), learned=tuple(learned))


def _flag(column: Column, values: np.ndarray, missing: Missing) -> Block:
    gaps = np.isnan(values)
    notes = (f"{column.name}: {int(gaps.sum())} missing values set to 0",) if gaps.any() else ()
    block = flags([column.name], np.where(gaps, 0.0, values)[:, None], notes)
    return _with_indicator(block, column.name, gaps, missing)


def _one_hot(column: Column, levels: Sequence[str], missing: Missing, learned: bool) -> Block:
    name, gaps = column.name, column.missing
    if len(set(levels)) != len(levels) or not levels:
        raise ValueError(f"levels of {name!r} are {list(levels)}; expected at least one and none twice")
    place = {level: k for k, level in enumerate(levels)}
    values = np.zeros((len(column.texts), len(levels)))
    for row, text in enumerate(column.texts):
        level = canonical(text) if text else "missing"
        if level in place:
            values[row, place[level]] = 1.0
        elif text and "other" in place:
            values[row, place["other"]] = 1.0
        elif text:
            raise ValueError(
                f"{column.path}, line {column.lines[row]}: column {name!r} has the value {text!r}, which is not "
                f"a declared level ({', '.join(levels)}); add it, or add the level 'other' to collect the rest"
            )
    names = tuple(f"{name}={level}" for level in levels)
    notes = []
    if gaps.any():
        how = "their own level" if "missing" in place else "no level (all of the column's features 0)"
        notes.append(f"{name}: {int(gaps.sum())} missing values are {how}")
    block = flags(names, values)
    if "missing" not in place:
        block = _with_indicator(block, name, gaps, missing)
    facts = (("categorical", f"{name!r}: {list(levels)!r}"),) if learned else ()
    return block._replace(notes=tuple(notes), learned=facts)


def _with_indicator(block: Block, name: str, gaps: np.ndarray, missing: Missing) -> Block:
    return join([block, flags([f"{name}_missing"], gaps[:, None])]) if missing == "indicate" else block


def _derived_bounds(known: np.ndarray) -> tuple[float, float]:
    """Quantiles of the training values, rounded outwards to two significant digits of their spread."""
    lower, upper = np.quantile(known, [_TAIL, 1 - _TAIL])
    if lower == upper:
        return float(lower) - 0.5, float(upper) + 0.5
    step = 10.0 ** (math.floor(math.log10(upper - lower)) - 1)
    return math.floor(lower / step) * step, math.ceil(upper / step) * step


def _refuse_identifier(column: Column, values: np.ndarray) -> None:
    whole = bool(np.all(values == np.round(values)))
    if len(values) >= 30 and whole and len(np.unique(values)) == len(values):
        raise ValueError(
            f"{column.path}: column {column.name!r} is a different whole number in every record, as an identifier is; "
            f"leave it out with drop=({column.name!r},), use it as patient={column.name!r}, or keep it by declaring "
            f"its public range: bounds={{{column.name!r}: (lower, upper)}}"
        )


def _declare_levels(column: Column, seen: Sequence[str]) -> str:
    name, shown = column.name, [*seen[:8], "..."] if len(seen) > 8 else list(seen)
    fact = f"{column.path}: column {name!r} is not a number and has no declared levels ({len(seen)} different values). "
    if len(seen) > _MOST_LEVELS:
        return fact + f"Leave it out, drop=({name!r},), or declare the levels that matter and 'other' for the rest"
    odd = next(i for i, text in enumerate(column.texts) if text and numeric([text], column.decimal_comma) is None)
    return (
        f"{fact}Declare its public levels: categorical={{{name!r}: {shown!r}}}, or leave it out: drop=({name!r},), "
        f"or take the levels from the data, which is not private: categorical='from_data'. "
        f"If it should be a number, look at {line_list([column.lines[odd]])}: {column.texts[odd]!r}"
    )
