"""One draw with the exact law of a sum of n senders' counts.

Independent Poisson numbers add: the sum over n senders of Poisson(mu (1 + r v_i)) - Poisson(mu (1 - r v_i)) is Poisson(mu (n + r V)) - Poisson(mu (n - r V)),
V = sum v_i = M / 2^20 with M the integer sum of the grids. With P = 2^p >= n and u = mu r 2^-20,

    w = M + P 2^20 in [0, P 2^21],    plus rate = floor + u w,    minus rate = floor + u (P 2^21 - w),    floor = mu (n - r P),

since u w = mu r (V + P). So the digits of w, of 21 + p bits, select fixed laws as in `tables`; they depend on mu r and P alone. The number of senders is in the
floor only: a Skellam number of that rate, drawn as k equal parts of rate floor / k from one table. All rates are exact rationals. It needs r P < n, which
P < 2 n gives for every r < 1/2. A single channel drops what goes to minus; plain Skellam noise is a floor without digits.

What changes with n (attendance) or mu (a sweep) are numbers: tables are leaves, k is traced, plans are those of ranges. So programs are shared.

**Distance.** One draw of the sum is within `SumTables.distance` of its law in total variation: the digits' tables and k times the floor's, *computed* while
they are built. Senders that drew for themselves would be charged n `MAX_DISTANCE` or more; tables of a sum that are farther than that are refused.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from fractions import Fraction
from typing import Any, Literal

import jax
import jax.numpy as jnp

from fedjax_poisson.randomness import laws, samplers
from fedjax_poisson.randomness.chacha import Stream, fold_each, fold_in
from fedjax_poisson.randomness.grid_sum import GridSum, whole
from fedjax_poisson.randomness.layout import choose_layout
from fedjax_poisson.randomness.table_plan import SPAN_BITS, Level, TablePlan
from fedjax_poisson.randomness.tables import MAX_DISTANCE, SamplingTables, exact_tables, span_of, tables_of

__all__ = ["MODULATION_BELOW", "SumTables", "binomial_tables", "draw_sum", "sum_tables"]

Channels = Literal["both", "one", "noise"]
_PART_RATES = (1 << 22, 1 << 24, 1 << 26)  # of one part of the floor: small tables first
_PLANNED_BITS = laws.TAIL_BITS + 1.0
MODULATION_BELOW = Fraction(1, 2)
"""Below it, r P < n for every number of senders."""
MOST_MODULATED = Fraction(1 << 30)
"""Largest mu r: beyond it the mean of a single sender's count passes 31 bits."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SumTables:
    """The law of the sum of n senders' counts, a pytree whose structure is that of a range of laws.

    Attributes:
        digits: tables of w's digits; None for noise that does not depend on data.
        floor: table of one part of the floor.
        parts: int32 [], k.
        distance: bound on the total variation of one coordinate's draw. A fact for the host, infinite inside a program.
    """

    digits: SamplingTables | None
    floor: SamplingTables
    parts: jax.Array
    distance: float = math.inf


def _flatten(tables: SumTables) -> tuple[tuple[Any, ...], None]:
    return (tables.digits, tables.floor, tables.parts), None


def _unflatten(_: None, leaves: tuple[Any, ...]) -> SumTables:
    digits, floor, parts = leaves
    return SumTables(digits=digits, floor=floor, parts=parts)


jax.tree_util.register_pytree_node(SumTables, _flatten, _unflatten)


def sum_tables(
    channels: Channels, *, rate: Fraction, modulation: Fraction, senders: int, most: int, draws: int = 1
) -> SumTables:
    """Tables of the sum over `senders` senders; cached.

    Args:
        channels: "both" for Poisson(mu (n + r V)) - Poisson(mu (n - r V)); "one" for Poisson(mu (n + r V)); "noise" for M + Skellam(n mu).
        rate: mu of one sender, exact.
        modulation: r in (0, 1/2), exact; 0 for "noise".
        senders: n >= 1 that are in the sum.
        most: that might be: sums of fewer share its digits, and so its programs, where r P < n lets them.
        draws: draws that one sender's coordinate would be the sum of, each charged 2^-60.

    Raises:
        ValueError: r is 1/2 or more, mu r is above 2^30, or the tables are farther from the law than what senders' own draws would be charged.
    """
    if not 1 <= senders <= most:
        raise ValueError(f"senders={senders} must lie between 1 and most={most}.")
    if channels == "noise":
        digits, floor_rate = None, rate * senders
    else:
        span = _padded(most)
        if modulation * span >= senders:
            span = _padded(senders)
        if not 0 < modulation or modulation * span >= senders:
            raise ValueError(
                f"modulation={float(modulation)}: the sum of {senders} senders is drawn at once for modulations in (0, 1/2) only."
            )
        if rate * modulation > MOST_MODULATED:
            raise ValueError(
                f"a rate of {float(rate):g} modulated by {float(modulation):g} has sums beyond 32 bits; lower one of them."
            )
        digits = _digits(f"digits_of_{channels}", rate * modulation, SPAN_BITS + span.bit_length() - 1)
        floor_rate = rate * (senders - modulation * span)
    kind = "floor_of_one" if channels == "one" else "floor_of_both"
    allowed = senders * draws * MAX_DISTANCE
    distance = math.inf
    for largest in _PART_RATES:
        parts = math.ceil(floor_rate / largest)
        if parts * MAX_DISTANCE > 4 * allowed and largest != _PART_RATES[-1]:
            continue
        floor = _floor(kind, floor_rate / parts)
        distance = (0.0 if digits is None else digits.distance) + parts * floor.distance
        if distance <= allowed:
            with jax.ensure_compile_time_eval():
                return SumTables(digits=digits, floor=floor, parts=jnp.int32(parts), distance=distance)
    raise ValueError(
        f"the sum of {senders} senders at a rate of {float(rate):g} would be {distance:.3g} from its law, above the {allowed:.3g} of senders' own draws; "
        "let every sender draw for itself."
    )


def draw_sum(stream: Stream, total: GridSum, tables: SumTables) -> jax.Array:
    """The counts of a sum, int32 [D], whose senders' grids add up to `total` (module docstring).

    Args:
        stream: consumed by this call.
        total: normalised; |M| <= n 2^20, within 31 bits where tables have no digits.
        tables: of `sum_tables`.
    """
    size = total.low.shape[0]
    of_digits, of_floor = fold_each(stream, "digits", "floor")
    if tables.digits is None:
        counts = whole(total)
    else:
        padded = jnp.int32(1 << (span_of(tables.digits) - SPAN_BITS))
        units = GridSum(total.high + padded, total.low)
        counts = samplers.of_sum(of_digits, units, tables.digits)

    # By itself, not added to the digits part by part: it does not depend on the clients, so a processor draws it while they train.
    def add(part: jax.Array, drawn: jax.Array) -> jax.Array:
        return drawn + samplers.floor(fold_in(of_floor, part.astype(jnp.uint32)), size, tables.floor)

    nothing = counts & jnp.int32(
        0
    )  # varies over the mesh axes of the counts, as shard_map wants of a carry; the compiler drops it
    return counts + jax.lax.fori_loop(jnp.int32(0), tables.parts, add, nothing)


def _padded(senders: int) -> int:
    """P: the least power of two that is no smaller."""
    return 1 << (senders - 1).bit_length()


@functools.lru_cache(maxsize=32)
def _digits(kind: str, rate: Fraction, span: int) -> SamplingTables:
    return exact_tables(kind, rate, Fraction(1), span)


@functools.lru_cache(maxsize=256)
def _floor(kind: str, rate: Fraction) -> SamplingTables:
    return exact_tables(kind, rate, rate if kind == "floor_of_both" else Fraction(0))


@functools.lru_cache(maxsize=256)
def binomial_tables(half: int) -> SamplingTables:
    """Tables of Binomial(2 half, 1/2) - half, the sum of `half` pairs of fair bits, one counted against the other; cached.

    Raises:
        ValueError: half is below 1 or above 2^32.
    """
    if not 1 <= half <= 1 << 32:
        raise ValueError(f"half={half} must lie between 1 and 2^32.")
    plan = _binomial_plan(1 << (2 * ((half.bit_length() + 1) // 2)))
    return tables_of("binomial", plan, [[laws.centred_binomial_pmf(half)]], [Fraction(0)], f"binomial at {half}")


@functools.cache
def _binomial_plan(half: int) -> TablePlan:
    """One level on the columns of the widest law of a range: outside sqrt(half bits ln 2) lies 2^-bits a side (Hoeffding)."""
    column_bits = (2 * math.ceil(math.sqrt(half * _PLANNED_BITS * math.log(2))) + 1).bit_length()
    layout = choose_layout((column_bits,))
    level = Level(
        shift=0,
        bits=0,
        last=True,
        mirrored=False,
        rows=1,
        column_bits=column_bits,
        offset=0,
        entry_offset=0,
        packed=layout.packed[0],
        slope_shift=0,
    )
    return TablePlan((level,), layout)
