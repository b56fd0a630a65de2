"""Upper halves of products against Python's integers, whichever way this jax takes them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.randomness.wide import mulhi, upper_product

_EDGES = [0, 1, 2, 0xFFFF, 0x10000, 0x10001, 0x7FFFFFFF, 0x80000000, 0xFFFF0000, 0xFFFFFFFE, 0xFFFFFFFF]


@pytest.mark.parametrize("upper", [mulhi, upper_product], ids=["mulhi", "upper_product"])
def test_every_pair_of_edges_and_many_others(upper):
    drawn = np.random.default_rng(5).integers(0, 1 << 32, 500, dtype=np.uint32)
    values = np.concatenate([np.array(_EDGES, np.uint32), drawn])
    a, b = (part.ravel() for part in np.meshgrid(values, values))
    exact = ((a.astype(np.uint64) * b.astype(np.uint64)) >> np.uint64(32)).astype(np.uint32)
    found = jax.jit(upper)(jnp.asarray(a), jnp.asarray(b))
    assert found.dtype == jnp.uint32
    np.testing.assert_array_equal(np.asarray(found), exact)


def test_an_older_jax_takes_the_plain_operations():
    assert mulhi is getattr(jax.lax, "mulhi", upper_product)
