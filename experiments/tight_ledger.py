"""What the remaining-variance filter (`fedjax_poisson.accounting.remaining_variance`) costs: noise, and time.

    python experiments/tight_ledger.py        # a minute on one core

* *Noise* of the plan of the heart data (three honest hospitals of four), as the variance of the estimated sum: by the adaptive
  filter, by domination of a fixed plan, by Renyi accounting, and of a Gaussian with exact accounting, whose honest senders are the
  same three. One release, 20 and 60 equal ones, thousands, and a schedule that changes dark count, modulation and clip bound on
  the way.
* *Steps*: dark count that the filter allows over Renyi accounting's, for fine and coarse steps of one unit.
* *Time* of a charge, a plan, a reading.

Writes results/tight_ledger.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE, commit, machine

from fedjax_poisson import accounting as acc
from fedjax_poisson.accounting.fixed_plan import fixed_plan_width
from fedjax_poisson.federated.checkpoints import write_atomic

DELTA, EPSILONS = 1e-4, (1.0, 3.0, 8.0)
HONEST, MODULATION, CLIP, COORDINATE, DIMENSION, CLAMP = 3, 0.05, 1.0, 0.6, 14, 77.0
FACTS: dict[str, Any] = {
    "modulation": MODULATION,
    "honest_senders": HONEST,
    "norm_ratio": CLIP / COORDINATE,
    "dimension": DIMENSION,
    "step_ratio": COORDINATE / CLAMP,
}
REAL_ORDERS = np.unique(np.concatenate([np.linspace(2.0, 20.0, 1801), np.arange(20.0, 513.0)]))
"""The default orders are integers: at epsilon 8 the best order is near 4.5, and Renyi accounting loses 2 % by them."""
SHAPES = ((0.05, 0.005), (0.05, 0.05), (0.3, 0.01), (0.3, 0.1), (0.9, 0.9))


def variance(dark_count: float) -> float:
    """Variance of the estimated sum over the squared clip norm, of the noise of the honest senders alone."""
    return HONEST * CLAMP**2 / (2 * dark_count * MODULATION**2) / CLIP**2


def admitted(budget: acc.VarianceBudget, cost: acc.Embedded, events: float) -> int:
    """How many releases of so many events the filter admits."""
    left: float | None = budget.total
    count = -1
    while left is not None:
        left, count = acc.spend_variance(budget, left, cost._replace(events=events)), count + 1
    return count


def equal_rounds(budget: acc.VarianceBudget, cost: acc.Embedded, rounds: int) -> float:
    """The most events in total that the filter admits in so many equal releases, to 1e-6 of all."""
    low, high = 0.9, 1.0
    whole = acc.affordable_events(budget, budget.total, 0.0, cost)
    while high - low > 1e-6:
        middle = (low + high) / 2
        plan = [cost._replace(events=middle * whole / rounds)] * rounds
        low, high = (middle, high) if acc.spend_all(budget, budget.total, plan) is not None else (low, middle)
    return low * whole


def adaptive(budget: acc.VarianceBudget, charges: int) -> float:
    """Gaussian variance that a schedule of changing releases got out of the budget: sum of 2 K M h^2 over all of them.

    Every release draws a modulation, a clip bound and about W / charges of the small-step limit; nothing is known beforehand.
    """
    generator = np.random.default_rng(0)
    left, got, refused = budget.total, 0.0, 0
    while refused < 20:
        r, norm = generator.uniform(0.02, 0.1), generator.uniform(1.0, 3.0)
        cost = acc.embedded_cost(dark_count=1.0, **FACTS | {"modulation": r, "norm_ratio": norm})
        gaussian = 2 * cost.coordinates * cost.step**2
        share = generator.uniform(0.2, 1.8) * budget.total / charges
        cost = cost._replace(events=min(share, left / (2 << refused)) / gaussian)
        after = acc.spend_variance(budget, left, cost)
        if after is None:
            refused += 1
        else:
            left, got = after, got + gaussian * cost.events
    return got


def noise(epsilon: float, charges: int) -> dict[str, Any]:
    """All accountants at one epsilon."""
    budget, cost = acc.variance_budget(epsilon, DELTA), acc.embedded_cost(dark_count=1.0, **FACTS)
    target = {"epsilon": epsilon, "delta": DELTA, "rounds": 20}
    z = acc.calibrate_gaussian_pld(epsilon=epsilon, delta=DELTA, rounds=1)
    whole = acc.affordable_events(budget, budget.total, 0.0, cost)
    dark = {
        "one release": whole / HONEST,
        "20 releases": equal_rounds(budget, cost, 20) / HONEST,
        "60 releases": equal_rounds(budget, cost, 60) / HONEST,
        f"{charges} releases": admitted(budget, cost, whole / charges) * whole / charges / HONEST,
    }
    fixed = 20 * acc.calibrate_dark_count_tight(**target, **FACTS)
    renyi = 20 * acc.calibrate_dark_count(**target, **FACTS)
    others = {
        "fixed plan": fixed,
        "renyi": renyi,
        "renyi, real orders": 20 * acc.calibrate_dark_count(**target, **FACTS, orders=REAL_ORDERS),
    }
    return {
        "epsilon": epsilon,
        "total": budget.total,
        "gaussian_variance": z * z,
        "dark_count": dark | others,
        "over_gaussian": {name: variance(mu) / z**2 for name, mu in (dark | others).items()}
        | {"changing releases": 1 / (z * z * adaptive(budget, charges))},
        "over_renyi": {name: renyi / mu for name, mu in dark.items()},
        "over_renyi_at_real_orders": {name: others["renyi, real orders"] / mu for name, mu in dark.items()},
    }


def steps() -> list[dict[str, Any]]:
    """Total dark count by the filter over that of Renyi accounting at real orders, one coordinate, for several steps."""
    rows = []
    for r, h in SHAPES:
        gains = []
        for epsilon in EPSILONS:
            budget = acc.variance_budget(epsilon, DELTA)
            unit = acc.embedding_divergence(REAL_ORDERS, r, h)
            renyi = float(
                acc.event_budget_filter(epsilon=epsilon, delta=DELTA, unit_rdp=unit, orders=REAL_ORDERS).budget[0]
            )
            gains.append(acc.affordable_events(budget, budget.total, 0.0, acc.Embedded(1.0, 1.0, r, h)) / renyi)
        rows.append({"modulation": r, "step": h, "dark_count_over_renyi": gains})
    return rows


def milliseconds(task: Callable[[], object], repeats: int = 5) -> float:
    """The best of several runs."""
    best = math.inf
    for _ in range(repeats):
        started = time.perf_counter()
        task()
        best = min(best, time.perf_counter() - started)
    return 1e3 * best


def times(charges: int) -> dict[str, float]:
    """Milliseconds of a charge, a plan of 60 rounds, a budget and the reading of three kinds of release."""
    budget, cost = acc.variance_budget(3.0, DELTA), acc.embedded_cost(dark_count=1.0, **FACTS)
    whole = acc.affordable_events(budget, budget.total, 0.0, cost)
    plan = [cost._replace(events=0.99 * whole / 60)] * 60
    three = [cost._replace(events=whole / 4, step=factor * cost.step) for factor in (1.0, 1.1, 0.9)]

    def reading() -> None:
        fixed_plan_width.cache_clear()
        acc.fixed_plan_epsilon(three, DELTA)

    return {
        "charge": milliseconds(lambda: admitted(budget, cost, whole / charges), 1) / charges,
        "charges": charges,
        "plan of 60 rounds": milliseconds(lambda: acc.spend_all(budget, budget.total, plan)),
        "affordable events": milliseconds(lambda: acc.affordable_events(budget, budget.total, 0.0, cost)),
        "reading": milliseconds(reading),
        "reading again": milliseconds(lambda: acc.fixed_plan_epsilon(three, DELTA)),
        "budget": milliseconds(lambda: acc.variance_budget(3.0, DELTA)),
    }


def show(result: dict[str, Any]) -> None:
    names = list(result["noise"][0]["over_gaussian"])
    print("noise variance over a Gaussian's with exact accounting (heart's plan, delta 1e-4)")
    print("epsilon  " + "  ".join(f"{name:>18}" for name in names))
    for row in result["noise"]:
        print(f"{row['epsilon']:>7g}  " + "  ".join(f"{row['over_gaussian'][name]:>18.4f}" for name in names))
    names = list(result["noise"][0]["over_renyi"])
    print("\nnoise variance over Renyi accounting's; in brackets at real orders")
    print("epsilon  " + "  ".join(f"{name:>18}" for name in names))
    for row in result["noise"]:
        both = [f"{row['over_renyi'][name]:.4f} ({row['over_renyi_at_real_orders'][name]:.4f})" for name in names]
        print(f"{row['epsilon']:>7g}  " + "  ".join(f"{cell:>18}" for cell in both))
    print(
        "\ndark count over Renyi accounting's, at real orders, one coordinate, epsilon "
        + " / ".join(f"{e:g}" for e in EPSILONS)
    )
    for row in result["steps"]:
        gains = " / ".join(f"{gain:.3f}" for gain in row["dark_count_over_renyi"])
        print(f"  r {row['modulation']:g}, h {row['step']:g}: {gains}")
    print("\nmilliseconds: " + ", ".join(f"{name} {value:.3g}" for name, value in result["milliseconds"].items()))


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--toy", action="store_true", help="fewer charges: shows that the script works")
    parser.add_argument("--out", type=Path, default=HERE, help="where results/ is (default: beside the script)")
    parser.add_argument("--machine", default=machine(), help="how to call this machine in the results")
    arguments = parser.parse_args(words)
    charges = 200 if arguments.toy else 10_000
    result = {
        "plan": {**FACTS, "delta": DELTA, "clip_norm": CLIP, "total_bound": CLAMP},
        "noise": [noise(epsilon, charges) for epsilon in EPSILONS],
        "steps": steps(),
        "milliseconds": times(charges),
        "toy": arguments.toy,
        "machine": arguments.machine,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
    }
    show(result)
    (arguments.out / "results").mkdir(parents=True, exist_ok=True)
    write_atomic(arguments.out / "results" / "tight_ledger.json", (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
