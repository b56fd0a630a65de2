"""Patch convolution and pooling against XLA's and flax's own, values and gradients; bfloat16 factors; refusals."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fedjax_poisson import models
from fedjax_poisson.models import convolution


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def compare(ours, theirs, *arguments, tolerance=1e-4):
    """Values and all gradients under one random cotangent, compiled together to save time."""

    def both(function, *arguments):
        value, pull = jax.vjp(function, *arguments)
        return value, pull(jnp.asarray(np.random.default_rng(9).normal(size=value.shape), value.dtype))

    ours_out, theirs_out = jax.jit(lambda *a: (both(ours, *a), both(theirs, *a)))(*arguments)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), ours_out) == jax.tree.map(
        lambda a: (a.shape, a.dtype), theirs_out
    )
    for a, b in zip(jax.tree.leaves(ours_out), jax.tree.leaves(theirs_out), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("window", [1, 3, 7])
def test_convolution_and_its_gradients_are_xlas(window, padding):
    x, kernel = draw(2, 9, 8, 2), draw(window, window, 2, 3, seed=1)

    def ours(x, kernel):
        return [models.convolve(x, kernel, s, padding) for s in (1, (2, 2))]

    def theirs(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        steps = ((1, 1), (2, 2))
        return [lax.conv_general_dilated(x, kernel, s, padding, dimension_numbers=numbers) for s in steps]

    def flat(f):
        return lambda *a: jnp.concatenate([y.reshape(-1) for y in f(*a)])

    shapes = jax.eval_shape(ours, x, kernel), jax.eval_shape(theirs, x, kernel)
    assert [y.shape for y in shapes[0]] == [y.shape for y in shapes[1]]
    compare(flat(ours), flat(theirs), x, kernel)


def test_it_is_flax_conv_under_vmap_over_clients_own_kernels():
    x, kernel, bias = draw(3, 2, 7, 5, 2), draw(3, 3, 3, 2, 4, seed=1), draw(3, 4, seed=2)
    layer = nn.Conv(4, (3, 3), strides=(2, 2))

    def ours(x, kernel, bias):
        return models.convolve(x, kernel, 2) + bias[None, None, None, :]

    def theirs(x, kernel, bias):
        return layer.apply({"params": {"kernel": kernel, "bias": bias}}, x)

    compare(jax.vmap(ours), jax.vmap(theirs), x, kernel, bias)


def test_forward_mode_works_in_float32():
    x, kernel = draw(1, 5, 5, 1), draw(3, 3, 1, 2)
    _, tangent = jax.jvp(lambda k: models.convolve(x, k), (kernel,), (kernel,))
    np.testing.assert_allclose(tangent, models.convolve(x, kernel), rtol=1e-6)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_pooling_and_its_gradients_are_flaxs(padding):
    x = draw(2, 8, 7, 3)
    cases = [((2, 2), None), ((3, 3), None), ((3, 3), (2, 2)), ((2, 3), (1, 2))]

    def ours(x):
        pools = [pool(x, w, s, padding) for w, s in cases for pool in (models.max_pool, models.average_pool)]
        return jnp.concatenate([y.reshape(-1) for y in pools])

    def theirs(x):
        kept = []
        for window, strides in cases:
            step = window if strides is None else strides
            kept.append(nn.max_pool(x, window, step, padding))
            kept.append(nn.avg_pool(x, window, step, padding, count_include_pad=False))
        return jnp.concatenate([y.reshape(-1) for y in kept])

    compare(ours, theirs, x, tolerance=1e-5)


def test_ties_share_the_gradient_of_the_largest_entry():
    gradient = jax.grad(lambda x: models.max_pool(x).sum())(jnp.zeros((1, 2, 2, 1), jnp.float32))
    np.testing.assert_array_equal(gradient, np.full((1, 2, 2, 1), 0.25))


def test_bfloat16_rounds_the_factors_and_sums_in_float32():
    x, kernel = draw(2, 6, 6, 8), draw(3, 3, 8, 5, seed=1)

    def value_and_gradients(dtype, x, kernel):
        out, pull = jax.vjp(lambda x, k: models.convolve(x, k, 1, "SAME", dtype), x, kernel)
        return out, *pull(draw(*out.shape, seed=2))

    low = jax.jit(lambda x, k: value_and_gradients(jnp.bfloat16, x, k))(x, kernel)
    full = jax.jit(lambda x, k: value_and_gradients(jnp.float32, x, k))
    assert all(a.dtype == jnp.float32 for a in low)

    def rounded(a):
        return a.astype(jnp.bfloat16).astype(jnp.float32)

    # With factors that are bfloat16 numbers already, both agree to float32 precision: nothing but the factors is rounded.
    again = jax.jit(lambda x, k: value_and_gradients(jnp.bfloat16, x, k))(rounded(x), rounded(kernel))
    np.testing.assert_array_equal(low[0], again[0])
    np.testing.assert_allclose(low[0], full(rounded(x), rounded(kernel))[0], rtol=1e-5, atol=1e-5)
    for a, b in zip(low, full(x, kernel), strict=True):
        error = np.linalg.norm(a - b) / np.linalg.norm(b)
        assert 1e-4 < error < 1e-2  # really rounded (2**-9 a factor), and no worse


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_of_gradients_exist(dtype):
    """Inversion attacks differentiate a gradient by the image. This one is quadratic in the image, so Euler's rule holds."""
    x, kernel = draw(1, 4, 4, 1), draw(3, 3, 1, 1, seed=1)

    def gradient(x):
        return jax.grad(lambda k: jnp.sum(jnp.square(models.convolve(x, k, 1, "SAME", dtype))) / 2)(kernel)

    value, slope = jax.jit(lambda x: (jnp.sum(gradient(x)), jax.grad(lambda x: jnp.sum(gradient(x)))(x)))(x)
    np.testing.assert_allclose(jnp.sum(slope * x), 2 * value, rtol=0.05, atol=0.05)


def test_long_sums_are_not_bfloat16():
    ones, count = jnp.ones((1, 40, 40, 1), jnp.float32), 40 * 40
    kernel = jnp.ones((1, 1, 1, 1), jnp.float32)
    gradient = jax.grad(lambda k: models.convolve(ones, k, 1, "SAME", jnp.bfloat16).sum())(kernel)
    assert gradient.item() == count  # a bfloat16 sum would stop at 256


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: models.convolve(draw(8, 8, 1), draw(3, 3, 1, 2)),
            r"\(8, 8, 1\); expected a batch \[B, H, W, C\]; add",
        ),
        (lambda: models.convolve(draw(1, 8, 8, 3), draw(3, 3, 1, 2)), r"images of 3 channels need \[kh, kw, 3, O\]"),
        (lambda: models.convolve(draw(1, 8, 8, 1), draw(3, 1, 2)), r"the kernel has shape \(3, 1, 2\)"),
        (lambda: models.convolve(draw(1, 2, 8, 1), draw(3, 3, 1, 2), 1, "VALID"), "window of 3 does not fit into 2"),
        (lambda: models.convolve(draw(1, 8, 8, 1), draw(3, 3, 1, 2), 0), "strides is 0"),
        (lambda: models.convolve(draw(1, 8, 8, 1), draw(3, 3, 1, 2), 1, "same"), "padding is 'same'"),
        (lambda: models.convolve(draw(1, 8, 8, 1), draw(3, 3, 1, 2), dtype=jnp.float16), "float32 or bfloat16"),
        (lambda: models.max_pool(jnp.zeros((1, 8, 8, 1), jnp.uint8)), r"images are uint8; expected floats"),
        (lambda: models.average_pool(draw(1, 8, 1, 1)), "window of 2 does not fit into 1"),
        (lambda: models.max_pool(draw(1, 8, 8, 1), (2, 2, 2)), "window is"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_patches_lie_in_the_order_of_a_kernel():
    x = draw(1, 5, 4, 2)
    rows = convolution.patches(x, (3, 2), padding="VALID")
    assert rows.shape == (1, 3, 3, 12)
    np.testing.assert_array_equal(rows[0, 1, 2], x[0, 1:4, 2:4].reshape(-1))
