"""Chest X-rays of real patients, with the patient as the privacy unit: what can be learned within one source, and how much a border reveals across sources.

    python experiments/chest_xrays.py --data cxr_covid_64.npz [--models scattering cnn] [--search] [--runs 3] [--width 16] [--toy]

Two tasks use the same file (arrays images, labels, source, patient, classes). The first is pneumonia against no finding within ONE source (nih), split
over 5 sites, with all images of a patient on one side of the split, so the source cannot give the answer away. The second is COVID-19 against no finding
across all sources, where it can; the accuracy of a linear classifier that sees only the 4-pixel border is therefore printed and plotted next to the
model's. Both use the same stated protocol: 64 pixels, 20 % of the patients held out, everything encrypted, delta 1e-3 as in the best sourced COVID X-ray
figure under differential privacy (76.62 % at epsilon 3.9). There are three models: a linear one on fixed scattering features, a small CNN, and ResNet-50
with group normalisation (--width 64 is the usual width and needs an accelerator for its 23 million weights).

--search chooses step size and rounds on folds of the training patients, with as many candidates without privacy as with it; nothing is chosen on the
test images. Epsilon does not cover the search; it is declared instead. Rows of models that are not requested are kept.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    COLOURS,
    NONPRIVATE,
    best,
    kept,
    load,
    need_data,
    nonprivate_row,
    parser,
    private_row,
    save,
    say,
    table,
    training_fold,
)

from fedjax_poisson import data
from fedjax_poisson.reports.plotting import PLAIN, panels, percent, title
from fedjax_poisson.runs.border_control import border_scores
from fedjax_poisson.runs.config import Config, recipe
from fedjax_poisson.runs.load_data import load_sites

SEARCH_EPSILON = 3.9
FOLDS = {"scattering": 3, "cnn": 1, "resnet50": 1}  # folds of 4 that a candidate is tried on
GIVEN = {"recipe": "fixed", "sampling_rate": 1.0, "momentum": 0.9, "coordinate_bound": 0.2, "average_share": 0.3}
"""What candidates for the linear model with rounds and a step size of their own share."""
AUTO = {**dict.fromkeys(("rounds", "learning_rate", *GIVEN)), "recipe": "auto"}
"""The rule for linear models on fixed features: everything follows from public quantities."""
CANDIDATES: dict[str, dict[str, list[dict[str, Any]]]] = {
    "scattering": {
        "private": [
            {"rounds": 30, "learning_rate": 1.0},
            {"rounds": 60, "learning_rate": 1.0},
            {"rounds": 60, "learning_rate": 2.0},
            AUTO,
        ],
        NONPRIVATE: [
            {"rounds": 60, "nonprivate_rate": 4.0},
            {"rounds": 60, "nonprivate_rate": 16.0},
            {"rounds": 200, "nonprivate_rate": 16.0},
        ],
    },
    "cnn": {
        "private": [
            {"rounds": 60, "learning_rate": 0.25},
            {"rounds": 60, "learning_rate": 0.5},
            {"rounds": 60, "learning_rate": 1.0},
        ],
        NONPRIVATE: [
            {"rounds": 60, "nonprivate_rate": 0.1},
            {"rounds": 60, "nonprivate_rate": 0.3},
            {"rounds": 200, "nonprivate_rate": 0.1},
        ],
    },
    "resnet50": {
        "private": [{"rounds": 20, "learning_rate": 0.25}],
        NONPRIVATE: [{"rounds": 20, "nonprivate_rate": 0.1}],
    },
}
INSIDE, ACROSS = "pneumonia, inside one source", "COVID-19, across sources"


def tasks(path: Path) -> dict[str, data.Sites]:
    """The data of each task."""
    inside = data.from_image_npz(path, classes=("no_finding", "pneumonia"), patient="patient", only={"source": "nih"})
    return {
        INSIDE: data.dirichlet(inside, 5, 5.0),
        ACROSS: load_sites(Config(dataset="covid", data=str(path), model="scattering", standardize="bounds")),
    }


def configuration(path: Path, model: str, width: int, toy: bool, **settings: Any) -> Config:
    """The settings of `run covid` for this model, with the given overrides."""
    if model == "scattering":
        settings = GIVEN | settings
    else:
        settings["width"] = 2 if toy else width
    if toy:
        settings["rounds"] = 1
    return recipe("covid", data=str(path), model=model, yardstick=False, **settings)


def row_of(kind: str, config: Config, sites: data.Sites, **facts: Any) -> dict[str, Any]:
    """One row, also printed."""
    row = (private_row if kind == "private" else nonprivate_row)(config, sites, kind=kind, **facts)
    say(row, *(name for name in ("task", "model", "run", "fold", "candidate") if name in facts))
    return row


def search(path: Path, parts: dict[str, data.Sites], model: str, width: int, toy: bool) -> list[dict[str, Any]]:
    """Run every candidate on folds of the training patients; noise is real, encryption is left out (it changes no bit)."""
    rows = []
    for task, sites in list(parts.items())[: 1 if toy else None]:
        for number in range(1 if toy else FOLDS[model]):
            part = training_fold(sites, number)
            for kind, candidates in CANDIDATES[model].items():
                for candidate in candidates[: 1 if toy else None]:
                    config = configuration(
                        path, model, width, toy, epsilon=SEARCH_EPSILON, aggregator="plain", **candidate
                    )
                    facts = {"task": task, "model": model, "fold": number, "candidate": candidate}
                    rows.append(row_of(kind, config, part, **facts))
    return rows


def measure(
    path: Path,
    parts: dict[str, data.Sites],
    model: str,
    epsilons: list[float],
    runs: int,
    width: int,
    toy: bool,
    found: list[dict[str, Any]],
) -> Iterator[list[dict[str, Any]]]:
    """Run the chosen settings on the test patients; yields the rows of one task and budget after another."""
    for task, sites in parts.items():
        for epsilon in [*epsilons, None]:
            rows = []
            kind = NONPRIVATE if epsilon is None else "private"
            own = [row for row in found if (row["task"], row["model"], row["kind"]) == (task, model, kind)]
            searched = len(CANDIDATES[model][kind]) > 1 and not toy
            settings = best(own) if searched else dict(CANDIDATES[model][kind][0])
            if epsilon is not None:
                settings["epsilon"] = epsilon
            config = configuration(path, model, width, toy, **settings)
            for number in range(runs):
                seed = {} if kind == "private" else {"seed": number}
                facts = {"task": task, "model": model, "run": number, "rounds": config.rounds, "width": config.width}
                rows.append(row_of(kind, config, sites, **facts, **seed))
            yield rows


def place(row: dict[str, Any]) -> tuple[Any, ...]:
    """Where a row belongs in the results: task, model and budget."""
    return list(CANDIDATES).index(row["model"]), row["task"] == ACROSS, row["epsilon_target"] or math.inf


def summary(path: Path, borders: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What is kept: rows, their table and the border controls."""
    config = recipe("covid", data=str(path))
    scores = ("auc", "pooled_accuracy", "balanced_accuracy")
    return {
        "config": {**dataclasses.asdict(config), "data": path.name},
        "delta": config.delta,
        "border_only": borders,
        "tuning": "settings chosen on folds of the training patients (results/chest_xrays_search.json), not paid for in epsilon",
        "rows": rows,
        "table": [
            {"task": task, "model": model, **entry}
            for task in (INSIDE, ACROSS)
            for model in CANDIDATES
            for entry in table(
                [row for row in rows if (row["task"], row["model"]) == (task, model)],
                lambda row: row["epsilon_target"],
                scores,
            )
        ],
    }


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw the accuracy of every model and budget next to that of the border, one panel per task."""
    figure, both = panels(5.2, 2)
    for panel, (task, border) in zip(both, result["border_only"].items(), strict=True):
        place, ticks = 0.0, []
        models = [model for model in CANDIDATES if any(row["model"] == model for row in result["table"])]
        for model in models:
            own = [row for row in result["table"] if (row["task"], row["model"]) == (task, model)]
            middle = place + (len(own) - 1) / 2
            for entry in own:
                colour = PLAIN if entry["epsilon"] is None else COLOURS[0]
                bar(panel, place, entry["pooled_accuracy"], colour, 1.96 * (entry["pooled_accuracy_error"] or 0.0))
                ticks.append((place, "∞" if entry["epsilon"] is None else f"{entry['epsilon']:g}"))
                place += 1
            panel.text(middle, 1.03, NAMES[model], ha="center", fontsize=9.5)
            place += 1.0
        bar(panel, place, border["accuracy"], COLOURS[2], 0.0)
        panel.text(place, 1.03, "border", ha="center", fontsize=9.5)
        ticks.append((place, "∞"))
        panel.axhline(border["majority_accuracy"], color="black", linestyle=":", linewidth=1.2)
        panel.set_xticks([x for x, _ in ticks], [name for _, name in ticks], fontsize=9)
        panel.set_xlabel("epsilon (∞: no privacy)")
        panel.set_ylim(0, 1.12)
        panel.set_yticks(np.linspace(0, 1, 6))
        percent(panel.yaxis)
        title(panel, task)
    both[0].set_ylabel("accuracy on held-out patients\n(dotted: the most common class)")
    figure.savefig(path)


NAMES = {"scattering": "scattering", "cnn": "CNN", "resnet50": "ResNet-50"}


def bar(axes: Any, place: float, height: float, colour: str, error: float) -> None:
    """One bar with its number."""
    axes.bar(place, height, 0.8, color=colour, yerr=error or None, capsize=3)
    axes.annotate(f"{100 * height:.0f}", (place, 0.02), ha="center", va="bottom", fontsize=9.5, color="white")


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, data_help="cxr_covid_64.npz: images, labels, source, patient, classes", runs=3)
    options.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 3.9, 8.0])
    options.add_argument("--models", nargs="+", default=["scattering", "cnn"], choices=list(CANDIDATES))
    options.add_argument("--width", type=int, default=8, help="of the networks' first layer")
    options.add_argument("--search", action="store_true", help="choose the settings again on folds of the training set")
    arguments = options.parse_args(argv)
    if not arguments.draw:
        path = need_data(arguments.data, "cxr_covid_64.npz (chest X-rays of several licences)")
        found, rows = (kept(arguments, name) for name in ("chest_xrays_search", "chest_xrays"))
        parts = tasks(path)
        borders = {task: border_scores(sites) for task, sites in parts.items()}
        for model in arguments.models:
            if arguments.search or arguments.toy:
                found = [row for row in found if row["model"] != model]
                found += search(path, parts, model, arguments.width, arguments.toy)
                save("chest_xrays_search", arguments, {"rows": found, "epsilon": SEARCH_EPSILON})
            size = ([3.9], 1) if arguments.toy else (arguments.epsilons, arguments.runs)
            for new in measure(path, parts, model, *size, arguments.width, arguments.toy, found):
                rows = [row for row in rows if place(row) != place(new[0])]
                rows = sorted([*rows, *new], key=place)
                save("chest_xrays", arguments, summary(path, borders, rows))  # an interrupted call loses one budget
    result = load("chest_xrays", arguments)
    draw(result, arguments.out / "figures" / "chest_xrays.png")
    for row in result["table"]:
        print(row)
    for task, border in result["border_only"].items():
        print(f"{task}: border only {border['accuracy']:.3f}, most common class {border['majority_accuracy']:.3f}")


if __name__ == "__main__":
    main()
