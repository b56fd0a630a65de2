"""The whole hospital as the privacy unit: mortality in 186 intensive care units' hospitals, and death within a year in 67 dialysis centres.

    python experiments/client_level.py [--eicu eicu.csv.gz] [--dialysis dialysis.csv.gz] [--runs 3] [--toy]

Federated averaging of logistic regression, every client in every round, everything that a hospital contributes protected at once, one hospital
may collude. Features are scaled by public bounds, so that nothing but the updates is released. Settings are fixed here and not tuned.

What it costs, honestly: the noise that hides a hospital is as large as one hospital's clipped update, whatever its size, so it averages out over
hospitals and not over records. With tens or hundreds of them that is affordable for models of few parameters only (7 and 38 here; the noise's
length grows with the root of their number), at a delta that is large as such (1e-3). The few, short rounds that such a budget is spent on leave
the model below what pooled training reaches, with or without privacy; no record-level statement follows for a patient of two hospitals.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from common import curve, load, parser, save, say, table

from fedjax_poisson import accounting, ckks, data, federated, models, randomness
from fedjax_poisson.experiment import evaluate
from fedjax_poisson.federated import standardize
from fedjax_poisson.mechanisms import poisson_embedding

ROUNDS, CLIP, DELTA, MODULATION = 15, 0.5, 1e-3, 0.05


def sources(eicu: str | None, dialysis: str | None) -> dict[str, data.Sites]:
    """The data sets that are there; what is not is said."""
    found = {}
    for name, path in (("eICU, mortality", eicu), ("Dialysis, death within 12 months", dialysis)):
        if path is None or not Path(path).exists():
            print(f"skipped: {name} is not here ({path or 'no file given'}); it may not be shipped with the package")
        elif name.startswith("eICU"):
            found[name] = data.from_eicu(path, min_site_records=2)
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


def one(sites: data.Sites, epsilon: float | None, rounds: int, seed: int) -> dict[str, Any]:
    """Train once; scores on the test records of all clients pooled."""
    started = time.perf_counter()
    scaler = standardize.bounds_scaler(sites.feature_bounds, 1.0)
    train, test = data.padded(sites, train=True), data.padded(sites, train=False)
    population = federated.make_population(
        np.asarray(standardize.standardize(scaler, train.features)), train.labels.astype(np.float32), train.mask
    )
    clients, size = len(sites.site_names), sites.features.shape[1] + 1
    mechanism = aggregator = None
    if epsilon is not None:
        dark = accounting.calibrate_dark_count(
            epsilon=epsilon,
            delta=DELTA,
            rounds=rounds,
            modulation=MODULATION,
            honest_senders=clients - 1,
            norm_ratio=2.0,
            dimension=size,
        )
        mechanism = poisson_embedding(clip_norm=CLIP, coordinate_bound=CLIP / 2, dark_count=dark, modulation=MODULATION)
        bound = mechanism.count_bound(clients, size)
        stream = randomness.stream()
        aggregator = ckks.aggregator("device", count_bound=bound, senders=clients, size=size, stream=stream)
    algorithm = federated.fedavg(
        models.logistic(),
        client=federated.local_sgd(0.3, epochs=5),
        population=population,
        senders=clients,
        server_optimizer=optax.sgd(1.0),
        mechanism=mechanism,
        aggregator=aggregator,
        average_from=rounds // 2,
    )
    root, state = randomness.stream(), algorithm.init(jax.random.key(seed))
    for number in range(rounds):
        state, _ = algorithm.apply(state, np.arange(clients), randomness.fold_in(root, "round", number))
    params = algorithm.parameters(state)
    x = standardize.standardize(scaler, test.features)
    logits = np.asarray(jax.vmap(lambda own: models.logistic().apply(params, own))(x))
    scores = evaluate.all_scores(logits[test.mask], test.labels[test.mask])
    return {
        "epsilon_target": epsilon,
        "epsilon": None if epsilon is None else epsilon,
        "clients": clients,
        "dimension": size,
        "seconds": time.perf_counter() - started,
        "auc": scores["auc"],
        "pooled_accuracy": scores["accuracy"],
        "balanced_accuracy": scores["balanced_accuracy"],
        "calibration_error": scores["calibration_error"],
    }


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--eicu", help="one CSV that joins the demo's APACHE tables, or its folder")
    options.add_argument("--dialysis", help="the Dialysis CSV of the R package RcmdrPlugin.survival, as in SurvSet")
    options.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 3.0, 8.0, 30.0])
    arguments = options.parse_args(argv)
    if not arguments.draw:
        found = sources(arguments.eicu, arguments.dialysis)
        if not found:
            return
        budgets, runs, rounds = ([8.0], 1, 1) if arguments.toy else (arguments.epsilons, arguments.runs, ROUNDS)
        rows = []
        for task, sites in found.items():
            for epsilon in [*budgets, None]:
                for number in range(runs):
                    rows.append({"task": task, "run": number, **one(sites, epsilon, rounds, number)})
                    say(rows[-1], "task", "run")
        scores = ("auc", "pooled_accuracy", "balanced_accuracy")
        config = {"rounds": rounds, "clip_norm": CLIP, "delta": DELTA, "modulation": MODULATION, "unit": "client"}
        tables = {
            task: table([r for r in rows if r["task"] == task], lambda r: r["epsilon_target"], scores) for task in found
        }
        save("client_level", arguments, {"config": config, "tuning": "none", "rows": rows, "tables": tables})
    result = load("client_level", arguments)
    curve(
        arguments.out / "figures" / "client_level.png",
        result["tables"],
        "auc",
        heading="The hospital as the privacy unit: what it costs",
        ylabel="AUC, test records pooled",
        xlabel=f"epsilon for everything released, delta {result['config']['delta']:g}, unit: one hospital",
    )
    for task, rows in result["tables"].items():
        for row in rows:
            print(task, row)


if __name__ == "__main__":
    main()
