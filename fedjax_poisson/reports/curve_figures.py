"""Figures of what a classifier does at every threshold: ROC, precision and recall, calibration, net benefit; the table of several classes, and numbers.

They are drawn from the counts in summary.json, which a run keeps of public test records, or of a private release that its budget paid for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedjax_poisson.federated.curves import Curves, curves_of
from fedjax_poisson.federated.intervals import wilson_interval
from fedjax_poisson.reports.plotting import DPI, EPSILON, FAINT, PLAIN, PRIVATE, PUBLISHED, clean, percent, title
from fedjax_poisson.reports.recorded_values import reliability_bins
from fedjax_poisson.runs.run_folder import RunFolder, number

__all__ = ["CURVE_FIGURES", "recorded_curves"]

_COLOURS = (PRIVATE, PUBLISHED, EPSILON, PLAIN)
_MOST_LINES = len(_COLOURS)


def recorded_curves(run: RunFolder) -> dict[str, Curves]:
    """The curves of each label that were recorded, by its name ("" where the release named none)."""
    curves = run.summary.get("curves")
    points = curves.get("points") if isinstance(curves, dict) else None
    found: dict[str, Curves] = {}
    for name, own in points.items() if isinstance(points, dict) else ():
        try:
            found[str(name)] = curves_of(own)
        except ValueError:  # a file that somebody changed
            continue
    return found


def _square(height: float = 5.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.0, height), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    clean(axes)
    axes.grid(visible=True, axis="x", color=FAINT, linewidth=0.8)
    return figure, axes


def _lines(axes: Axes, found: Mapping[str, Curves], draw: Callable[[Curves], tuple[np.ndarray, np.ndarray]]) -> None:
    shown = list(found.items())[:_MOST_LINES]
    for (name, curves), colour in zip(shown, _COLOURS, strict=False):
        x, y = draw(curves)
        axes.plot(x, y, color=colour, linewidth=2.4, label=name)
    if len(shown) > 1:
        for text in axes.legend(fontsize=9.5, frameon=False, loc="best").get_texts():
            text.set_parse_math(False)


def roc_figure(run: RunFolder) -> Figure | None:
    """Sensitivity against false alarms; None without curves."""
    if not (found := recorded_curves(run)):
        return None
    figure, axes = _square()
    axes.plot([0, 1], [0, 1], color=PLAIN, linewidth=1.4, dashes=(6, 3))
    _lines(axes, found, lambda own: (own.false_alarms, own.sensitivity))
    for own in list(found.values())[:1]:
        at = int(np.argmin(np.abs(own.thresholds - 0.5)))
        axes.plot(own.false_alarms[at], own.sensitivity[at], "o", color=PRIVATE, markersize=8)
        axes.annotate(
            "threshold 50 %",
            (own.false_alarms[at], own.sensitivity[at]),
            (8, -14),
            textcoords="offset points",
            color=PRIVATE,
            fontsize=10,
        )
    axes.set_xlim(-0.01, 1)
    axes.set_ylim(0, 1.01)
    axes.set_xlabel("false alarms (1 - specificity)")
    axes.set_ylabel("sensitivity: share of cases found")
    percent(axes.xaxis)
    percent(axes.yaxis)
    title(axes, "ROC: cases found, against false alarms")
    return figure


def precision_figure(run: RunFolder) -> Figure | None:
    """Precision against recall; None without curves."""
    if not (found := recorded_curves(run)):
        return None
    figure, axes = _square()
    _lines(axes, found, lambda own: (own.sensitivity, own.precision))
    for own in list(found.values())[:1]:
        axes.axhline(own.prevalence, color=PLAIN, linewidth=1.4, dashes=(6, 3))
        axes.annotate(
            "calling everybody a case",
            (0.02, own.prevalence),
            (0, 4),
            textcoords="offset points",
            color=PLAIN,
            fontsize=10,
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("recall: share of cases found")
    axes.set_ylabel("precision: share of alarms that are cases")
    percent(axes.xaxis)
    percent(axes.yaxis)
    title(axes, "Precision, against cases found")
    return figure


def decision_figure(run: RunFolder) -> Figure | None:
    """Net benefit against the probability at which one would act; None unless one label was recorded."""
    found = recorded_curves(run)
    if len(found) != 1:
        return None
    (own,) = found.values()
    kept = (own.thresholds >= 0.01) & (own.thresholds <= 0.99)
    x = own.thresholds[kept]
    figure, axes = _square(5.2)
    axes.plot(x, own.treat_all[kept], color=PUBLISHED, linewidth=1.8, dashes=(5, 2), label="act on everybody")
    axes.axhline(0, color=PLAIN, linewidth=1.8, dashes=(2, 2), label="act on nobody")
    axes.plot(x, own.net_benefit[kept], color=PRIVATE, linewidth=2.6, label="act on the model’s prediction")
    axes.set_xlim(0, 1)
    axes.set_ylim(min(-0.05, -0.15 * own.prevalence), 1.12 * own.prevalence)
    axes.set_xlabel("probability from which one would act")
    axes.set_ylabel("net benefit (found cases a record)")
    percent(axes.xaxis)
    axes.legend(fontsize=9.5, frameon=False, loc="upper right")
    title(axes, "Is acting on the model worth it?")
    return figure


def reliability_figure(run: RunFolder) -> Figure | None:
    """Predicted probability against observed frequency on the test records; None if not recorded."""
    bins = reliability_bins(run)
    if not bins:
        return None
    recorded: dict[str, Any] = run.summary["reliability"]
    noise = number(recorded.get("deviation")) or 0.0
    figure, axes = _square()
    axes.plot([0, 1], [0, 1], color=PLAIN, linewidth=1.2, dashes=(6, 3))
    largest = max(count for _, _, count in bins)
    for confidence, frequency, count in bins:
        low, high = wilson_interval(frequency, count)
        spread = 1.96 * noise * math.sqrt(1 - 2 * frequency * (1 - frequency)) / count
        low, high = (
            max(0.0, frequency - math.hypot(frequency - low, spread)),
            min(1.0, frequency + math.hypot(high - frequency, spread)),
        )
        axes.plot([confidence, confidence], [low, high], color=PRIVATE, linewidth=1.4, alpha=0.8)
        axes.scatter(confidence, frequency, s=30 + 170 * count / largest, color=PRIVATE, zorder=3, linewidths=0)
        axes.annotate(
            f"{count:.0f}", (confidence, high), (0, 3), textcoords="offset points", ha="center", fontsize=9, color=PLAIN
        )
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.08)
    classes = run.summary.get("classes")
    several = isinstance(classes, list) and len(classes) > 2 and run.summary.get("task") != "multilabel"
    axes.set_xlabel("probability of the predicted class" if several else "predicted probability of a case")
    axes.set_ylabel("how often it was right" if several else "how often it was one")
    percent(axes.xaxis)
    percent(axes.yaxis)
    title(axes, "Calibration: is “30 %” right in 30 %?")
    return figure


def agreement_figure(run: RunFolder) -> Figure | None:
    """Means of what was predicted and of what was so, in equal parts of the test records; None if not recorded."""
    curves = run.summary.get("curves")
    found = curves.get("agreement") if isinstance(curves, dict) else None
    columns = (
        [found.get(name) for name in ("predicted", "observed", "standard_error")] if isinstance(found, dict) else []
    )
    if len(columns) != 3 or not all(isinstance(each, list) and each for each in columns):
        return None
    rows = [row for row in zip(*columns, strict=False) if all(number(each) is not None for each in row)]
    if not rows:
        return None
    predicted, observed, error = (np.array(each, np.float64) for each in zip(*rows, strict=True))
    figure, axes = _square()
    ends = [min(predicted.min(), observed.min()), max(predicted.max(), observed.max())]
    axes.plot(ends, ends, color=PLAIN, linewidth=1.2, dashes=(6, 3))
    axes.errorbar(predicted, observed, 1.96 * error, fmt="o", color=PRIVATE, markersize=7, linewidth=1.4)
    axes.set_xlabel("predicted, mean of a part of the records")
    axes.set_ylabel("true mean of that part, with 95 % interval")
    title(axes, "Calibration: is the number right on average?")
    return figure


CURVE_FIGURES: dict[str, Callable[[RunFolder], Figure | None]] = {
    "roc": roc_figure,
    "precision": precision_figure,
    "reliability": reliability_figure,
    "decision": decision_figure,
    "agreement": agreement_figure,
}
