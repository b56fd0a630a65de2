"""Logs of a consortium that went through one real round and one that nobody kept a transcript of; tests change one thing and look what is found.

The round is that of `tests.aggregation.rounds`: five sites, six operators as members, t = 4, f = 1.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any, NamedTuple

from fedjax_poisson.aggregation import transcript
from fedjax_poisson.deployment.identity import Identity
from fedjax_poisson.deployment.log_check import check_logs
from fedjax_poisson.deployment.log_entries import genesis, line_of, make_entry
from fedjax_poisson.deployment.log_findings import Findings
from fedjax_poisson.deployment.roster import Party, Roster, roster_hash
from tests.aggregation.rounds import World, opened

SITES = ("east", "north", "south", "west", "york")
TERMS, TIME = "7e" * 32, "2026-01-02T03:04:05+00:00"
Step = tuple[str, dict[str, Any]]
Script = dict[str, list[Step]]
"""Party to (kind, facts), in order."""


class Consortium(NamedTuple):
    """People, their roster, and a round that was opened."""

    world: World
    who: dict[str, Identity]
    roster: Roster
    transcript: bytes
    counts: str


@functools.cache
def consortium() -> Consortium:
    world = opened()
    who = {
        name: Identity(key, world.public(i)) for i, (name, key) in enumerate(zip(SITES, world.client_keys, strict=True))
    }
    members = tuple(f"member-{k}" for k in range(1, world.m + 1))
    who |= {
        name: Identity(key, public)
        for name, key, public in zip(members, world.member_keys, world.pinned.members, strict=True)
    }
    roster = Roster(
        name="test",
        sites=tuple(Party(name, who[name].public) for name in SITES),
        operators=tuple(Party(name, who[name].public) for name in members),
        members=members,
        threshold=4,
        malicious=1,
        corrupt=1,
        minimum=3,
    )
    blob = transcript.write_transcript(world.server)
    counts = hashlib.sha256(world.server.opened.counts.astype("<i4").tobytes()).hexdigest()
    return Consortium(world, who, roster, blob, counts)


def clean() -> Script:
    """What everybody writes down: round 1 is the real one, round 2 has made-up hashes and was opened without york, round 3 is dead."""
    made = consortium()
    run = made.world.run.hex()
    script: Script = {}
    for name in made.who:
        script[name] = [
            ("terms", {"run": run, "terms": TERMS, "roster": roster_hash(made.roster).hex()}),
            ("started", {"run": run, "version": "0.1.0"}),
        ]
    for number in (1, 2, 3):
        terms = made.world.digest.hex() if number == 1 else f"{number:02x}" * 32
        here = {"run": run, "round": number}
        for name in SITES:
            digest = made.world.server.clients[made.who[name].public].digest.hex()
            if number > 1:
                digest = hashlib.sha256(f"{name} {number}".encode()).hexdigest()
            script[name] += [
                (
                    "charge",
                    {**here, "label": f"train {number}", "epsilon": 0.25 * number, "rows": number, "ledger": "aa" * 32},
                ),
                ("contribution", {**here, "terms": terms, "digest": digest, "bytes": 1000}),
            ]
        inside = [made.who[name].public.hex() for name in SITES if (name, number) != ("york", 2)]
        if number == 3:
            for name in SITES:
                script[name].append(("dead", {**here, "terms": terms}))
            continue
        set_hash = hashlib.sha256(made.world.server.included).hexdigest() if number == 1 else "bb" * 32
        digest = hashlib.sha256(made.transcript).hexdigest() if number == 1 else "cc" * 32
        for name in made.roster.members:
            script[name].append(("answer", {**here, "included": set_hash, "bytes": 500}))
        for name in SITES:
            facts = {"terms": terms, "label": f"train {number}", "transcript": digest}
            facts |= {"counts": made.counts if number == 1 else "dd" * 32, "clients": inside, "epsilon": 0.25 * number}
            script[name].append(("opened", {**here, **facts}))
    for name in made.who:
        script[name].append(("ended", {"run": run, "model": "ee" * 32}))
    return script


def log_of(name: str, steps: list[Step]) -> bytes:
    """The bytes of a party's log, all signed by it."""
    who = consortium().who[name]
    previous, lines = genesis(who.public), []
    for number, (kind, facts) in enumerate(steps, 1):
        entry = make_entry(who, number, TIME, kind, facts, previous)
        previous = entry.hash
        lines.append(line_of(entry))
    return b"".join(lines)


def logs_of(script: Script) -> dict[str, bytes]:
    return {f"{name}.log": log_of(name, steps) for name, steps in script.items()}


def found(script: Script, transcripts: dict[str, bytes] | None = None, **more: bytes) -> Findings:
    """What is found in the logs of a script, and in further ones."""
    return check_logs(consortium().roster, {**logs_of(script), **more}, transcripts)


def step(script: Script, name: str, kind: str, number: int | None = None) -> int:
    """The place of a step in somebody's script."""
    return next(
        place
        for place, (what, facts) in enumerate(script[name])
        if what == kind and (number is None or facts.get("round") == number)
    )


def change(script: Script, name: str, kind: str, number: int | None = None, **facts: Any) -> Script:
    """Change the facts of one step."""
    place = step(script, name, kind, number)
    script[name][place] = (kind, {**script[name][place][1], **facts})
    return script


def drop(script: Script, name: str, kind: str, number: int | None = None) -> Script:
    """Leave one step out."""
    del script[name][step(script, name, kind, number)]
    return script
