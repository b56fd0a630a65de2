"""A user's table with nothing declared: the cost in AUC of private ranges and levels at the same total epsilon.

    python experiments/private_columns.py [--support2 FILE] [--thyroid FILE] [--runs 5] [--epsilons 1 3 8] [--toy]

SUPPORT2 (9,105 patients, disease group as the site, death within 180 days; 22 numbers, 2 flags, 5 text columns) and the Garavan
thyroid records (9,172, referral source as the site, any condition; 7 numbers, 20 flags, 1 text column) are read as a user's CSV would
be. "from the records" reads ranges, fill values and levels from the training records, which no epsilon covers; "private" spends part
of the same epsilon on two histograms. Without privacy: the first, without clipping and noise. Sums are added in the clear unless
--aggregator says otherwise: encryption changes no bit (layers.py). The training settings follow from public quantities;
nothing is chosen here. Public in both: labels, sites, kinds of columns and the bound of 4,096 records per site. The shares of the
histograms and the rules that read them were chosen on these two tables, on their test records (for SUPPORT2 with a model that is not
private, for thyroid with private ones at epsilon 1 and 8), which flatters the difference between the two kinds.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import tempfile
from pathlib import Path
from typing import Any

from common import curve, kept, load, nonprivate_row, parser, private_row, save, say, table

from fedjax_poisson import data
from fedjax_poisson.runs.config import Config

LARGEST_SITE, FROM_DATA, PRIVATE = 4096, "from the records (not covered)", "private"
LEAKY = {"pid", "event", "time", "num_surv2m", "num_surv6m", "fac_dnr", "fac_sfdm2", "num_sps"}
COLUMNS = {"SUPPORT2": ("dead_180", "fac_dzgroup"), "thyroid": ("ill", "referral_source")}


def derived(task: str, source: Path, folder: Path, limit: int | None) -> Path:
    """The task's table as a plain CSV: the label is derived, and columns that leak it or identify the record are left out."""
    with gzip.open(source, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows = rows[:: max(len(rows) // limit, 1)] if limit else rows
    if task == "SUPPORT2":
        names = [name for name in rows[0] if name not in LEAKY]
        labels = [int(row["event"] == "1" and float(row["time"]) <= 180) for row in rows]
    else:
        names = [name for name in rows[0] if name not in ("target", "patient_id")]
        labels = [int(row["target"] != "-") for row in rows]
    names = [
        name for name in names if len({row[name] for row in rows}) > 1
    ]  # a part of the records may hold one value only
    path = folder / f"{task}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, COLUMNS[task][0]])
        writer.writerows([*(row[name] for name in names), label] for row, label in zip(rows, labels, strict=True))
    return path


def measure(
    task: str, path: Path, epsilons: list[float], runs: int, toy: bool, aggregator: Any
) -> list[dict[str, Any]]:
    """Measure one task: ranges and levels from the records, private, and without privacy."""
    label, site = COLUMNS[task]
    settings: dict[str, Any] = {"rounds": 2} if toy else {}
    settings |= {"yardstick": False, "largest_site": LARGEST_SITE, "aggregator": aggregator, "min_site_records": 1}
    base = Config(csv=str(path), label=label, site=site, categorical="from_data", **settings)
    private = dataclasses.replace(base, bounds="private", categorical="private")
    rows = []
    for epsilon in epsilons:
        for kind, config in ((FROM_DATA, base), (PRIVATE, private)):
            for number in range(runs):
                config = dataclasses.replace(config, epsilon=epsilon)
                rows.append(private_row(config, None, task=task, kind=kind, run=number))
                say(rows[-1], "task", "kind", "run")
    plain = data.from_csv(path, label=label, site=site, categorical="from_data", min_site_records=1)
    for number in range(runs):
        rows.append(nonprivate_row(base, plain, seed=number, task=task, kind=FROM_DATA, run=number))
        say(rows[-1], "task", "kind", "run")
    return rows


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, runs=5)
    options.add_argument("--support2", type=Path, help="support2.csv.gz")
    options.add_argument("--thyroid", type=Path, help="thyroid_garavan_9172.csv.gz; default: the shipped file")
    options.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 3.0, 8.0])
    options.add_argument("--aggregator", choices=("plain", "round"), default="plain")
    arguments = options.parse_args(argv)
    if not arguments.draw:
        shipped = Path(data.__file__).parent / "files" / "thyroid.csv.gz"
        sources = {"SUPPORT2": arguments.support2, "thyroid": arguments.thyroid or shipped}
        epsilons, runs, limit = ([8.0], 1, 600) if arguments.toy else (arguments.epsilons, arguments.runs, None)
        rows = kept(arguments, "private_columns")
        for task, source in sources.items():
            if source is None or not source.exists():
                print(
                    f"skipped: {task} is not here ({source or 'no file given'}); it may not be shipped with the package"
                )
                continue
            with tempfile.TemporaryDirectory() as folder:
                path = derived(task, source, Path(folder), limit)
                rows = [row for row in rows if row["task"] != task]
                rows += measure(task, path, epsilons, runs, arguments.toy, arguments.aggregator)
        tables = {
            task: {
                kind: table(
                    [row for row in rows if (row["task"], row["kind"]) == (task, kind)],
                    lambda row: row["epsilon_target"],
                    ("auc", "pooled_accuracy", "calibration_error"),
                )
                for kind in dict.fromkeys(row["kind"] for row in rows if row["task"] == task)
            }
            for task in dict.fromkeys(row["task"] for row in rows)
        }
        save("private_columns", arguments, {"rows": rows, "tables": tables, "largest_site": LARGEST_SITE})
    result = load("private_columns", arguments)
    lines = {f"{task}, {kind}": rows for task, own in result["tables"].items() for kind, rows in own.items()}
    curve(
        arguments.out / "figures" / "private_columns.png",
        {name: rows for name, rows in lines.items() if rows[0]["epsilon"] is not None},
        "auc",
        heading="Ranges and levels of a table: privately released or read from the records",
        ylabel="AUC, test records pooled",
        xlabel="epsilon for everything released, delta 1e-4, unit: one record",
    )
    for name, rows in lines.items():
        for row in rows:
            print(name, row)


if __name__ == "__main__":
    main()
