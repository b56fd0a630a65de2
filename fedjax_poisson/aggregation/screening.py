"""Light screening: what members may know of one client's secret, and what follows from it. No word about its counts, nothing on the ledger.

After the set D of clients is signed, a common seed draws twelve functionals with weights 0, 0, +1, -1 of the coefficients of s, and three uniform ones. A member's
scalar is the functional of its share. The scalars of one client must lie on one polynomial of degree below t in every field (a wrong share is missed by each
uniform functional with probability 1/q: SCRAPE's dual-code test), and the twelve values must be as small as those of an honest secret:

    |Z_g s| <= 8.3 sqrt(21 N / 2)   and   (Z s)' (Z Z')^-1 (Z s) <= 21 (12 + 2 sqrt(12 x) + 2 x),  x = 12 ln 10,

the latter fails for an honest client with at most 1e-12: the left side over 21 is the squared norm of a projection of rank 12 of a strictly sub-Gaussian vector,
whose moment generating function is at most that of chi^2 with 12 degrees (`ckks.noise_bound`), and Laurent and Massart bound the latter (*proved*). A shift of the
secret by v passes with probability that of a random +-sum of v being small: two huge coefficients cancel in all twelve with 2^-12 or less.

**Against malicious members the scalars of t + f are needed**: t honest ones fix the polynomial; with fewer a liar can make an accomplice pass.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.aggregation.parameters import FUNCTIONALS, UNIFORM, RoundParameters
from fedjax_poisson.aggregation.rows import words_stream
from fedjax_poisson.aggregation.sharing import lagrange, points
from fedjax_poisson.ckks import modular, ntt, rlwe_samplers
from fedjax_poisson.ckks.noise_bound import WIDE_VARIANCE
from fedjax_poisson.randomness import bits, fold_in

__all__ = ["Functionals", "agreeing", "best_members", "functionals", "judge", "project"]

_LARGEST = 8.3
_TAIL = 12 * math.log(10)
_MOST_LEFT_OUT = 3


class Functionals(NamedTuple):
    """What a seed draws.

    Attributes:
      weights: uint32 `[15, L, N]`, Montgomery form: a scalar is the sum of weights times a share's NTT values.
      signs: int32 `[12, N]`, the weights of the coefficients of s.
    """

    weights: Array
    signs: Array


@functools.partial(jax.jit, static_argnums=0)
def functionals(params: RoundParameters, words: Array) -> Functionals:
    """The functionals of a seed, uint32 `[8]`.

    Coefficient 0 of Z(X^-1) f is sum_i Z_i f_i, and coefficient 0 of a polynomial is the mean of its NTT values.
    """
    ring, moduli = params.ring, params.ring.moduli
    c, stream = modular.constants(moduli), words_stream(words)
    drawn = bits(fold_in(stream, "signs"), (FUNCTIONALS, ring.degree)) & jnp.uint32(3)
    signs = jnp.where(drawn == 3, jnp.int32(-1), (drawn == 2).astype(jnp.int32))
    mirrored = jnp.concatenate([signs[:, :1], -signs[:, :0:-1]], axis=1)
    forms = ntt.forward(modular.from_signed(mirrored[:, None, :], c.q), moduli)
    inverse = np.asarray([pow(ring.degree, -1, q) for q in moduli], np.uint32)[:, None]
    forms = modular.multiply(forms, jnp.broadcast_to(jnp.asarray(inverse), forms.shape), c)
    uniform = rlwe_samplers.uniform_residues(fold_in(stream, "uniform"), (UNIFORM, ring.degree), moduli)
    weights = jnp.concatenate([forms, uniform])
    return Functionals(modular.montgomery(weights, jnp.asarray(c.r2), c.q, c.inverse), signs)


@functools.partial(jax.jit, static_argnums=0)
def project(params: RoundParameters, weights: Array, share: Array) -> Array:
    """A member's scalars uint32 `[15, L]` of one client's share uint32 `[L, N]`."""
    c = modular.constants(params.ring.moduli)
    products = modular.montgomery(weights, share[None], c.q, c.inverse)
    low = jnp.sum(products & jnp.uint32(0xFFFF), axis=-1, dtype=jnp.uint32)
    high = jnp.sum(products >> jnp.uint32(16), axis=-1, dtype=jnp.uint32)
    q, ratio = c.q[:, 0], c.ratio[:, 0]
    weight = ((1 << 16) % c.q.astype(np.uint64)).astype(np.uint32)
    lifted = modular.multiply_shoup(high, weight[:, 0], modular.shoup_quotient(weight, c.q)[:, 0], q)
    return modular.add(modular.reduce_once(lifted, q), modular.reduce_once(modular.barrett(low, q, ratio), q), q)


def agreeing(
    params: RoundParameters, terms_hash: bytes, numbers: Sequence[int], scalars: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each client's scalars lie on one polynomial, and its value at 0.

    Args:
      params: of the round.
      terms_hash: of the round.
      numbers: members, at least t of them.
      scalars: uint32 `[members, clients, 15, L]` in the same order.

    Returns:
      bool `[clients]`, and uint64 `[clients, 15, L]`.
    """
    moduli, t = params.ring.moduli, params.threshold
    at = points(terms_hash, params.members, moduli)
    first = [at[k - 1] for k in numbers[:t]]
    q = np.asarray(moduli, np.uint64)
    values = np.asarray(scalars, np.uint64)

    def interpolated(place: Sequence[int]) -> np.ndarray:
        weights = lagrange(first, place, moduli).astype(np.uint64)
        total = np.zeros(values.shape[1:], np.uint64)
        for weight, value in zip(weights, values[:t], strict=True):
            total = (total + value * weight % q) % q
        return total

    good = np.ones(values.shape[1], bool)
    for place, number in enumerate(numbers[t:], t):
        good &= (interpolated(at[number - 1]) == values[place]).all(axis=(-2, -1))
    return good, interpolated((0,) * len(moduli))


def judge(params: RoundParameters, signs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Whether the functionals of each client's secret are those of a small one.

    Args:
      params: of the round.
      signs: int32 `[12, N]`.
      values: uint64 `[clients, 15, L]` (`agreeing`); only the first twelve are looked at.

    Returns:
      bool `[clients]`.
    """
    moduli, degree = params.ring.moduli, params.ring.degree
    first, q = values[:, :FUNCTIONALS, 0].astype(np.int64), moduli[0]
    small = np.where(first > q // 2, first - q, first)
    same = np.ones(small.shape, bool)
    for limb, prime in enumerate(moduli):
        same &= small % prime == values[:, :FUNCTIONALS, limb].astype(np.int64)
    within = np.abs(small) <= _LARGEST * math.sqrt(WIDE_VARIANCE * degree / 2)
    gram = signs.astype(np.float64) @ signs.T.astype(np.float64)
    bounded = np.where(same & within, small, 0).astype(np.float64)
    statistic = np.einsum("cg,cg->c", bounded, np.linalg.solve(gram, bounded.T).T) / WIDE_VARIANCE
    limit = FUNCTIONALS + 2 * math.sqrt(FUNCTIONALS * _TAIL) + 2 * _TAIL
    good: np.ndarray = same.all(axis=1) & within.all(axis=1) & (statistic <= limit)
    return good


def best_members(numbers: Sequence[int], least: int, score: Callable[[tuple[int, ...]], int]) -> tuple[int, ...]:
    """The subset of at least `least` members with the best score, the larger one among equals.

    At most three members are left out: more subsets than that are not tried, which costs clients and never safety.
    """
    best, found = -1, tuple(numbers)
    for left_out in range(min(_MOST_LEFT_OUT, max(0, len(numbers) - least)) + 1):
        for subset in itertools.combinations(numbers, len(numbers) - left_out):
            value = score(subset)
            if value > best:
                best, found = value, subset
    return found
