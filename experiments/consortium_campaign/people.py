"""The consortium under test: sites that are the committee, and what a run of it is.

Five sites: t = 4, f = 1, sums of at least three. Three sites, where each message is dear (`flower`): t = 2, f = 0, sums of at least two.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from fedjax_poisson.aggregation import aggregator, keys
from fedjax_poisson.deployment.conduct import Consortium
from fedjax_poisson.deployment.identity import Identity
from fedjax_poisson.deployment.roster import Party, Roster, check, pinned_of

__all__ = [
    "BOUND",
    "NAMES",
    "SIZE",
    "People",
    "Run",
    "aggregator_of",
    "consortium_of",
    "fresh_run",
    "people",
    "people_of",
]

NAMES = ("east", "north", "south", "west", "york")
SIZE, BOUND = 12, 1000
_COMMITTEES = {5: {"threshold": 4, "malicious": 1, "minimum": 3}, 3: {"threshold": 2, "malicious": 0, "minimum": 2}}
"""By the number of sites."""


class People(NamedTuple):
    """Keys of all sites, and the roster that they signed."""

    who: dict[str, Identity]
    roster: Roster


class Run(NamedTuple):
    """One run.

    Attributes:
      run: 16 bytes.
      terms: hash of its terms.
      releases: sums that it wants.
      phase_seconds: how long a phase of a round may take.
      patience_seconds: how long a round waits for further sites.
    """

    run: bytes
    terms: bytes
    releases: int
    phase_seconds: float
    patience_seconds: float


def people_of(secrets: dict[str, bytes]) -> People:
    """The consortium of some keys."""
    hidden = {name: keys.Hidden(secret) for name, secret in secrets.items()}
    who = {name: Identity(key, keys.public_of(key)) for name, key in hidden.items()}
    roster = Roster(
        name="Faults",
        sites=tuple(Party(name, one.public) for name, one in who.items()),
        corrupt=1,
        **_COMMITTEES[len(who)],
    )
    check(roster)
    return People(who, roster)


def people(names: tuple[str, ...] = NAMES) -> People:
    """A consortium with fresh keys."""
    return people_of({name: keys.new_signing_key().value for name in names})


def fresh_run(releases: int, phase_seconds: float, patience_seconds: float) -> Run:
    """A run with a name of its own."""
    return Run(os.urandom(16), os.urandom(32), releases, phase_seconds, patience_seconds)


def aggregator_of(known: People, backend: Any, **changed: Any) -> Any:
    """The rounds as every site expects them."""
    facts = {
        "count_bound": BOUND,
        "senders": len(known.who),
        "minimum_senders": known.roster.minimum,
        "size": SIZE,
        "members": len(known.who),
        "corrupt": known.roster.corrupt,
    }
    return aggregator(backend, **(facts | changed))


def consortium_of(known: People, run: Run) -> Consortium:
    """What the coordinator is told."""
    return Consortium(
        run=run.run,
        pinned=pinned_of(known.roster),
        members=dict(enumerate(known.roster.committee, 1)),
        sites={party.name: party.public for party in known.roster.sites},
        minimum=known.roster.minimum,
        phase_seconds=run.phase_seconds,
        patience_seconds=run.patience_seconds,
        most_rounds=20 + 3 * run.releases,
    )
