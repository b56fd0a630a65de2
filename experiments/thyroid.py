"""Thyroid disease, five referral sources, one record as the privacy unit, everything encrypted: AUC against epsilon.

    python experiments/thyroid.py [--runs 3] [--epsilons 1 3 8] [--toy]

This is the recipe of `fedjax-poisson run thyroid` as shipped; nothing is chosen here. The yardstick is the same recipe without clipping, noise and
encryption, with exact means and deviations.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from common import curve, load, nonprivate_row, parser, private_row, save, say, table

from fedjax_poisson.runs.config import recipe


def measure(epsilons: list[float], runs: int, toy: bool) -> dict[str, Any]:
    """All rows and their table."""
    small: dict[str, Any] = {"rounds": 2} if toy else {}
    rows = []
    for epsilon in epsilons:
        config = recipe("thyroid", epsilon=epsilon, yardstick=False, **small)
        for number in range(runs):
            rows.append(private_row(config, run=number))
            say(rows[-1], "run")
    config = recipe("thyroid", yardstick=False, **small)
    for number in range(runs):
        rows.append(nonprivate_row(config, seed=number, run=number))
        say(rows[-1], "run")
    scores = ("auc", "pooled_accuracy", "balanced_accuracy", "mean_client_accuracy", "calibration_error")
    return {
        "config": dataclasses.asdict(config),
        "delta": config.delta,
        "rows": rows,
        "table": table(rows, lambda row: row["epsilon_target"], scores),
    }


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 3.0, 8.0])
    arguments = options.parse_args(argv)
    if not arguments.draw:
        size = ([3.0], 1) if arguments.toy else (arguments.epsilons, arguments.runs)
        save("thyroid", arguments, measure(*size, arguments.toy))
    result = load("thyroid", arguments)
    curve(
        arguments.out / "figures" / "thyroid.png",
        {"5 sources, private and encrypted": result["table"]},
        "auc",
        heading="Thyroid disease, 9,172 records of five referral sources",
        ylabel="AUC, test records pooled",
        xlabel=f"epsilon for everything released, delta {result['delta']:g}, unit: one record",
    )
    for row in result["table"]:
        print(row)


if __name__ == "__main__":
    main()
