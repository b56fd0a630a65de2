"""Sixteen functionals of all coefficients of a client's rows: what a norm proof speaks of, seen by the client, by the members and by whoever has the rows.

A seed that is drawn after the set D is signed gives weights Z_g, 0 half of the time, else +1 or -1, for the R N message coefficients. With
c_j = a_j s + e_j + encode(x)_j,

    Z_g c = W_g s + V_g,   V_g = Z_g e + encode(d_g),   d_gb = Z_g x over the fields b of the coefficients,

where W_g, a vector of N weights in each field, follows from Z and the public a. The server computes Z_g c from the rows, a member W_g f(k) from its share, the
client d_g from its counts. Alone V_g would show d_g; only V_g - encode(d_g) is ever opened (`proof`).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.aggregation.norm_bound import FUNCTIONALS_OF_COUNTS
from fedjax_poisson.aggregation.parameters import RoundParameters
from fedjax_poisson.aggregation.rows import common_of, hash_words, multiply_rows, padded, small_form, words_stream
from fedjax_poisson.ckks import modular, ntt
from fedjax_poisson.randomness import bits

__all__ = ["Sketch", "digits_of", "gram", "row_sums", "secret_weights", "sketch_of", "wide_weights"]

_LINE = 4096  # coefficients whose products are added in float32
_EXACT = 1 << 11  # of counts below this, such a sum is exact: 2^11 4096 < 2^24
_PART = 1 << 16  # of counts below 2^31, in float64


class Sketch(NamedTuple):
    """The functionals of a seed.

    Attributes:
      weights: int8 `[16, R N]`; coefficient p of row j stands at p R + j, as values lie in a field (`ckks.packing`).
    """

    weights: np.ndarray


def sketch_of(params: RoundParameters, seed: bytes) -> Sketch:
    """The functionals of a seed of 32 bytes: two bits of ChaCha20 a weight."""
    count = params.rows * params.ring.degree
    return Sketch(np.asarray(_weights(count, jnp.asarray(hash_words("sketch", seed)))))


@functools.partial(jax.jit, static_argnums=0)
def _weights(count: int, words: Array) -> Array:
    drawn = bits(words_stream(words), (FUNCTIONALS_OF_COUNTS, -(-count // 16)))
    pairs = (drawn[..., None] >> jnp.arange(0, 32, 2, dtype=jnp.uint32)[None, None]) & jnp.uint32(3)
    flat = pairs.reshape(FUNCTIONALS_OF_COUNTS, -1)[:, :count].astype(jnp.int8)
    return jnp.where(flat == 2, jnp.int8(1), jnp.where(flat == 3, jnp.int8(-1), jnp.int8(0)))


def gram(sketch: Sketch, wide: np.ndarray | None = None) -> np.ndarray:
    """Products of the functionals with one another: float64 `[16, 16]`, exact; `wide` are their `wide_weights`."""
    found = np.zeros((FUNCTIONALS_OF_COUNTS, FUNCTIONALS_OF_COUNTS))
    for first in range(0, sketch.weights.shape[1], _PART):
        part = _wide_part(sketch, wide, first)
        found += part @ part.T
    return found


def _wide_part(sketch: Sketch, wide: np.ndarray | None, first: int) -> np.ndarray:
    """`_PART` columns of the weights from `first` on, float64."""
    part = slice(first, first + _PART)
    return sketch.weights[:, part].astype(np.float64) if wide is None else wide[:, part]


def digits_of(params: RoundParameters, sketch: Sketch, counts: np.ndarray) -> np.ndarray:
    """d_gb of counts int32 `[D]`: int64 `[16, k]`, exact."""
    values = np.asarray(padded(params, jnp.asarray(counts)))
    blocks = values.reshape(params.ring.values_per_coefficient, -1)
    narrow = max(int(values.max(initial=0)), -int(values.min(initial=0))) < _EXACT
    part, kind = (_LINE, np.float32) if narrow else (_PART, np.float64)  # |sum| < 2^24, or < 2^31 2^16 < 2^53: exact
    found = np.zeros((FUNCTIONALS_OF_COUNTS, blocks.shape[0]), np.int64)
    for first in range(0, blocks.shape[1], part):
        own = slice(first, first + part)
        found += (sketch.weights[:, own].astype(kind) @ blocks[:, own].T.astype(kind)).astype(np.int64)
    return found


def secret_weights(params: RoundParameters, sketch: Sketch, terms_hash: bytes) -> Array:
    """W_g, uint32 `[16, L, N]`: Z_g of the products a_j s is W_g times the coefficients of s, in each field."""
    rows, degree = params.rows, params.ring.degree
    weights = sketch.weights.reshape(FUNCTIONALS_OF_COUNTS, degree, rows).astype(np.int32)
    return _secret_weights(params, common_of(params, terms_hash), jnp.asarray(np.moveaxis(weights, -1, 0)))


@functools.partial(jax.jit, static_argnums=0)
def _secret_weights(params: RoundParameters, a: Array, weights: Array) -> Array:
    """sum_j z_gj(1 / X) a_j, whose product with s has Z_g (a s) as its coefficient 0; then the weights of the coefficients of s in that."""
    moduli = params.ring.moduli
    q = modular.constants(moduli).q

    def turned(polynomial: Array) -> Array:  # p(1 / X) modulo X^N + 1
        return jnp.concatenate([polynomial[..., :1], -polynomial[..., :0:-1]], axis=-1)

    def add(total: Array, row: tuple[Array, Array]) -> tuple[Array, None]:
        own, signs = row
        product = multiply_rows(params, small_form(params, turned(signs)), own)
        return modular.add(total, product, q), None

    zero = jnp.zeros((FUNCTIONALS_OF_COUNTS, params.ring.limbs, params.ring.degree), jnp.uint32)
    total, _ = jax.lax.scan(add, zero, (a, weights))
    found = ntt.inverse(total, moduli)
    return jnp.concatenate([found[..., :1], modular.negate(found[..., :0:-1], q)], axis=-1)


def wide_weights(sketch: Sketch) -> np.ndarray | None:
    """The weights as float64, for `row_sums` of many clients; None where they would take more than 64 MB."""
    return sketch.weights.astype(np.float64) if sketch.weights.size <= 1 << 23 else None


def row_sums(params: RoundParameters, sketch: Sketch, rows: np.ndarray, wide: np.ndarray | None = None) -> np.ndarray:
    """Z_g c of rows uint32 `[R, L, N]` in NTT form: uint64 `[16, L]`, residues; `wide` are the functionals' `wide_weights`."""
    residues = np.asarray(_coefficients(params, jnp.asarray(rows)))
    found = np.zeros((FUNCTIONALS_OF_COUNTS, params.ring.limbs), np.int64)
    q = np.asarray(params.ring.moduli, np.int64)
    for first in range(0, residues.shape[1], _PART):  # |sum| < 2^31 2^16 < 2^53
        weights = _wide_part(sketch, wide, first)
        products = weights @ residues[:, first : first + _PART].T.astype(np.float64)
        found += products.astype(np.int64) % q
    return (found % q).astype(np.uint64)


@functools.partial(jax.jit, static_argnums=0)
def _coefficients(params: RoundParameters, rows: Array) -> Array:
    """uint32 `[L, N R]`: the coefficients of rows, coefficient p of row j at p R + j."""
    columns = jnp.moveaxis(rows, 0, -1)
    found = ntt.inverse_columns(columns, ntt.tables(params.ring.degree, params.ring.moduli))
    return found.reshape(params.ring.limbs, -1)
