"""`clipping.clip_to_grid` of a few rows in NumPy and Python's integers: the same integers, without a program.

The program of a clip of a few thousand coordinates takes far longer to trace and to compile than a short run spends in it. Here the same bounds hold for the
same reasons, and are easier to see: the sums of squares are exact integers, compared with the limits themselves, and the factor of a long row is an integer
square root. Tests compare both bit by bit.
"""

from __future__ import annotations

import math

import numpy as np

from fedjax_poisson.mechanisms import clipping
from fedjax_poisson.mechanisms.clipping import ClipLimits
from fedjax_poisson.randomness import GRID_BITS

__all__ = ["MOST_VALUES", "clip_rows"]

MOST_VALUES = 1 << 14
"""Of all rows together: more are clipped sooner by a program."""
_LARGEST = (1 << 63) - 1  # no sum of squares here is larger: D squares of at most 2^40


@np.errstate(all="ignore")  # rows that overflow are long or not finite, and nobody shall see that there was one
def clip_rows(limits: ClipLimits, updates: np.ndarray) -> np.ndarray | None:
    """Each row's contribution, inside both limits.

    Args:
      limits: of a unit.
      updates: float32 `[n, D]`; a row that is not finite becomes zeros.

    Returns:
      int32 `[n, D]` on the grid; None if there are more values than `MOST_VALUES`.
    """
    if updates.size > MOST_VALUES:
        return None
    updates = np.asarray(updates, np.float32)
    if not updates.size:
        return np.zeros(updates.shape, np.int32)
    finite = np.isfinite(updates).all(axis=1)
    updates = np.where(finite[:, None], updates, np.float32(0))
    numbers = clipping.exact_numbers(limits, updates.shape[1])
    largest = (updates.view(np.int32) & 0x7FFFFFFF).max(axis=1)
    exponent = (largest >> 23) - 126  # of the largest coordinate, whose magnitude is below 2**exponent
    octave = limits.top_exponent + 1 - exponent
    exponent = np.maximum(exponent, limits.top_exponent + 2 - len(numbers.thresholds))
    values = updates * _power_of_two(GRID_BITS - exponent)[:, None]
    squared = _squared_norms(np.rint(values))
    thresholds = np.array([min(each, _LARGEST) for each in numbers.thresholds])
    is_long = (octave < thresholds.size) & (squared > thresholds[np.clip(octave, 0, thresholds.size - 1)])
    factor = numbers.steps * _power_of_two(exponent - GRID_BITS)
    # Of each the largest s with s**2 N <= B' 4**point.
    shrinks = np.array([math.isqrt(numbers.target // norm) for norm in squared[is_long].tolist()], np.uint32)
    factor[is_long] = shrinks.astype(np.float32) * _power_of_two(np.int32(-numbers.point))
    grids = _on_grid(values, factor, limits)
    if numbers.bound is None:
        return grids
    # As `clip_with` does: rows that came out too long get a lower factor, the twenty-first time zero.
    bound, turn = min(numbers.bound, _LARGEST), 0
    while (too_long := _squared_norms(grids) > bound).any():
        lower = np.float32(1) - _power_of_two(np.int32(turn - clipping.LOWERED_FROM))
        factor = np.where(too_long, factor * lower, factor)
        grids, turn = _on_grid(values, factor, limits), turn + 1
    return grids


def _squared_norms(rows: np.ndarray) -> np.ndarray:
    """Exact sums of squares, int64 `[n]`, of integers of at most 2**20."""
    whole = rows.astype(np.int64)
    return (whole * whole).sum(axis=1)


def _power_of_two(exponent: np.ndarray | np.int32) -> np.ndarray:
    """float32 2**exponent of int32 in -126 .. 127, exactly."""
    return np.asarray((127 + exponent) << 23, np.int32).view(np.float32)


def _on_grid(values: np.ndarray, factor: np.ndarray, limits: ClipLimits) -> np.ndarray:
    """float32 products, rounded to the nearest integers, half to even, and clamped."""
    most = np.float32(limits.coordinate_limit)
    return np.clip(np.rint(values * factor[:, None]), -most, most).astype(np.int32)
