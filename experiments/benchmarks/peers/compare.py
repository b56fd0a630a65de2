"""One round of federated learning in several libraries, on the same arrays, side by side.

    python experiments/benchmarks/peers/compare.py --python /path/to/peers/bin/python [--workloads W1 W3] [--peers plain_jax pfl] [--repeats 3]

Every peer runs in a process of its own, with the first interpreter that has its packages (this one, then those of `--python`); a peer that none has
is left out with the reason. Repeats are interleaved: each goes through all peers before the next begins, and the ratio to plain JAX is taken within
a repeat, then the median over the repeats. So is the rule for `fedjax_poisson`, which is this package's `fedjax-poisson bench simulation`.

Prints one JSON line a run and a table at the end; `--output` appends the lines to a file. A run whose accuracy after all rounds is outside the
workload's range is marked: its time does not count. `cpu_ms` is processor time, on a machine that others use the steadier figure; `others` is how
many cores were kept busy by what is not the run (on Linux).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import harness

HERE = Path(__file__).resolve().parent
BASE = "plain_jax"
Record = dict[str, Any]


class Peer(NamedTuple):
    """The packages a peer needs, and for each workload the options of the runs that are worth comparing."""

    packages: tuple[str, ...]
    runs: dict[str, list[str]]


PEERS = {
    "plain_jax": Peer(
        ("jax",),
        {
            "W1": [
                f"--variant chunk={chunk} --privacy {privacy}"
                for privacy in ("as_stated", "off")
                for chunk in (20, 100)
            ],
            "W2": ["--variant chunk=1", "--variant chunk=1,clip=4,noise=0.01"],
            "W3": ["--variant chunk=250", "--variant chunk=250 --privacy off"],
        },
    ),
    "torch_vmap": Peer(
        ("torch",),
        {"W1": ["--threads 1"], "W2": ["--threads 2 --chunk 5"], "W3": ["--threads 1 --chunk 100"]},
    ),
    "jax_privacy": Peer(
        ("jax_privacy", "jax"),
        {"W1": ["--microbatch 20", "--microbatch 100"], "W2": ["--microbatch 1"], "W3": ["--microbatch 250"]},
    ),
    "pfl": Peer(
        ("pfl", "torch"),
        {
            "W1": ["--passes 1", "--processes 2 --passes 1"],
            "W2": ["--processes 2"],
            "W3": ["--processes 2 --passes 1"],
        },
    ),
    "fedjax": Peer(("fedjax", "jax"), {"W1": [""], "W2": [""], "W3": ["--passes 2"]}),
    "flower": Peer(("flwr", "ray", "torch"), {"W1": ["--passes 1"], "W2": ["--passes 1"], "W3": ["--passes 1"]}),
    "fedjax_poisson": Peer(
        ("fedjax_poisson", "tyro"),
        {
            name: [
                "--privacy off --encryption off",
                "--privacy on --encryption off --fidelity messages",
                "--privacy on --encryption on --fidelity messages",
                "--privacy on --encryption off --fidelity release",
                "--privacy on --encryption on --fidelity release",
            ]
            for name in ("W1", "W2", "W3")
        },
    ),
}
PASSES = {"W1": 4, "W2": 1, "W3": 8}  # of all rounds within one process; W2 is slow enough to be timed by one


def main() -> None:
    options = parse()
    if options.show is not None:
        show([json.loads(line) for line in options.show.read_text().splitlines()])
        return
    environment = os.environ | ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} if options.hugepages else {})
    facts = {
        "machine": options.machine,
        "date": datetime.date.today().isoformat(),
        "hugepages": options.hugepages,
    }
    interpreters = {}
    for name in options.peers:
        python, reason = interpreter(PEERS[name].packages, [sys.executable, *options.python])
        if python is None:
            emit({"peer": name, "skipped": reason} | facts, options.output)
        else:
            interpreters[name] = python
    records: list[Record] = []
    for repeat in range(options.first_repeat, options.first_repeat + options.repeats):
        for workload in options.workloads:
            for name, python in interpreters.items():
                for run in PEERS[name].runs[workload]:
                    start = fedjax_poisson if name == "fedjax_poisson" else peer
                    record = timed(start(name, python, workload, run), environment, options.timeout)
                    record = {"peer": name, "workload": workload, "options": run, "repeat": repeat} | record | facts
                    emit(record, options.output)
                    records.append(record)
    show(records)


def show(records: list[Record]) -> None:
    """Print the table of every workload that was measured, then what failed or was left out."""
    for workload in harness.workloads().CONFIGS:
        measured = [record for record in records if record.get("workload") == workload and "median_ms" in record]
        if measured:
            print("\n" + table(workload, measured))
    for record in records:
        if reason := record.get("failed") or record.get("skipped"):
            print(f"{record['peer']} {record.get('workload', '')} {record.get('options', '')}: {reason}")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(harness.workloads().CONFIGS)
    parser.add_argument("--workloads", nargs="+", choices=names, default=names)
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--python", nargs="+", default=[], metavar="PATH", help="interpreters that have the peers")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved runs of every peer")
    parser.add_argument(
        "--first-repeat", type=int, default=0, help="the number of the first, where an earlier call made some"
    )
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds after which a run is given up")
    parser.add_argument("--hugepages", action="store_true", help="GLIBC_TUNABLES=glibc.malloc.hugetlb=1 for every peer")
    parser.add_argument("--machine", default=f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}")
    parser.add_argument("--show", type=Path, help="print the tables of this file of JSON lines and measure nothing")
    parser.add_argument("--output", type=Path, help="append the JSON lines to this file")
    return parser.parse_args()


def interpreter(packages: tuple[str, ...], candidates: list[str]) -> tuple[str | None, str]:
    """The first interpreter that has all packages, or None and why."""
    look = (
        "import importlib.util, sys; print(*[name for name in sys.argv[1:] if importlib.util.find_spec(name) is None])"
    )
    missing: list[str] = []
    for python in candidates:
        try:
            done = subprocess.run([python, "-I", "-c", look, *packages], capture_output=True, text=True, timeout=60)
        except OSError as error:
            missing.append(str(error))
            continue
        if done.returncode == 0 and not done.stdout.strip():
            return python, ""
        missing.append(done.stdout.strip() or done.stderr.strip().splitlines()[-1])
    found = "; ".join(f"interpreter {i + 1}: {what}" for i, what in enumerate(missing))
    return None, f"not installed ({found}); see README.md in this folder"


def peer(name: str, python: str, workload: str, options: str) -> list[str]:
    """The command of one run of a peer in this folder."""
    script = str(HERE / f"peer_{name}.py")
    return [python, script, "--workload", workload, "--passes", str(PASSES[workload]), *options.split()]


def fedjax_poisson(name: str, python: str, workload: str, options: str) -> list[str]:
    """The command of this package's own benchmark."""
    del name
    start = "from fedjax_poisson.cli import main; main()"
    return [python, "-P", "-c", start, "bench", "simulation", "--workload", workload, *options.split()]


def timed(command: list[str], environment: dict[str, str], timeout: float) -> Record:
    """Run a command in its own process: its last JSON line, how long the process took, or why there is none."""
    begin, before = time.perf_counter(), busy_elsewhere_s()
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {timeout:.0f} s"}
    seconds, after = time.perf_counter() - begin, busy_elsewhere_s()
    others = {} if before is None or after is None else {"others": round((after - before) / seconds, 2)}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines() or ["no output"]
        return {"failed": ([line for line in said if "Error" in line] or said)[-1].strip()}
    record: Record = json.loads(lines[-1])
    if "variant" not in record:
        record["variant"] = f"encryption={record['encryption']}"
        if record.get("fidelity") is not None:
            record["variant"] += f",fidelity={record['fidelity']}"
        if record.get("rounds_per_call", 1) > 1:
            record["variant"] += f",fused={record['rounds_per_call']}"
        config = harness.workloads().CONFIGS[record["workload"]]
        record["accuracy_as_expected"] = harness.as_expected(config, record["privacy"], record["accuracy"])
    return record | {"process_s": seconds} | others


def busy_elsewhere_s() -> float | None:
    """Core seconds that the machine spent on anything but this process and the runs it has waited for; None where /proc/stat is not."""
    place = Path("/proc/stat")
    if not place.exists():
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, place.read_text().split()[1:9])
    own = os.times()
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK") - sum(own[:4])


def emit(record: Record, output: Path | None) -> None:
    """Print a record, and append it to a file."""
    line = json.dumps(record)
    print(line, flush=True)
    if output is not None:
        with output.open("a") as file:
            file.write(line + "\n")


class Row(NamedTuple):
    """All repeats of one run."""

    peer: str
    variant: str
    privacy: str
    repeats: dict[int, Record]

    def over(self, key: str, reduce: Callable[[list[float]], float] = statistics.median) -> float | None:
        """One number of a key over the repeats."""
        values = [record[key] for record in self.repeats.values() if record.get(key) is not None]
        return reduce(values) if values else None


def rows(records: list[Record]) -> list[Row]:
    """Records with the same peer, variant and privacy together."""
    found: dict[tuple[str, str, str], Row] = {}
    for record in records:
        key = record["peer"], record["variant"], record["privacy"]
        found.setdefault(key, Row(*key, {})).repeats[record["repeat"]] = record
    return list(found.values())


def base(all_rows: list[Row], privacy: str) -> Row | None:
    """The best plain JAX with one call a round, with the same privacy if there is one."""
    plain = [row for row in all_rows if row.peer == BASE and "fused" not in row.variant]
    plain = [row for row in plain if row.privacy == privacy] or plain
    return min(plain, key=lambda row: row.over("median_ms") or 0.0, default=None)


def ratio(row: Row, to: Row | None, key: str) -> float | None:
    """Median over the repeats of the ratio within a repeat."""
    if to is None:
        return None
    both = [
        (record[key], to.repeats[repeat][key])
        for repeat, record in row.repeats.items()
        if repeat in to.repeats and record.get(key) and to.repeats[repeat].get(key)
    ]
    return statistics.median(a / b for a, b in both) if both else None


def table(workload: str, records: list[Record]) -> str:
    """The table of one workload in Markdown, and what privacy and encryption add per client and parameter."""
    config = harness.workloads().CONFIGS[workload]
    all_rows = rows(records)
    head = ["peer", "variant", "privacy", "ms", "least ms", "cpu ms", "/ plain JAX", "least / least", "cpu / cpu"]
    head += ["compile s", "process s", "MB", "accuracy"]
    lines = ["| " + workload + " " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in all_rows:
        to = base(all_rows, row.privacy)
        fine = all(harness.as_expected(config, row.privacy, r["accuracy"]) for r in row.repeats.values())
        peak, accuracy = row.over("peak_bytes"), row.over("accuracy")
        least = row.over("min_ms", min)
        floor = None if to is None else to.over("min_ms", min)
        cells = [
            row.peer,
            row.variant,
            row.privacy,
            number(row.over("median_ms")),
            number(least),
            number(row.over("cpu_ms")),
            number(ratio(row, to, "median_ms")),
            number(least / floor if least and floor else None),
            number(ratio(row, to, "cpu_ms")),
            number(row.over("compile_s")),
            number(row.over("process_s")),
            number(None if peak is None else peak / 1e6),
            "" if accuracy is None else f"{accuracy:.3f}" + ("" if fine else " (NOT as expected)"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    own = {(row.privacy, row.variant): row for row in all_rows if row.peer == "fedjax_poisson"}
    plain, full = own.get(("off", "encryption=off")), own.get(("on", "encryption=on,fidelity=messages"))
    if plain is not None and full is not None:
        work = config.cohort * harness.workloads().n_params(config)
        added = [
            1e6 * (record["cpu_ms"] - plain.repeats[repeat]["cpu_ms"]) / work
            for repeat, record in full.repeats.items()
            if repeat in plain.repeats
        ]
        if added:
            lines.append(
                f"\nprivacy and encryption of every client add {statistics.median(added):.1f} processor ns per client and parameter"
            )
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Three digits."""
    return "" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


if __name__ == "__main__":
    main()
