"""Filters under adversarial schedules: hypothesis plays an analyst who sees every answer and wants to overspend."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_poisson import accounting as acc

ORDERS = acc.integer_orders(64)
EPSILON, DELTA = 3.0, 1e-5
UNIT = acc.poisson_embedding_rdp(
    ORDERS, dark_count=1.0, modulation=0.1, honest_senders=20, norm_ratio=3.0, dimension=1000
)


def _release(kind: int, size: float) -> np.ndarray:
    """Curves of very different shapes: Gaussian, high-order heavy, sampled, single channel."""
    if kind == 0:
        return size * ORDERS
    if kind == 1:
        return size * np.expm1(ORDERS / 30) * 0.01
    if kind == 2:
        return acc.subsampled_rdp(ORDERS, size * ORDERS, 0.05)
    return acc.single_channel_rdp(
        ORDERS, dark_count=100 * size + 1e-6, modulation=0.7, honest_senders=3, norm_ratio=1, dimension=1
    )


amounts = st.lists(st.floats(0, 1e3) | st.just(0.0) | st.floats(1e-300, 1e-10), min_size=1, max_size=40)


@given(amounts=amounts)
def test_event_budget_never_overspends(amounts):
    """The adversary also halves what was refused until it fits; the total stays within every order's budget at once."""
    filter_ = acc.event_budget_filter(epsilon=EPSILON, delta=DELTA, unit_rdp=UNIT, orders=ORDERS)
    state, spent = filter_.init(), []
    for amount in amounts:
        for _ in range(60):
            state, admitted = filter_.spend(state, amount)
            if admitted:
                spent.append(amount)
                break
            amount /= 2
    total = math.fsum(spent)
    assert acc.epsilon(ORDERS, total * UNIT, DELTA) <= EPSILON
    assert state.admitted == len(spent)
    assert filter_.remaining(state)[0] <= filter_.budget[0]


def test_event_budget_is_exact():
    """Adaptivity costs nothing: what the non-adaptive accountant allows is admitted, a hair more is not."""
    filter_ = acc.event_budget_filter(epsilon=EPSILON, delta=DELTA, unit_rdp=UNIT, orders=ORDERS)
    total = float(filter_.budget[0])
    assert acc.epsilon(ORDERS, total * UNIT, DELTA) == pytest.approx(EPSILON, rel=1e-9)
    state = filter_.init()
    for _ in range(100):
        state, admitted = filter_.spend(state, total / 100 * (1 - 1e-12))
        assert admitted
    assert filter_.spend(state, total * 1e-9)[1] is False
    assert filter_.spend(filter_.init(), total * 1.0001)[1] is False
    facts = {"modulation": 0.1, "honest_senders": 20, "norm_ratio": 3.0, "dimension": 1000}
    mu = acc.calibrate_dark_count(epsilon=EPSILON, delta=DELTA, rounds=1, **facts)
    assert mu == pytest.approx(total, rel=1e-9)


@given(
    moves=st.lists(st.tuples(st.integers(0, 3), st.floats(0, 5.0)), min_size=1, max_size=30),
    fixed=st.sampled_from([None, 12.0, [3.0, 8.0, 30.0]]),
)
def test_renyi_filter_never_overspends(moves, fixed):
    filter_ = acc.renyi_filter(epsilon=EPSILON, delta=DELTA, orders=ORDERS, fixed=fixed)
    state, curves = filter_.init(), [np.zeros_like(ORDERS)]
    for kind, size in moves:
        for _ in range(8):
            before = state
            state, admitted = filter_.spend(state, _release(kind, size))
            if admitted:
                curves.append(_release(kind, size))
                break
            assert state is before  # a refusal leaves the state alone
            size /= 8
    total = np.sum(curves, axis=0)
    default = acc.default_filter_order(epsilon=EPSILON, delta=DELTA, orders=ORDERS)
    chosen = np.atleast_1d(default if fixed is None else fixed)
    each = acc.epsilon_per_order(ORDERS, total, DELTA / chosen.size)
    assert min(each[np.isin(ORDERS, chosen)]) <= EPSILON * (1 + 1e-12)


def test_best_order_afterwards_would_admit_more_than_the_fixed_order():
    """The twin: an accountant that picks its order at the end lets an adaptive analyst past the fixed order's
    budget."""
    filter_ = acc.renyi_filter(epsilon=EPSILON, delta=DELTA, orders=ORDERS)
    state, total = filter_.init(), np.zeros_like(ORDERS)
    heavy = np.where(ORDERS > 5, 1.0, 0.01)  # cheap at low orders, dear at the fixed one
    admitted = True
    while admitted:
        state, admitted = filter_.spend(state, heavy)
        total += heavy * admitted
    assert (
        acc.epsilon(ORDERS, total + heavy, DELTA)
        < acc.epsilon_per_order(ORDERS, total + heavy, DELTA)[
            int(np.searchsorted(ORDERS, acc.default_filter_order(epsilon=EPSILON, delta=DELTA, orders=ORDERS)))
        ]
    )


def test_default_order_is_best_for_a_gaussian():
    for epsilon in (0.5, 1.0, 3.0, 8.0):
        order = acc.default_filter_order(epsilon=epsilon, delta=DELTA, orders=ORDERS)
        z = acc.calibrate_noise_multiplier(epsilon=epsilon, delta=DELTA, rounds=1)
        assert acc.best_order(ORDERS, acc.gaussian_rdp(ORDERS, noise_multiplier=z), DELTA) == order


def test_wrong_requests_are_refused():
    with pytest.raises(ValueError, match="larger orders"):
        acc.default_filter_order(epsilon=0.01, delta=1e-5, orders=[2, 3])
    with pytest.raises(ValueError, match="among the orders"):
        acc.renyi_filter(epsilon=1.0, delta=1e-5, fixed=2.5)
    with pytest.raises(ValueError, match="fix larger orders"):
        acc.renyi_filter(epsilon=1.0, delta=1e-5, fixed=2.0)
    assert -1 < acc.rdp_budget(40.0, 0.1, 1e-5) < 0 < acc.rdp_budget(40.0, 0.31, 1e-5)
    with pytest.raises(ValueError, match="fix larger orders"):
        acc.renyi_filter(epsilon=0.1, delta=1e-5, fixed=40.0)
    acc.renyi_filter(epsilon=0.31, delta=1e-5, fixed=40.0)
    with pytest.raises(ValueError, match="finite and above 0"):
        acc.renyi_filter(epsilon=-1.0, delta=1e-5)
    with pytest.raises(ValueError, match="nothing to budget"):
        acc.event_budget_filter(epsilon=1.0, delta=1e-5, unit_rdp=np.zeros_like(ORDERS), orders=ORDERS)
    filter_ = acc.event_budget_filter(epsilon=1.0, delta=1e-5, unit_rdp=UNIT, orders=ORDERS)
    for bad in (-1.0, np.nan, np.inf, [1.0, 2.0]):
        with pytest.raises(ValueError, match="number of events"):
            filter_.spend(filter_.init(), bad)
    with pytest.raises(ValueError, match="on these orders"):
        acc.renyi_filter(epsilon=1.0, delta=1e-5).spend(acc.renyi_filter(epsilon=1.0, delta=1e-5).init(), [1.0])


def test_a_union_admits_while_one_order_is_within_and_refuses_when_none_is():
    """Curves that are dear at high orders only: the lowest fixed order decides, to its own budget at delta / m."""
    fixed = [3.0, 8.0, 30.0]
    orders = acc.integer_orders(64)
    filter_ = acc.renyi_filter(epsilon=12.0, delta=DELTA, orders=orders, fixed=fixed)
    budget = [acc.rdp_budget(a, 12.0, DELTA / 3) for a in fixed]
    np.testing.assert_allclose(filter_.budget, budget, rtol=1e-12)
    curve = np.where(orders <= 3, budget[0] / 4 * (1 - 1e-12), 1e3)
    state = filter_.init()
    for _ in range(4):
        state, admitted = filter_.spend(state, curve)
        assert admitted
    assert state.spent[1] > budget[1] and state.spent[2] > budget[2]
    assert filter_.spend(state, curve)[1] is False
    cheap = np.where(orders <= 3, budget[0], 1e-9)  # what is cheap where nothing is left does not help
    assert filter_.spend(state, cheap)[1] is False
    np.testing.assert_allclose(filter_.remaining(state), [budget[0] - state.spent[0], 0, 0], atol=1e-12)


def test_nothing_costs_nothing_and_every_sum_is_rounded_up():
    filter_ = acc.event_budget_filter(epsilon=EPSILON, delta=DELTA, unit_rdp=UNIT, orders=ORDERS)
    state = filter_.init()
    for _ in range(3):
        state, admitted = filter_.spend(state, 0.0)
        assert admitted and state.spent[0] == 0.0
    assert state.admitted == 3
    state, _ = filter_.spend(state, 0.1)
    state, _ = filter_.spend(state, 0.2)
    assert state.spent[0] > 0.1 + 0.2
    # A release below the last digit of what was spent still counts.
    grown, _ = filter_.spend(state, 1e-30)
    assert grown.spent[0] > state.spent[0]


def test_a_budget_may_be_spent_to_its_last_digit():
    """The sum is rounded up: one digit below the budget reaches it, and is admitted; the budget itself passes it."""
    filter_ = acc.event_budget_filter(epsilon=EPSILON, delta=DELTA, unit_rdp=UNIT, orders=ORDERS)
    budget = float(filter_.budget[0])
    assert filter_.spend(filter_.init(), budget)[1] is False
    state, admitted = filter_.spend(filter_.init(), math.nextafter(budget, 0))
    assert admitted and state.spent[0] == budget and filter_.remaining(state)[0] == 0
    assert filter_.spend(state, 0.0)[1] is True and filter_.spend(state, 1e-300)[1] is False
