"""One run of the consortium with one fault in it, in one process, and what became of everything."""

from __future__ import annotations

import random
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fault_campaign.events import Event

from consortium_campaign import wires
from consortium_campaign.harms import FULL, Struck, keep_copy, strike
from consortium_campaign.light_site import HERE, charges_of, watched_contributions
from consortium_campaign.lives import COORDINATOR, Killed, Lives, watching
from consortium_campaign.people import NAMES, People, Run, consortium_of
from consortium_campaign.traps import Place, Trap
from consortium_campaign.wires import Wire, hostile_link
from consortium_campaign.witness import Seen, read, witness
from fedjax_poisson.aggregation import client
from fedjax_poisson.deployment import conduct as conducting
from fedjax_poisson.deployment import site_run
from fedjax_poisson.deployment.conduct import Ended, NoProgress, Step
from fedjax_poisson.deployment.transport.link import Unreached

__all__ = ["Fault", "Result", "Twin", "scenario"]


class Fault(NamedTuple):
    """One fault: where, and of which kind; no place: none."""

    place: Place | None
    kind: str


class Twin(NamedTuple):
    """A party with one mistake, for tests of the verdicts.

    Attributes:
      counts: what a site does to its counts, unseen.
      begin: called with the lives before the sites begin.
      handle: wraps the handler of a site.
    """

    counts: Callable[[Any], Any] = lambda counts: counts
    begin: Callable[[Lives], None] = lambda lives: None
    handle: Callable[[str, Callable[[bytes], bytes]], Callable[[bytes], bytes]] = lambda name, handler: handler


NO_TWIN = Twin()


class Result(NamedTuple):
    """What became of a run.

    Attributes:
      struck: whether the fault's place was come to.
      seen: by the witness.
      ended: of the coordinator; None where it did not come to an end.
      steps: opened sums.
      said: words of the coordinator.
      refusals: for which it ended without one.
      failed: errors that are no refusals, in words.
      held: seconds of each round.
      refused: sites that would not begin again, and why.
      states: of the sites at the end.
      histories: transcripts of each party.
      ledgers: rows by label, of each site.
      logs: bytes of each site's log.
      places: all steps.
      seconds: of everything.
      hung: whether it had to be given up.
      past: requests, by site.
    """

    struck: bool
    seen: Seen
    ended: Ended | None
    steps: list[Step]
    said: list[str]
    refusals: list[str]
    failed: list[str]
    held: list[float]
    refused: dict[str, str]
    states: dict[str, str]
    histories: dict[str, list[bytes]]
    ledgers: dict[str, dict[str, int]]
    logs: dict[str, bytes]
    places: list[Place]
    seconds: float
    hung: bool
    past: dict[str, list[bytes]]


def scenario(
    base: Path,
    known: People,
    run: Run,
    fault: Fault,
    rng: random.Random,
    *,
    foreign: dict[str, list[bytes]] | None = None,
    other: dict[str, dict[str, Any]] | None = None,
    twin: Twin = NO_TWIN,
    limit: float = 60.0,
) -> Result:
    """Hold one run.

    Args:
      base: an empty folder.
      known: the consortium.
      run: what is run.
      fault: what happens.
      rng: by chance.
      foreign: requests of another run of the same sites.
      other: facts in which a site's rounds differ.
      twin: mistakes that the verdicts must find.
      limit: seconds after which it is given up.
    """
    base.mkdir(parents=True)
    began, file = time.monotonic(), base.with_suffix(".witness")
    note = witness(file)
    cut_until: dict[str, float] = {}
    said: list[str] = []
    steps: list[Step] = []
    failed: list[str] = []
    refusals: list[str] = []
    held: list[float] = []
    ended: list[Ended] = []
    given_up = threading.Event()
    pending: list[Event | None] = [None]

    def cut(names: tuple[str, ...], seconds: float) -> None:
        for name in names:
            cut_until[name] = time.monotonic() + seconds

    def spring() -> object:
        if fault.kind in wires.KINDS:
            return wires.KINDS[fault.kind]
        assert fault.place is not None
        return strike(lives, Struck(fault.place.party, fault.kind, pending[0]), cut)

    trap = Trap(fault.place, spring)
    lives = Lives(base, known, run, note, trap.step, away=0.3 * run.phase_seconds)
    lives.other = other or {}
    twin.begin(lives)

    def at_file(name: str, event: Event) -> str | None:
        if name in NAMES and getattr(HERE, "site", None) is None:
            return None
        transition = re.sub(r"\d+", "N", event.transition(lives.folders[name]))
        pending[0] = event
        found = trap.step(name, transition)
        pending[0] = None
        return found if isinstance(found, str) else None

    def bad(site: str, word: str) -> Callable[[Wire], bytes | Unreached] | None:
        if time.monotonic() < cut_until.get(site, 0.0):
            return lambda wire: wires.CUT
        found = trap.step(site, f"message {word}")
        return found if callable(found) else None

    past: dict[str, list[bytes]] = {name: [] for name in NAMES}
    handlers = {name: twin.handle(name, lives.handler(name)) for name in NAMES}
    link = hostile_link(handlers, bad, lambda step: _none(trap.step(COORDINATOR, step)), past, foreign or {}, rng)

    def on_step(one: Step) -> None:
        steps.append(one)
        if one.position == 0:
            keep_copy(lives, COORDINATOR)
            for name, site in list(lives.sites.items()):
                with site.busy:
                    keep_copy(lives, name)

    def coordinate() -> None:
        while not given_up.is_set():
            try:
                ended.append(
                    conducting.conduct(
                        link,
                        consortium_of(known, run),
                        lives.folders[COORDINATOR],
                        step=on_step,
                        say=said.append,
                        stop=given_up.is_set,
                    )
                )
                if _all_over(lives) or len(ended) >= 4:
                    return
                time.sleep(max(lives.away, max(cut_until.values(), default=0.0) - time.monotonic()))
            except Killed:
                time.sleep(lives.away)
            except NoProgress as error:
                refusals.append(str(error))
                if len(refusals) >= 6:
                    return
                time.sleep(lives.away)
            except Exception as error:
                full = isinstance(error, OSError) and fault.kind in FULL
                if not full:
                    failed.append(f"the coordinator ended with {type(error).__name__}: {error}")
                    return

    real_hold, real_contribute, real_wait = conducting.hold_round, client.contribute, site_run._READY_SECONDS

    def timed(*rest: Any, **named: Any) -> Any:
        start = time.monotonic()
        try:
            return real_hold(*rest, **named)
        finally:
            held.append(time.monotonic() - start)

    conducting.hold_round = timed
    client.contribute = watched_contributions(twin.counts)
    site_run._READY_SECONDS = min(0.3, run.phase_seconds / 4)
    try:
        with watching(lives, at_file):
            for name in NAMES:
                lives.begin(name)
            thread = threading.Thread(target=coordinate, daemon=True)
            thread.start()
            thread.join(limit)
            hung = thread.is_alive()
            given_up.set()
            thread.join(2 * run.phase_seconds + 10)
            states = {name: site.progress.state for name, site in lives.sites.items()}
            lives.close()
    finally:
        conducting.hold_round, client.contribute, site_run._READY_SECONDS = real_hold, real_contribute, real_wait
    result = Result(
        struck=trap.struck,
        seen=read(file),
        ended=ended[-1] if ended else None,
        steps=steps,
        said=said,
        refusals=refusals,
        failed=failed,
        held=held,
        refused=lives.refused,
        states=states,
        histories=histories_of(lives),
        ledgers={name: charges_of(lives.folders[name]) for name in NAMES},
        logs={name: (lives.folders[name] / "site.log").read_bytes() for name in NAMES},
        places=trap.places(),
        seconds=time.monotonic() - began,
        hung=hung,
        past=past,
    )
    shutil.rmtree(base, ignore_errors=True)
    file.unlink(missing_ok=True)
    return result


def _none(found: object) -> None:
    del found


def _all_over(lives: Lives) -> bool:
    lives.settle()
    aside = lives.refused.keys() | lives.other.keys()
    return all(name in aside or (name in lives.sites and lives.sites[name].progress.state == "done") for name in NAMES)


def histories_of(lives: Lives) -> dict[str, list[bytes]]:
    """What every party keeps of the opened rounds."""
    folders = {name: lives.folders[name] / "opened" for name in NAMES} | {COORDINATOR: lives.folders[COORDINATOR]}
    return {name: [path.read_bytes() for path in sorted(folder.glob("*.round"))] for name, folder in folders.items()}
