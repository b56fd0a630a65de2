"""The plan of sampling tables: digits, columns and places, one plan for all rates of a range.

A compiled sampler is compiled for its plan, and the tables are its arguments. If every rate had a plan of its own, every noise level of a sweep would
compile again. So a plan is made for the top of a range of rates (`range_of`), whose laws are the widest, and serves all rates of the range: a narrower
law leaves columns of its alias table without mass, so it is sampled as exactly as on columns of its own. A draw costs what it costs at the top of the
range; the ranges end where another level begins to pay, so that this is little more than at most rates inside.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from fractions import Fraction
from typing import NamedTuple

from fedjax_poisson.randomness import laws
from fedjax_poisson.randomness.layout import Layout, choose_layout

GRID_BITS = 20
"""Bits of the grid that clipped values are rounded to: multiples of 2^-20 of the bound."""
SPAN_BITS = GRID_BITS + 1
"""Bits of w for one sender."""
_ENTRY_BUDGET = 5 << 15  # table entries (12 bytes each, of which a draw reads 4) before another level is preferred
_MAX_DIGIT_BITS = 12
_SLOPE_BITS = 16  # places behind the point of a slope, where 32 bits leave room for them
_MOST_DIGITS = 21
_IMPOSSIBLE = 1 << 62
_TOPS = tuple(Fraction(2) ** power for power in (4, 6, 12, 15, 18, 20, 22, 24, 27))
_DIGIT_TOPS = tuple(Fraction(2) ** power for power in (2, 10, 18, 26, 30))
_FLOOR_TOPS = tuple(Fraction(2) ** power for power in (17, 22, 24, 26))
_MODULATIONS = (Fraction(1, 16), Fraction(1, 4), Fraction(1))
_PLANNED_BITS = (
    laws.TAIL_BITS + 1.0
)  # a table leaves out half of 2^-TAIL_BITS on each side, and Chernoff's bound is above the tail


@dataclasses.dataclass(frozen=True, kw_only=True)
class Level:
    """One tabulated digit.

    Attributes:
        shift: position of the digit's lowest bit in w.
        bits: size of the digit; 0 for a fixed law.
        last: whether it owns the one unit that is left.
        mirrored: whether a digit above half is looked up by its complement and negated.
        rows: number of stored laws.
        column_bits: log2 of the columns of each law.
        offset: first entry of this level in the thresholds' lower halves.
        entry_offset: first entry of this level in the entries.
        packed: an entry has both the highest bits of the threshold and, below them, the alias; else it is the threshold's highest word, and the alias lies
            `rows << column_bits` entries further on.
        slope_shift: places behind the point of the level's slope (`tables`).
    """

    shift: int
    bits: int
    last: bool
    mirrored: bool
    rows: int
    column_bits: int
    offset: int
    entry_offset: int
    packed: bool
    slope_shift: int


FIXED = ("poisson", "skellam", "floor_of_both", "floor_of_one")
"""Kinds of a fixed rate."""
MIRRORED = ("push_pull", "digits_of_both")
"""Kinds whose complement of a digit mirrors the law."""


class TablePlan(NamedTuple):
    """Levels, and where their random numbers lie; the same objects for all tables of a range, so that structures compare by identity."""

    levels: tuple[Level, ...]
    layout: Layout


def range_of(kind: str, first: Fraction, second: Fraction) -> tuple[Fraction, Fraction]:
    """The top of the range that the numbers of a law lie in: of its rate or dark count, and of its modulation or second rate.

    Sums (`sum_tables`) are drawn once a round, and differ in more than noise levels do: their ranges are wider.
    """
    if kind.startswith("digits"):
        return next(each for each in _DIGIT_TOPS if first <= each), Fraction(1)
    if kind.startswith("floor"):
        top = next(each for each in _FLOOR_TOPS if first <= each)
        return top, top if kind == "floor_of_both" else Fraction(0)
    top = next(each for each in _TOPS if first <= each)
    if kind in FIXED:
        return top, top if kind == "skellam" else Fraction(0)
    return top, next(each for each in _MODULATIONS if second <= each)


@functools.cache
def table_plan(kind: str, first: Fraction, second: Fraction, span: int = SPAN_BITS) -> TablePlan:
    """The plan of a range, by its top (`range_of`), for w of `span` bits."""
    levels: list[Level] = []
    offset = entry_offset = 0
    mirrored, digits = kind in MIRRORED, plan_digits(kind, first, second, span)
    numbers = kind, float(first), float(second)
    layout = choose_layout(tuple(_column_bits(*numbers, *digit) for digit in digits))
    for (shift, bits), packed in zip(digits, layout.packed, strict=True):
        units = digit_units(shift, bits)
        rows = 1 if not bits else units // 2 + 1 if mirrored else units + 1
        column_bits = _column_bits(*numbers, shift, bits)
        levels.append(
            Level(
                shift=shift,
                bits=bits,
                last=shift == 0,
                mirrored=mirrored,
                rows=rows,
                column_bits=column_bits,
                offset=offset,
                entry_offset=entry_offset,
                packed=packed,
                slope_shift=_slope_shift(*numbers, shift, bits),
            )
        )
        offset += rows << column_bits
        entry_offset += (rows << column_bits) * (1 if packed else 2)
    return TablePlan(tuple(levels), layout)


def level_rates(kind: str, first: Fraction, second: Fraction, shift: int, bits: int) -> list[tuple[Fraction, Fraction]]:
    """Exact rates (plus, minus) of each stored row of the level with `bits` bits from `shift` up (module docstring of `tables`)."""
    if kind in FIXED:
        return [(first, second)]
    units = digit_units(shift, bits)
    step = first * second / (1 << GRID_BITS) * (1 << shift)
    floor = first * (1 - second) if shift + bits == SPAN_BITS and not kind.startswith("digits") else Fraction(0)
    if kind in MIRRORED:
        return [(floor + step * d, floor + step * (units - d)) for d in range(units // 2 + 1)]
    return [(floor + step * d, Fraction(0)) for d in range(units + 1)]


def digit_units(shift: int, bits: int) -> int:
    """The largest value of a digit: 2^bits - 1, and one more for the last digit, which owns the unit that is left."""
    return (1 << bits) - (shift > 0)


def plan_digits(kind: str, first: Fraction, second: Fraction, span: int = SPAN_BITS) -> list[tuple[int, int]]:
    """Cut the bits of w into digits (shift, bits) from the top: few digits first, then small tables."""
    if kind in FIXED:
        return [(0, 0)]

    @functools.cache
    def entries(top: int, bits: int) -> int:
        units = digit_units(top - bits, bits)
        columns = _column_bits(kind, float(first), float(second), top - bits, bits)
        return (units // 2 + 1 if kind in MIRRORED else units + 1) << columns

    @functools.cache
    def best(top: int, levels: int) -> tuple[int, tuple[int, ...]]:
        if levels == 1:
            return (entries(top, top), (top,)) if top <= _MAX_DIGIT_BITS else (_IMPOSSIBLE, ())
        options = []
        for bits in range(1, min(top - levels + 1, _MAX_DIGIT_BITS) + 1):
            rest, digits = best(top - bits, levels - 1)
            options.append((entries(top, bits) + rest, (bits, *digits)))
        return min(options)

    plans = [best(span, levels) for levels in range(2, min(span, _MOST_DIGITS) + 1)]
    budget = max(_ENTRY_BUDGET, 3 * min(plans)[0] // 2)
    digits = next(d for size, d in plans if size <= budget)
    tops = [span - sum(digits[:i]) for i in range(len(digits))]
    return [(top - bits, bits) for top, bits in zip(tops, digits, strict=True)]


def _column_bits(kind: str, first: float, second: float, shift: int, bits: int) -> int:
    """log2 of the columns that hold every law of a level, each from its row's first outcome on, whatever numbers of the range it belongs to.

    Outcomes are counted from the mean of each row. What is to the left and to the right of it grows with both rates (Chernoff's exponent does), and for one
    sum of rates with the one on that side.
    """
    rates = _widest_rates(kind, first, second, shift, bits)
    left = max(laws.chernoff_reach(b, a, _PLANNED_BITS) + a - b for a, b in rates)
    right = max(laws.chernoff_reach(a, b, _PLANNED_BITS) - (a - b) for a, b in rates)
    # One outcome in the middle, at most one more for the whole part of each of two means, and what a slope's last place may be off by over all rows.
    slack = 3 + (1 << bits) * 2.0 ** -(_slope_shift(kind, first, second, shift, bits) + 1) if bits else 1.0
    return math.ceil(left + right + slack).bit_length()


def _slope_shift(kind: str, first: float, second: float, shift: int, bits: int) -> int:
    """Places behind the point of the slope, so that it times the last row stays below 2^31; without any, more would wrap as outcomes do."""
    if kind in FIXED:
        return 0
    spread = 2 * first * second * 2.0 ** (shift - GRID_BITS) * digit_units(shift, bits)
    return max(min(_SLOPE_BITS, 30 - math.ceil(spread + 1).bit_length()), 0)


def _widest_rates(kind: str, mean: float, modulation: float, shift: int, bits: int) -> list[tuple[float, float]]:
    """Rates (plus, minus) as floats: of every stored row of a level, both are at most those of one of them, or their sum is and the one on the far side."""
    if kind in FIXED:
        return [(mean, modulation)]
    units = digit_units(shift, bits) * mean * modulation * 2.0 ** (shift - GRID_BITS)
    floor = mean if shift + bits == SPAN_BITS and not kind.startswith("digits") else 0.0
    if kind in MIRRORED:
        return [(floor, floor + units), (floor + units / 2, floor + units / 2)]
    return [(floor + units, 0.0)]
