"""Draw what a private round costs in each library: `python experiments/benchmarks/peers/figure.py`, from results/peers.jsonl to figures/peers.png.

Processor nanoseconds a client and weight, medians over the repeats; of a peer that was run in several forms the one of least processor time. W2 has no
privacy in the other libraries.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import compare
import harness

from fedjax_poisson.reports.plotting import EPSILON, FAINT, PLAIN, PRIVATE, canvas

EXPERIMENTS = Path(__file__).resolve().parents[2]
OWN = "fedjax_poisson"
SHOWN = {
    "plain JAX, by hand": ("plain_jax", ""),
    "jax-privacy": ("jax_privacy", ""),
    "fedjax-poisson, one draw, in the clear": (OWN, "encryption=off,fidelity=release"),
    "fedjax-poisson, one draw, encrypted": (OWN, "encryption=on,fidelity=release"),
    "torch.func.vmap": ("torch_vmap", ""),
    "fedjax-poisson, every message": (OWN, "encryption=off,fidelity=messages"),
    "fedjax-poisson, every message, encrypted": (OWN, "encryption=on,fidelity=messages"),
    "FedJAX": ("fedjax", ""),
    "pfl": ("pfl", ""),
    "Flower": ("flower", ""),
}


def cost_ns(records: list[compare.Record], workload: str, peer: str, variant: str) -> float | None:
    """Processor nanoseconds a client and weight of a peer's private round, or of its round where it was measured without only."""
    own = [r for r in records if r.get("workload") == workload and r["peer"] == peer and "cpu_ms" in r]
    rows = [row for row in compare.rows(own) if variant in ("", row.variant)]
    rows = [row for row in rows if row.privacy == "on"] or rows
    if not rows:
        return None
    config = harness.workloads().CONFIGS[workload]
    work = config.cohort * harness.workloads().n_params(config)
    return 1e6 * min(row.over("cpu_ms") or 0.0 for row in rows) / work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=EXPERIMENTS / "results" / "peers.jsonl")
    parser.add_argument("--output", type=Path, default=EXPERIMENTS / "figures" / "peers.png")
    options = parser.parse_args()
    records = [json.loads(line) for line in options.rows.read_text().splitlines()]
    figure, axes = canvas(4.4)
    marks = {"W1": ("o", PRIVATE), "W2": ("s", PLAIN), "W3": ("D", EPSILON)}
    for workload, (marker, colour) in marks.items():
        points = [(cost_ns(records, workload, *what), i) for i, what in enumerate(SHOWN.values())]
        known = [(value, i) for value, i in points if value is not None]
        axes.plot(*zip(*known, strict=True), marker, color=colour, markersize=7, label=workload)
    axes.set_yticks(range(len(SHOWN)), list(SHOWN))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.grid(axis="both", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("processor nanoseconds a client and weight")
    axes.legend(frameon=False, fontsize=10, loc="upper right")
    figure.savefig(options.output)


if __name__ == "__main__":
    main()
