"""Integer counts to ring coefficients and back, exactly, in uint32 on the device.

k signed fields of w bits share a coefficient. With M = sum_j v_j 2^(j w) and t = 2^(k w), a coefficient carries X = round(Q V / t) where V = M Q^-1 mod t,
up to half a unit. Neither Q nor X is ever formed: since (Q V - M) / t is an integer and Q = 0 modulo each prime,

    X = -M t^-1 (mod q_l),

one small inner product for each prime, linear in the words of M. (Scaling by Q/t instead of floor(Q/t) keeps the last bit of the modulus.)

Decoding. A sum of ciphertexts decrypts to X' = X + noise (mod Q), so X'/Q mod 1 = V/t + (noise - M/t)/Q, and by the Chinese remainder
theorem X'/Q mod 1 = sum_l y_l / q_l mod 1 with y_l = X' (Q/q_l)^-1 mod q_l. That sum is taken in fixed-point fractions of F words, where
wrapping is the reduction modulo Q; half a unit of 1/t is added *before* the integer part is cut off, so that small negative noise does
not wrap to the top. The k w upper bits are V, the next 32 say how far it was from an integer, and M = V Q mod t. Fractions have
32 F >= k w + 64 bits: they are off by less than 2^-27 of a step.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.ckks import modular, ntt
from fedjax_poisson.ckks.parameters import CkksParameters
from fedjax_poisson.ckks.rlwe_samplers import Combination, combination, combine
from fedjax_poisson.randomness.wide import mulhi

__all__ = ["decode", "encode", "pack_words", "word_combination"]


class _Constants(NamedTuple):
    """Host constants of one packing.

    Attributes:
        words: Weights -2^(32 i) t^-1 mod q_l of the packed words, and the residue of the fields' bias.
        garner: (Q / q_l)^-1 mod q_l, uint32 [L, 1], and companions.
        garner_quotients: Shoup companions of garner.
        reciprocals: floor(2^(32 F) / q_l), little-endian words, [L][F].
        modulus_words: Q mod t, little-endian words [W].
    """

    words: Combination
    garner: np.ndarray
    garner_quotients: np.ndarray
    reciprocals: list[list[int]]
    modulus_words: list[int]


def _word_count(params: CkksParameters) -> int:
    return -(-params.values_per_coefficient * params.field_bits // 32)


def _split(value: int, words: int) -> list[int]:
    return [(value >> 32 * i) & 0xFFFFFFFF for i in range(words)]


@functools.lru_cache(maxsize=64)
def _constants(params: CkksParameters) -> _Constants:
    fields, width = params.values_per_coefficient, params.field_bits
    t, big_q, words = 1 << fields * width, params.modulus, _word_count(params)
    q = modular.constants(params.moduli).q
    bias = sum(1 << (j * width + width - 1) for j in range(fields))
    inverse_t = [pow(t, -1, p) for p in params.moduli]
    weights = [
        [-(1 << 32 * i) * inv % p for i in range(words)] for inv, p in zip(inverse_t, params.moduli, strict=True)
    ]
    garner = np.asarray([pow(big_q // p, -1, p) for p in params.moduli], np.uint32)[:, None]
    fraction = -(-(fields * width + 64) // 32)
    return _Constants(
        words=combination(
            weights, [bias * inv % p for inv, p in zip(inverse_t, params.moduli, strict=True)], params.moduli
        ),
        garner=garner,
        garner_quotients=modular.shoup_quotient(garner, q),
        reciprocals=[_split((1 << 32 * fraction) // p, fraction) for p in params.moduli],
        modulus_words=_split(big_q % t, words),
    )


def word_combination(params: CkksParameters) -> Combination:
    """How the words of `pack_words` make up the residues of a coefficient."""
    return _constants(params).words


def pack_words(params: CkksParameters, counts: jax.Array) -> jax.Array:
    """Counts to the words of the biased packed integers M + sum_j 2^(j w + w - 1).

    With R = params.rows(D) rows, value number d sits in field d // (N R), coefficient (d % (N R)) // R, row d % R: rows lie side by side, the layout in
    which the transform is fastest. A count outside [-2^(w-1), 2^(w-1)) wraps in its own field and leaves the others alone.

    Args:
        params: Parameters with packing.
        counts: int32 [..., D].

    Returns:
        uint32 [W, ..., N, R], the lowest word first.
    """
    fields, width, degree = params.values_per_coefficient, params.field_bits, params.degree
    *lead, size = counts.shape
    rows = params.rows(size)
    missing = rows * params.values_per_row - size
    padded = jnp.pad(counts, [(0, 0)] * len(lead) + [(0, missing)]) if missing else counts
    biased = jax.lax.bitcast_convert_type(padded, jnp.uint32) + jnp.uint32(1 << (width - 1))
    digits = (biased & jnp.uint32((1 << width) - 1)).reshape(*lead, fields, degree, rows)
    words = []
    for i in range(_word_count(params)):
        parts = []
        for j in range(fields):
            shift = j * width - 32 * i
            if -width < shift < 32:
                digit = digits[..., j, :, :]
                parts.append(digit << jnp.uint32(shift) if shift >= 0 else digit >> jnp.uint32(-shift))
        words.append(functools.reduce(jnp.bitwise_or, parts))
    return jnp.stack(words)


def encode(params: CkksParameters, counts: jax.Array) -> jax.Array:
    """Counts to the residues of their packed, scaled coefficients (natural order, not yet in NTT form).

    Args:
        params: Parameters with packing.
        counts: int32 [..., D], each |count| <= count_bound.

    Returns:
        uint32 [..., R, L, N] in [0, q).
    """
    table = ntt.tables(params.degree, params.moduli)
    residues = combine(pack_words(params, counts), word_combination(params), table, ntt.capacity(params.moduli))
    return jnp.moveaxis(residues, -1, -3)


def decode(params: CkksParameters, residues: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Residues of the decrypted coefficients to the exact counts.

    Args:
        params: The parameters the sum was encoded with.
        residues: uint32 [..., R, L, N] in [0, q), coefficients in natural order.
        size: Number D of values in the vector.

    Returns:
        counts: int32 [..., D].
        distance: float32 [...]: the largest distance of a coefficient to the nearest integer, in steps (at most 0.5). Padding counts too.

    Raises:
        ValueError: If a vector of `size` values has another number of rows.
    """
    return decode_columns(params, jnp.moveaxis(residues, -3, -1), size)


def decode_columns(params: CkksParameters, residues: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """`decode` of residues that lie as [..., L, N, R]."""
    *_, limb_count, degree, rows = residues.shape
    expected = -(-size // params.values_per_row)  # padding may be asked for too, so `size` can exceed params.values
    if size < 1 or (limb_count, degree, rows) != (params.limbs, params.degree, expected):
        raise ValueError(
            f"{size} values take {expected} rows of {params.limbs} limbs and {params.degree} coefficients; the ciphertext has "
            f"{rows} rows of {limb_count} and {degree}: open it with its own parameters and its own size"
        )
    c = _constants(params)
    fields, width = params.values_per_coefficient, params.field_bits
    q = modular.constants(params.moduli).q[:, :, None]
    y = modular.multiply_shoup(residues, c.garner[:, :, None], c.garner_quotients[:, :, None], q)
    y = modular.reduce_once(y, q)
    fraction_words = len(c.reciprocals[0])
    below = 32 * fraction_words - fields * width  # bits of the fraction behind V
    limbs = [y[..., limb, :, :] for limb in range(params.limbs)]
    total = _inner_product(limbs, c.reciprocals, _split(1 << (below - 1), fraction_words))
    # After half was added, the 32 bits behind V are the distance to the nearest integer, plus one half.
    behind = _extract(total, below - 32, 32)
    offset = jax.lax.bitcast_convert_type(behind ^ jnp.uint32(1 << 31), jnp.int32)
    distance = jnp.max(jnp.abs(offset.astype(jnp.float32)), axis=(-2, -1)) * jnp.float32(2.0**-32)
    words = _word_count(params)
    v = [_extract(total, below + 32 * i, 32) for i in range(words)]
    shifted = [[0] * i + c.modulus_words[: words - i] for i in range(words)]
    bias = sum(1 << (j * width + width - 1) for j in range(fields))
    m = _inner_product(v, shifted, _split(bias, words))
    half = jnp.uint32(1 << (width - 1))
    values = jnp.stack([_extract(m, j * width, width) - half for j in range(fields)], axis=-3)  # [..., k, N, R]
    counts = jax.lax.bitcast_convert_type(values, jnp.int32).reshape(*values.shape[:-3], -1)[..., :size]
    return counts, distance


def _inner_product(factors: list[jax.Array], constants: list[list[int]], start: list[int]) -> list[jax.Array]:
    """Start + sum_k factors[k] constants[k] modulo 2^(32 F), as F little-endian words.

    Args:
        factors: K words uint32 [...].
        constants: K integers of F little-endian words.
        start: An integer of F words.

    Word by word the products' halves are added up as two sums of 16-bit pieces (2K + 1 <= 2^15 of them fit a word), and carries run once at the end: a carry
    chain for every product would be computed again by the compiler for every word it feeds. The barriers mark what is shared.
    """
    lows, highs = [], []
    for f, first in enumerate(start):
        terms = []
        for factor, constant in zip(factors, constants, strict=True):
            if constant[f]:
                terms.append(factor * jnp.uint32(constant[f]))
            if f and constant[f - 1]:
                terms.append(mulhi(factor, jnp.full_like(factor, constant[f - 1])))
        lows.append(functools.reduce(jnp.add, [t & jnp.uint32(0xFFFF) for t in terms], jnp.uint32(first & 0xFFFF)))
        highs.append(functools.reduce(jnp.add, [t >> jnp.uint32(16) for t in terms], jnp.uint32(first >> 16)))
    lows, highs = jax.lax.optimization_barrier((lows, highs))
    words, carry = [], jnp.uint32(0)
    for low, high in zip(lows, highs, strict=True):
        low = low + carry
        high = high + (low >> jnp.uint32(16))
        words.append((low & jnp.uint32(0xFFFF)) | (high << jnp.uint32(16)))
        carry = high >> jnp.uint32(16)
    return list(jax.lax.optimization_barrier(words))


def _extract(words: list[jax.Array], start: int, width: int) -> jax.Array:
    """Bits start .. start + width - 1 (width <= 32) of little-endian words; bits beyond the top are zero."""
    index, shift = divmod(start, 32)
    value = words[index] >> jnp.uint32(shift)
    if shift and shift + width > 32 and index + 1 < len(words):
        value = value | (words[index + 1] << jnp.uint32(32 - shift))
    return value & jnp.uint32((1 << width) - 1)


def open_rows(params: CkksParameters, total: jax.Array, masks: jax.Array, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Temporary."""
    q = modular.constants(params.moduli).q
    c, d = decode(params, ntt.inverse(modular.subtract(total, masks, q), params.moduli), size)
    return c, d, d * 0
