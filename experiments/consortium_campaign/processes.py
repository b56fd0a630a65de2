"""The same consortium with real processes behind Unix sockets, which SIGKILL ends at any moment; they begin anew at once."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from consortium_campaign import verdicts
from consortium_campaign.light_site import LightSite, charges_of, watched_contributions
from consortium_campaign.people import NAMES, People, Run, consortium_of, fresh_run, people_of
from consortium_campaign.verdicts import Row
from consortium_campaign.witness import read, witness
from fedjax_poisson.aggregation import client
from fedjax_poisson.deployment import conduct as conducting
from fedjax_poisson.deployment.conduct import NoProgress
from fedjax_poisson.deployment.log_check import check_logs
from fedjax_poisson.deployment.roster import pinned_of
from fedjax_poisson.deployment.transport.parts import in_parts
from fedjax_poisson.deployment.transport.parts_handler import parts_handler
from fedjax_poisson.deployment.transport.sockets import serve, socket_link

__all__ = ["NOT_ENDED", "START_SECONDS", "killed", "site_process", "whole_verdicts"]

PHASE, PATIENCE = 3.0, 0.5
NOT_ENDED = "the run does not come to its end"
START_SECONDS = 120.0
"""A process imports and builds programs before it serves."""


def site_process(name: str, base: Path, secrets: dict[str, bytes], run: Run) -> None:
    """One life of a site's process."""
    logging.getLogger("fedjax_poisson").setLevel(logging.CRITICAL)
    client.contribute = watched_contributions()
    site = LightSite(name, people_of(secrets), run, base / name, witness(base / "witness"), lambda site, step: None)
    serve(base / f"{name}.socket", parts_handler(site.handle), threading.Event())


@contextlib.contextmanager
def timed_rounds(base: Path) -> Iterator[None]:
    """Meanwhile every round that this process holds adds a line to `held`: the seconds that it took, however it ended."""
    real = conducting.hold_round

    def timed(*rest: Any, **named: Any) -> Any:
        began = time.monotonic()
        try:
            return real(*rest, **named)
        finally:
            with (base / "held").open("a") as file:
                file.write(f"{time.monotonic() - began}\n")

    conducting.hold_round = timed
    try:
        yield
    finally:
        conducting.hold_round = real


def _coordinator(base: Path, secrets: dict[str, bytes], run: Run) -> None:
    """One life of the coordinator's process; how it ended stands in a file."""
    logging.getLogger("fedjax_poisson").setLevel(logging.CRITICAL)
    link = in_parts(socket_link({name: base / f"{name}.socket" for name in NAMES}))
    try:
        with timed_rounds(base):
            ended = conducting.conduct(link, consortium_of(people_of(secrets), run), base / "coordinator")
        (base / "result.json").write_text(json.dumps({"digests": ended.digests, "agree": ended.agree}))
    except NoProgress as error:
        with (base / "refusals").open("a") as file:
            file.write(json.dumps(str(error)) + "\n")
    os._exit(0)


def killed(base: Path, known: People, rng: random.Random, count: int) -> Iterator[Row]:
    """One long run in which so many processes are killed, one after the other; the verdicts over all of it stand in the last row."""
    secrets = {name: one.key.value for name, one in known.who.items()}
    run = fresh_run(5 * count, PHASE, PATIENCE)
    context = multiprocessing.get_context("spawn")
    alive: dict[str, Any] = {}

    def begin(name: str) -> None:
        target, rest = (
            (_coordinator, (base, secrets, run))
            if name == "coordinator"
            else (site_process, (name, base, secrets, run))
        )
        alive[name] = context.Process(target=target, args=rest, daemon=True)
        alive[name].start()

    def opened() -> int:
        return len(list((base / "coordinator").glob("*.round")))

    def until(what: Any, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not what():
            if not alive["coordinator"].is_alive() and not (base / "result.json").exists():
                begin("coordinator")  # it refused to go on; somebody starts it again
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    try:
        for name in NAMES:
            begin(name)
        begin("coordinator")
        if not until(lambda: opened() >= 2, 2 * START_SECONDS):
            raise RuntimeError("the consortium does not begin")
        for _ in range(count):
            name = rng.choice((*NAMES, "coordinator"))
            time.sleep(rng.uniform(0.0, 1.5))
            began, at = time.monotonic(), opened()
            if (base / "result.json").exists():
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(alive[name].pid, signal.SIGKILL)
            alive[name].join(10)
            without = opened()
            begin(name)
            more = until(lambda at=at: opened() >= at + 2 or (base / "result.json").exists(), START_SECONDS)
            wrong = [] if more else [f"no further sum within {START_SECONDS:g} s"]
            meanwhile = "sums went on" if opened() > without else "nothing went on"
            part = "site" if name in NAMES else name
            yield Row("process", f"{part}: any moment", "SIGKILL", meanwhile, round(time.monotonic() - began, 2), wrong)
        began = time.monotonic()
        finished = until((base / "result.json").exists, START_SECONDS + 3.0 * run.releases)
        time.sleep(1.0)
    finally:
        for process in alive.values():
            if process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
                process.join(10)
    yield Row(
        "process",
        "",
        "none",
        "the whole run",
        round(time.monotonic() - began, 2),
        whole_verdicts(base, known, run, finished),
    )


def whole_verdicts(base: Path, known: People, run: Run, finished: bool) -> list[str]:
    """All verdicts over the whole run, from what lies on the disk."""
    seen, folders = (
        read(base / "witness"),
        {name: base / name / "opened" for name in known.who} | {"coordinator": base / "coordinator"},
    )
    histories = {
        name: [path.read_bytes() for path in sorted(folder.glob("*.round"))] for name, folder in folders.items()
    }
    transcripts = {f"{name} {k}": blob for name, own in histories.items() for k, blob in enumerate(own)}
    held = [float(line) for line in (base / "held").read_text().splitlines()]
    refusals = (
        [json.loads(line) for line in (base / "refusals").read_text().splitlines()]
        if (base / "refusals").exists()
        else []
    )
    logs = {f"{name}.log": (base / name / "site.log").read_bytes() for name in known.who}
    findings = check_logs(
        known.roster, logs, {f"{k:05d}.round": blob for k, blob in enumerate(histories["coordinator"])}
    )
    result = json.loads((base / "result.json").read_text()) if finished else {"digests": {}, "agree": []}
    return [
        *verdicts.unlike_the_counts(seen, transcripts, pinned_of(known.roster)),
        *verdicts.counts_used_twice(seen),
        *verdicts.second_answers(seen),
        *verdicts.uncharged(seen),
        *verdicts.forgotten_charges(seen, {name: charges_of(base / name) for name in known.who}),
        *verdicts.differing_histories(histories),
        *verdicts.too_late(held, 10, run.phase_seconds, 5.0),
        *verdicts.tracebacks(seen),
        *verdicts.unhelpful(refusals),
        *(f"the logs: {one.words}" for one in findings.findings if one.grave),
        *([] if finished else [NOT_ENDED]),
        *([] if len(result["agree"]) == len(result["digests"]) else ["the models differ"]),
    ]
