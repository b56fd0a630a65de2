"""The functionals Z_g c of many clients' rows, for the server of a norm round: exact, without transforming any client's rows back.

Functionals are linear, so they are moved to where the rows are, in NTT form, once a round: Z_g c is a sum over all values of the rows, modulo each prime, with
weights that are the transforms of z_gj(1 / X) over N (`sketch`). What is left for each client is a product of a matrix by its rows, and of many clients at once
one of two matrices, in float64.

Exact (*proved*): weights are at most 2^(b - 1) in size, rows below q < 2^b, so a product is below 2^(2b - 1) and a sum of 2^(54 - 2b) of them below 2^53:
every partial sum, in any order, is an integer that float64 has. Where that is fewer than 64 terms (b > 24), a weight is cut in two, w = high 2^s + low with
s = b / 2 rounded up: low lies in [-2^(s - 1), 2^(s - 1)) and high, a floor of (w + 2^(s - 1)) / 2^s, is at most 2^(b - 1 - s) <= 2^(s - 1) in size, which
leaves 2^(54 - s - b) terms, 128 or more for b <= 31, and fits 16 bits. Sums of such sums are taken as int64. All primes of a round are cut, or none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.aggregation.norm_bound import FUNCTIONALS_OF_COUNTS
from fedjax_poisson.aggregation.parameters import RoundParameters
from fedjax_poisson.aggregation.sketch import TOGETHER, Sketch, by_rows, turned_form
from fedjax_poisson.ckks import modular, ntt

__all__ = ["Cut", "RowWeights", "clients_at_once", "cut_of", "row_sums", "row_weights"]

_FEWEST_BITS = 6  # 64 terms
_MOST_KEPT = 1 << 28  # bytes of weights that are kept from batch to batch
_MOST_ROWS = 1 << 30  # bytes of rows that one batch may hold
_MOST_CLIENTS = 32

RowWeights = Callable[[int], np.ndarray]
"""Number of a group of rows (`sketch.by_rows`) to its weights, int32 `[L, rows of the group, N, 16]`, or cut: int16 `[.., 32]`, low parts before high ones."""


class Cut(NamedTuple):
    """How weights modulo one prime are cut.

    Attributes:
      shift: bits of the low part; 0 where weights are whole.
      terms: products that are added in float64, a power of two.
    """

    shift: int
    terms: int


def cut_of(q: int, largest: int) -> Cut:
    """The cut for a prime q of a round whose largest prime is below 2^31 (module docstring)."""
    width = q.bit_length()
    if 54 - 2 * largest.bit_length() >= _FEWEST_BITS:
        return Cut(0, 1 << (54 - 2 * width))
    shift = -(-width // 2)
    return Cut(shift, 1 << (54 - shift - width))


def row_weights(params: RoundParameters, sketch: Sketch) -> RowWeights:
    """The weights of a round; kept where they take at most 256 MB, else made again for every batch of clients."""
    functionals = by_rows(params, sketch)

    def group(number: int) -> np.ndarray:
        return np.asarray(_cut_form(params, functionals[number]))

    if 4 * functionals.size * params.ring.limbs > _MOST_KEPT:
        return group
    first = group(0)
    kept = np.empty(
        (len(functionals), *first.shape), first.dtype
    )  # one array: so much memory in pieces is slow to touch
    for number in range(len(functionals)):
        kept[number] = group(number)
    return kept.__getitem__


@functools.partial(jax.jit, static_argnums=0)
def _cut_form(params: RoundParameters, group: Array) -> Array:
    """The weights of a group, as `RowWeights` has them."""
    form = jnp.swapaxes(_centred_form(params, group), 1, 2)
    return _cut(form, _cuts(params))


def _cuts(params: RoundParameters) -> tuple[Cut, ...]:
    return tuple(cut_of(q, max(params.ring.moduli)) for q in params.ring.moduli)


def _cut(weights: Array, cuts: tuple[Cut, ...]) -> Array:
    """Weights int32 `[L, .., 16]` whole, or as low parts before high ones, int16 `[L, .., 32]`."""
    if not cuts[0].shift:
        return weights
    shifts = np.asarray([cut.shift for cut in cuts], np.int32).reshape(-1, *[1] * (weights.ndim - 1))
    high = (weights + (1 << (shifts - 1))) >> shifts
    return jnp.concatenate([weights - (high << shifts), high], axis=-1).astype(jnp.int16)


@functools.partial(jax.jit, static_argnums=0)
def _centred_form(params: RoundParameters, group: Array) -> Array:
    """int32 `[L, N, rows, 16]` in (-q/2, q/2]: the transforms over N."""
    moduli = params.ring.moduli
    q = modular.constants(moduli).q[..., None, None]
    table = ntt.tables(params.ring.degree, moduli)
    scale, quotient = table.degree_inverse[..., None, None], table.degree_inverse_quotient[..., None, None]
    form = modular.multiply_shoup(turned_form(params, group), scale, quotient, q)
    return modular.centre(modular.reduce_once(form, q), q)


def clients_at_once(params: RoundParameters) -> int:
    """Clients of one batch: up to 32, while their rows fit into a GiB."""
    own = 4 * params.rows * params.ring.limbs * params.ring.degree
    return max(1, min(_MOST_CLIENTS, _MOST_ROWS // own))


def row_sums(params: RoundParameters, weights: RowWeights, rows: Sequence[np.ndarray]) -> np.ndarray:
    """Z_g c of some clients' rows, uint32 `[R, L, N]` each in NTT form: uint64 `[clients, 16, L]`, residues."""
    found = np.zeros((len(rows), FUNCTIONALS_OF_COUNTS, params.ring.limbs), np.int64)
    own, cuts = np.empty((len(rows), params.ring.degree)), _cuts(params)
    for first in range(0, params.rows, TOGETHER):
        group = weights(first // TOGETHER)
        for limb, q in enumerate(params.ring.moduli):
            for row in range(first, min(first + TOGETHER, params.rows)):
                for line, client in zip(own, rows, strict=True):
                    line[:] = client[row, limb]
                found[:, :, limb] += _product(own, group[limb, row - first].astype(np.float64), q, cuts[limb])
    return (found % np.asarray(params.ring.moduli)).astype(np.uint64)


def _product(rows: np.ndarray, weights: np.ndarray, q: int, cut: Cut) -> np.ndarray:
    """Sums over N of rows float64 `[clients, N]` times weights float64 `[N, 16 or 32]` modulo q: int64 `[clients, 16]`, exact."""
    terms = min(cut.terms, rows.shape[1])
    parts = np.matmul(rows.reshape(len(rows), -1, terms).swapaxes(0, 1), weights.reshape(-1, terms, weights.shape[1]))
    sums: np.ndarray = parts.astype(np.int64).sum(axis=0) % q
    if not cut.shift:
        return sums
    low, high = np.split(sums, 2, axis=1)
    return (low + (high << cut.shift)) % q  # below 2^31 + 2^46
