"""The overhead of each component: plain federated learning, + encryption, + the Poisson embedding, + both.

    python experiments/layers.py [--rounds N] [--runs 3] [--toy]

The tasks are Fed-Heart (logistic regression) and a small CNN on the synthetic radiographs. Plain: the sums of the clipped gradients of the same secret
samples, as integers on the grid, without noise and in the clear. + encryption: the same integers under CKKS. + embedding: Poisson counts in the clear.
+ both: what a run does. All use the clip and the step size of the private recipe. All four use one seed, so that models can be compared bit by bit:
encryption must not change any bit. Samples and noise of one seed say little about a network: `*_of_seeds` has the scores of further seeds (--runs).
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import COLOURS, load, parser, save, write

from fedjax_poisson import trees
from fedjax_poisson.aggregation import aggregator as make_aggregator
from fedjax_poisson.federated import evaluation, reference, standardize
from fedjax_poisson.mechanisms import Mechanism
from fedjax_poisson.randomness import GRID_BITS, ReproducibleStreamWarning, fold_in, stream
from fedjax_poisson.reports.plotting import canvas, title
from fedjax_poisson.runs.build import RunSetup, algorithm_for, build, learned_records, training_units
from fedjax_poisson.runs.config import Config, recipe
from fedjax_poisson.runs.scoring import predictions

LAYERS = (
    ("plain", False, False),
    ("+ encryption", True, False),
    ("+ embedding", False, True),
    ("+ both", True, True),
)


def without_noise(mechanism: Mechanism) -> Mechanism:
    """The same clip and clamp, with the grid itself as the message: no privacy."""
    assert mechanism.bounds.grid_step is not None
    step, top = mechanism.bounds.grid_step, 2**GRID_BITS
    return mechanism._replace(
        portions=None,
        embed=lambda stream, grid: jnp.clip(grid, jnp.int32(-top), jnp.int32(top)),
        estimate=lambda total, senders: jnp.asarray(total).astype(jnp.float32) * jnp.float32(step),
        count_bound=lambda senders, dimension, failure=0.0: senders * top,
    )


def one(setting: RunSetup, encrypt: bool, embed: bool, seed: int) -> tuple[dict[str, Any], np.ndarray]:
    """Train with some of the components; returns the row and the flattened final parameters."""
    config, sites = setting.config, setting.sites
    plan = setting.plan
    if not embed:
        priced = plan.train.priced._replace(mechanism=without_noise(plan.train.mechanism))
        plan = plan._replace(train=plan.train._replace(priced=priced), portions=None)
    mechanism, setting = plan.train.mechanism, setting._replace(plan=plan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReproducibleStreamWarning)
        root = stream(seed)
    if config.standardize == "bounds":
        scaler = standardize.bounds_scaler(sites.feature_bounds, training_units(config, setting.train))
    else:
        scaler = reference.exact_scaler(setting.train, sites.feature_bounds, sites.binary)
    backend = make_aggregator(
        "round" if encrypt else "plain",
        count_bound=mechanism.count_bound(setting.plan.senders, setting.dimension),
        senders=setting.plan.senders,
        minimum_senders=setting.plan.senders,
        size=setting.dimension,
        stream=fold_in(root, "keys"),
    )
    algorithm = algorithm_for(setting, scaler, backend)
    cohort, test = (learned_records(setting, scaler, part) for part in (setting.train, setting.test))
    state = algorithm.init(jax.random.key(0))
    phases, info = {phase: list[float]() for phase in ("whole", "embed", "encrypt", "add", "open")}, None
    for number in range(setting.recipe.rounds + 1):  # round 0 compiles and is not counted
        if number == 1:
            state = algorithm.init(jax.random.key(0))
        started = time.perf_counter()
        state, info = algorithm.apply(state, cohort, fold_in(root, "train", number))
        if number:
            phases["whole"].append(time.perf_counter() - started)
            for phase in ("embed", "encrypt", "add", "open"):
                phases[phase].append(getattr(info.sum, f"{phase}_seconds"))
    medians = {phase: float(np.median(values)) for phase, values in phases.items()}
    assert info is not None
    params = algorithm.parameters(state)
    labels, mask = np.asarray(test.labels, np.int64), np.asarray(test.mask)
    scores = evaluation.scores(predictions(setting, params, test), labels, mask, sites.site_names)
    row = {
        "accuracy": scores["mean_client_accuracy"],
        "auc": scores["auc"],
        "seconds_per_round": medians.pop("whole"),  # medians: other programs run on the same cores
        **{f"{phase}_seconds_per_round": value for phase, value in medians.items()},
        "bytes_per_sender_and_round": info.sum.bytes_up_per_sender,
        "float32_bytes": 4 * setting.dimension,
        "dimension": setting.dimension,
    }
    return row, np.asarray(trees.flatten(params))


def measure(configs: dict[str, Config]) -> list[dict[str, Any]]:
    """Measure every combination on every task, and whether encryption changed a bit."""
    rows = []
    for task, config in configs.items():
        setting, found = build(config), {}
        for layer, encrypt, embed in LAYERS:
            row, found[layer] = one(setting, encrypt, embed, 1)
            facts = {"layer": layer, "rounds": setting.recipe.rounds, "epsilon": config.epsilon if embed else None}
            rows.append({"task": task, **facts, **row})
            print(rows[-1], flush=True)
        for clear, sealed in (("plain", "+ encryption"), ("+ embedding", "+ both")):
            same = bool(np.array_equal(found[clear].view(np.uint32), found[sealed].view(np.uint32)))
            rows[-1 if sealed == "+ both" else -3]["bits_equal_to_clear"] = same
            print(f"{task}: {sealed} has {'the same bits as' if same else 'DIFFERENT BITS from'} {clear}")
    return rows


def more_seeds(configs: dict[str, Config], rows: list[dict[str, Any]], seeds: int, embed: bool) -> list[dict[str, Any]]:
    """The rows with scores of seeds 2 to `seeds`, in the clear, beside those of seed 1; an encrypted row has the bits of the one in the clear."""
    for task, config in configs.items():
        own = [row for row in rows if row["task"] == task and (row["epsilon"] is not None) == embed]
        setting = build(config)
        for seed in range(2, seeds + 1):
            found, _ = one(setting, False, embed, seed)
            print(
                f"{task}, {own[0]['layer']}, seed {seed}: accuracy {found['accuracy']:.3f}  AUC {found['auc']:.3f}",
                flush=True,
            )
            for row in own:
                for score in ("accuracy", "auc"):
                    row[f"{score}_of_seeds"] = [*row.get(f"{score}_of_seeds", [row[score]])[: seed - 1], found[score]]
    return rows


def draw(rows: list[dict[str, Any]], path: Any) -> None:
    """Draw seconds per round by component and phase."""
    figure, axes = canvas(4.4)
    phases = ("gradients", "embed", "encrypt, or only pack", "add", "open")
    names = [f"{row['task']}\n{row['layer']}" for row in rows]
    for i, row in enumerate(rows):
        parts = [row[f"{phase}_seconds_per_round"] for phase in ("embed", "encrypt", "add", "open")]
        rest = max(row["seconds_per_round"] - sum(parts), 0.0)
        left = 0.0
        for phase, value, colour in zip(phases, [rest, *parts], ("#999999", *COLOURS), strict=True):
            axes.barh(i, 1e3 * value, left=left, color=colour, label=phase if i == 0 else None)
            left += 1e3 * value
        axes.annotate(
            f"{row['bytes_per_sender_and_round'] / 1e3:.3g} kB",
            (left, i),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
        )
    axes.set_yticks(range(len(rows)), names, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * 1e3 * max(row["seconds_per_round"] for row in rows))
    axes.set_xlabel("milliseconds per round, all senders in sequence; label: bytes sent per sender and round")
    axes.legend(frameon=False, fontsize=9.5, loc="upper right")
    title(axes, "The overhead of each component")
    figure.savefig(path)


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, runs=3)
    options.add_argument("--rounds", type=int, help="default: those of each recipe")
    options.add_argument(
        "--scores-only",
        action="store_true",
        help="keep times, which need a quiet machine; only the scores of more seeds",
    )
    arguments = options.parse_args(argv)
    if not arguments.draw:
        rounds = 2 if arguments.toy else arguments.rounds
        given = {} if rounds is None else {"rounds": rounds}
        configs = {"heart, 14 parameters": recipe("heart", **given)}
        if not arguments.toy:
            configs["X-ray phantom, CNN"] = recipe("xray", **given)
        if not arguments.scores_only:
            save("layers", arguments, {"rows": measure(configs)})
        for embed in () if arguments.toy else (True, False):
            found = load("layers", arguments)
            found["rows"] = more_seeds(configs, found["rows"], arguments.runs, embed)
            write("layers", arguments, found)
    draw(load("layers", arguments)["rows"], arguments.out / "figures" / "layers.png")


if __name__ == "__main__":
    main()
