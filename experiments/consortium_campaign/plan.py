"""Which faults strike where: every step of every party at least once as far as the number goes, every kind of fault at every kind of message."""

from __future__ import annotations

import random
from collections.abc import Sequence

from consortium_campaign import wires
from consortium_campaign.harms import AT_COORDINATOR, CLOCKS, CUTS, ENDS, FULL, SET_BACK
from consortium_campaign.lives import COORDINATOR
from consortium_campaign.people import NAMES
from consortium_campaign.scenario import Fault
from consortium_campaign.traps import Place

__all__ = ["planned"]

_WRITES = ("write", "create", "replace", "truncate")


def planned(places: Sequence[Place], rng: random.Random, count: int) -> list[tuple[str, Fault]]:
    """Faults with the part of the table that each belongs to, in an order in which every beginning touches all parts.

    Args:
      places: all steps of a run without a fault.
      rng: the choice.
      count: how many.
    """
    messages = [place for place in places if place.transition.startswith("message ")]
    steps = [place for place in places if place.party in NAMES and not place.transition.startswith("message ")]
    ours = [place for place in places if place.party == COORDINATOR]
    late = [
        place
        for place in steps
        if place.transition.startswith(("reply", "log ", "logged ", "charge")) and place.time >= 2
    ]
    parts = {
        "message": _crossed(messages, list(wires.KINDS), rng),
        "site's steps and files": _crossed(steps, list(ENDS), rng),
        "site's full disk": _crossed([place for place in steps if _writes(place)], list(FULL), rng),
        "old state put back": _crossed(late, list(SET_BACK), rng),
        "clock": _crossed(late, list(CLOCKS), rng)[:20],
        "sites cut off": _crossed(messages, list(CUTS), rng),
        "coordinator": _crossed(ours, [kind for kind in AT_COORDINATOR if kind != "full disk for one write"], rng)
        + _crossed([place for place in ours if _writes(place)], ["full disk for one write"], rng),
    }
    rng.shuffle(parts["coordinator"])
    share = {
        "message": 10,
        "site's steps and files": 5,
        "coordinator": 4,
        "site's full disk": 2,
        "old state put back": 2,
        "sites cut off": 1,
        "clock": 1,
    }
    chosen: list[tuple[str, Fault]] = []
    while len(chosen) < count and any(parts.values()):
        for part, each in share.items():
            chosen += [(part, fault) for fault in parts[part][:each]]
            parts[part] = parts[part][each:]
    return chosen[:count]


def _writes(place: Place) -> bool:
    return place.transition.removeprefix("sqlite ").startswith(_WRITES)


def _crossed(places: Sequence[Place], kinds: Sequence[str], rng: random.Random) -> list[Fault]:
    """Every step's name with every kind, at a place of that name by chance; all names first come before any comes twice."""
    by_name: dict[str, list[Place]] = {}
    for place in places:
        by_name.setdefault(place.transition, []).append(place)
    names = list(by_name)
    rng.shuffle(names)
    found = []
    for turn in range(len(kinds)):
        for k, name in enumerate(names):
            found.append(Fault(rng.choice(by_name[name]), kinds[(k + turn) % len(kinds)]))
    return found
