"""What every client's message costs in a simulation: `python experiments/benchmarks/message_overhead.py --workload W1`.

Plain rounds, private ones and private, encrypted ones (`fidelity="messages"`) take turns in one process, so that they see the same load. Appends a row to
results/message_overhead.jsonl: of each kind wall and processor milliseconds (least, first quartile and median), and what the second and third kind cost above
the first in nanoseconds for each client and parameter. The commit is that of the package: with PYTHONPATH another checkout is measured. `--cores 1` keeps the
process to one core: its processor time then has no waiting of threads for one another in it, and hardly depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import time
import warnings
from pathlib import Path

import numpy as np
from round_ratio import here
from start import commit_of

RESULTS = Path(__file__).resolve().parents[1] / "results" / "message_overhead.jsonl"
KINDS = {"plain": (None, "off"), "private": ("messages", "off"), "private, encrypted": ("messages", "on")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=["W1", "W2", "W3"], default="W1")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--machine", default="2 cores of a shared AMD EPYC")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    made = {kind: here(options.workload, *setting) for kind, setting in KINDS.items()}
    for go in made.values():
        go(), go()
    spent: dict[str, list[tuple[float, float]]] = {kind: [] for kind in made}
    for _ in range(options.turns):
        for kind, go in made.items():
            for _ in range(2):
                wall, busy = time.perf_counter(), time.process_time()
                go()
                spent[kind].append((time.perf_counter() - wall, time.process_time() - busy))
    found = {kind: np.quantile(np.asarray(each), (0, 0.25, 0.5), axis=0).T for kind, each in spent.items()}

    def both(numbers: np.ndarray, digits: int) -> dict[str, list[float]]:
        return dict(zip(("wall", "processor"), np.round(numbers, digits).tolist(), strict=True))

    import fedjax_poisson
    from fedjax_poisson.benchmarks import workloads

    config = workloads.find(options.workload)
    values = config.cohort * workloads.n_params(config)
    row = {
        "commit": commit_of(Path(fedjax_poisson.__file__).parent),
        "workload": options.workload,
        "cores": options.cores,
        "of": ["least", "first quartile", "median"],
        "ms": {kind: both(1e3 * each, 3) for kind, each in found.items()},
        "ns_per_client_and_parameter": {
            kind: both(1e9 * (found[kind] - found["plain"]) / values, 1) for kind in KINDS if kind != "plain"
        },
        "turns": options.turns,
        "load": os.getloadavg()[0],
        "machine": options.machine,
        "date": datetime.date.today().isoformat(),
    }
    line = json.dumps(row)
    print(line)
    with RESULTS.open("a") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    main()
