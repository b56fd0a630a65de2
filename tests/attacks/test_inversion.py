"""Labels and images from gradients; noise takes them away; each attack says what it needs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson import trees
from fedjax_poisson.attacks import (
    InversionConfig,
    best_match,
    gradients_of,
    invert,
    labels,
    random_baseline,
    score_images,
)
from fedjax_poisson.models import Model
from tests.attacks.helpers import conv_model, images

MODEL, PICTURES = conv_model(), images(4)
PARAMS = MODEL.init(jax.random.key(0), jnp.asarray(PICTURES[:1]))
TRUTH = jnp.asarray([0, 1, 1, 0], jnp.float32)
CONFIG = InversionConfig(steps=200)


def _single_gradients():
    return gradients_of(MODEL, PARAMS, jnp.asarray(PICTURES)[:, None], TRUTH[:, None])


def test_labels_and_images_of_single_records_are_recovered():
    gradients = _single_gradients()
    found = labels.recover_labels(gradients, labels.output_bias(MODEL, PARAMS, jnp.asarray(PICTURES[:1])))
    np.testing.assert_array_equal(found, TRUTH)
    got = invert(MODEL, PARAMS, gradients, found[:, None].astype(jnp.float32), (16, 16, 1), jax.random.key(1), CONFIG)
    assert got.images.shape == (4, 1, 16, 16, 1) and (got.images >= 0).all() and (got.images <= 1).all()
    undefended = score_images(got.images[:, 0], PICTURES)
    assert (undefended.psnr >= 20).all() and "parameters" in got.needs and got.try_next

    # Clipped to length 1, with noise as at epsilon 8 (multiplier 0.64): no better than pictures drawn at random.
    clipped = gradients / jnp.linalg.norm(gradients, axis=1, keepdims=True)
    noise = np.random.default_rng(0).normal(0, 0.64, gradients.shape)
    noisy = clipped + jnp.asarray(noise, jnp.float32)
    defended = invert(MODEL, PARAMS, noisy, TRUTH[:, None], (16, 16, 1), jax.random.key(1), CONFIG)
    scores = score_images(defended.images[:, 0], PICTURES)
    _, chance = random_baseline(PICTURES, images(20, seed=5), 1, jax.random.key(2))
    assert scores.psnr.max() < 15 and np.median(scores.ssim) <= np.median(chance.ssim) + 0.05


def test_a_batch_of_two_is_inverted_together():
    pairs = jnp.asarray(PICTURES).reshape(2, 2, 16, 16, 1)
    gradients = gradients_of(MODEL, PARAMS, pairs, TRUTH.reshape(2, 2))
    config = InversionConfig(steps=200, restarts=2)
    got = invert(MODEL, PARAMS, gradients, TRUTH.reshape(2, 2), (16, 16, 1), jax.random.key(4), config)
    assert got.images.shape == (2, 2, 16, 16, 1) and (got.spread >= 0).all()
    _, chance = random_baseline(PICTURES, images(20, seed=5), 2, jax.random.key(2))
    for found, originals in zip(got.images, np.asarray(pairs), strict=True):
        # Two images share one gradient: one of them comes out, the other is the rest.
        assert score_images(found[best_match(found, originals)], originals).psnr.max() > chance.psnr.max() + 2


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


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="parameters: expected"):
        invert(MODEL, PARAMS, jnp.zeros((2, 3)), jnp.zeros((2, 1)), (16, 16, 1), jax.random.key(0))
    with pytest.raises(ValueError, match="at least 1"):
        InversionConfig(steps=0)
    assert trees.layout(PARAMS).size == _single_gradients().shape[1]
