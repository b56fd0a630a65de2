"""Sampling tables: a rate on the 2^-20 grid as a sum of independent, tabulated Skellam numbers.

A coordinate v = m / 2^20, m = -2^20 .. 2^20, has w = 2^20 + m in [0, 2^21] units of rate u = mu r 2^-20 in the plus
channel and 2^21 - w in the minus channel, over a floor of mu (1 - r) in both:  mu (1 + r v) = mu (1 - r) + u w.
Write min(w, 2^21 - 1) in digits of chosen sizes. A digit d of b bits at position s contributes d 2^s units to plus and
(2^b - 1 - d) 2^s to minus; the lowest digit owns the one unit that is left (2^21 is one more than all digits can make)
and gives it to plus exactly for w = 2^21. So each digit selects one of finitely many *fixed* laws, and the sum of
independent draws, one a level, is exactly Poisson(mu (1 + r v)) - Poisson(mu (1 - r v)), because independent Poisson
numbers add. The floor is part of the top level. Exchanging d and its complement mirrors the law, so half of the rows
are stored.

A single channel drops everything that goes to minus; a fixed rate has one level without a digit.

A column is an outcome, counted from the first one of its row: origin + floor(slope * row), with the slope of the rows' means in binary places. So an
entry is a threshold and an alias, one word where they have 32 bits together (`layout`), and what a draw reads of the tables is one entry a level.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from fractions import Fraction
from typing import Any

import jax
import numpy as np

from fedjax_poisson.randomness import laws
from fedjax_poisson.randomness.kept_tables import HostTables, kept
from fedjax_poisson.randomness.layout import LOW_BITS, Layout, threshold_bits
from fedjax_poisson.randomness.table_plan import (
    GRID_BITS,
    SPAN_BITS,
    Level,
    TablePlan,
    level_rates,
    range_of,
    table_plan,
)

__all__ = [
    "GRID_BITS",
    "LARGEST_RATE",
    "LEAST_RATE",
    "MAX_DISTANCE",
    "SamplingTables",
    "check_push_pull",
    "exact_tables",
    "poisson_tables",
    "push_pull_tables",
    "single_channel_tables",
    "skellam_tables",
    "span_of",
    "tables_of",
]

LEAST_RATE, LARGEST_RATE = 0.01, 1e8
MAX_DISTANCE = 2.0**-60
"""Tables whose law is farther from the true one, in total variation, are refused."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingTables:
    """Alias tables of all levels, a pytree whose leaves are device arrays and whose plan is static: rates of one range share it (`table_plan`).

    Attributes:
        entries: uint32[E'], what lies above the lower 64 bits of each column's threshold, and its alias (see `Level.packed`).
        middle: uint32[E], the next 32 bits of the thresholds, read when the ones above tie.
        low: uint32[E], the lowest 32.
        origins: uint32[levels], the outcome of column 0 of row 0, in two's complement.
        slopes: uint32[levels], by how much column 0 of a row lies above that of the row before, in units of 2^-slope_shift.
        levels: the plan.
        layout: where in a group of ChaCha20 blocks each random number lies.
        kind: "push_pull", "single_channel", "poisson" or "skellam"; of sums (`sum_tables`) "digits_of_both", "digits_of_one",
            "floor_of_both", "floor_of_one" or "binomial".
        distance: bound on the total variation between a draw and the true law; the sum over a vector's draws bounds the
            vector's. A fact for the host: inside a program, which is the same for other tables of the plan, it is infinite.
    """

    entries: jax.Array
    middle: jax.Array
    low: jax.Array
    origins: jax.Array
    slopes: jax.Array
    levels: tuple[Level, ...]
    layout: Layout
    kind: str
    distance: float = math.inf


def _flatten(tables: SamplingTables) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    leaves = tables.entries, tables.middle, tables.low, tables.origins, tables.slopes
    return leaves, (tables.levels, tables.layout, tables.kind)


def _unflatten(plan: tuple[Any, ...], arrays: tuple[Any, ...]) -> SamplingTables:
    (levels, layout, kind), (entries, middle, low, origins, slopes) = plan, arrays
    return SamplingTables(
        entries=entries,
        middle=middle,
        low=low,
        origins=origins,
        slopes=slopes,
        levels=levels,
        layout=layout,
        kind=kind,
    )


# By hand: register_dataclass of jax 0.7 cannot leave out a field, and tables that differ in their distance alone share programs.
jax.tree_util.register_pytree_node(SamplingTables, _flatten, _unflatten)


def span_of(tables: SamplingTables) -> int:
    """Bits of the w that the tables' digits are of; 0 for a fixed law."""
    return max(level.shift + level.bits for level in tables.levels)


def push_pull_tables(*, dark_count: float, modulation: float) -> SamplingTables:
    """Tables of Poisson(mu (1 + r v)) - Poisson(mu (1 - r v)) for every v on the grid; cached.

    Args:
        dark_count: mu in [0.01, 1e8], taken as the exact rational value of the float64.
        modulation: r in (0, 1), likewise exact.

    Raises:
        ValueError: outside these ranges.
    """
    return _on_device("push_pull", _rate("dark_count", dark_count), _modulation(modulation))


def check_push_pull(*, dark_count: float, modulation: float) -> None:
    """Refuse what `push_pull_tables` would refuse, without making tables.

    Raises:
        ValueError: outside its ranges.
    """
    _rate("dark_count", dark_count)
    _modulation(modulation)


def single_channel_tables(*, dark_count: float, modulation: float) -> SamplingTables:
    """Tables of Poisson(mu (1 + r v)) for every v on the grid; cached. Arguments as for `push_pull_tables`."""
    return _on_device("single_channel", _rate("dark_count", dark_count), _modulation(modulation))


def poisson_tables(rate: float) -> SamplingTables:
    """Tables of Poisson(rate), rate in [0.01, 1e8] and exact; cached."""
    return _on_device("poisson", _rate("rate", rate), Fraction(0))


def skellam_tables(rate: float) -> SamplingTables:
    """Tables of Poisson(rate) - Poisson(rate), whose variance is 2 rate; rate in [0.01, 1e8] and exact; cached."""
    rational = _rate("rate", rate)
    return _on_device("skellam", rational, rational)


def _rate(name: str, value: float) -> Fraction:
    if not (isinstance(value, int | float | np.floating | np.integer) and LEAST_RATE <= value <= LARGEST_RATE):
        raise ValueError(
            f"{name} must lie in [{LEAST_RATE}, {LARGEST_RATE:g}], got {value!r}; choose a rate in that range"
        )
    return Fraction(float(value))


def _modulation(value: float) -> Fraction:
    if not (isinstance(value, int | float | np.floating | np.integer) and 0 < value < 1):
        raise ValueError(f"modulation must lie strictly between 0 and 1, got {value!r}; 0.05 costs 0.25 % of variance")
    return Fraction(float(value))


@functools.lru_cache(maxsize=64)
def _on_device(kind: str, first: Fraction, second: Fraction) -> SamplingTables:
    return exact_tables(kind, first, second)


def exact_tables(kind: str, first: Fraction, second: Fraction, span: int = SPAN_BITS) -> SamplingTables:
    """Tables with exact rational rates, without a cache (`table_plan.level_rates` says what the numbers are).

    Raises:
        ValueError: they are farther than `MAX_DISTANCE` from the law.
    """
    plan = table_plan(kind, *range_of(kind, first, second), span)

    def make() -> HostTables:
        rates = [level_rates(kind, first, second, level.shift, level.bits) for level in plan.levels]
        rows = [[laws.skellam_pmf(*each) for each in level] for level in rates]
        return _checked(plan, rows, [row_slope(each) for each in rates], f"{kind} at {float(first)!r}")

    def fits(tables: HostTables) -> bool:
        columns = [level.rows << level.column_bits for level in plan.levels]
        words = sum(one if level.packed else 2 * one for one, level in zip(columns, plan.levels, strict=True))
        wanted = [words, sum(columns), sum(columns), len(columns), len(columns)]
        return [len(each) for each in tables[:-1]] == wanted and tables.distance <= MAX_DISTANCE

    return _of_host(kind, plan, kept((kind, str(first), str(second), plan), fits, make))


def row_slope(rates: list[tuple[Fraction, Fraction]]) -> Fraction:
    """By how much the mean of a row exceeds that of the row before: the same for all rows of a level."""
    return (rates[1][0] - rates[1][1]) - (rates[0][0] - rates[0][1]) if len(rates) > 1 else Fraction(0)


def tables_of(
    kind: str, plan: TablePlan, rows: list[list[laws.Pmf]], slopes: list[Fraction], named: str
) -> SamplingTables:
    """The tables of a plan whose levels have these laws, a row each, and these slopes.

    Raises:
        ValueError: they are farther than `MAX_DISTANCE` from the law.
    """
    return _of_host(kind, plan, _checked(plan, rows, slopes, named))


def _checked(plan: TablePlan, rows: list[list[laws.Pmf]], slopes: list[Fraction], named: str) -> HostTables:
    """The tables, near enough to the law."""
    built, distance = _build(plan, rows, slopes)
    bound = float(distance + plan.layout.distance) * (1 + 1e-12)
    if bound > MAX_DISTANCE:
        raise ValueError(
            f"the tables for {named} are {bound:.3g} from the law, above 2^-60; choose another rate and report this one"
        )
    return built._replace(distance=bound)


def _of_host(kind: str, plan: TablePlan, tables: HostTables) -> SamplingTables:
    with jax.ensure_compile_time_eval():
        made = _unflatten((plan.levels, plan.layout, kind), tuple(jax.device_put(each) for each in tables[:-1]))
    return dataclasses.replace(made, distance=tables.distance)


def _build(plan: TablePlan, rows: list[list[laws.Pmf]], slopes: list[Fraction]) -> tuple[HostTables, Fraction]:
    """Lay all levels one after the other, on the columns that the range's plan has: those that a law does not need have no mass."""
    entries, below, origins, steps = [], [], [], []
    distance = Fraction(0)
    for level, pmfs, slope in zip(plan.levels, rows, slopes, strict=True):
        step = round(slope * (1 << level.slope_shift))
        starts = [row * step >> level.slope_shift for row in range(len(pmfs))]
        origin = min(pmf.low - start for pmf, start in zip(pmfs, starts, strict=True))
        bits = threshold_bits(level.column_bits, level.packed)
        tables = [
            laws.alias_table(pmf, level.column_bits, bits, origin + start)
            for pmf, start in zip(pmfs, starts, strict=True)
        ]
        thresholds = [threshold for table in tables for threshold in table.thresholds]
        top = np.array([threshold >> LOW_BITS for threshold in thresholds], np.uint32)
        aliases = np.concatenate([np.array(table.aliases, np.uint32) for table in tables])
        entries.append(
            top << np.uint32(level.column_bits) | aliases if level.packed else np.concatenate([top, aliases])
        )
        below.append(np.array([threshold & ((1 << LOW_BITS) - 1) for threshold in thresholds], np.uint64))
        origins.append(origin)
        steps.append(step)
        distance += max(table.distance for table in tables)
    joined = np.concatenate(below)
    built = HostTables(
        np.concatenate(entries),
        (joined >> np.uint64(32)).astype(np.uint32),
        (joined & np.uint64(0xFFFFFFFF)).astype(np.uint32),
        np.array(origins, np.int64).astype(np.uint32),
        np.array(steps, np.int64).astype(np.uint32),
        math.inf,
    )
    return built, distance
