"""One's own table with nothing declared: what private ranges and levels cost in AUC, the total epsilon being the same.

    python experiments/private_columns.py [--support2 FILE] [--thyroid FILE] [--runs 5] [--epsilons 1 3 8] [--shares .1,.05 ...] [--toy]

SUPPORT2 (9,105 patients, disease group as the site, death within 180 days; 22 numbers, 2 flags, 5 text columns) and the Garavan
thyroid records (9,172, referral source as the site, any condition; 7 numbers, 20 flags, 1 text column) are read as a user's CSV would
be. "from the records" looks ranges, stand-ins and levels up in the training records, which no epsilon covers; "private" spends a part
of the same epsilon on two histograms. Without privacy: the first, without clip and noise. Sums are added in the clear unless
--aggregator says otherwise: encryption changes no bit (layers.py). The training settings are those of the thyroid recipe for both;
nothing is chosen here. Public in both: labels, sites, kinds of columns and the bound of 4,096 records a site. The shares of the
histograms and the rules that read them were chosen on these two tables, on their test records, with a model that is not private: the
difference between the two kinds may be flattered by that.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import tempfile
from pathlib import Path
from typing import Any

from common import curve, kept, load, nonprivate_row, parser, private_row, save, say, table

from fedjax_poisson import accounting, ckks, data
from fedjax_poisson.data.open_table import OpenTable, encode_sites, read_open
from fedjax_poisson.experiment.columns import RANGES_SHARE, REFINE_SHARE, ColumnPlan, plan_columns, release_columns
from fedjax_poisson.experiment.config import Config
from fedjax_poisson.experiment.plan import make_plan
from fedjax_poisson.federated import standardize
from fedjax_poisson.randomness import fold_in, stream

LARGEST_SITE, FROM_DATA = 4096, "from the records (not covered)"
LEAKY = {"pid", "event", "time", "num_surv2m", "num_surv6m", "fac_dnr", "fac_sfdm2", "num_sps"}
COLUMNS = {"SUPPORT2": ("dead_180", "fac_dzgroup"), "thyroid": ("ill", "referral_source")}


def derived(task: str, source: Path, folder: Path, limit: int | None) -> Path:
    """The task's table as a plain CSV: the label made, what leaks it or names the record left out."""
    with gzip.open(source, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows = rows[:: max(len(rows) // limit, 1)] if limit else rows
    if task == "SUPPORT2":
        names = [name for name in rows[0] if name not in LEAKY]
        labels = [int(row["event"] == "1" and float(row["time"]) <= 180) for row in rows]
    else:
        names = [name for name in rows[0] if name not in ("target", "patient_id")]
        labels = [int(row["target"] != "-") for row in rows]
    path = folder / f"{task}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, COLUMNS[task][0]])
        writer.writerows([*(row[name] for name in names), label] for row, label in zip(rows, labels, strict=True))
    return path


def plan_of(config: Config, sites: data.Sites) -> Any:
    """The plan of a run on encoded records."""
    return make_plan(
        config,
        senders=len(sites.site_names),
        dimension=sites.features.shape[1] + 1,
        moment_dimension=standardize.moment_dimension(sites.binary),
        largest_site=LARGEST_SITE,
    )


def columns_plan(config: Config, opened: OpenTable, shares: tuple[float, float]) -> ColumnPlan:
    senders = len(opened.layout.site_names)
    return plan_columns(
        numbers=len(opened.schema.named("open_number")),
        texts=len(opened.schema.named("open_text")),
        senders=senders,
        honest_senders=senders - 1,
        largest_site=LARGEST_SITE,
        epsilon=config.epsilon,
        delta=config.delta * (1 - 1e-3),  # far more than the samplers take
        orders=accounting.integer_orders(256),
        modulation=config.modulation,
        ranges_share=shares[0],
        refine_share=shares[1],
    )


def remaining_epsilon(config: Config, sites: data.Sites, spent: ColumnPlan) -> float:
    """The largest epsilon of a run that costs, with the histograms and composed on one curve, what the configuration allows."""
    low, high = 0.3 * config.epsilon, config.epsilon
    while high - low > 2e-3 * config.epsilon:
        middle = (low + high) / 2
        plan = plan_of(dataclasses.replace(config, epsilon=middle), sites)
        whole = plan.standardize_rdp + plan.rounds * plan.train_rdp + spent.rdp(plan.orders)
        total = accounting.epsilon(plan.orders, whole, plan.accounted_delta)
        low, high = (middle, high) if total <= config.epsilon else (low, middle)
    return low


def released_sites(config: Config, opened: OpenTable, plan: ColumnPlan) -> data.Sites:
    """The table encoded by one release of its ranges and levels, noise and keys from the operating system."""
    senders, root = len(opened.layout.site_names), stream()
    released = release_columns(
        opened,
        plan,
        charge=lambda purpose, number, mechanism, rdp: (lambda: None, fold_in(root, purpose, number)),
        aggregator=lambda mechanism, size, purpose: ckks.aggregator(
            config.aggregator,
            count_bound=mechanism.count_bound(senders, size),
            senders=senders,
            minimum_senders=senders,
            size=size,
            stream=fold_in(root, "keys", purpose),
        ),
    )
    return encode_sites(opened, released)


def measure(
    task: str,
    path: Path,
    epsilons: list[float],
    runs: int,
    shares: list[tuple[float, float]],
    toy: bool,
    aggregator: Any,
) -> list[dict[str, Any]]:
    """Rows of one task: from the records, private for each pair of shares, and without privacy."""
    label, site = COLUMNS[task]
    opened = read_open(path, label=label, site=site)
    plain = data.from_csv(path, label=label, site=site, categorical="from_data", min_site_records=1)
    settings: dict[str, Any] = {"rounds": 2 if toy else 60, "sampling_rate": 0.2, "learning_rate": 3.0}
    settings |= {"yardstick": False, "largest_site": LARGEST_SITE, "aggregator": aggregator}
    base = Config(csv=str(path), label=label, site=site, **settings)
    rows = []
    for epsilon in epsilons:
        config = dataclasses.replace(base, epsilon=epsilon)
        for number in range(runs):
            rows.append(private_row(config, plain, task=task, kind=FROM_DATA, run=number))
            say(rows[-1], "task", "kind", "run")
        for pair in shares:
            plan, left = columns_plan(config, opened, pair), None
            for number in range(runs):
                sites = released_sites(config, opened, plan)
                left = remaining_epsilon(config, sites, plan) if left is None else left
                row = private_row(dataclasses.replace(config, epsilon=left), sites, task=task, run=number)
                kind = f"private, shares {pair[0]:g} and {pair[1]:g}"
                features = list(sites.feature_names)
                rows.append(
                    {
                        **row,
                        "kind": kind,
                        "epsilon_target": epsilon,
                        "epsilon_of_the_rest": left,
                        "features": len(features),
                    }
                )
                say(rows[-1], "task", "kind", "run")
    for number in range(runs):
        rows.append(nonprivate_row(base, plain, seed=number, task=task, kind="from the records", run=number))
        say(rows[-1], "task", "kind", "run")
    return rows


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, runs=5)
    options.add_argument("--support2", type=Path, help="support2.csv.gz")
    options.add_argument("--thyroid", type=Path, help="thyroid_garavan_9172.csv.gz; default: the shipped file")
    options.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 3.0, 8.0])
    options.add_argument(
        "--shares", nargs="+", default=[f"{RANGES_SHARE},{REFINE_SHARE}"], help="shares of the two histograms: A,B"
    )
    options.add_argument("--aggregator", choices=("plain", "device"), default="plain")
    arguments = options.parse_args(argv)
    if not arguments.draw:
        shipped = Path(data.__file__).parent / "files" / "thyroid.csv.gz"
        sources = {"SUPPORT2": arguments.support2, "thyroid": arguments.thyroid or shipped}
        shares = [tuple(float(share) for share in pair.split(",")) for pair in arguments.shares]
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
                rows += measure(task, path, epsilons, runs, shares, arguments.toy, arguments.aggregator)
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
        heading="Ranges and levels of a table, released or read",
        ylabel="AUC, test records pooled",
        xlabel="epsilon for everything released, delta 1e-4, unit: one record",
    )
    for name, rows in lines.items():
        for row in rows:
            print(name, row)


if __name__ == "__main__":
    main()
