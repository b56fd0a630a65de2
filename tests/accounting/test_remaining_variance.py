"""The remaining-variance filter by value, against an integral equation written down again; order, splits, refusals."""

from __future__ import annotations

import itertools
import json
import math
import time

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from fedjax_poisson import accounting as acc
from fedjax_poisson.accounting import Embedded, Normal, VarianceBudget, fixed_plan, gaussian
from fedjax_poisson.accounting.variance_cost import rates
from tests.accounting import reference

DELTA, TAU = 1e-4, 1e-8
BUDGETS = {epsilon: acc.variance_budget(epsilon, DELTA) for epsilon in (1.0, 3.0, 8.0)}
TOTALS = {1.0: 0.0985346, 3.0: 0.668396, 8.0: 3.39061}
FINE = Embedded(1.0, 5.0, 0.05, 0.05 / 3)
HEART = Embedded(2.7778, 2e4, 0.05, 0.03 / 231)
COARSE = Embedded(9.0, 0.5, 0.6, 0.06)
HUGE = Embedded(1.0, 1e-6, 0.9, 0.9)
# w'/W after one release from W at epsilon 1, 3, 8; None where it is refused
LEFT = [
    (FINE, (0.971224, 0.995815, 0.999178)),
    (HEART, (0.980932, 0.997189, 0.999446)),
    (COARSE, (None, 0.899616, 0.983687)),
    (HUGE, (None, None, 0.999782)),
]
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)


def events_between(low: float, high: float, cost: Embedded, tau: float) -> float:
    """int_low^high A(v) / (2 K g_{A(v)}(r, h)) dv: closed form of g in 80-bit floats, Gauss-Legendre panels in log v."""
    r, h, k = np.longdouble(cost.modulation), np.longdouble(cost.step), cost.coordinates
    kappa, room = float(np.log1p(h / (1 - r))), -math.log(tau)
    panels = max(int(40 * math.log(high / low)), 4)
    edges = np.linspace(math.log(low), math.log(high), panels + 1)
    half = (edges[1] - edges[0]) / 2
    v = np.exp(((edges[:-1, None] + edges[1:, None]) / 2 + half * _NODES).ravel())
    a = np.maximum(2.0, 1 + (kappa + np.sqrt(np.maximum(kappa**2 + 2 * v * (room - kappa), 0))) / v)
    a = a.astype(np.longdouble)
    with np.errstate(over="ignore"):
        inward = (1 - r) * ((1 + h / (1 - r)) ** a - 1) + (1 + r) * ((1 - h / (1 + r)) ** a - 1)
        return float(np.sum(np.tile(_WEIGHTS, panels) * half * v * a * (a - 1) / (2 * k * inward)))


def left_after(left: float, cost: Embedded, tau: float, floor: float = 1e-9) -> float | None:
    """The solution w' of the integral equation, None if it would be below `floor` * left."""
    if events_between(floor * left, left, cost, tau) < cost.events:
        return None
    return optimize.brentq(
        lambda low: events_between(low, left, cost, tau) - cost.events,
        floor * left,
        left * (1 - 1e-15),
        xtol=1e-14 * left,
        rtol=1e-14,
    )


@pytest.mark.parametrize("epsilon", BUDGETS)
def test_total_tau_and_floor(epsilon):
    """W solves delta_Gauss + slack = delta to 2e-9 and is never above (leaving the slack out adds 3e-6 of W or more)."""
    budget = BUDGETS[epsilon]
    assert budget.total == pytest.approx(TOTALS[epsilon], rel=1e-5)
    assert (budget.epsilon, budget.delta, budget.tau) == (epsilon, DELTA, pytest.approx(TAU, rel=1e-12))
    assert budget.floor == pytest.approx(1e-6 * budget.total, rel=1e-12)

    def delta(width: float) -> float:
        return reference.gaussian_delta(epsilon, width) + TAU * math.sqrt(width / (2 * math.pi))

    assert delta(budget.total) <= DELTA
    exact = optimize.brentq(lambda width: delta(width) / DELTA - 1, 0.5 * budget.total, 2 * budget.total, xtol=1e-15)
    assert exact * (1 - 2e-9) <= budget.total <= exact * (1 + 1e-13)
    without = optimize.brentq(lambda w: reference.gaussian_delta(epsilon, w) / DELTA - 1, 0.01, 9.0, xtol=1e-15)
    assert without > budget.total * (1 + 1e-6)


@pytest.mark.parametrize(("cost", "fractions"), LEFT)
def test_one_release_by_value(cost, fractions):
    """At most 1e-4 below the solution of the integral equation and never above."""
    for (_, budget), fraction in zip(BUDGETS.items(), fractions, strict=True):
        after = acc.spend_variance(budget, budget.total, cost)
        exact = left_after(budget.total, cost, TAU)
        if fraction is None:
            assert after is None
            assert exact is None or exact < 1e-6 * budget.total
        else:
            assert exact / budget.total == pytest.approx(fraction, abs=6e-7)
            assert exact - 1e-4 * budget.total <= after <= exact


# (tau, W) with orders at the floor of 2, at large tails, at small and large skews, and far below W
OTHERS = [
    (0.1, 20.0, 20.0, Embedded(1.0, 2.0, 0.6, 0.6)),
    (0.5, 8.0, 8.0, Embedded(1.0, 0.3, 0.9, 0.9)),
    (1e-3, 40.0, 39.0, Embedded(4.0, 0.4, 0.5, 0.5)),
    (1e-8, 3.0, 0.03, Embedded(2.0, 0.1, 0.3, 0.05)),
    (1e-8, 60.0, 60.0, Embedded(1.0, 10.0, 0.3, 0.6)),
    (1e-12, 1.0, 1.0, Embedded(0.25, 0.8, 0.05, 0.1)),
]


@pytest.mark.parametrize(("tau", "total", "left", "cost"), OTHERS)
def test_other_tails_and_orders_by_value(tau, total, left, cost):
    budget = VarianceBudget(1.0, 0.5, tau, total, 1e-6 * total)
    after, exact = acc.spend_variance(budget, left, cost), left_after(left, cost, tau)
    assert exact - 2e-3 * (left - exact) <= after <= exact


@given(
    st.floats(1e-9, 200.0), st.floats(1e-3, 0.999999), st.floats(1e-8, 1.0), st.floats(1e-12, 0.5), st.floats(0.1, 50.0)
)
def test_rate_is_rounded_up_by_no_more_than_it_says(left, r, turn, tau, k):
    """Against 50 digits: above the rate of the theorem, by at most 2e-9 of it; infinite only where exp(700) is passed."""
    cost = Embedded(k, 1.0, r, 2 * r * turn)
    found = float(rates(np.array([left]), cost, tau)[0])
    with mp.workdps(50):
        w, h = mp.mpf(left), mp.mpf(cost.step)
        kappa = mp.log1p(h / (1 - mp.mpf(r)))
        root = mp.sqrt(max(kappa**2 + 2 * w * (-mp.log(tau) - kappa), 0))
        a = max(mp.mpf(2), 1 + (kappa + root) / w)
        inward = (1 - mp.mpf(r)) * ((1 + h / (1 - mp.mpf(r))) ** a - 1)
        exact = 2 * k * (inward + (1 + mp.mpf(r)) * ((1 - h / (1 + mp.mpf(r))) ** a - 1)) / (a - 1) / a
        if found == math.inf:
            assert a * kappa >= 699
        else:
            assert 1 <= found / exact <= 1 + 2e-9


@given(
    st.floats(1e-3, 0.9999), st.floats(1e-3, 1.0), st.floats(1e-12, 0.9), st.floats(1e-4, 50.0), st.floats(1.001, 3.0)
)
def test_rate_falls_and_is_convex(r, turn, tau, low, ratio):
    """What the numerics rest on: falling always, convex where kappa <= log(1/tau)."""
    cost = Embedded(1.0, 1.0, r, 2 * r * turn)
    left = low * np.linspace(1.0, ratio, 9)
    found = rates(left, cost, tau)
    found = found[np.isfinite(found)]
    assert np.all(np.diff(found) <= 1e-12 * found[1:])
    if math.log1p(cost.step / (1 - r)) <= -math.log(tau):
        chord = (found[2:] + found[:-2]) / 2
        assert np.all(found[1:-1] <= chord * (1 + 1e-12))


def test_order_of_releases():
    """Gaussian .2 W, then FINE, then HEART, and the same reversed: a coarse release costs less while more is left."""
    budget = BUDGETS[1.0]
    plan = [Normal(0.2 * budget.total), FINE, HEART]
    first = acc.spend_all(budget, budget.total, plan)
    second = acc.spend_all(budget, budget.total, plan[::-1])
    assert first / budget.total == pytest.approx(0.75205, abs=6e-6)
    assert second / budget.total == pytest.approx(0.75215, abs=6e-6)
    step = left_after(0.8 * budget.total, FINE, TAU)
    assert first == pytest.approx(left_after(step, HEART, TAU), rel=1e-4)


# n_h, r, K, step ratio, total dark count, tau; W and slack of `dominating_gaussian`
WIDTHS = [
    (1, 0.05, 1.0, 1.0, 200.0, 1e-4, 1.03471, 4.058e-5),
    (2, 0.3, 4.0, 1.0, 5.0, 1e-2, 2.24389, 5.976e-3),
    (3, 0.05, 1 / 0.36, 0.6 / 77, 2e5, 1e-8, 0.0563748, 9.47e-10),
    (1, 0.9, 1.0, 1.0, 1.0, 0.1, 11.5147, 0.1354),
]


@pytest.mark.parametrize(("honest", "r", "k", "ratio", "dark", "tau", "width", "slack"), WIDTHS)
def test_width_of_a_fixed_plan(honest, r, k, ratio, dark, tau, width, slack):
    """The same W as domination of the whole plan; never below the solution, at most 1e-4 above (1 % if kappa > log 1/tau)."""
    facts = {"modulation": r, "honest_senders": honest, "norm_ratio": math.sqrt(k), "dimension": 100}
    bound = acc.dominating_gaussian(total_dark_count=dark, step_ratio=ratio, tau=tau, **facts)
    assert bound.noise_multiplier**-2 == pytest.approx(width, rel=2e-5)
    assert bound.slack == pytest.approx(slack, rel=1e-3)
    cost = acc.embedded_cost(dark_count=dark, step_ratio=ratio, **facts)
    found = fixed_plan.fixed_plan_width((cost,), tau)
    exact = reference.domination_width(k * honest * dark, r, r * ratio / honest, tau)
    assert exact * (1 - 1e-9) <= found <= exact * (1.01 if r == 0.9 else 1 + 1e-4)


def test_width_of_many_small_parts():
    """The same plan in 400 parts that cannot be merged, each much smaller than a cell: never below the solution."""
    for cost in (FINE, HEART, Embedded(1.0, 1.0, 1e-3, 1e-7)):
        other = cost._replace(coordinates=math.nextafter(cost.coordinates, 2 * cost.coordinates))
        for width in (0.01, 1.0):
            events = events_between(1e-12 * width, width, cost, TAU) if cost.step > 1e-6 else width * (1 - 1e-6) / 2e-14
            plan = [part._replace(events=events / 400) for part in (cost, other)] * 200
            assert len(list(fixed_plan.merged(plan))) == 400
            found = fixed_plan.fixed_plan_width(tuple(plan), TAU)
            assert width * (1 - 1e-10) <= found <= width * (1 + 2e-4)


@pytest.mark.parametrize("fall", [1e-9, 0.9e-7, 1.1e-7, 1e-5, 0.3, 0.6, 1 - 1e-12])
def test_the_integral_below_a_chord(fall):
    """By mpmath, never above; and the parts of a cell add up to it, wherever the formula changes."""
    lower, upper = np.array(3.0), np.array(3.0 * (1 - fall))
    whole = float(fixed_plan._below_chord(np.array(2.0), lower, upper))
    with mp.workdps(40):
        x = 1 - mp.mpf(float(upper)) / 3
        exact = float(-mp.log(1 - x) / x * 2 / 3)
    assert exact * (1 - 1e-12) <= whole <= exact * (1 + 1e-14)
    for part in (1e-6, 0.1, 0.9):
        here = lower * (1 - part) + upper * part
        parts = [fixed_plan._below_chord(2 * part, lower, here), fixed_plan._below_chord(2 * (1 - part), here, upper)]
        assert float(sum(parts)) == pytest.approx(whole, rel=1e-14)


def test_width_where_the_rate_is_not_convex():
    """kappa above log(1/tau): the rate has a kink with a concave side, on which a chord would be too small."""
    for width in np.geomspace(0.3, 3.0, 24).tolist():
        cost = Embedded(1.0, 1.0, 0.5, 0.5)
        cost = cost._replace(events=events_between(1e-12 * width, width, cost, 0.9))
        assert width * (1 - 2e-6) <= fixed_plan.fixed_plan_width((cost,), 0.9) <= width * 1.02


def test_one_round_exactly():
    """r = h = 0.05, 200 events: exact hockey-sticks, and the bound's epsilon at the delta that it claims there."""
    cost = acc.embedded_cost(dark_count=200.0, modulation=0.05, honest_senders=1, norm_ratio=1.0, dimension=1)
    for epsilon, exact, bound in ((0.0, 0.38303, 0.38901), (0.5, 0.23863, 0.24533)):
        true = reference.exact_delta(epsilon, events=200.0, modulation=0.05, step=0.05)
        assert true == pytest.approx(exact, abs=1e-5)
        assert acc.fixed_plan_epsilon([cost], bound + 2e-5, tau=1e-4) == pytest.approx(epsilon, abs=2e-4)
        assert acc.fixed_plan_epsilon([cost], bound - 1e-3, tau=1e-4) > epsilon + 1e-3


@pytest.mark.parametrize("adjacency", ["zero_out", "replace_one"])
def test_cost_of_an_embedding(adjacency):
    facts = {"dark_count": 40.0, "modulation": 0.3, "honest_senders": 3, "norm_ratio": 1 / 0.6, "dimension": 14}
    cost = acc.embedded_cost(**facts, step_ratio=0.5, adjacency=adjacency)
    step = 0.3 * 0.5 / 3 * (2 if adjacency == "replace_one" else 1)
    assert cost == pytest.approx(Embedded(1 / 0.36, 120.0, 0.3, step), rel=1e-14)
    orders = np.array([2.0, 7.5, 40.0])
    curve = acc.poisson_embedding_rdp(orders, **facts, step_ratio=0.5, adjacency=adjacency)
    own = cost.coordinates * cost.events * acc.embedding_divergence(orders, cost.modulation, cost.step)
    np.testing.assert_allclose(own, curve, rtol=1e-13)
    assert acc.embedded_cost(**facts | {"dimension": 2}).coordinates == 2.0
    with pytest.raises(ValueError, match="dark_count"):
        acc.embedded_cost(**facts | {"dark_count": math.nan})
    with pytest.raises(ValueError, match="add"):
        acc.embedded_cost(**facts, adjacency="add_remove")


@pytest.mark.parametrize("epsilon", BUDGETS)
@pytest.mark.parametrize("cost", [FINE, HEART], ids=["fine", "heart"])
def test_many_spends_reach_the_fixed_plan(epsilon, cost):
    """2,000 equal spends: at least .999 of the events of one plan that takes all of W, and never more."""
    budget = BUDGETS[epsilon]
    whole = events_between(1e-9 * budget.total, budget.total, cost, TAU)
    part, left, spent = whole / 2000, budget.total, 0
    while (after := acc.spend_variance(budget, left, cost._replace(events=part))) is not None:
        left, spent = after, spent + 1
    assert 0.999 <= spent / 2000 <= 1
    read = acc.fixed_plan_epsilon([cost._replace(events=part)] * spent, DELTA)
    assert 0.995 * epsilon <= read <= epsilon


# Each field on its own, by far more than rounding.
@pytest.mark.parametrize("base", [FINE, HEART, COARSE._replace(events=0.01)], ids=["fine", "heart", "coarse"])
@pytest.mark.parametrize("field", Embedded._fields)
def test_dearer_in_every_field(base, field):
    for budget in BUDGETS.values():
        left = [budget.total]
        for factor in (1.0, 1.05, 1.3):
            left.append(
                acc.spend_variance(budget, budget.total, base._replace(**{field: getattr(base, field) * factor}))
            )
        assert all(a > b for a, b in itertools.pairwise(left)), left
        assert acc.spend_variance(budget, left[1], base) < left[1]


shapes = st.tuples(st.floats(0.2, 30.0), st.floats(0.02, 0.7), st.floats(0.01, 1.9))
budgets = st.sampled_from(sorted(BUDGETS))


def cost_that_takes(budget: VarianceBudget, left: float, share: float, shape: tuple[float, float, float]) -> Embedded:
    """Takes about `share` of what is left; the step is kept where something fits."""
    k, r, turn = shape
    cost = Embedded(k, 1.0, r, min(turn * r, 0.2 * math.sqrt(left) * (1 - r)))
    return cost._replace(events=events_between(left * (1 - share), left, cost, budget.tau))


@given(budgets, shapes, st.floats(0.01, 0.9), st.lists(st.floats(0.05, 1.0), min_size=2, max_size=6))
def test_a_release_in_parts_takes_what_the_whole_takes(epsilon, shape, share, parts):
    """Both take, in exact events, what was asked for and up to 1 % more (the width of a cell): parts never gain."""
    budget = BUDGETS[epsilon]
    cost = cost_that_takes(budget, budget.total, share, shape)
    whole = acc.spend_variance(budget, budget.total, cost)
    costs = [cost._replace(events=cost.events * part / math.fsum(parts)) for part in parts]
    split = acc.spend_all(budget, budget.total, costs)
    for after in (whole, split):
        assert 1 - 1e-9 <= events_between(after, budget.total, cost, TAU) / cost.events <= 1.01


@given(budgets, st.floats(1e-9, 0.9), st.lists(st.floats(0.05, 1.0), min_size=1, max_size=6))
def test_gaussian_releases_add_up(epsilon, share, parts):
    budget = BUDGETS[epsilon]
    costs = [Normal(share * budget.total * part / math.fsum(parts)) for part in parts]
    after = acc.spend_all(budget, budget.total, costs)
    assert after <= (1 - share) * budget.total * (1 + 1e-15)
    assert after == pytest.approx((1 - share) * budget.total, rel=1e-11)


def test_a_plan_of_gaussians_is_one_gaussian():
    costs = [Normal(0.01), Normal(0.2), Normal(0.09)]
    wanted = gaussian.gaussian_pld_epsilon(0.3**-0.5, DELTA - TAU * math.sqrt(0.3 / (2 * math.pi)), 1)
    assert acc.fixed_plan_epsilon(costs, DELTA) == pytest.approx(wanted, rel=1e-9)
    assert acc.fixed_plan_epsilon(costs, DELTA) >= gaussian.gaussian_pld_epsilon(0.3**-0.5, DELTA, 1)


@given(budgets, st.lists(st.tuples(shapes, st.floats(0.01, 0.25), st.booleans()), min_size=1, max_size=8))
def test_reading_of_a_plan_is_within_the_budget_that_it_fits(epsilon, steps):
    """Whatever was admitted reads as at most the budget's epsilon, at least what the exact backward solution has."""
    budget = BUDGETS[epsilon]
    left, costs = budget.total, []
    for shape, share, gaussian_release in steps:
        cost = Normal(share * left) if gaussian_release else cost_that_takes(budget, left, share, shape)
        after = acc.spend_variance(budget, left, cost)
        if after is not None:
            left, costs = after, [*costs, cost]
    read = acc.fixed_plan_epsilon(costs, DELTA)
    assert read <= epsilon * (1 + 1e-5)
    width = 1e-9
    for cost in reversed(costs):
        if isinstance(cost, Normal):
            width += cost.variance
        else:
            width = optimize.brentq(
                lambda high, low=width, c=cost: events_between(low, high, c, TAU) - c.events, width * (1 + 1e-12), 50.0
            )
    bought = fixed_plan.fixed_plan_width(tuple(fixed_plan.merged(costs)), TAU)
    assert width * (1 - 1e-6) - 1e-8 <= bought <= width * 1.003 + 1e-6


def test_reading_grows_with_every_release_and_counts_neighbours_together():
    costs = [FINE, FINE._replace(events=9.0), Normal(0.01), Normal(0.02), HEART, HEART]
    readings = [acc.fixed_plan_epsilon(costs[:n], DELTA) for n in range(len(costs) + 1)]
    assert readings[0] == 0.0 and all(a < b for a, b in itertools.pairwise(readings))
    groups = list(fixed_plan.merged(costs))
    assert groups == [FINE._replace(events=14.0), Normal(pytest.approx(0.03)), HEART._replace(events=4e4)]
    assert acc.fixed_plan_epsilon(groups, DELTA) == readings[-1]
    assert acc.fixed_plan_epsilon([FINE], DELTA, tau=1e-6) != readings[1]
    assert acc.fixed_plan_epsilon([Normal(1e20)], DELTA) == math.inf
    for tau in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="tau"):
            acc.fixed_plan_epsilon(costs, DELTA, tau=tau)


@given(budgets, shapes, st.booleans(), st.floats(0.01, 1.0), st.floats(0.0, 1.0))
def test_affordable_events(epsilon, shape, steep, high, low):
    """They are affordable, and a hundred-thousandth more are not; steep: most of w can only be spent by huge rates."""
    budget = BUDGETS[epsilon]
    high, low = high * budget.total, high * low * budget.total
    k, r, turn = shape
    cost = Embedded(k, -1.0, r, turn * r if steep else min(turn * r, 0.2 * math.sqrt(high)))
    events = acc.affordable_events(budget, high, low, cost)
    if events == 0.0:
        after = acc.spend_variance(budget, high, cost._replace(events=1e-100))
        assert high - low <= 3e-14 * high or after is None
        return
    after = acc.spend_variance(budget, high, cost._replace(events=events))
    assert after is not None and after >= low
    more = acc.spend_variance(budget, high, cost._replace(events=events * (1 + 1e-5)))
    assert more is None or more < low


def test_nothing_is_affordable_above_what_is_left_or_where_the_divergence_overflows():
    budget = BUDGETS[1.0]
    assert acc.affordable_events(budget, 0.5 * budget.total, 0.5 * budget.total, FINE) == 0.0
    assert acc.affordable_events(budget, 0.4 * budget.total, 0.5 * budget.total, FINE) == 0.0
    assert acc.affordable_events(budget, 1e-4 * budget.total, 0.0, HUGE) == 0.0
    assert acc.affordable_events(budget, budget.floor, 0.0, FINE) == 0.0
    assert acc.affordable_events(BUDGETS[8.0], BUDGETS[8.0].total, 0.0, HUGE) > 1e-6


def test_a_refused_release_takes_nothing_and_a_smaller_one_may_follow():
    budget = BUDGETS[1.0]
    left = acc.spend_variance(budget, budget.total, FINE)
    for cost in (FINE._replace(events=1e4), HUGE, Normal(left), Normal(left - budget.floor / 2)):
        assert acc.spend_variance(budget, left, cost) is None
        assert acc.spend_all(budget, left, [FINE, cost, FINE]) is None
    assert acc.spend_variance(budget, left, FINE) == acc.spend_all(budget, left, [FINE]) < left
    assert acc.spend_all(budget, left, []) == left
    for nothing in (0.0, budget.floor, budget.floor / 2):
        assert acc.spend_variance(budget, nothing, Normal(1e-12)) is None
        assert acc.spend_variance(budget, nothing, FINE._replace(events=1e-12)) is None
    after = acc.spend_variance(budget, left, Normal(left - 2 * budget.floor))
    assert budget.floor <= after <= 2 * budget.floor


@pytest.mark.parametrize("cost", [FINE._replace(events=1e90), HEART, HUGE, Embedded(1.0, 1.0, 1e-3, 1e-6)])
def test_ends_at_the_floor_in_little_time(cost):
    """From W down to the floor, and from the floor itself, with overflows on the way."""
    for budget in (*BUDGETS.values(), acc.variance_budget(1e4, 1e-4), acc.variance_budget(1e-8, 1e-100)):
        started = time.process_time()
        assert acc.spend_variance(budget, budget.total, cost._replace(events=1e90)) is None
        assert acc.spend_variance(budget, budget.floor * 1.001, cost._replace(events=1e90)) is None
        assert time.process_time() - started < 2


BAD = [0.0, -1.0, math.nan, math.inf, -math.inf, 1e200, "x", None]


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("field", [*Embedded._fields, "variance"])
def test_what_is_no_cost_is_an_error(field, value):
    cost = Normal(value) if field == "variance" else FINE._replace(**{field: value})
    budget = BUDGETS[1.0]
    for use in (
        lambda: acc.spend_variance(budget, budget.total, cost),
        lambda: acc.spend_variance(budget, 0.0, cost),
        lambda: acc.spend_all(budget, budget.total, [cost]),
        lambda: acc.fixed_plan_epsilon([FINE, cost], DELTA),
        lambda: acc.cost_to_json(cost),
    ):
        with pytest.raises(ValueError, match=field):
            use()
    if field not in ("events", "variance"):
        with pytest.raises(ValueError, match=field):
            acc.affordable_events(budget, budget.total, 0.0, cost)


def test_limits_of_modulation_step_and_what_is_left():
    budget = BUDGETS[8.0]
    assert acc.spend_variance(budget, budget.total, Embedded(1.0, 1e-3, 0.3, 0.6)) is not None
    with pytest.raises(ValueError, match="step"):
        acc.spend_variance(budget, budget.total, Embedded(1.0, 1e-3, 0.3, 0.6000001))
    with pytest.raises(ValueError, match="modulation"):
        acc.spend_variance(budget, budget.total, Embedded(1.0, 1e-3, 1.0, 0.5))
    for left in (-1e-9, math.nan, math.inf, budget.total * (1 + 1e-12)):
        with pytest.raises(ValueError, match="left"):
            acc.spend_variance(budget, left, FINE)
        with pytest.raises(ValueError, match="left"):
            acc.affordable_events(budget, left, 0.0, FINE)
    with pytest.raises(ValueError, match="Embedded or a Normal"):
        acc.spend_variance(budget, budget.total, (1.0, 1.0, 0.3, 0.3))
    for target in ((0.0, DELTA), (math.nan, DELTA), (1.0, 0.0), (1.0, 1.0), (1e-300, 1e-149)):
        with pytest.raises(ValueError, match=r"epsilon|delta"):
            acc.variance_budget(*target)


@given(st.floats(1e-90, 1e90), st.floats(1e-90, 1e90), st.floats(1e-3, 0.999), st.floats(1e-6, 1.0))
def test_costs_survive_json(k, events, r, turn):
    for cost in (Embedded(k, events, r, 2 * r * turn), Normal(events)):
        assert acc.cost_from_json(json.loads(json.dumps(acc.cost_to_json(cost)))) == cost


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"kind": "skellam", "variance": 1.0},
        {"kind": "normal"},
        {"kind": "normal", "variance": "nan"},
        {"kind": "normal", "variance": 1.0, "step": 1.0},
        {"kind": "embedded", "coordinates": 1.0, "events": 1.0, "modulation": 0.5},
        {"kind": "embedded", "coordinates": 1.0, "events": 1.0, "modulation": 0.5, "step": 1.1},
    ],
)
def test_json_that_is_no_cost(value):
    with pytest.raises(ValueError):
        acc.cost_from_json(value)


def test_extreme_budgets():
    """Tiny and huge targets: W still solves its equation, by mpmath."""
    for epsilon, delta in ((1e4, 1e-4), (1e-3, 0.9), (1.0, 1e-150), (1e-6, 1e-6)):
        budget = acc.variance_budget(epsilon, delta)
        with mp.workdps(60):

            def excess(width, epsilon=epsilon, delta=delta, tau=budget.tau):
                root = mp.sqrt(width)
                own = mp.ncdf(root / 2 - epsilon / root) - mp.exp(mp.mpf(epsilon)) * mp.ncdf(-root / 2 - epsilon / root)
                return (own + tau * mp.sqrt(width / (2 * mp.pi))) / mp.mpf(delta) - 1

            assert excess(mp.mpf(budget.total)) <= 0
            assert excess(mp.mpf(budget.total) * (1 + mp.mpf(10) ** -7)) > 0


# --- releases whose steps are shares of one ---------------------------------------------------------------------------


def test_releases_at_shares_of_a_step_cost_no_more_than_one_charge_in_any_order():
    """Charged one by one, each at its own step, the filter ends no lower than charged once for all of them."""
    factors = (1.0, 0.75, 0.65625, 0.6015625, 0.5639)
    facts = {"dark_count": 300.0, "modulation": 0.2, "honest_senders": 3, "norm_ratio": 2.0, "dimension": 9}
    whole = acc.scaled_cost(acc.embedded_cost(**facts), factors)
    energy = sum(c * c for c in factors)
    assert whole == acc.embedded_cost(**facts)._replace(events=pytest.approx(900.0 * energy))
    budget = acc.variance_budget(3.0, 1e-5)
    share = acc.affordable_events(budget, budget.total, 0.3 * budget.total, whole) / whole.events
    whole = whole._replace(events=share * whole.events)
    parts = [acc.embedded_cost(step_ratio=c, **facts) for c in factors]
    parts = [part._replace(events=share * part.events) for part in parts]
    charged = acc.spend_all(budget, budget.total, [whole])
    assert charged is not None
    for order in itertools.islice(itertools.permutations(parts), 0, 120, 7):
        left = acc.spend_all(budget, budget.total, list(order))
        assert left is not None and left >= charged
    # With these coarse steps it shows what a charge for one release less would miss.
    short = acc.spend_all(budget, budget.total, [whole._replace(events=whole.events * (1 - factors[-1] ** 2 / energy))])
    last = acc.spend_all(budget, budget.total, parts)
    assert short is not None and last is not None and charged < last < short


def test_shares_of_gaussian_releases_add_their_variances():
    assert acc.scaled_cost(acc.Normal(2.0), (1.0, 0.5)) == acc.Normal(2.5)
    assert acc.scaled_cost(acc.Normal(2.0), (1.0,)) == acc.Normal(2.0)
    for wrong in ((), (1.0, 0.0), (1.5,)):
        with pytest.raises(ValueError, match=r"each in \(0, 1\]"):
            acc.scaled_cost(acc.Normal(2.0), wrong)
