"""The functionals of rows, seen by the client, by the members and by whoever has the rows: one identity, checked in big integers."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from fedjax_poisson.aggregation import row_sums, sketch
from fedjax_poisson.aggregation.rows import hash_words, small_form, words_stream
from fedjax_poisson.randomness import bits
from tests.aggregation import test_proof as proofs


@pytest.mark.parametrize("size", [proofs.ONE, proofs.SEVERAL, proofs.WIDE])
def test_row_sums_are_secret_errors_and_digits(size):
    params, x, drawn, digits, made, secret = proofs.honest(size)
    moduli, modulus = params.ring.moduli, params.ring.modulus
    fields, width = params.ring.values_per_coefficient, params.ring.field_bits
    (sums,) = row_sums.row_sums(params, row_sums.row_weights(params, drawn), [made])
    shown, noise = proofs.projected(size), []
    for g in range(16):
        residues = []
        for limb, q in enumerate(moduli):
            scale = pow(1 << fields * width, -1, q)
            encoded = -sum(int(d) << (b * width) for b, d in enumerate(digits[g])) * scale
            residues.append((int(sums[g, limb]) - int(shown[g, limb]) - encoded) % q)
        lifted = sum(r * (modulus // q) * pow(modulus // q, -1, q) for r, q in zip(residues, moduli, strict=True))
        noise.append(min(lifted % modulus, modulus - lifted % modulus))
        assert noise[-1] < 9 * (21 * params.rows * params.ring.degree / 2) ** 0.5
    assert sum(value > 0 for value in noise) > 10  # one alone is 0 once in 500
    del x, secret


def test_digits_are_exact_for_counts_of_any_size():
    params, x, drawn, _, _, _ = proofs.honest(proofs.ONE)
    behind = np.zeros(params.padded - x.size, np.int64)
    for factor in (1, 300, 20_000_000):
        counts = (np.sign(x) * np.minimum(np.abs(x).astype(np.int64) * factor, 2**31 - 1)).astype(np.int32)
        blocks = np.concatenate([counts.astype(np.int64), behind]).reshape(params.ring.values_per_coefficient, -1)
        expected = drawn.weights.astype(np.int64) @ blocks.T
        assert (sketch.digits_of(params, drawn, counts) == expected).all()


def test_products_of_functionals_are_exact():
    _, _, drawn, _, _, _ = proofs.honest(proofs.SEVERAL)
    wide = drawn.weights.astype(np.int64)
    assert (sketch.gram(drawn) == wide @ wide.T).all()
    full = sketch.Sketch(np.ones_like(drawn.weights))
    assert (sketch.gram(full) == drawn.weights.shape[1]).all()


def test_transforms_of_turned_functionals_are_those_of_their_polynomials():
    params, _, drawn, _, _, _ = proofs.honest(proofs.ONE)
    rows, degree = params.rows, params.ring.degree
    assert rows == 2
    grouped = np.asarray(sketch.by_rows(params, drawn, 3))
    assert (
        grouped.shape == (1, degree, 3, 16) and not grouped[:, :, 2].any()
    )  # a row of zeros stands behind the last one
    turned, plain = (jax.jit(functools.partial(each, params)) for each in (sketch.turned_form, small_form))
    forms = np.asarray(turned(grouped[0]))
    for g, row in ((0, 0), (15, 1)):
        z = drawn.weights[g, row::rows].astype(np.int32)
        assert (grouped[0, :, row, g] == z).all()
        own = np.concatenate([z[:1], -z[:0:-1]])
        assert (forms[:, :, row, g] == np.asarray(plain(own))).all()


def test_weights_have_their_law_and_hang_on_the_seed():
    params, _, drawn, _, _, _ = proofs.honest(proofs.SEVERAL)
    assert drawn.weights.shape == (16, params.rows * params.ring.degree)
    count = drawn.weights.size
    for value, share in ((0, 0.5), (1, 0.25), (-1, 0.25)):
        assert abs((drawn.weights == value).mean() - share) < 6 * (share / count) ** 0.5
    other = sketch.sketch_of(params, bytes([9]) * 32)
    assert abs((other.weights == drawn.weights).mean() - 0.375) < 6 * (0.25 / count) ** 0.5
    assert (sketch.sketch_of(params, proofs.SEED).weights == drawn.weights).all()


@pytest.mark.parametrize("size", [proofs.ONE, proofs.SEVERAL])
def test_weights_are_those_of_the_packages_own_stream_block_by_block(size):
    """Two implementations of RFC 8439; the package's gives the words of many blocks in planes."""
    params = proofs.parameters(size)
    count = params.rows * params.ring.degree  # a multiple of 256: whole blocks
    words = np.asarray(bits(words_stream(hash_words("sketch", proofs.SEED)), (16, count // 16))).T.reshape(16, -1)
    pairs = (words[..., None] >> np.arange(0, 32, 2, dtype=np.uint32)) & 3
    expected = np.asarray([0, 0, 1, -1], np.int8)[pairs.reshape(16, count)]
    assert (sketch.sketch_of(params, proofs.SEED).weights == expected).all()
