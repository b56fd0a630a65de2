"""The coordinator of a run: it asks which release comes next, holds its round, and hands the opened sum to every site, until all are done.

It believes nothing, and need not be believed. What a round is for comes from the sites, each of which computes it for itself and refuses anything else; the
coordinator holds the round for the terms that the most sites name. A site that was away gets the transcripts that it missed, one after another; and a
coordinator whose folder was lost, or is an older copy, gets them from the sites.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_poisson.aggregation.refusals import RoundRefused
from fedjax_poisson.aggregation.spool import file_spool
from fedjax_poisson.aggregation.terms import Pinned, Terms
from fedjax_poisson.aggregation.transcript import check_transcript
from fedjax_poisson.aggregation.wire import u64
from fedjax_poisson.deployment.coordinator_folder import (
    Sums,
    fetch_sums,
    keep_sum,
    next_number,
    open_sums,
)
from fedjax_poisson.deployment.model_digest import digest_of
from fedjax_poisson.deployment.positions import At, Pace, agreed, ask_positions, waited_for
from fedjax_poisson.deployment.replies import ask_all
from fedjax_poisson.deployment.requests import NO_RUN, Spoken, facts, words
from fedjax_poisson.deployment.round_at_server import Heard, RoundOver, hold_round
from fedjax_poisson.deployment.transport.link import Link
from fedjax_poisson.deployment.wire_bytes import sum_traffic

__all__ = ["Consortium", "Ended", "NoProgress", "Step", "conduct"]

_NUMBERS = re.compile(r"[0-9.]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Consortium:
    """Whom a coordinator serves.

    Attributes:
      run: 16 bytes.
      pinned: members, t, f, roster.
      members: number in the committee -> name.
      sites: name -> public key.
      minimum: fewest sites in a sum.
      start: the request that begins the run at a site that was away, or that lost it; None for sites that begin by themselves.
      phase_seconds: how long a phase of a round may take.
      patience_seconds: how long a round waits for further sites once the minimum is ready.
      most_rounds: rounds tried in all; a run that needs more is given up.
    """

    run: bytes
    pinned: Pinned
    members: Mapping[int, str]
    sites: Mapping[str, bytes]
    minimum: int
    start: Spoken | None = None
    phase_seconds: float = 120.0
    patience_seconds: float = 60.0
    most_rounds: int = 10_000


class Step(NamedTuple):
    """One opened sum, for whoever watches.

    Attributes:
      position: 0, 1, ...
      label: the release.
      round: number of the round.
      clients: names of the sites in the sum.
      size: D.
      seconds: from the first site's being ready to the opened sum.
      epsilon: as the sites state it before this release; None before the first.
      heard: what went wrong on the way.
    """

    position: int
    label: str
    round: int
    clients: tuple[str, ...]
    size: int
    seconds: float
    epsilon: float | None
    heard: list[Heard]


class Ended(NamedTuple):
    """A run that is over.

    Attributes:
      digests: site -> digest of the model that it sent.
      facts: what most sites of that group say of the released results.
      model: bytes of `model.npz` of the largest group of sites whose models have one digest.
      agree: sites of that group.
      stated_by: those of them that say just these facts.
      away: sites that did not answer at the end, and why.
    """

    digests: dict[str, str]
    facts: dict[str, Any]
    model: bytes
    agree: tuple[str, ...]
    stated_by: tuple[str, ...]
    away: dict[str, str]


class NoProgress(RuntimeError):
    """The run cannot go on; what was opened stays, and the run can be resumed."""


@dataclasses.dataclass
class _Desk:
    """What the coordinator of a run works with: the arguments of `conduct`, what it keeps, and the seconds that sites have to say where they are."""

    link: Link
    consortium: Consortium
    sums: Sums
    pace: Pace
    say: Callable[[str], None]
    wait: Callable[[str], None]
    stop: Callable[[], bool]

    def ask(self, sites: Iterable[str], spoken: Spoken) -> dict[str, Spoken | str]:
        """The reply of each site, or why there is none."""
        return ask_all(self.link, sites, spoken, self.consortium.phase_seconds)


def conduct(
    link: Link,
    consortium: Consortium,
    folder: Path,
    *,
    step: Callable[[Step], None] = lambda step: None,
    say: Callable[[str], None] = lambda words: None,
    wait: Callable[[str], None] = lambda words: None,
    stop: Callable[[], bool] = lambda: False,
) -> Ended:
    """Hold all rounds of a run; goes on where the folder's transcripts end.

    Args:
      link: to the sites, which have started the run.
      consortium: whom it serves.
      folder: for transcripts and the number of the last round.
      step: called after every opened sum.
      say: told what a person should know: sites that are away, rounds that died.
      wait: told what is waited for, and for whom, whenever that changes.
      stop: asked between rounds.

    Raises:
      NoProgress: too few sites are there, or rounds die again and again.
    """
    desk = _Desk(
        link, consortium, open_sums(folder), Pace(consortium.phase_seconds, consortium.phase_seconds), say, wait, stop
    )
    sums, died, told = desk.sums, 0, set[int]()
    while True:
        if stop():
            raise NoProgress(f"stopped after {len(sums.paths)} sums; start again to go on.")
        began = time.monotonic()
        at = _ready(desk)
        running = {name: one for name, one in at.items() if one.state == "running"}
        if not running and at:
            return _ended(desk, at)
        draft, ready = agreed(running, len(sums.paths))
        if draft is None or len(ready) < consortium.minimum:
            done = {name: one for name, one in at.items() if one.state == "done"}
            if len(done) < consortium.minimum:
                raise NoProgress(_why_not(consortium, at, ready))
            say(f"{', '.join(running)} did not come to the end with the others. {_why_not(consortium, at, ready)}")
            return _ended(desk, done)
        if draft.size not in told:
            up, down = sum_traffic(draft, len(ready))
            say(f"a sum of {draft.size:,} values: each site sends about {up:,} bytes and gets {down:,}")
            told.add(draft.size)
        wait(f"{running[ready[0]].label}: the round is held")
        number = next_number(sums)
        if number > consortium.most_rounds:
            raise NoProgress(
                f"{consortium.most_rounds} rounds were held, the most that the terms allow. What was opened stays; begin a new run, with terms that allow more."
            )
        try:
            transcript, heard = hold_round(
                link,
                dataclasses.replace(draft, round=number),
                members=consortium.members,
                sites={name: consortium.sites[name] for name in ready},
                seconds=consortium.phase_seconds,
                spool=file_spool(folder),
                away=frozenset(consortium.sites) - set(at),
            )
        except RoundOver as over:
            died += 1
            say(f"A round died; sites that had sent stay charged for it: {over}")
            if died >= 5:
                raise NoProgress(
                    f"{died} rounds in a row died; the last: {over}\nWhat was opened stays; look who is away, and start again when they are there."
                ) from over
            continue
        died = 0
        label, clients = _kept(desk, transcript)
        del transcript  # a large one does not lie here during the next round
        epsilon = running[ready[0]].epsilon
        took = time.monotonic() - began
        step(Step(len(sums.paths) - 1, label, number, clients, draft.size, took, epsilon, heard))
        _hand_out(desk, at)


def _kept(desk: _Desk, transcript: bytes) -> tuple[str, tuple[str, ...]]:
    """Check an opened sum as every site will, and keep it; its release, and the names of the sites in it."""
    checked = check_transcript(transcript, desk.consortium.pinned)
    names = {key: name for name, key in desk.consortium.sites.items()}
    return keep_sum(desk.sums, transcript, checked.terms), tuple(sorted(names[key] for key in checked.clients))


@functools.lru_cache(maxsize=64)  # asked at every look
def _why_none(draft: Terms, members: tuple[bytes, ...], sites: int) -> str:
    """Why the coordinator can hold no round of terms that a site names; empty if it can."""
    if draft.members != members:
        return "its next round has other members than the roster"
    try:
        sum_traffic(draft, sites)
    except (RoundRefused, ValueError) as error:
        return words(f"{type(error).__name__}: {error}")
    return ""


def _set_apart(consortium: Consortium, at: dict[str, At], away: dict[str, str]) -> None:
    """Count sites as away that name terms of which there can be no round."""
    for name, one in list(at.items()):
        if one.draft is not None and (why := _why_none(one.draft, consortium.pinned.members, len(consortium.sites))):
            del at[name]
            away[name] = why


def _ready(desk: _Desk) -> dict[str, At]:
    """Where all sites are, once all are ready for the next round or over; or enough of them, and patience is at its end."""
    consortium, sums = desk.consortium, desk.sums
    names = list(consortium.sites)
    began = time.monotonic()
    enough_since: float | None = None
    told: dict[str, str] = {}
    while not desk.stop():
        at, away, desk.pace = ask_positions(desk.link, names, desk.pace)
        _set_apart(consortium, at, away)
        if consortium.start and (idle := [name for name, why in away.items() if NO_RUN in why]):
            desk.ask(idle, consortium.start)  # whether it began shows when it is asked next
        for name, why in away.items():
            if told.get(name) != (kind := _NUMBERS.sub("", why)):
                desk.say(f"{name} is away: {why}")
                told[name] = kind
        for name in [name for name in told if name not in away]:
            desk.say(f"{name} is back")
            del told[name]
        positions = {name: one.position for name, one in at.items()}
        fetch_sums(desk.ask, positions, sums, consortium.pinned, consortium.run)
        _hand_out(desk, at)
        waiting = [one for one in at.values() if one.state == "running"]
        draft, ready = agreed({name: one for name, one in at.items() if one.state == "running"}, len(sums.paths))
        over = len(at) - len(waiting)
        if len(at) == len(names) and len(ready) == len(waiting):
            return at
        desk.wait(waited_for(names, at, ready))
        now = time.monotonic()
        enough = draft is not None and len(ready) >= consortium.minimum
        enough_since = (enough_since or now) if enough else None
        if enough_since is not None and now - enough_since > consortium.patience_seconds:
            return at
        if not waiting and over >= consortium.minimum and now - began > consortium.patience_seconds:
            return at
        if now - began > consortium.phase_seconds + consortium.patience_seconds and not enough:
            behind = [name for name, one in at.items() if one.state == "running" and one.draft is None]
            if not behind:
                return at
        time.sleep(0.02 if len(at) == len(names) else 0.5)
    return {}


def _hand_out(desk: _Desk, at: Mapping[str, At]) -> None:
    """Give every site that waits at an opened position its transcript, and tell who asks what became of its counts if nothing was opened."""
    opened = desk.sums.paths
    due: dict[int, list[str]] = collections.defaultdict(list)
    asking = [name for name, one in at.items() if one.state == "running" and one.asking and one.position == len(opened)]
    if asking:
        desk.ask(asking, Spoken("go on", (u64(len(opened)),)))
    for name, one in at.items():
        if one.state != "running":
            continue
        if one.position < len(opened) and (one.asking or one.draft is not None):
            due[one.position].append(name)
    for position, names in due.items():
        desk.ask(names, Spoken("opened", (u64(position), opened[position].read_bytes())))


def _why_not(consortium: Consortium, at: Mapping[str, At], ready: list[str]) -> str:
    lines = [f"{len(ready)} sites are ready for the same round, at least {consortium.minimum} are needed."]
    for name in consortium.sites:
        one = at.get(name)
        if one is None:
            lines.append(f"  {name}: cannot be reached")
        elif one.state != "running":
            lines.append(f"  {name}: {one.state}{' (' + one.reason + ')' if one.reason else ''}")
        elif name not in ready:
            lines.append(
                f"  {name}: at position {one.position}, {'other terms' if one.draft else 'not ready'} for {one.label!r}"
            )
    return "\n".join([*lines, "What was opened stays; start again when they are there."])


def _ended(desk: _Desk, at: Mapping[str, At]) -> Ended:
    """The models of all sites that are done."""
    found = desk.ask(at, Spoken("final"))
    digests, told, models, away = {}, {}, {}, {}
    for name, said in found.items():
        if isinstance(said, str) or said.word != "ended" or len(said.parts) != 2:
            away[name] = said if isinstance(said, str) else f"said {said.word!r}"
            continue
        try:
            about = facts(said.parts[0])
        except RoundRefused as error:
            away[name] = words(str(error))
            continue
        try:
            digests[name] = digest_of(said.parts[1])
        except Exception as error:  # foreign bytes: NumPy and zipfile have many words for what is no model
            away[name] = f"its model cannot be read ({type(error).__name__})"
            continue
        if digests[name] != about.get("digest"):
            desk.say(f"{name} states another digest than that of the model that it sent.")
        told[name], models[name] = about, said.parts[1]
    if not digests:
        raise NoProgress("no site has a model: " + "; ".join(f"{name}: {why}" for name, why in away.items()))
    common, _ = collections.Counter(digests.values()).most_common(1)[0]
    agree = tuple(sorted(name for name, digest in digests.items() if digest == common))
    if len(agree) < len(digests):
        desk.say(
            f"The models differ: {', '.join(agree)} have {common[:12]}, the others not. Their digests are in the result."
        )
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for name in agree:
        groups[json.dumps(told[name], sort_keys=True)].append(name)
    stated_by = tuple(sorted(groups.values(), key=len)[-1])
    if len(stated_by) < len(agree):
        desk.say(f"Released results as {', '.join(stated_by)} state them; others with the same model state others.")
    first = stated_by[0]
    known = told[first] | {"model_sha256": hashlib.sha256(models[first]).hexdigest()}
    return Ended(digests, known, models[first], agree, stated_by, away)
