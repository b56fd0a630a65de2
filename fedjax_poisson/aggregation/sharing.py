"""Shamir shares of a client's secret over every prime field, in NTT form: any t of m members can open a sum, fewer know nothing.

f(0) = s and f(k) for k < t is expanded from 32 bytes kappa_k; the others follow by interpolation, and what a client sends for them is a correction,
f(k) - expand(kappa_k), which kappa_k hides like a one-time pad. The points are pseudo-random in the terms: at 1..m the coefficients of interpolation are small
integers, and a small lie would stay plausible in many subsets.

Any t - 1 shares are jointly uniform and independent of s (Shamir 1979): *proved*, up to the 2^-94 a coefficient by which expanded residues miss uniformity,
and ChaCha20 as a pseudo-random generator.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.aggregation.parameters import RoundParameters
from fedjax_poisson.aggregation.rows import words_stream
from fedjax_poisson.ckks import modular, rlwe_samplers

__all__ = [
    "corrections",
    "dealing_weights",
    "expand_share",
    "lagrange",
    "later_share",
    "points",
    "weighted_sum",
]


@functools.lru_cache(maxsize=256)
def points(terms_hash: bytes, members: int, moduli: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Point x_k of member k = 1..m in each field: `[m][L]`, distinct and not 0."""
    found: list[tuple[int, ...]] = []
    for number in range(1, members + 1):
        row = []
        for limb, q in enumerate(moduli):
            counter, taken = 0, {one[limb] for one in found}
            while True:
                text = f"fedjax-poisson/1/point\0{number} {limb} {counter}\0".encode()
                point = int.from_bytes(hashlib.sha256(text + terms_hash).digest()[:16], "little") % (q - 1) + 1
                if point not in taken:
                    break
                counter += 1
            row.append(point)
        found.append(tuple(row))
    return tuple(found)


def lagrange(xs: Sequence[Sequence[int]], at: Sequence[int], moduli: Sequence[int]) -> np.ndarray:
    """Weights uint32 `[len(xs), L]`: f(at) = sum weights[i] f(xs[i]) for every polynomial of degree below len(xs)."""
    out = np.empty((len(xs), len(moduli)), np.uint32)
    for i in range(len(xs)):
        for limb, q in enumerate(moduli):
            above = below = 1
            for j in range(len(xs)):
                if j != i:
                    above = above * (at[limb] - xs[j][limb]) % q
                    below = below * (xs[i][limb] - xs[j][limb]) % q
            out[i, limb] = above * pow(below, -1, q) % q
    return out


@functools.lru_cache(maxsize=64)
def dealing_weights(terms_hash: bytes, members: int, threshold: int, moduli: tuple[int, ...]) -> np.ndarray:
    """uint32 `[m - t + 1, t, L]`: the share of members t..m from (s, f(1), .., f(t - 1))."""
    at = points(terms_hash, members, moduli)
    known = ((0,) * len(moduli), *at[: threshold - 1])
    return np.stack([lagrange(known, at[k - 1], moduli) for k in range(threshold, members + 1)])


def weighted_sum(weights: Array, polynomials: Array, moduli: tuple[int, ...]) -> Array:
    """sum_i weights[i] polynomials[i]: uint32 `[t, L]` and `[t, L, N]` to `[L, N]`."""
    c = modular.constants(moduli)
    form = modular.montgomery(jnp.asarray(weights), jnp.asarray(c.r2)[:, 0], c.q[:, 0], c.inverse[:, 0])
    total = modular.montgomery(polynomials[0], form[0][:, None], c.q, c.inverse)
    for i in range(1, polynomials.shape[0]):
        total = modular.add(total, modular.montgomery(polynomials[i], form[i][:, None], c.q, c.inverse), c.q)
    return total


def expand_share(params: RoundParameters, kappa: Array) -> Array:
    """uint32 `[L, N]`: what 32 bytes (uint32 `[8]`) are expanded to."""
    return rlwe_samplers.uniform_residues(words_stream(kappa), (params.ring.degree,), params.ring.moduli)


def later_share(params: RoundParameters, weights: Array, secret: Array, expanded: Array, number: int) -> Array:
    """The share uint32 `[L, N]` of member t <= number <= m, from s and the expanded shares uint32 `[>= t - 1, L, N]`."""
    known = jnp.concatenate([secret[None], expanded[: params.threshold - 1]])
    return weighted_sum(weights[number - params.threshold], known, params.ring.moduli)


def corrections(params: RoundParameters, weights: Array, secret: Array, expanded: Array) -> Array:
    """What members t..m must add to what they expand.

    Args:
      params: of the round.
      weights: `dealing_weights`.
      secret: uint32 `[L, N]`, s in NTT form.
      expanded: uint32 `[m, L, N]`, every member's expansion.

    Returns:
      uint32 `[m - t + 1, L, N]`.
    """
    numbers = range(params.threshold, params.members + 1)
    later = jnp.stack([later_share(params, weights, secret, expanded, k) for k in numbers])
    return modular.subtract(later, expanded[params.threshold - 1 :], modular.constants(params.ring.moduli).q)
