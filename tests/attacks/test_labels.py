"""Labels from the gradients of the output bias: exact, and as counts of a batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.attacks import (
    gradients_of,
    labels,
)
from fedjax_poisson.models import Model
from tests.attacks.helpers import images
from tests.attacks.test_inversion import MODEL, PARAMS


def test_output_bias_is_found_by_what_it_does():
    classes = 3

    def apply(params, x):
        return x @ params["w"] + params["z"][None] + jnp.float32(2) * params["a"][None]

    def loss(params, x, y):
        return -jnp.take_along_axis(jax.nn.log_softmax(apply(params, x)), y[:, None], axis=1)[:, 0]

    def init(key, x):
        return {"a": jnp.zeros(classes), "w": jax.random.normal(key, (4, classes)), "z": jnp.zeros(classes)}

    model = Model(init, apply, loss)
    params = init(jax.random.key(0), None)
    where = labels.output_bias(model, params, jnp.ones((1, 4)))
    assert (where.start, where.stop) == (3 + 12, 3 + 12 + 3)  # not "a", which counts twice
    x = jax.random.normal(jax.random.key(1), (8, 1, 4))
    y = jnp.asarray([0, 1, 2, 2, 1, 0, 1, 2])[:, None]
    gradients = gradients_of(model, params, x, y)
    np.testing.assert_array_equal(labels.recover_labels(gradients, where), y[:, 0])
    mean = np.asarray(jax.nn.softmax(apply(params, x[:, 0])).mean(0))
    counts = labels.recover_label_counts(gradients.sum(0), where, 8, mean)
    np.testing.assert_array_equal(counts, [2, 3, 3])
    without = Model(init, lambda p, x: x @ p["w"], loss)
    with pytest.raises(ValueError, match="output layer with a bias"):
        labels.output_bias(without, params, jnp.ones((1, 4)))


def test_binary_label_counts_with_the_attackers_own_data():
    """The attacker's probabilities come from other pictures than the batch's: off by little, the counts are right."""
    batch = jnp.asarray(images(6, seed=20))
    y = jnp.asarray([1, 1, 0, 1, 0, 0], jnp.float32)
    gradient = gradients_of(MODEL, PARAMS, batch[None], y[None])[0]
    own = jax.nn.sigmoid(MODEL.apply(PARAMS, jnp.asarray(images(40, seed=21)))).mean()
    where = labels.output_bias(MODEL, PARAMS, batch[:1])
    np.testing.assert_array_equal(labels.recover_label_counts(gradient, where, 6, np.asarray([own])), [3, 3])
