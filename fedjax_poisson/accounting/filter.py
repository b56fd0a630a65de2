"""Privacy filters: budgets that remain valid when every parameter is chosen based on earlier releases.

A filter is three pure functions over a small state; nothing is mutated:

    filter_ = event_budget_filter(epsilon=3.0, delta=1e-5, unit_rdp=curve_of_one_event)
    state = filter_.init()
    state, admitted = filter_.spend(state, events)      # release only if admitted

*Event budget* (exact). If the curve of release t is ``m_t * curve`` with a fixed curve and an adaptively chosen
amount m_t (the embedding at fixed honest senders, modulation and K: m_t is the dark count), then ``sum m_t <= M``
almost surely bounds ``sum rho_t(a) <= M curve(a)`` at ALL orders at once. Feldman and Zrnic 2021 (arXiv:2008.11193)
then gives (a, M curve(a)) for every a, so the best order may be taken and M is exactly what a non-adaptive accountant
would allow: adaptivity costs nothing.

*One order* otherwise. Fix a* in advance and stop before ``sum rho_t(a*)`` exceeds what a* certifies.

*Several orders* (a union): m orders in advance, each with delta / m, and a release is admitted while at least one
order is within its budget. Proof: let the process of order i release nothing from the moment its own sum would pass
its budget; it is (epsilon, delta/m)-private. Every outcome of the real process is an outcome of the truncated process
of some order that was still within its budget at the end; sum over orders.

Choosing the best order afterwards for adaptively chosen curves is wrong, and so are "natural" filters of f-DP
(arXiv:2602.06756).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fedjax_poisson.accounting import renyi
from fedjax_poisson.accounting.calibration import largest_scale
from fedjax_poisson.accounting.checks import FloatArray, check_budget, check_curve, check_orders
from fedjax_poisson.accounting.renyi import DEFAULT_ORDERS, rdp_budget


class FilterState(NamedTuple):
    """The state of a filter.

    Attributes:
      spent: per budget line (one per fixed order; one for events), rounded up, float64[m].
      admitted: number of releases admitted.
    """

    spent: FloatArray
    admitted: int


class PrivacyFilter(NamedTuple):
    """Pure functions of a privacy filter, and its facts.

    Attributes:
      init: () -> `FilterState`.
      spend: (state, cost) -> (state, admitted). The cost is a curve on `orders`, or the number of events for an event
        budget. A refused release leaves the state as it is, so a smaller one may follow.
      remaining: state -> float64[m], what is left on every budget line.
      budget: float64[m], the budget lines.
      orders: float64[n], the orders of the curves it takes (empty for an event budget).
    """

    init: Callable[[], FilterState]
    spend: Callable[[FilterState, ArrayLike], tuple[FilterState, bool]]
    remaining: Callable[[FilterState], FloatArray]
    budget: FloatArray
    orders: FloatArray


def default_filter_order(*, epsilon: float, delta: float, orders: ArrayLike | None = None) -> float:
    """The order that admits most of a curve proportional to the order (Gaussian-like), fixed before anything is known.

    Args:
      epsilon: budget in nats.
      delta: budget in (0, 1).
      orders: candidates, float64[n]; None for `DEFAULT_ORDERS`.

    Returns:
      The order maximising budget(a) / a.

    Raises:
      ValueError: no order can certify the budget.
    """
    orders = DEFAULT_ORDERS if orders is None else orders
    check_budget(epsilon, delta)
    orders = check_orders(orders)
    worth = np.array([rdp_budget(a, epsilon, delta) / a for a in orders])
    if worth.max() <= 0:
        raise ValueError(
            f"no order up to {orders[-1]:g} certifies epsilon {epsilon:g} at delta {delta:g}; pass larger orders or "
            "raise the budget"
        )
    return float(orders[int(np.argmax(worth))])


def _filter(
    budget: FloatArray, orders: FloatArray, cost_of: Callable[[ArrayLike], FloatArray], *, any_line: bool
) -> PrivacyFilter:
    def init() -> FilterState:
        return FilterState(spent=np.zeros_like(budget), admitted=0)

    def spend(state: FilterState, cost: ArrayLike) -> tuple[FilterState, bool]:
        values = cost_of(cost)
        total = np.where(values == 0, state.spent, np.nextafter(state.spent + values, np.inf))
        within = total <= budget
        admitted = bool(within.any() if any_line else within.all())
        return (FilterState(total, state.admitted + 1), True) if admitted else (state, False)

    def remaining(state: FilterState) -> FloatArray:
        return np.maximum(budget - state.spent, 0.0)

    return PrivacyFilter(init=init, spend=spend, remaining=remaining, budget=budget, orders=orders)


def event_budget_filter(
    *, epsilon: float, delta: float, unit_rdp: ArrayLike, orders: ArrayLike | None = None
) -> PrivacyFilter:
    """Exact filter for releases whose curves are multiples of one curve: a budget of events.

    Args:
      epsilon: budget in nats.
      delta: budget in (0, 1).
      unit_rdp: curve of one event, e.g. ``poisson_embedding_rdp(orders, dark_count=1.0, ...)``, float64[n]; a clip
        bit of rate mu_b adds ``mu_b / K`` events to its round.
      orders: its orders, float64[n]; None for `DEFAULT_ORDERS`.

    Returns:
      `PrivacyFilter` whose spend takes a number of events >= 0; ``budget[0]`` is the total number of events.
    """
    orders = DEFAULT_ORDERS if orders is None else orders
    check_budget(epsilon, delta)
    orders, unit = check_curve(orders, unit_rdp)
    if not np.any(np.isfinite(unit)) or np.all(unit == 0):
        raise ValueError("the curve of one event is zero or infinite at all orders: there is nothing to budget")
    start = epsilon / float(unit[np.isfinite(unit)][0] or 1.0)
    total = largest_scale(lambda m: renyi.epsilon(orders, m * unit, delta), epsilon, start)

    def events(cost: ArrayLike) -> FloatArray:
        value = np.asarray(cost, np.float64)
        if value.shape != () or not np.isfinite(value) or value < 0:
            raise ValueError(f"the number of events is {cost!r}; pass one finite number >= 0")
        return value.reshape(1)

    return _filter(np.array([total]), np.zeros(0), events, any_line=False)


def renyi_filter(
    *, epsilon: float, delta: float, orders: ArrayLike | None = None, fixed: ArrayLike | None = None
) -> PrivacyFilter:
    """Filter for arbitrary adaptively chosen curves: one order fixed in advance, or several at delta / m each.

    Args:
      epsilon: budget in nats.
      delta: budget in (0, 1).
      orders: orders of the curves that will be spent, float64[n]; None for `DEFAULT_ORDERS`.
      fixed: the order a*, or a vector of m of them, all among `orders`; None: `default_filter_order`.

    Returns:
      `PrivacyFilter` whose spend takes a curve on `orders`.
    """
    orders = DEFAULT_ORDERS if orders is None else orders
    check_budget(epsilon, delta)
    orders = check_orders(orders)
    chosen = np.atleast_1d(
        np.asarray(
            default_filter_order(epsilon=epsilon, delta=delta, orders=orders) if fixed is None else fixed, np.float64
        )
    )
    if not np.all(np.isin(chosen, orders)) or np.unique(chosen).size != chosen.size:
        raise ValueError(
            f"the fixed orders {chosen} must be distinct and among the orders {orders[0]:g}..{orders[-1]:g}"
        )
    budget = np.array([rdp_budget(a, epsilon, delta / chosen.size) for a in chosen])
    if np.all(budget <= 0):
        raise ValueError(
            f"none of the orders {chosen} certifies epsilon {epsilon:g} at delta {delta:g}; fix larger orders"
        )
    index = np.searchsorted(orders, chosen)

    def at_fixed_orders(cost: ArrayLike) -> FloatArray:
        return check_curve(orders, cost)[1][index]

    return _filter(budget, orders, at_fixed_orders, any_line=True)
