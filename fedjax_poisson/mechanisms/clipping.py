"""Clipping with bounds that are proved after rounding, not before it.

A privacy proof speaks of the vector that is really embedded. Here that vector lives on an integer grid: `v = m / 2**20` with int32
`m`, and every bound is a statement about integers, checked in integers:

* coordinates: `|m_j| <= coordinate_limit`, by an integer clamp;
* L2: `sum_j m_j**2 <= squared_norm_limit`, with the sum of squares computed exactly in multi-word integer arithmetic, whatever the
  number of coordinates and the order of summation, and compared exactly.

So no float32 norm ever decides, and the same input gives the same bits on every device: the only floating-point operations are single
correctly rounded products, and roundings of them to integers.

Values are rounded to the *nearest* grid step, so a sum of many small contributions is not biased toward zero. Rounding can lengthen a vector by up to
sqrt(D) / 2 steps. `clip_to_grid` returns `rint(f u)`, clamped, for a factor f of the whole update:

* *short*: an update that is not longer than sqrt(B') steps has f = one step;
* *long*: in integer units n of its own octave (N = sum n**2), f is the largest s / 2**p with `s**2 * N <= B' * 4**p` (`limbs.largest_factor`), B' a little
  below B = squared_norm_limit.

How far below, and what the L2 bound rests on, follows from D and the limits (`scaled_target`), before there is an update:

* *by length*, where what rounding can add at most is less than 2**-9 of the bound: B' leaves room for all of it, and the bound follows from N (*proved*);
* *by what came out*, on coarser grids: B' leaves room for what rounding adds on average and 1.2 steps. The sum of squares of what came out, exactly computed
  after the clamp, is compared with B. If it is larger, f is lowered and all is done again: by 2**-20 of itself, then twice that, and so on, in the
  twenty-first turn by all of itself, and zero has norm zero. Nothing else ends the loop, so both bounds hold whatever the factor was (*proved*). That
  more than one turn is rare is a matter of utility and time alone (*checked numerically*: fewer than one in a thousand long updates).

A coordinate below half a grid step becomes 0, as to nearest it must; only a finer grid (a smaller total_bound) helps there. The direction of a long update is
kept by scaling it to the L2 bound before the coordinates are clamped.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.mechanisms import limbs
from fedjax_poisson.randomness import GRID_BITS

_SHRINK_BITS = 30
_OCTAVES = GRID_BITS + 4  # an update of D <= 2**40 coordinates below 2**(top - 22) is shorter than its bound
_THRESHOLD_LIMBS = 6  # B' in squared units of an octave is below (2**top / 2**(top - 42))**2 = 2**84
_WIDE_LIMBS = 7  # B < 4**(19 + 29); B' 4**point < 4**(19 + bits) 4**(30 - bits) = 2**98
_INFINITE = 0x7F800000  # bits of infinity; those of a NaN lie above
LOWERED_FROM = 20  # a factor that is too large is lowered by 2**-20 of itself at first


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipLimits:
    """Exact integer bounds of one unit's contribution on the grid.

    Attributes:
      coordinate_limit: `|m_j|` is at most this, at most 2**20.
      squared_norm_limit: `sum_j m_j**2` is at most this.
      grid_step: the value of one grid step in the update's own unit (total_bound / 2**20).
      top_exponent: smallest integer with `2**top_exponent >= clip_norm`.
    """

    coordinate_limit: int
    squared_norm_limit: int
    grid_step: float
    top_exponent: int


def clip_limits(*, clip_norm: float, coordinate_bound: float, total_bound: float) -> ClipLimits:
    """Integer bounds that imply `||u||_2 <= clip_norm` and `|u_j| <= coordinate_bound` for `u = m * total_bound / 2**20`.

    The floats are taken as the exact rationals they are; both limits are rounded down.

    Args:
      clip_norm: L2 bound C of one unit, > 0.
      coordinate_bound: per-coordinate bound c_inf of one unit, 0 < c_inf <= C.
      total_bound: bound A of the embedded vector, >= coordinate_bound.

    Raises:
      ValueError: they are not in this order, or too small or large for the grid.
    """
    # A NumPy number would bring integers of 64 bits into what has to be exact.
    clip_norm, coordinate_bound, total_bound = float(clip_norm), float(coordinate_bound), float(total_bound)
    if not 0 < coordinate_bound <= total_bound < math.inf:
        raise ValueError(
            f"coordinate_bound={coordinate_bound} must be positive and at most total_bound={total_bound}, a finite number: a grid has 2**{GRID_BITS} steps."
        )
    if not 2.0**-60 < clip_norm < 2.0**60:
        raise ValueError(f"clip_norm={clip_norm} is outside 2**-60 .. 2**60; rescale the update.")
    steps = Fraction(2**GRID_BITS) / Fraction(total_bound)
    coordinate_limit = int(Fraction(coordinate_bound) * steps)
    squared_norm_limit = int((Fraction(clip_norm) * steps) ** 2)
    if coordinate_limit < 1:
        raise ValueError(
            f"coordinate_bound={coordinate_bound} is below one grid step of total_bound={total_bound} / 2**{GRID_BITS}: "
            "every contribution would round to zero; lower total_bound."
        )
    fraction, top = math.frexp(clip_norm)
    top -= fraction == 0.5
    return ClipLimits(
        coordinate_limit=coordinate_limit,
        squared_norm_limit=squared_norm_limit,
        grid_step=total_bound / 2**GRID_BITS,
        top_exponent=top,
    )


def integer_steps(*, clip_norm: float, scale: float, coordinate_bound: float | None = None) -> tuple[ClipLimits, int]:
    """Limits for updates that become integers `scale * u`, and how many binary places the grid has behind the integer.

    Args:
      clip_norm: L2 bound C of one unit.
      scale: integer steps per unit of the update.
      coordinate_bound: per-coordinate bound of one unit, at most C; None for C.

    Raises:
      ValueError: `scale * clip_norm` exceeds 2**16, which would leave the grid fewer than four places.
    """
    steps = scale * clip_norm
    if steps > 2**16:
        raise ValueError(f"scale * clip_norm = {steps:.6g} exceeds 2**16: lower scale (10 sqrt(dimension) is plenty).")
    point = GRID_BITS - max(math.ceil(math.log2(steps)), 0)
    total_bound = 2.0**GRID_BITS / (scale * 2.0**point)
    bound = clip_norm if coordinate_bound is None else coordinate_bound
    return clip_limits(clip_norm=clip_norm, coordinate_bound=bound, total_bound=total_bound), point


class ClipNumbers(NamedTuple):
    """`ClipLimits` as arrays for updates of one length: what a compiled clip computes with, so that mechanisms with other bounds share its program.

    All of them are made on the host, from the exact limits: a program that gets them as arguments compares with the integers that the proof speaks of.

    Attributes:
      limit: int32 `[]`, `coordinate_limit`.
      steps: float32 `[]`, grid steps per unit of the update.
      bound: uint32 `[7]`, the limbs of `squared_norm_limit`; None where the bound follows from the length before rounding.
      thresholds: uint32 `[octaves, 6]`: the limbs of B' in the squared units of each octave.
      target: uint32 `[7]`: the limbs of B' 4**point.
      point: uint32 `[]`, binary places of the factor that shrinks.
      top: int32 `[]`, `top_exponent`.
    """

    limit: Array
    steps: Array
    bound: Array | None
    thresholds: Array
    target: Array
    point: Array
    top: Array


class ExactNumbers(NamedTuple):
    """What a clip of updates of one length compares and multiplies with, exactly, on the host.

    Attributes:
      steps: float32 grid steps per unit of the update.
      bound: `squared_norm_limit`; None where the bound follows from the length before rounding.
      thresholds: B' in the squared units of each octave, rounded down.
      target: B' 4**point.
      point: binary places of the factor that shrinks.
    """

    steps: np.float32
    bound: int | None
    thresholds: tuple[int, ...]
    target: int
    point: int


@functools.lru_cache(maxsize=256)
def exact_numbers(limits: ClipLimits, dimension: int) -> ExactNumbers:
    """The numbers of a clip of float32 `[dimension]`.

    Raises:
      ValueError: the limits are too far apart for the factor's bits.
    """
    target, proved = scaled_target(limits, dimension)
    units = [Fraction(2) ** (limits.top_exponent + 1 - k - GRID_BITS) for k in range(_OCTAVES)]
    thresholds = tuple(int(target * (Fraction(limits.grid_step) / unit) ** 2) for unit in units)
    assert not proved or thresholds[0] <= 1 << (2 * GRID_BITS - 2), (
        "an update above the first octave would count as short"
    )
    # n sqrt(B' / N) with N >= 2**38: the factor needs the bits of sqrt(B) / 2**19 before the point, the other 30 behind it.
    whole_bits = (math.isqrt(limits.squared_norm_limit) >> (GRID_BITS - 1)).bit_length()
    point = _SHRINK_BITS - whole_bits
    if point < 1:
        raise ValueError("clip_norm / coordinate_bound exceeds 2**28; raise coordinate_bound.")
    bound = None if proved else limits.squared_norm_limit
    return ExactNumbers(np.float32(1.0 / limits.grid_step), bound, thresholds, target << (2 * point), point)


@functools.lru_cache(maxsize=256)
def clip_numbers(limits: ClipLimits, dimension: int) -> ClipNumbers:
    """`exact_numbers` as arrays.

    Raises:
      ValueError: as `exact_numbers`.
    """
    exact = exact_numbers(limits, dimension)
    numbers = (
        np.int32(limits.coordinate_limit),
        exact.steps,
        None if exact.bound is None else limbs.limbs_of(exact.bound, _WIDE_LIMBS),
        np.stack([limbs.limbs_of(each, _THRESHOLD_LIMBS) for each in exact.thresholds]),
        limbs.limbs_of(exact.target, _WIDE_LIMBS),
        np.uint32(exact.point),
        np.int32(limits.top_exponent),
    )
    with jax.ensure_compile_time_eval():
        return ClipNumbers(*jax.device_put(numbers))


def limit_limbs(squared_norm_limit: int) -> Array:
    """A squared norm as limbs uint32 `[7]` for `limbs.at_most`, to be an argument of programs."""
    with jax.ensure_compile_time_eval():
        made: Array = jax.device_put(limbs.limbs_of(squared_norm_limit, _WIDE_LIMBS))
    return made


def to_grid(update: Array, limits: ClipLimits) -> Array:
    """float32 `[..., D]` to int32 `[..., D]`: rounded to the nearest grid step, clamped per coordinate; NaN becomes 0.

    One float32 product and its rounding (half to even); the rounding of the product or of the scale (relative 2**-24) moves the value, never a bound:
    the limit is an integer below 2**24, so the clamp after the rounding is exact.
    """
    scaled = update.astype(jnp.float32) * jnp.float32(1.0 / limits.grid_step)
    return _rounded(jnp.where(jnp.isnan(scaled), jnp.float32(0), scaled), jnp.int32(limits.coordinate_limit))


def clip_to_grid(update: Array, limits: ClipLimits) -> Array:
    """One unit's contribution: float32 `[D]` to int32 `[D]` on the grid, inside both limits (module docstring has the proof).

    An update longer than clip_norm, less what rounding may add, is first scaled to that, direction kept; then rounded to nearest, coordinates clamped,
    and the bounds of what came out compared exactly, where they do not follow from that. An update that is not finite becomes zeros.
    """
    return clip_with(clip_numbers(limits, update.shape[-1]), update)


def clip_with(numbers: ClipNumbers, update: Array) -> Array:
    """`clip_to_grid` with the limits as numbers that may be arguments of a program."""
    values, factor, _ = _scaled(update, numbers)
    bound = numbers.bound
    finite = is_finite(update)

    def on_grid(factor: Array) -> Array:
        return jnp.where(finite, _rounded(values * factor, numbers.limit), jnp.int32(0))

    if bound is None:
        return on_grid(factor)

    def tried(turn: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        number, factor, _ = turn
        fits = limbs.at_most(limbs.squared_norm(on_grid(factor)), bound)
        lower = factor * (jnp.float32(1) - _power_of_two(number - jnp.int32(LOWERED_FROM)))
        return number + jnp.int32(1), jnp.where(fits, factor, lower), fits

    # Only factors go round: an update that fits at once is read no more often than without the loop, and in a vmap one that does not makes no others wait long.
    # The first try is in the loop too, so that the exact norm of what comes out is compiled once. Before it nothing fits: a comparison that never holds, which
    # varies over the mesh axes of the factor as shard_map wants of a carry.
    first = jnp.int32(0), factor, (factor < jnp.float32(0)) & (factor > jnp.float32(0))
    _, factor, _ = jax.lax.while_loop(lambda turn: ~turn[2], tried, first)
    return on_grid(factor)


def scaled_target(limits: ClipLimits, dimension: int) -> tuple[int, bool]:
    """B', the squared length in grid steps that a long update is scaled to, and whether the L2 bound follows from it for every update (*proved*).

    Let L**2 <= B, c >= sqrt(D), n = rint(v) for the update v in units of its octave, N = |n|**2, so that |v| <= sqrt(N) + c / 2. The largest coordinate has
    19 bits before the point, so sqrt(N) >= 2**19 and |v| <= sqrt(N) (1 + c 2**-20). The factor f keeps `f sqrt(N) <= sqrt(B')` but for its own rounding,
    2**-23 at most; the product with a coordinate is rounded by 2**-24, and then to an integer, by 1/2 at most. So what comes out has a length of at most

        sqrt(B') (1 + c 2**-20) (1 + 2**-22) + c / 2,

    and the clamp makes it no longer. B' is the largest for which that is at most L. (An update with a coordinate above the first octave is at least twice as
    long as the bound, and its N above the threshold of the first; one whose coordinates all lie below the last octave is shorter than c 2**-22 of the bound,
    c / 2 steps aside.) Where less than 1 - 2**-9 of L would be left, rounding is taken as it is on average instead: with errors e,
    independent and uniform on [-1/2, 1/2] (the usual model), `sum (x + e)**2` exceeds l**2 by D / 12 with standard deviation l / sqrt(3) at most (beside the
    small one of sum e**2): in length D / (24 l) and 0.29. Four deviations: rarely (checked numerically). Half of the bound at least, for grids so coarse
    that the model means nothing.
    """
    least, root = math.isqrt(limits.squared_norm_limit), math.isqrt(dimension - 1) + 1
    kept = (least - Fraction(root, 2)) / ((1 + Fraction(root, 1 << 20)) * (1 + Fraction(1, 1 << 22)))
    if kept >= least * (1 - Fraction(1, 1 << 9)):
        return int(kept**2), True
    length = math.sqrt(limits.squared_norm_limit)
    target = length - 4 / math.sqrt(12) - dimension / (24 * max(length, 1.0))
    return min(int(max(target, length / 2) ** 2), limits.squared_norm_limit), False


def _scaled(update: Array, numbers: ClipNumbers) -> tuple[Array, Array, Array]:
    """(v float32 `[D]`, f float32 `[]`, whether the update is longer than the bound): f v is the update in grid steps, scaled to the L2 bound if it is longer.

    v is the update in units of 2**(e - 20), where e is the exponent of its largest coordinate: exact but for what underflows, and rounds to 0. Rounded it is an
    integer vector n with N = sum n**2; the scaled vector is v sqrt(B' / N), whatever the unit. Whether the update is longer than sqrt(B') steps is one
    comparison of N for each e.
    """
    update = update.astype(jnp.float32)
    exponent = (_largest_bits(update) >> jnp.int32(23)) - jnp.int32(126)
    octave = numbers.top + jnp.int32(1) - exponent  # how far below the longest octave the largest coordinate lies
    exponent = jnp.maximum(exponent, numbers.top + jnp.int32(2 - _OCTAVES))
    values = update * _power_of_two(jnp.int32(GRID_BITS) - exponent)
    squared = limbs.squared_norm(jnp.rint(values).astype(jnp.int32))  # each at most 2**20
    threshold = numbers.thresholds[jnp.clip(octave, 0, _OCTAVES - 1)]
    is_long = (octave < _OCTAVES) & ~limbs.at_most(squared, threshold)
    shrinks = limbs.largest_factor(squared, numbers.target, ~is_long)
    shrunk = shrinks.astype(jnp.float32) * _power_of_two(-numbers.point.astype(jnp.int32))
    keeps = numbers.steps * _power_of_two(exponent - jnp.int32(GRID_BITS))
    factor = jnp.where(shrinks == jnp.uint32(limbs.NOT_ASKED), keeps, shrunk)
    return values, factor, is_long


def is_finite(update: Array) -> Array:
    """bool `[]`: whether float32 `[...]` has neither infinity nor NaN. The pass that it takes is one that a clip of the same array takes anyway."""
    return _largest_bits(update.astype(jnp.float32)) < jnp.int32(_INFINITE)


def _largest_bits(update: Array) -> Array:
    """int32 `[]`: the bits of the largest magnitude of float32 `[...]`, which order as magnitudes do, infinity and then NaN above all.

    Integers, since a maximum of floats may miss a NaN where it is compiled for a CPU. Both halves in one reduction, which compilers for CPUs leave one loop: of
    a reduction of one array they make several, each with an array between.
    """
    magnitudes = jax.lax.bitcast_convert_type(update, jnp.int32).reshape(-1) & jnp.int32(0x7FFFFFFF)
    half = magnitudes.size // 2
    halves = magnitudes[:half], magnitudes[half : 2 * half]
    zero = jnp.int32(0)
    first, second = jax.lax.reduce(
        halves, (zero, zero), lambda a, b: (jnp.maximum(a[0], b[0]), jnp.maximum(a[1], b[1])), (0,)
    )
    most = jnp.maximum(first, second)
    return most if magnitudes.size == 2 * half else jnp.maximum(most, magnitudes[-1])


def _power_of_two(exponent: Array) -> Array:
    """float32 2**exponent of int32 in -126 .. 127, exactly."""
    return jax.lax.bitcast_convert_type((jnp.int32(127) + exponent) << jnp.int32(23), jnp.float32)


def _rounded(scaled: Array, limit: Array) -> Array:
    """To the nearest integer, half to even, and clamped: `limit` is at most 2**20, exact in float32, so that the clamp is exact."""
    largest = limit.astype(jnp.float32)
    return jnp.clip(jnp.rint(scaled), -largest, largest).astype(jnp.int32)
