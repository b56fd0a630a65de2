"""The upper half of a 32x32-bit product: by jax's built-in instruction, or by plain uint32 operations where it is not available.

Plain operations are used for the few products that run in a program over several devices, and for every product if jax is older than the instruction.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array


def upper_product(a: Array, b: Array) -> Array:
    """floor(a b / 2^32) of uint32 arrays that broadcast, exactly, from four products of 16-bit halves.

    `jax.lax.mulhi` is one instruction instead of ten, but jax up to 0.10 cannot compile it for several devices ("Unable to convert MHLO to StableHLO").
    No step overflows: a product of halves is at most (2^16 - 1)^2, and (2^16 - 1)^2 + 2 (2^16 - 1) = 2^32 - 1.
    """
    half, low = jnp.uint32(16), jnp.uint32(0xFFFF)
    a_low, a_high, b_low, b_high = a & low, a >> half, b & low, b >> half
    middle = a_high * b_low + ((a_low * b_low) >> half)
    other = a_low * b_high + (middle & low)
    return a_high * b_high + (middle >> half) + (other >> half)


mulhi: Callable[[Array, Array], Array] = getattr(jax.lax, "mulhi", upper_product)
"""The same bits for arrays of one shape: `jax.lax.mulhi` where jax has it (0.7 does not), else `upper_product`."""
