"""The automatic recipe on every table at hand: AUC against epsilon, beside logistic regression in the clear and chance.

    python experiments/tables.py [--folder DATA] [--runs 10] [--epsilons 1 3 8] [--only heart thyroid] [--toy]

Nothing is tuned here or read from test records: each run is `fedjax-poisson run` as it comes, with the sites of the table. The model in the clear is
logistic regression on the same encoding and the same split, standardised by exact moments, with an L2 penalty of one record (scikit-learn's default),
fitted by Newton's method. Sums are added in the clear unless --aggregator says otherwise: encryption changes no bit (layers.py). heart and thyroid ship
with the package, the other tables are read from --folder and skipped if they are not there. The constants of the rule were chosen in a simulation on
tables that include these (`runs.training_recipe`), which flatters the results a little.
"""

from __future__ import annotations

import csv
import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import COLOURS, kept, load, panels_of, parser, private_row, save, say, subset, table

from fedjax_poisson import data
from fedjax_poisson.federated import evaluation, reference, standardize
from fedjax_poisson.federated.device_records import records_of
from fedjax_poisson.reports.plotting import PLAIN
from fedjax_poisson.runs.config import Config

LEAKY = ("num_surv2m", "num_surv6m", "fac_dnr", "fac_sfdm2", "num_sps")
THREE_YEARS = 1095.0


def unpacked(source: Path, folder: Path, keep: Callable[[dict[str, str]], dict[str, str] | None]) -> Path:
    """The rows of a packed CSV file that `keep` returns, as a plain CSV file."""
    with gzip.open(source, "rt", encoding="utf-8", newline="") as file:
        rows = [row for each in csv.DictReader(file) if (row := keep(each)) is not None]
    path = folder / source.name.removesuffix(".gz")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def without(row: dict[str, str], *names: str) -> dict[str, str]:
    """A row less some columns."""
    return {name: value for name, value in row.items() if name not in names}


def support2(source: Path, folder: Path) -> data.Sites:
    """SUPPORT2 with the disease group as the site: any death, with all columns."""
    path = unpacked(source, folder, lambda row: without(row, "pid", "time"))
    return data.from_csv(path, label="event", site="fac_dzgroup", categorical="from_data", min_site_records=1)


def support2_within(source: Path, folder: Path, days: int) -> data.Sites:
    """The same: death within so many days, without the columns that leak it."""

    def keep(row: dict[str, str]) -> dict[str, str] | None:
        dead = int(row["event"] == "1" and float(row["time"]) <= days)
        return without(row, "pid", "time", "event", *LEAKY) | {"dead": str(dead)}

    path = unpacked(source, folder, keep)
    return data.from_csv(path, label="dead", site="fac_dzgroup", categorical="from_data", min_site_records=1)


def dialysis(source: Path, folder: Path) -> data.Sites:
    """Death within 12 months in 67 dialysis centres.

    The month in which a patient began is left out: of those who began late only the dead have a known outcome.
    """
    return data.from_survival_csv(
        source,
        time="time",
        event="event",
        site="fac_center",
        horizon=12,
        drop=("pid", "num_begin"),
        categorical={"fac_disease": ["hypert", "diabetes", "renal", "congen", "other"]},
        bounds={"num_age": (0, 110)},
        min_site_records=2,
    ).sites


def breast_cancer(source: Path, folder: Path) -> data.Sites:
    """Death within three years of breast cancer (TCGA), the region of the tissue as the site."""
    with gzip.open(source.with_name("tcga_brca_flamby_split.csv.gz"), "rt", encoding="utf-8", newline="") as file:
        region = {row["pid"]: row["fold2"].rsplit("_", 1)[1] for row in csv.DictReader(file)}

    def keep(row: dict[str, str]) -> dict[str, str] | None:
        dead = float(row["E"]) == 1 and float(row["T"]) <= THREE_YEARS
        if row["pid"] not in region or (not dead and float(row["T"]) < THREE_YEARS):
            return None
        return without(row, "pid", "E", "T") | {"region": f"region {region[row['pid']]}", "dead": str(int(dead))}

    return data.from_csv(unpacked(source, folder, keep), label="dead", site="region", min_site_records=1)


TABLES: dict[str, tuple[str | None, Callable[[Path, Path], data.Sites]]] = {
    "heart": (None, lambda source, folder: data.load("heart")),
    "thyroid": (None, lambda source, folder: data.load("thyroid")),
    "SUPPORT2, 180 days": ("support2.csv.gz", lambda source, folder: support2_within(source, folder, 180)),
    "SUPPORT2, any death": ("support2.csv.gz", support2),
    "dialysis": ("dialysis.csv.gz", dialysis),
    "eICU by region": (
        "eicu_demo_apache.csv.gz",
        lambda source, folder: data.from_eicu(source, site="region", sites_per_patient=2),
    ),
    "TCGA-BRCA": ("tcga_brca_flamby.csv.gz", breast_cancer),
}


def in_the_clear(sites: data.Sites) -> float:
    """Test AUC of logistic regression on exactly standardised features, fitted by Newton's method."""
    train, test = records_of(sites, True), records_of(sites, False)
    scaler = reference.exact_scaler(train, sites.feature_bounds, sites.binary)
    (x, y), (rows, labels) = (
        (
            np.asarray(standardize.standardize(scaler, part.features), float)[np.asarray(part.mask)],
            np.asarray(part.labels)[np.asarray(part.mask)],
        )
        for part in (train, test)
    )
    x, rows = (np.column_stack([part, np.ones(len(part))]) for part in (x, rows))
    penalty = np.diag([1.0] * (x.shape[1] - 1) + [0.0])
    weights = np.zeros(x.shape[1])
    for _ in range(30):
        chance = 1 / (1 + np.exp(-x @ weights))
        curvature = (x * (chance * (1 - chance))[:, None]).T @ x + penalty
        weights -= np.linalg.solve(curvature, x.T @ (chance - y) + penalty @ weights)
    logits = (rows @ weights).astype(np.float32)
    found = evaluation.scores(logits[None], labels[None].astype(np.int64), np.ones((1, len(labels)), bool), ("all",))
    return float(found["auc"])


def measure(name: str, sites: data.Sites, epsilons: list[float], runs: int, aggregator: Any, toy: bool) -> list[Any]:
    """The rows of one table."""
    clear = in_the_clear(sites)
    rows = []
    for epsilon in epsilons:
        config = Config(epsilon=epsilon, aggregator=aggregator, yardstick=False, rounds=2 if toy else None)
        for number in range(runs):
            row = private_row(config, sites, task=name, run=number, clear=clear, units=int(sites.train.sum()))
            rows.append(row)
            say(row, "task", "run", "clear")
    return rows


def draw(path: Path, result: dict[str, Any]) -> None:
    """AUC against epsilon, one panel a table: the model in the clear as a line, chance as a line."""
    figure, panels = panels_of(list(result["tables"]))
    for name, panel in panels:
        rows = result["tables"][name]
        x = [row["epsilon"] for row in rows]
        bars = [1.96 * (row["auc_error"] or 0.0) for row in rows]
        panel.errorbar(
            x, [row["auc"] for row in rows], yerr=bars, marker="o", color=COLOURS[0], linewidth=2.2, capsize=3
        )
        panel.axhline(result["clear"][name], color=PLAIN, linestyle="--", linewidth=1.4)
        panel.axhline(0.5, color=PLAIN, linestyle=":", linewidth=1.2)
        panel.annotate(
            "in the clear",
            (x[-1], result["clear"][name]),
            (0, -12),
            textcoords="offset points",
            color=PLAIN,
            ha="right",
        )
        panel.annotate("chance", (x[0], 0.5), (0, 3), textcoords="offset points", color=PLAIN)
        panel.set_xscale("log")
        panel.set_xticks(x, [f"{each:g}" for each in x])
        panel.minorticks_off()
        panel.set_ylim(0.46, 1.0)
        panel.set_title(f"{name}\n{result['units'][name]:,} training records", fontsize=11, loc="left")
    figure.supxlabel("epsilon for everything released, delta 1e-4, unit: one record or patient", fontsize=10)
    figure.supylabel("AUC, test records pooled", fontsize=10)
    figure.savefig(path)


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, runs=10)
    options.add_argument("--folder", type=Path, help="folder of the tables that do not ship with the package")
    options.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 3.0, 8.0])
    options.add_argument(
        "--only", nargs="+", choices=list(TABLES), help="some of the tables; the rows of the others are kept"
    )
    options.add_argument("--aggregator", choices=("plain", "round"), default="plain")
    arguments = options.parse_args(argv)
    if not arguments.draw:
        rows = kept(arguments, "tables")
        epsilons, runs = ([3.0], 1) if arguments.toy else (arguments.epsilons, arguments.runs)
        for name in arguments.only or (("heart",) if arguments.toy else TABLES):
            file, read = TABLES[name]
            source = Path(file or ".") if arguments.folder is None or file is None else arguments.folder / file
            if file is not None and not source.is_file():
                print(f"skipped: {name} is not here ({source}); it may not be shipped with the package")
                continue
            with tempfile.TemporaryDirectory() as folder:
                sites = read(source, Path(folder))
            if arguments.toy:
                sites = subset(sites, np.arange(len(sites.labels)) % 4 == 0)
            rows = [row for row in rows if row["task"] != name]
            rows += measure(name, sites, epsilons, runs, arguments.aggregator, arguments.toy)
            order = {known: place for place, known in enumerate(TABLES)}
            rows.sort(key=lambda row: order[row["task"]])
            own = {
                task: [row for row in rows if row["task"] == task]
                for task in dict.fromkeys(row["task"] for row in rows)
            }
            save(
                "tables",
                arguments,
                {
                    "rows": rows,
                    "tables": {
                        task: table(found, lambda row: row["epsilon_target"], ("auc", "pooled_accuracy"))
                        for task, found in own.items()
                    },
                    "clear": {task: found[0]["clear"] for task, found in own.items()},
                    "units": {task: found[0]["units"] for task, found in own.items()},
                },
            )
    result = load("tables", arguments)
    draw(arguments.out / "figures" / "tables.png", result)
    for name, found in result["tables"].items():
        print(f"{name} ({result['units'][name]} training records): in the clear {result['clear'][name]:.4f}")
        for row in found:
            print(f"  epsilon {row['epsilon']:g}: {row['auc']:.4f} +- {1.96 * (row['auc_error'] or 0):.4f}")


if __name__ == "__main__":
    main()
