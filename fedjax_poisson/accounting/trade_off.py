"""The attacker's best test: how often it may detect a unit at each rate of false alarms, from what a ledger was charged.

Q is the law of everything released without the unit, P with it. A test says "it was used" on an event S (or with a
probability that depends on what was seen: a mixture of events, for which everything below holds too). Its *false
alarms* are a = Q(S), its *detection* is p = P(S). A trade-off curve bounds p for every a. It says more than one
(epsilon, delta), which is one pair of lines that touch it (Wasserman and Zhou 2010; Kairouz, Oh and Viswanath 2015;
Dong, Roth and Su 2022).

**From one (epsilon, delta)**, in both directions: p <= e^epsilon a + delta is the definition for S, and 1 - p =
P(not S) >= e^-epsilon (Q(not S) - delta) is the swapped definition for the rest, so

    p <= min(1, e^epsilon a + delta, 1 - e^-epsilon (1 - a - delta)).

**From remaining variance** (`remaining_variance`, `fixed_plan`). Their theorem gives p <= e^e a + delta_Gauss(e; z) +
s for *every real* e, z = W^(-1/2), s = tau sqrt(W / (2 pi)), and both directions. Take the pair N(0, z^2), N(1, z^2)
and its event T = {dP/dQ > e^e} with e such that T has probability a under N(0, z^2). By Neyman and Pearson delta_Gauss(e)
= P(T) - e^e Q(T), hence e^e a + delta_Gauss(e) = P(T), the Gaussian pair's own detection:

    p <= min(1, Phi(Phi^-1(a) + sqrt W) + s).

**From Renyi divergences.** The test is a function of what was seen, so by data processing the pair of coins with the
chances p and a satisfies, at every order o of the curve and in both directions,

    (1/(o-1)) log(p^o a^(1-o) + (1-p)^o (1-a)^(1-o)) <= RDP(o).

The left side grows in p on [a, 1], so a bisection finds the largest p; the least over the orders and both directions
counts. The bound is never above that of any (epsilon, delta) to which the curve converts: a conversion holds for all
pairs, so for the two coins as well.

**Samplers** whose laws are within total variation v of those that the ledger was charged for, all releases together:
Q(S) is at most Q'(S) + v and P'(S) at most P(S) + v, so p' <= bound(a' + v) + v.

All of this is *proved*; the arithmetic is *checked numerically*: against the closed form of the Gaussian, and against
the exact most powerful test of a Poisson pair (tests/accounting/test_trade_off.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from fedjax_poisson.accounting.checks import FloatArray, check_curve
from fedjax_poisson.accounting.fixed_plan import fixed_plan_width, merged
from fedjax_poisson.accounting.law import Charge, Law, TightLaw, _times
from fedjax_poisson.accounting.variance_cost import TAIL, Cost, slack

__all__ = ["detection", "detection_of_charges", "detection_of_rdp", "detection_of_variance"]

_UP = 1e-12  # a few roundings of probabilities
_HALVINGS = 60


def _rates(false_alarms: ArrayLike) -> FloatArray:
    rates = np.asarray(false_alarms, np.float64)
    if not (rates.size and np.all((rates >= 0) & (rates <= 1))):
        raise ValueError(f"false_alarms are {false_alarms!r}; give at least one rate, each between 0 and 1")
    return rates


def detection(false_alarms: ArrayLike, *, epsilon: float, delta: float) -> FloatArray:
    """Largest detection of any test, from one (epsilon, delta) that holds in both directions.

    Args:
      false_alarms: rates in [0, 1], float64[n].
      epsilon: nats, >= 0; may be infinite.
      delta: in [0, 1].

    Returns:
      float64[n] in [0, 1].

    Raises:
      ValueError: a rate, epsilon or delta is out of range.

    >>> detection([0.05], epsilon=0.0, delta=0.0).tolist()
    [0.05]
    """
    rates = _rates(false_alarms)
    if not (epsilon >= 0 and 0 <= delta <= 1):
        raise ValueError(f"epsilon is {epsilon} and delta {delta}; epsilon is at least 0, delta lies between 0 and 1")
    if epsilon > 700:
        return np.ones_like(rates)
    grown = math.exp(epsilon)
    found = np.minimum(grown * rates + delta, 1 - (1 - rates - delta) / grown)
    return np.clip(found, 0.0, 1.0)


def detection_of_variance(false_alarms: ArrayLike, *, variance: float, more: float = 0.0) -> FloatArray:
    """Largest detection where a Gaussian of squared sensitivity over variance W dominates (`remaining_variance`).

    Args:
      false_alarms: rates in [0, 1], float64[n].
      variance: W, >= 0; without slack the exact curve of a Gaussian mechanism with noise multiplier W^(-1/2).
      more: what the domination adds (its slack) to every delta, >= 0.

    Returns:
      float64[n] in [0, 1].

    Raises:
      ValueError: a rate is out of range, or the variance or what is added is negative.
    """
    rates = _rates(false_alarms)
    if not (variance >= 0 and more >= 0):
        raise ValueError(f"variance is {variance} and more {more}; both are 0 or more")
    with np.errstate(invalid="ignore"):  # at a rate of 0 or 1 with infinite variance
        found = special.ndtr(special.ndtri(rates) + math.sqrt(variance))
    return np.clip(np.where(np.isnan(found), 1.0, found) * (1 + _UP) + more, rates, 1.0)


def detection_of_rdp(false_alarms: ArrayLike, orders: ArrayLike, rdp: ArrayLike) -> FloatArray:
    """Largest detection that a composed Renyi curve allows, in both directions.

    Args:
      false_alarms: rates in [0, 1], float64[n].
      orders: of the curve, above 1, float64[m].
      rdp: nats, float64[m]; may hold +inf.

    Returns:
      float64[n] in [0, 1].

    Raises:
      ValueError: a rate is out of range, or the curve does not fit its orders.
    """
    rates = _rates(false_alarms)
    own, curve = check_curve(orders, rdp)
    finite = np.isfinite(curve)
    a, bound = own[finite][:, None], ((own - 1) * curve)[finite][:, None]
    flat = rates.reshape(-1)
    if not finite.any():
        return np.ones_like(rates)
    low, high = flat.copy(), np.ones_like(flat)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        allowed = np.all(_coins(a, middle, flat) <= bound, axis=0) & np.all(_coins(a, flat, middle) <= bound, axis=0)
        low, high = np.where(allowed, middle, low), np.where(allowed, high, middle)
    return np.clip(high * (1 + _UP) + _UP, flat, 1.0).reshape(rates.shape)


def _coins(a: FloatArray, p: FloatArray, q: FloatArray) -> FloatArray:
    """log(p^a q^(1-a) + (1-p)^a (1-q)^(1-a)) of coins with the chances p and q, float64[m, n]; +inf where p has what q has not."""
    with np.errstate(divide="ignore", invalid="ignore"):
        heads = np.where(p > 0, a * np.log(p) + (1 - a) * np.log(q), -math.inf)
        tails = np.where(p < 1, a * np.log1p(-p) + (1 - a) * np.log1p(-q), -math.inf)
        return np.logaddexp(heads, tails)


def detection_of_charges(
    false_alarms: ArrayLike,
    law: Law,
    charges: Iterable[tuple[Charge, int]],
    *,
    adapts: bool = False,
    distance: float = 0.0,
) -> FloatArray:
    """Largest detection after the releases that a ledger was charged with.

    Args:
      false_alarms: rates in [0, 1], float64[n].
      law: of the ledger.
      charges: `(charge, times)` in the order of spending (`Ledger.charges`); without any nothing can be detected.
      adapts: whether releases, or the moment of stopping, were chosen from earlier releases: then the whole budget of
        the law counts, whatever was spent of it.
      distance: total variation v of all releases together from the laws that were charged.

    Returns:
      float64[n] in [0, 1].

    Raises:
      ValueError: a rate or the distance is out of range.
    """
    if not 0 <= distance <= 1:
        raise ValueError(f"distance is {distance}; a total variation lies in [0, 1]")
    rates = _rates(false_alarms)
    moved = np.minimum(rates + distance, 1.0)
    spent = [(charge, times) for charge, times in charges if times]
    if not spent:
        return rates
    if isinstance(law, TightLaw):
        tau, width = law.budget.tau, law.budget.total
        if not adapts:
            tau = TAIL * law.budget.delta
            width = fixed_plan_width(tuple(merged([_times(cast(Cost, charge), times) for charge, times in spent])), tau)
        found = detection_of_variance(moved, variance=width, more=slack(tau, width))
    elif adapts:
        found = detection_of_rdp(moved, [law.order], [law.budget])
    else:
        total = np.sum([times * cast(FloatArray, charge) for charge, times in spent], axis=0)
        found = detection_of_rdp(moved, law.orders, total)
    return np.minimum(found + distance, 1.0)
