"""Calibration: never above the target, and nothing left on the table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_poisson import accounting as acc
from fedjax_poisson.accounting import calibration
from fedjax_poisson.accounting.sampling import amplify

ORDERS = acc.DEFAULT_ORDERS
FACTS = {"modulation": 0.05, "honest_senders": 9, "norm_ratio": 20.0, "dimension": 10**6}


def _epsilon(mu: float, rounds: int, rate: float, delta: float, other=None, **facts) -> float:
    curve = acc.subsampled_rdp(ORDERS, acc.poisson_embedding_rdp(ORDERS, dark_count=mu, **facts), rate)
    total = rounds * curve if other is None else acc.compose(rounds * curve, other)
    return acc.epsilon(ORDERS, total, delta)


@settings(max_examples=25)
@given(
    epsilon=st.floats(0.1, 20.0),
    log_delta=st.floats(-9, -3),
    rounds=st.integers(1, 5000),
    rate=st.sampled_from([1.0, 0.3, 0.01]),
    honest=st.integers(1, 1000),
    r=st.floats(0.005, 0.5),
)
def test_dark_count_is_the_largest_within_the_target(epsilon, log_delta, rounds, rate, honest, r):
    facts = {**FACTS, "honest_senders": honest, "modulation": r}
    delta = 10.0**log_delta
    mu = acc.calibrate_dark_count(epsilon=epsilon, delta=delta, rounds=rounds, sampling_rate=rate, **facts)
    assert _epsilon(mu, rounds, rate, delta, **facts) <= epsilon
    assert _epsilon(mu * 1.001, rounds, rate, delta, **facts) > epsilon


def test_accounting_again_one_by_one_stays_below():
    rounds = 10_000
    mu = acc.calibrate_dark_count(epsilon=3.0, delta=1e-5, rounds=rounds, **FACTS)
    curve = acc.poisson_embedding_rdp(ORDERS, dark_count=mu, **FACTS)
    total = np.zeros_like(curve)
    for _ in range(rounds):
        total = total + curve
    assert 3.0 * (1 - 1e-6) < acc.epsilon(ORDERS, total, 1e-5) <= 3.0


def test_other_releases_are_paid_first():
    other = acc.gaussian_rdp(ORDERS, noise_multiplier=4.0)
    without = acc.calibrate_dark_count(epsilon=2.0, delta=1e-6, rounds=50, **FACTS)
    mu = acc.calibrate_dark_count(epsilon=2.0, delta=1e-6, rounds=50, other_rdp=other, **FACTS)
    assert mu < without
    assert _epsilon(mu, 50, 1.0, 1e-6, other, **FACTS) <= 2.0 < _epsilon(without, 50, 1.0, 1e-6, other, **FACTS)
    with pytest.raises(ValueError, match="spent before the first round"):
        acc.calibrate_dark_count(epsilon=0.5, delta=1e-6, rounds=50, other_rdp=other, **FACTS)


def test_record_level_and_replace_one_pass_through():
    level = {**FACTS, "step_ratio": 0.1}
    base = acc.calibrate_dark_count(epsilon=3.0, delta=1e-5, rounds=10, **FACTS)
    record = acc.calibrate_dark_count(epsilon=3.0, delta=1e-5, rounds=10, **level)
    assert record == pytest.approx(100 * base, rel=0.01)
    replace = acc.calibrate_dark_count(epsilon=3.0, delta=1e-5, rounds=10, adjacency="replace_one", **FACTS)
    assert replace == pytest.approx(base / 4, rel=0.02)


def test_rounds_noise_multiplier_and_skellam_variance():
    curve = acc.subsampled_rdp(ORDERS, acc.gaussian_rdp(ORDERS, noise_multiplier=1.1), 0.01)
    rounds = acc.calibrate_rounds(ORDERS, curve, epsilon=2.0, delta=1e-5)
    assert acc.epsilon(ORDERS, rounds * curve, 1e-5) <= 2.0 < acc.epsilon(ORDERS, (rounds + 1) * curve, 1e-5)
    assert acc.calibrate_rounds(ORDERS, 1e3 * ORDERS, epsilon=2.0, delta=1e-5) == 0
    z = acc.calibrate_noise_multiplier(epsilon=2.0, delta=1e-5, rounds=100, sampling_rate=0.1)
    for factor, fits in ((1.0, True), (0.999, False)):
        sampled = acc.subsampled_rdp(ORDERS, acc.gaussian_rdp(ORDERS, noise_multiplier=z * factor), 0.1)
        assert (acc.epsilon(ORDERS, 100 * sampled, 1e-5) <= 2.0) is fits
    sensitivity = acc.rounded_sensitivity(scaled_norm=2000.0, dimension=10**4)
    v = acc.calibrate_skellam_variance(epsilon=2.0, delta=1e-5, rounds=10, l1=sensitivity.l1, l2=sensitivity.l2)
    for factor, fits in ((1.0, True), (0.999, False)):
        total = 10 * acc.skellam_rdp(ORDERS, variance=v * factor, l1=sensitivity.l1, l2=sensitivity.l2)
        assert (acc.epsilon(ORDERS, total, 1e-5) <= 2.0) is fits


def test_the_number_of_rounds_stays_below_the_target_by_more_than_rounding():
    curve = acc.gaussian_rdp(ORDERS, noise_multiplier=9.0)
    seven = acc.epsilon(ORDERS, 7 * curve, 1e-5)
    for epsilon, rounds in ((seven * (1 - 5e-11), 6), (seven, 6), (seven * (1 + 2e-10), 7)):
        assert acc.calibrate_rounds(ORDERS, curve, epsilon=epsilon, delta=1e-5) == rounds


def test_variance_is_within_a_third_of_a_percent_of_the_gaussian():
    """The headline: r = 0.05, n >= 100, epsilon 1, 3, 8; the twin with r = 0.2 is not."""
    for n in (100, 1000, 10**5):
        for epsilon in (1.0, 3.0, 8.0):
            for r, within in ((0.05, True), (0.2, False)):
                facts = {**FACTS, "honest_senders": n, "modulation": r}
                mu = acc.calibrate_dark_count(epsilon=epsilon, delta=1e-5, rounds=100, **facts)
                z = acc.calibrate_noise_multiplier(epsilon=epsilon, delta=1e-5, rounds=100)
                ratio = n / (2 * mu * r * r * 400) / z**2
                assert 1.0 < ratio and (ratio < 1.003) is within


def test_ten_thousand_sampled_rounds_need_no_more_curves_than_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search does not walk through rounds: a sampled curve costs milliseconds, and fewer than 60 are made however many rounds there are."""
    made: list[float] = []

    def counted(*arguments: object) -> object:
        made.append(1.0)
        return amplify(*arguments)

    monkeypatch.setattr(calibration, "amplify", counted)
    counts = []
    for rounds in (10, 10_000):
        made.clear()
        acc.calibrate_dark_count(epsilon=3.0, delta=1e-5, rounds=rounds, sampling_rate=0.01, **FACTS)
        counts.append(len(made))
    assert 0 < max(counts) < 60


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"epsilon": 0.0}, "above 0"),
        ({"epsilon": float("inf")}, "finite"),
        ({"delta": 0.0}, "number of units"),
        ({"rounds": 0}, "at least 1"),
        ({"sampling_rate": 0.0}, "nobody ever takes part"),
        ({"sampling_rate": 0.5, "adjacency": "replace_one"}, "zero_out only"),
        ({"sampling_rate": 0.5, "orders": [2, 4, 8]}, "integer_orders"),
        ({"adjacency": "add_remove"}, "dark noise stays"),
        ({"modulation": 1.0}, "modulation"),
    ],
)
def test_wrong_requests_are_refused_with_the_remedy(change, remedy):
    request = {"epsilon": 3.0, "delta": 1e-5, "rounds": 10, **FACTS, **change}
    with pytest.raises(ValueError, match=remedy):
        acc.calibrate_dark_count(**request)
