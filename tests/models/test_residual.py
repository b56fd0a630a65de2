"""Residual networks: sizes of the known ones, independence of records, per-record gradients, options, refusals."""

from __future__ import annotations

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fedjax_poisson import models, trees


def size(model, side, channels):
    """Number of parameters; nothing is allocated or compiled."""
    example = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    shapes = jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0), example))
    assert all(leaf.dtype == jnp.float32 for leaf in shapes)
    return sum(leaf.size for leaf in shapes)


def shake(params, seed=0):
    """Parameters away from the start, where zero scales hide the blocks."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda a: a + jnp.asarray(0.3 * generator.normal(size=a.shape), jnp.float32), params)


def tiny(**options):
    return models.resnet(3, **{"stages": (1, 1), "width": 4, "small_images": True, **options})


def batch(n=4):
    generator = np.random.default_rng(1)
    x = jnp.asarray(generator.normal(size=(n, 8, 8, 1)), jnp.float32)
    return x, jnp.arange(n, dtype=jnp.int32) % 3


def bottleneck_count(stages, width, classes):
    """Parameters of a bottleneck network of RGB images, from the paper's table instead of the code."""
    total, inputs = 7 * 7 * 3 * width + 2 * width, width
    for stage, count in enumerate(stages):
        inner = width * 2**stage
        for index in range(count):
            total += inputs * inner + 9 * inner * inner + inner * 4 * inner + 2 * (inner + inner + 4 * inner)
            if index == 0:
                total += inputs * 4 * inner + 2 * 4 * inner
            inputs = 4 * inner
    return total + inputs * classes + classes


def test_resnet50_has_the_25_557_032_parameters_of_torchvisions():
    assert size(models.resnet50(), 224, 3) == 25_557_032 == bottleneck_count((3, 4, 6, 3), 64, 1000)
    assert size(models.resnet50(10, width=32), 64, 3) == bottleneck_count((3, 4, 6, 3), 32, 10)


def test_the_others_have_their_known_sizes():
    assert size(models.resnet18(), 224, 3) == 11_689_512
    small = size(models.resnet18(small_images=True), 32, 3)
    assert small == 11_689_512 - (49 - 9) * 3 * 64  # only the stem differs
    sizes = {width: size(models.small_resnet(width=width), 28, 1) for width in (8, 16, 32)}
    assert sizes == {8: 19_810, 16: 77_754, 32: 308_074}
    assert size(models.small_resnet(blocks=3), 28, 1) > 3 * sizes[16]


def test_records_do_not_see_one_another_and_their_gradients_add_up():
    model = tiny(stages=(1,))
    x, y = batch()
    params = shake(model.init(jax.random.key(0), x))
    layout = trees.layout(params)
    vectors = jnp.stack([trees.flatten(params), trees.flatten(shake(params, seed=1))])
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def clients(vectors, x):
        """Two clients with their own parameters: the sum's gradient and logits, and every record's gradient."""

        def summed(params, x, y):
            logits = model.apply(params, x)
            return models.softmax_cross_entropy(logits, y).sum(), logits

        def client(vector, x, y):
            params = layout.unflatten(vector)
            gradient, logits = jax.grad(summed, has_aux=True)(params, x, y)
            one = jax.vmap(lambda x, y: jax.grad(summed, has_aux=True)(params, x[None], y[None])[0])
            return trees.flatten(gradient), logits, jax.vmap(trees.flatten)(one(x, y))

        return jax.vmap(client)(vectors, x.reshape(2, 2, 8, 8, 1), y.reshape(2, 2))

    whole, logits, records = clients(vectors, x)
    np.testing.assert_allclose(records.sum(axis=1), whole, rtol=1e-3, atol=1e-4)
    assert logits.shape == (2, 2, 3) and logits.dtype == jnp.float32
    assert np.abs(whole[0] - whole[1]).max() > 1e-2
    _, changed, _ = clients(vectors, x.at[1::2].set(5.0 * x[1::2] + 3.0))
    np.testing.assert_array_equal(changed[:, 0], logits[:, 0])
    assert np.abs(changed[:, 1] - logits[:, 1]).max(axis=1).min() > 1e-2


@pytest.mark.parametrize("bottleneck", [False, True])
def test_the_network_is_the_papers_on_xlas_convolutions(bottleneck):
    model = tiny(small_images=False, bottleneck=bottleneck)
    x, _ = batch()
    params = shake(model.init(jax.random.key(0), x))

    def convolve(x, layer, stride=1):
        return lax.conv_general_dilated(
            x, layer["kernel"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def norm(x, layer, groups=2):
        g = x.reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
        g = (g - g.mean((1, 3), keepdims=True)) / jnp.sqrt(g.var((1, 3), keepdims=True) + jnp.float32(1e-5))
        return g.reshape(x.shape) * layer["scale"][None, None, None] + layer["bias"][None, None, None]

    @jax.jit
    def paper(params, x):
        x = jax.nn.relu(norm(convolve(x, params["stem"], 2), params["stem_norm"]))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for name, stride in (("stage0_block0", 1), ("stage1_block0", 2)):
            p, strides = params[name], (1, stride, 1) if bottleneck else (stride, 1)
            y = x
            for k, step in enumerate(strides):
                y = norm(convolve(y, p[f"conv{k}"], step), p[f"norm{k}"])
                y = y if k == len(strides) - 1 else jax.nn.relu(y)
            if "shortcut" in p:
                x = norm(convolve(x, p["shortcut"], stride), p["shortcut_norm"])
            x = jax.nn.relu(x + y)
        return x.mean((1, 2)) @ params["logits"]["kernel"] + params["logits"]["bias"][None]

    assert ("shortcut" in params["stage0_block0"]) == bottleneck and "shortcut" in params["stage1_block0"]
    np.testing.assert_allclose(model.apply(params, x), paper(params, x), rtol=1e-3, atol=1e-4)


def test_any_width_has_groups():
    def scales(width):
        model = models.resnet(2, stages=(1,), width=width, small_images=True)
        example = jax.ShapeDtypeStruct((1, 4, 4, 1), jnp.float32)
        return jax.eval_shape(model.init, jax.random.key(0), example)["stem_norm"]["scale"].shape

    assert [scales(width) for width in (1, 2, 5, 80, 96)] == [(1,), (2,), (5,), (80,), (96,)]


def test_zero_init_starts_every_block_as_its_shortcut():
    x, _ = batch()
    start, usual = (tiny(zero_init=zero, stages=(1,)) for zero in (True, False))
    params = start.init(jax.random.key(0), x)
    assert not params["stage0_block0"]["norm1"]["scale"].any() and params["stage0_block0"]["norm0"]["scale"].all()
    without = {
        **params,
        "stage0_block0": {**params["stage0_block0"], "conv1": {"kernel": jnp.ones((3, 3, 4, 4), jnp.float32)}},
    }
    np.testing.assert_array_equal(start.apply(params, x), start.apply(without, x))
    assert usual.init(jax.random.key(0), x)["stage0_block0"]["norm1"]["scale"].all()


def test_bfloat16_is_near_float32_with_the_large_stem():
    x, y = batch(8)
    full, low = (tiny(stages=(1,), small_images=False, dtype=dtype) for dtype in (jnp.float32, jnp.bfloat16))
    params = shake(full.init(jax.random.key(0), x))

    def logits_and_gradient(model):
        def summed(p):
            logits = model.apply(p, x)
            return models.softmax_cross_entropy(logits, y).sum(), logits

        return jax.jit(lambda p: jax.grad(summed, has_aux=True)(p))(params)

    (g, z), (g_low, z_low) = logits_and_gradient(full), logits_and_gradient(low)
    assert z_low.dtype == jnp.float32 and all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(g_low))
    g, g_low = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (g, g_low))
    assert 1e-5 < np.linalg.norm(z - z_low) / np.linalg.norm(z) < 0.03
    assert 1e-5 < np.linalg.norm(g_low - g) / np.linalg.norm(g) < 0.1


def test_a_binary_label_has_one_logit():
    model = models.small_resnet(2, width=4, binary=True)
    example, key = jax.ShapeDtypeStruct((3, 8, 8, 1), jnp.float32), jax.random.key(0)
    params = jax.eval_shape(model.init, key, example)
    assert jax.eval_shape(model.apply, params, example).shape == (3,)
    labels = jax.ShapeDtypeStruct((3,), jnp.float32)
    assert jax.eval_shape(model.loss, params, example, labels).shape == (3,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 3}, "groups=3 does not divide width=4; choose a divisor of 4"),
        ({"groups": 0}, "groups=0"),
        ({"stages": ()}, "at least one stage"),
        ({"stages": (1, 0)}, "at least one block"),
        ({"dtype": jnp.float16}, "float32 or bfloat16"),
        ({"binary": True}, "classes=3"),
    ],
)
def test_impossible_networks_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_images_too_small_for_the_strides_are_refused():
    example = jax.ShapeDtypeStruct((1, 28, 28, 3), jnp.float32)
    with pytest.raises(ValueError, match=r"images of 28x28 pixels are too small.*at least 32x32"):
        models.resnet50().init(jax.random.key(0), example)
    jax.eval_shape(models.resnet50(small_images=True).init, jax.random.key(0), example)
    with pytest.raises(ValueError, match=r"expected a batch \[B, H, W, C\]; add the channels"):
        models.small_resnet().init(jax.random.key(0), jnp.zeros((8, 28, 28), jnp.float32))
