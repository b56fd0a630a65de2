"""Everything that is worth knowing of an accelerator, in ten minutes: `python experiments/benchmarks/accelerator.py [--minutes 10] [--steps NAMES] [--toy]`.

Runs on whatever device jax finds (a notebook's T4 or TPU, an H100, a CPU): the workloads W1-W3 plain, with one draw of the sum and with every client's
message; the exact samplers and the forms of ChaCha20; encryption; the parties of an aggregation with its opening; memory against the clients vmapped at once;
and whether integers have the same bits there as on the host's CPU. Each step is a process of its own, ordered by worth, so that its memory is its own and
a step that does not end costs nobody else. Writes results/accelerator_DEVICE.json after every step; steps that the time did not reach are listed as such,
and a call that is repeated goes on with them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

from common import load, parser, save  # noqa: E402

_MESSAGES = ("--privacy", "on", "--encryption", "on", "--fidelity", "messages")
_RELEASE = ("--privacy", "on", "--encryption", "on", "--fidelity", "release")


def steps(toy: bool) -> dict[str, list[str]]:
    """Name -> what is run; `exactness` is this file's own."""
    quick = ["--quick"] if toy else []
    found: dict[str, list[str]] = {"exactness": []}
    for workload in ("W1",) if toy else ("W1", "W3", "W2"):
        for kind, options in (("plain", ("--privacy", "off")), ("release", _RELEASE), ("messages", _MESSAGES)):
            found[f"{workload} {kind}"] = ["simulation", "--workload", workload, *options, *quick]
    found["samplers"] = ["sampling", *quick]
    found["aggregation"] = ["aggregation", *quick]
    found["encryption"] = ["encryption", "--quick"]
    if toy:
        return {name: command for name, command in found.items() if name in ("exactness", "W1 release")}
    found["forms of ChaCha20"] = ["sampling", "--forms", "single", "double", "passes"]
    for chunk in (125, 500, 2000):
        found[f"memory at {chunk} of W3's clients at once"] = [
            "simulation", "--workload", "W3", *_MESSAGES, "--chunk", str(chunk), "--quick",
        ]  # fmt: skip
    return found


def exactness() -> dict[str, Any]:
    """Whether integers have the bits that the host's CPU gives them: a draw over the whole grid, the rows of a round's ciphertexts and what is opened."""
    import jax
    import numpy as np

    from fedjax_poisson import aggregation, randomness
    from fedjax_poisson.benchmarks.sampling import push_pull_checksum

    size, senders = 4097, 3
    stream = randomness.stream(seed=7)
    counts = np.random.default_rng(0).integers(-4000, 4001, (senders, size)).astype(np.int32)
    device = aggregation.aggregator("round", count_bound=12_000, senders=senders, size=size).device
    key = jax.tree.map(np.asarray, device.key)

    def everything() -> dict[str, Any]:
        @jax.jit
        def one_round(key: Any, counts: Any) -> Any:
            each = [device.encrypt(key, counts[i], randomness.fold_in(stream, "sender", i)) for i in range(senders)]
            total = each[0]
            for other in each[1:]:
                total = device.add(total, other)
            return total.rows, device.open(key, total)

        rows, (opened, held) = jax.tree.map(np.asarray, one_round(key, counts))
        return {
            "draw": push_pull_checksum(8.0),
            "rows": hashlib.sha256(rows.tobytes()).hexdigest(),
            "opened": bool(held and (opened == counts.sum(axis=0)).all()),
        }

    here = everything()
    with jax.default_device(jax.devices("cpu")[0]):
        host = everything()
    return {"device": here, "cpu": host, "same": here == host and here["opened"]}


def device_name() -> str:
    """The first device, asked in a process of its own: a TPU belongs to one process at a time."""
    asked = "import jax; d = jax.devices()[0]; print(d.platform, d.device_kind, 'x', jax.device_count())"
    return subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout.strip()


def run_step(name: str, command: list[str], seconds: float) -> dict[str, Any]:
    """The rows of one step, or why there are none."""
    whole = [sys.executable, "-m", "fedjax_poisson", "bench", *command]
    if not command:
        whole = [sys.executable, str(Path(__file__).resolve()), "--only", name]
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    began = time.monotonic()
    try:
        ended = subprocess.run(whole, capture_output=True, text=True, check=False, timeout=seconds, env=environment)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {seconds:.0f} s"}
    took = time.monotonic() - began
    if ended.returncode:
        return {
            "error": ended.stderr.strip().splitlines()[-1][:500] if ended.stderr.strip() else "no message",
            "wall_s": took,
        }
    rows = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    return {"rows": rows, "wall_s": took}


def in_words(name: str, step: dict[str, Any]) -> str:
    """One line of a step."""
    if "error" in step:
        return f"{name}: {step['error']}"
    row = step["rows"][0]
    if "same" in row:
        return f"{name}: same bits as the CPU: {row['same']}"
    if "median_ms" not in row:
        return f"{name}: {len(step['rows'])} rows in {step['wall_s']:.0f} s"
    memory, accuracy = row["peak_bytes"] / 1e6, row["accuracy"]
    return f"{name}: {row['median_ms']:.2f} ms a round, compiled in {row['compile_s']:.0f} s, {memory:.0f} MB, accuracy {accuracy:.3f}"


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--minutes", type=float, default=10.0, help="begin no step after them")
    options.add_argument("--steps", nargs="+", help="only these")
    options.add_argument("--only", help=argparse.SUPPRESS)
    arguments = options.parse_args(argv)
    if arguments.only == "exactness":
        print(json.dumps(exactness()))
        return
    every, device = steps(arguments.toy), device_name()
    unknown = sorted(set(arguments.steps or []) - set(every))
    if unknown:
        raise SystemExit(f"--steps {', '.join(unknown)}: there are {', '.join(every)}.")
    name = "accelerator_" + re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_")
    done: dict[str, Any] = {}
    if (arguments.out / "results" / f"{name}.json").exists():
        done = {key: step for key, step in load(name, arguments)["steps"].items() if "rows" in step}
    ends = time.monotonic() + 60 * arguments.minutes
    for step in arguments.steps or [one for one in every if one not in done]:
        left = ends - time.monotonic()
        if left <= 0:
            break
        done[step] = run_step(step, every[step], max(left, 60.0))
        print(in_words(step, done[step]), flush=True)
        missing = [one for one in every if one not in done]
        save(name, arguments, {"device": device, "steps": done, "not_reached": missing})
    print(f"{arguments.out / 'results' / name}.json: {len(done)} of {len(every)} steps")


if __name__ == "__main__":
    main()
