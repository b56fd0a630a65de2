"""The convolutional network: the workload's model from arrays, learning, per-record and per-client gradients, refusals."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson import models, trees


def images(n=6, side=8, channels=1, seed=0):
    generator = np.random.default_rng(seed)
    return jnp.asarray(generator.normal(size=(n, side, side, channels)), jnp.float32)


def test_the_default_network_has_the_workloads_shapes_and_order():
    """421,642 weights, conv [kh, kw, in, out], dense [in, out], flattened in H, W, C order: arrays from elsewhere fit in."""
    model = models.cnn()
    example = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), example)
    generator = np.random.default_rng(7)
    sizes = {"conv0": (3, 3, 1, 32), "conv1": (3, 3, 32, 64), "dense": (7 * 7 * 64, 128), "logits": (128, 10)}
    params = {
        name: {
            "kernel": (generator.normal(size=size) * np.sqrt(2 / np.prod(size[:-1]))).astype(np.float32),
            "bias": generator.normal(size=size[-1]).astype(np.float32),
        }
        for name, size in sizes.items()
    }
    assert jax.tree.map(lambda a: (a.shape, a.dtype), params) == jax.tree.map(lambda a: (a.shape, a.dtype), shapes)
    assert trees.layout(params).size == 421_642

    x = np.asarray(images(1, 28)[0], np.float64)
    for name in ("conv0", "conv1"):
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        side = x.shape[0]
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        y = sum(padded[i : i + side, j : j + side] @ kernel[i, j] for i in range(3) for j in range(3)) + bias
        x = np.maximum(y, 0).reshape(side // 2, 2, side // 2, 2, -1).max(axis=(1, 3))
    hidden = np.maximum(x.reshape(-1) @ params["dense"]["kernel"] + params["dense"]["bias"], 0)
    expected = hidden @ params["logits"]["kernel"] + params["logits"]["bias"]
    np.testing.assert_allclose(model.apply(params, images(1, 28))[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("binary", [False, True])
def test_per_record_and_per_client_gradients_in_one_compile(binary):
    model = models.cnn(2 if binary else 3, widths=(4,), dense=6, binary=binary)
    x, y = images(), jnp.array([0, 1, 1, 0, 0, 1], jnp.int32)
    labels = y.astype(jnp.float32) if binary else y
    params = model.init(jax.random.key(0), x)
    layout = trees.layout(params)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))

    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def everything(params, clients):
        def record(x, y):
            return trees.flatten(jax.grad(lambda p: model.loss(p, x[None], y[None])[0])(params))

        def client(vector, x, y):
            return trees.flatten(jax.grad(lambda p: model.loss(p, x, y).mean())(layout.unflatten(vector)))

        whole = trees.flatten(jax.grad(lambda p: model.loss(p, x, labels).mean())(params))
        by_client = jax.vmap(client)(clients, x.reshape(2, 3, 8, 8, 1), labels.reshape(2, 3))
        return model.apply(params, x), model.loss(params, x, labels), whole, jax.vmap(record)(x, labels), by_client

    for _ in range(2):
        clients = jnp.stack([trees.flatten(params)] * 2)
        logits, losses, whole, records, by_client = everything(params, clients)
    assert logits.shape == ((6,) if binary else (6, 3)) and losses.shape == (6,)
    assert logits.dtype == losses.dtype == jnp.float32
    np.testing.assert_allclose(records.mean(axis=0), whole, atol=1e-6)
    np.testing.assert_allclose(by_client, records.reshape(2, 3, -1).mean(axis=1), atol=1e-6)


def test_bfloat16_is_near_float32_with_float32_parameters_gradients_and_logits():
    x, y = images(16), jnp.arange(16, dtype=jnp.int32) % 3
    full, low = (models.cnn(3, widths=(8,), dense=16, dtype=dtype) for dtype in (jnp.float32, jnp.bfloat16))
    params = full.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, params, low.init(jax.random.key(0), x))

    def both(model):
        def mean(p):
            logits = model.apply(p, x)
            return models.softmax_cross_entropy(logits, y).mean(), logits

        return jax.jit(lambda p: jax.grad(mean, has_aux=True)(p))(params)

    (g, z), (g_low, z_low) = both(full), both(low)
    assert z_low.dtype == jnp.float32 and all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(g_low))
    g, g_low = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (g, g_low))
    assert 1e-5 < np.linalg.norm(z - z_low) / np.linalg.norm(z) < 0.02
    assert 1e-5 < np.linalg.norm(g - g_low) / np.linalg.norm(g) < 0.04


def test_it_learns_where_a_bright_square_lies():
    generator = np.random.default_rng(3)
    y = generator.integers(0, 4, 256)
    x = generator.normal(size=(256, 8, 8, 1)).astype(np.float32)
    for image, label in zip(x, y, strict=True):
        row, column = 4 * (label // 2) + generator.integers(0, 3), 4 * (label % 2) + generator.integers(0, 3)
        image[row : row + 2, column : column + 2] += 3
    x, y = jnp.asarray(x), jnp.asarray(y, jnp.int32)
    model = models.cnn(4, widths=(4,), dense=16)
    params = model.init(jax.random.key(0), x)

    @jax.jit
    def step(params):
        gradient = jax.grad(lambda p: model.loss(p, x[:192], y[:192]).mean())(params)
        return jax.tree.map(lambda p, g: p - 0.3 * g, params, gradient)

    for _ in range(100):
        params = step(params)
    assert (jnp.argmax(model.apply(params, x[192:]), axis=1) == y[192:]).mean() > 0.85


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((4, 28, 28), jnp.float32, r"\(4, 28, 28\); expected a batch \[B, H, W, C\]; add the channels"),
        ((4, 3, 28, 1), jnp.float32, "images of 3x28 pixels are too small.*at least 4x4"),
        ((4, 28, 28, 1), jnp.uint8, "images are uint8; expected floats"),
    ],
)
def test_what_is_no_image_is_refused(shape, dtype, message):
    model = models.cnn()
    for call in (
        lambda: model.init(jax.random.key(0), jnp.zeros(shape, dtype)),
        lambda: model.apply({}, jnp.zeros(shape, dtype)),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("options", [{"widths": ()}, {"widths": (8, 0)}, {"dense": 0}, {"dtype": jnp.float16}])
def test_impossible_networks_are_refused(options):
    with pytest.raises(ValueError, match=r"at least one convolution|float32 or bfloat16"):
        models.cnn(10, **options)
