"""The five sites and the coordinator of one run, their deaths and their next lives.

A site dies at an event: its folder is copied as it is there (what SIGKILL leaves; or with half of a write; or without what was not synchronised), and from
then on nothing that it says is heard. After a while it begins anew from the copy. The coordinator's thread is ended by an exception that no code catches,
and begins anew from a copy likewise.
"""

from __future__ import annotations

import collections
import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

from fault_campaign.events import Event, Watch, perform_half, watched

from consortium_campaign.light_site import HERE, LightSite
from consortium_campaign.people import NAMES, People, Run
from consortium_campaign.verdicts import DISK
from consortium_campaign.witness import Witness
from fedjax_poisson.deployment import site_log

__all__ = ["Killed", "Lives", "shifted_clock", "watching"]

COORDINATOR = "coordinator"


class Killed(BaseException):
    """The coordinator's process is gone."""


class Lives:
    """Who is alive, in which folder, and how they come back."""

    def __init__(
        self, base: Path, known: People, run: Run, note: Witness, step: Callable[[str, str], object], away: float
    ) -> None:
        """Begin all sites.

        Args:
          base: folder of the run.
          known: the consortium.
          run: what is run.
          note: the witness.
          step: told every step of every party.
          away: seconds until somebody who died begins anew.
        """
        self.base, self.known, self.run, self.note, self.step, self.away = base, known, run, note, step, away
        self.sites: dict[str, LightSite] = {}
        self.folders = {name: base / name / "1" for name in NAMES} | {COORDINATOR: base / COORDINATOR / "1"}
        self.other: dict[str, dict[str, Any]] = {}
        self.full: dict[str, bool] = {}
        self.shift: dict[str, timedelta] = {}
        self.refused: dict[str, str] = {}
        self.deaths: collections.Counter[str] = collections.Counter()
        self.prepare: dict[str, Callable[[Path], None]] = {}
        self.watch: Watch | None = None
        self.threads: list[threading.Thread] = []

    def begin(self, name: str) -> None:
        """A site's next life, from its folder; a refusal to begin is remembered."""
        if name in self.prepare:
            self.prepare.pop(name)(self.folders[name])
        try:
            self.sites[name] = LightSite(
                name, self.known, self.run, self.folders[name], self.note, self.step, **self.other.get(name, {})
            )
        except Exception as error:
            self.refused[name] = f"{type(error).__name__}: {error}"
            if type(error).__name__ in DISK:  # whose words say to make room and start again
                self._later(lambda: (self.refused.pop(name, None), self.begin(name)))

    def handler(self, name: str) -> Callable[[bytes], bytes]:
        """Whoever lives under this name."""

        def handle(blob: bytes) -> bytes:
            site = self.sites.get(name)
            if site is None:
                raise ConnectionError("nobody is there")
            return site.handle(blob)

        return handle

    def next_folder(self, name: str) -> Path:
        """A folder for a party's next life."""
        return self.folders[name].with_name(str(int(self.folders[name].name) + 1))

    def copied(self, name: str, kind: str, event: Event | None) -> Path:
        """What the death of a party leaves, in a new folder."""
        old, new = self.folders[name], self.next_folder(name)
        if old.exists():
            shutil.copytree(old, new)
        else:
            new.mkdir(parents=True)
        if event is not None and kind == "torn" and event.path.parent.exists():
            with contextlib.suppress(FileNotFoundError):
                perform_half(event, (old, new))
        if self.watch is not None and kind == "power cut":
            for path, data in self.watch.after_power_cut().items():
                if old in path.parents:
                    beside = new / path.relative_to(old)
                    beside.unlink(missing_ok=True)
                    if data is not None and beside.parent.exists():
                        beside.write_bytes(data)
        return new

    def die(self, name: str, kind: str, event: Event | None = None) -> None:
        """A site's process is gone at this event; call it in the site's own thread."""
        site = self.sites.pop(name, None) or getattr(HERE, "site", None)
        if site is None:
            return
        new = self.copied(name, kind, event)
        site.dead = True
        self.deaths[name] += 1
        self._again(name, site, new)

    def restart(self, name: str) -> None:
        """A site is stopped in order, and begins anew after a while."""
        site = self.sites.pop(name, None)
        if site is not None:
            self._again(name, site, None)
        self.full[name] = self.full.get(name, False) and site is not None  # nobody is at it: there is room at once

    def _again(self, name: str, site: LightSite, new: Path | None) -> None:
        def later() -> None:
            self.full[name] = False
            site.close()
            if new is not None:
                self.folders[name] = new
            self.begin(name)

        self._later(later)

    def _later(self, what: Callable[[], object]) -> None:
        """Somebody comes after a while, and does it."""

        def wait() -> None:
            time.sleep(self.away)
            what()

        thread = threading.Thread(target=wait, daemon=True)
        self.threads.append(thread)
        thread.start()

    def fill(self, name: str, *, once: bool) -> str:
        """A site's disk is full from here on (or for one write), until somebody makes room and starts it again."""
        self.full[name] = not once
        self.deaths[name] += 1

        self._later(lambda: self._later(lambda: self.restart(name)))
        return "full disk"

    def close(self) -> None:
        """End everybody, whoever comes back meanwhile too."""
        self.settle()
        for site in list(self.sites.values()):
            site.close()
        self.settle()

    def settle(self) -> None:
        """Wait until nobody is about to come back."""
        for thread in iter(self.threads):  # grows meanwhile
            thread.join(30)


@contextlib.contextmanager
def watching(lives: Lives, struck: Callable[[str, Event], str | None]) -> Iterator[None]:
    """Every change of a file is a step of the party whose folder it is in.

    Args:
      lives: of the run.
      struck: `(party, event)`, called before every event of a living party; "full disk" makes it fail.
    """

    def decide(watch: Watch, event: Event) -> str | None:
        name = event.path.relative_to(lives.base).parts[0] if event.path != lives.base else ""
        folder = lives.folders.get(name)
        if folder is None or (event.path != folder and folder not in event.path.parents):
            return None
        site = getattr(HERE, "site", None)
        if site is not None and site.dead:
            return None  # it only seems to go on
        if lives.full.get(name):
            return "full disk"
        return struck(name, event)

    real = site_log._write

    def write(file: Any, line: bytes) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{file.fileno()}"))
        if lives.watch is not None and lives.base in path.parents:
            lives.watch.written(path)
            lives.watch.event("write", path, data=line, place=path.stat().st_size)
        real(file, line)

    with watched(lives.base, decide) as watch, shifted_clock(lives):
        lives.watch = watch
        site_log._write = write
        try:
            yield
        finally:
            site_log._write = real
            lives.watch = None


@contextlib.contextmanager
def shifted_clock(lives: Lives) -> Iterator[None]:
    """Sites whose clocks are off write their logs by them."""

    class Shifted:
        @staticmethod
        def now(zone: tzinfo | None = None) -> datetime:
            site = getattr(HERE, "site", None)
            return datetime.now(zone) + (timedelta() if site is None else lives.shift.get(site.name, timedelta()))

    real = site_log.datetime
    site_log.datetime = Shifted  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        site_log.datetime = real  # type: ignore[misc]
