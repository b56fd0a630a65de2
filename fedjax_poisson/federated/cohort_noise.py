"""The least noise of one way to spend a budget over fixed or sampled cohorts (`cohort_plan`)."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Literal

import numpy as np

from fedjax_poisson import accounting
from fedjax_poisson.accounting.calibration import largest_scale
from fedjax_poisson.federated.banding import Banding
from fedjax_poisson.federated.charging import round_rdp
from fedjax_poisson.mechanisms import Mechanism, poisson_embedding
from fedjax_poisson.mechanisms.dark_counts import Terms, budget, embedding, settle_distance

OptionLaw = Literal["tight", "renyi", "pld"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """What all options have in common."""

    epsilon: float
    delta: float
    rounds: int
    dimension: int
    clip_norm: float
    coordinate_bound: float
    colluding: int
    modulation: float | None
    law: Literal["tight", "renyi"]
    sampled_law: Literal["renyi", "pld"]
    weights: np.ndarray


def law_of(target: Target, who: accounting.Participation) -> OptionLaw:
    """By what the charges of a round are accounted."""
    return target.sampled_law if who.sampling_rate < 1 else target.law


def participation_of(target: Target, fewest: int, most: int, rate: float = 1.0) -> accounting.Participation:
    """Of a round with so many senders, at least and at most.

    Raises:
      ValueError: nobody but colluders might send.
    """
    if not 0 <= target.colluding < fewest:
        raise ValueError(
            f"colluding={target.colluding} of {fewest} senders: somebody besides them must send, or nothing is hidden."
        )
    return accounting.Participation(
        senders=most,
        minimum_senders=fewest,
        honest_senders=fewest - target.colluding,
        sampling_rate=rate,
        adjacency="zero_out",  # sampling, with which bands are compared, is proved for no other
    )


def least_noise(
    target: Target, who: accounting.Participation, encoding: Banding, charges: int
) -> tuple[Mechanism, float, np.ndarray]:
    """The mechanism, the delta set aside for its samplers, and the orders of its price."""
    orders = accounting.integer_orders(256) if who.sampling_rate < 1 else accounting.DEFAULT_ORDERS
    coordinate, size = target.coordinate_bound, target.dimension

    def planned(draw: float) -> tuple[Mechanism, float]:
        distance = accounting.release_distance(senders=who.senders, dimension=size, draw=draw)
        reserve = accounting.plan_reserve(target.epsilon, target.delta, charges * encoding.band * distance)
        terms = Terms(target.epsilon, target.delta - reserve, who, 1, 1, target.modulation, orders)
        find = _renyi_dark_count if law_of(target, who) == "renyi" else _tight_dark_count
        dark = functools.partial(find, target, terms, encoding, charges)
        return embedding(terms, dark, target.clip_norm, coordinate, coordinate, size).mechanism, reserve

    mechanism, reserve = settle_distance(planned, lambda found: found[:1])
    return mechanism, reserve, orders


def _renyi_dark_count(target: Target, terms: Terms, encoding: Banding, charges: int, modulation: float) -> float:
    """The largest dark count whose charges, by their Renyi curves, cost at most epsilon."""
    if encoding.band == 1:
        return accounting.calibrate_dark_count(
            rounds=charges,
            sampling_rate=terms.participation.sampling_rate,
            norm_ratio=target.clip_norm / target.coordinate_bound,
            dimension=target.dimension,
            modulation=modulation,
            **budget(terms),
        )
    one = poisson_embedding(
        clip_norm=target.clip_norm,
        coordinate_bound=target.coordinate_bound,
        dark_count=1.0,
        modulation=modulation,
    )
    unit = round_rdp(one, terms.participation, target.dimension, terms.orders, encoding.factors)

    def cost(dark: float) -> float:  # the curve of a release is linear in the dark count
        return accounting.epsilon(terms.orders, charges * dark * unit, terms.delta)

    return largest_scale(cost, target.epsilon * (1 - 1e-10), target.epsilon / (charges * float(unit[0])))


def _tight_dark_count(target: Target, terms: Terms, encoding: Banding, charges: int, modulation: float) -> float:
    """The same with the remaining variance; with sampling, by the privacy loss distribution of the dominating Gaussian."""
    who = terms.participation
    facts: dict[str, Any] = {
        "modulation": modulation,
        "honest_senders": who.honest_senders,
        "norm_ratio": target.clip_norm / target.coordinate_bound,
        "dimension": target.dimension,
        "adjacency": who.adjacency,
    }
    if who.sampling_rate < 1:
        return accounting.calibrate_dark_count_tight(
            epsilon=target.epsilon,
            delta=terms.delta,
            rounds=charges,
            sampling_rate=who.sampling_rate,
            orders=terms.orders,
            **facts,
        )
    one = accounting.scaled_cost(accounting.embedded_cost(dark_count=1.0, **facts), encoding.factors)
    assert isinstance(one, accounting.Embedded)
    budget = accounting.variance_budget(target.epsilon, terms.delta)
    guess = accounting.affordable_events(budget, budget.total, 0.0, one) / charges
    unit = one.events

    def refused(dark: float) -> float:  # charged in parts, each rounded up by itself: a little less than at once
        costs = [one._replace(events=dark * unit)] * charges
        return 0.0 if accounting.spend_all(budget, budget.total, costs) is not None else math.inf

    return largest_scale(refused, 0.0, guess / unit)
