"""The automatic recipe for several classes, several labels and numbers: the score against epsilon, beside the same model in the clear.

    python experiments/table_tasks.py [--folder DATA] [--runs 3] [--epsilons 1 3 8] [--only NAMES] [--constants] [--toy]

Nothing is tuned here or read from test records: each run is `fedjax-poisson run` as it comes, sums in the clear (encryption changes no bit). The model in the
clear is the same kind of linear model on exactly standardised features, fitted to its optimum with an L2 penalty of one record. The score is the AUC, mean of
each class against the rest or over the labels, or R2. thyroid and heart ship with the package; SUPPORT2 is read from --folder.

--constants asks what the rule's own constants are worth: on a fold of the training records alone, with Gaussian noise in place of the embedding, the clip or
the length of the steps is halved and doubled (results/table_tasks_constants.json).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import COLOURS, kept, load, panels_of, parser, private_row, save, say, subset, table, training_fold
from scipy import optimize, special
from tables import LEAKY, unpacked, without

from fedjax_poisson import accounting, data
from fedjax_poisson.data.tables.csv_table import read_table
from fedjax_poisson.federated import reference, standardize, task_scores
from fedjax_poisson.federated.device_records import records_of
from fedjax_poisson.reports.plotting import PLAIN
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.loss_facts import clip_over_length, loss_facts
from fedjax_poisson.runs.named_models import target_of
from fedjax_poisson.runs.training_recipe import MOMENTUM, ROUNDS

DIAGNOSES = {"none": "-", "hyperthyroid": "ABCD", "hypothyroid": "EFGH", "binding protein": "IJ", "general health": "K"}
DISEASES = ["ARF/MOSF", "COPD/CHF/Cirrhosis", "Cancer", "Coma"]
HORIZONS = {"dead_30": 30.0, "dead_180": 180.0, "dead_730": 730.0}
HEART_RATE = (60.0, 220.0)


def thyroid(source: Path, folder: Path) -> data.Sites:
    """The thyroid records with the diagnosis as one of six classes: the groups of letters that occur often, and all others."""
    sites = data.load("thyroid")
    file = importlib.resources.files("fedjax_poisson.data") / "files" / "thyroid.csv.gz"
    with importlib.resources.as_file(file) as path:
        targets = read_table(path).columns["target"]
    letters = {letter: place for place, group in enumerate(DIAGNOSES.values()) for letter in group}
    labels = np.array([letters.get(target.split("|")[-1][:1], len(DIAGNOSES)) for target in targets], np.int32)
    return dataclasses.replace(sites, labels=labels, class_names=(*DIAGNOSES, "other"))


def heart_rate(source: Path, folder: Path) -> data.Sites:
    """The heart records with the largest heart rate under exercise as a number to predict, from all columns but that and the diagnosis."""
    sites = data.load("heart")
    place = sites.feature_names.index("thalach")
    others = np.arange(len(sites.feature_names)) != place
    return dataclasses.replace(
        sites,
        features=sites.features[:, others],
        feature_names=tuple(name for name, own in zip(sites.feature_names, others, strict=True) if own),
        feature_bounds=sites.feature_bounds[others],
        binary=sites.binary[others],
        labels=np.clip(sites.features[:, place], *HEART_RATE).astype(np.float32),
        class_names=("thalach",),
        label_bounds=HEART_RATE,
        encoder=None,
    )


def support2(source: Path, folder: Path, kind: str) -> data.Sites:
    """SUPPORT2: the class of the disease (sites: incomes), five labels, or the physiology score (sites: disease groups)."""

    def keep(row: dict[str, str]) -> dict[str, str] | None:
        base = without(row, "pid", "time", "event", *LEAKY)
        if kind == "disease":
            return without(base, "fac_dzgroup", "fac_ca")
        if kind == "labels":
            dead = row["event"] == "1"
            return base | {name: str(int(dead and float(row["time"]) <= end)) for name, end in HORIZONS.items()}
        return base | {"num_sps": row["num_sps"]} if row["num_sps"] else None

    path, common = unpacked(source, folder, keep), {"categorical": "from_data", "min_site_records": 1}
    if kind == "disease":
        return data.from_csv(path, label="fac_dzclass", classes=DISEASES, site="fac_income", **common)
    if kind == "labels":
        return data.from_csv(path, label=[*HORIZONS, "fac_diabetes", "fac_dementia"], site="fac_dzgroup", **common)
    return data.from_csv(path, label="num_sps", label_bounds=(0, 100), site="fac_dzgroup", **common)


def of_support2(kind: str) -> tuple[str, Callable[[Path, Path], data.Sites]]:
    """A task on SUPPORT2's file."""
    return "support2.csv.gz", functools.partial(support2, kind=kind)


TASKS: dict[str, tuple[str | None, Callable[[Path, Path], data.Sites]]] = {
    "thyroid, six diagnoses": (None, thyroid),
    "SUPPORT2, four classes of disease": of_support2("disease"),
    "SUPPORT2, five labels": of_support2("labels"),
    "SUPPORT2, physiology score": of_support2("score"),
    "heart, largest heart rate": (None, heart_rate),
}


def score_of(sites: data.Sites) -> str:
    """The score to look at."""
    return "r2" if sites.task == "regression" else "auc"


def exact(sites: data.Sites) -> tuple[standardize.Scaler, list[tuple[np.ndarray, np.ndarray]]]:
    """Training and test records `(x [n, F + 1], y)`, exactly standardised, with the 1 of the bias."""
    train, test = records_of(sites, True), records_of(sites, False)
    scaler = reference.exact_scaler(train, sites.feature_bounds, sites.binary, label_bounds=sites.label_bounds)
    found = []
    for part in (train, test):
        mask = np.asarray(part.mask)
        x = np.asarray(standardize.standardize(scaler, part.features), float)[mask]
        y = np.asarray(standardize.standardize_labels(scaler, part.labels))[mask]
        found.append((np.column_stack([x, np.ones(len(x))]), y))
    return scaler, found


def score(sites: data.Sites, scaler: standardize.Scaler, outputs: np.ndarray, labels: np.ndarray) -> float:
    """AUC or R2 of outputs `[n, K]`."""
    outputs = outputs[:, 0] if target_of(sites).outputs == 1 else outputs
    if sites.label_bounds is not None:
        outputs, labels = (standardize.in_units(scaler, each, sites.label_bounds) for each in (outputs, labels))
    mask = np.ones((1, len(labels)), bool)
    found = task_scores.scores_of(sites.task, outputs[None], labels[None], mask, ("all",), sites.class_names)
    return float(found[score_of(sites)])


def in_the_clear(sites: data.Sites) -> float:
    """Test score of the linear model at its optimum."""
    scaler, ((x, y), (rows, labels)) = exact(sites)
    target = target_of(sites)
    size = x.shape[1], target.outputs
    penalty = np.ones(size)
    penalty[-1] = 0.0

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(size)
        z = x @ weights
        if target.task == "multiclass":
            wanted = np.eye(target.outputs)[y]
            loss, residual = (special.logsumexp(z, axis=1) - (wanted * z).sum(axis=1)).sum(), special.softmax(z, axis=1)
            residual = residual - wanted
        elif target.task == "multilabel":
            loss, residual = (np.logaddexp(0, z) - y * z).sum(), special.expit(z) - y
        else:
            residual = z - y[:, None]
            loss = 0.5 * (residual**2).sum()
        return float(loss + 0.5 * (penalty * weights**2).sum()), (x.T @ residual + penalty * weights).ravel()

    start = np.zeros(size).ravel()
    best = optimize.minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return score(sites, scaler, rows @ best.reshape(size), labels)


def measure(name: str, sites: data.Sites, epsilons: list[float], runs: int, toy: bool) -> list[Any]:
    """The rows of one task."""
    facts = {"task": name, "score": score_of(sites), "clear": in_the_clear(sites), "units": int(sites.train.sum())}
    facts |= {"columns": sites.features.shape[1], "site_count": len(sites.site_names)}
    rows = []
    for epsilon in epsilons:
        config = Config(epsilon=epsilon, aggregator="plain", yardstick=False, rounds=2 if toy else None)
        for number in range(runs):
            row = private_row(config, sites, **facts, run=number)
            rows.append(row)
            say(row, "task", "run", "clear")
    return rows


@functools.partial(jax.jit, static_argnames=("task", "outputs"))
def emulated(
    x: jax.Array, y: jax.Array, clip: float, step: float, noise: float, key: jax.Array, *, task: str, outputs: int
) -> jax.Array:
    """Weights `[F + 1, K]` by the rule's rounds, clip and schedule, with Gaussian noise of this deviation in the mean gradient of all rounds together."""
    lengths = jnp.linalg.norm(x, axis=1)
    share = jnp.minimum(1.0, 2 * (ROUNDS - jnp.arange(ROUNDS)) / ROUNDS)

    def residual_of(z: jax.Array) -> jax.Array:
        if task == "multiclass":
            return jax.nn.softmax(z, axis=-1) - jax.nn.one_hot(y, outputs)
        return jax.nn.sigmoid(z) - y if task == "multilabel" else z - y[:, None]

    def one(state: tuple[jax.Array, jax.Array, jax.Array], number: jax.Array) -> tuple[Any, jax.Array]:
        weights, velocity, key = state
        residual = residual_of(x @ weights)
        norms = jnp.linalg.norm(residual, axis=1) * lengths
        residual = residual * jnp.minimum(1.0, clip / jnp.maximum(norms, 1e-9))[:, None]
        key, own = jax.random.split(key)
        spread = noise * jnp.sqrt(jnp.sum(share) / share[number])
        gradient = x.T @ residual / len(x) + spread * jax.random.normal(own, weights.shape)
        velocity = MOMENTUM * velocity + gradient
        weights = weights - step * velocity
        return (weights, velocity, key), weights

    zero = jnp.zeros((x.shape[1], outputs))
    return jnp.mean(jax.lax.scan(one, (zero, zero, key), jnp.arange(ROUNDS))[1][ROUNDS // 2 :], axis=0)


def constants(name: str, sites: data.Sites, epsilons: list[float], seeds: int) -> list[dict[str, Any]]:
    """What halving and doubling the clip and the steps changes, on a fold of the training records."""
    part, target = training_fold(sites, 0), target_of(sites)
    scaler, ((x, y), (rows, labels)) = exact(part)
    facts, spread = (
        loss_facts(target.task, target.outputs),
        math.sqrt(len(sites.site_names) / (len(sites.site_names) - 1)),
    )
    found = []
    for epsilon in epsilons:
        mu = math.sqrt(accounting.variance_budget(epsilon, 1e-4).total)
        signal = len(x) * mu / (x.shape[1] * spread * facts.sharing)
        row: dict[str, Any] = {"task": name, "epsilon": epsilon, "signal": signal, "clear": in_the_clear(part)}
        for what, (clips, steps) in {
            "rule": (1, 1), "half the clip": (0.5, 1), "twice the clip": (2, 1), "half the steps": (1, 0.5), "twice the steps": (1, 2),
        }.items():  # fmt: skip
            clip = clips * clip_over_length(facts, signal) * math.sqrt(x.shape[1])
            tau = min(facts.most_tau, facts.tau_of_signal * signal) * steps
            noise = clip * spread / (len(x) * mu * math.sqrt(0.8))
            scores = [
                score(
                    part,
                    scaler,
                    rows
                    @ np.asarray(
                        emulated(
                            jnp.asarray(x, jnp.float32), jnp.asarray(y), clip, tau * (1 - MOMENTUM) / ROUNDS, noise, jax.random.key(seed),
                            task=target.task, outputs=target.outputs,
                        )
                    ),
                    labels,
                )
                for seed in range(seeds)
            ]  # fmt: skip
            row[what] = float(np.mean(scores))
        found.append(row)
        print(
            f"{name}, signal {signal:.1f}: " + ", ".join(f"{k} {v:.4f}" for k, v in row.items() if isinstance(v, float))
        )
    return found


def draw(path: Path, result: dict[str, Any]) -> None:
    """The score against epsilon, one panel a task, the model in the clear as a line."""
    figure, panels = panels_of(list(result["tables"]))
    for name, panel in panels:
        facts = result["facts"][name]
        rows, which, clear = result["tables"][name], facts["score"], facts["clear"]
        x, y = [row["epsilon"] for row in rows], [row[which] for row in rows]
        bars = [1.96 * (row[f"{which}_error"] or 0.0) for row in rows]
        panel.errorbar(x, y, yerr=bars, marker="o", color=COLOURS[0], linewidth=2.2, capsize=3)
        panel.axhline(clear, color=PLAIN, linestyle="--", linewidth=1.4)
        panel.annotate("in the clear", (x[-1], clear), (0, 4), textcoords="offset points", color=PLAIN, ha="right")
        panel.set_xscale("log")
        panel.set_xticks(x, [f"{each:g}" for each in x])
        panel.minorticks_off()
        room = 0.15 * (max(*y, clear) - min(*y, clear)) + 0.02
        panel.set_ylim(min(*y, clear) - room, max(*y, clear) + room)
        panel.set_ylabel("R2" if which == "r2" else "mean AUC")
        panel.set_title(f"{name}\n{facts['units']:,} training records", fontsize=11, loc="left")
    figure.supxlabel("epsilon for everything released, delta 1e-4, unit: one record", fontsize=10)
    figure.savefig(path)


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--folder", type=Path, help="folder of the tables that do not ship with the package")
    options.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 3.0, 8.0])
    options.add_argument("--only", nargs="+", choices=list(TASKS), help="some of the tasks; the others' rows are kept")
    options.add_argument("--constants", action="store_true", help="only ask what the constants are worth, on a fold")
    arguments = options.parse_args(argv)
    if not arguments.draw:
        rows = kept(arguments, "table_tasks")
        checked = kept(arguments, "table_tasks_constants")
        epsilons, runs = ([3.0], 1) if arguments.toy else (arguments.epsilons, arguments.runs)
        for name in arguments.only or (("heart, largest heart rate",) if arguments.toy else TASKS):
            file, read = TASKS[name]
            source = Path(file or ".") if arguments.folder is None or file is None else arguments.folder / file
            if file is not None and not source.is_file():
                print(f"skipped: {name} is not here ({source}); it may not be shipped with the package")
                continue
            with tempfile.TemporaryDirectory() as folder:
                sites = read(source, Path(folder))
            if arguments.toy:
                sites = subset(sites, np.arange(len(sites.labels)) % 4 == 0)
            order = {known: place for place, known in enumerate(TASKS)}
            if arguments.constants:
                checked = [row for row in checked if row["task"] != name]
                checked += constants(name, sites, epsilons, 6)
                checked.sort(key=lambda row: order[row["task"]])
                save("table_tasks_constants", arguments, {"rows": checked})
                continue
            rows = [row for row in rows if row["task"] != name]
            rows += measure(name, sites, epsilons, runs, arguments.toy)
            rows.sort(key=lambda row: order[row["task"]])
            save("table_tasks", arguments, summary(rows))
        if arguments.constants:
            return
    result = load("table_tasks", arguments)
    draw(arguments.out / "figures" / "table_tasks.png", result)
    for name, found in result["tables"].items():
        facts = result["facts"][name]
        print(f"{name} ({facts['units']} training records): {facts['score']} in the clear {facts['clear']:.4f}")
        for row in found:
            error = row[f"{facts['score']}_error"]
            spread = "(one run)" if error is None else f"+- {1.96 * error:.4f}"
            print(f"  epsilon {row['epsilon']:g}: {row[facts['score']]:.4f} {spread}")


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What is kept: rows, their table, and what each task is."""
    own = {task: [row for row in rows if row["task"] == task] for task in dict.fromkeys(row["task"] for row in rows)}
    scores = ("auc", "pooled_accuracy", "r2", "rmse")
    return {
        "rows": rows,
        "tables": {task: table(found, lambda row: row["epsilon_target"], scores) for task, found in own.items()},
        "facts": {
            task: {name: found[0][name] for name in ("score", "clear", "units", "columns", "site_count")}
            for task, found in own.items()
        },
    }


if __name__ == "__main__":
    main()
