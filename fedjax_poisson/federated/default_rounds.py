"""The encryption that an algorithm takes where none is given: rounds with a committee, all roles in this process; norm rounds for clean counts."""

from __future__ import annotations

from typing import Any

from fedjax_poisson.accounting import Participation
from fedjax_poisson.aggregation import Aggregator, aggregator
from fedjax_poisson.aggregation.norm_bound import NormScreening
from fedjax_poisson.aggregation.terms import mechanism_facts
from fedjax_poisson.mechanisms.types import Mechanism


def default_aggregator(mechanism: Mechanism, size: int, participation: Participation) -> Aggregator | None:
    """`aggregator("round", ...)` for a mechanism's counts; None where it does not send integers, and nothing can be summed exactly.

    Args:
      mechanism: what turns contributions into counts.
      size: D.
      participation: who takes part; the senders that are not counted on as honest are those that an opening tolerates.
    """
    if not mechanism.facts.integer:
        return None
    norm = norm_arguments(mechanism, size, participation.senders)
    if norm:
        norm["members"] = norm["norm"].noise_senders  # the members send the noise
    return aggregator(
        "round",
        count_bound=mechanism.count_bound(participation.senders, size),
        senders=participation.senders,
        minimum_senders=participation.minimum_senders,
        size=size,
        corrupt=participation.minimum_senders - participation.honest_senders,
        mechanism=mechanism_facts(mechanism.facts.name, mechanism.facts.parameters),
        **norm,
    )


def norm_arguments(mechanism: Mechanism, size: int, senders: int) -> dict[str, Any]:
    """What `aggregator("round", ...)` must be told to make norm rounds of a mechanism's clean counts; nothing where senders bring their own noise.

    Args:
      mechanism: what turns contributions into counts.
      size: D.
      senders: most clients of a round.
    """
    by = mechanism.noise_senders
    if by is None:
        return {}
    return {
        "norm": NormScreening(by.squared_norm(size), by.senders, by.honest),
        "noise": mechanism.noise,
        "count_rms": by.count_rms(senders, size),
    }
