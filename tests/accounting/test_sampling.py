"""Sampling: against sums over outcomes in both directions, and the amplifications that may not be claimed."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest

from fedjax_poisson import accounting as acc
from tests.accounting import reference


def _pair_curve(orders, p, q):
    """Larger direction of the pair's divergence at every order, by direct sums."""
    curve = []
    for a in orders:
        values = []
        for one, two in ((p, q), (q, p)):
            moment = mp.mpf(1)
            for x, y in zip(one, two, strict=True):
                moment *= reference.poisson_moment(x, y, int(a))
            values.append(float(reference.renyi_of_moment(moment, int(a))))
        curve.append(max(values))
    return np.array(curve)


@pytest.mark.parametrize("order", [2, 3, 5])
@pytest.mark.parametrize("rate", [0.01, 0.3])
@pytest.mark.parametrize(("events", "r", "h"), [(2.0, 0.3, 0.3), (3.0, 0.5, 0.25)])
def test_subsampled_equals_the_sum_over_outcomes(order, rate, events, r, h):
    p, q = reference.embedding_worlds(events, r, h)
    orders = acc.integer_orders(order)
    facts = {"dark_count": events, "modulation": r, "honest_senders": 1, "norm_ratio": 1.0, "dimension": 1}
    curve = acc.poisson_embedding_rdp(orders, step_ratio=h / r, **facts)
    value = acc.subsampled_rdp(orders, curve, rate)[-1]
    addition = reference.subsampled_moment_by_outcomes(order, rate, p, q, removal=False)
    assert value == pytest.approx(float(addition), rel=1e-7)
    for one, two in ((p, q), (q, p)):
        for removal in (False, True):
            exact = float(reference.subsampled_moment_by_outcomes(order, rate, one, two, removal=removal))
            assert exact <= value * (1 + 1e-9)


@pytest.mark.parametrize("rate", [0.02, 0.5])
def test_sampled_epsilon_is_never_below_the_exact_hockey_stick(rate):
    events, r, delta = 30.0, 0.3, 1e-5
    orders = acc.DEFAULT_ORDERS
    curve = acc.poisson_embedding_rdp(
        orders, dark_count=events, modulation=r, honest_senders=1, norm_ratio=1.0, dimension=1
    )
    eps = acc.epsilon(orders, acc.subsampled_rdp(orders, curve, rate), delta)
    assert reference.exact_delta(eps, events=events, modulation=r, step=r, rate=rate) <= delta
    # Twin: the claim of a rate ten times smaller is exposed.
    wrong = acc.epsilon(orders, acc.subsampled_rdp(orders, curve, rate / 10), delta)
    assert reference.exact_delta(wrong, events=events, modulation=r, step=r, rate=rate) > delta


def test_tiny_curves_and_large_curves():
    orders = acc.integer_orders(64)
    tiny = acc.subsampled_rdp(orders, 1e-12 * orders, 0.1)
    assert tiny == pytest.approx(0.01 * 1e-12 * orders, rel=1e-6)  # quadratic in the rate, linear in a small curve
    large = acc.subsampled_rdp(orders, 1e6 * orders, 0.1)
    assert np.all(np.isfinite(large)) and np.all(large <= 1e6 * orders)
    # The shortcut q^2 RDP is no bound once the curve is not small.
    steep = acc.gaussian_rdp(orders, noise_multiplier=0.7)
    assert np.any(0.01 * steep < acc.subsampled_rdp(orders, steep, 0.1) / 2)
    infinite = acc.subsampled_rdp(orders, np.where(orders > 10, np.inf, 0.1), 0.1)
    assert np.all(np.isfinite(infinite[:9])) and np.all(np.isinf(infinite[9:]))


def test_ends_and_monotonicity():
    orders = acc.DEFAULT_ORDERS
    curve = acc.gaussian_rdp(orders, noise_multiplier=1.0)
    np.testing.assert_array_equal(acc.subsampled_rdp(orders, curve, 1.0), curve)
    assert not acc.subsampled_rdp(orders, curve, 0.0).any()
    previous = np.zeros_like(curve)
    for rate in (1e-4, 1e-2, 0.3, 0.9, 0.999999):
        sampled = acc.subsampled_rdp(orders, curve, rate)
        assert np.all(sampled > previous) and np.all(sampled <= curve * (1 + 1e-12))
        previous = sampled


def test_amplification_without_its_conditions_is_refused():
    orders = acc.integer_orders(16)
    curve = acc.gaussian_rdp(orders, noise_multiplier=1.0)
    with pytest.raises(ValueError, match=r"accounting\.integer_orders"):
        acc.subsampled_rdp([2, 3, 5], curve[[0, 1, 3]], 0.1)
    with pytest.raises(ValueError, match="EVERY integer order"):
        acc.subsampled_rdp([1.5, 2, 3], np.ones(3), 0.1)
    with pytest.raises(ValueError, match="Let every sender send its dark noise"):
        acc.subsampled_rdp(orders, curve, 0.1, fixed_total_noise=False)
    with pytest.raises(ValueError, match="zero_out only"):
        acc.subsampled_rdp(orders, curve, 0.1, adjacency="replace_one")
    with pytest.raises(ValueError, match="probability"):
        acc.subsampled_rdp(orders, curve, 1.1)
    with pytest.raises(ValueError, match="replace_one only"):
        acc.without_replacement_rdp(orders, curve, cohort=5, population=50, adjacency="zero_out")
    with pytest.raises(ValueError, match="integers with"):
        acc.without_replacement_rdp(orders, curve, cohort=60, population=50)


def test_noise_of_the_cohort_alone_leaks_more_than_the_formula_says():
    """Only sampled clients bring noise: its amount tells who took part, order 2 really costs more than the formula."""
    n, q, mu = 3, 0.3, 5.0
    orders = acc.integer_orders(4)
    curve = acc.poisson_embedding_rdp(
        orders, dark_count=mu, modulation=0.05, honest_senders=n, norm_ratio=1, dimension=1
    )
    claimed = acc.subsampled_rdp(orders, curve, q)[0]
    # The target sends nothing at all when unsampled: rates 2 mu (others only) against 3 mu, both channels.
    with mp.workdps(30):
        others, everyone = ((n - 1) * mu,) * 2, (n * mu,) * 2
        real = reference.subsampled_moment_by_outcomes(2, q, everyone, others, removal=False)
    assert float(real) > 10 * claimed


@pytest.mark.parametrize(
    ("cohort", "population", "noise"),
    [(1, 10, 2.0), (5, 20, 2.0), (50, 100, 2.0), (5, 500, 8.0)],  # little noise and much: either term of the minimum
)
def test_without_replacement_formula_and_coverage(cohort, population, noise):
    orders = acc.integer_orders(12)
    curve = acc.gaussian_rdp(orders, noise_multiplier=noise, adjacency="replace_one")
    value = acc.without_replacement_rdp(orders, curve, cohort=cohort, population=population)
    g = mp.mpf(cohort) / population
    for i, a in enumerate(range(2, 13)):
        e = [None, None, *[mp.exp((j - 1) * mp.mpf(curve[j - 2])) for j in range(2, a + 1)]]
        two = mp.mpf(curve[0])
        total = 1 + g**2 * mp.binomial(a, 2) * min(4 * mp.expm1(two), 2 * mp.exp(two))
        total += mp.fsum(2 * g**j * mp.binomial(a, j) * e[j] for j in range(3, a + 1))
        joint = 1 + g * (e[a] - 1)
        assert value[i] == pytest.approx(float(mp.log(min(total, joint)) / (a - 1)), rel=1e-9)
    assert np.all(value <= curve)
    # Exact coverage: one record of ten replaced, a cohort of one, Gaussian noise: two mixtures of two normals.
    if cohort == 1:
        x = np.linspace(-60, 60, 240001)

        def log_mixture(mean: float) -> np.ndarray:
            normal = [math.log(w) - (x - m) ** 2 / 8 - math.log(8 * math.pi) / 2 for w, m in ((0.9, 0.0), (0.1, mean))]
            return np.logaddexp(*normal)

        for a in (2, 4, 8):
            integrand = np.exp(a * log_mixture(1.0) + (1 - a) * log_mixture(-1.0))
            exact = math.log(np.trapezoid(integrand, x)) / (a - 1)
            assert exact <= value[a - 2]


def test_poisson_formula_on_a_fixed_cohort_under_reports():
    """Known numbers: fixed cohorts cost 35.7, Poisson sampling 3.0 (z = 0.98, q = 0.01, T = 2000)."""
    orders = acc.DEFAULT_ORDERS
    poisson = acc.subsampled_rdp(orders, acc.gaussian_rdp(orders, noise_multiplier=0.98), 0.01)
    fixed = acc.without_replacement_rdp(
        orders, acc.gaussian_rdp(orders, noise_multiplier=0.98, adjacency="replace_one"), cohort=10, population=1000
    )
    assert acc.epsilon(orders, 2000 * poisson, 1e-5) == pytest.approx(3.0, abs=0.02)
    assert acc.epsilon(orders, 2000 * fixed, 1e-5) > 10 * acc.epsilon(orders, 2000 * poisson, 1e-5)
