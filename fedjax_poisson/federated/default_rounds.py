"""The encryption that an algorithm takes where none is given: rounds with a committee, all roles in this process."""

from __future__ import annotations

from fedjax_poisson.accounting import Participation
from fedjax_poisson.aggregation import Aggregator, aggregator
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
    return aggregator(
        "round",
        count_bound=mechanism.count_bound(participation.senders, size),
        senders=participation.senders,
        minimum_senders=participation.minimum_senders,
        size=size,
        corrupt=participation.minimum_senders - participation.honest_senders,
        mechanism=mechanism_facts(mechanism.facts.name, mechanism.facts.parameters),
    )
