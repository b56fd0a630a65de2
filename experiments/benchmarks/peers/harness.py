"""What every peer shares: the workload's arrays, the rounds, the clock and the line that is printed.

Imports numpy only, because each peer has its own environment, where fedjax_poisson need not be installed.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[3]


class Task(NamedTuple):
    """A workload's config and arrays, and how often its rounds are run."""

    config: Any
    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    cohorts: np.ndarray
    params: dict[str, np.ndarray]
    passes: int


def workloads() -> Any:
    """The module fedjax_poisson/benchmarks/workloads.py, without importing its package."""
    name = "benchmark_workloads"
    if name not in sys.modules:
        path = ROOT / "fedjax_poisson" / "benchmarks" / "workloads.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None, path
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def arguments(description: str | None, **options: Any) -> argparse.Namespace:
    """The options that every peer has, and `options` with their defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=list(workloads().CONFIGS), required=True)
    parser.add_argument("--privacy", choices=("as_stated", "off"), default="as_stated", help="off: no clip, no noise")
    parser.add_argument("--passes", type=int, default=1, help="how often all rounds are run, each time from the start")
    for name, default in options.items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(default), default=default)
    return parser.parse_args()


def task(options: argparse.Namespace) -> Task:
    """The arrays of the workload that was asked for."""
    config, x, y, x_test, y_test = workloads().make(options.workload)
    if options.privacy == "off":
        config = dataclasses.replace(config, clip=None, noise=0.0)
    cohorts, params = workloads().cohorts(config), workloads().init_params(config)
    return Task(config, x, y, x_test, y_test, cohorts, params, options.passes)


def rounds(
    task: Task,
    start: Callable[[], Any],
    advance: Callable[[Any, int], Any],
    accuracy: Callable[[Any], float],
) -> dict[str, Any]:
    """Run round 0 to compile, then every round from the first weights, `passes` times.

    Args:
      task: what to run.
      start: the state with the first weights.
      advance: (state, round number) to the next state, finished when it returns.
      accuracy: share of the test set that a state gets right.

    Returns:
      The timings and accuracy of `summary`.
    """
    begin = time.perf_counter()
    advance(start(), 0)
    first = time.perf_counter() - begin
    wall, busy, reached = [], [], []
    for _ in range(task.passes):
        state = start()
        for number in range(1, task.config.rounds + 1):
            begin, processor = time.perf_counter(), time.process_time()
            state = advance(state, number)
            if number > 1:
                wall.append(time.perf_counter() - begin)
                busy.append(time.process_time() - processor)
        reached.append(accuracy(state))
    return summary(wall, busy, first - float(np.median(wall)), reached)


def summary(wall: list[float], busy: list[float], compile_s: float, reached: list[float]) -> dict[str, Any]:
    """Seconds of each round after the first (wall clock and processor) and accuracies of each pass, in few numbers."""
    return {
        "median_ms": 1e3 * float(np.median(wall)),
        "min_ms": 1e3 * min(wall),
        "cpu_ms": 1e3 * float(np.median(busy)),
        "compile_s": max(compile_s, 0.0),
        "accuracy": float(np.median(reached)),
    }


def report(peer: str, variant: str, task: Task, result: dict[str, Any], packages: tuple[str, ...]) -> None:
    """Print one JSON line."""
    privacy = "on" if task.config.clip is not None else "off"
    record = {
        "peer": peer,
        "variant": variant,
        "workload": task.config.name,
        "privacy": privacy,
        "peak_bytes": peak_bytes(),
        **result,
        "accuracy_as_expected": as_expected(task.config, privacy, result["accuracy"]),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    print(json.dumps(record), flush=True)


def as_expected(config: Any, privacy: str, accuracy: float) -> bool:
    """Whether an accuracy is within its workload's range, with or without privacy."""
    low, high = config.accuracy if privacy == "on" else config.accuracy_off
    return low <= round(accuracy, 2) <= high


def peak_bytes() -> int:
    """Largest resident memory of this process; `ru_maxrss` would remember the process it was started from."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, which has no /proc
