"""Helpers shared by the experiment scripts: producing a run's rows and summarising, saving and plotting them.

Each script has a configuration, writes results/NAME.json and figures/NAME.png next to this file, and has a --toy size that takes seconds. If its
data is missing, it reports this and stops with exit code 0 without writing anything.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# Before jax is imported: every row builds its programs anew, and most of them are those of the row before.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "fedjax_poisson" / "experiments"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import numpy as np

from fedjax_poisson import data
from fedjax_poisson.federated.checkpoints import write_atomic
from fedjax_poisson.reports.plotting import EPSILON, PLAIN, PRIVATE, PUBLISHED, canvas, grid, title
from fedjax_poisson.runs.build import build
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.run import run
from fedjax_poisson.runs.scoring import without_privacy

HERE = Path(__file__).parent
COLOURS = (PRIVATE, EPSILON, PUBLISHED, PLAIN)
NONPRIVATE = "non-private"
SCORES = (
    "mean_client_accuracy",
    "pooled_accuracy",
    "balanced_accuracy",
    "auc",
    "calibration_error",
    "accuracy_by_site",
    "auc_by_site",
    "auc_by_label",
    "rmse",
    "r2",
)


def parser(about: str | None, *, data_help: str | None = None, runs: int = 3) -> argparse.ArgumentParser:
    """The options shared by all scripts."""
    found = argparse.ArgumentParser(description=(about or "").split("\n\n")[0])
    if data_help is not None:
        found.add_argument("--data", help=data_help)
    found.add_argument("--runs", type=int, default=runs, help="independent runs of each row")
    found.add_argument("--toy", action="store_true", help="a few rounds of a few records: shows that the script works")
    found.add_argument(
        "--out", type=Path, default=HERE, help="where results/ and figures/ are (default: beside the script)"
    )
    found.add_argument("--machine", default=machine(), help="how to call this machine in the results")
    found.add_argument("--draw", action="store_true", help="only draw the figure again from the results")
    return found


def need_data(path: str | None, what: str) -> Path:
    """The path; if it is missing, print the reason and stop with exit code 0."""
    if path is None or not Path(path).exists():
        print(f"skipped: {what} is not here ({path or 'no --data given'}); it may not be shipped with the package")
        sys.exit(0)
    return Path(path)


def machine() -> str:
    """A description of this machine."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def commit() -> str:
    """The commit that is checked out, "unknown" outside a repository."""
    asked = subprocess.run(["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return asked.stdout.strip() or "unknown"


def subset(sites: data.Sites, kept: np.ndarray, **changes: Any) -> data.Sites:
    """Some records of some sites, which all keep at least one.

    Args:
      sites: the data.
      kept: bool or int `[n]`, which.
      **changes: other fields of the result, such as another split.
    """
    names = ("features", "labels", "site", "train", "group")
    return dataclasses.replace(sites, **{name: getattr(sites, name)[kept] for name in names} | changes)


def training_fold(sites: data.Sites, number: int, folds: int = 4) -> data.Sites:
    """The training records alone, with one of `folds` parts of their privacy units held out for testing; used to choose settings.

    A site that would be left without a training record keeps all of its records.
    """
    groups = np.unique(sites.group[sites.train])
    part = dict(zip(groups.tolist(), np.random.default_rng(0).permutation(len(groups)) % folds, strict=True))
    kept = np.flatnonzero(sites.train)
    held_out = np.array([part[group] == number for group in sites.group[kept].tolist()])
    held_out &= np.isin(sites.site[kept], sites.site[kept][~held_out])
    return subset(sites, kept, train=~held_out)


def best(rows: Sequence[dict[str, Any]], score: str = "auc") -> dict[str, Any]:
    """The candidate with the largest mean score over its rows."""
    means = table(rows, lambda row: json.dumps(row["candidate"], sort_keys=True), (score,))
    found: dict[str, Any] = json.loads(max(means, key=lambda row: row[score])["key"])
    return found


def private_row(config: Config, sites: data.Sites | None = None, **facts: Any) -> dict[str, Any]:
    """One private run without its folder: scores, cost, and the settings that differ from the default."""
    with tempfile.TemporaryDirectory() as folder:
        summary = run(config, Path(folder) / "run", sites=sites)
    return {
        **facts,
        "epsilon_target": config.epsilon,
        "epsilon": summary["epsilon"],
        "seconds": summary["total_seconds"],
        "bytes_up_total_per_client": summary["bytes_up_total_per_client"],
        **{name: summary[name] for name in SCORES},
    }


def nonprivate_row(config: Config, sites: data.Sites | None = None, *, seed: int = 0, **facts: Any) -> dict[str, Any]:
    """The same recipe without clipping, noise and encryption."""
    started = time.perf_counter()
    found = without_privacy(build(config, sites), seed=seed)
    return {
        **facts,
        "epsilon_target": None,
        "epsilon": None,
        "seconds": time.perf_counter() - started,
        **{name: found[name] for name in SCORES},
    }


def say(row: dict[str, Any], *names: str) -> None:
    """Print one line."""
    budget = NONPRIVATE if row["epsilon_target"] is None else f"epsilon {row['epsilon_target']:g}"
    facts = "  ".join(f"{name} {row[name]}" for name in names)
    if row.get("rmse") is not None:
        found = f"RMSE {row['rmse']:.4g}  R2 {row['r2']:.3f}"
    else:
        found = f"accuracy {row['pooled_accuracy']:.3f}  AUC {row['auc'] or float('nan'):.3f}"
    print(f"{facts}  {budget}: {found}  {row['seconds']:.0f} s", flush=True)


def table(
    rows: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], Any], scores: Sequence[str]
) -> list[dict[str, Any]]:
    """Mean and standard error of scores over the rows of each key, in the order of first appearance."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    found = []
    for name, own in groups.items():
        entry: dict[str, Any] = {"key": name, "epsilon": own[0]["epsilon_target"], "runs": len(own)}
        for score in scores:
            values = np.array([row[score] for row in own if row[score] is not None], float)
            entry[score] = float(values.mean()) if len(values) else None
            entry[f"{score}_error"] = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
        found.append(entry)
    return found


def save(name: str, arguments: argparse.Namespace, result: dict[str, Any]) -> Path:
    """Write results/NAME.json with machine, date and commit; returns the place of the figure."""
    whole = {
        **result,
        "toy": arguments.toy,
        "seeds": "none: noise, samples and keys from the operating system; initial weights and the yardstick's samples are fixed",
        "machine": arguments.machine,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
    }
    return write(name, arguments, whole)


def write(name: str, arguments: argparse.Namespace, whole: dict[str, Any]) -> Path:
    """Write results/NAME.json as it is; returns the place of the figure."""
    for folder in ("results", "figures"):
        (arguments.out / folder).mkdir(parents=True, exist_ok=True)
    write_atomic(arguments.out / "results" / f"{name}.json", (json.dumps(whole, indent=1) + "\n").encode())
    return arguments.out / "figures" / f"{name}.png"


def load(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Load the results as written by `save`."""
    found: dict[str, Any] = json.loads((arguments.out / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def kept(arguments: argparse.Namespace, name: str) -> list[dict[str, Any]]:
    """The rows of an earlier call, if there was one."""
    path = arguments.out / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def panels_of(names: Sequence[str]) -> tuple[Any, list[tuple[str, Any]]]:
    """A figure with one panel a name, three in a row: the figure, and each name with its panel."""
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, axes = grid(3.2 * rows, rows, columns)
    for panel in axes[len(names) :]:
        panel.set_visible(False)
    return figure, list(zip(names, axes, strict=False))


def curve(
    path: Path,
    lines: dict[str, list[dict[str, Any]]],
    score: str,
    *,
    heading: str,
    ylabel: str,
    xlabel: str,
    marks: Sequence[tuple[float, str]] = (),
) -> None:
    """A score against epsilon, one line for each name, its non-private row as a dashed line, published scores dotted."""
    figure, axes = canvas(4.8)
    budgets = sorted({row["epsilon"] for rows in lines.values() for row in rows if row["epsilon"] is not None})
    values = [row[score] for rows in lines.values() for row in rows] + [value for value, _ in marks]
    low, high = min(values), max(values)
    for (name, rows), colour in zip(lines.items(), COLOURS, strict=False):
        own = [row for row in rows if row["epsilon"] is not None]
        x, y = [row["epsilon"] for row in own], [row[score] for row in own]
        bars = [1.96 * (row[f"{score}_error"] or 0.0) for row in own]
        axes.errorbar(x, y, yerr=bars, marker="o", color=colour, linewidth=2.4, elinewidth=1.3, capsize=4, label=name)
        for row in rows:
            if row["epsilon"] is None:
                axes.axhline(
                    row[score],
                    color=colour,
                    linestyle="--",
                    linewidth=1.5,
                    label=f"{name}: without privacy",
                )
    for value, text in marks:
        axes.axhline(value, color=PLAIN, linestyle=":", linewidth=1.4)
        right = _clearance(lines.values(), score, value, budgets[-1]) > _clearance(
            lines.values(), score, value, budgets[0]
        )
        axes.annotate(
            text,
            (budgets[-1 if right else 0], value),
            (0, 4),
            textcoords="offset points",
            ha="right" if right else "left",
            color=PLAIN,
            fontsize=9.5,
        )
    axes.set_xscale("log")
    axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
    axes.minorticks_off()
    margin = max(0.35 * (high - low), 0.01)
    axes.set_ylim(low - margin, min(high + margin, 1.005))
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.legend(frameon=False, fontsize=9.5, loc="best")
    title(axes, heading)
    figure.savefig(path)


def _clearance(lines: Iterable[list[dict[str, Any]]], score: str, value: float, end: float) -> float:
    """How far the nearest line stays from a value on the half of a logarithmic axis that ends at `end`."""
    found = []
    for rows in lines:
        own = sorted((row["epsilon"], row[score]) for row in rows if row["epsilon"] is not None)
        x, y = np.log([each[0] for each in own]), [each[1] for each in own]
        half = np.linspace((x[0] + x[-1]) / 2, np.log(end), 20)
        found.append(np.abs(np.interp(half, x, y) - value).min())
    return float(min(found))
