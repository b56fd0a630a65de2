"""The losses: closed forms, extreme logits, labels that fit no class, and what importing the models loads."""

from __future__ import annotations

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from fedjax_poisson import models


def test_extreme_logits_stay_finite_and_exact():
    z = jnp.array([-1e4, -60.0, 0.0, 60.0, 1e4], jnp.float32)
    zeros, ones = jnp.zeros(5, jnp.int32), jnp.ones(5, jnp.float32)
    np.testing.assert_allclose(models.binary_cross_entropy(z, zeros), [0, np.exp(-60), np.log(2), 60, 1e4], rtol=1e-6)
    np.testing.assert_allclose(models.binary_cross_entropy(z, ones), [1e4, 60, np.log(2), np.exp(-60), 0], rtol=1e-6)


def test_softmax_loss_and_gradient_are_the_textbook_ones():
    generator = np.random.default_rng(0)
    z, y = generator.normal(size=(6, 4)) * 3, np.array([0, 1, 2, 3, 3, 0], np.int32)
    logits, labels = jnp.asarray(z, jnp.float32), jnp.asarray(y)
    expected = special.logsumexp(z, axis=1) - z[np.arange(6), y]
    loss, pull = jax.vjp(lambda z: jax.jit(models.softmax_cross_entropy)(z, labels), logits)
    assert loss.shape == (6,) and loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    (gradient,) = pull(jnp.ones(6, jnp.float32))
    np.testing.assert_allclose(gradient, special.softmax(z, axis=1) - np.eye(4)[y], atol=1e-6)


def test_softmax_loss_of_two_classes_is_the_binary_loss():
    z = jnp.array([-1e4, -60.0, -20.0, 0.0, 60.0, 1e4], jnp.float32)
    y = jnp.array([0, 0, 0, 1, 1, 0], jnp.int32)
    two = jnp.stack([jnp.zeros_like(z), z], axis=1)
    loss = jax.jit(models.softmax_cross_entropy)
    np.testing.assert_allclose(loss(two, y), models.binary_cross_entropy(z, y), rtol=1e-6)
    # Right and sure: the loss keeps its digits, where logsumexp(z) - z_y gives 0 or a multiple of 4e-6.
    sure = jnp.array([[60.0, 20.0, 20.0]], jnp.float32)
    np.testing.assert_allclose(loss(sure, jnp.zeros(1, jnp.int32)), 2 * np.exp(-40), rtol=1e-5)


def test_a_label_of_no_class_is_nan_and_moves_nothing():
    z, y = jnp.ones((3, 2), jnp.float32), jnp.array([0, 2, -1], jnp.int32)
    losses, pull = jax.vjp(jax.jit(lambda z: models.softmax_cross_entropy(z, y)), z)
    np.testing.assert_array_equal(np.isnan(losses), [False, True, True])
    (gradient,) = pull(jnp.ones(3, jnp.float32))
    np.testing.assert_allclose(gradient, [[-0.5, 0.5], [0, 0], [0, 0]], atol=1e-6)


def test_labels_and_logits_that_do_not_fit_are_refused():
    z = jnp.zeros((3, 4), jnp.float32)
    with pytest.raises(TypeError, match=r"labels are float32.*y.astype\(int32\).*binary=True"):
        models.softmax_cross_entropy(z, jnp.zeros(3, jnp.float32))
    for logits, labels in ((z, 4), (z[:, :1], 3), (z[0], 4)):
        with pytest.raises(ValueError, match="at least two classes"):
            models.softmax_cross_entropy(logits, jnp.zeros(labels, jnp.int32))


def test_flax_is_loaded_when_a_vision_model_is_first_used():
    code = """
import sys
from fedjax_poisson import models
assert "flax" not in sys.modules and "cnn" in dir(models)
assert callable(models.cnn) and callable(models.resnet) and "flax" in sys.modules
from fedjax_poisson.models import resnet18, resnet50, small_resnet
try:
    models.transformer
except AttributeError as error:
    assert "transformer" in str(error)
else:
    raise AssertionError("an unknown name was found")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "model",
    [
        models.logistic(),
        models.linear(3),
        models.mlp((4, 2)),
        models.cnn(3, widths=(2, 3), dtype=jnp.bfloat16),
        models.small_resnet(2, width=4, binary=True),
        models.scattering(2, binary=True),
    ],
)
def test_a_recipe_makes_the_model_again(model):
    name, arguments = json.loads(json.dumps(model.recipe))
    again = getattr(models, name)(**dict(arguments))
    assert again.recipe == model.recipe and hash(again.recipe) == hash(model.recipe) and again.binary == model.binary
    x = jnp.ones((1, 32, 32, 1)) if model.recipe[0] in ("cnn", "small_resnet", "scattering") else jnp.ones((1, 5))
    got, want = (jax.eval_shape(lambda m=m: m.init(jax.random.key(0), x)) for m in (again, model))
    assert got == want
