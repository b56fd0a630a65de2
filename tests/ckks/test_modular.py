from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_poisson.ckks import modular

MODULI = (3, 5, 12289, 40961, (1 << 28) - 57, (1 << 30) - 35, (1 << 31) - 1)  # odd suffices for the arithmetic
COLUMN = modular.constants(MODULI)
TOP = (1 << 32) - 1


def spread(rng: np.random.Generator, q: int, bound: int) -> np.ndarray:
    """Values of [0, bound): the ends, the neighbours of multiples of q, and random ones."""
    special = [0, 1, q - 1, q, q + 1, 2 * q - 1, bound - 1, bound - 2, bound // 2]
    values = [v for v in special if 0 <= v < bound] + list(rng.integers(0, bound, 64, dtype=np.uint64))
    return np.resize(np.asarray(values, np.uint64), 73)


def rows(bound_of) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    values = np.stack([spread(rng, q, bound_of(q)) for q in MODULI])
    return values.astype(object), jnp.asarray(values.astype(np.uint32))


def column(values) -> np.ndarray:
    return np.asarray(values, dtype=object)[:, None]


Q = column(MODULI)


def grid(bound_a, bound_b):
    a, a_dev = rows(bound_a)
    b, b_dev = rows(bound_b)
    shift = np.roll(b, 11, axis=1)
    return a, shift, a_dev, jnp.roll(b_dev, 11, axis=1)


def test_ring_operations_against_python_integers():
    a, b, a_dev, b_dev = grid(lambda q: q, lambda q: q)
    assert np.array_equal(np.asarray(modular.add(a_dev, b_dev, COLUMN.q)), (a + b) % Q)
    assert np.array_equal(np.asarray(modular.subtract(a_dev, b_dev, COLUMN.q)), (a - b) % Q)
    assert np.array_equal(np.asarray(modular.negate(a_dev, COLUMN.q)), -a % Q)
    assert np.array_equal(np.asarray(modular.multiply(a_dev, b_dev, COLUMN)), a * b % Q)


def test_montgomery_takes_any_word_times_a_residue():
    a, b, a_dev, b_dev = grid(lambda q: 1 << 32, lambda q: q)
    inverse_r = column([pow(1 << 32, -1, q) for q in MODULI])
    assert np.array_equal(np.asarray(modular.montgomery(a_dev, b_dev, COLUMN.q, COLUMN.inverse)), a * b * inverse_r % Q)


def test_shoup_product_of_any_word_is_lazy_and_right():
    a, w, a_dev, _ = grid(lambda q: 1 << 32, lambda q: q)
    factors = w.astype(np.uint32)
    product = np.asarray(
        modular.multiply_shoup(a_dev, factors, modular.shoup_quotient(factors, COLUMN.q), COLUMN.q)
    ).astype(object)
    assert (product < 2 * Q).all()
    assert np.array_equal(product % Q, a * w % Q)


def test_reductions_keep_their_ranges():
    a, a_dev = rows(lambda q: 1 << 32)
    reduced = np.asarray(modular.barrett(a_dev, COLUMN.q, COLUMN.ratio)).astype(object)
    assert (reduced < 2 * Q).all()
    assert np.array_equal(reduced % Q, a % Q)
    b, b_dev = rows(lambda q: 2 * q)
    assert np.array_equal(np.asarray(modular.reduce_once(b_dev, COLUMN.q)), b % Q)


def test_signed_values_go_there_and_back():
    half = np.asarray([[(q - 1) // 2] for q in MODULI], np.int64)
    values = np.concatenate([-half, -np.ones_like(half), 0 * half, np.ones_like(half), half], axis=1)
    residues = modular.from_signed(jnp.asarray(values, jnp.int32), COLUMN.q)
    assert np.array_equal(np.asarray(residues).astype(object), values.astype(object) % Q)
    assert np.array_equal(np.asarray(modular.centre(residues, COLUMN.q)), values)


@given(st.integers(0, TOP), st.integers(0, TOP), st.sampled_from(MODULI))
def test_products_on_arbitrary_words(a, b, q):
    c = modular.constants((q,))
    b = b % q
    quotient = modular.shoup_quotient(np.uint32(b), np.uint32(q))
    x = jnp.asarray([[a]], jnp.uint32)
    lazy = int(modular.multiply_shoup(x, np.uint32(b)[None, None], quotient[None, None], c.q)[0, 0])
    assert lazy < 2 * q
    assert lazy % q == a * b % q
    exact = int(modular.multiply(jnp.asarray([[a % q]], jnp.uint32), jnp.asarray([[b]], jnp.uint32), c)[0, 0])
    assert exact == a % q * b % q


@pytest.mark.parametrize("q", [4, 2, 1, 0, 1 << 31, (1 << 31) + 11])
def test_moduli_outside_the_range_are_refused(q):
    with pytest.raises(ValueError, match="odd"):
        modular.constants((q,))


def test_a_wrong_quotient_breaks_the_product():
    """The twin: with a quotient that is two too small the lazy range is left."""
    q = np.uint32(MODULI[-1])
    w = np.uint32(q - 1)
    wrong = modular.shoup_quotient(w, q) - np.uint32(2)
    product = modular.multiply_shoup(jnp.asarray([TOP], jnp.uint32), w[None], wrong[None], q[None])
    assert int(product[0]) >= 2 * int(q) or int(product[0]) % int(q) != TOP * int(w) % int(q)
