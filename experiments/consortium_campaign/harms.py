"""What may happen to one party at one step, by name: deaths, full disks, old copies that are put back, wrong clocks, and a network that is cut for a while."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from fault_campaign.events import Event

from consortium_campaign.lives import COORDINATOR, Killed, Lives
from consortium_campaign.people import NAMES

__all__ = [
    "AT_COORDINATOR",
    "AT_SITE",
    "CUTS",
    "ENDS",
    "FULL",
    "SET_BACK",
    "Struck",
    "exempt_from",
    "may_be_refused",
    "strike",
]

ENDS = ("kill", "torn", "power cut")
FULL = ("full disk", "full disk for one write")
SET_BACK = {
    "stores set back": ("client.sqlite", "member.sqlite"),
    "stores lost": (),
    "ledger set back": ("ledger.sqlite",),
    "log set back": ("site.log",),
    "transcripts set back": ("opened", "checkpoint.json"),
    "everything set back": (
        *("client.sqlite", "client.sqlite.mark", "member.sqlite", "member.sqlite.mark"),
        *("ledger.sqlite", "site.log", "opened", "checkpoint.json"),
    ),
}
"""What is taken from an older copy."""
CLOCKS = {"clock a day ahead": timedelta(days=1), "clock a day behind": timedelta(days=-1)}
CUTS = {"one site cut off": 1, "two sites cut off": 2, "three sites cut off": 3}
AT_SITE = (*ENDS, *FULL, *SET_BACK, *CLOCKS)
AT_COORDINATOR = (*ENDS, "full disk for one write", "set back", "lost")


class Struck(NamedTuple):
    """Where the fault is.

    Attributes:
      party: who.
      kind: of the fault.
      event: the change of a file, if it strikes at one.
    """

    party: str
    kind: str
    event: Event | None


def exempt_from(kind: str) -> bool:
    """Whether the site counts as malicious from then on: with all that it remembers set back, or its marks gone too, nobody can notice."""
    return kind == "everything set back"


def may_be_refused(kind: str) -> tuple[str, ...]:
    """By which names a site may refuse to begin again."""
    return {
        "stores set back": ("StoreDamaged",),
        "stores lost": ("StoreDamaged",),
        "ledger set back": ("LedgerCorrupt",),
        "log set back": (),
    }.get(kind, ())


def strike(lives: Lives, struck: Struck, cut: Callable[[tuple[str, ...], float], None]) -> str | None:
    """Let it happen now, in the thread of the party that it happens to.

    Raises:
      Killed: the coordinator is gone.
    """
    party, kind, event = struck
    if kind in CUTS:
        first = NAMES.index(party) if party in NAMES else 0
        cut(tuple(NAMES[(first + k) % len(NAMES)] for k in range(CUTS[kind])), 2.5 * lives.run.phase_seconds)
        return None
    if party == COORDINATOR:
        return _coordinator(lives, kind, event)
    if kind in ENDS:
        lives.die(party, kind, event)
    elif kind in FULL:
        return lives.fill(party, once=kind != "full disk")
    elif kind in CLOCKS:
        lives.shift[party] = CLOCKS[kind]
    else:
        lives.prepare[party] = lambda folder: put_back(folder, old_copy(lives, party), kind)
        lives.die(party, "kill", event)
    return None


def _coordinator(lives: Lives, kind: str, event: Event | None) -> str | None:
    if kind == "full disk for one write":
        return "full disk"
    new = lives.copied(COORDINATOR, kind if kind in ENDS else "kill", event)
    if kind in ("set back", "lost"):
        shutil.rmtree(new)
        new.mkdir()
        old = old_copy(lives, COORDINATOR)
        if kind == "set back" and old.exists():
            shutil.copytree(old, new, dirs_exist_ok=True)
    lives.folders[COORDINATOR] = new
    raise Killed


def old_copy(lives: Lives, party: str) -> Path:
    """Where a copy of a party's folder lies that was made earlier in the run."""
    return lives.base / "old" / party


def keep_copy(lives: Lives, party: str) -> None:
    """Make that copy, once."""
    to = old_copy(lives, party)
    if not to.exists() and lives.folders[party].exists():
        shutil.copytree(lives.folders[party], to)


def put_back(folder: Path, old: Path, kind: str) -> None:
    """Put back, or lose, a part of a folder."""
    if kind == "stores lost":
        for name in ("client.sqlite", "member.sqlite"):
            (folder / name).unlink(missing_ok=True)
        return
    for name in SET_BACK[kind]:
        here, there = folder / name, old / name
        if here.is_dir():
            shutil.rmtree(here)
        else:
            here.unlink(missing_ok=True)
        here.with_name(here.name + "-journal").unlink(missing_ok=True)
        if there.is_dir():
            shutil.copytree(there, here)
        elif there.exists():
            shutil.copyfile(there, here)
