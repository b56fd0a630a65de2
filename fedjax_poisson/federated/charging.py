"""Where a round is charged: to the algorithm's ledger, to the caller's gate, or, by explicit request, nowhere.

Every algorithm has a ledger. `apply(state, cohort, stream)` charges it before the sum is opened. A gate passed by the caller replaces it (for runs with
other kinds of releases, or several processes). `gate="unaccounted"` charges nothing, warns once, and makes the epsilon of this algorithm infinite from then
on, because counting later releases cannot make up for one that was not counted.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jax import Array

from fedjax_poisson import accounting
from fedjax_poisson.accounting import Ledger, Participation
from fedjax_poisson.federated.private_sum import Gate
from fedjax_poisson.federated.reuse import Openings
from fedjax_poisson.mechanisms.noise_source import noise_source, release_distance
from fedjax_poisson.mechanisms.types import Mechanism
from fedjax_poisson.randomness import Stream

DELTA = 1e-5
"""Delta of the ledger that an algorithm makes for itself."""

Paying = Gate | Literal["unaccounted"] | None
"""How a round is paid for: None by the algorithm's ledger, a gate by its caller, "unaccounted" not at all."""


class UnaccountedWarning(UserWarning):
    """A release was opened that no ledger knows of."""


class RoundAccount(NamedTuple):
    """How one algorithm's rounds are paid for.

    Attributes:
      ledger: the algorithm's; None without a mechanism, where nothing is private and nothing can be charged.
      charge: `(paying, number, senders, last=None, own=None)`: charge round `number` (1, 2, ...) with this many senders in the sum, and what it covers of
        the rounds up to `last`, through the mechanism `own` where it is not that of every round; raises what the ledger or the gate raises.
      judged: `(paying, number)`: charge what the members' judgement of norm proofs has shown of round `number`, which then ended without a release: a
        row of no cost and the distance of screening. Nothing in light rounds; a caller's gate pays for releases, so its caller accounts for this.
      epsilon: `(paying) -> float | None`: spent so far at the ledger's delta; infinite if anything went unaccounted, None if the caller's gate is charged.
      rdp: `(orders) -> float64[orders]`, the curve of one round, sampling included, of the dearest under a schedule; infinite without a mechanism.
      price: privacy cost of one round with all senders present, for any ledger, of the dearest round under a schedule; None without a mechanism.
      budget: epsilon that the ledger admits; infinite for a meter.
    """

    ledger: Ledger | None
    charge: Callable[..., None]
    judged: Callable[[Paying, int], None]
    epsilon: Callable[[Paying], float | None]
    rdp: Callable[[np.ndarray], np.ndarray]
    price: accounting.Price | None
    budget: float


def round_rdp(
    mechanism: Mechanism,
    participation: Participation,
    dimension: int,
    orders: np.ndarray,
    factors: Sequence[float] = (1.0,),
) -> np.ndarray:
    """float64 `[orders]`, the Renyi curve of one charge, sampling included: of as many releases as there are `factors` (`make_round_account`)."""
    honest, adjacency = noise_source(mechanism, participation).honest, participation.adjacency
    if tuple(factors) == (1.0,):
        full = mechanism.rdp(orders, honest, dimension, adjacency)
    elif mechanism.scaled_rdp is None:
        raise ValueError(no_scaled_price(mechanism))
    else:
        curves = [mechanism.scaled_rdp(factor, orders, honest, dimension, adjacency) for factor in factors]
        full = accounting.compose(*curves)
    rate = participation.sampling_rate
    return full if rate == 1 else accounting.subsampled_rdp(orders, full, rate)


def round_cost(
    mechanism: Mechanism, participation: Participation, dimension: int, factors: Sequence[float] = (1.0,)
) -> accounting.Cost | None:
    """What one charge takes of a remaining variance (`round_rdp`); None with secret sampling, or where the mechanism has no such cost."""
    if mechanism.cost is None or participation.sampling_rate < 1:
        return None
    whole = mechanism.cost(noise_source(mechanism, participation).honest, dimension, participation.adjacency)
    return accounting.scaled_cost(whole, factors)


def make_round_account(
    *,
    mechanism: Mechanism | None,
    participation: Participation,
    dimension: int,
    unit: str,
    ledger: Ledger | None,
    delta: float | None,
    overflow: float = 0.0,
    factors: Sequence[float] = (1.0,),
    fidelity: str | None = None,
) -> RoundAccount:
    """The account of an algorithm.

    Args:
      mechanism: the mechanism of a round's release, of the dearest round where they differ; None for no privacy.
      participation: of a round.
      dimension: coordinates of a round's sum; with the mechanism's draws and `overflow` it bounds the total variation between a round's law and the
        curve's (`accounting.release_distance`). The ledger that is made reads it into its epsilon; a caller's ledger is charged with it where it has a
        reserve for it, else it comes on top of the stated delta.
      unit: who is protected.
      ledger: the caller's; None makes one in memory, a meter without a budget.
      delta: of the ledger that is made; None for 1e-5.
      overflow: probability that a round's secret sample does not fit its slots.
      factors: one charge covers so many releases, to which a unit contributes within these shares of its bounds (`banded`); one, in full.
      fidelity: of a simulation (`fidelity`), for the ledger's rows. It has no part in a price: a release has the law of a sum of messages, and is charged with
        the distance of `senders` draws a coordinate, above that of one draw of their sum.

    Raises:
      ValueError: the ledger is for another unit or adjacency, the round's curve has no value at its order, or ledger and delta contradict each other.
    """
    adjacency, rate = participation.adjacency, participation.sampling_rate

    def rdp(orders: np.ndarray) -> np.ndarray:
        if mechanism is None:
            return np.full(len(orders), np.inf)
        return round_rdp(mechanism, participation, dimension, orders, factors)

    def price_with(senders: int, own: Mechanism) -> accounting.Price:
        present = participation if own.noise_senders else dataclasses.replace(participation, senders=senders)
        distance = len(factors) * release_distance(own, present, dimension, overflow, _draw_distance(own))
        parameters = dict[str, Any](own.facts.parameters)
        if tuple(factors) != (1.0,):
            parameters["factors"] = list(factors)
        if fidelity is not None:
            parameters["fidelity"] = fidelity
        return accounting.Price(
            own.facts.name,
            parameters,
            functools.partial(round_rdp, own, participation, dimension, factors=factors),
            noise_source(own, participation).honest,
            senders,
            distance,
            round_cost(own, participation, dimension, factors),
            None if own.noise_senders is None else own.noise_senders.senders,
        )

    made = ledger is None
    if ledger is not None:
        _check_ledger(
            ledger,
            mechanism,
            None if mechanism is None else price_with(participation.senders, mechanism),
            unit,
            adjacency,
            delta,
        )
    elif mechanism is not None:
        orders = accounting.integer_orders(256) if rate < 1 else accounting.DEFAULT_ORDERS
        ledger = accounting.memory_ledger(
            delta=DELTA if delta is None else delta, unit=unit, adjacency=adjacency, orders=orders
        )
    uncounted: list[int] = []

    @functools.cache
    def charge_of(own: Mechanism) -> accounting.Charge:
        assert ledger is not None
        return price_with(participation.senders, own).charge(ledger.law)

    def charge(
        paying: Paying, number: int, senders: int, last: int | None = None, own: Mechanism | None = None
    ) -> None:
        if callable(paying):
            paying()
        elif paying == "unaccounted":
            if not uncounted and mechanism is not None:
                warnings.warn(
                    f"round {number} is released unaccounted: no ledger records it, so nothing can be said about the privacy of this algorithm's rounds.",
                    UnaccountedWarning,
                    stacklevel=4,
                )
            uncounted.append(number)
        elif mechanism is not None:
            assert ledger is not None
            own = own or mechanism
            if made and not np.isfinite(rdp(np.asarray(ledger.orders))).any():
                raise ValueError(no_guarantee(mechanism))
            paid = price_with(senders, own)
            ledger.spend(
                "train",
                f"train {number}" if last in (None, number) else f"train {number} to {last}",
                paid.mechanism,
                paid.parameters,
                charge_of(own),
                paid.honest_senders,
                senders,
                distance=ledger.distance_of(paid),
                noise_senders=paid.noise_senders,
            )

    def judged(paying: Paying, number: int) -> None:
        if paying is not None or mechanism is None or not price_with(participation.senders, mechanism).screened:
            return
        assert ledger is not None
        source = noise_source(mechanism, participation)
        ledger.spend(
            "screening",
            f"train {number}, refused",
            mechanism.facts.name,
            dict[str, Any](mechanism.facts.parameters),
            np.zeros(len(ledger.orders)),
            source.honest,
            participation.senders,
            distance=source.screening,
            noise_senders=source.senders,
        )

    def epsilon(paying: Paying) -> float | None:
        if mechanism is None or ledger is None or uncounted:
            return math.inf
        return None if callable(paying) else ledger.epsilon()

    price = None if mechanism is None else price_with(participation.senders, mechanism)
    budget = math.inf if ledger is None else ledger.budget_epsilon
    return RoundAccount(ledger if mechanism is not None else None, charge, judged, epsilon, rdp, price, budget)


def payment(
    account: RoundAccount,
    opened: Openings,
    stream: Stream,
    number: int,
    mark: Array | np.ndarray | None,
    paying: Paying,
    senders: int,
    own: Mechanism | None = None,
) -> Gate:
    """The gate of one round: it first checks whether this noise opened another sum before, then charges the release.

    Args:
      account: pays.
      opened: what this algorithm has opened so far.
      stream: the caller's, the round not folded in.
      number: rounds done before this one.
      mark: fingerprint of what would be opened (`reuse`); None if there is no noise that could be reused.
      paying: the caller's choice of ledger, gate or "unaccounted".
      senders: in the sum.
      own: the mechanism of this round where it is not that of every round; a caller's gate charges what its caller decided.
    """

    def pay() -> None:
        if mark is not None:
            opened.check(stream, number, mark)
        account.charge(paying, number + 1, senders, own=own)
        if mark is not None:
            opened.remember(stream, number, mark)

    return pay


def _draw_distance(mechanism: Mechanism) -> float:
    """Total variation of one draw from its law; 0 for a baseline without a stated one, whose epsilon assumes real Gaussian numbers."""
    distance = mechanism.facts.sampler_distance
    return distance if distance < 1 else 0.0


def check_paying(paying: Paying) -> None:
    """Refuse anything other than a gate, None, or "unaccounted".

    Raises:
      ValueError: another text.
      TypeError: anything else.
    """
    if paying is None or callable(paying) or paying == "unaccounted":
        return
    kind = ValueError if isinstance(paying, str) else TypeError
    raise kind(
        f"gate={paying!r}: give None (the algorithm's ledger is charged), a function without arguments that raises to forbid the release, "
        'or the word "unaccounted".'
    )


def no_scaled_price(mechanism: Mechanism) -> str:
    """What to do about a mechanism whose price for scaled updates is not stated."""
    return (
        f"{mechanism.facts.name} states no price for updates that are scaled before they are embedded, so banded messages of it could not be charged; "
        "use poisson_embedding, or band=1."
    )


def no_guarantee(mechanism: Mechanism) -> str:
    """What to do about a curve that is infinite everywhere."""
    return (
        f"{mechanism.facts.name} has no finite Renyi divergence at any of the ledger's orders, so no ledger can charge it: {mechanism.facts.guarantee} "
        'Use another mechanism, or say gate="unaccounted".'
    )


def _check_ledger(
    ledger: Ledger,
    mechanism: Mechanism | None,
    price: accounting.Price | None,
    unit: str,
    adjacency: str,
    delta: float | None,
) -> None:
    if mechanism is None or price is None:
        raise ValueError(
            "a ledger was given and no mechanism: nothing of this algorithm is private, so nothing can be charged; leave the ledger out."
        )
    if (ledger.unit, ledger.adjacency) != (unit, adjacency):
        raise ValueError(
            f"the ledger is for unit {ledger.unit!r} under {ledger.adjacency!r}, the algorithm protects a {unit!r} under {adjacency!r}: "
            "their curves belong to different guarantees; open a ledger for this one."
        )
    if delta is not None and delta != ledger.delta:
        raise ValueError(f"delta={delta:g}, but the ledger's is {ledger.delta:g}: leave delta out.")
    price.charge(ledger.law)  # refuses what could never be charged
