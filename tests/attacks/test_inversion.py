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


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="parameters: expected"):
        invert(MODEL, PARAMS, jnp.zeros((2, 3)), jnp.zeros((2, 1)), (16, 16, 1), jax.random.key(0))
    with pytest.raises(ValueError, match="at least 1"):
        InversionConfig(steps=0)
    assert trees.layout(PARAMS).size == _single_gradients().shape[1]
