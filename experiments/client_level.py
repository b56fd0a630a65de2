"""The whole hospital as the privacy unit: mortality in 186 hospitals with intensive care units, and death within a year in 67 dialysis centres.

    python experiments/client_level.py [--eicu eicu.csv.gz] [--dialysis dialysis.csv.gz] [--search [rule]] [--runs 3] [--toy]

Federated averaging of logistic regression, with every client in every round; everything that a hospital contributes is protected at once, and one
hospital may collude. Features are scaled by public bounds, so only the updates are released. Rounds, clip and local steps follow from public numbers
(`federated.client_recipe`); the training without privacy takes the best of three candidates on folds of the training records. --search tries those again on
the folds, beside the rule and three candidates with privacy at epsilon 3 (--search rule: the rule alone); epsilon does not cover what it reads. --simulate
compares the rule with those candidates at every epsilon in a minute: on two folds, with Gaussian noise in place of the embedding.

The cost, stated plainly: the noise that hides a hospital is as large as one hospital's clipped update, whatever the hospital's size, so it averages out
over hospitals and not over records. With tens or hundreds of hospitals this is affordable only for models with few parameters (38 and 7 here; the norm of
the noise grows with the square root of their number), and at a delta that is large in absolute terms (1e-3). No record-level statement follows for a
patient of two hospitals. AUC is the score to look at: few patients die, and models of this kind predict survival for nearly everyone, private or not.
"""

from __future__ import annotations

import functools
import math
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import NONPRIVATE, best, curve, kept, load, parser, save, say, table, training_fold

from fedjax_poisson import accounting, aggregation, data, federated, models, randomness
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
    epochs: int = 5,
    bounded: bool = True,
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
            coordinate_bound=clip_norm / 2 if bounded else None,
        )
        bound = mechanism.count_bound(clients, size)
        stream = randomness.stream()
        aggregator = aggregation.aggregator("round", count_bound=bound, senders=clients, size=size, stream=stream)
    algorithm = federated.fedavg(
        models.logistic(),
        client=federated.local_sgd(learning_rate, epochs=epochs),
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


def by_rule(sites: data.Sites, epsilon: float) -> dict[str, Any]:
    """The settings that follow from public numbers."""
    found = federated.client_recipe(
        clients=len(sites.site_names), features=sites.features.shape[1], epsilon=epsilon, delta=DELTA
    )
    names = ("rounds", "learning_rate", "clip_norm", "epochs")
    return {**{name: getattr(found, name) for name in names}, "bounded": False}


@functools.partial(jax.jit, static_argnames=("rounds",))
def simulated(
    x: jax.Array, y: jax.Array, mask: jax.Array, key: jax.Array, settings: dict[str, jax.Array], *, rounds: int
) -> jax.Array:
    """Weights `[F + 1]` of federated averaging on `[N, n, F + 1]` with Gaussian noise of `settings["noise"]` on each round's mean update."""
    counts = jnp.maximum(mask.sum(axis=1), 1)

    def update(weights: jax.Array, x: jax.Array, y: jax.Array, mask: jax.Array, count: jax.Array) -> jax.Array:
        def step(_: int, own: jax.Array) -> jax.Array:
            return own - settings["learning_rate"] * (x.T @ ((jax.nn.sigmoid(x @ own) - y) * mask)) / count

        change = jax.lax.fori_loop(0, settings["epochs"], step, weights) - weights
        short = jnp.minimum(1.0, settings["clip_norm"] / jnp.maximum(jnp.linalg.norm(change), 1e-9))
        return jnp.where(mask.any(), change * short, 0.0)

    def one_round(state: tuple[jax.Array, jax.Array], number: jax.Array) -> tuple[Any, jax.Array]:
        weights, key = state
        key, own = jax.random.split(key)
        mean = jnp.mean(jax.vmap(update, (None, 0, 0, 0, 0))(weights, x, y, mask, counts), axis=0)
        weights = weights + mean + settings["noise"] * jax.random.normal(own, weights.shape)
        return (weights, key), weights

    found = jax.lax.scan(one_round, (jnp.zeros(x.shape[-1]), key), jnp.arange(rounds))[1]
    return jnp.mean(found[rounds // 2 :], axis=0)


def simulate(task: str, sites: data.Sites, budgets: list[float]) -> list[dict[str, Any]]:
    """AUC of the rule and of the candidates of the search on two folds of the training records, two draws of the noise each."""
    scaler, rows = standardize.bounds_scaler(sites.feature_bounds, 1.0), []
    clients = len(sites.site_names)

    def records(sites: data.Sites, train: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        part = data.padded(sites, train=train)
        x = np.asarray(standardize.standardize(scaler, part.features))
        return np.concatenate([x, np.ones((*x.shape[:2], 1))], axis=-1).astype(np.float32), part.labels, part.mask

    folds = [
        [records(part, side) for side in (True, False)] for part in (training_fold(sites, k, FOLDS) for k in (0, 1))
    ]
    for epsilon in budgets:
        mu = math.sqrt(accounting.variance_budget(epsilon, DELTA).total)
        for candidate in [by_rule(sites, epsilon), *CANDIDATES["private"]]:
            rounds, clip = candidate["rounds"], candidate["clip_norm"]
            settings = {
                "learning_rate": candidate["learning_rate"],
                "clip_norm": clip,
                "epochs": candidate.get("epochs", 5),
            }
            settings["noise"] = clip * math.sqrt(rounds * clients / (clients - 1)) / (clients * mu)
            areas = []
            for (x, y, mask), (rest, labels, kept_out) in folds:
                for seed in range(2):
                    arrays = (jnp.asarray(x), jnp.asarray(y, jnp.float32), jnp.asarray(mask), jax.random.key(seed))
                    weights = np.asarray(simulated(*arrays, settings, rounds=rounds))
                    areas.append(evaluation.auc(labels[kept_out], rest[kept_out] @ weights))
            rule = "epochs" in candidate
            rows.append(
                {"task": task, "epsilon": epsilon, "rule": rule, "candidate": candidate, "auc": float(np.mean(areas))}
            )
            print(
                f"{task}, epsilon {epsilon:g}, {'rule' if rule else candidate}: AUC {rows[-1]['auc']:.4f}", flush=True
            )
    return rows


def search(task: str, sites: data.Sites, toy: bool, which: str) -> list[dict[str, Any]]:
    """The rule, and every candidate, on folds of the training records."""
    rows = []
    for number in range(1 if toy else FOLDS):
        part = training_fold(sites, number, FOLDS)
        tried = {"rule": [by_rule(part, SEARCH_EPSILON)], **(CANDIDATES if which == "all" else {})}
        for kind, candidates in tried.items():
            for candidate in candidates[: 1 if toy else None]:
                scores = one(part, None if kind == NONPRIVATE else SEARCH_EPSILON, **candidate)
                rows.append({"task": task, "kind": kind, "fold": number, "candidate": candidate, **scores})
                say(rows[-1], "task", "fold", "candidate")
    return rows


def measure(
    task: str, sites: data.Sites, budgets: list[float], runs: int, toy: bool, found: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Run the rule's settings, and without privacy the chosen ones, on the test records."""
    rows = []
    for epsilon in [*budgets, None]:
        if epsilon is None:
            settings = best([row for row in found if (row["task"], row["kind"]) == (task, NONPRIVATE)])
        else:
            settings = by_rule(sites, epsilon)
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
    options.add_argument(
        "--search",
        nargs="?",
        const="all",
        choices=("all", "rule"),
        help="try settings again on folds of the training set",
    )
    options.add_argument("--simulate", action="store_true", help="only compare the rule with the candidates on folds")
    arguments = options.parse_args(argv)
    if arguments.simulate:
        there = sources(arguments.eicu, arguments.dialysis)
        rows = [row for task, sites in there.items() for row in simulate(task, sites, arguments.epsilons)]
        save("client_level_folds", arguments, {"rows": rows, "delta": DELTA})
        return
    if not arguments.draw:
        there = sources(arguments.eicu, arguments.dialysis)
        if not there:
            return
        found, rows = (kept(arguments, name) for name in ("client_level_search", "client_level"))
        size = ([8.0], 1) if arguments.toy else (arguments.epsilons, arguments.runs)
        for task, sites in there.items():
            if arguments.search or arguments.toy:
                which = arguments.search or "all"
                found = [row for row in found if row["task"] != task or (which == "rule" and row["kind"] != "rule")]
                found += search(task, sites, arguments.toy, which)
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
            "tuning": "private settings follow from public numbers; those without privacy were chosen on folds of the training records",
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
