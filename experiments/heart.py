"""Accuracy against epsilon on four real hospitals: the default run at several budgets, with five independent runs each.

    python experiments/heart.py [--runs 5] [--epsilons 0.5 1 3 8] [--standardize global site] [--aggregator round] [--toy]

There are two kinds of preprocessing: global means and deviations, and per-hospital ones as in FLamby's protocol. Both come from one private,
encrypted sum (the second with one block per hospital). FLamby computes a hospital's moments exactly and locally; that alone would void a
record-level guarantee, since one record changes the features of all. Rows of a preprocessing that is not requested are kept.

Writes results/heart.json and figures/heart.png next to this file. Every run draws its noise from the operating system; nothing is seeded and
nothing is tuned here: the recipe follows from public quantities (`runs.training_recipe`).
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_poisson.federated.checkpoints import write_atomic
from fedjax_poisson.reports.plotting import canvas, title
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.run import run

HERE = Path(__file__).parent
FLAMBY = {"pooled, no privacy": 0.735, "FedAvg, no privacy": 0.685}
FLAMBY_DP = {1.0: 0.685, 5.0: 0.704, 10.0: 0.700}  # record-level DP, delta 1e-4 (FLamby's own example)


def measure(
    epsilons: list[float], runs: int, aggregator: str, standardize: str = "global", rounds: int | None = None
) -> list[dict[str, Any]]:
    """One row per run."""
    rows = []
    for epsilon in epsilons:
        for number in range(runs):
            with tempfile.TemporaryDirectory() as folder:
                config = Config(epsilon=epsilon, aggregator=aggregator, standardize=standardize, rounds=rounds)  # type: ignore[arg-type]
                summary = run(config, Path(folder) / "run")
            keep = (
                "mean_client_accuracy",
                "pooled_accuracy",
                "auc",
                "accuracy_by_site",
                "nonprivate_mean_client_accuracy",
            )
            row = {
                "standardize": standardize,
                "epsilon_target": epsilon,
                "run": number,
                "epsilon": summary["epsilon"],
                "total_seconds": summary["total_seconds"],
            }
            rows.append(row | {name: summary[name] for name in keep})
            print(
                f"{standardize} epsilon {epsilon:g} run {number}: mean client accuracy {summary['mean_client_accuracy']:.3f}",
                flush=True,
            )
    return rows


def table(result: dict[str, Any], standardize: str = "global") -> list[dict[str, Any]]:
    """Mean and standard error of the mean client accuracy at each budget."""
    found = []
    of_kind = [row for row in result["rows"] if row.get("standardize", "global") == standardize]
    for epsilon in sorted({row["epsilon_target"] for row in of_kind}):
        own = [row for row in of_kind if row["epsilon_target"] == epsilon]
        scores = np.array([row["mean_client_accuracy"] for row in own])
        found.append(
            {
                "standardize": standardize,
                "epsilon": epsilon,
                "mean": float(scores.mean()),
                "standard_error": float(scores.std(ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else 0.0,
                "auc": float(np.mean([row["auc"] for row in own])),
                "nonprivate": float(np.mean([row["nonprivate_mean_client_accuracy"] for row in own])),
            }
        )
    return found


def draw(result: dict[str, Any], path: Path) -> None:
    """Accuracy against epsilon with the non-private run of the same recipe and FLamby's published scores."""
    rows = table(result)
    figure, axes = canvas(4.6)
    x = [row["epsilon"] for row in rows]
    y = np.array([row["mean"] for row in rows])
    error = np.array([row["standard_error"] for row in rows])
    axes.errorbar(x, y, yerr=1.96 * error, marker="o", color="#0072b2", linewidth=2.5, capsize=4)
    blue, grey, orange, pink = "#0072b2", "#555555", "#d55e00", "#b0528a"

    def note(text: str, x: float, y: float, rise: float, colour: str, align: str = "left") -> None:
        axes.annotate(text, (x, y), (0, rise), textcoords="offset points", color=colour, ha=align)

    note("private and encrypted (this library)", x[-1], y[-1] + 1.96 * error[-1], 8, blue, "right")
    if own := table(result, "site"):
        z = [row["mean"] for row in own]
        bars = [1.96 * row["standard_error"] for row in own]
        axes.errorbar(
            [row["epsilon"] for row in own], z, yerr=bars, marker="^", color="#007a5a", linewidth=1.8, capsize=4
        )
        note("the same, each hospital standardised by itself", 20, 0.776, 0, "#007a5a", "right")
    plain = rows[-1]["nonprivate"]
    axes.axhline(plain, color=grey, linestyle="--")
    note("same recipe without privacy", 20, plain, -14, grey, "right")
    for (name, score), rise in zip(FLAMBY.items(), (5, -14), strict=True):
        axes.axhline(score, color=orange, linestyle=":")
        note(f"published by FLamby: {name}", x[0], score, rise, orange)
    axes.plot(list(FLAMBY_DP), list(FLAMBY_DP.values()), marker="s", color=pink, linewidth=1.5)
    note("published by FLamby: record-level DP", 20, 0.7, 12, pink, "right")
    axes.set_xscale("log")
    axes.set_xticks([0.5, 1, 3, 8], ["0.5", "1", "3", "8"])
    axes.minorticks_off()
    axes.set_xlim(0.4, 22)
    axes.set_ylim(0.62, 0.86)
    axes.set_xlabel("epsilon, everything released, delta 1e-4, unit: one record")
    axes.set_ylabel("mean accuracy over four hospitals")
    title(axes, "Heart disease, four hospitals: accuracy against privacy")
    figure.savefig(path)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.5, 1.0, 3.0, 8.0])
    parser.add_argument("--aggregator", default="round")
    parser.add_argument("--draw", action="store_true", help="only draw the figure again from results/heart.json")
    parser.add_argument("--standardize", nargs="+", default=["global", "site"], choices=["global", "site"])
    parser.add_argument("--toy", action="store_true", help="one round of one run: shows that the script works")
    parser.add_argument("--out", type=Path, default=HERE, help="where results/ and figures/ are")
    parser.add_argument(
        "--machine", default=f"{platform.system()} {platform.machine()}, {platform.processor() or 'CPU'}"
    )
    arguments = parser.parse_args(argv)
    results, figure = arguments.out / "results" / "heart.json", arguments.out / "figures" / "heart.png"
    for folder in (results.parent, figure.parent):
        folder.mkdir(parents=True, exist_ok=True)
    if not arguments.draw:
        kept = json.loads(results.read_text())["rows"] if results.exists() else []
        rows = [row for row in kept if row.get("standardize", "global") not in arguments.standardize]
        epsilons, runs, rounds = ([1.0], 1, 1) if arguments.toy else (arguments.epsilons, arguments.runs, 20)
        for kind in arguments.standardize:
            rows += measure(epsilons, runs, arguments.aggregator, kind, rounds)
        result = {
            "rows": rows,
            "delta": 1e-4,
            "unit": "record",
            "honest_senders": 3,
            "aggregator": arguments.aggregator,
            "machine": arguments.machine,
            "date": datetime.now(UTC).date().isoformat(),
        }
        result["table"] = [row for kind in ("global", "site") for row in table(result, kind)]
        write_atomic(results, (json.dumps(result, indent=2) + "\n").encode())
    result = json.loads(results.read_text())
    draw(result, figure)
    for row in result["table"]:
        print(row)


if __name__ == "__main__":
    main()
