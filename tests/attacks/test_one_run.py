"""One-run auditing: the bound against simulation and the slow formula."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fedjax_poisson import accounting
from fedjax_poisson.attacks import (
    choose_guesses,
    one_run_audit,
    one_run_epsilon,
    one_run_p_value,
)

ORDERS, DELTA = accounting.integer_orders(512), 1e-5


@pytest.mark.parametrize(
    ("m", "r", "v", "epsilon", "delta"), [(20, 10, 9, 1.0, 0.0), (100, 30, 30, 2.0, 1e-3), (500, 80, 60, 0.5, 1e-5)]
)
def test_p_value_is_theorem_5_2(m, r, v, epsilon, delta):
    law = stats.binom(r, np.exp(epsilon) / (1 + np.exp(epsilon)))
    tail = law.sf(v - 1)
    slope = max((law.sf(v - i - 1) - tail) / i for i in range(1, m + 1))
    assert one_run_p_value(m, r, v, epsilon, delta) == pytest.approx(min(1, tail + 2 * m * delta * slope), rel=1e-9)


def test_bound_is_the_epsilon_at_the_significance():
    bound = one_run_epsilon(1000, 100, 90, 1e-5)
    assert one_run_p_value(1000, 100, 90, bound, 1e-5) <= 0.05
    assert one_run_p_value(1000, 100, 90, bound + 1e-3, 1e-5) > 0.05
    assert one_run_epsilon(100, 50, 25, 0.0) == 0.0 and one_run_epsilon(100, 10, 10, 0.2) == 0.0
    assert one_run_epsilon(100, 100, 100, 0.0) == pytest.approx(np.log(0.05**0.01 / (1 - 0.05**0.01)), abs=1e-3)


def _accusations(truth: float, claimed: float) -> float:
    """How often randomised response with this true epsilon is shown to exceed the claimed one."""
    rng = np.random.default_rng(4)
    right = rng.binomial(400, np.exp(truth) / (1 + np.exp(truth)), size=300)
    bounds = {v: one_run_epsilon(400, 400, int(v), 0.0) for v in np.unique(right)}
    return float(np.mean([bounds[v] > claimed for v in right]))


def test_bound_holds_where_it_is_tight_and_finds_a_larger_epsilon():
    assert _accusations(1.0, 1.0) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    assert _accusations(1.6, 1.0) > 0.9


def test_guesses_are_chosen_for_the_bound_and_without_outcomes():
    weak, strong = choose_guesses(200, 1.5, DELTA), choose_guesses(200, 8.0, DELTA)
    assert weak % 2 == 0 and 2 <= weak < strong <= 200 and strong >= 120


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="correct <= guesses"):
        one_run_p_value(10, 5, 6, 1.0, 0.0)
    with pytest.raises(ValueError, match="even number"):
        one_run_audit(np.zeros(4), np.zeros(4, bool), epsilon_claimed=1.0, delta=0.0, guesses=3, attack="x", needs="y")
