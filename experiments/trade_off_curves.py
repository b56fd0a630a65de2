"""The attacker's best test against a whole training: false alarms against detection, at epsilon 1, 3 and 8.

An attacker who knows everything but whether one record was used says "used" or "not used". Its *false alarms* are the share of trainings without the record
in which it says "used", its *detection* the share of trainings with the record. `fedjax_poisson.accounting.detection_of_variance` bounds detection at every
rate of false alarms (proved), from what all rounds take of the remaining variance. Dashed is what the one pair (epsilon, delta) of the budget says alone. The
setting is that of the four hospitals; at the same budget others give nearly the same curve.

Run: ``python experiments/trade_off_curves.py`` (seconds). Writes results/trade_off_curves.json and figures/trade_off_curves.png beside this file.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedjax_poisson import accounting as acc
from fedjax_poisson.federated.checkpoints import write_atomic
from fedjax_poisson.reports.plotting import EPSILON, FAINT, PLAIN, PRIVATE, PUBLISHED, panels, percent, title

HERE = Path(__file__).parent
DELTA, ROUNDS = 1e-4, 20
# One record of four hospitals with at most 256 records each; one hospital may collude with the server.
FACTS = {"modulation": 0.05, "honest_senders": 3, "norm_ratio": 1.0, "dimension": 14, "step_ratio": 1 / 256}
BUDGETS = {1.0: PRIVATE, 3.0: EPSILON, 8.0: PUBLISHED}
FALSE_ALARMS = np.unique(np.concatenate([np.logspace(-4, -1, 91), np.linspace(0, 1, 201)]))
SHOWN = (0.001, 0.01, 0.05, 0.1)


def by_law(false_alarms: NDArray[np.float64], dark_count: float) -> NDArray[np.float64]:
    """Most detection after all rounds, under the tight law."""
    bound = acc.dominating_gaussian(total_dark_count=ROUNDS * dark_count, tau=1e-4 * DELTA, **FACTS)
    return acc.detection_of_variance(false_alarms, variance=bound.noise_multiplier**-2, more=bound.slack)


def measure() -> dict:
    """The curves, and what they say at a few rates of false alarms."""
    curves = {}
    for epsilon in BUDGETS:
        dark_count = acc.calibrate_dark_count_tight(epsilon=epsilon, delta=DELTA, rounds=ROUNDS, **FACTS)
        detection, shown = by_law(FALSE_ALARMS, dark_count), by_law(np.asarray(SHOWN), dark_count)
        advantage = float(np.max(detection - FALSE_ALARMS))
        curves[f"{epsilon:g}"] = {
            "dark_count": dark_count,
            "detection": detection.tolist(),
            "detection_at": dict(zip(map(str, SHOWN), shown.tolist(), strict=True)),
            "detection_by_the_pair_at": dict(
                zip(map(str, SHOWN), acc.detection(SHOWN, epsilon=epsilon, delta=DELTA).tolist(), strict=True)
            ),
            "right_guesses_of_a_coin": (1 + advantage) / 2,
        }
        print(f"epsilon {epsilon:g}:", {k: v for k, v in curves[f"{epsilon:g}"].items() if k != "detection"})
    return {
        "delta": DELTA,
        "rounds": ROUNDS,
        "facts": FACTS,
        "false_alarms": FALSE_ALARMS.tolist(),
        "curves": curves,
        "python": platform.python_version(),
    }


def draw(result: dict, path: Path) -> None:
    """All rates on the left; small rates of false alarms, where single people are accused, on the right."""
    figure, (left, right) = panels(4.6, 2)
    rates = np.asarray(result["false_alarms"])
    for axes in (left, right):
        axes.plot(rates, rates, color=PLAIN, linewidth=1.2)
        for epsilon, colour in BUDGETS.items():
            axes.plot(rates, result["curves"][f"{epsilon:g}"]["detection"], color=colour, linewidth=2)
            axes.plot(
                rates, acc.detection(rates, epsilon=epsilon, delta=result["delta"]), "--", color=colour, linewidth=1
            )
        axes.set(xlabel="false alarms: not used, and the attacker says used", ylim=(0, 1))
        axes.grid(visible=True, axis="x", color=FAINT, linewidth=0.8)
    left.set(ylabel="detection: used, and the attacker says so", xlim=(0, 1))
    right.set(xscale="log", xlim=(1e-3, 1))
    for axis in (left.xaxis, left.yaxis):
        percent(axis)
    right.set_xticks([1e-3, 1e-2, 1e-1, 1], ["0.1 %", "1 %", "10 %", "100 %"])
    for epsilon in reversed(BUDGETS):
        left.plot([], [], color=BUDGETS[epsilon], linewidth=2, label=f"epsilon {epsilon:g}")
    left.plot([], [], "--", color=PLAIN, linewidth=1, label="the pair alone")
    left.plot([], [], color=PLAIN, linewidth=1.2, label="guessing")
    left.legend(fontsize=10.5, frameon=False, loc="lower right")
    title(left, "The attacker's best test")
    title(right, "The same, few false alarms")
    figure.savefig(path)


def main() -> None:
    """Compute and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure-only", action="store_true", help="redraw from the stored results")
    arguments = parser.parse_args()
    stored = HERE / "results" / "trade_off_curves.json"
    if not arguments.figure_only:
        write_atomic(stored, (json.dumps(measure(), indent=1) + "\n").encode())
    draw(json.loads(stored.read_text()), HERE / "figures" / "trade_off_curves.png")


if __name__ == "__main__":
    main()
