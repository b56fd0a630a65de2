"""Image scores against slow direct computations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.attacks import scores
from tests.attacks.helpers import images


def _slow_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Equation 13 of Wang et al. window by window, in float64."""
    d = np.arange(11) - 5
    window = np.exp(-(d[:, None] ** 2 + d**2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11].astype(float), y[i : i + 11, j : j + 11].astype(float)
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
            cov = (window * (a - ma) * (b - mb)).sum()
            c1, c2 = 0.01**2, 0.03**2
            values.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return float(np.mean(values))


def test_scores_agree_with_direct_computation():
    originals = images(3)
    rng = np.random.default_rng(1)
    noisy = np.clip(originals + rng.normal(0, 0.1, originals.shape), 0, 1).astype(np.float32)
    got = scores.score_images(noisy, originals)
    for i in range(3):
        assert got.ssim[i] == pytest.approx(_slow_ssim(noisy[i, ..., 0], originals[i, ..., 0]), abs=2e-4)
        error = np.mean((noisy[i].astype(float) - originals[i]) ** 2)
        assert got.psnr[i] == pytest.approx(-10 * np.log10(error), abs=1e-3)
    scaled = scores.score_images(255 * noisy, 255 * originals, peak=255.0)
    np.testing.assert_allclose(scaled.ssim, got.ssim, atol=1e-4)
    np.testing.assert_allclose(scaled.edge_distance, got.edge_distance, atol=1e-4)


def test_equal_images_are_perfect_and_order_is_kept():
    originals = images(3)
    same = scores.score_images(originals, originals)
    np.testing.assert_allclose(same.ssim, 1, atol=1e-6)
    np.testing.assert_allclose(same.edge_distance, 0, atol=1e-6)
    np.testing.assert_allclose(same.psnr, 100, rtol=1e-6)
    light = np.clip(originals + np.float32(0.05), 0, 1)
    other = scores.score_images(originals[[1, 2, 0]], originals)
    brighter = scores.score_images(light, originals)
    # Edges ignore brightness and see another picture.
    assert (brighter.edge_distance < 0.05).all() and (brighter.edge_distance < other.edge_distance).all()


def test_edge_distance_by_hand():
    step = np.zeros((4, 4, 1), np.float32)
    step[:, 2:] = 1.0
    flat = np.zeros_like(step)
    # Prewitt magnitude 1 in the two columns at the step, 0 elsewhere: c / (1 + c) there, 1 elsewhere.
    c = 170 / 255**2
    expected = 1 - (0.5 * 1 + 0.5 * c / (1 + c))
    assert float(scores.edge_distance(jnp.asarray(step), jnp.asarray(flat))) == pytest.approx(expected, abs=1e-6)


def test_best_match_undoes_a_permutation():
    originals = images(6)
    order = np.array([3, 0, 5, 1, 4, 2])
    rng = np.random.default_rng(0)
    shuffled = originals[order] + rng.normal(0, 0.02, originals.shape)
    np.testing.assert_array_equal(scores.best_match(shuffled, originals), np.argsort(order))
    np.testing.assert_array_equal(order[scores.best_match(shuffled, originals[:2])], [0, 1])
    with pytest.raises(ValueError, match="at least as many"):
        scores.best_match(originals[:2], originals)


def test_baseline_grows_with_the_number_of_images_and_finds_a_planted_one():
    originals, pool = images(3), images(12, seed=9)
    _, one = scores.random_baseline(originals, pool, 1, jax.random.key(0))
    _, all_of_them = scores.random_baseline(originals, pool, 12, jax.random.key(0))
    assert (all_of_them.ssim >= one.ssim - 1e-6).all() and (all_of_them.edge_distance <= one.edge_distance + 1e-6).all()
    assert all_of_them.ssim.max() < 0.95
    chosen, found = scores.random_baseline(originals, np.concatenate([pool, originals]), 15, jax.random.key(1))
    np.testing.assert_allclose(found.ssim, 1, atol=1e-6)
    np.testing.assert_array_equal(chosen, originals)
    with pytest.raises(ValueError, match="pool of 12"):
        scores.random_baseline(originals, pool, 13, jax.random.key(0))


def test_small_images_are_refused():
    with pytest.raises(ValueError, match="smaller than"):
        scores.ssim(jnp.zeros((8, 8, 1)), jnp.zeros((8, 8, 1)))
