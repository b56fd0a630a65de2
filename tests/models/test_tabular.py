"""Tabular models: closed forms, gradients against NumPy, and learning on the shipped records."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from fedjax_poisson import models

MODELS = {"logistic": models.logistic(), "mlp": models.mlp((8, 4))}


def batch(n=32, width=5, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, width)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray((x[:, 0] - x[:, 1] > 0).astype(np.int32))


@pytest.mark.parametrize("name", MODELS)
def test_shapes_and_dtypes_are_kept_under_jit_and_vmap(name):
    model = MODELS[name]
    x, y = batch()
    params = model.init(jax.random.key(0), x)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    for function in (model.apply, jax.jit(model.apply)):
        assert function(params, x).shape == (32,) and function(params, x).dtype == jnp.float32
    losses = jax.jit(model.loss)(params, x, y)
    assert losses.shape == (32,) and losses.dtype == jnp.float32
    per_record = jax.vmap(lambda x, y: model.loss(params, x[None], y[None])[0])(x, y)
    np.testing.assert_allclose(per_record, losses, rtol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_is_the_bernoulli_log_likelihood(name):
    model = MODELS[name]
    x, y = batch()
    params = jax.tree.map(lambda leaf: leaf + jnp.float32(0.1), model.init(jax.random.key(1), x))
    probability = special.expit(np.asarray(model.apply(params, x), np.float64))
    expected = -np.log(np.where(np.asarray(y) == 1, probability, 1 - probability))
    np.testing.assert_allclose(model.loss(params, x, y), expected, rtol=1e-5)


def test_logistic_starts_at_zero_and_its_gradient_is_the_textbook_one():
    model = models.logistic()
    x, y = batch()
    params = model.init(jax.random.key(0), x)
    assert all(not leaf.any() for leaf in jax.tree.leaves(params))
    params = {"weight": jnp.linspace(-1.0, 1.0, 5), "bias": jnp.float32(0.3)}
    gradient = jax.grad(lambda p: model.loss(p, x, y).mean())(params)
    residual = special.expit(np.asarray(x) @ np.linspace(-1, 1, 5) + 0.3) - np.asarray(y)
    np.testing.assert_allclose(gradient["weight"], residual @ np.asarray(x) / 32, atol=1e-6)
    np.testing.assert_allclose(gradient["bias"], residual.mean(), atol=1e-6)


def test_mlp_is_the_function_it_says():
    model = models.mlp((8, 4))
    x, _ = batch()
    params = model.init(jax.random.key(3), x)
    h = np.asarray(x, np.float64)
    for k, layer in enumerate(params["layers"]):
        h = h @ np.asarray(layer["weight"], np.float64) + np.asarray(layer["bias"], np.float64)
        h = np.maximum(h, 0) if k < 2 else h
    np.testing.assert_allclose(model.apply(params, x), h[:, 0], rtol=1e-5, atol=1e-6)
    assert [layer["weight"].shape for layer in params["layers"]] == [(5, 8), (8, 4), (4, 1)]


@pytest.mark.statistical
def test_mlp_weights_have_the_stated_variance():
    model = models.mlp((400, 300))
    params = model.init(jax.random.key(5), jnp.zeros((1, 200), jnp.float32))
    for layer, gain in zip(params["layers"][:2], (2.0, 2.0), strict=True):
        fan_in, count = layer["weight"].shape[0], layer["weight"].size
        z = (np.var(np.asarray(layer["weight"])) * fan_in / gain - 1) / np.sqrt(2 / count)
        assert abs(z) < 5
        # The twin: 5 % off in variance is far outside.
        assert abs((1.05 * np.var(np.asarray(layer["weight"])) * fan_in / gain - 1) / np.sqrt(2 / count)) > 5


@pytest.mark.parametrize("name", MODELS)
def test_models_learn_a_line(name):
    model = MODELS[name]
    x, y = batch(512)
    params = model.init(jax.random.key(0), x)

    @jax.jit
    def step(params):
        gradient = jax.grad(lambda p: model.loss(p, x, y).mean())(params)
        return jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)

    for _ in range(300):
        params = step(params)
    assert ((model.apply(params, x) > 0) == (y > 0)).mean() > 0.97


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_that_is_not_a_table_is_refused(name):
    with pytest.raises(ValueError, match=r"\(4, 8, 8, 1\).*expects a batch \[B, F\]"):
        MODELS[name].init(jax.random.key(0), jnp.zeros((4, 8, 8, 1), jnp.float32))


@pytest.mark.parametrize("hidden", [(), (8, 0)])
def test_impossible_widths_are_refused(hidden):
    with pytest.raises(ValueError, match="expected at least one width"):
        models.mlp(hidden)
