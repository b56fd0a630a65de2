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
from fedjax_poisson.platforms import by_platform
from fedjax_poisson.randomness.wide import mulhi

__all__ = ["decode", "encode", "open_rows", "pack_words", "word_combination"]

COLUMNS = 64
"""Fewest columns that are turned at a time (rows are read in pieces of four lines of a cache); more if there are few rows."""


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
    counts, largest, _ = _decode_with_noise(params, residues, size)
    return counts, largest


def open_rows(
    params: CkksParameters, total: jax.Array, masks: jax.Array, size: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rows and their masks in NTT form to the exact counts: total - masks, transformed back and decoded.

    Args:
        params: The parameters the sum was encoded with.
        total: uint32 [R, L, N] in [0, q), the sum of the rows a_j s + e_j + encode(y)_j, NTT form. Batches by vmap.
        masks: uint32 [R, L, N] in [0, q), what hides it: a_j S, NTT form.
        size: Number D of values in the vector.

    Returns:
        counts: int32 [D].
        largest: float32 []: the largest distance of a coefficient to the nearest integer, in steps (at most 0.5). Padding counts too.
        rms: float32 []: the root of the mean square of that distance over all R N coefficients; 12^-1/2 = 0.289 if nothing was opened.

    Raises:
        ValueError: If a vector of `size` values has another number of rows.
    """
    difference = modular.subtract(total, masks, modular.constants(params.moduli).q)
    columns = by_platform(difference, cpu=_columns_in_blocks, default=_columns)
    return _decode_with_noise(params, ntt.inverse_columns(columns, ntt.tables(params.degree, params.moduli)), size)


def _columns_in_blocks(x: jax.Array) -> jax.Array:
    """[R, L, N] to [L, N, R], a few columns at a time: the form for CPUs.

    The rows' strides are powers of two, so whole columns would meet in the same few lines of a cache. And the loop's result is kept in memory: the first
    stage of the transform reads it twice, and XLA for CPUs would gather it twice.
    """
    rows, limbs, degree = x.shape
    if rows == 1:
        return x.reshape(limbs, degree, rows)
    width = min(degree, 1 << max(COLUMNS**2 // rows, COLUMNS).bit_length() - 1)
    blocks = jnp.moveaxis(x.reshape(rows, limbs, degree // width, width), 2, 0)
    turned = jax.lax.map(_columns, blocks)
    return jnp.moveaxis(turned, 0, 1).reshape(limbs, degree, rows)


def _columns(x: jax.Array) -> jax.Array:
    return jnp.moveaxis(x, 0, -1)


def _decode_with_noise(
    params: CkksParameters, residues: jax.Array, size: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Counts int32 [..., D], largest and root-mean-square distance to an integer, float32 [...], of residues uint32 [..., L, N, R]."""
    *_, limb_count, degree, rows = residues.shape
    expected = -(-size // params.values_per_row)  # padding may be asked for too, so `size` can exceed params.values
    if size < 1 or (limb_count, degree, rows) != (params.limbs, params.degree, expected):
        raise ValueError(
            f"{size} values take {expected} rows of {params.limbs} limbs and {params.degree} coefficients; the ciphertext has "
            f"{rows} rows of {limb_count} and {degree}: open it with its own parameters and its own size"
        )
    cpu, default = (
        functools.partial(_digits, params, written_out=written_out)
        for written_out in (params.values_per_coefficient == 1, True)
    )
    flat = residues.reshape(*residues.shape[:-2], degree * rows)  # long runs whatever the number of rows
    values, behind = by_platform(flat, cpu=cpu, default=default)
    counts = values.reshape(*values.shape[:-2], -1)[..., :size]
    offset = jax.lax.bitcast_convert_type(behind ^ jnp.uint32(1 << 31), jnp.int32)
    distance = jnp.abs(offset.astype(jnp.float32)) * jnp.float32(2.0**-32)
    # In two steps: a float32 sum over all coefficients in one go would lose digits.
    squares = (distance * distance).reshape(*distance.shape[:-1], degree, rows)
    mean_square = jnp.mean(jnp.mean(squares, axis=-2), axis=-1)
    return counts, jnp.max(distance, axis=-1), jnp.sqrt(mean_square)


def _digits(params: CkksParameters, residues: jax.Array, *, written_out: bool) -> tuple[jax.Array, jax.Array]:
    """The fields of every coefficient and how far it is from an integer.

    Args:
        params: The parameters.
        residues: uint32 [..., L, C] in [0, q), C coefficients.
        written_out: Write the loops over words and fields out: fast on a GPU, and where there is one field. The bits do not depend on it.

    XLA for CPUs computes a shared value again for each of its uses (a barrier is gone before it fuses). Written out, a field would have the carries of all
    words behind it, and with other sizes the compiler would stop somewhere else: 9 to 95 ns a value were seen. What a loop hands on is in memory.

    Returns:
        values: int32 [..., k, C].
        behind: uint32 [..., C]: one half plus the signed distance to the nearest integer, in units of 2^-32 steps.
    """
    c = _constants(params)
    fields, width = params.values_per_coefficient, params.field_bits
    q = modular.constants(params.moduli).q
    y = modular.multiply_shoup(residues, c.garner, c.garner_quotients, q)
    y = jnp.moveaxis(modular.reduce_once(y, q), -2, 0)
    fraction_words, words = len(c.reciprocals[0]), _word_count(params)
    below = 32 * fraction_words - fields * width  # bits of the fraction behind V
    total = _inner_product(y, c.reciprocals, _split(1 << (below - 1), fraction_words), written_out)
    v = jnp.stack([_extract(total, below + 32 * i, 32) for i in range(words)])
    shifted = [[0] * i + c.modulus_words[: words - i] for i in range(words)]
    bias = sum(1 << (j * width + width - 1) for j in range(fields))
    packed = _inner_product(v, shifted, _split(bias, words), written_out)
    half, mask = jnp.uint32(1 << (width - 1)), jnp.uint32((1 << width) - 1)

    def field(_: None, j: jax.Array) -> tuple[None, jax.Array]:
        start = j * jnp.uint32(width)
        index, shift = start >> jnp.uint32(5), start & jnp.uint32(31)
        lower = jax.lax.dynamic_index_in_dim(packed, index, keepdims=False)
        # At the last word the index is held; the field ends in it and the mask takes away what is read twice.
        upper = jax.lax.dynamic_index_in_dim(packed, index + jnp.uint32(1), keepdims=False)
        value = (lower >> shift) | ((upper << jnp.uint32(1)) << (jnp.uint32(31) - shift))
        return None, jax.lax.bitcast_convert_type((value & mask) - half, jnp.int32)

    values = jax.lax.scan(field, None, jnp.arange(fields, dtype=jnp.uint32), unroll=written_out)[1]
    # After half was added, the 32 bits behind V are the distance to the nearest integer, plus one half.
    return jnp.moveaxis(values, 0, -2), _extract(total, below - 32, 32)


def _inner_product(factors: jax.Array, constants: list[list[int]], start: list[int], written_out: bool) -> jax.Array:
    """Start + sum_k factors[k] constants[k] modulo 2^(32 F), as F little-endian words.

    Args:
        factors: uint32 [K, ...].
        constants: K integers of F little-endian words.
        start: An integer of F words.
        written_out: As in `_digits`.

    Returns:
        uint32 [F, ...], the lowest word first.

    Word by word the products' halves are added up as two sums of 16-bit pieces (2K + 1 <= 2^15 of them fit a word). The barrier marks what is shared.
    """
    own = np.asarray(constants, np.uint32).T  # [F, K]
    previous = np.concatenate([np.zeros_like(own[:1]), own[:-1]])

    def word(carry: jax.Array, xs: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        own, previous, first = xs
        low, high = carry + (first & jnp.uint32(0xFFFF)), first >> jnp.uint32(16)
        for k, factor in enumerate(factors):
            for part in (factor * own[k], mulhi(factor, jnp.full_like(factor, previous[k]))):
                low, high = low + (part & jnp.uint32(0xFFFF)), high + (part >> jnp.uint32(16))
        low, high = jax.lax.optimization_barrier((low, high))
        high = high + (low >> jnp.uint32(16))
        return high >> jnp.uint32(16), (low & jnp.uint32(0xFFFF)) | (high << jnp.uint32(16))

    steps = (jnp.asarray(own), jnp.asarray(previous), jnp.asarray(np.asarray(start, np.uint32)))
    zero = factors[0] & jnp.uint32(
        0
    )  # one that varies over the mesh axes of the factors, as shard_map wants of a carry
    return jax.lax.scan(word, zero, steps, unroll=written_out)[1]


def _extract(words: jax.Array, start: int, width: int) -> jax.Array:
    """Bits start .. start + width - 1 (width <= 32) of little-endian words; bits beyond the top are zero."""
    index, shift = divmod(start, 32)
    value = words[index] >> jnp.uint32(shift)
    if shift and shift + width > 32 and index + 1 < len(words):
        value = value | (words[index + 1] << jnp.uint32(32 - shift))
    return value & jnp.uint32((1 << width) - 1)
