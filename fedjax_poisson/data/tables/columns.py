"""From one text column to numeric features: numbers with bounds, yes/no flags, one-hot levels; missing values are explicit.

Some facts about a column are assumed to be public: its name, its kind (number, flag, category), its bounds and its
levels. The layout of the features depends on these alone, never on the records, unless a caller asks for `"from_data"`.
Every such fact is then reported as a warning, because it is a release that no epsilon covers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from fedjax_poisson.data.blocks import Block, flags, join
from fedjax_poisson.data.tables.csv_table import canonical, line_list, numeric, numeric_or_none
from fedjax_poisson.data.tables.declarations import LARGEST_VALUE
from fedjax_poisson.data.tables.remedies import declare_bounds, declare_levels, leave_out
from fedjax_poisson.data.tables.suspicion import (
    refuse_dates,
    refuse_identifier,
    refuse_number_as_text,
    refuse_thousands,
    spelling_groups,
    value_warnings,
)

FromData = Literal["from_data"]
Missing = Literal["impute", "indicate", "drop", "refuse"]

# Pairs that mean false/true by public convention, in lower case; a column of these needs no declared levels.
_FLAGS = (("0", "1"), ("false", "true"), ("f", "t"), ("no", "yes"), ("n", "y"))
_MOST_SPELLINGS = 40  # more than there are spellings of one pair and of nothing
_MOST_LEVELS = 50
# The share of training values a derived bound leaves outside on each side: one typing error must not set the range.
_TAIL = 0.005


class Column(NamedTuple):
    """One text column with the information needed for messages about it; made by `column_of`.

    Attributes:
        path: File it is from, for messages.
        name: Its name.
        distinct: Its different values, in the order of the file; the empty string is a missing value.
        codes: int64 `[n]`, which of them each record has.
        lines: n line numbers of the file.
        train: bool `[n]`; facts taken from the data are taken from training records only.
        decimal_comma: Whether "3,5" may be a number.
    """

    path: str
    name: str
    distinct: tuple[str, ...]
    codes: np.ndarray
    lines: Sequence[int]
    train: np.ndarray
    decimal_comma: bool

    @property
    def missing(self) -> np.ndarray:
        """Where the value is missing, bool `[n]`."""
        if "" not in self.distinct:
            return np.zeros(len(self.codes), bool)
        return self.codes == self.distinct.index("")

    @property
    def texts(self) -> list[str]:
        """The n values."""
        return [self.distinct[code] for code in self.codes]

    def line_of(self, text: str) -> int:
        """Line of the first record with a value."""
        return self.lines[int(np.argmax(self.codes == self.distinct.index(text)))]


def column_of(
    path: str, name: str, texts: Sequence[str], lines: Sequence[int], train: np.ndarray, decimal_comma: bool
) -> Column:
    """The column of n texts: values are looked at once each, however often they occur."""
    place: dict[str, int] = {}
    codes = np.fromiter((place.setdefault(text, len(place)) for text in texts), np.int64, len(texts))
    return Column(path, name, tuple(place), codes, lines, train, decimal_comma)


def flag_values(texts: Sequence[str]) -> list[float] | None:
    """Read 0/1, true/false, t/f, yes/no or y/n (any case) as 0.0 and 1.0, NaN where missing; None if it is not that."""
    if len(set(texts)) > _MOST_SPELLINGS:
        return None  # no look at each of many values
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
        _refuse_fill(column, fill)
        return _one_hot(column, [canonical(level) for level in levels], missing, False)
    if bounds is None or bounds == "from_data":
        truth = flag_values(column.distinct)
        if truth is not None:
            return _flag(column, np.array(truth)[column.codes], missing)
        if column.missing.all():
            raise ValueError(f"{column.path}: column {column.name!r} has no value at all; {leave_out(column.name)}")
    numbers = numeric(column.distinct, column.decimal_comma)
    if numbers is None or (column.decimal_comma and any("," in text for text in column.distinct)):
        refuse_thousands(column)
    if numbers is not None:
        return _number(column, np.array(numbers)[column.codes], bounds, missing, fill)
    parsed = [numeric_or_none(text, column.decimal_comma) is not None for text in column.distinct]
    odd = column.distinct[parsed.index(False)]
    if bounds is not None and bounds != "from_data":
        raise ValueError(
            f"{column.path}, line {column.line_of(odd)}: column {column.name!r} has bounds, so it must be a number; "
            f"saw {odd!r}; correct it, or leave the field empty if the value is unknown"
        )
    _refuse_fill(column, fill)
    refuse_dates(column)
    seen = sorted({canonical(text) for text in column.distinct} - {""})
    refuse_number_as_text(column, parsed)
    if levels == "from_data":
        refuse_identifier(column, None)
        for group in spelling_groups(seen):
            raise ValueError(
                f"{column.path}: the values {', '.join(map(repr, group))} of column {column.name!r} differ by case, spaces or leading "
                f"zeros only; write one of them everywhere, or declare the levels: {declare_levels(column.name, seen[:8])}"
            )
        if len(seen) <= _MOST_LEVELS:
            gap = ["missing"] if column.missing.any() and "missing" not in seen else []
            return _one_hot(column, seen + gap, missing, True)
    raise ValueError(_declare_levels(column, seen, odd))


def _refuse_fill(column: Column, fill: float | None) -> None:
    if fill is not None:
        raise ValueError(
            f"{column.path}: fill names the column {column.name!r}, which is not numeric; leave it out of fill "
            "(a level 'missing' takes missing values)"
        )


def _number(
    column: Column,
    values: np.ndarray,
    bounds: tuple[float, float] | FromData | None,
    missing: Missing,
    fill: float | None,
) -> Block:
    name, gaps = column.name, np.isnan(values)
    notes, learned = [], []
    huge = np.flatnonzero(np.abs(np.where(gaps, 0, values)) > LARGEST_VALUE)
    if len(huge):
        raise ValueError(
            f"{column.path}, line {column.lines[huge[0]]}: a value of column {name!r} is beyond {LARGEST_VALUE:g}; correct it or change the unit"
        )
    if bounds is None:
        raise ValueError(
            f"{column.path}: column {name!r} is a number without declared bounds; declare its public range, for example "
            f"{declare_bounds(name)}, or let the range be taken from the data, which is not private: 'from_data' in its place"
        )
    if bounds == "from_data":
        refuse_identifier(column, values)
        refuse_dates(column, values)
        known = values[column.train & ~gaps]
        if len(known) == 0:
            raise ValueError(f"{column.path}: column {name!r} has no value in any training record; {leave_out(name)}")
        lower, middle, upper = _derived_bounds(known)
        origin = "the median of the training records"
        learned.append(("bounds", f"{name!r}: ({lower:g}, {upper:g})"))
        if gaps.any() and fill is None:
            learned.append(("fill", f"{name!r}: {middle:g}"))
    else:
        lower, upper = float(bounds[0]), float(bounds[1])
        middle, origin = (lower + upper) / 2, "the middle of its public range"
    if not np.float32(lower) < np.float32(upper):
        raise ValueError(
            f"{column.path}: the range {lower!r} to {upper!r} of column {name!r} is too narrow for single precision (24 bits); subtract a "
            f"constant or change the unit, or {leave_out(name)}"
        )
    if fill is not None:
        middle, origin = float(fill), "the declared value"
    warnings = value_warnings(column, values, None if bounds == "from_data" else (lower, upper))
    if column.decimal_comma and any("," in text for text in column.distinct):
        notes.append(f"{name}: commas were read as decimal commas (3,5 is 3.5)")
    if gaps.any():
        notes.append(f"{name}: {int(gaps.sum())} missing values set to {middle:g}, {origin}")
    block = Block((name,), np.where(gaps, middle, values)[:, None], np.array([[lower, upper]]), np.array([False]))
    return _with_indicator(block, name, gaps, missing)._replace(
        notes=tuple(notes), learned=tuple(learned), warnings=tuple(warnings)
    )


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
    values = np.zeros((len(column.codes), len(levels)))
    for code, text in enumerate(column.distinct):
        level = canonical(text) if text else "missing"
        if text and level not in place and "other" not in place:
            raise ValueError(
                f"{column.path}, line {column.line_of(text)}: column {name!r} has the value {text!r}, which is not "
                f"a declared level ({', '.join(levels)}); add it, or add the level 'other' to collect the rest"
            )
        if level in place or text:
            values[column.codes == code, place.get(level, place.get("other", 0))] = 1.0
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


def train_median(column: Column) -> float:
    """Median of a numeric column's known training values: what a missing number becomes where its range is from the data."""
    numbers = numeric(column.distinct, column.decimal_comma)
    assert numbers is not None
    values = np.array(numbers)[column.codes]
    return _derived_bounds(values[column.train & ~np.isnan(values)])[1]


def _derived_bounds(known: np.ndarray) -> tuple[float, float, float]:
    """Lower bound, median, upper bound: quantiles of the training values, rounded outwards to two digits of their spread."""
    lower, middle, upper = np.quantile(known, [_TAIL, 0.5, 1 - _TAIL]).tolist()
    if lower == upper:
        return lower - 0.5, middle, upper + 0.5
    step = 10.0 ** (math.floor(math.log10(upper - lower)) - 1)
    return math.floor(lower / step) * step, middle, math.ceil(upper / step) * step


def _declare_levels(column: Column, seen: Sequence[str], odd: str) -> str:
    name, shown = column.name, [*seen[:8], "..."] if len(seen) > 8 else list(seen)
    fact = f"{column.path}: column {name!r} is not a number and has no declared levels ({len(seen)} different values). "
    if len(seen) > _MOST_LEVELS:
        return (
            f"{fact}To use it, declare the levels that matter and 'other' for the rest: "
            f"{declare_levels(name, ['A', 'other'])}; or {leave_out(name)}"
        )
    return (
        f"{fact}Declare its public levels: {declare_levels(name, shown)}, or {leave_out(name)}, "
        "or take the levels from the data, which is not private: --categorical from_data (categorical='from_data' in Python). "
        f"If it should be a number, look at {line_list([column.line_of(odd)])}: {odd!r}"
    )
