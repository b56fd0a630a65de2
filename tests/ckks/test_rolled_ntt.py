from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.ckks import ntt, rolled_ntt
from tests.ckks.core import evaluations, random_residues

CASES = [(2, 12, 1), (4, 12, 1), (8, 31, 2), (32, 30, 3), (64, 28, 2)]  # odd and even numbers of stages


@pytest.mark.parametrize(("degree", "bits", "limbs"), CASES)
def test_the_loop_evaluates_at_odd_powers_in_bit_reversed_order_and_back(degree, bits, limbs):
    moduli = ntt.primes_below(1 << bits, degree, limbs)
    x = random_residues(np.random.default_rng(degree), moduli, (2, degree))
    y = np.asarray(ntt.forward(jnp.asarray(x), moduli, radix=ntt.ROLLED))
    for row in range(2):
        for limb, q in enumerate(moduli):
            assert list(y[row, limb]) == evaluations([int(v) for v in x[row, limb]], q)
    assert np.array_equal(np.asarray(ntt.inverse(jnp.asarray(y), moduli, radix=ntt.ROLLED)), x)


@pytest.mark.parametrize("bits", [31, 29])
def test_the_largest_residues_and_many_columns_give_the_bits_of_the_written_out_stages(bits):
    moduli = ntt.primes_below(1 << bits, 512, 3)
    table, capacity = ntt.tables(512, moduli), ntt.capacity(moduli)
    q = np.asarray(moduli, np.uint32)[:, None, None]
    x = np.broadcast_to(q - np.uint32(1), (2, 3, 512, 5)).copy()
    x[1] = np.moveaxis(random_residues(np.random.default_rng(1), moduli, (5, 512)), 0, -1)
    written = ntt.forward_columns(jnp.asarray(x), table, capacity, radix=1)
    rolled = jax.jit(lambda v: ntt.forward_columns(v, table, capacity, radix=ntt.ROLLED))(x)
    assert np.array_equal(np.asarray(rolled), np.asarray(written))
    back = jax.jit(lambda v: ntt.inverse_columns(v, table, radix=ntt.ROLLED))(rolled)
    assert np.array_equal(np.asarray(back), x)


def test_the_factors_of_a_stage_are_in_the_order_of_its_places():
    """The twin: with the factors of the written-out stages, each repeated for its group, the values would be others."""
    moduli = ntt.primes_below(1 << 20, 16, 1)
    table = ntt.tables(16, moduli)
    x = random_residues(np.random.default_rng(3), moduli, (16,))[..., None]
    found = rolled_ntt.forward_stages(jnp.asarray(x), table.roots, table.roots_quotient, table.q)
    assert np.array_equal(np.asarray(found)[..., 0], np.asarray(ntt.forward(jnp.asarray(x[..., 0]), moduli, radix=1)))
    turned = [np.roll(each, 1, axis=-1) for each in (table.roots, table.roots_quotient)]
    other = rolled_ntt.forward_stages(jnp.asarray(x), turned[0], turned[1], table.q)
    assert not np.array_equal(np.asarray(other), np.asarray(found))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_an_accelerator_gets_the_loop(platform):
    """Eleven stages written out are eleven products by roots; a GPU gets three of them, two in a loop and the odd one, a TPU one."""
    moduli = ntt.primes_below(1 << 30, 2048, 1)
    x = jnp.zeros((1, 2048), jnp.uint32)

    def products(radix: int | None) -> int:
        program = jax.jit(lambda v: ntt.forward(v, moduli, radix=radix))
        return program.trace(x).lower(lowering_platforms=(platform,)).as_text().count("multiply")

    assert 4 * products(None) < 2 * products(1)
    assert products(None) == products(ntt.ROLLED)
