"""From a budget to a mechanism and its ledger, in one step: how much noise a given number of rounds needs, and where the rounds are charged."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from fedjax_poisson import accounting
from fedjax_poisson.accounting import Adjacency
from fedjax_poisson.federated.algorithm import check_sampling
from fedjax_poisson.federated.charging import round_rdp
from fedjax_poisson.federated.noise_schedule import tail_average_portions
from fedjax_poisson.federated.records import OVERFLOW
from fedjax_poisson.mechanisms import Mechanism
from fedjax_poisson.mechanisms.dark_counts import NOISE_PORTIONS, Shape, Terms, cheapest, repeated, settle_distance
from fedjax_poisson.mechanisms.types import at_portions, check_bounds, check_honest


class Budgeted(NamedTuple):
    """The result of `calibrate`.

    Attributes:
      mechanism: the Poisson embedding with enough noise for the rounds to cost at most the budget.
      ledger: the ledger with that budget, to be passed to the algorithm; it refuses the first round beyond the budget.
    """

    mechanism: Mechanism
    ledger: accounting.Ledger


def calibrate(
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    senders: int,
    dimension: int,
    unit: Literal["client", "record", "patient"],
    clip_norm: float,
    coordinate_bound: float | None = None,
    largest_site: int | None = None,
    sampling_rate: float = 1.0,
    honest_senders: int | None = None,
    adjacency: Adjacency = "zero_out",
    modulation: float | None = None,
    average_from: int | None = None,
    ledger: str | Path = accounting.MEMORY,
) -> Budgeted:
    """The least noise for which a number of rounds costs at most epsilon at delta, and a ledger that enforces it.

    Delta is split: a part is reserved for the distance of samplers from their laws (`accounting.plan_reserve`), and the mechanism gets the rest. Without
    sampling the ledger accounts by remaining variance or by Renyi curves, whichever needs less noise for these rounds; with sampling by Renyi curves.

    Args:
      epsilon: budget in nats of all rounds together.
      delta: its delta.
      rounds: number of planned rounds.
      senders: clients or sites in every sum; with fewer honest ones, or losses, the fewest that may be released.
      dimension: D, parameters of the model (`dimension_of`).
      unit: the privacy unit: "client" (`fedavg`), "record" or "patient" (`fedsgd`).
      clip_norm: L2 bound of one unit's update or gradient.
      coordinate_bound: bound on each of its coordinates; default `clip_norm` (none).
      largest_site: public bound on the units of one site; needed for "record" and "patient", where it sets the clamp on a site's sum.
      sampling_rate: q of secret Poisson sampling.
      honest_senders: senders that do not collude with the server; default: all but one.
      adjacency: "zero_out" or "replace_one".
      modulation: r of the embedding; None for the smallest from 0.05 to 0.3 that the samplers support.
      average_from: round after which parameters are averaged, as in `fedsgd`: rounds that weigh more in the average then get less noise
        (`noise_schedule`), and the algorithm must be made with `controller=controllers.schedule(tail_average_portions(rounds, average_from))`. None for
        the same noise in every round.
      ledger: file of the ledger; in memory if left out.

    Returns:
      `Budgeted(mechanism, ledger)`, for `fedavg(..., mechanism=mechanism, ledger=ledger)` or `fedsgd`.

    Raises:
      ValueError: a claim would be unsound or the budget cannot be met, with the reason.
    """
    coordinate = clip_norm if coordinate_bound is None else coordinate_bound
    check_bounds(clip_norm, coordinate)
    check_sampling(sampling_rate, adjacency)
    honest = senders - 1 if honest_senders is None else honest_senders
    check_honest(honest, senders)
    if (unit == "client") != (largest_site is None):
        raise ValueError(
            f"unit={unit!r} and largest_site={largest_site}: give largest_site, a public bound on the units of one site, for records and patients, "
            "and leave it out for clients."
        )
    participation = accounting.Participation(
        senders=senders,
        minimum_senders=senders,
        honest_senders=honest,
        sampling_rate=sampling_rate,
        adjacency=adjacency,
    )
    # A site's expected sum of sampled contributions, all of one sign, is the clamp: as `run` sets it.
    total = coordinate if largest_site is None else coordinate * max(1.0, largest_site * sampling_rate)
    overflow = OVERFLOW if sampling_rate < 1 and unit != "client" else 0.0
    if average_from is not None and (sampling_rate < 1 or unit == "client"):
        raise ValueError("average_from: a schedule of the noise is for fedsgd with sampling_rate=1; leave it out.")
    portions = None if average_from is None else tail_average_portions(rounds, average_from)
    shape = Shape(clip_norm, coordinate, total, dimension)

    def planned(law: str, draw: float) -> tuple[Mechanism, Terms, float]:
        distance = accounting.release_distance(senders=senders, dimension=dimension, overflow=overflow, draw=draw)
        reserve = accounting.plan_reserve(epsilon, delta, rounds * distance)
        variance = accounting.variance_budget(epsilon, delta - reserve) if law == "tight" else None
        terms = Terms(
            epsilon=epsilon,
            delta=delta - reserve,
            participation=participation,
            largest_site=largest_site or 1,
            sites_per_unit=1,
            modulation=modulation,
            orders=accounting.integer_orders(256) if sampling_rate < 1 else accounting.DEFAULT_ORDERS,
            variance=variance,
        )
        between = (0.0 if variance is None else variance.total, 0.0)
        priced = repeated(terms, shape, rounds=rounds, portions=portions, sampling_rate=sampling_rate, between=between)
        return priced.mechanism, terms, reserve

    def settled(law: str) -> tuple[Mechanism, Terms, float]:
        return settle_distance(
            functools.partial(planned, law), lambda found: found[:1], 1 if portions is None else NOISE_PORTIONS
        )

    laws = ("tight", "renyi") if sampling_rate == 1 else ("renyi",)
    plans = {law: functools.partial(settled, law) for law in laws}
    (mechanism, terms, reserve), _ = cheapest(plans, lambda plan: plan[0].variance(senders))
    schedule = (rounds, portions)
    return Budgeted(mechanism, _ledger(ledger, unit, mechanism, terms, reserve, delta, schedule, dimension))


def _ledger(
    path: str | Path,
    unit: str,
    mechanism: Mechanism,
    terms: Terms,
    reserve: float,
    delta: float,
    schedule: tuple[int, Sequence[int] | None],
    dimension: int,
) -> accounting.Ledger:
    """The ledger that accounts as the plan does."""
    participation, (rounds, portions) = terms.participation, schedule
    law: dict[str, Any] = {"law": "tight"}
    if terms.variance is None:
        used = [mechanism] * rounds if portions is None else [at_portions(mechanism, each) for each in portions]
        curves = {each: round_rdp(each, participation, dimension, terms.orders) for each in dict.fromkeys(used)}
        law = {"law": "renyi", "orders": terms.orders, "planned_rdp": np.sum([curves[each] for each in used], axis=0)}
    return accounting.open_ledger(
        path,
        epsilon=terms.epsilon,
        delta=delta,
        reserve=reserve,
        unit=unit,
        adjacency=participation.adjacency,
        **law,
    )
