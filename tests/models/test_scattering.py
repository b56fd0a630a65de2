"""Scattering features: against loops in NumPy, what they ignore and what they keep, and the linear model on them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson import models
from fedjax_poisson.models.scattering import feature_count, morlet, scattering_features


def pictures(n=4, side=16, channels=1, seed=0):
    """Smooth random pictures in [0, 1], float32 `[n, side, side, channels]`."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=(n, side, side, channels))
    for axis in (1, 2):
        noise = noise + np.roll(noise, 1, axis) + np.roll(noise, 2, axis)
    low, high = noise.min(axis=(1, 2, 3), keepdims=True), noise.max(axis=(1, 2, 3), keepdims=True)
    return jnp.asarray((noise - low) / (high - low), jnp.float32)


def stripes(period, angle, side=32):
    """One picture of a wave, `[1, side, side, 1]`."""
    y, x = np.mgrid[:side, :side]
    wave = np.cos(2 * np.pi / period * (x * np.cos(angle) + y * np.sin(angle)))
    return jnp.asarray(0.5 + 0.4 * wave, jnp.float32)[None, ..., None]


def test_wavelets_ignore_a_constant_and_answer_to_their_own_angle_and_scale():
    found = morlet(48, 40, scales=2, angles=8)
    assert found.shape == (2, 8, 48, 40) and found.dtype == np.float32
    np.testing.assert_allclose(found[..., 0, 0], 0, atol=1e-7)
    down, across = np.meshgrid(2 * np.pi * np.fft.fftfreq(48), 2 * np.pi * np.fft.fftfreq(40), indexing="ij")
    for scale, number in np.ndindex(2, 8):
        at = np.unravel_index(found[scale, number].argmax(), (48, 40))
        centre, angle = 0.75 * np.pi / 2**scale, np.pi * number / 8
        assert abs(across[at] - centre * np.cos(angle)) < 0.2 and abs(down[at] - centre * np.sin(angle)) < 0.2


def test_the_first_orders_are_convolutions_written_out():
    """Every path of a picture by direct sums over the mirrored picture, no Fourier transform of the picture and no batching."""
    side, scales, angles, margin = 8, 1, 2, 2
    x = pictures(1, side)
    mirrored = np.pad(np.asarray(x[0, :, :, 0], np.float64), margin, mode="symmetric")
    whole = side + 2 * margin
    y, z = np.mgrid[:whole, :whole]
    spread = 0.8  # of the averaging, at one scale
    low = sum(
        np.exp(-((np.arange(whole) + k * whole - whole * (np.arange(whole) > whole // 2)) ** 2) / (2 * spread**2))
        for k in (-1, 0, 1)
    )
    low /= low.sum()
    wavelets = np.fft.ifft2(morlet(whole, whole, scales, angles)[0])

    def convolved(kernel, plane):
        return np.array(
            [[(kernel[(i - y) % whole, (j - z) % whole] * plane).sum() for j in range(whole)] for i in range(whole)]
        )

    def kept(plane):
        smooth = convolved(np.outer(low, low), plane).real
        half = (smooth + np.roll(smooth, 1, 0)) / 2
        quarter = (half + np.roll(half, 1, 1)) / 2
        return quarter[margin + 1 : whole - margin : 2, margin + 1 : whole - margin : 2]

    bands = [kept(mirrored)[None], np.stack([kept(abs(convolved(wavelet, mirrored))) for wavelet in wavelets])]
    expected = []
    for band in bands:
        centred = band.reshape(-1) - band.mean()
        expected.append(centred / np.sqrt((centred**2).sum() + 1e-6) / np.sqrt(2))
    found = scattering_features(x, scales=scales, angles=angles)
    np.testing.assert_allclose(found[0], np.concatenate(expected), atol=2e-4)


@pytest.mark.parametrize(
    ("shape", "scales", "angles"), [((28, 28, 1), 2, 8), ((17, 30, 3), 2, 4), ((16, 16, 1), 3, 2), ((4, 4, 1), 2, 8)]
)
def test_the_count_of_features_is_the_one_announced(shape, scales, angles):
    example = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    found = jax.eval_shape(lambda x: scattering_features(x, scales=scales, angles=angles), example)
    assert found.shape == (2, feature_count(*shape, scales=scales, angles=angles))
    assert found.dtype == jnp.float32
    assert feature_count(28, 28) == 3969


def test_every_record_has_norm_one_and_depends_on_itself_alone():
    x = pictures(5)
    together = jax.jit(scattering_features)(x)
    norms = np.asarray(jnp.linalg.norm(together, axis=1))
    assert (norms <= 1.00001).all() and (norms > 0.999).all()
    for i in range(5):
        np.testing.assert_allclose(scattering_features(x[i : i + 1])[0], together[i], atol=1e-5)


def test_exposure_and_contrast_cancel_and_a_small_shift_costs_little():
    x = pictures(3, 28)
    plain = scattering_features(x)
    np.testing.assert_allclose(scattering_features(0.3 * x + 0.4), plain, atol=2e-3)
    # The picture itself moves by far more than its description.
    shifted = jnp.roll(x, 1, axis=2)
    moved = jnp.linalg.norm(scattering_features(shifted) - plain, axis=1)
    centred = x - x.mean(axis=(1, 2, 3), keepdims=True)
    own = jnp.linalg.norm((shifted - x).reshape(3, -1), axis=1) / jnp.linalg.norm(centred.reshape(3, -1), axis=1)
    assert (moved < 0.7 * own).all(), (moved, own)


def test_waves_of_other_angles_and_periods_are_told_apart():
    across, down, fine = (scattering_features(stripes(*wave)) for wave in ((8, 0), (8, np.pi / 2), (3, 0)))
    again = scattering_features(stripes(8, 0))
    assert jnp.linalg.norm(across - again) < 1e-5
    assert jnp.linalg.norm(across - down) > 0.5 and jnp.linalg.norm(across - fine) > 0.5


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_constant_picture_has_no_features_and_a_finite_gradient(level):
    x = jnp.full((1, 16, 16, 1), level, jnp.float32)
    np.testing.assert_allclose(scattering_features(x), 0, atol=2e-3)
    assert np.isfinite(jax.grad(lambda x: jnp.sum(scattering_features(x) ** 2))(x)).all()


@pytest.mark.parametrize(("classes", "binary"), [(2, True), (3, False)])
def test_the_model_is_its_head_on_its_features_and_its_gradient_is_bounded(classes, binary):
    model = models.scattering(classes, angles=4, binary=binary)
    x = pictures(6)
    y = jnp.arange(6, dtype=jnp.int32) % classes
    features = model.fixed(x)
    params = model.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, model.head.init(jax.random.key(0), features))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(params))
    params = jax.tree.map(lambda leaf: leaf + jnp.linspace(-2, 2, leaf.size).reshape(leaf.shape), params)
    np.testing.assert_allclose(model.apply(params, x), model.head.apply(params, features), atol=1e-5)
    np.testing.assert_allclose(model.loss(params, x, y), model.head.loss(params, features, y), atol=1e-5)

    def norm(x, y):
        gradient = jax.grad(lambda p: model.loss(p, x[None], y[None])[0])(params)
        return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))

    worst = jax.vmap(norm)(x, (y + 1) % classes)
    assert (worst <= (2**0.5 if binary else 2.0) * 1.0001).all() and worst.max() > 0.5


def test_the_linear_model_is_softmax_regression_and_logistic_if_binary():
    generator = np.random.default_rng(0)
    x, y = jnp.asarray(generator.normal(size=(7, 5)), jnp.float32), jnp.arange(7, dtype=jnp.int32) % 3
    model = models.linear(3)
    params = {
        "weight": jnp.asarray(generator.normal(size=(5, 3)), jnp.float32),
        "bias": jnp.asarray([0.5, -1.0, 0.25], jnp.float32),
    }
    assert jax.tree.map(jnp.shape, model.init(jax.random.key(0), x)) == jax.tree.map(jnp.shape, params)
    expected = np.asarray(x) @ np.asarray(params["weight"]) + np.asarray(params["bias"])
    np.testing.assert_allclose(model.apply(params, x), expected, rtol=1e-5, atol=1e-5)
    gradient = jax.grad(lambda p: jnp.sum(model.loss(p, x, y)))(params)
    share = jax.nn.softmax(model.apply(params, x)) - jax.nn.one_hot(y, 3)
    np.testing.assert_allclose(gradient["weight"], x.T @ share, atol=1e-5)
    binary, logistic = models.linear(2, binary=True), models.logistic()
    weights = logistic.init(jax.random.key(0), x)
    np.testing.assert_array_equal(binary.apply(weights, x), logistic.apply(weights, x))
    # A record by itself, as the per-record gradient passes it.
    np.testing.assert_allclose(model.apply(params, x[0]), model.apply(params, x)[0], rtol=1e-5)


@pytest.mark.parametrize("wrong", [{"scales": 0}, {"angles": 0}])
def test_no_scale_and_no_angle_are_refused(wrong):
    with pytest.raises(ValueError, match="at least one scale and one angle"):
        models.scattering(2, **wrong)


def test_classes_and_pictures_that_do_not_fit_are_refused():
    for call in (lambda: models.linear(1), lambda: models.linear(3, binary=True), lambda: models.scattering(1)):
        with pytest.raises(ValueError, match="at least two classes"):
            call()
    with pytest.raises(ValueError, match="8"):
        scattering_features(pictures(1, 6), scales=3)
    with pytest.raises((ValueError, TypeError)):
        scattering_features(jnp.zeros((2, 16, 16), jnp.float32))
