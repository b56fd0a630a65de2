"""The whole hospital as the privacy unit: mortality in 186 hospitals with intensive care units, and death within a year in 67 dialysis centres.

    python experiments/client_level.py [--eicu eicu.csv.gz] [--dialysis dialysis.csv.gz] [--search] [--runs 3] [--toy]

Federated averaging of logistic regression, with every client in every round; everything that a hospital contributes is protected at once, and one
hospital may collude. Features are scaled by public bounds, so only the updates are released. --search chooses rounds, step size and clip on
folds of the training records, from three candidates with privacy (at epsilon 3) and three without; epsilon does not cover it, it is declared instead.

The cost, stated plainly: the noise that hides a hospital is as large as one hospital's clipped update, whatever the hospital's size, so it averages out
over hospitals and not over records. With tens or hundreds of hospitals this is affordable only for models with few parameters (38 and 7 here; the norm of
the noise grows with the square root of their number), and at a delta that is large in absolute terms (1e-3). No record-level statement follows for a
patient of two hospitals. AUC is the score to look at: few patients die, and models of this kind predict survival for nearly everyone, private or not.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from common import NONPRIVATE, best, curve, kept, load, parser, save, say, table, training_fold

from fedjax_poisson import aggregation, data, federated, models, randomness
from fedjax_poisson.federated import evaluation, standardize

DELTA, SEARCH_EPSILON, FOLDS = 1e-3, 3.0, 4
CANDIDATES: dict[str, list[dict[str, Any]]] = {
    "private": [
        {"rounds": 5, "learning_rate": 0.3, "clip_norm": 0.5},
        {"rounds": 15, "learning_rate": 0.3, "clip_norm": 0.5},
        {"rounds": 15, "learning_rate": 1.0, "clip_norm": 1.0},
    ],
    NONPRIVATE: [
        {"rounds": 15, "learning_rate": 0.3},
        {"rounds": 60, "learning_rate": 0.3},
        {"rounds": 60, "learning_rate": 1.0},
    ],
}


def sources(eicu: str | None, dialysis: str | None) -> dict[str, data.Sites]:
    """The available data sets; missing ones are reported."""
    found = {}
    for name, path in (("eICU, mortality", eicu), ("Dialysis, death within 12 months", dialysis)):
        if path is None or not Path(path).exists():
            print(f"skipped: {name} is not here ({path or 'no file given'}); it may not be shipped with the package")
        elif name.startswith("eICU"):
            found[name] = data.from_eicu(path, min_site_records=2, sites_per_patient=2)  # the unit here is the hospital
        else:
            found[name] = data.from_survival_csv(
                path,
                time="time",
                event="event",
                site="fac_center",
                horizon=12,
                drop=("pid", "num_begin"),
                categorical={"fac_disease": ["hypert", "diabetes", "renal", "congen", "other"]},
                bounds={"num_age": (0, 110)},
                min_site_records=2,
            ).sites
    return found


def one(
    sites: data.Sites,
    epsilon: float | None,
    seed: int = 0,
    *,
    rounds: int,
    learning_rate: float,
    clip_norm: float | None = None,
) -> dict[str, Any]:
    """Train once; scores on the test records of all clients pooled. Without an epsilon nothing is clipped."""
    started = time.perf_counter()
    scaler = standardize.bounds_scaler(sites.feature_bounds, 1.0)
    train, test = data.padded(sites, train=True), data.padded(sites, train=False)
    population = federated.make_population(
        np.asarray(standardize.standardize(scaler, train.features)), train.labels.astype(np.float32), train.mask
    )
    clients, size = len(sites.site_names), sites.features.shape[1] + 1
    mechanism = aggregator = None
    ledger = None
    if epsilon is not None and clip_norm is not None:
        mechanism, ledger = federated.calibrate(
            epsilon=epsilon,
            delta=DELTA,
            rounds=rounds,
            senders=clients,
            dimension=size,
            unit="client",
            clip_norm=clip_norm,
            coordinate_bound=clip_norm / 2,
        )
        bound = mechanism.count_bound(clients, size)
        stream = randomness.stream()
        aggregator = aggregation.aggregator("round", count_bound=bound, senders=clients, size=size, stream=stream)
    algorithm = federated.fedavg(
        models.logistic(),
        client=federated.local_sgd(learning_rate, epochs=5),
        population=population,
        senders=clients,
        server_optimizer=optax.sgd(1.0),
        mechanism=mechanism,
        aggregator=aggregator,
        average_from=rounds // 2,
        ledger=ledger,
    )
    root, state = randomness.stream(), algorithm.init(jax.random.key(seed))
    for _ in range(rounds):
        state, _ = algorithm.apply(state, np.arange(clients), root)
    spent = None if ledger is None else ledger.epsilon()
    params = algorithm.parameters(state)
    x = standardize.standardize(scaler, test.features)
    logits = np.asarray(jax.vmap(lambda own: models.logistic().apply(params, own))(x))
    scores = evaluation.all_scores(logits[test.mask], test.labels[test.mask])
    return {
        "epsilon_target": epsilon,
        "epsilon": spent,
        "clients": clients,
        "dimension": size,
        "seconds": time.perf_counter() - started,
        "auc": scores["auc"],
        "pooled_accuracy": scores["accuracy"],
        "balanced_accuracy": scores["balanced_accuracy"],
        "calibration_error": scores["calibration_error"],
    }


def search(task: str, sites: data.Sites, toy: bool) -> list[dict[str, Any]]:
    """Every candidate on folds of the training records."""
    rows = []
    for number in range(1 if toy else FOLDS):
        part = training_fold(sites, number, FOLDS)
        for kind, candidates in CANDIDATES.items():
            for candidate in candidates[: 1 if toy else None]:
                scores = one(part, SEARCH_EPSILON if kind == "private" else None, **candidate)
                rows.append({"task": task, "kind": kind, "fold": number, "candidate": candidate, **scores})
                say(rows[-1], "task", "fold", "candidate")
    return rows


def measure(
    task: str, sites: data.Sites, budgets: list[float], runs: int, toy: bool, found: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Run the chosen settings on the test records."""
    rows = []
    for epsilon in [*budgets, None]:
        kind = NONPRIVATE if epsilon is None else "private"
        settings = best([row for row in found if (row["task"], row["kind"]) == (task, kind)])
        if toy:
            settings["rounds"] = 1
        for number in range(runs):
            scores = one(sites, epsilon, number, **settings)
            rows.append({"task": task, "run": number, "candidate": settings, **scores})
            say(rows[-1], "task", "run")
    return rows


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--eicu", help="one CSV that joins the demo's APACHE tables, or its folder")
    options.add_argument("--dialysis", help="the Dialysis CSV of the R package RcmdrPlugin.survival, as in SurvSet")
    options.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 3.0, 8.0])
    options.add_argument("--search", action="store_true", help="choose the settings again on folds of the training set")
    arguments = options.parse_args(argv)
    if not arguments.draw:
        there = sources(arguments.eicu, arguments.dialysis)
        if not there:
            return
        found, rows = (kept(arguments, name) for name in ("client_level_search", "client_level"))
        size = ([8.0], 1) if arguments.toy else (arguments.epsilons, arguments.runs)
        for task, sites in there.items():
            if arguments.search or arguments.toy:
                found = [row for row in found if row["task"] != task] + search(task, sites, arguments.toy)
                save("client_level_search", arguments, {"rows": found, "epsilon": SEARCH_EPSILON})
            rows = [row for row in rows if row["task"] != task]
            rows += measure(task, sites, *size, arguments.toy, found)
        scores = ("auc", "pooled_accuracy", "balanced_accuracy")
        tables = {
            task: table([r for r in rows if r["task"] == task], lambda r: r["epsilon_target"], scores)
            for task in dict.fromkeys(row["task"] for row in rows)
        }
        result = {
            "config": {"delta": DELTA, "unit": "client"},
            "tuning": "settings chosen on folds of the training records (results/client_level_search.json), not paid for in epsilon",
            "rows": rows,
            "tables": tables,
        }
        save("client_level", arguments, result)
    result = load("client_level", arguments)
    curve(
        arguments.out / "figures" / "client_level.png",
        result["tables"],
        "auc",
        heading="AUC with the hospital as the privacy unit",
        ylabel="AUC, test records pooled",
        xlabel=f"epsilon for everything released, delta {result['config']['delta']:g}, unit: one hospital",
    )
    for task, rows in result["tables"].items():
        for row in rows:
            print(task, row)


if __name__ == "__main__":
    main()
