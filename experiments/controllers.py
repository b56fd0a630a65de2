"""What a controller spends and what accuracy it gives, beside the fixed schedule under the same cap: eight tables, AUC and budget.

    python experiments/controllers.py [--folder DATA] [--runs 10] [--epsilons 1 3] [--only heart thyroid] [--toy]

Plan, recipe, standardisation and mechanisms are those of `fedjax-poisson run --controller NAME`. Controllers are pure functions, so each training is one
compiled program with its controller inside, and its sums have the law of encrypted ones. All controllers of a run see the same private standardisation. The
number of training units is public here. "schedule" is the fixed schedule, which spends everything; "settle" and "risk" have the same cap. What is left is the
share of the variance of the budget after everything that was charged, standardisation included. The form of settle's rule was chosen on training records of
seven of these tables.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import COLOURS, kept, load, parser, save, subset
from tables import TABLES, support2_within

from fedjax_poisson import accounting, attacks, data, trees
from fedjax_poisson.federated import Records, control, evaluation, records, standardize
from fedjax_poisson.federated.control import Control, Released
from fedjax_poisson.federated.server import State, final_parameters, init_state, server_step
from fedjax_poisson.randomness import fold_in, stream
from fedjax_poisson.reports.plotting import PLAIN, grid
from fedjax_poisson.runs.build import RunSetup, build
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.scoring import predictions
from fedjax_poisson.runs.steering import controller_for
from fedjax_poisson.runs.training import aggregator_for, learned_model, learned_records, optimizer_for
from fedjax_poisson.runs.training_recipe import step_size

CONTROLLERS = ("schedule", "settle", "risk")
EIGHT = TABLES | {"SUPPORT2, 30 days": ("support2.csv.gz", lambda source, folder: support2_within(source, folder, 30))}


def trainer(setting: RunSetup, cohort: Records, units: float) -> Callable[[Any, Any], tuple[State, Any]]:
    """`(features, stream) -> (state, portions)`: a training by the run's controller as one program, and what each round used, 0 after the stop."""
    plan, recipe, model = setting.plan, setting.recipe, learned_model(setting)
    mechanism, senders = plan.train.mechanism, plan.senders
    controller, whole = controller_for(recipe, plan, units), control.whole_noise(mechanism)
    control.checked(controller, setting.dimension, mechanism)
    optimizer: optax.GradientTransformation = optimizer_for(setting, step_size(recipe, units))
    members = records.units_of(np.asarray(cohort.unit), setting.sites.unit)
    sampling = records.Sampling(members, 1.0, records.record_slots(members, 1.0), 256)
    deviation = math.sqrt(mechanism.variance(senders)) / units

    def embed(own: Any, counts: Any, used: Any) -> Any:
        return (
            mechanism.embed(own, counts) if mechanism.portions is None else mechanism.portions.embed(own, counts, used)
        )

    def estimate(total: Any, used: Any) -> Any:
        if mechanism.portions is None:
            return mechanism.estimate(total, senders)
        return mechanism.portions.estimate(total, senders, used)

    @jax.jit
    def train(features: Any, root: Any) -> tuple[State, Any]:
        own = cohort._replace(features=features)

        def step(state: State, number: Any) -> tuple[State, Any]:
            here, (used, stop) = fold_in(root, number), state.controller.next
            grids = records.sampled_gradients(model.loss, state.params, mechanism.clip, own, sampling, here)
            counts = jax.vmap(lambda site, row: embed(fold_in(here, site, "embed"), row, used))(
                jnp.arange(senders, dtype=jnp.uint32), grids
            )
            gradient = estimate(jnp.sum(counts, axis=0, dtype=counts.dtype), used) / jnp.float32(units)
            after = server_step(state, gradient, optimizer, recipe.average_from)
            flat = (trees.flatten(after.params), trees.flatten(after.average))
            noise = jnp.float32(deviation) * jnp.sqrt(jnp.float32(whole) / used.astype(jnp.float32))
            memory, decided = controller.step(
                state.controller.memory, Released(after.round, gradient, *flat, used, noise)
            )
            after = after._replace(controller=Control(memory, decided))
            return jax.tree.map(lambda old, new: jnp.where(stop, old, new), state, after), jnp.where(stop, 0, used)

        params = model.init(jax.random.key(0), features[0, :1])
        first = init_state(params, optimizer)
        begun = Control(*controller.init(control.Start(trees.flatten(params), whole)))
        return jax.lax.scan(step, first._replace(controller=begun), jnp.arange(recipe.rounds, dtype=jnp.uint32))

    return train


def share_left(setting: RunSetup, used: list[int]) -> float:
    """Share of the budget's variance after the standardisation and rounds with so many portions."""
    plan = setting.plan
    assert plan.standardize is not None and plan.terms.variance is not None
    charges = {each: plan.train.used(each).charge for each in set(used)}
    left = accounting.spend_all(
        plan.terms.variance,
        plan.terms.variance.total,
        [plan.standardize.charge, *(charges[each] for each in used)],  # type: ignore[list-item]
    )
    assert left is not None
    return left / plan.terms.variance.total


def standardised(setting: RunSetup, units: int) -> tuple[Records, Records]:
    """Training and test records by one private standardisation."""
    mechanism = setting.plan.standardize.mechanism  # type: ignore[union-attr]
    scaler, _ = standardize.private_scaler(
        setting.train,
        setting.sites.feature_bounds,
        setting.sites.binary,
        mechanism=mechanism,
        aggregator=aggregator_for(
            setting, mechanism, standardize.moment_dimension(setting.sites.binary), "standardise"
        ),
        stream=stream(),
        largest_unit=setting.largest_unit,
    )
    cohort, test = (learned_records(setting, scaler, part) for part in (setting.train, setting.test))
    return cohort, test


def measure(name: str, sites: data.Sites, epsilon: float, runs: int, toy: bool) -> list[dict[str, Any]]:
    """The rows of one table and epsilon."""
    settings = {}
    for controller in CONTROLLERS:
        config = Config(epsilon=epsilon, controller=controller, aggregator="plain", rounds=10 if toy else None)
        settings[controller] = build(config, sites)
    any_setting = settings[CONTROLLERS[0]]
    units = len(records.units_of(np.asarray(any_setting.train.unit)).coin)
    trainers, rows = {}, []
    for number in range(runs):
        cohort, test = standardised(any_setting, units)
        for controller, setting in settings.items():
            began = time.perf_counter()
            if controller not in trainers:
                trainers[controller] = trainer(setting, cohort, float(units))
            state, portions = trainers[controller](cohort.features, stream())
            used = [int(each) for each in portions if each]
            params = final_parameters(state, setting.average_from)
            labels, mask = np.asarray(test.labels, np.int64), np.asarray(test.mask)
            found = evaluation.scores(predictions(setting, params, test), labels, mask, sites.site_names)
            rows.append(
                {
                    "task": name,
                    "epsilon_target": epsilon,
                    "controller": controller,
                    "run": number,
                    "auc": found["auc"],
                    "calibration_error": found["calibration_error"],
                    "rounds": len(used),
                    "rounds_planned": setting.recipe.rounds,
                    "share_left": share_left(setting, used),
                    "units": units,
                    "seconds": time.perf_counter() - began,
                }
            )
    return rows


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and 1.96 standard errors of AUC and of its difference from the schedule, and budget left, by table, epsilon and controller."""
    found = []
    for key in dict.fromkeys((row["task"], row["epsilon_target"], row["controller"]) for row in rows):
        own = [row for row in rows if (row["task"], row["epsilon_target"], row["controller"]) == key]
        fixed = [
            row for row in rows if (row["task"], row["epsilon_target"], row["controller"]) == (*key[:2], "schedule")
        ]
        values, base = (np.array([row["auc"] for row in each], float) for each in (own, fixed))
        error = [float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else None for each in (values, base)]
        both = None if None in error else 1.96 * float(np.hypot(*error))  # type: ignore[arg-type]
        found.append(
            {
                "task": key[0],
                "epsilon": key[1],
                "controller": key[2],
                "runs": len(own),
                "auc": float(values.mean()),
                "auc_half_width": None if error[0] is None else 1.96 * error[0],
                "gain": float(values.mean() - base.mean()) if len(base) else None,
                "gain_half_width": both,
                "share_left": float(np.mean([row["share_left"] for row in own])),
                "share_left_range": [min(row["share_left"] for row in own), max(row["share_left"] for row in own)],
                "rounds": float(np.mean([row["rounds"] for row in own])),
            }
        )
    return found


def ideal_auditor() -> list[dict[str, Any]]:
    """What one run could show an auditor while it goes on: lower bounds of epsilon from canaries at parts of the budget, 20 runs.

    The auditor is better than any that exists: its score of a canary is the one statistic of the Gaussian that dominates the training, and canaries do not
    disturb one another. A controller could be steered by no more than this.
    """
    rng, rows = np.random.default_rng(1), []
    for epsilon in (1.0, 3.0, 8.0):
        total = accounting.variance_budget(epsilon, 1e-4).total
        for canaries in (100, 1000):
            for share in (0.25, 0.5, 0.75, 1.0):
                shift, bounds = math.sqrt(total * share), []
                guesses = attacks.choose_guesses(canaries, shift, 1e-4)
                for _ in range(20):
                    included = rng.random(canaries) < 0.5
                    order = np.argsort(rng.normal(size=canaries) + shift * included)
                    right = included[order[-guesses // 2 :]].sum() + (~included[order[: guesses // 2]]).sum()
                    bounds.append(attacks.one_run_epsilon(canaries, guesses, int(right), 1e-4))
                mean, spread = float(np.mean(bounds)), float(np.std(bounds, ddof=1))
                rows.append({"epsilon": epsilon, "canaries": canaries, "spent": share, "bound": mean, "spread": spread})
    return rows


def store(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Write the rows in the order of the tables, and what follows from them."""
    order = {known: place for place, known in enumerate(EIGHT)}
    rows.sort(key=lambda row: (order[row["task"]], row["epsilon_target"], CONTROLLERS.index(row["controller"])))
    save("controllers", arguments, {"rows": rows, "summary": summary(rows), "ideal_auditor": ideal_auditor()})


def draw(path: Path, result: dict[str, Any]) -> None:
    """AUC less that of the schedule against the share of the budget left, one panel an epsilon."""
    rows = [row for row in result["summary"] if row["controller"] != "schedule" and row["gain"] is not None]
    epsilons = sorted({row["epsilon"] for row in rows})
    figure, axes = grid(5.4, 1, len(epsilons))
    names = [name for name in EIGHT if name in {row["task"] for row in rows}]
    for epsilon, panel in zip(epsilons, np.ravel(axes), strict=False):
        for colour, controller in zip(COLOURS, CONTROLLERS[1:], strict=False):
            own = {row["task"]: row for row in rows if (row["epsilon"], row["controller"]) == (epsilon, controller)}
            offset = -0.16 if controller == CONTROLLERS[1] else 0.16
            y = [names.index(task) + offset for task in own]
            bars = [row["gain_half_width"] or 0.0 for row in own.values()]
            panel.errorbar(
                [row["gain"] for row in own.values()], y, xerr=bars, fmt="o", color=colour, capsize=3, label=controller
            )
            for place, row in zip(y, own.values(), strict=True):
                panel.annotate(
                    f"{row['share_left']:.0%} left",
                    (1.01, place),
                    xycoords=("axes fraction", "data"),
                    va="center",
                    fontsize=8.5,
                    color=colour,
                )
        panel.axvline(0.0, color=PLAIN, linestyle="--", linewidth=1.2)
        panel.set_yticks(range(len(names)), names if panel is np.ravel(axes)[0] else [""] * len(names))
        panel.invert_yaxis()
        panel.set_title(f"cap: epsilon {epsilon:g}", fontsize=11, loc="left")
        panel.set_xscale("symlog", linthresh=0.005, linscale=2.0)
        panel.set_xlim(-0.15, 0.15)
        ticks = (-0.05, -0.003, 0.0, 0.003, 0.05)
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=9)
        panel.minorticks_off()
    figure.supxlabel(
        "AUC less that of the fixed schedule, which spends all (linear within 0.005, logarithmic beyond)", fontsize=10
    )
    np.ravel(axes)[-1].legend(frameon=False, fontsize=9.5, loc="upper left")
    figure.savefig(path)


def sites_of(name: str, folder: Path | None) -> data.Sites | None:
    """A table, or None where its file is not here."""
    file, read = EIGHT[name]
    source = Path(file or ".") if folder is None or file is None else folder / file
    if file is not None and not source.is_file():
        print(f"skipped: {name} is not here ({source}); it may not be shipped with the package")
        return None
    with tempfile.TemporaryDirectory() as made:
        return read(source, Path(made))


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, runs=10)
    options.add_argument("--folder", type=Path, help="folder of the tables that do not ship with the package")
    options.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 3.0])
    options.add_argument("--only", nargs="+", choices=list(EIGHT), help="some of the tables; other rows are kept")
    arguments = options.parse_args(argv)
    if not arguments.draw:
        epsilons, runs = ([3.0], 2) if arguments.toy else (arguments.epsilons, arguments.runs)
        for name in arguments.only or (("heart",) if arguments.toy else EIGHT):
            sites = sites_of(name, arguments.folder)
            if sites is None:
                continue
            if arguments.toy:
                sites = subset(sites, np.arange(len(sites.labels)) % 4 == 0)
            for epsilon in epsilons:
                rows = [
                    row
                    for row in kept(arguments, "controllers")
                    if (row["task"], row["epsilon_target"]) != (name, epsilon)
                ]
                rows += measure(name, sites, epsilon, runs, arguments.toy)
                store(arguments, rows)
                for row in summary([row for row in rows if (row["task"], row["epsilon_target"]) == (name, epsilon)]):
                    print(
                        f"{name} epsilon {epsilon:g} {row['controller']}: AUC {row['auc']:.4f}  {row['rounds']:.1f} rounds  {row['share_left']:.0%} left",
                        flush=True,
                    )
    result = load("controllers", arguments)
    draw(arguments.out / "figures" / "controllers.png", result)
    for row in result["summary"]:
        change = (
            ""
            if row["gain"] is None or row["controller"] == "schedule"
            else f" ({row['gain']:+.4f} +- {row['gain_half_width'] or 0:.4f})"
        )
        print(
            f"{row['task']} epsilon {row['epsilon']:g} {row['controller']}: AUC {row['auc']:.4f}{change}, {row['rounds']:.0f} rounds, "
            f"{row['share_left']:.0%} left ({row['runs']} runs)"
        )


if __name__ == "__main__":
    main()
