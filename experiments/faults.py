"""A campaign of faults: whatever dies, fills up, is torn, lost, put back or said twice, no model is wrong, nothing is opened uncharged, nobody answers twice.

Faults strike at every event by which files change (`fault_campaign.events`), at files between two lives of a process (`harm`), and at messages (`rounds`):

* small parties, each of which writes one kind of file (a ledger; a run in miniature; the store of a member), really killed and started again (`parties`);
* whole runs on the heart table, three rounds: copies of the folder before every event, which is what SIGKILL leaves, a full disk, wrong clocks, damaged
  files (`runs`); and real processes that end at an event, some of which are also continued by real processes;
* rounds of the protocol under lost, late, doubled and replayed messages, and the stores of a real member and client at every event (`rounds`);
* commands that read a finished run with damaged files (`readers`).

After every fault: the model of a run that goes on is, bit for bit, that of an undisturbed run; every opened sum was on the ledger by then, and what was
charged stays charged; no party has two different answers to one step; every refusal is one line that says what to do, and none is a traceback. The
exit status is 1 where anything is wrong.

    python experiments/faults.py --faults 1500 --seed 1

Linux only. Writes results/faults.json beside this file: every fault, where it struck, what became of it.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

# Before jax is imported: every process builds the same programs.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "fedjax_poisson" / "experiments"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from fault_campaign import readers, rounds, runs
from fault_campaign.plan import chosen
from fault_campaign.shots import ENDS, place
from fault_campaign.verdicts import Row

from fedjax_poisson.federated.checkpoints import write_atomic

HERE = Path(__file__).parent


def small_parties(seed: int, faults: int, toy: bool) -> Iterator[Row]:
    """Parties in a process of their own, which forks."""
    numbers = (seed, faults // 8, 1 if toy else 4, 4 if toy else faults // 50)
    words = [sys.executable, "-W", "ignore::RuntimeWarning", "-m", "fault_campaign.parties", *map(str, numbers)]
    environment = os.environ | {"PYTHONPATH": _paths(), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"the parties' process ended with status {done.returncode}: {done.stderr[-3000:]}")
    yield from (Row(*row) for row in json.loads(done.stdout))


def _paths() -> str:
    return os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])


def whole_runs(base: Path, rng: random.Random, faults: int, toy: bool) -> Iterator[Row]:
    """Runs in this process."""
    config = runs.config_of("plain")
    truth = runs.Truth(config, base / "truth")
    shots = runs.album(config, base)
    names = [shot.transition for shot in shots]
    yield from runs.snapshots(shots, chosen(names, ENDS, rng, faults // 5), truth, base)
    places = [at for at, _ in chosen(names, ["full disk"], rng, faults // 16)]
    yield from runs.full_disks(shots, places, truth, base)
    folders = runs.stopped_folders(config, base)
    yield from runs.damages(folders, truth, base, rng, 1 if toy else 3)
    yield from runs.clocks(folders, truth, base, (-1, 366) if toy else (-366, -1, -1 / 24, 1, 366))


def processes(base: Path, rng: random.Random, count: int, aggregator: str) -> Iterator[Row]:
    """Real processes that end at an event; continued here, and every fifth by a real process too."""
    base.mkdir()
    truth = runs.Truth(runs.config_of(aggregator), base / "true")
    clean = _process(base / "clean", base / "clean witness", aggregator, 0, "none")
    events = json.loads(clean.stdout.splitlines()[-1])

    def one(number: int, kind: str, at: int) -> subprocess.CompletedProcess[str]:
        return _process(base / f"process {number}", base / f"witness {number}", aggregator, at + 1, kind)

    plan = chosen(events, ("kill", "exit", "torn", "full disk", "power cut"), rng, count)[:count]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        begun = [pool.submit(one, number, kind, at) for number, (at, kind) in enumerate(plan)]
        for number, ((at, kind), waiting) in enumerate(zip(plan, begun, strict=True)):
            ended = waiting.result()
            folder, witness = base / f"process {number}", base / f"witness {number}"
            wrong = ["Traceback in " + ended.stderr[-300:]] if "Traceback" in ended.stderr else []
            opened = tuple(witness.read_text().splitlines()) if witness.exists() else ()
            how = {-9: "killed", 41: "exited", 2: "refused", 0: "finished"}.get(ended.returncode)
            if how is None:
                wrong.append(f"status {ended.returncode}: {ended.stderr[-300:]}")
            if number % 5 == 4 and (folder / "config.toml").exists():
                again = _process(folder, base / "unused", aggregator, 0, "none")
                if again.returncode and "refused: " not in again.stdout:
                    wrong.append(f"a real process does not go on: {again.stdout} {again.stderr[-300:]}")
            outcome, more = runs.resumed(folder, truth, opened)
            yield Row(f"process ({aggregator})", events[at], kind, f"{how}, {outcome}", wrong + more)


def _process(folder: Path, witness: Path, aggregator: str, number: int, kind: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "fault_campaign.runs", str(folder), str(witness), aggregator, str(number), kind]
    environment = os.environ | {"PYTHONPATH": _paths()}
    return subprocess.run(words, capture_output=True, text=True, env=environment, check=False)


def protocol(base: Path, rng: random.Random, faults: int, toy: bool) -> Iterator[Row]:
    """Messages, and stores of a real member and client."""
    own = rounds.setting()
    yield from rounds.lost_messages(own, rng, 30 if toy else faults // 6)
    for party, told in zip(("member", "client"), rounds.store_album(own, base / "stores"), strict=True):
        names = [shot.transition for shot in told.shots]
        yield from rounds.store_ends(party, told, chosen(names, ENDS, rng, faults // 10), base)


def campaign(seed: int, faults: int, toy: bool) -> Iterator[Row]:
    """All parts, one after the other."""
    yield from small_parties(seed, faults, toy)
    rng = random.Random(f"faults {seed}")
    with place() as folder:
        base = Path(folder).resolve()
        yield from whole_runs(base, rng, faults, toy)
        yield from protocol(base, rng, faults, toy)
        for aggregator, share in (("plain", 1),) if toy else (("plain", faults // 40), ("round", faults // 40)):
            yield from processes(base / aggregator, rng, share, aggregator)
        if not toy:
            yield from readers.commands(readers.finished(base), base, rng)


def as_table(rows: Iterable[Row]) -> str:
    """Faults by part, kind and outcome."""
    counts = collections.Counter((row.part, row.kind, row.outcome) for row in rows)
    lines = [f"{'part':<18} {'kind':<20} {'faults':>6}  outcome"]
    lines += [f"{part:<18} {kind:<20} {count:>6}  {outcome}" for (part, kind, outcome), count in sorted(counts.items())]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run the campaign; status 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--faults", type=int, default=1500, help="about how many faults (at least one at every transition)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--toy", action="store_true", help="the fewest faults that touch everything: about a minute")
    parser.add_argument("--out", type=Path, default=HERE, help="where results/ is (default: beside the script)")
    parser.add_argument("--machine", default=f"{os.cpu_count()} cores", help="how to call this machine in the results")
    given = parser.parse_args(arguments)
    if not sys.platform.startswith("linux"):
        print("skipped: the campaign watches files as Linux names them")
        sys.exit(0)
    began, rows = time.perf_counter(), []
    for row in campaign(given.seed, 100 if given.toy else given.faults, given.toy):
        rows.append(row)
        for sentence in row.wrong:
            print(f"WRONG {row.part}: {row.kind} at {row.transition} ({row.outcome}): {sentence}", flush=True)
    asked = subprocess.run(["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    whole = {
        "faults": len(rows),
        "wrong": sum(bool(row.wrong) for row in rows),
        "transitions": len({(row.part, row.transition) for row in rows}),
        "seconds": round(time.perf_counter() - began),
        "seed": given.seed,
        "toy": given.toy,
        "machine": given.machine,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": asked.stdout.strip() or "unknown",
        "columns": Row._fields,
    }
    text = (
        json.dumps(whole, indent=1)[:-2]
        + ',\n "rows": [\n'
        + ",\n".join(f"  {json.dumps(row)}" for row in rows)
        + "\n ]\n}\n"
    )
    write_atomic(given.out / "results" / "faults.json", text.encode())
    print(as_table(rows))
    print(f"{len(rows)} faults at {whole['transitions']} transitions in {whole['seconds']} s: {whole['wrong']} wrong")
    sys.exit(1 if whole["wrong"] else 0)


if __name__ == "__main__":
    main()
