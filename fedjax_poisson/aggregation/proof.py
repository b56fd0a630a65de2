"""A proof that a client's counts are short, on values that it shares to the members; it opens nothing about the counts.

A fully linear proof (Boneh, Boneh, Corrigan-Gibbs, Gilboa and Ishai, CRYPTO 2019, eprint 2019/188) of T = sum d_gb^2 <= B^2 for the digits of a norm sketch,
as in PINE (arXiv:2311.10237). The client shares bits of d_gb + 2^(b-1), of the slack B^2 - T and of masks, blinds, and of S = A^2, the square of the polynomial
A through all of these, what does not follow (`proof_shape`): a bit is its own square, so where A has bits members take their shares of the bits as shares of
S, and where A is zero, zero. Under a challenge that is a hash of the seed, the client and its proof, members open what is linear in shares:

  1. A and S at `points` places: A(X)^2 = S(X), so S = A^2, and every bit is one;
  2. sum of the squared digits + slack - B^2: 0;
  3. with several primes, weighings of all bits of digits and slack, each under a mask: one integer of a window, so the bits are the same in all fields;
  4. r_g = V_g - encode(d_g) = Z_g e, small: so the digits are those of the rows (`sketch`). Who has the rows checks this.

*Complete* (*proved*): b^2 = b for b in {0, 1}, so what members put together is A^2 of honest values, of degree at most 2P - 2, exactly.

*Zero knowledge* (*proved*): A at the places is uniform whatever the counts. What a blind at root w adds to A at x is (x^P - 1) w / (P (x - w)) times it; x is
no P-th root, so over as many distinct places as blinds these factors are a Cauchy matrix between invertible diagonals, and equal places open the same twice.
S there is the square of it, 2 is 0, each of 3 is within 2^-38 in total variation of a law without the counts (a sum of at most 2^12 weights of mean 0 under a
mask 2^42 times longer) and there are at most eight (`proof_shape` refuses more), 4 does not depend on the counts. What t - 1 members hold of a proof are
uniform residues, whatever it says; the scalars of the others follow from theirs and from what is opened, which lie on polynomials of degree below t.

*Sound* (*proved*, but for the lattice condition of `proof_shape`, which is checked for each chain, for SHA-256 as a random oracle, and for ChaCha20, which
draws out what is long of a challenge, as a pseudo-random generator). The shares of t honest members fix all values, and with them A and S, before the challenge
is known: it hashes the proof, and by the seed the set D and with it the boxes. If S is not A^2 in some field, 1 passes there with at most 2^-95 (2^-96, and
what points lack of uniform). If it is in all, then at a bit's root b^2 = b, and a field has no other such b than 0 and 1; the squares in 2 are those of the
digits, which are integers by 3 but for 2^-80. So digits that are not those of the rows, or T > B^2, pass with at most 2^-80 + L 2^-95, over L fields, for each
proof that is hashed, and a client that tries many needs some 2^80 of them.
"""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from fedjax_poisson.aggregation.norm_bound import FUNCTIONALS_OF_COUNTS
from fedjax_poisson.aggregation.parameters import LARGEST_RESIDUE, RoundParameters
from fedjax_poisson.aggregation.proof_shape import ProofShape
from fedjax_poisson.aggregation.refusals import LongVector
from fedjax_poisson.aggregation.residue_sums import column, constants, dot, product, total
from fedjax_poisson.aggregation.root_values import at_points, between
from fedjax_poisson.aggregation.rows import hash_words, words_stream
from fedjax_poisson.aggregation.screening import TAIL
from fedjax_poisson.ckks import modular, ntt, rlwe_samplers
from fedjax_poisson.ckks.noise_bound import WIDE_VARIANCE
from fedjax_poisson.randomness import Stream, bits, fold_in
from fedjax_poisson.small_programs import few_values

__all__ = [
    "Challenge",
    "challenge_of",
    "lifted",
    "member_scalars",
    "of_rows",
    "plain_bits",
    "proof_values",
    "shared_values",
    "uniform_values",
    "values_of",
    "verdict",
]


class Challenge(NamedTuple):
    """What members are asked about one client's proof.

    Attributes:
      points: uint32 `[L, r]`.
      weighings: int32 `[tests, plain bits]`, in [-2^(a-1), 2^(a-1)).
    """

    points: np.ndarray
    weighings: Array


def _shape(params: RoundParameters) -> ProofShape:
    if params.proof is None:
        raise ValueError("Light rounds have no proofs.")
    return params.proof


def _moduli(params: RoundParameters, rank: int) -> np.ndarray:
    return np.asarray(params.ring.moduli, np.uint64).reshape(-1, *[1] * (rank - 1))


def _work(params: RoundParameters, *others: object) -> int:
    """How many numbers a program on one proof works on."""
    return params.ring.limbs * _shape(params).length


def challenge_of(params: RoundParameters, seed: bytes, client: bytes, proof_hash: bytes) -> Challenge:
    """The challenge for a client's proof, from SHA-256 over the seed, the client and its proof.

    The hash keys SHAKE-256, which points are drawn from (uniform within 2^-33 a number, and never a 2P-th root of unity), and a ChaCha20 stream for the
    weighings, which are uniform.
    """
    shape, moduli = _shape(params), params.ring.moduli
    words = hash_words("challenge", seed, client, proof_hash)
    count = 4 * shape.points
    raw = hashlib.shake_256(b"fedjax-poisson/1/challenge/points\0" + words.tobytes()).digest(8 * len(moduli) * count)
    spare = np.frombuffer(raw, "<u8").reshape(len(moduli), count)
    points = np.empty((len(moduli), shape.points), np.uint32)
    for limb, q in enumerate(moduli):  # a root comes up with 2P / q, so three quarters of the draws are never roots
        drawn = (int(v) % q for v in spare[limb])
        kept = (x for x in drawn if x and pow(x, 2 * shape.size, q) != 1)
        points[limb] = [next(kept) for _ in range(shape.points)]
    return Challenge(points, _weighings(params, words))


@few_values(_work, static_argnums=0)
def _weighings(params: RoundParameters, words: Array) -> Array:
    """The weighings of a challenge's hash uint32 `[8]`."""
    shape = _shape(params)
    if not shape.tests:
        return jnp.zeros((0, shape.plain_bits), jnp.int32)
    drawn = bits(fold_in(words_stream(words), "weighings"), (shape.tests, shape.plain_bits))
    small = jax.lax.bitcast_convert_type(drawn >> jnp.uint32(32 - shape.weight_bits), jnp.int32)
    return small - jnp.int32(1 << (shape.weight_bits - 1))


def uniform_values(params: RoundParameters, stream: Stream) -> Array:
    """As many uniform residues in each field as a proof has values, uint32 `[L, length]`: what a share of one is expanded to. Total variation 2^-94 a value."""
    return _uniform(params, _shape(params).length, stream)


def _uniform(params: RoundParameters, count: int, stream: Stream) -> Array:
    """`count` uniform residues in each field, uint32 `[L, count]`, as `rlwe_samplers.uniform_residues` makes them of words; any number of them."""
    moduli = params.ring.moduli
    combination = rlwe_samplers.uniform_combination(moduli)
    words = rlwe_samplers.random_words(stream, (combination.weights.shape[1], count))
    table = ntt.tables(params.ring.degree, moduli)  # of it the primes alone are used
    return rlwe_samplers.combine(words[..., None], combination, table, ntt.capacity(moduli))[..., 0]


def proof_values(params: RoundParameters, digits: np.ndarray, stream: Stream) -> np.ndarray:
    """What the client shares: uint32 `[L, length]`.

    Args:
      params: of the round.
      digits: int64 `[16, k]` (`sketch.digits_of`).
      stream: fresh; masks and blinds come from it.

    Raises:
      LongVector: as `plain_bits`.
    """
    return np.asarray(_values(params, plain_bits(params, digits), stream))


def plain_bits(params: RoundParameters, digits: np.ndarray) -> np.ndarray:
    """The bits of digits int64 `[16, k]` and of the slack, uint32 `[plain bits]`, lowest first.

    Raises:
      LongVector: T > B^2; no proof exists. An honest client meets this with at most 10^-12.
    """
    shape, flat = _shape(params), np.asarray(digits, np.int64).reshape(-1)
    slack = shape.squared_bound - sum(d * d for d in flat.tolist())
    if slack < 0:
        raise LongVector(
            "The vector is longer than the round allows, as the sixteen functionals see it: this client sits the round out."
        )
    offset = flat + (1 << (shape.digit_bits - 1))
    of_digits = (offset[:, None] >> np.arange(shape.digit_bits)) & 1
    of_slack = [(slack >> i) & 1 for i in range(shape.slack_bits)]
    return np.concatenate([of_digits.reshape(-1), np.asarray(of_slack, np.int64)]).astype(np.uint32)


def values_of(params: RoundParameters, plain: Array, stream: Stream) -> Array:
    """What the client shares of `plain_bits`, uint32 `[L, length]`; inside other programs."""
    shape = _shape(params)
    count = shape.tests * shape.mask_width
    masks = bits(fold_in(stream, "masks"), count) & jnp.uint32(1)
    all_bits = jnp.broadcast_to(jnp.concatenate([plain, masks]), (params.ring.limbs, shape.bits))
    return _with_squares(params, all_bits, _uniform(params, shape.points, fold_in(stream, "blinds")))


_values = few_values(_work, static_argnums=0)(values_of)


def shared_values(params: RoundParameters, all_bits: ArrayLike, blinds: ArrayLike) -> np.ndarray:
    """Bits `[L, bits]`, blinds `[L, r]` and what of S belongs to them: uint32 `[L, length]`."""
    return np.asarray(_shared_values(params, jnp.asarray(all_bits, jnp.uint32), jnp.asarray(blinds, jnp.uint32)))


def _with_squares(params: RoundParameters, all_bits: Array, blinds: Array) -> Array:
    moduli = params.ring.moduli
    own = jnp.concatenate([_digits(params, all_bits), blinds], axis=1)
    odd = between(_on_roots(params, all_bits, own), moduli)
    squared = jnp.concatenate([own, odd], axis=1)
    return jnp.concatenate([all_bits, blinds, product(squared, squared, moduli)], axis=1)


_shared_values = few_values(_work, static_argnums=0)(_with_squares)


def _on_roots(params: RoundParameters, all_bits: Array, others: Array) -> Array:
    """A or S on the P-th roots, or a share of it: bits `[L, bits]`, what stands at digits and blinds `[L, digits + r]`, and zeros; uint32 `[L, P]`."""
    rest = jnp.zeros((params.ring.limbs, _shape(params).unused), jnp.uint32)
    return jnp.concatenate([all_bits, others, rest], axis=1)


def _powers_of_two(params: RoundParameters, count: int, rank: int) -> np.ndarray:
    """1, 2, 4, .. modulo each prime: uint32 `[L, 1, .., count]` of this rank."""
    found = np.asarray([[pow(2, i, p) for i in range(count)] for p in params.ring.moduli], np.uint32)
    return found.reshape(params.ring.limbs, *[1] * (rank - 2), count)


def _digits(params: RoundParameters, all_bits: Array) -> Array:
    """The digits from their bits, or shares of them: uint32 `[L, digits]`."""
    shape, moduli = _shape(params), params.ring.moduli
    own = all_bits[:, : shape.digits * shape.digit_bits].reshape(-1, shape.digits, shape.digit_bits)
    found = dot(_powers_of_two(params, shape.digit_bits, 3), own, moduli)
    offset = column([(1 << (shape.digit_bits - 1)) % p for p in moduli], 2)
    return modular.subtract(found, jnp.asarray(offset), constants(moduli, 2).q)


def member_scalars(params: RoundParameters, challenge: Challenge, share: ArrayLike, projected: ArrayLike) -> np.ndarray:
    """A member's shares of all that is opened of one proof.

    Args:
      params: of the round.
      challenge: for this proof.
      share: uint32 `[L, length]`, the member's share of the proof.
      projected: uint32 `[16, L]`, W_g times the member's share of the secret (`sketch.secret_weights`).

    Returns:
      uint32 `[opened, L]`, in the order of the module's list.
    """
    return np.asarray(
        _member_scalars(params, challenge, jnp.asarray(share, jnp.uint32), jnp.asarray(projected, jnp.uint32))
    )


@few_values(_work, static_argnums=0)
def _member_scalars(params: RoundParameters, challenge: Challenge, share: Array, projected: Array) -> Array:
    shape, moduli = _shape(params), params.ring.moduli
    q = constants(moduli, 2).q
    all_bits, blinds, squares, odd = jnp.split(share, shape.parts, axis=1)
    plain, masks = all_bits[:, : shape.plain_bits], all_bits[:, shape.plain_bits :]
    digits = _digits(params, all_bits)
    on_roots = _on_roots(params, all_bits, jnp.concatenate([digits, blinds], axis=1))
    even = _on_roots(params, all_bits, squares)  # where A has a bit S is that bit, not its square: so every bit is one
    a, s = at_points(on_roots, even, odd, jnp.asarray(challenge.points), moduli)
    of_digits = total(squares[:, : shape.digits], moduli)
    slack = dot(_powers_of_two(params, shape.slack_bits, 2), plain[:, shape.digits * shape.digit_bits :], moduli)
    bound = column([shape.squared_bound % p for p in moduli], 1)
    excess = modular.subtract(modular.add(of_digits, slack, q[:, 0]), jnp.asarray(bound), q[:, 0])
    parts = [
        a,
        s,
        excess[:, None],
        _weighed(params, challenge.weighings, plain, masks),
        _residues(params, digits, projected),
    ]
    return jnp.concatenate(parts, axis=1).T


def _weighed(params: RoundParameters, weighings: Array, plain: Array, masks: Array) -> Array:
    """Shares of the weighings under their masks: uint32 `[L, tests]`."""
    shape, moduli = _shape(params), params.ring.moduli
    if not shape.tests:
        return jnp.zeros((params.ring.limbs, 0), jnp.uint32)
    weights = modular.from_signed(weighings[None], constants(moduli, 3).q)
    own = masks.reshape(params.ring.limbs, shape.tests, shape.mask_width)
    return modular.add(
        dot(weights, plain[:, None], moduli),
        dot(_powers_of_two(params, shape.mask_width, 3), own, moduli),
        constants(moduli, 2).q,
    )


def _residues(params: RoundParameters, digits: Array, projected: Array) -> Array:
    """Shares of r_g without what is public, - W_g s - encode(d_g): uint32 `[L, 16]`."""
    shape, moduli = _shape(params), params.ring.moduli
    width, fields = params.ring.field_bits, params.ring.values_per_coefficient
    weights = np.asarray(
        [[pow(2, b * width, p) * pow(2, -fields * width, p) % p for b in range(shape.blocks)] for p in moduli],
        np.uint32,
    )
    own = digits.reshape(params.ring.limbs, FUNCTIONALS_OF_COUNTS, shape.blocks)
    return modular.subtract(dot(weights[:, None], own, moduli), projected.T, constants(moduli, 2).q)


def verdict(params: RoundParameters, opened: np.ndarray) -> bool:
    """Whether checks 1 to 3 of a proof hold, for which nobody needs the rows; `opened` is uint64 `[opened, L]`, residues."""
    shape, q = _shape(params), _moduli(params, 2)
    a, s, excess, weighed, _ = _parts(params, opened)
    if (a * a % q != s).any() or excess.any():
        return False
    low, high = shape.window
    return not shape.tests or all(low <= value <= high for value in lifted(params, weighed))


def of_rows(params: RoundParameters, opened: np.ndarray, row_sums: np.ndarray, gram: np.ndarray) -> bool:
    """Whether check 4 holds: the digits are those of these rows, whose errors are as small as an honest client's.

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
    ends = np.cumsum([shape.points, shape.points, 1, shape.tests])
    return list(np.split(opened.astype(np.uint64).T, ends, axis=1))


def lifted(params: RoundParameters, residues: np.ndarray) -> list[int]:
    """The integers in (-Q/2, Q/2] with residues uint64 `[L, n]`."""
    modulus, moduli = params.ring.modulus, params.ring.moduli
    factors = [(modulus // p) * pow(modulus // p, -1, p) for p in moduli]
    found = []
    for own in residues.T:
        value = sum(int(x) * factor for x, factor in zip(own, factors, strict=True)) % modulus
        found.append(value - modulus if value > modulus // 2 else value)
    return found
