"""The coordinator of a run: it asks which release comes next, holds its round, and hands the opened sum to every site, until all are done.

It believes nothing, and need not be believed. What a round is for comes from the sites, each of which computes it for itself and refuses anything else; the
coordinator holds the round for the terms that the most sites name. A site that was away gets the transcripts that it missed, one after another; and a
coordinator whose folder was lost, or is an older copy, gets them from the sites.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_poisson.aggregation.refusals import Malformed, RoundRefused
from fedjax_poisson.aggregation.spool import file_spool
from fedjax_poisson.aggregation.terms import Pinned, Terms, decode_terms
from fedjax_poisson.aggregation.transcript import check_transcript
from fedjax_poisson.aggregation.wire import u64
from fedjax_poisson.deployment.coordinator_folder import fetch_sums, keep_sum, last_number, note_number, release_of
from fedjax_poisson.deployment.model_digest import digest_of
from fedjax_poisson.deployment.requests import NO_RUN, REFUSED, Spoken, decode, encode, facts, words
from fedjax_poisson.deployment.round_at_server import Heard, RoundOver, hold_round
from fedjax_poisson.deployment.transport.link import Link, Unreached

__all__ = ["Consortium", "Ended", "NoProgress", "Step", "conduct"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Consortium:
    """Whom a coordinator serves.

    Attributes:
      run: 16 bytes.
      pinned: members, t, f, roster.
      members: number in the committee -> name.
      sites: name -> public key.
      minimum: fewest sites in a sum.
      start: the request that begins the run at a site that was away, or that lost it.
      phase_seconds: how long a phase of a round may take.
      patience_seconds: how long a round waits for further sites once the minimum is ready.
      most_rounds: rounds tried in all; a run that needs more is given up.
    """

    run: bytes
    pinned: Pinned
    members: Mapping[int, str]
    sites: Mapping[str, bytes]
    minimum: int
    start: bytes = b""
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
      facts: what the first site says of the released results.
      model: bytes of `model.npz` of the largest group of sites whose models have one digest.
      agree: sites of that group.
      away: sites that did not answer at the end, and why.
    """

    digests: dict[str, str]
    facts: dict[str, Any]
    model: bytes
    agree: tuple[str, ...]
    away: dict[str, str]


class NoProgress(RuntimeError):
    """The run cannot go on; what was opened stays, and the run can be resumed."""


class _At(NamedTuple):
    """What a site says of itself."""

    position: int
    state: str
    label: str | None
    epsilon: float | None
    reason: str
    draft: Terms | None
    asking: bool


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
    folder.mkdir(parents=True, exist_ok=True)
    opened = sorted(folder.glob("*.round"))
    died = 0
    while True:
        if stop():
            raise NoProgress(f"stopped after {len(opened)} sums; start again to go on.")
        began = time.monotonic()
        at = _ready(link, consortium, folder, opened, say, wait, stop)
        running = {name: one for name, one in at.items() if one.state == "running"}
        if not running and at:
            return _ended(link, at, consortium.phase_seconds, say)
        draft, ready = _agreed(running, len(opened))
        if draft is None or len(ready) < consortium.minimum:
            done = {name: one for name, one in at.items() if one.state == "done"}
            if len(done) < consortium.minimum:
                raise NoProgress(_why_not(consortium, at, ready))
            say(f"{', '.join(running)} did not come to the end with the others. {_why_not(consortium, at, ready)}")
            return _ended(link, done, consortium.phase_seconds, say)
        wait(f"{running[ready[0]].label}: the round is held")
        number = last_number(folder, opened) + 1
        note_number(folder, number)
        if number > consortium.most_rounds:
            raise NoProgress(
                f"{consortium.most_rounds} rounds were held, the most that the terms allow. What was opened stays; begin a new run, with terms that allow more."
            )
        sites = {name: consortium.sites[name] for name in ready}
        try:
            transcript, heard = hold_round(
                link,
                dataclasses.replace(draft, round=number),
                members=consortium.members,
                sites=sites,
                seconds=consortium.phase_seconds,
                spool=file_spool(folder),
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
        checked = check_transcript(transcript, consortium.pinned)
        label = keep_sum(folder, opened, transcript, checked.terms)
        names = {key: name for name, key in consortium.sites.items()}
        clients = tuple(sorted(names[key] for key in checked.clients))
        epsilon = running[ready[0]].epsilon
        took = time.monotonic() - began
        step(Step(len(opened) - 1, label, number, clients, draft.size, took, epsilon, heard))
        _hand_out(link, opened, at, consortium.phase_seconds)


def _ask_all(link: Link, sites: list[str], spoken: Spoken, seconds: float) -> dict[str, Spoken | str]:
    """Replies by site, or why there is none."""
    found: dict[str, Spoken | str] = {}
    blob = encode(spoken)
    for site, reply in link.ask(dict.fromkeys(sites, blob), seconds):
        if isinstance(reply, Unreached):
            found[site] = words(reply.reason)
            continue
        try:
            said = decode(reply)
        except RoundRefused as error:
            found[site] = f"{type(error).__name__}: {error}"
            continue
        found[site] = words(said.parts[0]) if said.word == REFUSED and said.parts else said
    return found


def _asked(link: Link, sites: list[str], seconds: float) -> tuple[dict[str, _At], dict[str, str]]:
    """Where every site is, and who could not be asked."""
    at, away = {}, {}
    for site, said in _ask_all(link, sites, Spoken("next"), seconds).items():
        if isinstance(said, str):
            away[site] = said
            continue
        try:
            at[site] = _read_at(said)
        except RoundRefused as error:
            away[site] = str(error)
    return at, away


def _read_at(said: Spoken) -> _At:
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
    return _At(
        int.from_bytes(position, "little"),
        words(str(about.get("state"))),
        None if about.get("label") is None else words(str(about["label"])),
        epsilon,
        words(str(about.get("reason", ""))),
        draft,
        about.get("asking") is True,
    )


def _ready(
    link: Link,
    consortium: Consortium,
    folder: Path,
    opened: list[Path],
    say: Callable[[str], None],
    wait: Callable[[str], None],
    stop: Callable[[], bool],
) -> dict[str, _At]:
    """Where all sites are, once all are ready for the next round or over; or enough of them, and patience is at its end."""
    names = list(consortium.sites)
    began = time.monotonic()
    enough_since: float | None = None
    told: dict[str, str] = {}

    def ask(sites: list[str], spoken: Spoken) -> dict[str, Spoken | str]:
        return _ask_all(link, sites, spoken, consortium.phase_seconds)

    while not stop():
        at, away = _asked(link, names, consortium.phase_seconds)
        if consortium.start and (idle := [name for name, why in away.items() if NO_RUN in why]):
            for _ in link.ask(dict.fromkeys(idle, consortium.start), consortium.phase_seconds):
                pass  # whether it began shows when it is asked next
        for name, why in away.items():
            if told.get(name) != why:
                say(f"{name} is away: {why}")
                told[name] = why
        for name in [name for name in told if name not in away]:
            say(f"{name} is back")
            del told[name]
        positions = {name: one.position for name, one in at.items()}
        fetch_sums(ask, positions, folder, opened, consortium.pinned, consortium.run)
        _hand_out(link, opened, at, consortium.phase_seconds)
        waiting = [one for one in at.values() if one.state == "running"]
        draft, ready = _agreed({name: one for name, one in at.items() if one.state == "running"}, len(opened))
        over = len(at) - len(waiting)
        if len(at) == len(names) and len(ready) == len(waiting):
            return at
        wait(_waited_for(names, at, ready))
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


def _waited_for(names: list[str], at: Mapping[str, _At], ready: list[str]) -> str:
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


def _agreed(running: Mapping[str, _At], position: int) -> tuple[Terms | None, list[str]]:
    """The terms that the most sites at this position name, and these sites."""
    groups: dict[Terms, list[str]] = collections.defaultdict(list)
    for name, one in running.items():
        if one.position == position and one.draft is not None:
            groups[one.draft].append(name)
    if not groups:
        return None, []
    draft = max(groups, key=lambda terms: len(groups[terms]))
    return draft, sorted(groups[draft])


def _hand_out(link: Link, opened: list[Path], at: Mapping[str, _At], seconds: float) -> None:
    """Give every site that waits at an opened position its transcript, and tell who asks what became of its counts if nothing was opened."""
    due: dict[int, list[str]] = collections.defaultdict(list)
    asking = [name for name, one in at.items() if one.state == "running" and one.asking and one.position == len(opened)]
    if asking:
        _ask_all(link, asking, Spoken("go on", (u64(len(opened)),)), seconds)
    for name, one in at.items():
        if one.state != "running":
            continue
        if one.position < len(opened) and (one.asking or one.draft is not None):
            due[one.position].append(name)
    for position, names in due.items():
        _ask_all(link, names, Spoken("opened", (u64(position), opened[position].read_bytes())), seconds)


def _why_not(consortium: Consortium, at: Mapping[str, _At], ready: list[str]) -> str:
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


def _ended(link: Link, at: Mapping[str, _At], seconds: float, say: Callable[[str], None]) -> Ended:
    """The models of all sites that are done."""
    found = _ask_all(link, list(at), Spoken("final"), seconds)
    digests, told, models, away = {}, {}, {}, {}
    for name, said in found.items():
        if isinstance(said, str) or said.word != "ended" or len(said.parts) != 2:
            away[name] = said if isinstance(said, str) else f"said {said.word!r}"
            continue
        try:
            about = facts(said.parts[0])
        except RoundRefused as error:
            away[name] = str(error)
            continue
        try:
            digests[name] = digest_of(said.parts[1])
        except Exception as error:  # foreign bytes: NumPy and zipfile have many words for what is no model
            away[name] = f"its model cannot be read ({type(error).__name__})"
            continue
        if digests[name] != about.get("digest"):
            say(f"{name} states another digest than that of the model that it sent.")
        told[name], models[name] = about, said.parts[1]
    if not digests:
        raise NoProgress("no site has a model: " + "; ".join(f"{name}: {why}" for name, why in away.items()))
    common, _ = collections.Counter(digests.values()).most_common(1)[0]
    agree = tuple(sorted(name for name, digest in digests.items() if digest == common))
    if len(agree) < len(digests):
        say(
            f"The models differ: {', '.join(agree)} have {common[:12]}, the others not. Their digests are in the result."
        )
    first = agree[0]
    return Ended(
        digests, told[first] | {"model_sha256": hashlib.sha256(models[first]).hexdigest()}, models[first], agree, away
    )
