"""Sums and dot products of residues modulo each prime, in uint32 JAX: what a norm proof is made of. Arrays are `[L, ..., n]`, a field a line, jit-clean.

A product costs one Montgomery reduction, as the factor 2^32 that it leaves is taken out of the sum; a sum of up to 2^16 residues is taken in two halves
of 16 bits, so that it stays below 2^32 (*proved*: 2^16 (2^16 - 1) < 2^32).
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from fedjax_poisson.ckks import modular

__all__ = ["MOST_TERMS", "column", "constants", "dot", "powers", "product", "total"]

MOST_TERMS = 1 << 16
"""Residues that `total` can add up."""


def column(values: list[int], rank: int) -> np.ndarray:
    """uint32 `[L, 1, ..]` of this rank: a number below 2^32 for each field."""
    return np.asarray(values, np.uint32).reshape(-1, *[1] * (rank - 1))


def constants(moduli: tuple[int, ...], rank: int) -> modular.ModularConstants:
    """The constants of the primes as uint32 `[L, 1, ..]` of this rank."""
    return modular.ModularConstants(*(one.reshape(-1, *[1] * (rank - 1)) for one in modular.constants(moduli)))


def product(a: ArrayLike, b: ArrayLike, moduli: tuple[int, ...]) -> Array:
    """A b modulo each prime: any uint32 `[L, ...]` and residues of the same rank, which broadcast, to residues."""
    c = constants(moduli, jnp.ndim(a))
    halfway = modular.montgomery(jnp.asarray(a), jnp.asarray(b), c.q, c.inverse)
    return modular.montgomery(halfway, jnp.asarray(c.r2), c.q, c.inverse)


def total(residues: Array, moduli: tuple[int, ...]) -> Array:
    """The sums over the last axis, uint32 `[L, ..., n]` residues to `[L, ...]`.

    Raises:
      ValueError: more than 2^16 terms.
    """
    if residues.shape[-1] > MOST_TERMS:
        raise ValueError(f"a sum of {residues.shape[-1]} residues could exceed a word; add up parts of {MOST_TERMS}")
    c = constants(moduli, residues.ndim - 1)
    low, high = (
        jnp.sum(part, axis=-1, dtype=jnp.uint32) for part in (residues & jnp.uint32(0xFFFF), residues >> jnp.uint32(16))
    )
    weight = ((1 << 16) % c.q.astype(np.uint64)).astype(np.uint32)
    lifted = modular.multiply_shoup(high, weight, modular.shoup_quotient(weight, c.q), c.q)
    low = modular.reduce_once(modular.barrett(low, c.q, c.ratio), c.q)
    return modular.add(modular.reduce_once(lifted, c.q), low, c.q)


def dot(weights: ArrayLike, values: ArrayLike, moduli: tuple[int, ...]) -> Array:
    """Sums over the last axis of products: any uint32 `[L, ..., n]` and residues of the same rank, which broadcast, to `[L, ...]`."""
    c = constants(moduli, jnp.ndim(weights))
    products = modular.montgomery(jnp.asarray(weights), jnp.asarray(values), c.q, c.inverse)
    found = total(products, moduli)
    c = constants(moduli, found.ndim)
    return modular.montgomery(found, jnp.asarray(c.r2), c.q, c.inverse)


def powers(bases: Array, count: int, moduli: tuple[int, ...]) -> Array:
    """1, x, .., x^(count - 1) of residues uint32 `[L, r]`: `[L, r, count]`; count is a power of two."""
    found, step = jnp.ones_like(bases)[..., None], bases[..., None]
    while found.shape[-1] < count:  # x^(n + i) = x^n x^i
        found = jnp.concatenate([found, product(found, step, moduli)], axis=-1)
        step = product(step, step, moduli)
    return found
