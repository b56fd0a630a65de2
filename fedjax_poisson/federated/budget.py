"""From a budget to a mechanism and its ledger, in one step: how much noise a given number of rounds needs, and where the rounds are charged."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from fedjax_poisson import accounting
from fedjax_poisson.accounting import Adjacency
from fedjax_poisson.federated.algorithm import check_sampling
from fedjax_poisson.federated.charging import round_rdp
from fedjax_poisson.federated.records import OVERFLOW
from fedjax_poisson.mechanisms import Mechanism
from fedjax_poisson.mechanisms.dark_counts import Terms, budget, embedding, settle_distance
from fedjax_poisson.mechanisms.types import check_bounds, check_honest


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
    ledger: str | Path = accounting.MEMORY,
) -> Budgeted:
    """The least noise for which a number of rounds costs at most epsilon at delta, and a ledger that enforces it.

    Delta is split: a part is reserved for the distance of samplers from their laws (`accounting.plan_reserve`), and the curves get the rest.

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
    orders = accounting.integer_orders(256) if sampling_rate < 1 else accounting.DEFAULT_ORDERS

    def planned(draw: float) -> tuple[Mechanism, float]:
        distance = accounting.release_distance(senders=senders, dimension=dimension, overflow=overflow, draw=draw)
        reserve = accounting.plan_reserve(epsilon, delta, rounds * distance)
        terms = Terms(
            epsilon=epsilon,
            delta=delta - reserve,
            participation=participation,
            largest_site=largest_site or 1,
            sites_per_unit=1,
            modulation=modulation,
            orders=orders,
        )

        def dark(modulation: float) -> float:
            return accounting.calibrate_dark_count(
                rounds=rounds,
                sampling_rate=sampling_rate,
                norm_ratio=clip_norm / coordinate,
                dimension=dimension,
                step_ratio=coordinate / total,
                modulation=modulation,
                **budget(terms),
            )

        return embedding(terms, dark, clip_norm, coordinate, total, dimension).mechanism, reserve

    mechanism, reserve = settle_distance(planned, lambda found: found[:1])
    book = accounting.open_ledger(
        ledger,
        epsilon=epsilon,
        delta=delta,
        reserve=reserve,
        unit=unit,
        adjacency=adjacency,
        orders=orders,
        planned_rdp=rounds * round_rdp(mechanism, participation, dimension, orders),
    )
    return Budgeted(mechanism, book)
