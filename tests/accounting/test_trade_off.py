"""The attacker's best test: bounds against exact most powerful tests, each with a twin that is slightly too small and must be found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedjax_poisson import accounting as acc

RATES = np.linspace(0, 1, 101)


def gaussian_power(rates: np.ndarray, shift: float) -> np.ndarray:
    """Detection of the most powerful test of N(0, 1) against N(shift, 1), from the normal law of the standard library."""
    return 1 - stats.norm.cdf(stats.norm.isf(rates) - shift)


def poisson_power(rates: np.ndarray, events: float, modulation: float, step: float) -> np.ndarray:
    """Exact detection of the most powerful test of one coordinate of an embedding at -r against -r + h, randomised at ties."""

    def law(position: float) -> np.ndarray:
        up = stats.poisson.pmf(
            np.arange(int(events * (1 + modulation) + 14 * math.sqrt(events))), events * (1 + position)
        )
        down = stats.poisson.pmf(np.arange(len(up)), events * (1 - position))
        return np.outer(up, down).ravel()

    without, used = law(-modulation), law(-modulation + step)
    order = np.argsort(-used / np.maximum(without, 1e-300))
    return np.interp(
        rates, np.concatenate([[0], np.cumsum(without[order])]), np.concatenate([[0], np.cumsum(used[order])])
    )


def below(bound: np.ndarray, power: np.ndarray) -> bool:
    """Whether a bound is broken somewhere by a test that exists."""
    return bool(np.any(bound < power - 1e-9))


def tight(charges: list[acc.Cost], epsilon: float = 1.0, delta: float = 1e-5, **more: object) -> np.ndarray:
    law = acc.TightLaw(budget=acc.variance_budget(epsilon, delta))
    return acc.detection_of_charges(RATES, law, [(charge, 1) for charge in charges], **more)


def renyi(curve: np.ndarray, orders: np.ndarray = acc.DEFAULT_ORDERS, times: int = 1, **more: object) -> np.ndarray:
    law = acc.RenyiLaw(orders=orders, order=float(orders[5]), planned=True, epsilon=2.0, delta=1e-5)
    return acc.detection_of_charges(RATES, law, [(curve, times)], **more)


@pytest.mark.parametrize("noise", [0.3, 1.0, 4.0, 20.0])
def test_the_gaussian_s_own_curve_is_met_from_above(noise: float) -> None:
    power = gaussian_power(RATES, 1 / noise)
    assert acc.detection_of_variance(RATES, variance=noise**-2) == pytest.approx(power, abs=1e-9)
    ledger = tight([acc.Normal(noise**-2 / 2)] * 2)
    assert not below(ledger, power) and np.max(ledger - power) < 1e-6
    curve = renyi(acc.gaussian_rdp(acc.DEFAULT_ORDERS, noise_multiplier=noise * math.sqrt(3)), times=3)
    assert not below(curve, power)
    assert np.max(curve - power) < 0.2  # a Renyi curve alone cannot say all


@pytest.mark.parametrize("noise", [0.3, 1.0, 4.0, 20.0])
def test_a_curve_of_too_much_noise_is_found(noise: float) -> None:
    power = gaussian_power(RATES, 1 / noise)
    assert below(acc.detection_of_variance(RATES, variance=0.95 * noise**-2), power)
    assert below(tight([acc.Normal(0.95 * noise**-2)]), power)


def test_a_renyi_curve_of_which_half_is_charged_is_found() -> None:
    for noise in (0.5, 1.0, 3.0):
        half = 0.5 * acc.gaussian_rdp(acc.DEFAULT_ORDERS, noise_multiplier=noise)
        assert below(renyi(half), gaussian_power(RATES, 1 / noise)), noise


def test_minimising_over_the_profile_gives_the_closed_form() -> None:
    """The conjugate of delta_Gauss over real epsilons, on a grid, against the formula of the module."""
    for noise in (0.5, 2.0):
        grid = np.linspace(-8, 8, 4001)
        deltas = np.array([acc.gaussian_delta(float(e), noise) for e in grid])
        for rate in (0.01, 0.05, 0.3, 0.9):
            least = float(np.min(np.exp(grid) * rate + deltas))
            assert acc.detection_of_variance([rate], variance=noise**-2)[0] == pytest.approx(least, abs=1e-5)


@pytest.mark.parametrize(("events", "step", "too_few"), [(60.0, 0.2, 0.5), (400.0, 0.1, 0.8), (3000.0, 0.03, 0.9)])
def test_the_exact_test_of_an_embedding_stays_below_both_laws_and_finds_an_undercharged_one(
    events: float, step: float, too_few: float
) -> None:
    modulation = 0.3
    power = poisson_power(RATES, events, modulation, step)
    cost = acc.Embedded(coordinates=1.0, events=events, modulation=modulation, step=step)
    assert not below(tight([cost]), power)
    assert np.max(tight([cost]) - power) < 0.15
    curve = events * acc.embedding_divergence(acc.DEFAULT_ORDERS, modulation, step)
    assert not below(renyi(curve), power)
    assert below(tight([cost._replace(events=too_few * events)]), power)
    assert below(renyi(0.45 * curve), power)


@given(st.floats(0.05, 6), st.floats(0, 0.1), st.floats(0.001, 0.999))
def test_one_pair_is_met_by_randomised_response(epsilon: float, delta: float, share: float) -> None:
    """With the chance delta the answer is told; else a coin that lies with 1 / (1 + e^epsilon). Its two tests lie on the bound, mixtures below it."""
    lie = 1 / (1 + math.exp(epsilon))
    alarms, found = (1 - delta) * lie, delta + (1 - delta) * (1 - lie)
    bound = acc.detection([alarms, share * alarms, share + (1 - share) * alarms], epsilon=epsilon, delta=delta)
    assert bound[0] == pytest.approx(found, abs=1e-12)
    assert bound[1] >= share * found - 1e-12 and bound[2] >= share + (1 - share) * found - 1e-12
    assert (
        acc.detection([alarms], epsilon=0.97 * epsilon, delta=delta)[0] < found
    )  # the twin: a smaller epsilon is broken


@given(st.floats(0.3, 30), st.floats(1e-8, 1e-3))
def test_no_conversion_of_a_curve_says_more_than_the_curve(noise: float, delta: float) -> None:
    orders, rates = acc.integer_orders(48), RATES[::10]
    curve = acc.gaussian_rdp(orders, noise_multiplier=noise)
    pair = acc.detection(rates, epsilon=acc.epsilon(orders, curve, delta), delta=delta)
    assert not below(pair, acc.detection_of_rdp(rates, orders, curve) - 1e-9)


def test_what_is_chosen_on_the_way_is_charged_with_the_whole_budget() -> None:
    budget = acc.variance_budget(1.0, 1e-5)
    whole = gaussian_power(RATES, math.sqrt(budget.total))
    little = [acc.Normal(budget.total / 50)]
    assert below(tight(little), whole) and not below(tight(little, adapts=True), whole)
    curve = acc.gaussian_rdp(acc.DEFAULT_ORDERS, noise_multiplier=30.0)
    assert np.all(renyi(curve, adapts=True) >= renyi(curve)) and not np.allclose(
        renyi(curve, adapts=True), renyi(curve)
    )
    assert tight([], adapts=True) == pytest.approx(RATES)  # nothing was released yet


def test_samplers_that_are_not_exact_cost_both_rates() -> None:
    """A sampler that tells the truth with the chance v, else what was charged for (nothing): detection v at no false alarm."""
    v = 0.01
    bound = tight([acc.Normal(1e-9)], distance=v)
    assert bound[0] >= v and np.all(bound[:-2] >= RATES[:-2] + v - 1e-6)
    assert np.all(bound <= np.minimum(RATES + 2 * v + 1e-4, 1.0))


def test_every_curve_is_a_curve() -> None:
    for bound in (tight([acc.Normal(0.3)]), renyi(acc.gaussian_rdp(acc.DEFAULT_ORDERS, noise_multiplier=2.0))):
        assert np.all(np.diff(bound) >= -1e-12) and np.all(bound >= RATES) and np.all(bound <= 1) and bound[-1] == 1
    empty = np.full(len(acc.DEFAULT_ORDERS), np.inf)
    assert np.all(acc.detection_of_rdp(RATES, acc.DEFAULT_ORDERS, empty) == 1)
    assert np.all(acc.detection([0.0, 0.5], epsilon=math.inf, delta=0.0) == 1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: acc.detection([1.2], epsilon=1.0, delta=0.0), "each between 0 and 1"),
        (lambda: acc.detection([], epsilon=1.0, delta=0.0), "at least one rate"),
        (lambda: acc.detection([0.1], epsilon=-1.0, delta=0.0), "epsilon is at least 0"),
        (lambda: acc.detection([0.1], epsilon=math.nan, delta=0.0), "epsilon is at least 0"),
        (lambda: acc.detection_of_variance([0.1], variance=-1.0), "0 or more"),
        (lambda: tight([acc.Normal(0.1)], distance=2.0), "lies in"),
    ],
)
def test_what_is_out_of_range_is_refused(call: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()  # type: ignore[operator]
