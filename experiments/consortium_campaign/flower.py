"""Three sites whose messages go through Flower (TLS, keys of the nodes), while SIGKILL ends SuperNodes and the SuperLink in named steps of rounds.

Each begins anew after a few seconds, as a service would, again and again while it ends by itself (the SuperLink refuses a node that was killed until its
heartbeat has run out); what it had started lives on as it may. The sites' workers and the coordinator are the real ones of
`processes`, with random counts. A SuperLink that was killed has lost the relay's run: where nothing comes through soon after it is back, that run is started
again (`flwr run`), as `docs/deployment.md` tells people to do, and the row says so.
"""

from __future__ import annotations

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

from consortium_campaign.light_site import name_of
from consortium_campaign.people import NAMES, People, Run, consortium_of, fresh_run, people
from consortium_campaign.processes import NOT_ENDED, START_SECONDS, site_process, timed_rounds, whole_verdicts
from consortium_campaign.verdicts import Row
from fedjax_poisson.deployment import conduct as conducting
from fedjax_poisson.deployment.conduct import NoProgress, Step
from fedjax_poisson.deployment.requests import decode
from fedjax_poisson.deployment.transport.flower import PART_BYTES
from fedjax_poisson.deployment.transport.link import Asked, Link, Unreached
from fedjax_poisson.deployment.transport.parts import in_parts
from tests.deployment.flower_network import FlowerNetwork, flower_network

__all__ = ["FLOWER", "killed"]

FLOWER = "flower"
SUPERLINK = "superlink"
PLAN = (
    ("north", "terms"),
    (SUPERLINK, "shares"),
    ("east", "invite"),
    (SUPERLINK, "included"),
    ("south", "judged"),
    (SUPERLINK, "committed"),
)
"""Who is killed while which request is on its way, in this order; never a second one before the first is back."""
_RESTART = 5.0
"""Seconds after which a service begins a process anew."""
PHASE, PATIENCE, MESSAGE_SECONDS, SILENT, LONGEST = 300.0, 60.0, 40.0, 15.0, 1500.0
"""Seconds: a phase of a round; for further sites; until a message counts as lost and is sent again; without a reply until the relay is begun anew; in all."""


class _Killer:
    """Ends processes as planned, when the coordinator asks the request that is planned."""

    def __init__(self, base: Path, network: FlowerNetwork, rng: random.Random) -> None:
        self.base, self.network, self.rng = base, network, rng
        self.plan, self.busy = list(PLAN), threading.Lock()
        self.heard: dict[
            str, float
        ] = {}  # when something came from a site last; from any of them, through the SuperLink
        self.struck: list[dict[str, Any]] = []

    def watched(self, link: Link) -> Link:
        """The link, whose requests may trigger a kill."""

        def ask(asked: Asked, seconds: float) -> Iterator[tuple[str, bytes | Unreached]]:
            name = name_of(decode(next(iter(asked.values()))))
            if self.plan and self.plan[0][1] == name and self.busy.acquire(blocking=False):
                threading.Thread(target=self._strike, args=self.plan.pop(0), daemon=True).start()
            for site, reply in link.ask(asked, seconds):
                if isinstance(reply, bytes):
                    self.heard[site] = self.heard[SUPERLINK] = time.monotonic()
                yield site, reply

        return link._replace(ask=ask)

    def _strike(self, victim: str, request: str) -> None:
        try:
            time.sleep(self.rng.uniform(0.0, 6.0))
            number = json.loads((self.base / "coordinator" / "last_round.json").read_text())["round"]
            os.kill(self.network.alive[victim].pid, signal.SIGKILL)
            self.network.alive[victim].wait(10)
            began, again = time.monotonic(), 0
            starts = 0
            while self.heard.get(victim, 0.0) < began + _RESTART and time.monotonic() < began + 300.0:
                if self.network.alive[victim].poll() is not None:
                    time.sleep(_RESTART)
                    self.network.begin(victim)
                    starts += 1
                if victim == SUPERLINK and time.monotonic() > began + _RESTART + SILENT + 60.0 * again:
                    self.network.relay()
                    again += 1
                time.sleep(0.2)
            took = round(time.monotonic() - began, 1)
            told = {
                "victim": victim,
                "request": request,
                "round": number,
                "relays": again,
                "starts": starts,
                "took": took,
            }
            print(json.dumps(told), flush=True)
            self.struck.append(told)
        finally:
            self.busy.release()


def killed(base: Path, rng: random.Random) -> Iterator[Row]:
    """One run with all kills of the plan, a row for each; the verdicts over all of it stand in the last row."""
    logging.getLogger("fedjax_poisson").setLevel(logging.CRITICAL)
    known = people(NAMES[:3])
    run = fresh_run(3, PHASE, PATIENCE)
    secrets = {name: one.key.value for name, one in known.who.items()}
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=site_process, args=(name, base, secrets, run), daemon=True) for name in known.who]
    steps: list[Step] = []
    began, finished = time.monotonic(), False
    paths = {name: base / f"{name}.socket" for name in known.who}
    try:
        for worker in workers:
            worker.start()
        while not all(path.exists() for path in paths.values()):
            if time.monotonic() > began + START_SECONDS:
                raise RuntimeError("the workers do not begin")
            time.sleep(0.2)
        with timed_rounds(base), flower_network(base / "flower", paths) as network:
            killer = _Killer(base, network, rng)
            link = killer.watched(in_parts(network.link, part_bytes=PART_BYTES, patience=MESSAGE_SECONDS))
            while not finished and time.monotonic() < began + LONGEST:
                try:
                    ended = conducting.conduct(
                        link,
                        consortium_of(known, run),
                        base / "coordinator",
                        step=steps.append,
                        stop=lambda: time.monotonic() > began + LONGEST,
                    )
                    result = {"digests": ended.digests, "agree": ended.agree}
                    (base / "result.json").write_text(json.dumps(result))
                    finished = True
                except NoProgress as error:  # somebody starts it again
                    with (base / "refusals").open("a") as file:
                        file.write(json.dumps(str(error)) + "\n")
    finally:
        for worker in workers:
            if worker.pid is not None:
                worker.kill()
                worker.join(10)
    for one in killer.struck:
        yield _row(one, steps)
    yield whole(base, known, run, finished, len(steps), time.monotonic() - began)


def whole(base: Path, known: People, run: Run, finished: bool, sums: int, seconds: float) -> Row:
    """The verdicts over the whole run; one that had not ended when its time was over says so, and is judged up to there."""
    wrong = whole_verdicts(base, known, run, finished)
    outcome = "the whole run"
    if not finished and seconds > LONGEST and sums:
        outcome = f"the whole run, ended by its time after {sums} of {run.releases} sums"
        wrong = [sentence for sentence in wrong if sentence != NOT_ENDED]
    return Row(FLOWER, "", "none", outcome, round(seconds, 2), wrong)


def _row(one: dict[str, Any], steps: list[Step]) -> Row:
    """What became of a kill: of the round that was under way, and how long nothing came through."""
    opened = {step.round: step.clients for step in steps}
    number, who = one["round"], "SuperLink" if one["victim"] == SUPERLINK else "SuperNode"
    if number not in opened:
        outcome = (
            "its round died, a later one was opened"
            if any(k > number for k in opened)
            else "its round died, and no later one was opened in its time"
        )
    else:
        outcome = "its round was opened by all" if len(opened[number]) == 3 else "its round was opened by the others"
    if one["starts"] > 1:
        outcome += f"; it began at the {one['starts']}. start"
    if one["relays"]:
        outcome += (
            f"; the relay's run was started again {'once' if one['relays'] == 1 else str(one['relays']) + ' times'}"
        )
    return Row(FLOWER, f"{who}: {one['request']} is on its way", "SIGKILL", outcome, one["took"], [])
