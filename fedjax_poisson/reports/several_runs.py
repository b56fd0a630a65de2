"""Runs side by side: what each cost in epsilon, how well it does, how large its folder is; a table and one figure.

Only what the runs' own summaries say is shown. Epsilons of runs on the same records add up; a shared ledger says to what (`fedjax-poisson ledger`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_poisson.federated.checkpoints import write_atomic
from fedjax_poisson.reports.formatting import MISSING, format_bytes

__all__ = ["SCORES", "Row", "draw", "find_runs", "row_of", "text_rows"]

SUMMARY = "summary.json"
SCORES = ("auc", "pooled_accuracy", "mean_client_accuracy", "r2")
"""What a run is compared by: the first of these that all of them have."""


class Row(NamedTuple):
    """One run.

    Attributes:
      folder: where it lies.
      dataset: its data.
      model: by name.
      verdict: "private", "conditional" or "not private".
      epsilon: what it states, at delta.
      delta: of that.
      unit: who is protected.
      rounds: training sums that were released.
      scores: those of `SCORES` that it has.
      plain: the same of the same recipe without privacy, where it was trained.
      bytes: size of the folder.
      date: when it ended.
    """

    folder: Path
    dataset: str
    model: str
    verdict: str
    epsilon: float | None
    delta: float | None
    unit: str
    rounds: int
    scores: dict[str, float]
    plain: dict[str, float]
    bytes: int
    date: str


def row_of(folder: Path) -> Row:
    """A finished run.

    Raises:
      FileNotFoundError: the folder holds no finished run.
      ValueError: its summary is damaged.
    """
    path = folder / SUMMARY
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no {SUMMARY}: there is no finished run; fedjax-poisson list FOLDER shows those that there are."
        )
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Row(
            folder=folder,
            dataset=str(found["dataset"]),
            model=str(found["model"]),
            verdict=str(found["verdict"]),
            epsilon=_number(found.get("epsilon")),
            delta=_number(found.get("delta")),
            unit=str(found["unit"]),
            rounds=int(found["rounds"]),
            scores=_scores(found, ""),
            plain=_scores(found, "nonprivate_"),
            bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
            date=str(found.get("date", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({error!r}); restore it, or finish the run again with --resume {folder}."
        ) from error


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _scores(found: dict[str, Any], before: str) -> dict[str, float]:
    return {name: value for name in SCORES if (value := _number(found.get(before + name))) is not None}


def find_runs(root: Path) -> list[Row]:
    """All finished runs below a folder, by their date; folders with a damaged summary are left out."""
    rows = []
    for path in sorted(root.rglob(SUMMARY)):
        try:
            rows.append(row_of(path.parent))
        except ValueError:
            continue
    return sorted(rows, key=lambda row: (row.date, str(row.folder)))


def shared_score(rows: Sequence[Row]) -> str | None:
    """The score that all runs have, the first of `SCORES`; None if there is none."""
    return next((name for name in SCORES if all(name in row.scores for row in rows)), None)


def text_rows(rows: Sequence[Row]) -> list[list[str]]:
    """Cells of a table, the head first."""
    score = shared_score(rows)
    names = [score] if score else list(SCORES)
    head = ["run", "data", "model", "epsilon", "delta", "unit", "verdict", "rounds", *names, "no privacy", "size"]
    cells = [head]
    for row in rows:
        shown = [f"{row.scores[name]:.3f}" if name in row.scores else MISSING for name in names]
        plain = f"{row.plain[score]:.3f}" if score in row.plain else MISSING
        epsilon = MISSING if row.epsilon is None else f"{row.epsilon:.4g}"
        delta = MISSING if row.delta is None else f"{row.delta:g}"
        own = [str(row.folder), row.dataset, row.model, epsilon, delta, row.unit, row.verdict, str(row.rounds)]
        cells.append([*own, *shown, plain, format_bytes(row.bytes)])
    return cells


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Score against epsilon, a point a run, and a dash for the same recipe without privacy.

    Raises:
      ValueError: the runs have no score in common, or no epsilon.
    """
    import io

    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    score = shared_score(rows)
    known = [row for row in rows if row.epsilon is not None]
    if score is None or not known:
        raise ValueError(
            f"these runs have no score of {', '.join(SCORES)} in common with a known epsilon, so there is nothing to draw."
        )
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for row in known:
        mark = "o" if row.verdict == "private" else "s" if row.verdict == "conditional" else "x"
        points = axes.plot(
            [row.epsilon or 0.0], [row.scores[score]], mark, markersize=8, label=f"{row.folder.name} ({row.verdict})"
        )
        if score in row.plain:
            axes.axhline(row.plain[score], color=points[0].get_color(), linestyle="--", linewidth=1, alpha=0.6)
    axes.set_xscale("log")
    shown = sorted({row.epsilon or 0.0 for row in known})
    axes.set_xticks(shown, [f"{value:.3g}" for value in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("epsilon (log scale)")
    axes.set_ylabel("AUC" if score == "auc" else score.replace("_", " "))
    axes.set_title("dashed: the same recipe without privacy" if any(score in row.plain for row in known) else "")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_atomic(path, buffer.getvalue())
    return path
