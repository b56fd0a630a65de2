"""The physics of a picture: attenuation, hardening, scatter, counting, blur."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fedjax_poisson.data.phantom import acquisition, phantom
from fedjax_poisson.data.phantom.acquisition import Scanner
from tests.helpers.stat import assert_moments, chi_square_pvalue

SIZE = 32
FLAT = Scanner(1e6, 1.0, 0.0, 0.008, 0.6, 1.2, 1.0, 1.1, 1.1)


fluence = jax.jit(acquisition.fluence)


blur = jax.jit(acquisition._blur)


def light(scanner, water, bone=0.0, trunk=20.0):
    shape = (64, 64)
    maps = (jnp.full(shape, value, jnp.float32) for value in (water, bone))
    return float(fluence(scanner, *maps, jnp.float32(trunk))[0, 0])


def test_one_energy_obeys_beer_and_lambert():
    assert light(FLAT, 0.0) == pytest.approx(1e6)
    for water, bone in ((10.0, 0.0), (20.0, 0.0), (5.0, 1.5)):
        assert light(FLAT, water, bone) == pytest.approx(1e6 * np.exp(-0.1837 * water - 0.4280 * bone), rel=1e-5)
    # The chart doubles the output for 4 cm more; a pixel of a 32-pixel picture is four of a 64-pixel one.
    assert light(FLAT, 0.0, trunk=24.0) == pytest.approx(2e6)
    large = fluence(FLAT, jnp.zeros((128, 128)), jnp.zeros((128, 128)), jnp.float32(20))
    assert float(large[0, 0]) == pytest.approx(0.25e6)


def test_two_energies_harden_the_beam_and_scatter_fills_shadows():
    mixed = FLAT._replace(hardness=0.5)
    thin, thick = (np.log(light(mixed, t) / light(mixed, t + 1)) for t in (0.0, 25.0))
    assert 0.1837 < thick < thin < 0.2269
    foggy = FLAT._replace(scatter=0.5)
    assert light(foggy, 20.0) == pytest.approx(1.5 * light(FLAT, 20.0), rel=1e-5)
    assert light(foggy, 0.0) < 1.02 * light(FLAT, 0.0)


@pytest.mark.statistical
def test_counts_are_poisson_at_every_rate_and_a_near_law_is_told_apart():
    generator = np.random.default_rng(7)
    few = acquisition.count_photons(np.full(20000, 7.3, np.float32), generator)
    assert few.dtype == np.float32
    support = np.arange(40)
    law, wrong = stats.poisson.pmf(support, 7.3), stats.poisson.pmf(support, 7.3 * 1.03)
    counts = np.bincount(few.astype(int), minlength=40)
    assert chi_square_pvalue(counts, law) > 1e-4 and chi_square_pvalue(counts, wrong) < 1e-4
    many = acquisition.count_photons(np.full(200000, 3e6, np.float32), generator)
    assert_moments(many, 3e6, 3e6, kurtosis=0.0)
    with pytest.raises(AssertionError, match="variance"):
        assert_moments(many, 3e6, 3e6 * 0.95)
    # Both parities: a sampler in float32 has only even counts at large rates.
    assert abs(np.mean(many % 2) - 0.5) < 0.01


def test_denser_is_brighter_and_the_field_is_dark_outside():
    counts = np.tile(np.geomspace(4e6, 10, SIZE, dtype=np.float32), (64, SIZE, 1))
    settings = [FLAT, FLAT._replace(field_x=0.9), FLAT._replace(gamma=1.3)]
    stacked = Scanner(*np.array([settings[min(i, 2)] for i in range(64)], np.float32).T)
    whole, narrow, dark = np.asarray(phantom._develop(stacked, counts, np.full(64, 20, np.float32)))[:3]
    assert (np.diff(whole[5]) >= -1e-6).all() and whole[5, 0] < 0.1 and whole[5, -1] > 0.9
    assert not narrow[:, :1].any() and not narrow[:, -1:].any()
    np.testing.assert_array_equal(narrow[:, 2:-2], whole[:, 2:-2])
    assert (dark <= whole + 1e-6).all() and dark.mean() < whole.mean()


def test_blur_is_a_gaussian_that_loses_nothing():
    point = np.zeros((64, 64), np.float32)
    point[32, 32] = 1
    sharp, soft = (np.asarray(blur(point, jnp.float32(w))) for w in (0.008, 0.022))
    for spread in (sharp, soft):
        assert spread.sum() == pytest.approx(1, rel=1e-5)
    variance = (soft.sum(axis=0) * (np.arange(64) - 32) ** 2).sum()
    assert variance == pytest.approx((0.022 * 32) ** 2, rel=0.1) and soft[32, 32] < sharp[32, 32]
