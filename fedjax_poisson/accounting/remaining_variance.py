"""A fully adaptive privacy filter with tight accounting: the variance of a Gaussian that remains to be spent.

Renyi filters (`filter`) lose what the conversion from a curve loses, 15-22 % of variance (experiments/tight_ledger.py).
The supermartingale behind domination by a Gaussian (`tight`) never uses that rounds are alike, or fixed in advance; here
it is a filter. (For Gaussian releases alone such a filter is known: arXiv:2210.17520, 2209.15596. Composing trade-off
curves and stopping when the composition reaches the target is not one: arXiv:2602.06756.)

**Setting.** Two neighbouring inputs are the worlds P and Q. Epsilon, delta and tau in (0, 1) are fixed, and W with
delta_Gauss(epsilon; W^(-1/2)) + tau sqrt(W / (2 pi)) <= delta. A number w, at first W, is what remains. Before every
release the public past fixes its parameters:

* *Embedded*, (K, M, r, h): every coordinate j is sent on two channels with Poisson counts of rates M (1 +- s_j), all
  counts independent given the past; in both worlds the positions s_j lie in [-r, r], r < 1; and the worlds' positions
  differ by eta_j with |eta_j| <= h <= 2r and sum_j eta_j^2 <= K h^2. Positions and steps may depend on the past and
  on the data in any way. For the sum of senders, M = n_h mu: the noise that no colluder knows, then or later (more
  of it, or of senders who keep quiet, is processing after the release); eta counts all senders with data of one unit.
* *Normal*: a Gaussian release whose squared sensitivity over variance is at most v.

A(w) = max(2, 1 + [kappa + sqrt(max(kappa^2 + 2 w (log(1/tau) - kappa), 0))] / w), kappa = log(1 + h/(1-r)) of **this**
release, and rate(w) = 2 K g_{A(w)}(r, h) / A(w) with g of `renyi`. The release leaves w - v, or the w' that solves

    int_{w'}^{w} dv / rate(v) = M,

and is made only if that is above 0.

**Theorem (proved).** All releases together, at any stopping time, are (e, delta_Gauss(e; W^(-1/2)) + tau sqrt(W / (2
pi)))-private for every real e, in both directions, hence (epsilon, delta)-private.

*Proof.* Fix e. S is the likelihood ratio dP/dQ of the releases so far, u(w, S) = S Phi(d1) - e^e Phi(d1 - sqrt w),
d1 = (log S - e)/sqrt w + sqrt w/2, the Black-Scholes price: u(w, S) = E (S exp(sqrt w Z - w/2) - e^e)_+, Z normal. So
it is convex in S and increases in w, it is at least the payoff (S - e^e)_+, u(W, 1) = delta_Gauss(e; W^(-1/2)), and
S^2 u_SS = 2 u_w = S phi(d1)/sqrt w.

(1) *One embedded release.* Its parameters, positions and steps are fixed when it starts, whatever they depended on.
For the proof alone let its counts arrive as Poisson processes during m in [0, M], and let w fall by dw = -rate(w) dm
meanwhile, from w to w': a function of m, as r, h, K do not change before the release ends. An event multiplies S by
1 + xi, xi = +-eta_j / (1 +- s_j), and between events S rests, as the rates of a pair of channels add up to 2 in both
worlds. By Dynkin's formula (u <= S, 0 <= u_S <= 1, finitely many channels with bounded rates and jumps; the terms in
u_S add up to 0) E_Q u(w', S') - u(w, S) is the expected integral of the drift

    sum_j sum_+- (1 +- s_j) [u(S (1 + xi)) - u(S) - S xi u_S] - rate(w) u_w.

As u_SS(S y) = (phi(d1) / (S sqrt w)) y^(a-2) exp(-(log y)^2 / (2w)) with **a = 1 - d1/sqrt w**, Taylor's formula bounds
it by (S phi(d1)/sqrt w) [sum_j H_a(s_j, eta_j) - rate(w)/2], H_a = sum_+- (1 +- s) xi^2 int_0^1 (1-t) (1 + t xi)^(a-2) dt.
H_a is convex in the real number a; H_a of a pair is H_{1-a} of the swapped pair (positions s + eta and step -eta), which
satisfies the same constraints; and for real a >= 2 it is D_a/a, D_a the Renyi divergence per unit of M, so that the
theorem of `renyi` (worst position; f(t)/t^2 grows up to t = 2r) gives sum_j H_a <= sum_j (eta_j/h)^2 g_a(r, h)/a <= K
g_a(r, h)/a for any real K > 0.

*Inside, 1-A <= a <= A:* both ends are at most K g_A/A = rate/2, so by convexity is the rest: drift <= 0.

*Outside:* for a > A, (1 + t xi)^(a-2) <= e^{(a-2) kappa} and sum_+- (1 +- s) xi^2/2 = eta^2/(1-s^2), so the drift is
at most (K h^2/(1-r^2)) (S / sqrt(2 pi w)) exp((a-2) kappa - (a-1)^2 w/2). The exponent falls in a beyond 1 + kappa/w <= A
and is at most log tau at A(w), the larger root of that quadratic (without a root it is below log tau everywhere). For
a < 1-A the swapped pair at the order 1-a > A has the same bound, and d1^2 = (1-a)^2 w is larger than ((1-a)-1)^2 w.

*Together:* g_A/A >= h^2/(1-r^2) (order 2 has equality, and g_a/a grows, see below), so dm <= |dw| (1-r^2) / (2 K h^2)
and E_Q S_m = S: E_Q u(w', S') <= u(w, S) + S tau int_{w'}^{w} dv / (2 sqrt(2 pi v)).

(2) *One Gaussian release.* With the true squared shift v* <= v, S' = S exp(N(-v*/2, v*)) under Q, and E_Q u(w - v, S')
<= E_Q u(w - v*, S') = u(w, S).

(3) *All of them.* Add up over the releases before the stopping time. The intervals [w', w] do not overlap, their
lengths are functions of the past, and E_Q[S X] = E_P[X] for what the past determines (rates in (0, inf): P and Q have
the same null sets after finitely many releases), so the second terms add up to at most E_P tau int_0^W dv / (2 sqrt(2
pi v)) = tau sqrt(W/(2 pi)). At the end u >= the payoff at whatever w > 0 is left: E_Q (S_end - e^e)_+ <= delta_Gauss +
slack. Infinitely many releases: events of the infinite past are approximated by events of finite ones. Coins that
both worlds share: condition on them. The other direction is the same statement, as all constraints are symmetric. QED

**Covered.** Any dependence on the past: dark counts, clip bounds, clamps, r, the steps, n_h (public or guaranteed),
whether to go on. A unit that is absent (charged all the same). Replace-one, with h doubled. Blocks of one message, and
clip bits: successive releases. A release that is refused tells nothing new and costs nothing.

**Not covered.** Sampling (rate < 1), Skellam noise, discrete Gaussians and pure differential privacy: their ratio jumps
at once. (A fixed list of such releases could be reserved beforehand, with W from the loss distribution of Gauss(W)
composed with their dominating pairs; one-channel counts satisfy the theorem with their own g. Neither is offered.) A
sender whose noise of an earlier release becomes known later. A smaller epsilon because w is left over: what was spent is
random, and the freedom to stop at a good moment is paid for with the whole of W. A budget raised later, a change of
ledger: W is chosen before the first release. And with few senders and large steps (r = h = 0.9) hardly any release fits,
where the Renyi filter admits many (experiments/tight_ledger.py).

**Numerics, outward (checked numerically).** rate(v) falls with v: A falls, and g_a/a grows in a >= 2, as d/da H_a(-r, h)
is >= 0 at a = 2 (its integrand is (1-t) times a function of y = th that is 0 at 0 and has the derivative 1/((1-r)(1-r+y))
- 1/((1+r)(1+r-y)) >= 0 while y <= 2r) and H_a is convex in a. So a cell [lo, w] is charged at the rate of its lower end,
raised by 1e-9 against all rounding (g is good to 1e-12); a result is lowered by 1e-14. W is the lower end of a bisection.
Where the divergence overflows, and below 1e-6 W, everything is refused: since u falls with w, ending lower than the
theorem allows is always safe. Results may differ in the last bits between machines: store what is left, compare with a
tolerance of 1e-9.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fedjax_poisson.accounting.checks import FloatArray, check_budget
from fedjax_poisson.accounting.fixed_plan import fixed_plan_epsilon
from fedjax_poisson.accounting.gaussian import gaussian_delta
from fedjax_poisson.accounting.variance_cost import (
    TAIL,
    Cost,
    Embedded,
    Normal,
    check_cost,
    cost_from_json,
    cost_to_json,
    embedded_cost,
    rates,
    slack,
)

__all__ = [
    "FLOOR",
    "TAIL",
    "Cost",
    "Embedded",
    "Normal",
    "VarianceBudget",
    "affordable_events",
    "cost_from_json",
    "cost_to_json",
    "embedded_cost",
    "fixed_plan_epsilon",
    "spend_all",
    "spend_variance",
    "variance_budget",
]

FLOOR = 1e-6
"""Below this part of W everything is refused; it keeps the orders finite."""

_STEP = 0.995  # a cell of the integral is this part of its upper end
_FEWEST_CELLS, _MOST_CELLS = 16, 128  # evaluated at once
_POWERS: FloatArray = _STEP ** np.arange(1.0, _MOST_CELLS + 1)
_DOWN = 1 - 1e-14
_LEAST, _LARGEST = 1e-190, 1e190  # of a variance whose noise multiplier `gaussian_delta` takes


class VarianceBudget(NamedTuple):
    """A budget, fixed before the first release.

    Attributes:
      epsilon: in nats.
      delta: in (0, 1).
      tau: tail of the domination, see the module docstring.
      total: W, what there is at first.
      floor: w_0, at which everything is refused.
    """

    epsilon: float
    delta: float
    tau: float
    total: float
    floor: float


def variance_budget(epsilon: float, delta: float) -> VarianceBudget:
    """The largest W with delta_Gauss(epsilon; W^(-1/2)) + slack <= delta, rounded down; tau is `TAIL` * delta.

    Args:
      epsilon: target in nats, > 0.
      delta: target in (0, 1).

    Returns:
      `VarianceBudget`, with everything left.

    Raises:
      ValueError: the target is out of range.
    """
    epsilon, delta = check_budget(epsilon, delta)
    tau, allowed = TAIL * delta, delta * (1 - 1e-9)

    def fits(width: float) -> bool:
        return gaussian_delta(epsilon, 1 / math.sqrt(width)) + slack(tau, width) <= allowed

    low = high = 1.0
    while fits(high) and high < _LARGEST:
        high *= 4
    while not fits(low):
        low /= 4
        if low < _LEAST:
            raise ValueError(f"delta is {delta:g}; with epsilon {epsilon:g} float64 finds no release that fits into it")
    while True:
        middle = math.sqrt(low * high)
        if not low < middle < high or high / low < 1 + 1e-14:
            break
        low, high = (middle, high) if fits(middle) else (low, middle)
    return VarianceBudget(epsilon, delta, tau, low, FLOOR * low)


def _cells(budget: VarianceBudget, left: float, cost: Embedded) -> Iterator[tuple[float, float, float]]:
    """(upper end, lower end, rate) of adjacent cells from `left` down to the floor, or to where the rate is not finite."""
    upper, cells = left, _FEWEST_CELLS
    while upper > budget.floor:
        lower = np.maximum(upper * _POWERS[:cells], budget.floor)
        for low, rate in zip(lower.tolist(), rates(lower, cost, budget.tau).tolist(), strict=True):
            if not rate < math.inf or upper <= budget.floor:
                return
            yield upper, low, rate
            upper = low
        cells = min(4 * cells, _MOST_CELLS)


def _check_left(budget: VarianceBudget, left: float) -> None:
    if not 0 <= left <= budget.total:
        raise ValueError(f"{left} is left; it lies between 0 and the budget's total {budget.total}, which cannot grow")


def spend_variance(budget: VarianceBudget, left: float, cost: Cost) -> float | None:
    """What is left after a release; make the release only after that is recorded.

    Args:
      budget: from `variance_budget`.
      left: w, what is left before the release, in [0, budget.total].
      cost: of the release, a function of the public past alone.

    Returns:
      w' in [budget.floor, left), rounded down, or None: the release is refused, and `left` stays as it is.

    Raises:
      ValueError: `left` or a field of the cost is out of range.
    """
    check_cost(cost)
    _check_left(budget, left)
    if isinstance(cost, Normal):
        after = (left - cost.variance * (1 + 1e-12)) * _DOWN
        return after if after >= budget.floor else None
    events = cost.events
    for upper, low, rate in _cells(budget, left, cost):
        spent = events * rate
        if spent <= upper - low:
            after = (upper - spent) * _DOWN
            return after if after >= budget.floor else None
        events -= (upper - low) / rate
    return None


def spend_all(budget: VarianceBudget, left: float, costs: Sequence[Cost]) -> float | None:
    """What is left after several releases in this order; None if one of them is refused (then charge none of them)."""
    after: float | None = left
    for cost in costs:
        if after is None:
            return None
        after = spend_variance(budget, after, cost)
    return after


def affordable_events(budget: VarianceBudget, high: float, low: float, cost: Embedded) -> float:
    """The most events that take no more than what lies between `high` and `low`, for a planner.

    Args:
      budget: from `variance_budget`.
      high: what is left before, in [0, budget.total].
      low: what shall be left afterwards; below the floor it means the floor.
      cost: K, r and h of the release; its events are ignored.

    Returns:
      M >= 0, within 1e-5 of the largest M for which `spend_variance` from `high` ends at `low` or above, and never more; 0 if
      there is none.

    Raises:
      ValueError: a limit or a field of the cost is out of range.
    """
    cost = cost._replace(events=1.0)
    check_cost(cost)
    _check_left(budget, high)
    _check_left(budget, low)
    goal, events = max(low, budget.floor) * (1 + 2e-14), 0.0
    for upper, lower, rate in _cells(budget, high, cost):
        events += max(upper - max(lower, goal), 0.0) / rate
        if lower <= goal:
            break
    events *= 1 - 1e-12  # a sum and a difference of at most 3,000 terms: rounding is below 7e-13 of the largest
    return min(events, 1e100) if events >= 1e-100 else 0.0  # what a cost may have
