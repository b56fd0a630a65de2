"""Trees as vectors: back again in the same order, as float32."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from fedjax_poisson import trees

TREE = {"b": jnp.arange(6, dtype=jnp.float32).reshape(2, 3), "a": (jnp.full((), 9.0), jnp.zeros((0, 4)))}


def test_a_tree_comes_back_from_its_vector():
    vector, layout = trees.flatten(TREE), trees.layout(TREE)
    assert vector.shape == (layout.size,) == (7,) and vector.dtype == jnp.float32
    np.testing.assert_array_equal(vector, [9, 0, 1, 2, 3, 4, 5])  # in tree order, each leaf row by row
    again = layout.unflatten(vector)
    assert again["b"].shape == (2, 3) and again["a"][1].shape == (0, 4)
    np.testing.assert_array_equal(again["b"], TREE["b"])


def test_other_precisions_become_float32():
    assert trees.flatten({"w": jnp.ones(3, jnp.bfloat16)}).dtype == jnp.float32
