"""Who a site is in the rounds of a run: its part as a client, and its seat in the committee."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from fedjax_poisson.aggregation import client, keys, member
from fedjax_poisson.aggregation.store import Store
from fedjax_poisson.aggregation.terms import Pinned

__all__ = ["USUAL", "Limits", "Party", "party_of"]


class Limits(NamedTuple):
    """What a site gives to one run at most.

    Attributes:
      most_rounds: the largest number of a round that counts leave in. Numbers only grow, so no more rounds than that can be held; each that dies costs the
        site a charge, and it cannot see whether the coordinator let it die.
      most_lost: releases of the run that are paid for a second time because their round was not opened.
    """

    most_rounds: int = 1 << 20
    most_lost: int = 20


USUAL = Limits()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Party:
    """Who a site is in a run.

    Attributes:
      name: of the site.
      place: its number among the sites, 0..S-1.
      sender: its part as a client of rounds.
      member: its part in the committee; None where it is no member.
      terms: hash of the run's terms.
    """

    name: str
    place: int
    sender: client.Client
    member: member.Member | None
    terms: bytes

    @property
    def key(self) -> bytes:
        """Its public key."""
        return keys.public_of(self.sender.key)


def party_of(
    *,
    name: str,
    sites: tuple[str, ...],
    key: keys.Hidden,
    pinned: Pinned,
    roster: frozenset[bytes],
    run: bytes,
    terms: bytes,
    store: Store,
    member_store: Store,
) -> Party:
    """A site's parts in the rounds of a run; a member where its key is among the pinned ones."""
    public = keys.public_of(key)
    seat = None
    if public in pinned.members:
        number = pinned.members.index(public) + 1
        seat = member.Member(number=number, key=key, pinned=pinned, roster=roster, run=run, store=member_store)
    sender = client.Client(key, pinned, roster, run, store)
    return Party(name=name, place=sites.index(name), sender=sender, member=seat, terms=terms)
