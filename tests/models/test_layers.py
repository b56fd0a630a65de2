"""The flax face: parameters drawn at once have the declared law, flax's own layers read them, wrong sizes are refused."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson import models
from fedjax_poisson.models import layers


@pytest.mark.statistical
def test_kernels_have_the_stated_variance_and_differ():
    model = models.cnn(10, widths=(40, 60), dense=50)
    params = model.init(jax.random.key(5), jnp.zeros((1, 8, 8, 3), jnp.float32))
    kernels = {name: np.asarray(layer["kernel"], np.float64) for name, layer in params.items()}
    assert all(not layer["bias"].any() for layer in params.values())
    for name, kernel in kernels.items():
        gain, fan_in = 1.0 if name == "logits" else 2.0, np.prod(kernel.shape[:-1])

        def z(scale, kernel=kernel, fan_in=fan_in, gain=gain):
            return (scale * np.mean(kernel**2) * fan_in / gain - 1) / np.sqrt(2 / kernel.size)

        assert abs(z(1)) < 5 and abs(kernel.mean()) < 5 * kernel.std() / np.sqrt(kernel.size)
        assert abs(z(1 + 12 / np.sqrt(kernel.size / 2))) > 5  # the twin: a wrong scale is outside
    flat = np.concatenate([kernel.reshape(-1) for kernel in kernels.values()])
    assert np.unique(flat).size > 0.99 * flat.size  # no slice of the draw is used twice
    other = model.init(jax.random.key(6), jnp.zeros((1, 8, 8, 3), jnp.float32))
    assert not np.array_equal(other["conv0"]["kernel"], kernels["conv0"])


def test_the_network_is_flaxs_layers_on_the_same_parameters():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            for index, width in enumerate((3, 5)):
                x = nn.relu(nn.Conv(width, (3, 3), name=f"conv{index}")(x))
                x = nn.max_pool(x, (2, 2), (2, 2))
            x = nn.relu(nn.Dense(6, name="dense")(x.reshape(x.shape[0], -1)))
            return nn.Dense(4, name="logits")(x)

    model = models.cnn(4, widths=(3, 5), dense=6)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 9, 8, 2)), jnp.float32)
    params = model.init(jax.random.key(0), x)
    plain = Plain()
    expected = jax.tree.map(jnp.shape, jax.eval_shape(plain.init, jax.random.key(0), x)["params"])
    assert jax.tree.map(jnp.shape, params) == expected

    def total(apply, params):
        return jnp.sum(jnp.sin(apply(params, x)))

    @jax.jit
    def both(params):
        ours = jax.value_and_grad(lambda p: total(model.apply, p))(params)
        theirs = jax.value_and_grad(lambda p: total(lambda p, x: plain.apply({"params": p}, x), p))(params)
        return ours, theirs

    ours, theirs = both(params)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("classes", "binary"), [(1, False), (3, True)])
def test_impossible_classes_are_refused(classes, binary):
    with pytest.raises(ValueError, match=f"classes={classes}"):
        layers.outputs(classes, binary)
