"""The part of delta that covers inexact samplers: one rule for every planner.

If the law of a release is within total variation tau of the law that its curve describes, delta covers the difference: all of a run's releases together
cost `(1 + e^epsilon) * sum of tau` (`reserve_for`). The samplers of `randomness` are within 2**-60 of their laws in each draw, which
their tables check when they are made; a secret sample that does not fit its slots adds its probability.

A release whose law is within total variation tau of the one that its curve is of costs delta, not
epsilon: if all releases together are within tau = sum of their distances (each given the past), then
P'(S) <= P(S) + tau <= e^epsilon Q(S) + delta + tau <= e^epsilon Q'(S) + delta + (1 + e^epsilon) tau. The budget's
``reserve`` is the part of delta that is set aside for this: `Ledger.spend` refuses when (1 + e^epsilon) tau would pass it, and
the charges are held against delta - reserve.
"""

from __future__ import annotations

import math

from fedjax_poisson.accounting import renyi
from fedjax_poisson.accounting.checks import FloatArray

DRAW_DISTANCE = 2.0**-60
"""Largest total variation between one draw and its law; every table of `randomness` is refused above it."""

SCREENING = 1e-12 + 2.0**-35
"""Total variation that screening by norm proofs adds to a round, whatever else is in it.

An honest client is refused with at most 1e-12, whatever a server and f members withhold (`aggregation.norm_bound.HONEST_FAILURE`), and whether it is depends
on what it sends. Couple the round with one in which it is never refused: they differ with at most that probability, and in the second one the release has
the law of its curve (in the neighbouring world the client sends zero, whose T is 0, so it is not refused there; whether *other* clients are refused is the
same in both worlds, given the releases so far). The opened weighings of a proof are each within 2^-38 of a law without the client's counts, at most eight of
them: 2^-35 (*proved*, protocol of norm rounds).
"""

ATTEMPTS = 2
"""How often over the releases of a plan may be drawn: one that is lost in a crash is drawn again, and both count."""


def reserve_for(epsilon: float, distance: float) -> float:
    """Delta that covers a total-variation distance: ``(1 + e^epsilon) distance`` (module docstring), inf beyond floats."""
    return math.inf if epsilon > 700 else (1 + math.exp(epsilon)) * distance


def metered_epsilon(orders: FloatArray, spent: FloatArray, delta: float, distance: float) -> float:
    """The smallest epsilon, up to 1e-9 of it, whose delta also pays for the samplers: epsilon(delta - (1 + e^epsilon) distance) <= epsilon; inf for none.

    Args:
      orders: float64[n].
      spent: composed Renyi curve of all releases, float64[n].
      delta: of the guarantee.
      distance: total variation of all releases together.
    """
    found = renyi.epsilon(orders, spent, delta)
    while math.isfinite(found):
        left = delta - (reserve_for(found, distance) if distance else 0.0)
        needed = renyi.epsilon(orders, spent, left) if left > 0 else math.inf
        if needed <= found:
            return found
        found = needed * (1 + 1e-9)
    return math.inf


def release_distance(*, senders: int, dimension: int, overflow: float = 0.0, draw: float = DRAW_DISTANCE) -> float:
    """Bound on the total variation of one release's law: all draws of all senders, and what a sample adds that does not fit.

    Args:
      senders: senders in the sum.
      dimension: coordinates of the release.
      overflow: probability that a secret sample does not fit its slots (`federated.records.OVERFLOW`), 0 without sampling; and whatever else may befall a
        release as a whole (`SCREENING`).
      draw: total variation of one sender's draw of one coordinate (a mechanism's `facts.sampler_distance`).
    """
    return senders * dimension * draw + overflow


def plan_reserve(epsilon: float, delta: float, distance: float) -> float:
    """Delta to set aside for a plan whose releases add up to `distance`, `ATTEMPTS` times over.

    Args:
      epsilon: budget of the plan.
      delta: delta of the budget.
      distance: sum of `release_distance` over the planned releases.

    Raises:
      ValueError: it would fill delta.
    """
    reserve = reserve_for(epsilon, ATTEMPTS * distance)
    if reserve >= delta:
        raise ValueError(
            f"epsilon={epsilon:g} is too large for delta={delta:g}: what samplers may add, times e^epsilon, is {reserve:.2g}; ask for a smaller epsilon "
            "or compare with training without privacy."
        )
    return reserve
