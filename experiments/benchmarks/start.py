"""What `fedjax-poisson run` on the heart data costs as a process: with nothing kept (cold), and with what the run before it kept (warm).

    python experiments/benchmarks/start.py [--against CHECKOUT] [--cold 3] [--warm 5] [--rounds 60]

Processor seconds (user and system) of the whole process, its children and threads, beside wall seconds, which mean little on a busy machine. A second checkout
takes turns with this one, so that both see the same neighbours. Appends a row a checkout and kind to results/start.jsonl.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent


def one_run(checkout: Path, kept: Path, rounds: int) -> dict[str, float]:
    """One process that trains on the heart data, with the folder where programs are kept."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fedjax_poisson", "run", "--quiet", "--out", f"{folder}/run"]
        command += ["--rounds", str(rounds)] if rounds else []
        others = [path for path in sys.path if path and (Path(path) / "flatbuffers").exists()]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "FEDJAX_"))}
        environment |= {"XDG_CACHE_HOME": str(kept), "JAX_PLATFORMS": "cpu"}
        environment["PYTHONPATH"] = os.pathsep.join([str(checkout), *others])
        began = time.perf_counter()
        child = subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - began
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    return {"processor_s": used.ru_utime + used.ru_stime, "wall_s": wall, "peak_mb": used.ru_maxrss / 1024}


def commit_of(checkout: Path) -> str:
    """The checked-out commit."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def rows(checkouts: list[Path], cold: int, warm: int, rounds: int) -> list[dict[str, Any]]:
    """Runs in turns, as a row a checkout and kind with median and extremes."""
    found: dict[tuple[Path, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(max(cold, warm)):
            for place, checkout in enumerate(checkouts):
                if number < cold:
                    kept = Path(folder) / f"{place}-{number}"
                    found.setdefault((checkout, "cold"), []).append(one_run(checkout, kept, rounds))
                if number < warm:
                    kept = Path(folder) / f"{place}-{min(number, cold - 1)}"
                    found.setdefault((checkout, "warm"), []).append(one_run(checkout, kept, rounds))
    made = []
    for (checkout, kind), runs in found.items():
        row: dict[str, Any] = {"what": "run on heart", "kind": kind, "commit": commit_of(checkout), "runs": len(runs)}
        for name in runs[0]:
            values = [run[name] for run in runs]
            row[name] = {"median": statistics.median(values), "least": min(values), "most": max(values)}
        row |= {"rounds": rounds or "of the recipe", "machine": "2 cores of a shared AMD EPYC"}
        made.append(row | {"load": os.getloadavg()[0], "date": datetime.date.today().isoformat()})
    return made


def main() -> None:
    """Measure, print, append."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--against", type=Path, help="another checkout of this project, measured in turns with this one"
    )
    parser.add_argument("--cold", type=int, default=3, help="runs with nothing kept, at least 1")
    parser.add_argument("--warm", type=int, default=5, help="runs with what a cold one kept")
    parser.add_argument("--rounds", type=int, default=0, help="0: those of the recipe")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "start.jsonl")
    options = parser.parse_args()
    if options.cold < 1:
        parser.error(f"--cold {options.cold}: what warm runs read is kept by a cold one; give at least 1")
    checkouts = [HERE.parent, *([options.against.resolve()] if options.against else [])]
    with options.results.open("a") as file:
        for row in rows(checkouts, options.cold, options.warm, options.rounds):
            print(json.dumps(row))
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
