"""One round of five sites in processes of their own: seconds, bytes on the wire and memory, beside the same round in one process.

    python experiments/consortium_rounds.py [--sizes 14 1000000] [--rounds 3] [--traffic] [--toy]

Every site is a process with its keys, its store on disk and its part in the rounds (`deployment.exchange`), but with counts of zeros instead of a training: so
what is measured is the protocol and what carries it. The coordinator is this process. Bytes are those of whole requests and replies; what `message_bytes`
states is a site's contribution alone, and `sum_traffic` all of it. Peak memory is that of the coordinator's process, in uploads of one site: over what it had
at its start, which counts the programs that the first round compiles, and over what it had after the first round.

Writes results/consortium_rounds.json; with --traffic only bytes and memory, which do not depend on what else the machine does, to
results/consortium_traffic.json.
"""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import kept, parser, save  # first: it sets where compiled programs are kept

from fedjax_poisson import randomness
from fedjax_poisson.accounting import Pin
from fedjax_poisson.aggregation import aggregator, keys
from fedjax_poisson.aggregation.spool import file_spool
from fedjax_poisson.aggregation.store import sqlite_store
from fedjax_poisson.aggregation.terms import Pinned, decode_terms, roster_hash
from fedjax_poisson.deployment.exchange import Exchange
from fedjax_poisson.deployment.party import party_of
from fedjax_poisson.deployment.requests import Spoken, decode, encode
from fedjax_poisson.deployment.round_at_server import hold_round
from fedjax_poisson.deployment.site_run import Progress, SiteRun, answer
from fedjax_poisson.deployment.transport.link import Asked, Link, Unreached
from fedjax_poisson.deployment.transport.parts import in_parts
from fedjax_poisson.deployment.transport.parts_handler import parts_handler
from fedjax_poisson.deployment.transport.sockets import serve, socket_link
from fedjax_poisson.deployment.wire_bytes import sum_traffic
from fedjax_poisson.runs.network import Standing

NAME, TRAFFIC = "consortium_rounds", "consortium_traffic"
NAMES = ("a", "b", "c", "d", "e")
RUN, TERMS, BOUND = bytes(range(16)), bytes(32), 1000


def make(backend: Any, size: int) -> Any:
    """The rounds: five senders and members, all of whom must send."""
    return aggregator(backend, count_bound=BOUND, senders=5, size=size, members=5, corrupt=1)


def site(name: str, folder: Path, secret: bytes, public: dict[str, bytes], size: int, rounds: int) -> None:
    """One site's process: its run wants so many sums of zeros, one after another."""
    pinned = Pinned(tuple(public.values()), 4, 1, roster_hash(tuple(public.values())), 4, 1)
    party = party_of(
        name=name,
        sites=NAMES,
        key=keys.Hidden(secret),
        pinned=pinned,
        roster=frozenset(public.values()),
        run=RUN,
        terms=TERMS,
        store=sqlite_store(folder / f"{name}-client.sqlite"),
        member_store=sqlite_store(folder / f"{name}-member.sqlite"),
    )
    exchange = Exchange(party, folder / name, lambda kind, **told: None)
    done = threading.Event()
    made = make(exchange.backend, size)
    charge = exchange.charging(
        lambda purpose, k: (lambda: None, randomness.stream()),
        Standing(lambda label: 0, lambda: 0, lambda: (0.0, Pin(0, ""))),
    )

    def train() -> None:
        for k in range(1, rounds + 1):
            gate, own = charge("train", k)
            sealed = made.encrypt(np.zeros(size, np.int32), own)
            gate()
            made.open(sealed, size)

    threading.Thread(target=train, daemon=True).start()
    running = SiteRun(exchange, lambda: Progress("running", None, "", None), folder, lambda seconds: None)

    def handle(blob: bytes) -> bytes:
        spoken = decode(blob)
        if spoken.word == "stop":
            done.set()
            return encode(Spoken("stopped", (str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss).encode(),)))
        return answer(running, spoken)

    serve(folder / f"{name}.socket", parts_handler(handle), done)


def counted(link: Link, bytes_of: dict[str, int]) -> Link:
    """The link, adding up what goes through it, with the lengths that stand before each message on a stream."""

    def ask(asked: Asked, seconds: float) -> Iterator[tuple[str, bytes | Unreached]]:
        bytes_of["down"] = bytes_of.get("down", 0) + sum(len(one) + 4 for one in asked.values())
        bytes_of["asks"] = bytes_of.get("asks", 0) + 1
        for name, reply in link.ask(asked, seconds):
            if isinstance(reply, bytes):
                bytes_of["up"] = bytes_of.get("up", 0) + len(reply) + 5
            yield name, reply

    return link._replace(ask=ask)


def peak_bytes() -> int:
    """Most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_one_process(size: int, rounds: int) -> list[float]:
    """Seconds of the same rounds with all roles here, messages made and signed."""
    made, found = make("round", size), []
    for k in range(rounds + 1):
        began = time.perf_counter()
        made.begin()
        counts = np.zeros(size, np.int32)
        sealed = [made.encrypt(counts, randomness.fold_in(randomness.stream(), k, s)) for s in range(5)]
        total = functools.reduce(made.add, sealed)
        made.open(total, size)
        found.append(time.perf_counter() - began)
    return found[1:]


def between_processes(size: int, rounds: int) -> dict[str, Any]:
    """Seconds, bytes and memory of rounds between processes."""
    signing = {name: keys.new_signing_key() for name in NAMES}
    public = {name: keys.public_of(key) for name, key in signing.items()}
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        workers = [
            context.Process(target=site, args=(name, folder, signing[name].value, public, size, rounds + 1))
            for name in NAMES
        ]
        for worker in workers:
            worker.start()
        for name in NAMES:
            while not (folder / f"{name}.socket").exists():
                time.sleep(0.05)
        moved: dict[str, int] = {}
        link = in_parts(counted(socket_link({name: folder / f"{name}.socket" for name in NAMES}), moved))
        seconds, before, start = [], 0, peak_bytes()
        for k in range(1, rounds + 2):
            drafts = {}
            while len(drafts) < 5:
                for name, reply in link.ask(dict.fromkeys(NAMES, encode(Spoken("next"))), 120):
                    if isinstance(reply, bytes) and (said := decode(reply)).word == "at" and said.parts[2]:
                        drafts[name] = said.parts[2]
            (draft,) = set(drafts.values())
            if k == 2:
                moved.clear()
                before = peak_bytes()
            began = time.perf_counter()
            transcript, heard = hold_round(
                link,
                dataclasses.replace(decode_terms(draft), round=k),
                members=dict(enumerate(NAMES, 1)),
                sites=public,
                seconds=600,
                spool=file_spool(folder),
            )
            assert not heard, heard
            opened = encode(Spoken("opened", ((k - 1).to_bytes(8, "little"), transcript)))
            replies = dict(link.ask(dict.fromkeys(NAMES, opened), 600))
            assert all(isinstance(one, bytes) and decode(one).word == "kept" for one in replies.values()), replies
            seconds.append(time.perf_counter() - began)
        grown = peak_bytes() - before
        stopped = dict(link.ask(dict.fromkeys(NAMES, encode(Spoken("stop"))), 60))
        sites_peak = max(int(decode(one).parts[0]) for one in stopped.values() if isinstance(one, bytes)) * 1024
        link.close()
        for worker in workers:
            worker.join(60)
    upload, predicted = make("round", size).message_bytes(size), sum_traffic(decode_terms(draft), 5)
    return {
        "seconds": seconds[1:],
        "messages_per_round_and_site": moved["asks"] / rounds / 5,
        "bytes_up_per_site": moved["up"] / rounds / 5,
        "bytes_down_per_site": moved["down"] / rounds / 5,
        "contribution_bytes": upload,
        "up_over_predicted": moved["up"] / rounds / 5 / predicted.up,
        "down_over_predicted": moved["down"] / rounds / 5 / predicted.down,
        "up_over_contribution": moved["up"] / rounds / 5 / upload,
        "coordinator_start": start,
        "coordinator_grown_uploads_over_start": (grown + before - start) / upload,
        "coordinator_peak_before": before,
        "coordinator_grown_uploads": grown / upload,
        "site_peak": sites_peak,
    }


def measure(size: int, rounds: int) -> dict[str, Any]:
    """One size: rounds between processes, and in one."""
    apart = between_processes(size, rounds)
    together = in_one_process(size, rounds)
    return {
        "size": size,
        **apart,
        "median_seconds": statistics.median(apart["seconds"]),
        "one_process_seconds": together,
        "ratio": statistics.median(apart["seconds"]) / statistics.median(together),
    }


def traffic(size: int, rounds: int) -> dict[str, Any]:
    """One size: bytes and memory alone."""
    return {
        "size": size,
        **{name: value for name, value in between_processes(size, rounds).items() if name != "seconds"},
    }


def main() -> None:
    """Measure the sizes asked for."""
    asked = parser(__doc__)
    asked.add_argument("--sizes", type=int, nargs="+", default=[14, 1_000_000])
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--traffic", action="store_true", help="bytes and memory alone")
    arguments = asked.parse_args()
    name = TRAFFIC if arguments.traffic else NAME
    for size in [64] if arguments.toy else arguments.sizes:
        rounds = 1 if arguments.toy else arguments.rounds
        row = traffic(size, rounds) if arguments.traffic else measure(size, rounds)
        print(row, flush=True)
        if not arguments.toy:
            others = [other for other in kept(arguments, name) if other["size"] != size]
            save(name, arguments, {"rows": sorted([*others, row], key=lambda row: row["size"])})


if __name__ == "__main__":
    main()
