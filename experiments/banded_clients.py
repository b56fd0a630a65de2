"""Fixed cohorts with banded noise against secret sampling: every record a client of its own, thyroid disease, logistic regression.

    python experiments/banded_clients.py [--runs 3] [--noise-runs 3] [--epsilons 1 3 8] [--options NAME ...] [--toy]

6,056 clients of one record, 50 fixed cohorts that take turns, 200 rounds, delta 1e-4, one client may collude. Every option of `federated.plan_cohorts` has the
same budget, kept by a ledger that refuses anything beyond it, and runs through `fedavg`: messages of all senders embedded, summed, opened and decoded
(without encryption, which changes no bit: tests). Measured are

* the noise alone: the same runs of clients without records, whose tail-averaged parameters are noise and nothing else;
* AUC on the test records, and the distance of the parameters to those of clipped gradient descent with all clients and no noise.

Features are scaled by public numbers (half of a range .35, binary .5), step, momentum and clip are fixed beforehand from public ones: nothing is tuned and
nothing but the sums is released. Fixed cohorts are charged to a tight ledger, sampling to a Renyi ledger, the only one that knows it; with --pld the errors
are also given over those of sampling accounted by privacy loss distributions, the best there is for it. With --beside only BandMF of jax_privacy is planned for
the same budgets (results/banded_jax_privacy.json). Both need the extra `compare`.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import optax
from common import curve, load, parser, save

from fedjax_poisson import data, federated, models, randomness
from fedjax_poisson.federated import cohort_plan, evaluation, standardize
from fedjax_poisson.federated.banding import banding, decoded_weights

ROUNDS, COHORTS, DELTA, MOMENTUM, STEP = 200, 50, 1e-4, 0.9, 0.15
OPTIONS: dict[str, federated.Banding] = {
    "participation cap": banding(1),
    "band 4": banding(4, 0.75),
    "band 50": banding(50, 0.75),
    "band 50, square root": banding(50, 0.5),
}
POWERS = (0.5, 0.6, 0.75, 0.9, 1.0)
OTHERS = ("secret sampling", "everybody")


def scaled() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features float32 `[n, F]` in public units, labels and who is in the training part."""
    sites = data.load("thyroid")
    relative = np.asarray(
        standardize.relative(np.asarray(sites.features), np.asarray(sites.feature_bounds), np.asarray(sites.binary))
    )
    return (
        (relative / np.where(sites.binary, 0.5, 0.35)).astype(np.float32),
        np.asarray(sites.labels, np.float32),
        np.asarray(sites.train),
    )


def clipped_descent(x: np.ndarray, y: np.ndarray, clip: float, rounds: int) -> np.ndarray:
    """Tail-averaged parameters (bias, weights) of clipped gradient descent with all records, float64."""
    rows = np.concatenate([np.ones((len(x), 1)), x], axis=1).astype(np.float64)
    w, velocity, mean = np.zeros(rows.shape[1]), np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    for number in range(rounds):
        gradients = (1 / (1 + np.exp(-rows @ w)) - y)[:, None] * rows
        norms = np.linalg.norm(gradients, axis=1, keepdims=True)
        velocity = MOMENTUM * velocity + (gradients * np.minimum(1, clip / np.maximum(norms, 1e-12))).mean(axis=0)
        w = w - STEP * velocity
        if number >= rounds // 2:
            mean += w / (rounds - rounds // 2)
    return mean


def plan_for(
    fixed: federated.FixedCohorts, epsilon: float, dimension: int, rounds: int, sampled_law: str = "renyi"
) -> federated.CohortPlan:
    own = [each for each in OPTIONS.values() if each.band <= fixed.cohorts]
    return federated.plan_cohorts(
        fixed,
        epsilon=epsilon,
        delta=DELTA,
        rounds=rounds,
        dimension=dimension,
        clip_norm=clip_of(dimension),
        weights=federated.parameter_weights(rounds, MOMENTUM, rounds // 2),
        bands=own,
        sampled_law=sampled_law,  # type: ignore[arg-type]
    )


def clip_of(dimension: int) -> float:
    """.6 sqrt(D): a typical gradient at the start."""
    return float(0.6 * np.sqrt(dimension))


def named(plan: federated.CohortPlan) -> dict[str, cohort_plan.Option]:
    """The plan's options under the names of this script."""
    names = [name for name, each in OPTIONS.items() if each.band <= plan.cohorts.cohorts]
    return dict(zip([*names, *OTHERS], plan.options, strict=True))


def train(
    plan: federated.CohortPlan, option: cohort_plan.Option, population: federated.Population, rounds: int, runs: int
) -> list[dict[str, Any]]:
    """Runs to the end of a budget of their own: flat parameters, epsilon, seconds."""
    algorithm = federated.fedavg(
        models.logistic(),
        client=federated.local_sgd(1.0),  # one record, one step: the update is minus its gradient
        population=population,
        server_optimizer=optax.sgd(STEP, momentum=MOMENTUM),
        average_from=rounds // 2,
        layout=federated.Chunking(chunk=2000),
        fidelity="messages",  # fixed cohorts have no other; seconds are compared
        **option.arguments(plan.cohorts),
    )
    cohorts = plan.cohorts if option.kind == "fixed" else population
    found = []
    for _ in range(runs):
        started = time.perf_counter()
        with federated.open_budget(plan, option).ledger as ledger:
            pay = ledger.gate(algorithm, "train")
            fitted = federated.fit(
                algorithm, cohorts, rounds=rounds, stream=randomness.stream(), gate=lambda number, pay=pay: pay, progress=False
            )  # fmt: skip
            if fitted.ended != "rounds":
                raise SystemExit(f"the training ended by {fitted.ended}; options measured before are saved")
            assert len(ledger.rows()) == option.charges
            spent = ledger.epsilon()
        params = np.concatenate([np.ravel(np.asarray(leaf)) for leaf in jax.tree.leaves(fitted.params)])
        found.append({"params": params, "epsilon": spent, "seconds": time.perf_counter() - started})
    return found


def measure(
    arguments: argparse.Namespace, rounds: int, cohorts: int, earlier: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """All rows, yielded again after each option, for runs take long; earlier rows of budgets and options that are not asked for are kept."""
    x, y, training = scaled()
    fixed = federated.fixed_cohorts(int(training.sum()), cohorts)
    dimension = x.shape[1] + 1
    population = federated.make_population(x[training][:, None], y[training][:, None])
    nobody = federated.make_population(
        np.zeros_like(x[training][:, None]), np.zeros_like(y[training][:, None]), np.zeros((fixed.clients, 1), bool)
    )
    target = clipped_descent(x[training], y[training], clip_of(dimension), rounds)
    auc = functools.partial(_auc, x[~training], y[~training])
    rows = {(row["epsilon"], row["option"]): row for row in earlier.get("rows", [])}
    plans = {each["epsilon"]: each for each in earlier.get("plans", [])}
    for epsilon in arguments.epsilons:
        plan = plan_for(fixed, epsilon, dimension, rounds)
        print(plan, flush=True)
        sampled = plan.option("secret sampling").rmse
        strongest = None
        if arguments.pld:
            strongest = plan_for(fixed, epsilon, dimension, rounds, "pld").option("secret sampling").rmse
        plans[epsilon] = {"epsilon": epsilon, "verdict": plan.verdict, "best": plan.best.name}
        for name, option in named(plan).items():
            if name not in arguments.options:
                continue
            noise = train(plan, option, nobody, rounds, arguments.noise_runs)
            trained = train(plan, option, population, rounds, arguments.runs)
            own = [auc(each["params"]) for each in trained]
            measured = float(np.sqrt(np.mean([each["params"] ** 2 for each in noise])))
            rows[epsilon, name] = {
                "option": name,
                "epsilon": epsilon,
                "law": option.law,
                "spent": max(each["epsilon"] for each in noise + trained),
                "uploads": option.uploads,
                "trainings": option.trainings,
                "dark_count": dict(option.mechanism.facts.parameters)["dark_count"],
                "rmse_planned": STEP * option.rmse,
                "rmse_measured": measured,
                "rmse_values": arguments.noise_runs * dimension,
                "over_sampling_planned": option.rmse / sampled,
                "auc": float(np.mean(own)),
                "auc_runs": own,
                "distance": float(np.sqrt(np.mean([(each["params"] - target) ** 2 for each in trained]))),
                "seconds": float(np.mean([each["seconds"] for each in noise + trained])),
            }
            row = rows[epsilon, name]
            print(
                f"epsilon {epsilon:g}  {name:22} RMSE {measured:.4f} (planned {row['rmse_planned']:.4f}, {option.rmse / sampled:.3f} of sampling)  "
                f"AUC {row['auc']:.4f}  {row['seconds']:.0f} s",
                flush=True,
            )
            base = rows.get((epsilon, "secret sampling"))
            for each in (each for each in rows.values() if each["epsilon"] == epsilon):
                if base is not None:
                    each["over_sampling"] = each["rmse_measured"] / base["rmse_measured"]
                if strongest is not None:
                    each["over_sampling_by_pld_planned"] = each["rmse_planned"] / (STEP * strongest)
                    each["over_sampling_by_pld"] = each["rmse_measured"] / (STEP * strongest)
            order = [*OPTIONS, *OTHERS]
            yield {
                "rows": sorted(rows.values(), key=lambda row: (row["epsilon"], order.index(row["option"]))),
                "plans": [plans[each] for each in sorted(plans)],
                "auc_without_noise": auc(target),
                "clients": fixed.clients,
                "dimension": dimension,
            }


def _auc(x: np.ndarray, y: np.ndarray, params: np.ndarray) -> float:
    return float(evaluation.all_scores(params[0] + x @ params[1:], y)["auc"])


def coefficients() -> list[dict[str, Any]]:
    """Noise by the power of the coefficients, over the square root's: of the tail average, of the last iterate, and of all iterates without momentum.

    Arithmetic, nothing is drawn.
    """
    rows = []
    for rounds, cohorts in ((200, 50), (100, 20), (100, 5), (1000, 50)):
        for band in (4, cohorts):
            entry: dict[str, Any] = {"rounds": rounds, "cohorts": cohorts, "band": band}
            for what, first in (("tail", rounds // 2), ("last", None)):
                weights = federated.parameter_weights(rounds, MOMENTUM, first)

                def error(power: float, weights: np.ndarray = weights, band: int = band) -> float:
                    encoding = banding(band, power)
                    return float(np.linalg.norm(decoded_weights(encoding, weights)) * np.sqrt(encoding.energy))

                entry[what] = {f"{power:g}": error(power) / error(0.5) for power in POWERS}
            least = _iterates(banding(band), rounds)
            entry["iterates without momentum"] = {
                f"{power:g}": _iterates(banding(band, power), rounds) / least for power in POWERS
            }
            rows.append(entry)
            print(entry)
    return rows


def _iterates(encoding: federated.Banding, rounds: int) -> float:
    """RMSE over all prefix sums for a given price, in units that cancel."""
    sums = np.cumsum(np.linalg.inv(_matrix(encoding.factors, rounds)), axis=0)
    return float(np.linalg.norm(sums) * np.sqrt(encoding.energy))


def beside_jax_privacy(epsilons: list[float], rounds: int, cohorts: int) -> dict[str, Any]:
    """BandMF of jax_privacy for the same budgets: noise in tail-averaged parameters, over ours by tight accounting, at an equal expected batch.

    Its coefficients are its own optimum for prefix sums. With fewer bands than cohorts it samples secretly within its groups, which no fixed cohort does:
    at a trusted server that is free, with noise at the clients everybody would have to send in every round.
    """
    if importlib.util.find_spec("jax_privacy") is None:
        return {"skipped": "jax_privacy is not installed: pip install 'fedjax-poisson[compare]'"}
    from importlib.metadata import version

    from jax_privacy.experimental.execution_plan import BandMFExecutionPlanConfig

    weights = federated.parameter_weights(rounds, MOMENTUM, rounds // 2)
    fixed, rows = federated.fixed_cohorts(6056, cohorts), []
    for epsilon in epsilons:
        plan = federated.plan_cohorts(
            fixed, epsilon=epsilon, delta=DELTA, rounds=rounds, dimension=42, clip_norm=1.0, weights=weights,
            bands=[4, cohorts],
        )  # fmt: skip
        for bands in (1, 4, 12, cohorts):
            config = BandMFExecutionPlanConfig.default(
                num_bands=bands, iterations=rounds, epsilon=epsilon, delta=DELTA, sampling_prob=bands / cohorts
            )
            event = config.plan.dp_event  # composed of sampled Gaussians, for coefficients of length one
            while hasattr(event, "event"):
                event = event.event
            factors = np.asarray(config.strategy, np.float64)
            matrix = _matrix(factors, rounds)
            deviation = event.noise_multiplier * np.linalg.norm(factors)
            theirs = float(np.linalg.norm(weights @ np.linalg.inv(matrix)) * deviation * cohorts / fixed.clients)
            row = {"epsilon": epsilon, "bands": bands, "sampling": bands / cohorts, "rmse": theirs}
            row |= {f"over our {each.name}": theirs / each.rmse for each in plan.options}
            if bands == cohorts:  # the same participation: what its coefficients and what its noise make
                same = federated.Banding(tuple(int(2**30 * each / factors[0]) for each in factors))
                again = federated.plan_cohorts(
                    fixed, epsilon=epsilon, delta=DELTA, rounds=rounds, dimension=42, clip_norm=1.0, weights=weights,
                    bands=[same],
                )  # fmt: skip
                row["over ours with its coefficients"] = theirs / again.options[0].rmse
                ours = plan.option(f"band {bands}").encoding
                row["its iterates without momentum over ours"] = _iterates(same, rounds) / _iterates(ours, rounds)
                row["its iterates without momentum over the square root's"] = _iterates(same, rounds) / _iterates(
                    banding(bands), rounds
                )
            rows.append(row)
            print(row, flush=True)
    return {"version": version("jax-privacy"), "rows": rows}


def _matrix(factors: Sequence[float], rounds: int) -> np.ndarray:
    return sum((np.diag(np.full(rounds - j, each), -j) for j, each in enumerate(factors)), np.zeros((rounds, rounds)))


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 3.0, 8.0])
    options.add_argument("--options", nargs="+", default=[*OPTIONS, *OTHERS], choices=[*OPTIONS, *OTHERS])
    options.add_argument(
        "--noise-runs", type=int, default=3, help="runs of clients without records, for the noise alone"
    )
    options.add_argument(
        "--pld", action="store_true", help="sampling by privacy loss distributions too (extra compare)"
    )
    options.add_argument("--beside", action="store_true", help="only jax_privacy's BandMF, into a file of its own")
    arguments = options.parse_args(argv)
    rounds, cohorts = (6, 5) if arguments.toy else (ROUNDS, COHORTS)
    if arguments.toy:
        arguments.epsilons, arguments.runs, arguments.noise_runs = [8.0], 1, 1
    if arguments.beside:
        save(
            "banded_jax_privacy",
            arguments,
            beside_jax_privacy(arguments.epsilons, rounds, 12 if arguments.toy else cohorts),
        )
        return
    if not arguments.draw:
        there = not arguments.toy and (arguments.out / "results" / "banded_clients.json").exists()
        shapes = coefficients()
        for result in measure(arguments, rounds, cohorts, load("banded_clients", arguments) if there else {}):
            config = {
                "delta": DELTA,
                "rounds": rounds,
                "cohorts": cohorts,
                "momentum": MOMENTUM,
                "step": STEP,
                "unit": "client",
            }
            save("banded_clients", arguments, {**result, "config": config, "coefficients": shapes})
    result = load("banded_clients", arguments)
    lines = {
        name: [
            {"epsilon": row["epsilon"], "auc": row["auc"], "auc_error": _error(row["auc_runs"])}
            for row in result["rows"]
            if row["option"] == name
        ]
        for name in ("participation cap", "band 4", "band 50", "secret sampling")
    }
    curve(
        arguments.out / "figures" / "banded_clients.png",
        {name: rows for name, rows in lines.items() if rows},
        "auc",
        heading="Thyroid disease, every record a client: banded noise for fixed cohorts",
        ylabel="AUC, test records",
        xlabel=f"epsilon, delta {DELTA:g}, unit: one client",
        marks=[(result["auc_without_noise"], "clipped, without noise")],
    )


def _error(values: list[float]) -> float | None:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


if __name__ == "__main__":
    main()
