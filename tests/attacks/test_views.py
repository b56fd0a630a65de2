"""What the four adversaries see, against arithmetic."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.attacks import four_views
from tests.federated.helpers import clipped, mechanism, noise_free, seeded, step_of

UPDATES = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)


def test_without_noise_the_views_are_the_clipped_and_the_unclipped_updates():
    exact = noise_free(mechanism())
    views = four_views(exact, jnp.asarray(UPDATES), seeded(0))
    np.testing.assert_array_equal(views.clear, UPDATES)
    np.testing.assert_allclose(views.summed, UPDATES.sum(0), atol=1e-5)
    short = clipped(UPDATES, 1.0, 0.5)
    # A clip keeps sqrt(D) / 2 steps and as many millionths of the length free for rounding (`clipping.scaled_target`).
    np.testing.assert_allclose(views.noisy, short, rtol=2e-5, atol=4 * step_of(exact))
    np.testing.assert_allclose(views.noisy_sum, short.sum(0), rtol=2e-5, atol=12 * step_of(exact))


def test_the_noisy_sum_is_the_sum_of_the_noisy_updates_and_senders_differ():
    noisy = mechanism()
    views = four_views(noisy, jnp.asarray(UPDATES), seeded(0))
    np.testing.assert_allclose(views.noisy_sum, np.asarray(views.noisy).sum(0), rtol=1e-5, atol=1e-4)
    errors = np.asarray(views.noisy, np.float64) - clipped(UPDATES, 1.0, 0.5)
    correlation = np.corrcoef(errors)[np.triu_indices(3, 1)]
    assert np.abs(correlation).max() < 0.6  # 40 coordinates: independent noise is within 0.6 with certainty
    ratio = errors.var() / noisy.variance(1)
    assert 0.6 < ratio < 1.5


def test_sums_of_records_pass_as_grids():
    exact = noise_free(mechanism())
    grids = jnp.full((3, 40), 1000, jnp.int32)
    views = four_views(exact, jnp.asarray(UPDATES), seeded(0), grids)
    np.testing.assert_allclose(views.noisy_sum, 3000 * step_of(exact), rtol=1e-5)
    with pytest.raises(ValueError, match="senders, D"):
        four_views(exact, jnp.asarray(UPDATES), seeded(0), grids[:2])
