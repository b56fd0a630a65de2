"""A user's flax module becomes a model: the same outputs, float32 parameters drawn from the key, no state between records."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fedjax_poisson import models


class Net(nn.Module):
    outputs: int
    batch_norm: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(8)(x))
        if self.batch_norm:
            x = nn.BatchNorm(use_running_average=False)(x)
        return nn.Dense(self.outputs)(x)


class NewNet(nnx.Module):
    def __init__(self, outputs, *, rngs, batch_norm=False, dropout=0.0):
        self.first = nnx.Linear(5, 8, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs) if batch_norm else None
        self.second = nnx.Linear(8, outputs, rngs=rngs)

    def __call__(self, x):
        x = self.dropout(nnx.relu(self.first(x)))
        return self.second(x if self.norm is None else self.norm(x))


X = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
LABELS = {
    "softmax": (3, np.array([0, 1, 2, 0, 1, 2], np.int32)),
    "binary": (1, np.array([0, 1, 0, 1, 1, 0], np.float32)),
    "squared": (1, np.linspace(-1, 1, 6, dtype=np.float32)),
    "sigmoid": (3, np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]]),
}


@pytest.mark.parametrize("loss", list(LABELS))
@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_outputs_are_the_modules_and_there_is_one_loss_a_record(kind, loss):
    outputs, y = LABELS[loss]
    make = Net(outputs) if kind == "linen" else lambda rngs: NewNet(outputs, rngs=rngs, dropout=0.5)
    model = models.from_flax(make, loss)
    params = model.init(jax.random.key(1), jnp.asarray(X))
    got = model.apply(params, jnp.asarray(X))
    if kind == "linen":
        want = make.apply({"params": params}, X)
    else:
        module = make(nnx.Rngs(jax.random.key(1)))
        module.eval()
        want = module(jnp.asarray(X))
    np.testing.assert_allclose(got, want[:, 0] if outputs == 1 else want, rtol=1e-6)
    losses = model.loss(params, jnp.asarray(X), jnp.asarray(y))
    assert losses.shape == (6,) and losses.dtype == jnp.float32
    # Another key draws other parameters; a record's loss is its own.
    other = model.init(jax.random.key(2), jnp.asarray(X))
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(other), strict=True))
    np.testing.assert_allclose(model.loss(params, jnp.asarray(X[:1]), jnp.asarray(y[:1])), losses[:1], rtol=1e-5)
    assert model.binary == (loss == "binary")
    gradient = jax.jit(jax.vmap(jax.grad(lambda p, a, b: model.loss(p, a[None], b[None])[0]), (None, 0, 0)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(params, X, y)))


def test_losses_are_those_of_the_textbook():
    logits, y = np.array([[0.3, -1.2], [2.0, 0.1]]), np.array([[1, 0], [0, 1]])
    p = 1 / (1 + np.exp(-logits))
    want = -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(axis=1)
    np.testing.assert_allclose(models.sigmoid_cross_entropy(jnp.float32(logits), jnp.float32(y)), want, rtol=1e-6)
    np.testing.assert_allclose(models.squared_error(jnp.float32([1, 3]), jnp.float32([0, 5])), [0.5, 2])
    np.testing.assert_allclose(models.squared_error(jnp.float32([[1, 3]]), jnp.float32([[0, 5]])), [2.5])
    with pytest.raises(ValueError, match="must be the same"):
        models.squared_error(jnp.zeros((2, 1)), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"both are \[B, labels\]"):
        models.sigmoid_cross_entropy(jnp.zeros((2, 3)), jnp.zeros(2))
    with pytest.raises(ValueError, match="loss='hinge' is unknown"):
        models.with_loss(None, None, loss="hinge")


def test_state_between_records_is_refused():
    key, x = jax.random.key(0), jnp.asarray(X)
    with pytest.raises(ValueError, match=r"batch_stats.*GroupNorm"):
        models.from_flax(Net(3, batch_norm=True), "softmax").init(key, x)
    with pytest.raises(ValueError, match=r"BatchStat.*GroupNorm"):
        models.from_flax(lambda rngs: NewNet(3, rngs=rngs, batch_norm=True), "softmax").init(key, x)
    with pytest.raises(TypeError, match="was made already"):
        models.from_flax(NewNet(3, rngs=nnx.Rngs(0)), "softmax")
    with pytest.raises(TypeError, match="module is a int"):
        models.from_flax(3, "softmax")
    half = nn.Dense(3, param_dtype=jnp.bfloat16, dtype=jnp.float32)
    with pytest.raises(ValueError, match="not float32"):
        models.from_flax(half, "softmax").init(key, x)
