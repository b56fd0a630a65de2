"""Sums of integer grids that pass 32 bits, in two int32 words, and their digits.

A grid value lies in [-2^20, 2^20], so a sum over n of them needs 21 + log2 n bits. It is kept as `high 2^20 + low`; normalised, 0 <= low < 2^20. All steps
are integers: the words of a normalised sum do not depend on order, chunks or devices.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fedjax_poisson.randomness.table_plan import GRID_BITS

_MASK = (1 << GRID_BITS) - 1
_ONE_WORD = 1023  # rows whose sum, with a low word, stays below 2^31
_HALF = GRID_BITS // 2
MOST_ROWS = 1 << GRID_BITS
"""Rows that one call of `add_rows` may add."""


class GridSum(NamedTuple):
    """A sum of grids, or anything else as wide: `high 2^20 + low`.

    Attributes:
        high: int32 [D].
        low: int32 [D], in [0, 2^20) if normalised.
    """

    high: Array
    low: Array


def empty_sum(dimension: int) -> GridSum:
    """The sum of no grids."""
    return GridSum(jnp.zeros(dimension, jnp.int32), jnp.zeros(dimension, jnp.int32))


def add_rows(total: GridSum, rows: Array) -> GridSum:
    """A normalised sum with int32 [K, D] added, |value| <= 2^20, K <= `MOST_ROWS`; absent rows are zeros.

    Up to 1,023 rows are one int32 sum, 2^20 1,023 + 2^20 = 2^30. More are added in halves of ten and eleven bits, each sum at most 2^10 2^20 = 2^30.

    Raises:
        ValueError: more rows.
    """
    if rows.shape[0] > MOST_ROWS:
        raise ValueError(f"{rows.shape[0]} rows in one sum; add at most {MOST_ROWS} at once (a smaller chunk).")
    if rows.shape[0] <= _ONE_WORD:
        low = total.low + jnp.sum(rows, axis=0, dtype=jnp.int32)
        return normalised(GridSum(total.high, low))
    upper = jnp.sum(rows >> jnp.int32(_HALF), axis=0, dtype=jnp.int32)
    lower = jnp.sum(rows & jnp.int32((1 << _HALF) - 1), axis=0, dtype=jnp.int32)
    carried = normalised(GridSum(total.high, total.low + lower))
    high = carried.high + (upper >> jnp.int32(_HALF))
    return normalised(GridSum(high, carried.low + ((upper & jnp.int32((1 << _HALF) - 1)) << jnp.int32(_HALF))))


def normalised(total: GridSum) -> GridSum:
    """The same number with 0 <= low < 2^20 (an arithmetic shift floors)."""
    return GridSum(total.high + (total.low >> jnp.int32(GRID_BITS)), total.low & jnp.int32(_MASK))


def whole(total: GridSum) -> Array:
    """int32 [D]: a sum that is known to lie within 31 bits, as one word."""
    return (total.high << jnp.int32(GRID_BITS)) + total.low


def digit_of(units: GridSum, shift: int, bits: int, span: int) -> Array:
    """The digit of `bits` bits from `shift` up of normalised w in [0, 2^span], int32 [D].

    Digits are of min(w, 2^span - 1); the lowest one has the unit that is left added (`tables`).
    """
    over = (units.high >> jnp.int32(span - GRID_BITS)) > 0
    high = jnp.where(over, jnp.int32((1 << (span - GRID_BITS)) - 1), units.high)
    low = jnp.where(over, jnp.int32(_MASK), units.low)
    # At most 12 bits are wanted, so what is shifted out of the upper word is not.
    if shift >= GRID_BITS:
        value = high >> jnp.int32(shift - GRID_BITS)
    else:
        value = (low >> jnp.int32(shift)) | jax.lax.shift_left(high, jnp.int32(GRID_BITS - shift))
    digit = value & jnp.int32((1 << bits) - 1)
    return digit + over.astype(jnp.int32) if shift == 0 else digit
