"""What a private, encrypted round costs against the number of clients, the chunk, the size of the model and the number of devices; its memory up to a million.

    python experiments/benchmarks/scaling.py [--sections cohort chunk model devices million release] [--toy]

Every point runs in a process of its own, so that its peak memory is its own. Writes results/scaling.jsonl and figures/scaling.png beside the other
experiments. The model is workload W3's network (4,097 weights, 16 records a client) except in "model"; "million" streams the clients of one round from a
memory-mapped file. "release" measures rounds whose sum is drawn at once (`fidelity="release"`) beside rounds without privacy, a hundred thousand and a
million clients, streamed.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent.parent
SECTIONS = ("cohort", "chunk", "model", "devices", "million", "release")
RECORDS, FEATURES = 16, 30
STREAMED_FROM = 100_000  # clients from which a round is streamed from the file


def points(section: str, toy: bool) -> list[dict[str, Any]]:
    """The settings of a section."""
    if section == "cohort":
        return [{"cohort": k} for k in ((10, 100) if toy else (10, 100, 1_000, 10_000, 100_000))]
    if section == "chunk":
        cohort = 16 if toy else 1_000
        return [{"cohort": cohort, "chunk": c} for c in ((1, 16) if toy else (1, 4, 16, 50, 100, 250, 1_000))]
    if section == "model":
        widths = ((8,), (64, 32)) if toy else ((8,), (64, 32), (512, 128), (1024, 512), (2048, 1024))
        return [{"cohort": 16, "hidden": list(w)} for w in widths]
    if section == "devices":
        # One draw of a thousand clients takes a few milliseconds: what devices cost beside their work shows with more of it.
        rounds = (
            (("messages", 32), ("release", 64))
            if toy
            else (("messages", 1_000), ("release", 1_000), ("release", 20_000))
        )
        return [{"cohort": cohort, "devices": d, "kind": kind} for kind, cohort in rounds for d in (1, 2, 8)]
    if section == "release":
        cohorts = (200,) if toy else (100_000, 1_000_000)
        kinds = ("plain", "release")
        return [{"cohort": k, "streamed": True, "kind": kind} for k in cohorts for kind in kinds]
    return [{"cohort": 200 if toy else 1_000_000, "streamed": True}]


def measure(setting: dict[str, Any], file: str) -> dict[str, Any]:
    """One point, in this process."""
    import jax
    import optax

    import fedjax_poisson as fp
    from fedjax_poisson import federated, models
    from fedjax_poisson.randomness import fold_in

    cohort, hidden = setting["cohort"], tuple(setting.get("hidden", (64, 32)))
    streamed = setting.get("streamed", cohort >= STREAMED_FROM)
    x = np.load(file + ".x.npy", mmap_mode="r")[:cohort]
    y = np.load(file + ".y.npy", mmap_mode="r")[:cohort]
    mesh = federated.client_mesh(setting["devices"]) if setting.get("devices", 1) > 1 else None
    population = federated.make_population(x, y, on_device=not streamed, mesh=mesh)
    model = models.mlp(hidden)
    size = sum(a * b + b for a, b in zip((FEATURES, *hidden), (*hidden, 1), strict=True))
    # The noise of the sum has standard deviation 4 clip norms at a million clients and 1 at up to ten thousand.
    multiplier = max(1.0, (cohort / 62_500) ** 0.5)
    bound = 0.02
    dark = cohort * bound**2 / (2 * (0.05 * multiplier) ** 2)
    kind = setting.get("kind", "messages")  # by default the price of a client is measured
    mechanism = fp.poisson_embedding(clip_norm=1.0, coordinate_bound=bound, dark_count=dark, modulation=0.05)
    aggregator = fp.aggregator("round", count_bound=mechanism.count_bound(cohort, size), senders=cohort, size=size)
    algorithm = federated.fedavg(
        model,
        client=fp.local_sgd(0.5),
        population=population,
        senders=cohort,
        server_optimizer=optax.sgd(1.0),
        mechanism=None if kind == "plain" else mechanism,
        aggregator=None if kind == "plain" else aggregator,
        layout=federated.Chunking(chunk=setting.get("chunk")),
        fidelity=None if kind == "plain" else kind,
        mesh=mesh,
    )
    state, root, ids = algorithm.init(jax.random.key(0)), fp.randomness.stream(), np.arange(cohort)
    block = min(4096, cohort)

    processor: list[float] = []

    def one_round(number: int, ids: np.ndarray) -> float:
        began, used = time.perf_counter(), time.process_time()
        part = federated.cohort_blocks(population, ids, block, mesh=mesh) if streamed else ids
        jax.block_until_ready(algorithm.apply(state, part, fold_in(root, number))[0])
        processor.append(time.process_time() - used)
        return time.perf_counter() - began

    with _Memory() as memory:
        if streamed:  # one block compiles everything and is refused for its few senders; then the whole round, once
            began = time.perf_counter()
            with contextlib.suppress(fp.aggregation.RoundRefused):
                one_round(0, ids[: max(1, min(block, cohort - 1))])
            compile_s = time.perf_counter() - began
            seconds = [one_round(number, ids) for number in range(1, 2 if "kind" not in setting else 4)]
        else:
            compile_s = one_round(0, ids)
            seconds = [one_round(number, ids) for number in range(1, 2 if cohort > 50_000 else 6)]
    median = float(np.median(seconds))
    return setting | {
        "dimension": size,
        "median_s": median,
        "processor_s": float(np.median(processor[-len(seconds) :])),
        "min_s": min(seconds),
        "first_s": compile_s,
        "ns_per_client_and_parameter": median / cohort / size * 1e9,
        "peak_anonymous_bytes": memory.peak,
        "streamed": streamed,
        "bytes_up_per_client": None if kind == "plain" else aggregator.message_bytes(size),
        "clients_per_s": cohort / median,
        "device": f"{jax.devices()[0].platform}:{jax.devices()[0].device_kind}",
        "date": datetime.date.today().isoformat(),
    }


class _Memory:
    """Peak anonymous memory of this process (what it allocates; pages of the mapped file are not its own)."""

    def __enter__(self) -> _Memory:
        self.peak, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            status = Path("/proc/self/status").read_text()
            self.peak = max(self.peak, 1024 * int(status.split("RssAnon:")[1].split()[0]))


def make_file(path: str, clients: int) -> None:
    """Records of `clients` clients in two .npy files, written a part at a time."""
    shape = (clients, RECORDS, FEATURES)
    x = np.lib.format.open_memmap(path + ".x.npy", mode="w+", dtype=np.float32, shape=shape)
    y = np.lib.format.open_memmap(path + ".y.npy", mode="w+", dtype=np.float32, shape=shape[:2])
    rng = np.random.default_rng(0)
    direction = rng.normal(size=FEATURES).astype(np.float32)
    for start in range(0, clients, 20_000):
        part = rng.standard_normal((min(20_000, clients - start), RECORDS, FEATURES), dtype=np.float32)
        x[start : start + len(part)], y[start : start + len(part)] = part, part @ direction > 0
    x.flush()
    y.flush()


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Time against clients, memory against clients, time against chunk and against the size of the model."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 7), constrained_layout=True)
    blue, orange = "#0072b2", "#d55e00"

    def of(section: str) -> list[dict[str, Any]]:
        return [row for row in rows if row["section"] == section]

    for streamed, colour, name in (
        (False, blue, "every message, on the device"),
        (True, orange, "every message, streamed from a file"),
    ):
        own = sorted((r for r in of("cohort") + of("million") if r["streamed"] == streamed), key=lambda r: r["cohort"])
        axes[0, 0].plot([r["cohort"] for r in own], [r["median_s"] for r in own], "o-", color=colour, label=name)
        memory = [r["peak_anonymous_bytes"] / 2**20 for r in own]
        axes[0, 1].plot([r["cohort"] for r in own], memory, "o-", color=colour, label=name)
    for kind, colour, name in (
        ("release", "#009e73", "one draw for the sum, streamed"),
        ("plain", "#555555", "no privacy, streamed"),
    ):
        own = sorted((r for r in of("release") if r["kind"] == kind), key=lambda r: r["cohort"])
        axes[0, 0].plot([r["cohort"] for r in own], [r["median_s"] for r in own], "s--", color=colour, label=name)
        memory = [r["peak_anonymous_bytes"] / 2**20 for r in own]
        axes[0, 1].plot([r["cohort"] for r in own], memory, "s--", color=colour, label=name)
    every = sorted(of("cohort") + of("million"), key=lambda r: r["cohort"])
    updates = [4 * r["dimension"] * r["cohort"] / 2**20 for r in every]
    axes[0, 1].plot([r["cohort"] for r in every], updates, ":", color="#555555", label="all updates as float32")
    axes[0, 0].set(xscale="log", yscale="log", xlabel="clients of a round", ylabel="seconds of a round")
    axes[0, 1].set(xscale="log", yscale="log", xlabel="clients of a round", ylabel="peak memory, MiB")
    axes[1, 0].plot([r["chunk"] for r in of("chunk")], [r["median_s"] * 1e3 for r in of("chunk")], "o-", color=blue)
    axes[1, 0].set(
        xscale="log", xlabel="clients vmapped at once (1,000 clients)", ylabel="milliseconds of a round", ylim=(0, None)
    )
    axes[1, 1].plot(
        [r["dimension"] for r in of("model")], [r["ns_per_client_and_parameter"] for r in of("model")], "o-", color=blue
    )
    axes[1, 1].set(
        xscale="log",
        xlabel="parameters of the model (16 clients)",
        ylabel="ns per client and parameter",
        ylim=(0, None),
    )
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False, fontsize=8)
    axes[0, 1].legend(frameon=False, fontsize=8)
    figure.suptitle("A private, encrypted round; below, every client's message is made")
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--toy", action="store_true", help="tiny sizes, results to standard output only")
    parser.add_argument("--draw", action="store_true", help="only draw the figure again")
    parser.add_argument("--one", help="(internal) one setting as JSON")
    parser.add_argument("--file", help="(internal) its records")
    options = parser.parse_args()
    results, picture = HERE / "results" / "scaling.jsonl", HERE / "figures" / "scaling.png"
    if options.one:
        print(json.dumps(measure(json.loads(options.one), options.file)))
        return
    old = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    if options.draw:
        draw(old, picture)
        return
    settings = [(section, point) for section in options.sections for point in points(section, options.toy)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "clients")
        make_file(file, max(point["cohort"] for _, point in settings))
        for section, point in settings:
            flags = f"--xla_force_host_platform_device_count={point.get('devices', 1)}"
            environment = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
            command = [sys.executable, __file__, "--one", json.dumps(point), "--file", file]
            output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            rows.append({"section": section} | json.loads(output))
            print(json.dumps(rows[-1]), flush=True)
    if not options.toy:
        rows = [row for row in old if row["section"] not in options.sections] + rows
        results.write_text("".join(json.dumps(row) + "\n" for row in rows))
        draw(rows, picture)


if __name__ == "__main__":
    main()
