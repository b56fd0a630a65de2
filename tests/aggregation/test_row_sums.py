"""The functionals of rows in NTT form, against big integers on the rows' coefficients, and the bound that makes float64 exact."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.aggregation import row_sums, sketch
from fedjax_poisson.ckks import ntt
from tests.aggregation import test_proof as proofs


def expected(params, drawn: sketch.Sketch, rows: np.ndarray) -> np.ndarray:
    """Z_g c as it is defined: uint64 `[16, L]`."""
    coefficients = np.asarray(ntt.inverse(jnp.asarray(rows), params.ring.moduli))
    flat = coefficients.transpose(1, 2, 0).reshape(params.ring.limbs, -1).astype(np.int64)
    found = drawn.weights.astype(np.int64) @ flat.T
    return (found % np.asarray(params.ring.moduli)).astype(np.uint64)


def extremes(params, count: int) -> list[np.ndarray]:
    """Uniform rows, rows of the largest residues, and of zeros."""
    rng = np.random.default_rng(1)
    shape = (params.rows, params.ring.degree)
    made = [np.stack([rng.integers(0, q, shape) for q in params.ring.moduli], axis=1) for _ in range(count)]
    made.append(np.stack([np.full(shape, q - 1) for q in params.ring.moduli], axis=1))
    return [one.astype(np.uint32) for one in (*made, np.zeros_like(made[0]))]


@pytest.mark.parametrize("size", [proofs.ONE, proofs.SEVERAL, proofs.WIDE])
@pytest.mark.parametrize("kept", [True, False])
def test_sums_of_many_clients_are_the_functionals_of_their_coefficients(monkeypatch, size, kept):
    params, _, drawn, _, made, _ = proofs.honest(size)
    if not kept:
        monkeypatch.setattr(row_sums, "_MOST_KEPT", 0)
    weights = row_sums.row_weights(params, drawn)
    assert np.shares_memory(weights(0), weights(0)) is kept
    clients = [made, *extremes(params, 2)]
    found = row_sums.row_sums(params, weights, clients)
    assert found.dtype == np.uint64 and found.shape == (5, 16, params.ring.limbs)
    for one, client in zip(found, clients, strict=True):
        assert (one == expected(params, drawn, client)).all()


@functools.cache
def prime_of(width: int) -> int:
    (q,) = ntt.primes_below(1 << width, 256, 1)
    assert q.bit_length() == width
    return q


@pytest.mark.parametrize("width", range(16, 32))
def test_no_sum_leaves_what_float64_holds_exactly(width):
    """At the largest weights and rows of every width: the proved bound, and the sums themselves."""
    q = prime_of(width)
    cut = row_sums.cut_of(q, q)
    largest = np.asarray([q // 2, -(q // 2), 1, -1], np.int32)
    weights = np.broadcast_to(largest.repeat(4), (512, 16))
    kept = np.asarray(row_sums._cut(jnp.asarray(weights)[None], (cut,)))[0]
    assert kept.dtype == (np.int16 if cut.shift else np.int32) and kept.shape == (512, 32 if cut.shift else 16)
    parts = kept.astype(np.float64)
    assert cut.terms >= 64 and cut.terms * float(np.abs(parts).max()) * (q - 1) <= 2.0**53
    whole = parts.astype(np.int64)
    if cut.shift:
        whole = whole[:, :16] + (whole[:, 16:] << cut.shift)
    assert (whole == weights).all()
    rows = np.full((2, 512), q - 1.0)
    rows[1, ::3] = 0
    found = row_sums._product(rows, parts, q, cut)
    exact = rows.astype(np.int64).astype(object) @ weights.astype(object)
    assert (found == exact % q).all()


def test_primes_of_one_round_are_cut_together():
    """A short prime beside a long one is cut too, and stays exact; alone it is whole."""
    short, long = prime_of(22), prime_of(31)
    assert row_sums.cut_of(short, short) == row_sums.Cut(0, 1 << 10)
    cuts = row_sums.cut_of(short, long), row_sums.cut_of(long, long)
    assert [cut.shift for cut in cuts] == [11, 16]
    weights = np.stack([np.full((512, 16), q // 2, np.int32) for q in (short, long)])
    for q, own, parts, cut in zip(
        (short, long), weights, np.asarray(row_sums._cut(jnp.asarray(weights), cuts)), cuts, strict=True
    ):
        rows = np.full((1, 512), q - 1.0)
        exact = (q - 1) * int(own[0, 0]) * 512 % q
        assert (row_sums._product(rows, parts.astype(np.float64), q, cut) == exact).all()


def test_twin_with_more_terms_than_the_bound_allows_digits_are_lost():
    q = prime_of(24)
    weights = np.full((4096, 16), (q // 2) - 1.0)
    rows = np.full((1, 4096), q - 2.0)
    exact = int(rows[0, 0]) * int(weights[0, 0]) * 4096 % q
    assert (row_sums._product(rows, weights, q, row_sums.cut_of(q, q)) == exact).all()
    assert (row_sums._product(rows, weights, q, row_sums.Cut(0, 4096)) != exact).any()


def test_batches_are_as_large_as_memory_allows():
    params = proofs.parameters(proofs.ONE)
    assert row_sums.clients_at_once(params) == 32
    huge = params._replace(rows=(1 << 28) // params.ring.degree // 3)
    assert row_sums.clients_at_once(huge) == 3
    assert row_sums.clients_at_once(params._replace(rows=1 << 20)) == 1
