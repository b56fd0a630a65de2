"""Intervals against SciPy and against simulation, with twins that are too narrow."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fedjax_poisson.attacks import results


@pytest.mark.parametrize(("hits", "trials"), [(0, 7), (3, 10), (10, 10), (40, 5000)])
def test_binomial_interval_is_clopper_pearson(hits, trials):
    rate = results.binomial_rate(hits, trials)
    exact = stats.binomtest(hits, trials).proportion_ci(0.95, method="exact")
    assert rate.low == pytest.approx(exact.low, abs=1e-9) and rate.high == pytest.approx(exact.high, abs=1e-9)
    assert results.binomial_lower(hits, trials, 0.975) == pytest.approx(rate.low)
    assert results.binomial_upper(hits, trials, 0.975) == pytest.approx(rate.high)


def test_auc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    p, n = rng.integers(0, 6, 40).astype(float), rng.integers(0, 5, 30).astype(float)
    pairs = np.mean((p[:, None] > n) + 0.5 * (p[:, None] == n))
    assert results.auc(p, n).value == pytest.approx(pairs)
    p, n = rng.normal(size=40), rng.normal(size=30)
    both, member = np.concatenate([p, n]), np.arange(70) < 40
    weighted = results.weighted_auc(both, member, np.ones((1, 70)))
    assert weighted[0] == pytest.approx(results.auc(p, n).value)
    twice = np.where(np.arange(70) % 3 == 0, 2.0, 1.0)
    repeated = np.repeat(np.arange(70), twice.astype(int))
    expected = results.auc(both[repeated][member[repeated]], both[repeated][~member[repeated]]).value
    # Repeated scores tie with themselves only, on one side: no tie across sides, so the two agree.
    assert results.weighted_auc(both, member, twice[None])[0] == pytest.approx(expected)


def _coverage(shrink: float) -> float:
    rng, truth = np.random.default_rng(1), stats.norm.cdf(1 / np.sqrt(2))
    inside = 0
    for _ in range(400):
        rate = results.auc(rng.normal(1, 1, 60), rng.normal(0, 1, 40))
        centre = (rate.low + rate.high) / 2
        inside += abs(truth - centre) <= shrink * (rate.high - rate.low) / 2
    return inside / 400


def test_auc_interval_covers_and_half_of_it_does_not():
    assert 0.92 <= _coverage(1.0) <= 0.98
    assert _coverage(0.5) < 0.8


def test_perfect_separation_keeps_an_honest_interval():
    rate = results.auc(np.arange(10.0) + 100, np.arange(20.0))
    assert rate.value == 1 and rate.high == 1
    assert rate.low == pytest.approx(0.05**0.1)  # ten disjoint pairs in order
    assert results.auc(np.arange(10.0), np.arange(20.0) + 100).high == pytest.approx(1 - 0.05**0.1)


def test_true_positive_rate_allows_only_the_stated_false_positives():
    negatives = np.arange(1000.0)
    rate = results.true_positive_rate(np.array([998.5, 989.5, 988.5, 2000.0]), negatives, 0.01)
    assert rate.value == 0.75  # ten non-members, 990..999, are above the threshold 989
    assert results.true_positive_rate(np.array([998.5, 2000.0]), negatives, 0.0005).value == 0.5


def test_bad_scores_are_refused():
    with pytest.raises(ValueError, match="both are needed"):
        results.auc(np.array([]), np.ones(3))
    with pytest.raises(ValueError, match="NaN"):
        results.auc(np.array([np.nan]), np.ones(3))
    with pytest.raises(ValueError, match="a trial"):
        results.binomial_rate(0, 0)


def test_results_become_json():
    rate = results.binomial_rate(1, 2)
    made = results.to_json(
        {"rate": rate, "array": jnp.arange(3), "bad": np.array([np.inf, 1.0]), "none": None, 1: (True, "x")}
    )
    assert json.loads(json.dumps(made)) == {
        "rate": {"value": 0.5, "low": pytest.approx(rate.low), "high": pytest.approx(rate.high), "confidence": 0.95},
        "array": [0, 1, 2],
        "bad": [None, 1.0],
        "none": None,
        "1": [True, "x"],
    }
