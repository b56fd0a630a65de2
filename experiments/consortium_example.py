"""The example of a consortium as real processes: its time, and with a seed its model and ledgers against those of the same run in one process.

    python experiments/consortium_example.py                                  # TLS, 20 rounds: the wall time, with nothing compiled before
    python experiments/consortium_example.py --compare --rounds 3 --transport socket tls

Both start `examples/consortium/run.sh`: five hospitals (the heart data and a made-up one) and a coordinator, each a process with its own files, with
standardisation and private scores, and `consortium verify` at the end. For `--compare` every site's noise follows from one seed, which is NOT private. The
same settings then run in one process with the same seed, on the same five tables; model and rows of all five ledgers must be the same, bit for bit, and with
another seed they must not. The exit status is 1 where they are not.

Writes results/consortium_example.json, a row for each transport and number of rounds.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import HERE, kept, parser, save  # first: it sets where compiled programs are kept

from fedjax_poisson import accounting, data
from fedjax_poisson.deployment.common_settings import parse_common
from fedjax_poisson.deployment.consortium_file import ConsortiumFile, read_consortium
from fedjax_poisson.deployment.model_digest import digest_of
from fedjax_poisson.runs.load_data import load_sites
from fedjax_poisson.runs.run import run
from fedjax_poisson.runs.run_ledger import MODEL

NAME = "consortium_example"
SCRIPT = HERE.parent / "examples" / "consortium" / "run.sh"
SEED = 5


def example(place: Path, transport: str, rounds: int, seed: int | None, cold: bool) -> tuple[float, float]:
    """Run the script in a folder; seconds it took, and processor seconds of all that it started.

    Args:
      place: where `out` is made; a short path, since sockets lie below it.
      transport: "socket", "tls" or "flower".
      rounds: of training.
      seed: for a rehearsal that can be repeated.
      cold: give it a cache of compiled programs that is empty.

    Raises:
      RuntimeError: it failed; with its last lines.
    """
    words = ["bash", str(SCRIPT), "--out", str(place / "out"), "--transport", transport, "--rounds", str(rounds)]
    words += [] if seed is None else ["--seed", str(seed)]
    tools = place / "bin"
    tools.mkdir()
    for tool, text in (("python3", '"$@"'), ("fedjax-poisson", '-m fedjax_poisson "$@"')):
        (tools / tool).write_text(f"#!/bin/sh\nexec {sys.executable} {text}\n")
        (tools / tool).chmod(0o700)
    folders = (str(tools), str(Path(sys.executable).parent), os.environ["PATH"])
    environment = {**os.environ, "PATH": os.pathsep.join(folders), "PYTHONPATH": str(HERE.parent), "XLA_FLAGS": ""}
    if cold:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(place / "compiled")
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    took, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"run.sh ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def rows_of(ledger: Path) -> list[tuple[str, Any, float]]:
    """What a ledger was charged for."""
    with accounting.read_ledger(ledger) as book:
        return [(row.label, row.charge, row.distance) for row in book.rows()]


def in_one_process(
    file: ConsortiumFile, tables: Path, out: Path, seed: int
) -> tuple[str, list[tuple[str, Any, float]]]:
    """The same run with all sites in this process: digest of its model, rows of its ledger."""
    names = [party.name for party in file.roster.sites]
    own = [
        load_sites(parse_common(file.config, {"csv": tables / f"{name}.csv", "here": name, "seed": seed}))
        for name in names
    ]
    config = parse_common(file.config, {"csv": tables / f"{names[0]}.csv", "seed": seed})
    run(config, out, sites=data.joined(own))
    return digest_of((out / MODEL).read_bytes()), rows_of(out / "ledger.sqlite")


def compared(transport: str, rounds: int) -> dict[str, Any]:
    """Processes against one process, from one seed; and against another seed."""
    with tempfile.TemporaryDirectory(prefix="fp", dir="/tmp") as name:
        place = Path(name)
        took, used = example(place, transport, rounds, SEED, cold=False)
        out = place / "out"
        file = read_consortium(out / "consortium.toml")
        model, rows = in_one_process(file, out / "tables", place / "one", SEED)
        other, _ = in_one_process(file, out / "tables", place / "other", SEED + 1)
        apart = digest_of((out / "run" / "model.npz").read_bytes())
        ledgers = [rows_of(out / "sites" / party.name / "ledger.sqlite") for party in file.roster.sites]
    return {
        "transport": transport,
        "rounds": rounds,
        "compared": True,
        "seconds": round(took, 1),
        "processor_seconds": round(used, 1),
        "model": apart,
        "same_model": apart == model,
        "same_ledger_rows": [own == rows for own in ledgers],
        "ledger_rows": len(rows),
        "other_seed_differs": apart != other,
    }


def timed(transport: str, rounds: int) -> dict[str, Any]:
    """The example as a new user runs it."""
    with tempfile.TemporaryDirectory(prefix="fp", dir="/tmp") as name:
        took, used = example(Path(name), transport, rounds, None, cold=True)
    return {
        "transport": transport,
        "rounds": rounds,
        "compared": False,
        "seconds": round(took, 1),
        "processor_seconds": round(used, 1),
        "load": os.getloadavg()[1],
    }


def main() -> None:
    """Measure or compare the transports asked for."""
    asked = parser(__doc__)
    asked.add_argument("--transport", nargs="+", default=["tls"], choices=["socket", "tls", "flower"])
    asked.add_argument("--rounds", type=int, default=20)
    asked.add_argument("--compare", action="store_true", help="against one process, from one seed")
    arguments = asked.parse_args()
    rounds = 1 if arguments.toy else arguments.rounds
    rows = []
    for transport in arguments.transport:
        row = compared(transport, rounds) if arguments.compare else timed(transport, rounds)
        print(row, flush=True)
        rows.append(row)
    if not arguments.toy:
        new = {(row["transport"], row["rounds"], row["compared"]) for row in rows}
        others = [row for row in kept(arguments, NAME) if (row["transport"], row["rounds"], row["compared"]) not in new]
        save(NAME, arguments, {"rows": [*others, *rows]})
    alike = [
        row["same_model"] and all(row["same_ledger_rows"]) and row["other_seed_differs"]
        for row in rows
        if row["compared"]
    ]
    sys.exit(0 if all(alike) else 1)


if __name__ == "__main__":
    main()
