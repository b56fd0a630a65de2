"""Polynomials over prime fields by their values on roots of unity: from the P-th roots to those between, and to any other point. uint32 JAX, exact, jit-clean.

All fields at once: arrays are `[L, ...]`. With psi, a primitive 2P-th root, the values of a polynomial on the odd powers of psi are its negacyclic transform
(`ckks.ntt`), and those on the even powers, the P-th roots, are that of its coefficients times psi^-i. So both cost a transform of P residues, and a polynomial
S of degree below 2P by its values on the 2P-th roots is taken as its remainders U modulo X^P - 1 (even powers) and V modulo X^P + 1 (odd ones):

    S(x) = (U(x) (1 + x^P) + V(x) (1 - x^P)) / 2,

which holds on the P-th roots, where x^P = 1, and on the others, where x^P = -1, and both sides have a degree below 2P (*proved*).
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.aggregation.residue_sums import column, constants, dot, powers, product
from fedjax_poisson.ckks import modular, ntt

__all__ = ["at_points", "between", "coefficients", "roots_of_unity"]

_BLOCK = 64  # coefficients that share a power of the point


@functools.lru_cache(maxsize=64)
def roots_of_unity(moduli: tuple[int, ...], count: int) -> np.ndarray:
    """The `count`-th roots of unity w^0, w^1, .. of each field, uint32 `[L, count]`; count, a power of two, divides every q - 1."""
    found = np.ones((len(moduli), count), np.uint64)
    for limb, q in enumerate(moduli):
        root = ntt.minimal_root(q, count // 2)
        power = 1
        while power < count:  # doubling: w^(power + i) = w^power w^i
            factor = np.uint64(pow(root, power, q))
            found[limb, power : 2 * power] = found[limb, :power] * factor % np.uint64(q)
            power *= 2
    small = found.astype(np.uint32)
    small.setflags(write=False)
    return small


@functools.lru_cache(maxsize=64)
def _reversal(size: int) -> np.ndarray:
    """Each number below a power of two with its bits reversed, the order of `ckks.ntt`."""
    order = np.zeros(1, np.int64)
    while order.size < size:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order


def _at_odd(polynomials: Array, moduli: tuple[int, ...]) -> Array:
    """Values at psi, psi^3, .. of coefficients uint32 `[L, P]`."""
    return ntt.forward(polynomials, moduli)[..., _reversal(polynomials.shape[-1])]


def _of_odd(values: Array, moduli: tuple[int, ...]) -> Array:
    """The coefficients of the polynomial with these values uint32 `[L, P]` at psi, psi^3, ..: its remainder modulo X^P + 1."""
    return ntt.inverse(values[..., _reversal(values.shape[-1])], moduli)


def coefficients(values: Array, moduli: tuple[int, ...]) -> Array:
    """The coefficients of the polynomial of degree below P with these values on the P-th roots, uint32 `[L, P]`: its remainder modulo X^P - 1."""
    size = values.shape[-1]
    turned = _of_odd(values, moduli)  # B(psi^(2j + 1)) = A(psi^(2j)): B(X) = A(X / psi)
    return product(turned, roots_of_unity(moduli, 2 * size)[:, :size], moduli)


def between(values: Array, moduli: tuple[int, ...]) -> Array:
    """At psi, psi^3, .. the polynomial of degree below P with these values uint32 `[L, P]` on the P-th roots: uint32 `[L, P]`."""
    return _at_odd(coefficients(values, moduli), moduli)


def at_points(values: Array, even: Array, odd: Array, points: Array, moduli: tuple[int, ...]) -> tuple[Array, Array]:
    """What two polynomials are at points: one of degree below P by its values on the P-th roots, one below 2P by those on the 2P-th roots.

    Args:
      values: uint32 `[L, P]`, of the first.
      even: uint32 `[L, P]`, of the second on the P-th roots.
      odd: uint32 `[L, P]`, of the second at psi, psi^3, ..
      points: uint32 `[L, r]`, any residues.
      moduli: the L primes.

    Returns:
      uint32 `[L, r]` each.
    """
    size = values.shape[-1]
    block = min(_BLOCK, size)
    remainders = jnp.stack([coefficients(values, moduli), coefficients(even, moduli), _of_odd(odd, moduli)], axis=1)
    low = powers(points, 2 * block, moduli)  # x^i, and x^block among them
    step = low[..., block]
    high = powers(step, size // block, moduli)
    parts = dot(
        low[:, None, :, None, :block],
        remainders.reshape(len(moduli), 3, 1, size // block, block),
        moduli,
    )
    first, below, above = jnp.moveaxis(dot(high[:, None], parts, moduli), 1, 0)
    top = product(high[..., -1], step, moduli)  # x^P
    q = constants(moduli, 2).q
    one = jnp.ones_like(top)
    twice = modular.add(
        product(below, modular.add(one, top, q), moduli), product(above, modular.subtract(one, top, q), moduli), q
    )
    half = column([pow(2, -1, p) for p in moduli], 2)
    return first, product(twice, jnp.broadcast_to(half, twice.shape), moduli)
