"""What a release takes from the variance that remains (`remaining_variance`): its cost, and the rate at which it takes it.

The theorem, its proof and why the rate is rounded as it is are in the docstring of `remaining_variance`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fedjax_poisson.accounting.checks import FloatArray, positive
from fedjax_poisson.accounting.renyi import _channel, unchecked_divergence

TAIL = 1e-4
"""Tau over delta: near the best trade between the slack and the orders for every budget in use."""

_UP = 1 + 1e-9  # a rate, against the rounding of all sums that it is used in


class Embedded(NamedTuple):
    """What one release of the stochastic Poisson embedding takes; `embedded_cost` makes it from the facts of a release.

    Attributes:
      coordinates: K, the squared L2 norm of one unit's move over the squared largest move of a coordinate; any real > 0.
      events: M = honest_senders * dark_count, expected events per channel and coordinate that no colluder knows.
      modulation: r in (0, 1).
      step: h in (0, 2r], the largest move of a position that one unit can cause.
    """

    coordinates: float
    events: float
    modulation: float
    step: float


class Normal(NamedTuple):
    """What a Gaussian release takes.

    Attributes:
      variance: (L2 sensitivity / standard deviation of the noise)^2; under replace-one the sensitivity is that of a replacement.
    """

    variance: float


Cost: TypeAlias = Embedded | Normal
"""What one release takes of the remaining variance: of the embedding, or of a Gaussian."""


def embedded_cost(
    *,
    dark_count: float,
    modulation: float,
    honest_senders: int,
    norm_ratio: float,
    dimension: int,
    step_ratio: float = 1.0,
    adjacency: str = "zero_out",
) -> Embedded:
    """The cost of one release; arguments and errors as in `poisson_embedding_rdp`, replace-one doubles the step."""
    r, h, k = _channel(modulation, honest_senders, norm_ratio, dimension, step_ratio, adjacency)
    return Embedded(
        coordinates=k, events=int(honest_senders) * positive("dark_count", dark_count), modulation=r, step=h
    )


def scaled_cost(cost: Cost, factors: Sequence[float]) -> Cost:
    """Releases alike but for their steps, which are `factors` in (0, 1] times those of the cost, as one: sum of factor**2 times its events (or variance).

    *Proof*, for embedded releases, in the words of `remaining_variance`. In the release with the factor c let w fall at c**2 rate(w), rate and A those of the
    full step h. Inside, sum_j H_A <= K g_A(r, c h)/A <= c**2 K g_A(r, h)/A, as at A >= 2 the cost of a step is convex in its square and 0 at 0 (`renyi`).
    Outside, kappa of h is at least that of c h, so the exponent is at most log tau as before; the prefactor K c**2 h**2 / (1-r**2) and dm = |dw| / (c**2
    rate) have c**2 in common. All of these releases fall at one rate but for a factor, so what is left afterwards depends on the sum of c**2 M alone: they
    may come in any order, and units for which the order differs may be charged as one. That is so while nothing of another shape is spent between them. For
    Gaussian releases variances add up as they are. QED

    Args:
      cost: of the release at its full step.
      factors: of the releases' steps.

    Raises:
      ValueError: a factor is not in (0, 1], or there is none.
    """
    if not len(factors) or not all(0 < factor <= 1 for factor in factors):
        raise ValueError(f"factors {tuple(factors)}: give at least one, each in (0, 1]")
    total = math.fsum(factor * factor for factor in factors)
    if isinstance(cost, Normal):
        return Normal(cost.variance * total)
    return cost._replace(events=cost.events * total)


def check_cost(cost: Cost) -> None:
    """Refuse a cost that is not one, naming the field."""
    if isinstance(cost, Normal):
        positive("variance", cost.variance)
        return
    if not isinstance(cost, Embedded):
        raise ValueError(f"a cost is an Embedded or a Normal, this is {cost!r}")
    positive("coordinates", cost.coordinates)
    positive("events", cost.events)
    positive("modulation", cost.modulation)
    positive("step", cost.step)
    if not cost.modulation < 1:
        raise ValueError(f"modulation is {cost.modulation}; at 1 and above a rate can fall to 0: choose it below 1")
    if not cost.step <= 2 * cost.modulation:
        raise ValueError(
            f"step is {cost.step}; positions lie in [-r, r], so it is at most 2 modulation = {2 * cost.modulation}"
        )


def slack(tau: float, width: float) -> float:
    """tau sqrt(W / (2 pi)): what the theorem adds to the Gaussian's delta; rounded up."""
    return tau * math.sqrt(width / (2 * math.pi)) * (1 + 1e-14)


def skew(cost: Embedded) -> float:
    """kappa = log(1 + h/(1-r)): the logarithm of the largest factor by which an event changes the likelihood ratio."""
    return math.log1p(cost.step / (1 - cost.modulation))


def rates(left: FloatArray, cost: Embedded, tau: float) -> FloatArray:
    """Variance spent per event when so much is left, float64[n], rounded up; inf (or nan) where nothing can be afforded.

    Args:
      left: w > 0, float64[n].
      cost: a checked cost, whose events are not used.
      tau: in (0, 1).
    """
    kappa, log_tau = skew(cost), -math.log(tau)
    with np.errstate(over="ignore", invalid="ignore"):
        root = np.sqrt(np.maximum(kappa * kappa + 2 * left * (log_tau - kappa), 0.0))
        orders = np.maximum(1 + (kappa + root) / left, 2.0)
        divergence = unchecked_divergence(orders, cost.modulation, cost.step)
        return _UP * 2 * cost.coordinates * divergence / orders


def cost_to_json(cost: Cost) -> dict[str, Any]:
    """A dict of JSON values; floats survive exactly."""
    check_cost(cost)
    kind = "normal" if isinstance(cost, Normal) else "embedded"
    return {"kind": kind, **{name: float(value) for name, value in cost._asdict().items()}}


def cost_from_json(value: Mapping[str, Any]) -> Cost:
    """The cost that `cost_to_json` wrote.

    Raises:
      ValueError: a field is missing, unknown or out of range.
    """
    kinds: dict[Any, type[Embedded] | type[Normal]] = {"embedded": Embedded, "normal": Normal}
    kind = kinds.get(value.get("kind"))
    if kind is None:
        raise ValueError(f"the kind of a cost is {value.get('kind')!r}; it is 'embedded' or 'normal'")
    fields = {name: entry for name, entry in value.items() if name != "kind"}
    if set(fields) != set(kind._fields):
        raise ValueError(f"a cost of kind {value['kind']} has the fields {kind._fields}, this one has {tuple(fields)}")
    cost = kind(**{name: positive(name, entry) for name, entry in fields.items()})
    check_cost(cost)
    return cost
