"""Sixteen functionals of all coefficients of a client's rows: what a norm proof speaks of, seen by the client, by the members and by whoever has the rows.

A seed that is drawn after the set D is signed gives weights Z_g, 0 half of the time, else +1 or -1, for the R N message coefficients. With
c_j = a_j s + e_j + encode(x)_j,

    Z_g c = W_g s + V_g,   V_g = Z_g e + encode(d_g),   d_gb = Z_g x over the fields b of the coefficients,

where W_g, a vector of N weights in each field, follows from Z and the public a. The server computes Z_g c from the rows (`row_sums`), a member W_g f(k) from
its share, the client d_g from its counts. Alone V_g would show d_g; only V_g - encode(d_g) is ever opened (`proof`).

Members and the server need the same transforms of Z, once a round: Z_gj c_j, a sum over coefficients, is coefficient 0 of z_gj(1 / X) c_j(X) in
Z[X]/(X^N + 1), that is the mean of the N values of that product in NTT form (*proved*: the sum of psi^((2k + 1) i) over k is 0 for 0 < i < N).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from jax import Array

from fedjax_poisson.aggregation.norm_bound import FUNCTIONALS_OF_COUNTS
from fedjax_poisson.aggregation.parameters import RoundParameters
from fedjax_poisson.aggregation.rows import common_of, hash_words
from fedjax_poisson.ckks import modular, ntt

__all__ = ["TOGETHER", "Sketch", "by_rows", "digits_of", "gram", "secret_weights", "sketch_of", "turned_form"]

_LINE = 4096  # coefficients whose products are added in float32; divides R N, or N does
_EXACT = 1 << 11  # of counts below this, such a sum is exact: 2^11 4096 < 2^24
_PART = 1 << 15  # coefficients of which there are float copies at a time: two MB of weights
TOGETHER = 2
"""Rows that are transformed side by side: 32 columns."""


class Sketch(NamedTuple):
    """The functionals of a seed.

    Attributes:
      weights: int8 `[16, R N]`; coefficient p of row j stands at p R + j, as values lie in a field (`ckks.packing`).
    """

    weights: np.ndarray


def sketch_of(params: RoundParameters, seed: bytes) -> Sketch:
    """The functionals of a seed of 32 bytes: two bits a weight of the ChaCha20 key stream (RFC 8439, counter and nonce 0) under their hash, in order.

    They are public and drawn on the host, where OpenSSL takes a quarter of the time of a compiled program.
    """
    count = params.rows * params.ring.degree
    key = hash_words("sketch", seed).astype("<u4").tobytes()
    lines = FUNCTIONALS_OF_COUNTS, -(-count // 16)
    drawn = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(4 * lines[0] * lines[1]))
    return Sketch(np.asarray(_weights(count, np.frombuffer(drawn, "<u4").astype(np.uint32, copy=False).reshape(lines))))


@functools.partial(jax.jit, static_argnums=0)
def _weights(count: int, drawn: Array) -> Array:
    """int8 `[16, count]` of words uint32 `[16, ..]`, the lowest bits first."""
    pairs = (drawn[..., None] >> jnp.arange(0, 32, 2, dtype=jnp.uint32)[None, None]) & jnp.uint32(3)
    flat = pairs.reshape(FUNCTIONALS_OF_COUNTS, -1)[:, :count].astype(jnp.int8)
    return jnp.where(flat == 2, jnp.int8(1), jnp.where(flat == 3, jnp.int8(-1), jnp.int8(0)))


def gram(sketch: Sketch) -> np.ndarray:
    """Products of the functionals with one another: float64 `[16, 16]`, exact: parts of 2^15 terms of size 1 are added in float32."""
    found = np.zeros((FUNCTIONALS_OF_COUNTS, FUNCTIONALS_OF_COUNTS))
    for first in range(0, sketch.weights.shape[1], _PART):
        part = sketch.weights[:, first : first + _PART].astype(np.float32)
        found += part @ part.T
    return found


def digits_of(params: RoundParameters, sketch: Sketch, counts: np.ndarray) -> np.ndarray:
    """d_gb of counts int32 `[D]`: int64 `[16, k]`, exact."""
    values = np.asarray(counts, np.int32)
    narrow = max(int(values.max(initial=0)), -int(values.min(initial=0))) < _EXACT
    missing = params.padded - values.size
    blocks = (np.pad(values, (0, missing)) if missing else values).reshape(params.ring.values_per_coefficient, -1)
    line, kind = (min(_LINE, params.ring.degree), np.float32) if narrow else (_PART, np.float64)
    count = min(_PART, blocks.shape[1])
    copies = [np.empty((len(x), count), kind) for x in (sketch.weights, blocks)]
    found = np.zeros((FUNCTIONALS_OF_COUNTS, blocks.shape[0]), np.int64)
    for first in range(0, blocks.shape[1], count):  # |sum| < 2^24 in a line, or < 2^31 2^15 < 2^53: exact
        last = min(first + count, blocks.shape[1])
        weights, own = (copy[:, : last - first] for copy in copies)
        weights[:], own[:] = sketch.weights[:, first:last], blocks[:, first:last]
        lines = -(-(last - first) // line)
        sums = np.matmul(
            weights.reshape(FUNCTIONALS_OF_COUNTS, lines, -1).swapaxes(0, 1),
            own.reshape(len(own), lines, -1).transpose(1, 2, 0),
        )
        found += sums.astype(np.int64).sum(axis=0)
    return found


def by_rows(params: RoundParameters, sketch: Sketch, together: int = TOGETHER) -> Array:
    """z_gj: int8 `[groups, N, rows of a group, 16]`, rows in order and zeros behind the last."""
    return _by_rows(params.rows, params.ring.degree, together, sketch.weights)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _by_rows(rows: int, degree: int, together: int, weights: Array) -> Array:
    own = jnp.moveaxis(weights.reshape(FUNCTIONALS_OF_COUNTS, degree, rows), 0, -1)
    groups = -(-rows // together)
    behind = jnp.pad(own, [(0, 0), (0, groups * together - rows), (0, 0)])
    return jnp.moveaxis(behind.reshape(degree, groups, together, FUNCTIONALS_OF_COUNTS), 1, 0)


def turned_form(params: RoundParameters, group: Array) -> Array:
    """The NTT form uint32 `[L, N, rows, 16]` of z_gj(1 / X) for one group of `by_rows`, the columns side by side.

    Turned here and not beforehand: XLA for CPUs would fuse the slice that a scan takes of its input into the first stage, which doubles the time.
    """
    moduli = params.ring.moduli
    q = modular.constants(moduli).q[..., None]
    columns = group.reshape(group.shape[0], -1)
    turned = jnp.concatenate([columns[:1], -columns[:0:-1]])  # p(1 / X) modulo X^N + 1
    table = ntt.tables(params.ring.degree, moduli)
    small = modular.from_signed(turned[None].astype(jnp.int32), q)
    return ntt.forward_columns(small, table, ntt.capacity(moduli)).reshape(params.ring.limbs, *group.shape)


def secret_weights(params: RoundParameters, sketch: Sketch, terms_hash: bytes) -> Array:
    """W_g, uint32 `[16, L, N]`: Z_g of the products a_j s is W_g times the coefficients of s, in each field."""
    return _secret_weights(params, common_of(params, terms_hash), by_rows(params, sketch))


@functools.partial(jax.jit, static_argnums=0)
def _secret_weights(params: RoundParameters, a: Array, weights: Array) -> Array:
    """sum_j z_gj(1 / X) a_j, whose product with s has Z_g (a s) as its coefficient 0; then the weights of the coefficients of s in that."""
    moduli = params.ring.moduli
    c = modular.constants(moduli)
    q, inverse = c.q[..., None], c.inverse[..., None]
    groups, degree, together, _ = weights.shape
    own = jnp.pad(a, [(0, groups * together - params.rows), (0, 0), (0, 0)])
    own = own.reshape(groups, together, params.ring.limbs, degree)

    def add(sum_: Array, group: tuple[Array, Array]) -> tuple[Array, None]:
        rows, signs = group
        form = turned_form(params, signs)
        factors = modular.montgomery(rows, jnp.asarray(c.r2), c.q, c.inverse)
        for i in range(together):
            product = modular.montgomery(form[:, :, i], factors[i][..., None], q, inverse)
            sum_ = modular.add(sum_, product, q)
        return sum_, None

    zero = jnp.zeros((params.ring.limbs, degree, FUNCTIONALS_OF_COUNTS), jnp.uint32)
    columns, _ = jax.lax.scan(add, zero, (own, weights))
    found = jnp.moveaxis(ntt.inverse_columns(columns, ntt.tables(degree, moduli)), -1, 0)
    return jnp.concatenate([found[..., :1], modular.negate(found[..., :0:-1], c.q)], axis=-1)
