"""Which site an update came from: told from clear updates, not from noise; intervals cover chance."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_poisson.attacks import attribute_sites, leave_one_out


def _rounds(spread: float, rounds: int = 40, sites: int = 4, size: int = 30, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(1, sites, size)) + spread * rng.normal(size=(rounds, sites, size))


@pytest.mark.parametrize("method", ["ridge", "nearest_mean"])
def test_sites_are_told_apart_in_the_clear_and_not_under_noise(method):
    clear = attribute_sites(_rounds(0.5), method=method)
    assert clear.accuracy.value > 0.95 and clear.chance == 0.25 and clear.guesses == 80
    hidden = attribute_sites(_rounds(60.0), method=method)
    assert hidden.accuracy.low < 0.25 < hidden.accuracy.high
    assert clear.by_site.shape == (4,) and "earlier rounds" in clear.needs


def test_a_missing_site_is_told_from_exact_sums_only():
    updates = _rounds(0.5)
    sums = leave_one_out(updates)
    np.testing.assert_allclose(sums[3, 1], updates[3, [0, 2, 3]].sum(0))
    assert attribute_sites(sums).accuracy.value > 0.7
    noise = 60 * np.random.default_rng(1).normal(size=sums.shape)
    assert attribute_sites(sums + noise).accuracy.low < 0.25


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="known and an unknown"):
        attribute_sites(np.zeros((1, 3, 2)))
    with pytest.raises(ValueError, match="rounds, sites, D"):
        attribute_sites(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="nearest_mean"):
        attribute_sites(_rounds(1.0), method="forest")
