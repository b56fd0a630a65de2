"""The attacker's best trade-off between false alarms and detections, of a finished run: its numbers, its figure and its sentence for a patient.

The numbers come from what the ledger was charged (`accounting.trade_off`, where they are proved), so they are computed when the page is written and hold as
far as the ledger does; without a ledger that can be read they follow from epsilon and delta alone.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fedjax_poisson import accounting
from fedjax_poisson.reports.formatting import format_bound, format_share
from fedjax_poisson.reports.plotting import DPI, FAINT, PLAIN, PRIVATE, clean, percent, title
from fedjax_poisson.runs.run_folder import LedgerCheck, RunFolder, number

__all__ = ["EXAMPLE", "TradeOff", "patient_sentence", "trade_off", "write_trade_off_figure"]

EXAMPLE = 0.05
"""The rate of false alarms that examples in the report take."""

RATES = np.unique(np.concatenate([np.linspace(0, 1, 101), np.geomspace(1e-4, 0.01, 9)]))
"""Rates of false alarms at which the curve is computed."""


class TradeOff(NamedTuple):
    """A curve.

    Attributes:
      false_alarms: float64 `[n]`, rising.
      detection: float64 `[n]`, the most that any test detects.
      source: what it was computed from.
    """

    false_alarms: np.ndarray
    detection: np.ndarray
    source: str

    def at(self, rate: float) -> float:
        """The most that a test detects at a rate of `RATES`."""
        return float(self.detection[int(np.argmin(np.abs(self.false_alarms - rate)))])


class _Verified(NamedTuple):
    """A verified ledger, known by the hash of its last entry, which fixes all of it: one page asks for the curve several times."""

    head: str
    rows: int
    adapts: bool
    ledger: LedgerCheck

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Verified) and self[:3] == other[:3]

    def __hash__(self) -> int:
        return hash(self[:3])


@functools.lru_cache(maxsize=16)
def _detection(known: _Verified) -> np.ndarray:
    ledger = known.ledger
    assert ledger.law is not None
    charges = [(row.charge, 1) for row in ledger.rows]
    found = accounting.detection_of_charges(RATES, ledger.law, charges, adapts=known.adapts, distance=ledger.reserve)
    found.setflags(write=False)
    return found


def trade_off(run: RunFolder, ledger: LedgerCheck) -> TradeOff | None:
    """The run's curve; None where neither a ledger nor epsilon says anything."""
    epsilon, delta = number(run.summary.get("epsilon")), number(run.summary.get("delta"))
    stated = None
    if epsilon is not None and delta is not None and epsilon >= 0 and 0 <= delta <= 1:
        stated = accounting.detection(RATES, epsilon=epsilon, delta=delta)
    adapts, shared = run.summary.get("adapts") is True, run.summary.get("shared_ledger") is not None
    if ledger.law is None or not ledger.rows or not ledger.verified or (adapts and shared):
        return None if stated is None else TradeOff(RATES, stated, "epsilon and delta")
    charged = _detection(_Verified(ledger.rows[-1].hash, len(ledger.rows), adapts, ledger))
    how = "remaining variance" if isinstance(ledger.law, accounting.TightLaw) else "Renyi curves"
    found = charged if stated is None else np.minimum(charged, stated)
    return TradeOff(RATES, found, f"the ledger's {len(ledger.rows):,} charges ({how})")


def patient_sentence(curve: TradeOff, unit: str) -> str:
    """What the curve says to a patient."""
    part = {"patient": "took part", "client": "belong to a site that took part"}.get(
        unit, "have one particular record in it"
    )
    return (
        f"In words for a patient: suppose somebody who knows everyone else’s data studies all that this run released to find out whether you {part}, "
        f"and is so careful that of 1,000 people who do not, only {1000 * EXAMPLE:g} are named by mistake. Then of 1,000 people who do, at most "
        f"{math.ceil(round(1000 * curve.at(EXAMPLE), 6)):,} are named on average. Guessing would name {1000 * EXAMPLE:g}."
        + ("" if unit in ("patient", "client") else " For a person with several records it is more.")
    )


def write_trade_off_figure(run: RunFolder, curve: TradeOff | None) -> Path | None:
    """Draw figures/trade_off.png; an older one is removed where there is no curve."""
    path = run.path / "figures" / "trade_off.png"
    if curve is None:
        path.unlink(missing_ok=True)
        return None
    path.parent.mkdir(exist_ok=True)
    FigureCanvasAgg(trade_off_figure(curve)).print_png(path)
    return path


def trade_off_figure(curve: TradeOff) -> Figure:
    """False alarms against detection: the bound, what guessing reaches, and the example of the text."""
    figure = Figure(figsize=(6.2, 5.0), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    clean(axes)
    axes.grid(visible=True, axis="x", color=FAINT, linewidth=0.8)
    axes.fill_between(curve.false_alarms, curve.detection, 1.0, color=FAINT, alpha=0.45, linewidth=0)
    axes.plot(curve.false_alarms, curve.detection, color=PRIVATE, linewidth=2.6)
    axes.plot([0, 1], [0, 1], color=PLAIN, linewidth=1.4, dashes=(6, 3))
    found = curve.at(EXAMPLE)
    axes.plot([EXAMPLE, EXAMPLE], [EXAMPLE, found], color=PRIVATE, linewidth=1.4)
    axes.plot([EXAMPLE], [found], "o", color=PRIVATE, markersize=8)
    axes.annotate(
        f"{format_share(EXAMPLE)} false alarms:\nat most {format_bound(found)} detected",
        (EXAMPLE, found),
        (0.3, min(max(found - 0.12, 0.06), 0.8)),
        textcoords="data",
        color=PRIVATE,
        fontsize=10.5,
        va="center",
        arrowprops={"arrowstyle": "-", "color": PRIVATE, "linewidth": 0.8},
    )
    axes.text(0.03, 0.95, "no test can reach this area", fontsize=10.5, color=PLAIN, va="top")
    axes.text(0.83, 0.76, "guessing", fontsize=10.5, color=PLAIN, ha="left")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("false alarms: share of those not in the data who are named")
    axes.set_ylabel("detections: share of those in the data who are named")
    percent(axes.xaxis)
    percent(axes.yaxis)
    title(axes, "The best that any attacker can do")
    return figure
