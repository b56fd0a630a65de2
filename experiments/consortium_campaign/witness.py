"""What every site really did, written down beside the consortium by somebody who sees all: what the verdicts are held against.

A line is one JSON object, appended with one write, so that several processes may write one file and a killed one leaves whole lines.
"""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Left", "Made", "Said", "Seen", "Witness", "read", "witness"]

Witness = Callable[..., None]
"""`(what, **facts)`: durable enough for a process that is killed right after it."""


class Made(NamedTuple):
    """A contribution that a site made: its name, and what is in it."""

    site: str
    label: str
    counts: tuple[int, ...]


class Left(NamedTuple):
    """A contribution that left a site.

    Attributes:
      site: whose.
      run, round: which round it was for.
      manifest: its name, hexadecimal.
      charges: rows on the site's ledger at that moment, by label.
    """

    site: str
    run: str
    round: int
    manifest: str
    charges: dict[str, int]


class Said(NamedTuple):
    """A reply that left a member: who, run, round, step, and the hash of its bytes."""

    site: str
    run: str
    round: int
    step: str
    digest: str


class Seen(NamedTuple):
    """All that was written down.

    Attributes:
      made: name of a contribution -> `Made`.
      left: in order.
      said: in order.
      failures: (site, class of the error, words) of requests that ended in an error that is no refusal.
    """

    made: dict[str, Made]
    left: list[Left]
    said: list[Said]
    failures: list[tuple[str, str, str]]


def witness(path: Path) -> Witness:
    """A witness that writes to a file, which may be written by others too."""

    def note(what: str, **facts: Any) -> None:
        line = json.dumps({"what": what, **facts}).encode() + b"\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    return note


def read(path: Path) -> Seen:
    """What was written down so far."""
    lines: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    if path.exists():
        for line in path.read_bytes().splitlines():
            facts = json.loads(line)
            lines[facts.pop("what")].append(facts)
    made = {one["manifest"]: Made(one["site"], one["label"], tuple(one["counts"])) for one in lines["made"]}
    return Seen(
        made,
        [Left(**one) for one in lines["left"]],
        [Said(**one) for one in lines["said"]],
        [(one["site"], one["error"], one["words"]) for one in lines["failed"]],
    )
