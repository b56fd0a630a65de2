"""A proof that a client's counts are short, on values that it shares to the members; it opens nothing about the counts.

A fully linear proof (Boneh, Boneh, Corrigan-Gibbs, Gilboa and Ishai, CRYPTO 2019, eprint 2019/188) of T = sum d_gb^2 <= B^2 for the digits of a norm sketch,
as in PINE (arXiv:2311.10237). The client shares bits of d_gb + 2^(b-1), of the slack B^2 - T and of masks, blinds, and the squares of the polynomial A through
all of these (`proof_shape`). Under a challenge that is a hash of the seed, the client and its proof, members open what is linear in shares:

  1. A and A^2 at `points` places: A(X)^2 = A^2(X);
  2. combinations of (square - value) over all bits: 0, so every bit is one;
  3. sum of the squared digits + slack - B^2: 0;
  4. with several primes, weighings of all bits of digits and slack, each under a mask: one integer of a window, so the bits are the same in all fields;
  5. r_g = V_g - encode(d_g) = Z_g e, small: so the digits are those of the rows (`sketch`). Who has the rows checks this.

*Zero knowledge* (*proved*): 1 is uniform by the blinds (as many as places, none a 2P-th root, so the map from blinds to A's values is invertible), 2 and 3
are 0, 4 is within 2^-38 in total variation of a law without the counts (a sum of at most 2^12 weights of mean 0 under a mask 2^42 times longer), 5 does not
depend on the counts; what t - 1 members hold follows from their own random shares and these values. *Sound* (*proved*, but for the lattice condition of
`proof_shape`, which is checked for each chain, and for SHA-256 as a random oracle): digits that are not those of the rows, or T > B^2, pass with at most
2^-80 + 2^-94 for each proof that is hashed, so a client that tries many needs some 2^80 of them.
"""

from __future__ import annotations

import functools
import hashlib
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.aggregation.norm_bound import FUNCTIONALS_OF_COUNTS
from fedjax_poisson.aggregation.parameters import LARGEST_RESIDUE, RoundParameters
from fedjax_poisson.aggregation.proof_shape import COMBINATIONS, ProofShape
from fedjax_poisson.aggregation.refusals import LongVector
from fedjax_poisson.aggregation.root_values import doubled, value_weights
from fedjax_poisson.aggregation.screening import TAIL
from fedjax_poisson.ckks.noise_bound import WIDE_VARIANCE
from fedjax_poisson.ckks.rlwe_samplers import uniform_residues
from fedjax_poisson.randomness import Stream, bits, fold_in

__all__ = [
    "Challenge",
    "challenge_of",
    "lifted",
    "member_scalars",
    "of_rows",
    "padded_residues",
    "proof_values",
    "verdict",
]


class Challenge(NamedTuple):
    """What members are asked about one client's proof.

    Attributes:
      points: uint64 `[L, r]`.
      combinations: uint64 `[L, 6, bits]`.
      weighings: int64 `[tests, plain bits]`, in [-2^(a-1), 2^(a-1)).
    """

    points: np.ndarray
    combinations: np.ndarray
    weighings: np.ndarray


def _shape(params: RoundParameters) -> ProofShape:
    if params.proof is None:
        raise ValueError("Light rounds have no proofs.")
    return params.proof


def _moduli(params: RoundParameters, rank: int) -> np.ndarray:
    return np.asarray(params.ring.moduli, np.uint64).reshape(-1, *[1] * (rank - 1))


def challenge_of(params: RoundParameters, seed: bytes, client: bytes, proof_hash: bytes) -> Challenge:
    """The challenge for a client's proof, from SHAKE-256; uniform within 2^-33 a number."""
    shape, moduli = _shape(params), params.ring.moduli
    state = hashlib.sha256(b"fedjax-poisson/1/challenge\0" + seed + client + proof_hash).digest()

    def words(label: bytes, count: int) -> np.ndarray:
        raw = hashlib.shake_256(b"fedjax-poisson/1/challenge/" + label + b"\0" + state).digest(8 * count)
        return np.frombuffer(raw, "<u8").astype(np.uint64)

    points = np.empty((len(moduli), shape.points), np.uint64)
    spare = words(b"points", len(moduli) * 4 * shape.points).reshape(len(moduli), -1)
    for limb, q in enumerate(moduli):  # a root comes up with 2P / q, so three quarters of the draws are never roots
        kept = [int(v % np.uint64(q)) for v in spare[limb]]
        kept = [x for x in kept if x and pow(x, 2 * shape.size, q) != 1]
        points[limb] = kept[: shape.points]
    count = len(moduli) * COMBINATIONS * shape.bits
    combinations = words(b"combinations", count).reshape(len(moduli), COMBINATIONS, shape.bits) % _moduli(params, 3)
    weighings = np.zeros((shape.tests, shape.plain_bits), np.int64)
    if shape.tests:
        drawn = words(b"weighings", shape.tests * shape.plain_bits) >> np.uint64(64 - shape.weight_bits)
        weighings = drawn.astype(np.int64).reshape(weighings.shape) - (1 << (shape.weight_bits - 1))
    return Challenge(points, combinations, weighings)


def proof_values(params: RoundParameters, digits: np.ndarray, stream: Stream) -> np.ndarray:
    """What the client shares: uint64 `[L, length]`.

    Args:
      params: of the round.
      digits: int64 `[16, k]` (`sketch.digits_of`).
      stream: fresh; masks and blinds come from it.

    Raises:
      LongVector: T > B^2; no proof exists. An honest client meets this with at most 10^-12.
    """
    shape = _shape(params)
    flat = [int(d) for d in digits.reshape(-1)]
    slack = shape.squared_bound - sum(d * d for d in flat)
    if slack < 0:
        raise LongVector(
            "The vector is longer than the round allows, as the sixteen functionals see it: this client sits the round out."
        )
    plain = np.concatenate(
        [
            _bits_of([d + (1 << (shape.digit_bits - 1)) for d in flat], shape.digit_bits),
            _bits_of([slack], shape.slack_bits),
        ]
    )
    count = shape.tests * shape.mask_width
    masks = np.asarray(_mask_bits(max(count, 1), stream))[:count]
    all_bits = np.concatenate([plain, masks.astype(np.uint64)])
    blinds = padded_residues(params, _folded(stream), shape.points)
    return shared_values(params, np.broadcast_to(all_bits, (params.ring.limbs, shape.bits)), blinds)


def _bits_of(values: list[int], width: int) -> np.ndarray:
    """The bits of numbers below 2^width, lowest first."""
    return np.asarray([(value >> i) & 1 for value in values for i in range(width)], np.uint64)


def shared_values(params: RoundParameters, all_bits: np.ndarray, blinds: np.ndarray) -> np.ndarray:
    """Bits, blinds and the squares that belong to them: uint64 `[L, length]`."""
    shape, q = _shape(params), _moduli(params, 2)
    a = _values_of_a(params, all_bits, blinds)
    twice = doubled(a, params.ring.moduli)
    assert twice.shape[1] == 2 * shape.size
    return np.concatenate([all_bits, blinds, twice * twice % q], axis=1)


def _values_of_a(params: RoundParameters, all_bits: np.ndarray, blinds: np.ndarray) -> np.ndarray:
    """A on the P-th roots from bits `[L, bits]` and blinds `[L, r]`, or a share of it from shares of them: uint64 `[L, P]`."""
    shape, q = _shape(params), _moduli(params, 2)
    digits = _digits(params, all_bits)
    rest = np.zeros((params.ring.limbs, shape.size - shape.bits - shape.digits - shape.points), np.uint64)
    return np.concatenate([all_bits % q, digits, blinds, rest], axis=1)


def _digits(params: RoundParameters, all_bits: np.ndarray) -> np.ndarray:
    """The digits from their bits, or shares of them: uint64 `[L, digits]`."""
    shape, q = _shape(params), _moduli(params, 2)
    own = all_bits[:, : shape.digits * shape.digit_bits].reshape(params.ring.limbs, shape.digits, shape.digit_bits)
    weights = np.asarray([[(1 << i) % p for i in range(shape.digit_bits)] for p in params.ring.moduli], np.uint64)
    lifted_sum = (own * weights[:, None, :] % q[..., None]).sum(axis=-1, dtype=np.uint64) % q
    offset = np.asarray([(1 << (shape.digit_bits - 1)) % p for p in params.ring.moduli], np.uint64)[:, None]
    return (lifted_sum + q - offset) % q


def padded_residues(params: RoundParameters, stream: Stream, count: int) -> np.ndarray:
    """`count` uniform residues in each field: uint64 `[L, count]`."""
    return np.asarray(_residues_of(params, -(-count // params.ring.degree), stream))[:, :count].astype(np.uint64)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _residues_of(params: RoundParameters, rows: int, stream: Stream) -> jax.Array:
    drawn = uniform_residues(stream, (rows, params.ring.degree), params.ring.moduli)
    return jnp.moveaxis(drawn, 1, 0).reshape(params.ring.limbs, -1)


@jax.jit
def _folded(stream: Stream) -> Stream:
    return fold_in(stream, "blinds")


@functools.partial(jax.jit, static_argnums=0)
def _mask_bits(count: int, stream: Stream) -> jax.Array:
    return bits(fold_in(stream, "masks"), count) & jnp.uint32(1)


def member_scalars(
    params: RoundParameters, challenge: Challenge, share: np.ndarray, projected: np.ndarray
) -> np.ndarray:
    """A member's shares of all that is opened of one proof.

    Args:
      params: of the round.
      challenge: for this proof.
      share: uint64 `[L, length]`, the member's share of the proof.
      projected: uint32 `[16, L]`, W_g times the member's share of the secret (`sketch.secret_weights`).

    Returns:
      uint32 `[opened, L]`, in the order of the module's list.
    """
    shape, moduli = _shape(params), params.ring.moduli
    q = _moduli(params, 2)
    all_bits, blinds = share[:, : shape.bits], share[:, shape.bits : shape.bits + shape.points]
    squares = share[:, shape.bits + shape.points :]
    a = _values_of_a(params, all_bits, blinds)
    at_roots, at_double = value_weights(challenge.points, shape.size, moduli)
    off = (squares[:, : 2 * shape.bits : 2] + q - all_bits) % q
    plain = all_bits[:, : shape.plain_bits]
    slack = plain[:, shape.digits * shape.digit_bits :]
    powers = np.asarray([[pow(2, i, p) for i in range(shape.slack_bits)] for p in moduli], np.uint64)
    bound = np.asarray([shape.squared_bound % p for p in moduli], np.uint64)[:, None]
    of_digits = squares[:, 2 * shape.bits : 2 * (shape.bits + shape.digits) : 2].sum(axis=1, dtype=np.uint64)[:, None]
    total = (of_digits + _dot(powers[:, None], slack, q) + q - bound) % q
    parts = [
        _dot(at_roots, a, q),
        _dot(at_double, squares, q),
        _dot(challenge.combinations, off, q),
        total,
        _weighed(params, challenge, plain, all_bits[:, shape.plain_bits :]),
        _residues(params, _digits(params, all_bits), projected),
    ]
    return np.concatenate(parts, axis=1).T.astype(np.uint32)


def _dot(weights: np.ndarray, values: np.ndarray, q: np.ndarray) -> np.ndarray:
    """uint64 `[L, S, n]` and `[L, n]` to `[L, S]`, modulo q; below 2^31 2^31 each, and fewer than 2^32 of them."""
    products = weights * values[:, None] % q[..., None]
    total: np.ndarray = products.sum(axis=-1, dtype=np.uint64) % q
    return total


def _weighed(params: RoundParameters, challenge: Challenge, plain: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Shares of the weighings under their masks: uint64 `[L, tests]`."""
    shape, q = _shape(params), _moduli(params, 2)
    if not shape.tests:
        return np.zeros((params.ring.limbs, 0), np.uint64)
    weights = (challenge.weighings[None] % q[..., None].astype(np.int64)).astype(np.uint64)
    powers = np.asarray([[pow(2, i, p) for i in range(shape.mask_width)] for p in params.ring.moduli], np.uint64)
    own = masks.reshape(params.ring.limbs, shape.tests, shape.mask_width) * powers[:, None] % q[..., None]
    found: np.ndarray = (_dot(weights, plain, q) + own.sum(axis=-1, dtype=np.uint64)) % q
    return found


def _residues(params: RoundParameters, digits: np.ndarray, projected: np.ndarray) -> np.ndarray:
    """Shares of r_g without what is public, - W_g s - encode(d_g): uint64 `[L, 16]`."""
    shape, q = _shape(params), _moduli(params, 2)
    width, fields = params.ring.field_bits, params.ring.values_per_coefficient
    weights = np.asarray(
        [
            [pow(2, b * width, p) * pow(2, -fields * width, p) % p for b in range(shape.blocks)]
            for p in params.ring.moduli
        ],
        np.uint64,
    )
    own = digits.reshape(params.ring.limbs, FUNCTIONALS_OF_COUNTS, shape.blocks) * weights[:, None] % q[..., None]
    found: np.ndarray = (own.sum(axis=-1, dtype=np.uint64) + q - projected.T.astype(np.uint64) % q) % q
    return found


def verdict(params: RoundParameters, opened: np.ndarray) -> bool:
    """Whether checks 1 to 4 of a proof hold, for which nobody needs the rows; `opened` is uint64 `[opened, L]`, residues."""
    shape, q = _shape(params), _moduli(params, 2)
    a, squares, combined, total, weighed, _ = _parts(params, opened)
    if (a * a % q != squares).any() or combined.any() or total.any():
        return False
    low, high = shape.window
    return not shape.tests or all(low <= value <= high for value in lifted(params, weighed))


def of_rows(params: RoundParameters, opened: np.ndarray, row_sums: np.ndarray, gram: np.ndarray) -> bool:
    """Whether check 5 holds: the digits are those of these rows, whose errors are as small as an honest client's.

    r_g = Z_g e, so r (Z Z')^-1 r is the squared norm of a projection of e of rank 16: an honest client fails with at most 10^-12 (`screening` has the bound).
    One large error would pass a bound on each r_g alone, and then stop a round at its opening.

    Args:
      params: of the round.
      opened: uint64 `[opened, L]`.
      row_sums: uint64 `[16, L]` (`sketch.row_sums`).
      gram: float64 `[16, 16]` (`sketch.gram`).
    """
    q = _moduli(params, 2)
    residues = lifted(params, (_parts(params, opened)[-1] + row_sums.T.astype(np.uint64)) % q)
    largest = LARGEST_RESIDUE * math.sqrt(WIDE_VARIANCE * params.rows * params.ring.degree / 2)
    if any(abs(value) > largest for value in residues):
        return False
    vector = np.asarray(residues, np.float64)
    statistic = float(vector @ np.linalg.solve(gram, vector)) / WIDE_VARIANCE
    return statistic <= FUNCTIONALS_OF_COUNTS + 2 * math.sqrt(FUNCTIONALS_OF_COUNTS * TAIL) + 2 * TAIL


def _parts(params: RoundParameters, opened: np.ndarray) -> list[np.ndarray]:
    """What was opened, in the order of the module's list: uint64 `[L, ...]` each."""
    shape = _shape(params)
    ends = np.cumsum([shape.points, shape.points, COMBINATIONS, 1, shape.tests])
    return list(np.split(opened.astype(np.uint64).T, ends, axis=1))


def lifted(params: RoundParameters, residues: np.ndarray) -> list[int]:
    """The integers in (-Q/2, Q/2] with residues uint64 `[L, n]`."""
    modulus, moduli = params.ring.modulus, params.ring.moduli
    factors = [(modulus // p) * pow(modulus // p, -1, p) for p in moduli]
    found = []
    for column in residues.T:
        value = sum(int(x) * factor for x, factor in zip(column, factors, strict=True)) % modulus
        found.append(value - modulus if value > modulus // 2 else value)
    return found
