from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_poisson.ckks import modular, ntt
from tests.ckks.core import evaluations, negacyclic, random_residues

CASES = [(8, 31, 2), (16, 31, 3), (32, 30, 3), (64, 29, 3), (64, 28, 2), (64, 20, 2), (128, 16, 2), (2, 12, 1)]


@pytest.mark.parametrize(("degree", "bits", "limbs"), CASES)
@pytest.mark.parametrize("radix", [1, 3])
def test_forward_is_evaluation_at_odd_powers_in_bit_reversed_order(degree, bits, limbs, radix):
    moduli = ntt.primes_below(1 << bits, degree, limbs)
    x = random_residues(np.random.default_rng(degree + bits), moduli, (2, degree))
    y = np.asarray(ntt.forward(jnp.asarray(x), moduli, radix=radix))
    for row in range(2):
        for limb, q in enumerate(moduli):
            assert list(y[row, limb]) == evaluations([int(v) for v in x[row, limb]], q)
    assert np.array_equal(np.asarray(ntt.inverse(jnp.asarray(y), moduli, radix=radix)), x)


@pytest.mark.parametrize("radix", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("bits", [31, 28])
def test_every_radix_and_layout_gives_the_same_bits(radix, bits):
    moduli = ntt.primes_below(1 << bits, 256, 2)
    x = jnp.asarray(random_residues(np.random.default_rng(1), moduli, (3, 256)))
    expected = ntt.forward(x, moduli)
    assert np.array_equal(np.asarray(ntt.forward(x, moduli, radix=radix)), np.asarray(expected))
    table, capacity = ntt.tables(256, moduli), ntt.capacity(moduli)
    columns = jax.jit(lambda v: ntt.forward_columns(v, table, capacity, radix=radix))(jnp.moveaxis(x, 0, -1))
    assert np.array_equal(np.asarray(jnp.moveaxis(columns, -1, 0)), np.asarray(expected))
    back = jax.jit(lambda v: ntt.inverse_columns(v, table, radix=radix))(columns)
    assert np.array_equal(np.asarray(jnp.moveaxis(back, -1, 0)), np.asarray(x))


@pytest.mark.parametrize("bits", [31, 30, 29])
def test_the_largest_residues_everywhere_do_not_overflow(bits):
    moduli = ntt.primes_below(1 << bits, 1024, 3)
    x = jnp.asarray(np.broadcast_to(np.asarray(moduli, np.uint32)[:, None] - np.uint32(1), (3, 1024)))
    y = ntt.forward(x, moduli)
    assert (np.asarray(y) < np.asarray(moduli)[:, None]).all()
    assert np.array_equal(np.asarray(ntt.inverse(y, moduli)), np.asarray(x))


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_products_of_values_are_negacyclic_products(seed):
    moduli = ntt.primes_below(1 << 31, 16, 2)
    rng = np.random.default_rng(seed)
    a, b = (random_residues(rng, moduli, (16,)) for _ in range(2))
    c = modular.constants(moduli)
    product = modular.multiply(ntt.forward(jnp.asarray(a), moduli), ntt.forward(jnp.asarray(b), moduli), c)
    result = np.asarray(ntt.inverse(product, moduli))
    for limb, q in enumerate(moduli):
        assert list(result[limb]) == negacyclic([int(v) for v in a[limb]], [int(v) for v in b[limb]], q)


def test_jit_vmap_and_scan_give_the_same_bits():
    moduli = ntt.primes_below(1 << 30, 64, 3)
    x = jnp.asarray(random_residues(np.random.default_rng(2), moduli, (4, 64)))
    expected = np.asarray(ntt.forward(x, moduli))
    assert np.array_equal(np.asarray(jax.jit(lambda v: ntt.forward(v, moduli))(x)), expected)
    assert np.array_equal(np.asarray(jax.vmap(lambda v: ntt.forward(v, moduli))(x)), expected)
    assert np.array_equal(np.asarray(jax.lax.scan(lambda c, v: (c, ntt.forward(v, moduli)), 0, x)[1]), expected)


def test_the_minimal_root_is_minimal_and_primitive():
    for degree, q in ((64, 12289), (128, 40961), (256, 12289)):
        root = ntt.minimal_root(q, degree)
        assert root == min(x for x in range(2, q) if pow(x, degree, q) == q - 1)


def test_primes():
    sieve = [n for n in range(2, 2000) if all(n % d for d in range(2, int(n**0.5) + 1))]
    assert [n for n in range(2000) if ntt.is_prime(n)] == sieve
    assert not ntt.is_prime(3215031751)  # a strong pseudoprime to bases 2, 3, 5, 7
    found = ntt.primes_below(1 << 30, 8192, 5)
    assert len(found) == 5 and list(found) == sorted(found, reverse=True)
    assert all(ntt.is_prime(q) and q % 16384 == 1 and q < 1 << 30 for q in found)
    assert ntt.primes_below(1 << 14, 8192, 3) == ()


def test_wrong_inputs_are_refused():
    with pytest.raises(ValueError, match="limbs"):
        ntt.forward(jnp.zeros((2, 64), jnp.uint32), ntt.primes_below(1 << 28, 64, 3))
    with pytest.raises(ValueError, match="power of two"):
        ntt.tables(48, (97,))
    with pytest.raises(ValueError, match="prime"):
        ntt.minimal_root(129 * 3, 64)
