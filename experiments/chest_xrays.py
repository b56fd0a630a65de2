"""Chest X-rays of real patients, one patient as the privacy unit: what can be told inside one source, and what a border tells between sources.

    python experiments/chest_xrays.py --data cxr_covid_64.npz [--runs 2] [--toy]

Two tasks on the same file (arrays images, labels, source, patient, classes). Pneumonia against no finding inside ONE source (nih), dealt to 5 sites,
all pictures of a patient on one side of the split: the source cannot give the answer away. COVID-19 against no finding over all sources, where it
can: the accuracy of a linear classifier that sees only the 4-pixel border is printed and drawn beside the model's. Stated protocol of both: 64
pixels, 20 % of the patients held out, delta 1e-3 as in the best sourced COVID X-ray figure under differential privacy (76.62 % at epsilon
3.9), a small CNN from scratch (--model resnet50 trains that, with group normalisation; it needs an accelerator). The settings are those of
`fedjax-poisson run covid`; nothing is chosen on the test pictures.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from common import COLOURS, load, need_data, nonprivate_row, parser, private_row, save, say, table

from fedjax_poisson import data
from fedjax_poisson.experiment.border import border_scores
from fedjax_poisson.experiment.config import Config, recipe
from fedjax_poisson.experiment.plotting import PLAIN, canvas, percent, title
from fedjax_poisson.experiment.sources import load_sites

SOURCED = 0.7662  # accuracy at epsilon 3.9, delta 1e-3, another protocol


def tasks(path: Path) -> dict[str, data.Sites]:
    """The data of each task."""
    inside = data.from_image_npz(path, classes=("no_finding", "pneumonia"), patient="patient", only={"source": "nih"})
    return {
        "pneumonia, inside one source": data.dirichlet(inside, 5, 5.0),
        "COVID-19, across sources": load_sites(
            Config(dataset="covid", data=str(path), model="cnn", standardize="bounds")
        ),
    }


def measure(path: Path, epsilons: list[float], runs: int, toy: bool, model: str) -> dict[str, Any]:
    """All rows, the border controls and their table."""
    small: dict[str, Any] = {"rounds": 2, "width": 2} if toy else {}
    config = recipe("covid", data=str(path), model=model, yardstick=False, **small)
    rows, borders = [], {}
    for task, sites in tasks(path).items():
        borders[task] = border_scores(sites)
        print(
            f"{task}: border only {borders[task]['accuracy']:.3f}, commonest class {borders[task]['majority_accuracy']:.3f}"
        )
        own = dataclasses.replace(config, clients=None)
        for epsilon in epsilons:
            for number in range(runs):
                rows.append(private_row(dataclasses.replace(own, epsilon=epsilon), sites, task=task, run=number))
                say(rows[-1], "task", "run")
        for number in range(runs):
            rows.append(nonprivate_row(own, sites, seed=number, task=task, run=number))
            say(rows[-1], "task", "run")
    return {
        "config": {**dataclasses.asdict(config), "data": path.name},
        "delta": config.delta,
        "border_only": borders,
        "tuning": "none: the settings of `run covid`",
        "rows": rows,
        "table": table(
            rows, lambda row: f"{row['task']}, {row['epsilon_target']}", ("auc", "pooled_accuracy", "balanced_accuracy")
        ),
    }


def draw(result: dict[str, Any], path: Path) -> None:
    """Accuracy of every row beside that of the border."""
    figure, axes = canvas(4.8)
    place, ticks = 0.0, []
    for task, border in result["border_only"].items():
        start = place
        for entry in (row for row in result["table"] if task in row["key"]):
            name = "non-private" if entry["epsilon"] is None else f"epsilon {entry['epsilon']:g}"
            axes.bar(place, entry["pooled_accuracy"], 0.8, color=PLAIN if entry["epsilon"] is None else COLOURS[0])
            axes.annotate(
                f"{100 * entry['pooled_accuracy']:.0f} %",
                (place, entry["pooled_accuracy"]),
                ha="center",
                va="bottom",
                fontsize=9.5,
            )
            ticks.append((place, name))
            place += 1
        axes.bar(place, border["accuracy"], 0.8, color=COLOURS[2])
        axes.annotate(
            f"{100 * border['accuracy']:.0f} %", (place, border["accuracy"]), ha="center", va="bottom", fontsize=9.5
        )
        ticks.append((place, "border\nonly"))
        axes.plot(
            [start - 0.5, place + 0.5], 2 * [border["majority_accuracy"]], color="black", linestyle=":", linewidth=1.2
        )
        axes.text((start + place) / 2, 1.06, task, ha="center", fontsize=11)
        place += 1.8
    axes.set_xticks([x for x, _ in ticks], [name for _, name in ticks], fontsize=8.5)
    axes.set_ylim(0, 1.15)
    axes.set_yticks(np.linspace(0, 1, 6))
    percent(axes.yaxis)
    axes.set_ylabel("accuracy on held-out patients (dotted: commonest class)")
    title(axes, f"Chest X-rays, private per patient (delta {result['delta']:g})")
    figure.savefig(path)


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, data_help="cxr_covid_64.npz: images, labels, source, patient, classes", runs=2)
    options.add_argument("--epsilons", type=float, nargs="+", default=[3.9, 8.0])
    options.add_argument("--model", default="cnn")
    arguments = options.parse_args(argv)
    if not arguments.draw:
        path = need_data(arguments.data, "cxr_covid_64.npz (chest X-rays of several licences)")
        size = ([3.9], 1) if arguments.toy else (arguments.epsilons, arguments.runs)
        save("chest_xrays", arguments, measure(path, *size, arguments.toy, arguments.model))
    result = load("chest_xrays", arguments)
    draw(result, arguments.out / "figures" / "chest_xrays.png")
    for row in result["table"]:
        print(row)


if __name__ == "__main__":
    main()
