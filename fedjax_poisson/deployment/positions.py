"""Where the sites of a run are, as they say, and which round the most of them wait for."""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from fedjax_poisson.aggregation.refusals import Malformed, RoundRefused
from fedjax_poisson.aggregation.terms import Terms, decode_terms
from fedjax_poisson.deployment.coordinator_folder import release_of
from fedjax_poisson.deployment.replies import reply_of
from fedjax_poisson.deployment.requests import Spoken, encode, facts, words
from fedjax_poisson.deployment.transport.link import Link

__all__ = ["At", "Pace", "agreed", "ask_positions", "waited_for"]

_LEAST_SECONDS = 5.0
"""Least time that a site has to say where it is; it waits two seconds of them itself for its counts."""


class At(NamedTuple):
    """What a site says of itself."""

    position: int
    state: str
    label: str | None
    epsilon: float | None
    reason: str
    draft: Terms | None
    asking: bool


class Pace(NamedTuple):
    """How long sites have to say where they are.

    Attributes:
      whole: seconds, as long as all speak or none does.
      now: seconds at the next look.
    """

    whole: float
    now: float


def ask_positions(link: Link, sites: Iterable[str], pace: Pace) -> tuple[dict[str, At], dict[str, str], Pace]:
    """Where every site is, who could not be asked and why, and the pace of the next look.

    Once a site is silent, all are given only three times as long as the slowest of the others took, until it speaks again: a connection behind which nobody
    answers costs the others one whole wait, not one at every look.
    """
    at: dict[str, At] = {}
    away: dict[str, str] = {}
    began, slowest = time.monotonic(), 0.0
    asked = dict.fromkeys(sites, encode(Spoken("next")))
    for site, blob in link.ask(asked, pace.now):
        if isinstance(blob, bytes):
            slowest = time.monotonic() - began
        said = reply_of(blob)
        try:
            if isinstance(said, str):
                away[site] = said
            else:
                at[site] = _read_at(said)
        except RoundRefused as error:
            away[site] = words(str(error))
    short = min(pace.whole, max(_LEAST_SECONDS, 3 * slowest))
    return at, away, pace._replace(now=short if at and away else pace.whole)


def _read_at(said: Spoken) -> At:
    if said.word != "at" or len(said.parts) != 3 or len(said.parts[0]) != 8:
        raise Malformed(f'A reply "{said.word}" where a position was asked for.')
    position, told, blob = said.parts
    about = facts(told)
    epsilon = about.get("epsilon")
    if not isinstance(epsilon, float) or not math.isfinite(epsilon):
        epsilon = None
    draft = decode_terms(blob) if blob else None
    if draft is not None:
        release_of(draft)
    return At(
        int.from_bytes(position, "little"),
        words(str(about.get("state"))),
        None if about.get("label") is None else words(str(about["label"])),
        epsilon,
        words(str(about.get("reason", ""))),
        draft,
        about.get("asking") is True,
    )


def waited_for(names: list[str], at: Mapping[str, At], ready: list[str]) -> str:
    """Who is away, and who computes or compiles what, in a line."""
    busy = [name for name, one in at.items() if one.state == "running" and name not in ready]
    labels = dict.fromkeys(at[name].label or "the first sum" for name in busy)
    parts = (
        [
            f"{', '.join(labels)}: {', '.join(busy)} compute or compile"
            if len(busy) > 1
            else f"{', '.join(labels)}: {busy[0]} computes or compiles"
        ]
        if busy
        else []
    )
    away = [name for name in names if name not in at]
    return "; ".join([*parts, *([f"away: {', '.join(away)}"] if away else [])]) or "waiting for the sites"


def agreed(running: Mapping[str, At], position: int) -> tuple[Terms | None, list[str]]:
    """The terms that the most sites at this position name, and these sites."""
    groups: dict[Terms, list[str]] = collections.defaultdict(list)
    for name, one in running.items():
        if one.position == position and one.draft is not None:
            groups[one.draft].append(name)
    if not groups:
        return None, []
    draft = max(groups, key=lambda terms: len(groups[terms]))
    return draft, sorted(groups[draft])
