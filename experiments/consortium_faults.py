"""A campaign of faults against a consortium: whoever dies, lies, is cut off, set back or full, no second answer, no uncharged release, no wrong sum, no hang.

    python experiments/consortium_faults.py --faults 400 --seed 1 [--minutes 15]

Five sites that are the committee (t = 4, f = 1, sums of at least three) want three sums, and one thing goes wrong in each run:

* in one process, where every step, every message and every change of a file is a place for a fault (`consortium_campaign.scenario`): the real exchange,
  stores, ledger, log and coordinator, with random counts instead of a training. A site or the coordinator is killed at a step, in the middle of a write, or as
  a power cut would; a disk is full; a store, a ledger, a log or everything is an older copy; messages are lost, slow, late, doubled, replayed, from another
  run, altered; sites are cut off; a clock is a day off; a site has other terms;
* with real processes behind Unix sockets, which SIGKILL ends at any moment (`consortium_campaign.processes`);
* through Flower, whose SuperNodes and SuperLink are killed (`consortium_campaign.flower`; three sites): only with `--only flower`, from the repository's root
  on the path, with the extra `flower`; 25 minutes at most, since each message takes seconds.

After every fault, all of `consortium_campaign.verdicts`, what the logs say when they are held against each other, and that the run comes to its end with
everybody who may take part. The exit status is 1 where anything is wrong.

Linux only. Writes results/consortium_faults.json: every fault, where it struck, what became of it.
"""

from __future__ import annotations

import argparse
import collections
import json
import logging
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

# Before jax is imported: every process builds the same programs.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "fedjax_poisson" / "experiments"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from consortium_campaign import other_terms, processes
from consortium_campaign.judging import judged
from consortium_campaign.people import NAMES, People, fresh_run, people
from consortium_campaign.plan import planned
from consortium_campaign.scenario import Fault, scenario
from consortium_campaign.verdicts import Row
from fault_campaign.shots import place

from fedjax_poisson.federated.checkpoints import write_atomic

HERE = Path(__file__).parent
PHASE, PATIENCE, RELEASES = 1.5, 0.3, 3
"""Seconds that a phase of a round may take, seconds that a round waits for further sites, and sums of a run."""
ONE_PROCESS, PROCESS, FLOWER = "in one process", "process", "flower"


def in_one_process(base: Path, known: People, rng: random.Random, count: int, toy: bool, until: float) -> Iterator[Row]:
    """Runs in this process, a fault in each; none begins later than `until`."""
    none = Fault(None, "none")
    run = fresh_run(RELEASES, 60.0, PATIENCE)  # builds the programs, so with time
    clean = scenario(base / "clean", known, run, none, rng, limit=300.0)
    yield judged("no fault", none, clean, known, run)
    foreign = clean.past
    yield from other_terms.runs(base, known, rng, lambda: fresh_run(RELEASES, PHASE, PATIENCE), toy)
    for number, (part, fault) in enumerate(planned(clean.places, rng, count)):
        if time.perf_counter() > until:
            return
        run = fresh_run(RELEASES, PHASE, PATIENCE)
        result = scenario(base / str(number), known, run, fault, rng, foreign=foreign)
        if result.struck:
            foreign = result.past
            yield judged(part, fault, result, known, run)


def part_of(row: Row) -> str:
    """Which part of the campaign a row is of."""
    return row.part if row.part in (PROCESS, FLOWER) else ONE_PROCESS


def campaign(seed: int, faults: int, toy: bool, until: float, only: str | None) -> Iterator[Row]:
    """All parts, or one of them."""
    rng, known = random.Random(f"consortium faults {seed}"), people()
    killed = 0 if toy else max(8, faults // 15)
    if only == FLOWER:
        from consortium_campaign import flower

        with place() as folder:
            yield from flower.killed(Path(folder).resolve(), rng)
        return
    if only != PROCESS:
        with place() as folder:
            yield from in_one_process(Path(folder).resolve(), known, rng, faults - killed, toy, until)
    if only != ONE_PROCESS and killed:
        with place() as folder:
            yield from processes.killed(Path(folder).resolve(), known, rng, killed)


def as_table(rows: Iterable[Row]) -> str:
    """Faults by part, kind and outcome, with the seconds of a run in the middle."""
    found: dict[tuple[str, str, str], list[float]] = collections.defaultdict(list)
    for row in rows:
        found[row.part, row.kind, row.outcome].append(row.seconds)
    lines = [f"{'part':<24} {'kind':<24} {'faults':>6} {'seconds':>8}  outcome"]
    for (part, kind, outcome), seconds in sorted(found.items()):
        lines.append(f"{part:<24} {kind:<24} {len(seconds):>6} {sorted(seconds)[len(seconds) // 2]:>8.1f}  {outcome}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run the campaign; status 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--faults", type=int, default=400, help="how many runs with a fault in each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no further run in one process after so long")
    parser.add_argument(
        "--only", choices=[ONE_PROCESS, PROCESS, FLOWER], help="one part; the table keeps the rows of the others"
    )
    parser.add_argument("--toy", action="store_true", help="a dozen faults in one process")
    parser.add_argument("--out", type=Path, default=HERE, help="where results/ is (default: beside the script)")
    given = parser.parse_args(arguments)
    if not sys.platform.startswith("linux"):
        print("skipped: the campaign watches files as Linux names them")
        sys.exit(0)
    logging.getLogger("fedjax_poisson").setLevel(logging.CRITICAL)  # sites that fail say so; the verdicts look at it
    path, began, rows = given.out / "results" / "consortium_faults.json", time.perf_counter(), list[Row]()
    before = json.loads(path.read_text()) if given.only and path.exists() else {"rows": [], "seconds": 0}
    faults = 12 if given.toy else given.faults
    for row in campaign(given.seed, faults, given.toy, began + 60 * given.minutes, given.only):
        rows.append(row)
        for sentence in row.wrong:
            print(f"WRONG {row.part}: {row.kind} at {row.transition} ({row.outcome}): {sentence}", flush=True)
    rows += [one for one in (Row(*each) for each in before["rows"]) if part_of(one) != given.only]
    whole = {
        "faults": sum(row.kind != "none" for row in rows),
        "wrong": sum(bool(row.wrong) for row in rows),
        "transitions": len({row.transition for row in rows if row.transition}),
        "seconds": before["seconds"] + round(time.perf_counter() - began),
        "phase_seconds": PHASE,
        "sites": len(NAMES),
        "seed": given.seed,
        "cores": os.cpu_count(),
        "date": datetime.now(UTC).date().isoformat(),
        "columns": Row._fields,
    }
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    text = json.dumps(whole, indent=1)[:-2] + ',\n "rows": [\n' + lines + "\n ]\n}\n"
    write_atomic(path, text.encode())
    print(as_table(rows))
    print(
        f"{whole['faults']} faults at {whole['transitions']} transitions in {whole['seconds']} s: {whole['wrong']} wrong"
    )
    sys.exit(1 if whole["wrong"] else 0)


if __name__ == "__main__":
    main()
