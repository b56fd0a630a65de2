"""Light screening: what members may know of one client's secret, and what follows from it. No word about its counts, nothing on the ledger.

After the set D of clients is signed, a common seed draws twelve functionals with weights 0, 0, +1, -1 of the coefficients of s, and three uniform ones. A
member's scalar is the functional of its share. The scalars of one client must lie on one polynomial of degree below t in every field (a wrong share is
missed by each uniform functional with probability 1/q: SCRAPE's dual-code test), and the twelve values must be as small as those of an honest secret:

    |Z_g s| <= 8.3 sqrt(21 N / 2)   and   (Z s)' (Z Z')^-1 (Z s) <= 21 (12 + 2 sqrt(12 x) + 2 x),  x = 12 ln 10,

the latter fails for an honest client with at most 1e-12: the left side over 21 is the squared norm of a projection of rank 12 of a strictly sub-Gaussian
vector, whose moment generating function is at most that of chi^2 with 12 degrees (`ckks.noise_bound`), and Laurent and Massart bound the latter
(*proved*). A shift of the secret by v passes with probability that of a random +-sum of v being small: two huge coefficients cancel in all twelve with
2^-12 or less.

**Against malicious members the scalars of t + f are needed**: t honest ones fix the polynomial; with fewer a liar can make an accomplice pass.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.aggregation import host_rows
from fedjax_poisson.aggregation.parameters import FUNCTIONALS, UNIFORM, RoundParameters
from fedjax_poisson.aggregation.sharing import lagrange, points
from fedjax_poisson.ckks import modular, ntt
from fedjax_poisson.ckks.noise_bound import WIDE_VARIANCE
from fedjax_poisson.traced_programs import traced_once

__all__ = ["TAIL", "Functionals", "agreeing", "best_members", "functionals", "judge", "project", "projected"]

_LARGEST = 8.3
TAIL = 12 * math.log(10)
"""Of a bound that an honest client breaks with at most 10^-12."""
_MOST_LEFT_OUT = 3


class Functionals(NamedTuple):
    """What a seed draws.

    Attributes:
      signs: int32 `[12, N]`, weights of the coefficients of s, 0 half of the time, else +1 or -1.
      uniform: uint32 `[3, L, N]`, uniform weights of the coefficients in each field.
    """

    signs: np.ndarray
    uniform: np.ndarray


@functools.lru_cache(maxsize=2)  # in one process all members draw the same, and judge by them
def functionals(params: RoundParameters, seed: bytes) -> Functionals:
    """The functionals of a seed of 32 bytes: SHAKE-256 over it, two bits a sign, 64 bits a uniform weight (within 2^-33 of uniform)."""
    ring = params.ring
    raw = np.frombuffer(
        hashlib.shake_256(b"fedjax-poisson/1/signs\0" + seed).digest(FUNCTIONALS * ring.degree // 4), np.uint8
    )
    pairs = (raw[:, None] >> np.asarray([0, 2, 4, 6], np.uint8)) & np.uint8(3)
    signs = np.asarray([0, 0, 1, -1], np.int32)[pairs.reshape(FUNCTIONALS, ring.degree)]
    count = UNIFORM * ring.limbs * ring.degree
    words = np.frombuffer(hashlib.shake_256(b"fedjax-poisson/1/uniform\0" + seed).digest(8 * count), "<u8")
    q = np.asarray(ring.moduli, np.uint64)[:, None]
    uniform = words.reshape(UNIFORM, ring.limbs, ring.degree) % q
    drawn = Functionals(signs, uniform.astype(np.uint32))
    for array in drawn:
        array.flags.writeable = False
    return drawn


def projected(
    params: RoundParameters, signs: np.ndarray, uniform: np.ndarray, shares: Sequence[np.ndarray]
) -> np.ndarray:
    """A member's scalars uint32 `[clients, 12 + U, L]` of clients' shares uint32 `[L, N]` in NTT form; weights as in `project`."""
    if len(shares) * params.ring.limbs * params.ring.degree <= host_rows.MOST_SHARED:
        return host_rows.project(params, signs, uniform, shares)
    small, own = jax.device_put((signs, uniform))  # once, not for every client
    return np.stack([np.asarray(project(params, small, own, share)) for share in shares])


@traced_once(0)
def project(params: RoundParameters, signs: Array, uniform: Array, share: Array) -> Array:
    """A member's scalars uint32 `[12 + U, L]` of one client's share uint32 `[L, N]` in NTT form; vmap over clients.

    Args:
      params: of the round.
      signs: int32 `[12, N]`, small weights of the coefficients.
      uniform: uint32 `[U, L, N]`, weights in each field: the uniform ones, and in norm rounds those of `sketch.secret_weights`.
      share: in NTT form.
    """
    moduli = params.ring.moduli
    c = modular.constants(moduli)
    f = ntt.inverse(share, moduli)
    half = jnp.uint32(0xFFFF)

    def dot(part: Array) -> Array:  # |sum| < 2^16 N <= 2^29
        total = jnp.einsum("gn,ln->gl", signs, part.astype(jnp.int32))
        q = jnp.asarray(c.q[:, 0].astype(np.int32))
        return jax.lax.bitcast_convert_type(jnp.mod(total, q[None]), jnp.uint32)

    products = modular.multiply(jnp.asarray(uniform), jnp.broadcast_to(f, uniform.shape), c)
    sums = [jnp.sum(part, axis=-1, dtype=jnp.uint32) for part in (products & half, products >> jnp.uint32(16))]
    q, ratio = c.q[:, 0], c.ratio[:, 0]
    low = jnp.concatenate([dot(f & half), modular.reduce_once(modular.barrett(sums[0], q, ratio), q)])
    high = jnp.concatenate([dot(f >> jnp.uint32(16)), modular.reduce_once(modular.barrett(sums[1], q, ratio), q)])
    weight = ((1 << 16) % c.q.astype(np.uint64)).astype(np.uint32)
    lifted = modular.multiply_shoup(high, weight[:, 0], modular.shoup_quotient(weight, c.q)[:, 0], q)
    return modular.add(modular.reduce_once(lifted, q), low, q)


def agreeing(
    params: RoundParameters, terms_hash: bytes, numbers: Sequence[int], scalars: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each client's scalars lie on one polynomial, and its value at 0.

    Args:
      params: of the round.
      terms_hash: of the round.
      numbers: members, at least t of them.
      scalars: uint32 `[members, clients, S, L]` in the same order, 15 or more.

    Returns:
      bool `[clients]`, and uint64 `[clients, S, L]`.
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
      values: uint64 `[clients, S, L]` (`agreeing`); only the first twelve are looked at.

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
    limit = FUNCTIONALS + 2 * math.sqrt(FUNCTIONALS * TAIL) + 2 * TAIL
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
