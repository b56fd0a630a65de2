"""Modular arithmetic on uint32 residues, several moduli at once, without 64-bit integers.

The one wide product is `randomness.wide.mulhi` (the upper 32 bits of a 32x32-bit product). Every function is elementwise and broadcasts: a modulus
`q` and its constants are uint32 arrays that broadcast against the residues, usually shaped [L, 1] against residues [..., L, N].

Each docstring states the ranges a function takes and returns, in terms of q < 2^31. A value "in [0, 2q)" is a *lazy* residue: it stands for the
class modulo q and may be one q too large; `reduce_once` makes it canonical. Ranges are what makes the arithmetic right, so callers must
keep to them; nothing is checked on the device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.randomness.wide import mulhi

__all__ = [
    "ModularConstants",
    "add",
    "barrett",
    "centre",
    "constants",
    "from_signed",
    "montgomery",
    "multiply",
    "multiply_shoup",
    "negate",
    "reduce_once",
    "shoup_quotient",
    "subtract",
]

MAX_MODULUS_BITS = 31
"""Moduli are below 2^31, so that 2q - 1 is a uint32."""


class ModularConstants(NamedTuple):
    """Per-modulus constants, host arrays uint32 [L, 1] that broadcast over residues [..., L, N].

    Attributes:
        q: The moduli.
        inverse: q^-1 mod 2^32 (Montgomery).
        r: 2^32 mod q: the Montgomery form of one.
        r2: 2^64 mod q: `montgomery(x, r2)` puts x into Montgomery form.
        ratio: floor(2^32 / q) (Barrett).
    """

    q: np.ndarray
    inverse: np.ndarray
    r: np.ndarray
    r2: np.ndarray
    ratio: np.ndarray


@functools.lru_cache(maxsize=256)
def constants(moduli: tuple[int, ...]) -> ModularConstants:
    """The constants of odd moduli below 2^31.

    Args:
        moduli: The moduli q_0 .. q_{L-1}, each odd and in (2, 2^31).

    Returns:
        Host arrays of shape [L, 1].

    Raises:
        ValueError: If a modulus is even or out of range.
    """
    for q in moduli:
        if not 2 < q < 1 << MAX_MODULUS_BITS or q % 2 == 0:
            raise ValueError(
                f"a modulus must be odd and in (2, 2^{MAX_MODULUS_BITS}), not {q}; choose primes of at most 31 bits"
            )

    def column(values: list[int]) -> np.ndarray:
        array = np.asarray(values, np.uint32)[:, None]
        array.setflags(write=False)
        return array

    return ModularConstants(
        q=column(list(moduli)),
        inverse=column([pow(q, -1, 1 << 32) for q in moduli]),
        r=column([(1 << 32) % q for q in moduli]),
        r2=column([(1 << 64) % q for q in moduli]),
        ratio=column([(1 << 32) // q for q in moduli]),
    )


def _ranked(*arrays: jax.typing.ArrayLike) -> tuple[jax.Array, ...]:
    """The arrays with leading axes of size 1 so that all have the same rank: explicit, so that strict rank promotion is satisfied."""
    shaped = [jnp.asarray(a) for a in arrays]
    rank = max(a.ndim for a in shaped)
    return tuple(a.reshape((1,) * (rank - a.ndim) + a.shape) for a in shaped)


Upper = Callable[[jax.Array, jax.Array], jax.Array]
"""Which instruction takes the upper half of a product: `randomness.wide.mulhi`, or its `upper_product` in programs over several devices."""


def _upper_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """The upper 32 bits of a b, broadcast."""
    return mulhi(*jnp.broadcast_arrays(a, b))


def reduce_once(x: jax.Array, q: jax.typing.ArrayLike) -> jax.Array:
    """X in [0, 2q) to [0, q); more generally [0, m + q) to [0, max(m, q)) for any bound m.

    If x < q then x - q wraps above 2^31 >= q > x, so the smaller of the two is the reduced one: a subtraction and a minimum, no branch.
    """
    x, q = _ranked(x, q)
    return jnp.minimum(x, x - q)


def add(a: jax.Array, b: jax.Array, q: jax.typing.ArrayLike) -> jax.Array:
    """(a + b) mod q: a, b in [0, q) to [0, q)."""
    a, b, q = _ranked(a, b, q)
    return reduce_once(a + b, q)


def subtract(a: jax.Array, b: jax.Array, q: jax.typing.ArrayLike) -> jax.Array:
    """(a - b) mod q: a, b in [0, q) to [0, q). If a < b the difference wraps above 2^31 and adding q brings it back."""
    a, b, q = _ranked(a, b, q)
    difference = a - b
    return jnp.minimum(difference, difference + q)


def negate(a: jax.Array, q: jax.typing.ArrayLike) -> jax.Array:
    """-a mod q: a in [0, q) to [0, q)."""
    a, q = _ranked(a, q)
    return reduce_once(q - a, q)


def barrett(
    x: jax.Array, q: jax.typing.ArrayLike, ratio: jax.typing.ArrayLike, *, upper: Upper = _upper_product
) -> jax.Array:
    """Any uint32 x to [0, 2q), with ratio = floor(2^32 / q).

    With h = floor(x ratio / 2^32): x/q - 2 < h <= x/q, because x (2^32/q - ratio) / 2^32 < 1 and the floor loses less than 1. So x - h q < 2q.
    """
    x, q, ratio = _ranked(x, q, ratio)
    return x - upper(x, ratio) * q


def shoup_quotient(w: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Host: floor(w 2^32 / q) as uint32, the companion of a constant factor w in [0, q) for `multiply_shoup`."""
    return ((np.asarray(w, np.uint64) << np.uint64(32)) // np.asarray(q, np.uint64)).astype(np.uint32)


def multiply_shoup(
    x: jax.Array,
    w: jax.typing.ArrayLike,
    quotient: jax.typing.ArrayLike,
    q: jax.typing.ArrayLike,
    *,
    upper: Upper = _upper_product,
) -> jax.Array:
    """X w mod q as a lazy residue: any uint32 x, constant w in [0, q) with its `shoup_quotient`, to [0, 2q).

    V. Shoup's trick (Harvey 2014, "Faster arithmetic for number-theoretic transforms", section 2): with h = floor(x quotient / 2^32) the true
    value x w - h q lies in [0, q + x q / 2^32), below 2q, so computing it modulo 2^32 is exact.
    """
    x, w, quotient, q = _ranked(x, w, quotient, q)
    return x * w - upper(x, quotient) * q


def montgomery(a: jax.Array, b: jax.Array, q: jax.typing.ArrayLike, inverse: jax.typing.ArrayLike) -> jax.Array:
    """A b 2^-32 mod q: a any uint32 and b in [0, q) (or any a b < 2^32 q) to [0, q), with inverse = q^-1 mod 2^32.

    With m = (a b mod 2^32) inverse, m q has the same lower word as a b, so the upper words differ by exactly a b 2^-32 mod q,
    and both upper words are below q.
    """
    a, b, q, inverse = _ranked(a, b, q, inverse)
    return subtract(_upper_product(a, b), _upper_product(a * b * inverse, q), q)


def multiply(a: jax.Array, b: jax.Array, c: ModularConstants) -> jax.Array:
    """A b mod q for two variable factors: a, b in [0, q), shaped [..., L, N], to [0, q)."""
    return montgomery(montgomery(a, b, c.q, c.inverse), jnp.asarray(c.r2), c.q, c.inverse)


def from_signed(x: jax.Array, q: jax.typing.ArrayLike) -> jax.Array:
    """Signed int32 x with |x| < q to its residue in [0, q)."""
    u, q = _ranked(jax.lax.bitcast_convert_type(x, jnp.uint32), q)
    return jnp.minimum(u, u + q)


def centre(x: jax.Array, q: jax.typing.ArrayLike) -> jax.Array:
    """A residue in [0, q) to the int32 representative in (-q/2, q/2]."""
    x, q = _ranked(x, q)
    signed = jnp.where(x > q >> jnp.uint32(1), x - q, x)
    return jax.lax.bitcast_convert_type(signed, jnp.int32)
