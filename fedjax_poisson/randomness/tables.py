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
"""

from __future__ import annotations

import dataclasses
import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.randomness import laws
from fedjax_poisson.randomness.layout import Layout, choose_layout

GRID_BITS = 20
LEAST_RATE, LARGEST_RATE = 0.01, 1e8
MAX_DISTANCE = 2.0**-60
"""Tables whose law is farther from the true one, in total variation, are refused."""
_SPAN_BITS = GRID_BITS + 1
_ENTRY_BUDGET = 1 << 17  # table entries (12 bytes each) before another level is preferred
_PACKED_SPAN = 1 << 16
_MAX_DIGIT_BITS = 12
_IMPOSSIBLE = 1 << 62


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
        offset: first entry of this level in the thresholds.
        outcome_offset: first entry of this level in the outcomes.
        origin: the outcome that a stored outcome of 0 stands for.
        packed: both outcomes of a column share a 32-bit word; else they lie `rows << column_bits` entries apart.
    """

    shift: int
    bits: int
    last: bool
    mirrored: bool
    rows: int
    column_bits: int
    offset: int
    outcome_offset: int
    origin: int
    packed: bool


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["high", "low", "outcomes"],
    meta_fields=["levels", "layout", "distance", "kind"],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingTables:
    """Alias tables of all levels, a pytree whose leaves are device arrays and whose plan is static.

    Attributes:
        high: uint32[E], upper halves of the 64-bit thresholds.
        low: uint32[E], lower halves.
        outcomes: uint32[E'], the two outcomes of each column (see `Level.packed`).
        levels: the plan.
        layout: where in a group of ChaCha20 blocks each random number lies.
        distance: bound on the total variation between a draw and the true law; the sum over a vector's draws bounds the
            vector's.
        kind: "push_pull", "single_channel", "poisson" or "skellam".
    """

    high: jax.Array
    low: jax.Array
    outcomes: jax.Array
    levels: tuple[Level, ...]
    layout: Layout
    distance: float
    kind: str


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
    levels, high, low, outcomes, distance = _build(kind, first, second)
    layout = choose_layout(tuple(level.column_bits for level in levels))
    distance += layout.distance
    bound = float(distance) * (1 + 1e-12)
    if bound > MAX_DISTANCE:
        raise ValueError(
            f"the tables for {kind} at {float(first)!r} are {bound:.3g} from the law, above 2^-60; "
            "choose another rate and report this one"
        )
    with jax.ensure_compile_time_eval():
        return SamplingTables(
            high=jnp.asarray(high),
            low=jnp.asarray(low),
            outcomes=jnp.asarray(outcomes),
            levels=levels,
            layout=layout,
            distance=bound,
            kind=kind,
        )


def _build(
    kind: str, first: Fraction, second: Fraction
) -> tuple[tuple[Level, ...], np.ndarray, np.ndarray, np.ndarray, Fraction]:
    """Lay all levels one after the other; returns the plan, the three arrays and the summed distance of the levels."""
    levels: list[Level] = []
    thresholds: list[np.ndarray] = []
    outcomes: list[np.ndarray] = []
    distance = Fraction(0)
    for shift, bits in plan_digits(kind, first, second):
        pmfs = [laws.skellam_pmf(*rates) for rates in level_rates(kind, first, second, shift, bits)]
        column_bits = max((len(p.weights) - 1).bit_length() for p in pmfs)
        columns = np.arange(1 << column_bits, dtype=np.uint32)
        tables = [laws.alias_table(p, column_bits) for p in pmfs]
        distance += max(t.distance for t in tables)
        origin = min(t.low for t in tables)
        own = np.concatenate([columns + np.uint32(t.low - origin) for t in tables])
        other = np.concatenate([np.array(t.aliases, np.uint32) + np.uint32(t.low - origin) for t in tables])
        packed = int(own.max()) < _PACKED_SPAN
        levels.append(
            Level(
                shift=shift,
                bits=bits,
                last=shift == 0,
                mirrored=kind == "push_pull",
                rows=len(tables),
                column_bits=column_bits,
                offset=sum(t.size for t in thresholds),
                outcome_offset=sum(o.size for o in outcomes),
                origin=origin,
                packed=packed,
            )
        )
        thresholds.append(np.concatenate([np.array(t.thresholds, np.uint64) for t in tables]))
        outcomes.append(own | other << np.uint32(16) if packed else np.concatenate([own, other]))
    joined = np.concatenate(thresholds)
    high, low = (joined >> np.uint64(32)).astype(np.uint32), (joined & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return tuple(levels), high, low, np.concatenate(outcomes), distance


def level_rates(kind: str, first: Fraction, second: Fraction, shift: int, bits: int) -> list[tuple[Fraction, Fraction]]:
    """Exact rates (plus, minus) of each stored row of the level with `bits` bits from `shift` up (module docstring)."""
    if kind in ("poisson", "skellam"):
        return [(first, second)]
    units = digit_units(shift, bits)
    step = first * second / (1 << GRID_BITS) * (1 << shift)
    floor = first * (1 - second) if shift + bits == _SPAN_BITS else Fraction(0)
    if kind == "push_pull":
        return [(floor + step * d, floor + step * (units - d)) for d in range(units // 2 + 1)]
    return [(floor + step * d, Fraction(0)) for d in range(units + 1)]


def digit_units(shift: int, bits: int) -> int:
    """The largest value of a digit: 2^bits - 1, and one more for the last digit, which owns the unit that is left."""
    return (1 << bits) - (shift > 0)


def plan_digits(kind: str, first: Fraction, second: Fraction) -> list[tuple[int, int]]:
    """Cut the 21 bits of w into digits (shift, bits) from the top: few digits first, then small tables."""
    if kind in ("poisson", "skellam"):
        return [(0, 0)]

    @functools.cache
    def entries(top: int, bits: int) -> int:
        rates = _widest_rates(kind, float(first), float(second), top - bits, bits)
        width = max(laws.chernoff_reach(a, b, 60.0) + laws.chernoff_reach(b, a, 60.0) for a, b in rates)
        units = digit_units(top - bits, bits)
        return (units // 2 + 1 if kind == "push_pull" else units + 1) << max(width - 1, 1).bit_length()

    @functools.cache
    def best(top: int, levels: int) -> tuple[int, tuple[int, ...]]:
        if levels == 1:
            return (entries(top, top), (top,)) if top <= _MAX_DIGIT_BITS else (_IMPOSSIBLE, ())
        options = []
        for bits in range(1, min(top - levels + 1, _MAX_DIGIT_BITS) + 1):
            rest, digits = best(top - bits, levels - 1)
            options.append((entries(top, bits) + rest, (bits, *digits)))
        return min(options)

    plans = [best(_SPAN_BITS, levels) for levels in range(2, _SPAN_BITS + 1)]
    budget = max(_ENTRY_BUDGET, 3 * min(plans)[0] // 2)
    digits = next(d for size, d in plans if size <= budget)
    tops = [_SPAN_BITS - sum(digits[:i]) for i in range(len(digits))]
    return [(top - bits, bits) for top, bits in zip(tops, digits, strict=True)]


def _widest_rates(kind: str, mean: float, modulation: float, shift: int, bits: int) -> list[tuple[float, float]]:
    """The widest rows of a level in floats, good enough to plan with."""
    units = digit_units(shift, bits) * mean * modulation * 2.0 ** (shift - GRID_BITS)
    floor = mean * (1 - modulation) if shift + bits == _SPAN_BITS else 0.0
    if kind == "push_pull":
        return [(floor + units, floor), (floor + units / 2, floor + units / 2)]
    return [(floor + units, 0.0)]
