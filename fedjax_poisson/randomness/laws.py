"""Exact host arithmetic of Skellam laws: probabilities as big integers and alias tables with integer thresholds.

Everything here runs once on the host in Python integers, so each table comes with a computed bound on its
total-variation distance to the true law rather than with an estimate.

Probabilities. For X = Poisson(a) - Poisson(b), a >= b >= 0, p_k = P(X = k) satisfies `k p_k = a p_{k-1} - b p_{k+1}`
(differentiate the generating function exp(a (z - 1) + b (1/z - 1)); for a = b it is the Bessel recurrence). With rho_k
= p_k / p_{k-1} this reads `rho_k = a / (k + b rho_{k+1})`, a map that decreases in rho_{k+1} and shrinks relative
errors by b rho_{k+1} / (k + b rho_{k+1}) < 1. So the enclosure [0, a / k] of a far ratio, mapped downward, stays an
enclosure and narrows; it is carried until it is narrower than 2^-120 and the ratios below inherit that relative error.
Negative k: the same with a and b exchanged. Multiplying from near the mean outwards gives all p_k up to one factor,
which their sum removes. The mass left outside is bounded by Chernoff's inequality at 2^-90 a side.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

_FRACTION_BITS = 256
_ONE = 1 << _FRACTION_BITS
_FAR_TAIL_BITS = 90.0
_RATIO_BITS = 120
PMF_DEFECT = Fraction(1, 1 << 88)  # two far tails of 2^-90 and fewer than 2^20 ratios of relative error 2^-119
TAIL_BITS = 67  # mass that a table may leave out, together on both sides


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pmf:
    """A law on consecutive integers as unnormalised integer weights.

    Attributes:
        low: the smallest outcome.
        weights: positive ints; P(low + i) = weights[i] / total up to `defect`.
        total: the sum of the weights before the tails were cut off, so sum(weights) <= total.
        defect: total variation between weights / sum(weights) and the true law is at most this.
    """

    low: int
    weights: list[int]
    total: int
    defect: Fraction


@dataclasses.dataclass(frozen=True, kw_only=True)
class AliasTable:
    """One law as 2^column_bits equally likely columns of two outcomes each (Walker's alias method, integer thresholds).

    Column i yields `low + i` when a uniform integer of `threshold_bits` bits is below `thresholds[i]`, else `low + aliases[i]`.

    Attributes:
        low: outcome of column 0.
        threshold_bits: of the integers that thresholds are compared with.
        thresholds: ints in [0, 2^threshold_bits); a column that always yields its own outcome has itself as alias.
        aliases: column numbers.
        distance: bound on the total variation between the law sampled with ideal uniform bits and the true law.
    """

    low: int
    threshold_bits: int
    thresholds: list[int]
    aliases: list[int]
    distance: Fraction


def chernoff_reach(a: float, b: float, bits: float) -> int:
    """An integer k above the mean, least up to rounding, with Chernoff's P(Poisson(a) - Poisson(b) >= k) <= 2^-bits.

    The exponent sup_s (s k - a (e^s - 1) - b (e^-s - 1)) is attained at e^s = (k + sqrt(k^2 + 4 a b)) / (2 a).
    """
    nats = bits * math.log(2)

    def exponent(k: float) -> float:
        if a == 0 and k >= 0:
            return math.inf if k > 0 else b
        root = math.hypot(k, 2 * math.sqrt(a * b))
        tilt = (k + root) / (2 * a) if k >= 0 else 2 * b / (root - k)
        return k * math.log(tilt) - a * (tilt - 1) - b * (1 / tilt - 1)

    start, step = math.floor(a - b), 1.0
    while exponent(start + step) < nats:
        step *= 2
    below, above = start + step / 2, start + step
    while above - below > 0.5:
        middle = (below + above) / 2
        below, above = (below, middle) if exponent(middle) >= nats else (middle, above)
    return math.ceil(above)


def skellam_pmf(plus: Fraction, minus: Fraction, tail_bits: int = TAIL_BITS) -> Pmf:
    """The law of Poisson(plus) - Poisson(minus) with both tails together cut at 2^-tail_bits (module docstring).

    Args:
        plus: exact rate of the positive channel, >= 0.
        minus: exact rate of the negative channel, >= 0.
        tail_bits: see above.
    """
    if plus < minus:
        mirrored = skellam_pmf(minus, plus, tail_bits)
        high = mirrored.low + len(mirrored.weights) - 1
        return dataclasses.replace(mirrored, low=-high, weights=mirrored.weights[::-1])
    if plus == 0:
        return Pmf(low=0, weights=[_ONE], total=_ONE, defect=Fraction(0))
    a, b = _fixed(plus), _fixed(minus)
    high = chernoff_reach(float(plus), float(minus), _FAR_TAIL_BITS)
    low = -chernoff_reach(float(minus), float(plus), _FAR_TAIL_BITS)
    low = low if minus > 0 else max(low, 0)
    start = min(max(round(float(plus - minus)), low, 0), high)
    ratios = _ratios(a, b, high, max(low, 0) + 1)  # ratios[k - first] = p_k / p_{k-1}
    first = max(low, 0) + 1
    upward = [_ONE]
    for k in range(start + 1, high + 1):
        upward.append(upward[-1] * ratios[k - first] >> _FRACTION_BITS)
    downward = [_ONE]
    for k in range(start, first - 1, -1):
        downward.append((downward[-1] << _FRACTION_BITS) // ratios[k - first])
    if low < 0:
        for ratio in _ratios(b, a, -low, 1):
            downward.append(downward[-1] * ratio >> _FRACTION_BITS)
    weights = downward[:0:-1] + upward
    return _trim(low, weights, tail_bits)


def centred_binomial_pmf(half: int, tail_bits: int = TAIL_BITS) -> Pmf:
    """The law of Binomial(2 half, 1/2) - half with both tails together cut at 2^-tail_bits: a sum of `half` pairs of fair bits, one counted against the other.

    p_{k+1} / p_k = (half - k) / (half + k + 1), exactly, so the weights follow from the centre outwards in integers of 256 fractional bits. Each product is
    rounded down by less than one unit and no ratio exceeds 1, so the k-th weight is short by less than k units. Outside |k| <= sqrt(half 90 ln 2) lies
    less than 2^-90 a side (Hoeffding); inside, weights are at least 2^-140 of the centre's, so that 2^20 units are far below the defect.

    Args:
        half: h >= 1, at most 2^32.
        tail_bits: see above.
    """
    reach = min(math.ceil(math.sqrt(half * _FAR_TAIL_BITS * math.log(2))), half)
    upward = [_ONE]
    for k in range(reach):
        upward.append(upward[-1] * (half - k) // (half + k + 1))
    return _trim(-reach, upward[:0:-1] + upward, tail_bits)


def alias_table(pmf: Pmf, column_bits: int, threshold_bits: int, low: int | None = None) -> AliasTable:
    """Build the alias table of `pmf` on 2^column_bits columns; all arithmetic is exact in integers.

    Each probability is rounded to a multiple of 2^-(column_bits + threshold_bits) and the rounding surplus goes to the likeliest
    outcome. The distance is half the exactly computed sum of the changes, plus the pmf's own defect.

    Args:
        pmf: the law.
        column_bits: log2 of the columns.
        threshold_bits: of the uniform integers that thresholds are compared with.
        low: outcome of column 0, at most the least outcome of the law, which it is by default.

    Raises:
        ValueError: if the columns do not reach from `low` to the last outcome.
    """
    before = 0 if low is None else pmf.low - low
    columns, size = 1 << column_bits, before + len(pmf.weights)
    if before < 0 or size > columns:
        raise ValueError(
            f"outcomes {pmf.low} to {pmf.low + len(pmf.weights) - 1} do not fit {columns} columns from {pmf.low - before} on; "
            f"use at least {(size - 1).bit_length()} column bits and begin no later than at the least outcome"
        )
    scale, total = 1 << (column_bits + threshold_bits), sum(pmf.weights)
    masses = [(2 * w * scale + total) // (2 * total) for w in pmf.weights]
    top = max(range(len(masses)), key=masses.__getitem__)
    masses[top] += scale - sum(masses)
    change = sum(abs(m * total - w * scale) for m, w in zip(masses, pmf.weights, strict=True))
    thresholds, aliases = _pair_columns([0] * before + masses + [0] * (columns - size), 1 << threshold_bits)
    return AliasTable(
        low=pmf.low - before,
        threshold_bits=threshold_bits,
        thresholds=thresholds,
        aliases=aliases,
        distance=Fraction(change, 2 * total * scale) + pmf.defect,
    )


def _pair_columns(masses: list[int], capacity: int) -> tuple[list[int], list[int]]:
    """Vose's pairing: fill every short column from a long one; the masses are ints that sum to columns * capacity."""
    left = list(masses)
    short = [i for i, m in enumerate(left) if m < capacity]
    long = [i for i, m in enumerate(left) if m >= capacity]
    thresholds, aliases = [0] * len(left), list(range(len(left)))
    while short:
        i, j = short.pop(), long[-1]
        thresholds[i], aliases[i] = left[i], j
        left[j] -= capacity - left[i]
        if left[j] < capacity:
            short.append(long.pop())
    return thresholds, aliases


def _fixed(rate: Fraction) -> int:
    return (rate.numerator << _FRACTION_BITS) // rate.denominator


def _ratios(a: int, b: int, high: int, first: int) -> list[int]:
    """Fixed-point rho_k = p_k / p_{k-1}, k = first .. high, of Poisson(a) - Poisson(b), each within 2^-119 relative."""
    extra = 16
    while True:
        lower, upper = 0, a // (high + extra + 1) + 1
        for k in range(high + extra, high, -1):
            shifted = k << _FRACTION_BITS
            lower, upper = (
                (a << _FRACTION_BITS) // (shifted + (b * upper >> _FRACTION_BITS) + 1),
                (a << _FRACTION_BITS) // (shifted + (b * lower >> _FRACTION_BITS)) + 1,
            )
        if (upper - lower) << _RATIO_BITS <= lower or upper - lower <= 2:
            break
        extra *= 2
    ratio, ratios = lower, []
    for k in range(high, first - 1, -1):
        ratio = (a << _FRACTION_BITS) // ((k << _FRACTION_BITS) + (b * ratio >> _FRACTION_BITS))
        ratios.append(ratio)
    return ratios[::-1]


def _trim(low: int, weights: list[int], tail_bits: int) -> Pmf:
    total = sum(weights)
    allowance = total >> (tail_bits + 1)
    begin, cut_below = 0, 0
    while cut_below + weights[begin] <= allowance:
        cut_below += weights[begin]
        begin += 1
    end, cut_above = len(weights), 0
    while cut_above + weights[end - 1] <= allowance:
        end -= 1
        cut_above += weights[end]
    defect = Fraction(cut_below + cut_above, total) + PMF_DEFECT
    return Pmf(low=low + begin, weights=weights[begin:end], total=total, defect=defect)
