"""The experimental mechanisms: infinite where they are infinite, and delta values against sums and integrals."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest
from scipy import stats

from fedjax_poisson import accounting as acc
from fedjax_poisson.accounting import experimental
from tests.accounting import reference


def test_infinite_divergences_are_reported_infinite():
    orders = acc.DEFAULT_ORDERS
    for curve in (experimental.centred_poisson_rdp(orders), experimental.compound_poisson_rdp(orders)):
        assert np.all(np.isinf(curve)) and acc.epsilon(orders, curve, 1e-5) == np.inf
    # The upward direction alone is finite: reporting it would be the mistake.
    with mp.workdps(30):
        m, a = mp.mpf(5), 3
        upward = mp.log(mp.fsum(reference.poisson_pmf(m, k) * mp.mpf(k) ** a for k in range(1, 200)) / m**a) / (a - 1)
    assert 0 < upward < 10


@pytest.mark.parametrize(("events", "shift"), [(3.0, 1), (12.0, 2), (40.0, 1)])
@pytest.mark.parametrize("epsilon", [0.0, 1.0, 5.0])
def test_centred_poisson_delta_by_sums(events, shift, epsilon):
    with mp.workdps(40):
        law = {k: reference.poisson_pmf(mp.mpf(events), k) for k in range(300)}
        factor = mp.exp(epsilon)
        up = mp.fsum(max(mp.mpf(0), law.get(k - shift, mp.mpf(0)) - factor * law[k]) for k in range(300))
        down = mp.fsum(max(mp.mpf(0), law[k] - factor * law.get(k - shift, mp.mpf(0))) for k in range(300))
    value = experimental.centred_poisson_delta(epsilon, total_dark_count=events, shift=shift)
    assert value == pytest.approx(float(max(up, down)), rel=1e-7, abs=1e-15)
    floor = experimental.centred_poisson_infinity_mass(total_dark_count=events, shift=shift)
    assert value >= floor * (1 - 1e-12) and floor == pytest.approx(stats.poisson.cdf(shift - 1, events), rel=1e-9)


def test_infinity_masses_of_the_literature():
    assert experimental.compound_poisson_infinity_mass(events=12, coordinates=10**6) == pytest.approx(0.998, abs=1e-3)
    mass = experimental.centred_poisson_infinity_mass(total_dark_count=26, shift=1, coordinates=10**6)
    assert 3e-6 < mass < 1e-5
    assert experimental.compound_poisson_infinity_mass(events=1e-20) == 1.0, "no jump at all: everything is bare"


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_compound_poisson_delta(epsilon):
    facts = {"events": 9.0, "jump_std": 0.8, "shift": 1.0}
    visible = experimental.compound_poisson_delta(epsilon, **facts)
    hidden = experimental.compound_poisson_delta(epsilon, **facts, visible=False)
    with mp.workdps(30):
        wanted = mp.exp(-9)
        for k in range(1, 80):
            z = mp.mpf("0.8") * mp.sqrt(k)
            gauss = mp.ncdf(1 / (2 * z) - epsilon * z) - mp.exp(epsilon) * mp.ncdf(-1 / (2 * z) - epsilon * z)
            wanted += reference.poisson_pmf(mp.mpf(9), k) * gauss
    assert visible == pytest.approx(float(wanted), rel=1e-7)
    assert math.exp(-9) <= hidden <= visible  # forgetting the infinity mass would put hidden below the floor


def test_gaussian_delta_is_the_integral():
    for epsilon, z in ((0.0, 1.0), (1.0, 3.73), (8.0, 0.6), (30.0, 0.2)):
        with mp.workdps(40):
            wanted = mp.ncdf(0.5 / mp.mpf(z) - epsilon * mp.mpf(z))
            wanted -= mp.exp(epsilon) * mp.ncdf(-0.5 / mp.mpf(z) - epsilon * mp.mpf(z))
        assert acc.gaussian_delta(epsilon, z) == pytest.approx(float(wanted), rel=1e-9)


@pytest.mark.parametrize("order", [1.2, 2, 5, 9])
def test_data_embedding_equals_direct_sum_and_its_known_size(order):
    gain, offset = 2.0, 1.5
    value = experimental.data_embedding_rdp([order], gain=gain, offset=offset, pixels=10)[0]
    with mp.workdps(reference.DIGITS):
        moment = reference.poisson_moment(mp.mpf(gain * (1 + offset)), mp.mpf(gain * offset), mp.mpf(order))
        assert value == pytest.approx(float(10 * reference.renyi_of_moment(moment, mp.mpf(order))), rel=1e-7)
    orders = acc.DEFAULT_ORDERS
    at_two = acc.epsilon(orders, experimental.data_embedding_rdp(orders, gain=1, offset=1, pixels=784), 1e-5)
    assert at_two == pytest.approx(790, rel=0.02)
    large = experimental.data_embedding_rdp(orders, gain=1, offset=320, pixels=784)
    assert acc.epsilon(orders, large, 1e-5) == pytest.approx(8.0, abs=0.05)
    assert np.all(np.isinf(experimental.data_embedding_rdp(orders, gain=1, offset=0, pixels=784)))


def test_wrong_requests():
    with pytest.raises(ValueError, match="rate cannot be negative"):
        experimental.data_embedding_rdp([2], gain=1, offset=-0.1, pixels=4)
    with pytest.raises(ValueError, match="pixels"):
        experimental.data_embedding_rdp([2], gain=1, offset=1, pixels=0)
    with pytest.raises(ValueError, match="events"):
        experimental.compound_poisson_delta(1.0, events=0.0, jump_std=1.0, shift=1.0)
