"""Flower's simulation: its message API, FedAvg with server-side fixed clipping, a PyTorch model, Ray's workers.

    python peer_flower.py --workload W1 --workers 2

There are as many nodes as a cohort has clients; which client of the population a node plays follows from the round. A round is timed from one call
of the strategy's `evaluate_fn` to the next. Processor time and memory are sums over this process, Ray's daemons and its workers, read from /proc (pages
that processes share count once for each). Nothing is sent anywhere: Flower's and Ray's reports of usage are off, and Ray's address is the loopback.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np

QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
TICKS = os.sysconf("SC_CLK_TCK")


def family() -> list[int]:
    """The ids of this process and everything it started that still runs."""
    parents: dict[int, int] = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(place.name)] = int(fields(int(place.name))[1])
    found = [os.getpid()]
    for known in found:  # grows while it is read
        found += [process for process, parent in parents.items() if parent == known]
    return found


def fields(process: int) -> list[str]:
    """What /proc/ID/stat says after the name: state, parent, and so on."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def processor_s() -> float:
    """Processor seconds of the family so far, its ended and collected children too."""
    total = 0
    for process in family():
        with contextlib.suppress(OSError):
            total += sum(int(ticks) for ticks in fields(process)[11:15])
    return total / TICKS


def peak_bytes() -> int:
    """Sum of the largest resident memory of each process of the family."""
    total = 0
    for process in family():
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += 1024 * int(line.split()[1])
    return total


def simulate(task: harness.Task, workers: int) -> dict[str, Any]:
    """Run all passes in one simulation: timings, accuracy and memory."""
    import torch
    from flower_client import client_app
    from flwr.app import ArrayRecord, Context
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg, Strategy
    from flwr.simulation import run_simulation
    from torch_models import Network, accuracy, images_first

    config = task.config
    network = Network(config.model == "cnn").load(task.params)
    x_test, y_test = images_first(task.x_test, task.y_test)
    server_app = ServerApp()
    passes: list[list[tuple[float, float]]] = []
    reached: list[float] = []
    peaks: list[int] = []

    def strategy() -> Strategy:
        nodes = {"min_train_nodes": config.cohort, "min_available_nodes": config.cohort}
        averaged = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, **nodes)
        if config.clip is None:
            return averaged
        return DifferentialPrivacyServerSideFixedClipping(averaged, config.noise, config.clip, config.cohort)

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        np.random.seed(config.seed)  # noqa: NPY002, Flower draws its noise from here
        for _ in range(task.passes):
            marks: list[tuple[float, float]] = []
            passes.append(marks)

            def mark(number: int, arrays: ArrayRecord, marks: list[tuple[float, float]] = marks) -> None:
                marks.append((time.perf_counter(), processor_s()))

            initial = ArrayRecord(network.state_dict())
            result = strategy().start(grid=grid, initial_arrays=initial, num_rounds=config.rounds, evaluate_fn=mark)
            last = Network(config.model == "cnn")
            last.load_state_dict(result.arrays.to_torch_state_dict())
            with torch.no_grad():
                reached.append(accuracy(last(x_test), y_test))
        peaks.append(peak_bytes())

    run_simulation(
        server_app,
        client_app,
        num_supernodes=config.cohort,
        backend_config={
            "init_args": {"num_cpus": workers, "_node_ip_address": "127.0.0.1"},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    spans = [np.diff(np.array(marks), axis=0) for marks in passes]
    if len(reached) < task.passes or any(len(span) < config.rounds for span in spans):
        raise SystemExit("the simulation ended before its last round; Flower's log above says why")
    wall, busy = np.concatenate([span[1:] for span in spans]).T.tolist()
    found = harness.summary(wall, busy, spans[0][0, 0] - float(np.median(wall)), reached)
    return found | {"peak_bytes": peaks[0]}


def main() -> None:
    options = harness.arguments(__doc__, workers=2)
    os.environ |= QUIET | {"FLOWER_PEER_WORKLOAD": options.workload}
    task = harness.task(options)
    result = simulate(task, options.workers)
    harness.report("flower", f"workers={options.workers}", task, result, ("flwr", "ray", "torch"))


if __name__ == "__main__":
    main()
