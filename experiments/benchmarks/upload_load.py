"""How many clients' uploads of one round the server checks a second, and what they cost in memory: signature, hashes, sizes, ranges, and the sum of all rows.

    python experiments/benchmarks/upload_load.py [--uploads 10000] [--kept disk memory] [--toy]

Every upload is a real one, of a client with a key of its own, made in this process while the server waits, handed over as bytes and forgotten: no two are
the same, and no more than one is held. The round has D = 4,097 counts (workload W3) and five members. The sum is held against the one that the clients' side
adds up from its own bytes. Only the server is timed, so the terms, which every client checks, are checked once here. Every point runs in a process of its own,
so that its peak memory is its own. Writes results/upload_load.json beside the other results.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent.parent
SIZE = 4_097
EVERY = 500


def measure(uploads: int, kept: str) -> dict[str, Any]:
    """One round, in this process."""
    from fedjax_poisson.aggregation import bodies, client, committee, keys, messages, server, server_state
    from fedjax_poisson.aggregation.parameters import default_malicious, least_threshold
    from fedjax_poisson.aggregation.round_setting import RoundSetting, draft_of
    from fedjax_poisson.aggregation.spool import file_spool, memory_spool
    from fedjax_poisson.aggregation.store import memory_store
    from fedjax_poisson.aggregation.wire import Reader, read_residues
    from fedjax_poisson.randomness import fold_in, stream

    members = 5
    malicious = default_malicious(members)
    setting = RoundSetting(
        run=bytes(16),
        count_bound=40 * int(uploads**0.5) + 100,
        count_rms=None,
        senders=uploads,
        minimum=2,
        corrupt=1,
        members=members,
        threshold=least_threshold(members, malicious),
        malicious=malicious,
        mechanism="{}",
        size=SIZE,
    )
    everybody = committee.Committee(setting)
    draft = draft_of(setting, 1, SIZE, everybody.public, everybody.roster_hash)
    with tempfile.TemporaryDirectory() as folder:
        spool = file_spool(Path(folder)) if kept == "disk" else memory_spool()
        state, outgoing = server.start(draft, everybody.roster, spool)
        while state.phase != "contribution":
            state = everybody.say(state, outgoing)
            state, outgoing = server.advance(state)
        reader = Reader(messages.decode_notice(outgoing[0].blob, 1 << 24, ["invite"]).body)
        terms, certificate = reader.prefixed(), reader.prefixed()
        ring, params = state.params.ring, state.params
        moduli = np.asarray(ring.moduli, np.uint64)[:, None]
        total = np.zeros((params.rows, ring.limbs, ring.degree), np.uint64)
        drawn, root = np.random.default_rng(0), stream()
        accepted = client.accept_terms(everybody.clients[0], terms, certificate, bytes(32))
        client.accept_terms = lambda *_: accepted

        def roster_of(label: str) -> frozenset[bytes]:
            return everybody.roster

        spent = made = worked = 0.0
        largest, at = 0, []
        for number, who in enumerate(everybody.clients):
            began = time.perf_counter()
            counts = drawn.integers(-4, 5, SIZE).astype(np.int32)
            own = who._replace(store=memory_store())  # forgotten with the client
            blob = client.contribute(own, terms, certificate, counts, fold_in(root, number), model=bytes(32))
            attached = messages.decode(blob, state.draft, state.digest, roster_of, ["contribution"]).attached
            sent = read_residues(Reader(attached).prefixed(), (params.rows,), ring.degree, ring.moduli)
            total = (total + sent) % moduli
            handed = time.perf_counter()
            busy = time.process_time()
            state = server.receive(state, blob)
            worked += time.process_time() - busy
            done = time.perf_counter()
            spent, made, largest = spent + done - handed, made + handed - began, max(largest, len(blob))
            if (number + 1) % EVERY == 0 or number + 1 == uploads:
                at.append(
                    {"uploads": number + 1, "server_seconds": spent, "resident_mb": _resident(), "peak_mb": _peak()}
                )
                print(at[-1], file=sys.stderr, flush=True)
        began = time.perf_counter()
        entries = tuple(sorted((key, taken.digest) for key, taken in state.clients.items()))
        include = bodies.Include(entries, (), ())
        found = server_state.sum_of_rows(state, include)
        summed = time.perf_counter() - began
        assert len(entries) == uploads == len({keys.public_of(one.key) for one in everybody.clients})
        return {
            "uploads": uploads,
            "kept": kept,
            "size": SIZE,
            "bytes_of_an_upload": largest,
            "uploads_a_second": uploads / spent,
            "uploads_a_second_of_cpu": uploads / worked,
            "sum_seconds": summed,
            "making_seconds": made,
            "resident_mb_after_first": at[0]["resident_mb"],
            "resident_mb_after_last": at[-1]["resident_mb"],
            "growth_bytes_an_upload": 1e6
            * (at[-1]["resident_mb"] - at[0]["resident_mb"])
            / max(1, uploads - at[0]["uploads"]),
            "peak_mb_with_sum": _peak(),
            "exact": bool((found == total).all()),
            "at": at,
        }


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main(arguments: list[str] | None = None) -> None:
    """Measure every point in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--uploads", type=int, default=10_000)
    parser.add_argument(
        "--kept", nargs="+", choices=("disk", "memory"), default=["disk"], help="where the server keeps what was sent"
    )
    parser.add_argument("--toy", action="store_true", help="40 uploads")
    parser.add_argument(
        "--out", type=Path, default=HERE, help="where results/ is (default: beside the other experiments)"
    )
    parser.add_argument("--machine", default=f"{os.cpu_count()} cores", help="how to call this machine in the results")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    uploads = 40 if given.toy else given.uploads
    if given.point:
        print(json.dumps(measure(uploads, given.point)))
        return
    points = []
    for kept in given.kept:
        words = [sys.executable, __file__, "--uploads", str(uploads), "--point", kept]
        points.append(json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True).stdout))
        print({name: value for name, value in points[-1].items() if name != "at"})
    asked = subprocess.run(["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    result = {
        "points": points,
        "toy": given.toy,
        "machine": given.machine,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": asked.stdout.strip() or "unknown",
    }
    (given.out / "results").mkdir(parents=True, exist_ok=True)
    (given.out / "results" / "upload_load.json").write_text(json.dumps(result, indent=1) + "\n")
    if not all(point["exact"] for point in points):
        sys.exit("a sum is not that of its uploads")


if __name__ == "__main__":
    main()
