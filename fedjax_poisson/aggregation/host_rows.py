"""A party's own arithmetic of a small round in NumPy: sealing, screening and opening without a program to compile.

A short run, and a site's first round, would spend seconds in the compiler on programs that run for less than a millisecond. Up to `MOST_VALUES` residues a
client and the server compute on the host, and a member with up to eight times as many in all the shares that it holds. For longer vectors, and where many
clients are simulated, programs are compiled (`rows`, `opening`, `screening`). The numbers are the same either way, and tests compare them bit by bit, but
for the two distances of an opened sum, which the host takes from exact integers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fedjax_poisson.aggregation.parameters import RoundParameters
from fedjax_poisson.ckks import host_residues, host_ring
from fedjax_poisson.ckks.parameters import CkksParameters
from fedjax_poisson.randomness import Stream, fold_in

__all__ = ["MOST_SHARED", "MOST_VALUES", "centred", "decode", "is_small", "project", "seal"]

MOST_VALUES = 1 << 13
MOST_SHARED = 8 * MOST_VALUES


def is_small(params: RoundParameters) -> bool:
    """Whether the parties of a round compute on the host: a size decides, so that the same call does the same everywhere."""
    return params.rows * params.ring.limbs * params.ring.degree <= MOST_VALUES


def seal(params: RoundParameters, a: np.ndarray, counts: np.ndarray, stream: Stream) -> tuple[np.ndarray, np.ndarray]:
    """A client's rows uint32 `[R, L, N]` and its secret in NTT form uint32 `[L, N]`, as `rows.encrypt` of `rows.draw`.

    Args:
      params: of the round.
      a: uint32 `[R, L, N]`, the round's.
      counts: int32 `[D]`.
      stream: fresh for this round.
    """
    moduli, degree, count = params.ring.moduli, params.ring.degree, params.rows
    key = np.asarray(fold_in(stream, "secrets").key)
    drawn = host_residues.wide_binomial(key, (degree, count + 1))
    message = _encoded(params.ring, count, counts) + host_ring.residues(drawn[:, :count].T, moduli)
    small = np.concatenate([message % host_ring.primes(moduli), host_ring.residues(drawn[:, count], moduli)[None]])
    forms = host_ring.forward(small, moduli)
    hidden = np.asarray(a, np.uint64) * forms[count] % host_ring.primes(moduli)
    return ((forms[:count] + hidden) % host_ring.primes(moduli)).astype(np.uint32), forms[count]


def _encoded(ring: CkksParameters, count: int, counts: np.ndarray) -> np.ndarray:
    """Counts int32 `[D]` as residues uint64 `[R, L, N]` of their packed coefficients: -M / t modulo each prime (`ckks.packing`)."""
    fields, width = ring.values_per_coefficient, ring.field_bits
    padded = np.zeros(count * ring.values_per_row, np.int64)
    padded[: counts.size] = counts
    half = 1 << (width - 1)
    digits = (((padded + half) & (2 * half - 1)) - half).reshape(fields, ring.degree, count)
    found = np.zeros((count, ring.limbs, ring.degree), np.uint64)
    for limb, q in enumerate(ring.moduli):
        for j, digit in enumerate(digits):
            weight = np.uint64(-(1 << j * width) * pow(1 << fields * width, -1, q) % q)
            found[:, limb] += np.mod(digit.T, q).astype(np.uint64) * weight % np.uint64(q)
    return found


def decode(
    params: RoundParameters, a: np.ndarray, total: np.ndarray, secret: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """Counts int32 `[R N k]` of summed rows under a sum of secrets, and the residue's largest and rms distance to whole steps, in steps.

    Args:
      params: of the round.
      a: uint32 `[R, L, N]`, the round's.
      total: uint32 `[R, L, N]`, the sum of rows.
      secret: uint32 `[L, N]`, the sum of secrets in NTT form.
    """
    ring = params.ring
    q = host_ring.primes(ring.moduli)
    masks = np.asarray(a, np.uint64) * np.asarray(secret) % q
    plain = host_ring.inverse((np.asarray(total, np.uint64) + (q - masks)) % q, ring.moduli)
    fields, width, modulus = ring.values_per_coefficient, ring.field_bits, ring.modulus
    t, half = 1 << fields * width, 1 << (width - 1)
    carried = np.zeros(plain[:, 0].shape, object)
    for limb, prime in enumerate(ring.moduli):  # by the Chinese remainder theorem, in Python's integers
        other = modulus // prime
        carried += plain[:, limb].astype(object) * (other * pow(other, -1, prime))
    carried = carried % modulus * t
    whole = (carried + modulus // 2) // modulus
    distance = np.abs((carried - whole * modulus).astype(np.float64)) / modulus
    bias = sum(half << j * width for j in range(fields))
    packed = (whole * modulus + bias) % t
    values = np.stack([(packed >> j * width) % (2 * half) - half for j in range(fields)]).astype(np.int32)  # [k, R, N]
    return values.swapaxes(1, 2).reshape(-1), float(distance.max()), math.sqrt(float(np.mean(distance**2)))


def centred(params: RoundParameters, form: np.ndarray, largest: int) -> tuple[np.ndarray, bool]:
    """A polynomial uint32 `[L, N]` in NTT form as integers int64 `[N]`, and whether all fields agree on them and none is larger."""
    q = host_ring.primes(params.ring.moduli).astype(np.int64)
    found = host_ring.inverse(form, params.ring.moduli).astype(np.int64)
    small = np.where(found > q // 2, found - q, found)
    return small[0], bool((small == small[:1]).all() and np.abs(small[0]).max() <= largest)


def project(
    params: RoundParameters, signs: np.ndarray, uniform: np.ndarray, shares: Sequence[np.ndarray]
) -> np.ndarray:
    """A member's scalars uint32 `[clients, 12 + U, L]` of clients' shares uint32 `[L, N]`, as `screening.project` of each."""
    moduli = params.ring.moduli
    values = host_ring.inverse(np.stack(list(shares)), moduli)
    found = np.empty((len(values), len(signs) + len(uniform), len(moduli)), np.uint32)
    for limb, q in enumerate(moduli):
        own = values[:, limb].astype(np.int64)
        found[:, : len(signs), limb] = own @ signs.T.astype(np.int64) % q  # below 2^31 N
        for k, weights in enumerate(uniform[:, limb].astype(np.uint64)):
            found[:, len(signs) + k, limb] = (own.astype(np.uint64) * weights % np.uint64(q)).sum(axis=1) % np.uint64(q)
    return found
