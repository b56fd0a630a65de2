"""The two laws by which a ledger admits releases: a Renyi filter, or the remaining variance of a dominating Gaussian.

A law has one number, its *meter*. Under the Renyi law a release is charged with its curve and the meter is the divergence at the ledger's order a*, which
rises to a budget. Under the tight law a release is charged with a `Cost` and the meter is the variance that is left, which falls to zero
(proof: `remaining_variance`); it admits 11-15 % more than Renyi accounting of the same embedding, but knows no law for secret sampling and for mechanisms
other than the Poisson embedding and the Gaussian. A ledger keeps the law that it was made with: which one admits more must be decided before the first
release.

**The Renyi law.** Let a* be the order that the ledger fixed when it was created, rho_t(a*) the divergence of release t given everything released
before, and B = epsilon - log(1 - 1/a*) + (log delta + log a*) / (a* - 1). A release is admitted only while
sum_t rho_t(a*) <= B. Then the sequence of all admitted releases is (a*, B)-Renyi
private even if every mechanism, its parameters and the moment of stopping were chosen from earlier releases (Feldman
and Zrnic 2021, arXiv:2008.11193, the Renyi filter: a bound that holds almost surely on the sum of adaptively chosen
divergences of one order), hence (epsilon, delta)-private by the Canonne-Kamath-Steinke conversion at that order. The
order may not be chosen afterwards from what was spent; it is part of the first link of the chain and cannot be
changed. So there are two ways to open a ledger:

* *planned*: pass ``planned_rdp``, the composed curve of the releases that are planned. a* is its best order, which
  makes the admission exactly as generous as the accountant that calibrated the plan. If the schedule of curves really
  was fixed in advance, the curves compose at all orders at once and `Ledger.epsilon` reports the best order for what
  has been spent so far.
* *filter*: no plan. a* is ``filter_order`` or the best order for a Gaussian-like curve
  (`filter.default_filter_order`), and `Ledger.epsilon` reads the meter at a* only. For an adaptively chosen schedule
  the statement to publish is the budget, not the reading.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from typing import Any, TypeAlias, cast

import numpy as np

from fedjax_poisson.accounting import renyi
from fedjax_poisson.accounting.checks import FloatArray, check_curve
from fedjax_poisson.accounting.fixed_plan import fixed_plan_epsilon
from fedjax_poisson.accounting.remaining_variance import VarianceBudget, spend_variance
from fedjax_poisson.accounting.renyi import epsilon_per_order, rdp_budget
from fedjax_poisson.accounting.variance_cost import Cost, Embedded, Normal, cost_from_json, cost_to_json

Charge: TypeAlias = FloatArray | Cost
"""What a release is charged with: its Renyi curve float64 `[orders]`, or what it takes of the remaining variance."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RenyiLaw:
    """Renyi filter at one order that was fixed in advance.

    Attributes:
      orders: of every curve, float64 `[n]`.
      order: a*, the order that admits.
      planned: whether the schedule of curves was announced when the ledger was made.
      epsilon: the budget in nats; infinite for a meter without one.
      delta: its delta, less the reserve.
    """

    orders: FloatArray
    order: float
    planned: bool
    epsilon: float
    delta: float

    @property
    def index(self) -> int:
        """The place of a*."""
        return int(np.searchsorted(self.orders, self.order))

    @property
    def budget(self) -> float:
        """Nats at a* that may be spent."""
        return rdp_budget(self.order, self.epsilon, self.delta)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TightLaw:
    """Filter on the remaining variance.

    Attributes:
      budget: the variance that may be spent, and the facts that it follows from.
    """

    budget: VarianceBudget


Law: TypeAlias = RenyiLaw | TightLaw
"""How a ledger adds up: at one Renyi order, or by remaining variance; fixed when the ledger is made."""


def checked(law: Law, charge: Any, mechanism: str) -> Charge:
    """The charge of a release under a law.

    Raises:
      ValueError: it is not what the law charges, or infinite there, with the remedy.
    """
    if isinstance(law, TightLaw):
        if not isinstance(charge, Embedded | Normal):
            raise ValueError(
                f"the ledger accounts by remaining variance, and no such cost is proved for this release of {mechanism!r} (secret sampling, or another "
                'mechanism than poisson_embedding and gaussian): charge it to a ledger that was made with law="renyi".'
            )
        return charge
    if isinstance(charge, Embedded | Normal):
        raise ValueError(
            f"the ledger accounts by Renyi curves: charge the release of {mechanism!r} with its curve on the ledger's orders, not with a variance."
        )
    _, curve = check_curve(law.orders, charge)
    if not math.isfinite(curve[law.index]):
        raise ValueError(
            f"the release of {mechanism!r} is infinite at the ledger's order {law.order:g}: it has no Renyi guarantee "
            "there; use a mechanism with finite divergence or open the ledger at a lower filter_order"
        )
    return curve


def meter_in_words(law: Law) -> str:
    """What the meter of a row says."""
    if isinstance(law, TightLaw):
        return f"variance left of {law.budget.total:.6g}"
    return f"nats spent at order {law.order:g}"


def first_meter(law: Law) -> float:
    """The meter before anything was released."""
    return 0.0 if isinstance(law, RenyiLaw) else law.budget.total


def charged(law: Law, meter: float, charge: Charge) -> float | None:
    """The meter after one more release, rounded against the budget; None if the budget does not allow it."""
    if isinstance(law, TightLaw):
        return spend_variance(law.budget, meter, cast(Cost, charge))
    total = add_upward(meter, float(cast(FloatArray, charge)[law.index]))
    return total if total <= law.budget else None


def follows(law: Law, stored: float, computed: float) -> bool:
    """Whether a stored meter is the computed one; machines may differ in the last bits of a variance (`remaining_variance`)."""
    return abs(stored - computed) <= 1e-9 * law.budget.total if isinstance(law, TightLaw) else stored == computed


def what_is_missing(law: Law, meter: float, charge: Charge) -> str:
    """Why a release was refused, in numbers."""
    if isinstance(law, TightLaw):
        return f"costs more than what is left: {meter / law.budget.total:.3g} of the variance that the budget allows"
    cost = float(cast(FloatArray, charge)[law.index])
    return f"costs {cost:.6g} nats at order {law.order:g}, {max(law.budget - meter, 0):.6g} of {law.budget:.6g} remain"


def share_left(law: Law, meter: float) -> float:
    """What is left of the budget in the law's own number, a fraction of the whole; 1 for a meter without a budget."""
    if isinstance(law, TightLaw):
        return max(meter, 0.0) / law.budget.total
    return 1.0 if math.isinf(law.budget) else max(law.budget - meter, 0.0) / law.budget


def scheduled_epsilon(law: Law, charges: Iterable[tuple[Charge, int]], delta: float) -> float:
    """Epsilon of releases whose schedule was fixed beforehand, 0 without any.

    Args:
      law: that the charges are of.
      charges: `(charge, times)` in the order of spending.
      delta: in (0, 1), less what samplers take of it.
    """
    spent = [(charge, times) for charge, times in charges if times]
    if not spent:
        return 0.0
    if isinstance(law, TightLaw):
        return fixed_plan_epsilon([_times(cast(Cost, charge), times) for charge, times in spent], delta)
    total = np.sum([times * cast(FloatArray, charge) for charge, times in spent], axis=0)
    return renyi.epsilon(law.orders, total, delta)


def reading(law: Law, charges: Iterable[tuple[Charge, int]], meter: float) -> float:
    """What a ledger shows as spent: `scheduled_epsilon`, or for a Renyi filter (a law without a plan) epsilon at a* only.

    For a schedule or a moment of stopping that was chosen from earlier releases the statement to publish is the budget.

    Args:
      law: of the ledger.
      charges: `(charge, times)` in the order of spending.
      meter: after them.
    """
    if isinstance(law, TightLaw):
        return scheduled_epsilon(law, charges, law.budget.delta)
    if law.planned or math.isinf(law.epsilon):
        return scheduled_epsilon(law, charges, law.delta)
    return 0.0 if meter == 0 else float(epsilon_per_order([law.order], [meter], law.delta)[0])


def _times(cost: Cost, times: int) -> Cost:
    if isinstance(cost, Normal):
        return Normal(times * cost.variance)
    return cost._replace(events=times * cost.events)


def pack(charge: Charge) -> bytes:
    """Exact bytes of a charge: little-endian float64 of a curve, or JSON."""
    if isinstance(charge, Embedded | Normal):
        return json.dumps(cost_to_json(charge), sort_keys=True, separators=(",", ":")).encode()
    return charge.astype("<f8").tobytes()


def unpack(law: Law, blob: bytes) -> Charge:
    """The charge of `pack`; a curve is read-only."""
    if isinstance(law, TightLaw):
        return cost_from_json(json.loads(blob))
    curve = np.frombuffer(blob, "<f8").astype(np.float64)
    curve.setflags(write=False)
    return curve


def add_upward(spent: float, amount: float) -> float:
    """Spent + amount, never below the exact sum."""
    total = spent + amount
    return total if amount == 0 else math.nextafter(total, math.inf)
