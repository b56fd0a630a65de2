"""A site hands out something noised once, and anyone trains on it: rows, or sums of products, beside the gradient path at equal (epsilon, delta).

    python experiments/noised_table.py [--runs 3] [--epsilons 1 3 8 12 20] [--toy] [--draw]

Thyroid disease, 9,172 records of five referral sources, eight yes/no columns: four laboratory values, each below or above its reference range. What is
asked first is the diagnosis; afterwards, of the same release, each of the eight columns from the rest. Everywhere the unit is one record
and the adjacency is replace-one, the only one that makes sense for rows.

`rows`: every record becomes counts Poisson(gain (x + offset)) by itself (`mechanisms.experimental.data_embedding`), diagnosis included, and all rows are
handed out. Nobody has to be trusted with two records, and no other record helps to hide this one: the noise of a column is larger than the column. A
model fitted as if nothing had been added is wrong in a known way: noise in a label does no harm on average (the loss is affine in it),
noise in a feature adds its variance to the diagonal of the covariance and so shrinks the feature's weight. `corrected` subtracts this
variance, which is known, and leaves least squares with the covariance that the true columns have (errors in variables; Fuller, Measurement
Error Models, 1987). For a logistic loss no such exact correction exists (Stefanski 1989), but the direction of least squares is that of the linear
discriminant, and AUC sees no more than the direction. Directions in which the corrected covariance lies within what the noise alone reaches
are raised to that level: the sample covariance of n rows of d columns of variance s^2 has eigenvalues up to s^2 + 2 s^2 sqrt(d/n) (Marchenko-Pastur).

`sums`: every site hands out the sums over its records of all products of two columns, coded as -1 and 1, once, by the Poisson embedding with all of the
noise in its own message. They are the sufficient statistics of least squares for every choice of label. `sums, encrypted`: the sites encrypt
them and only their sum is opened, so that each adds a quarter of the noise (one of five may collude).

`gradients`: `fedsgd` for the diagnosis, encrypted, 60 rounds. A second question costs a second budget.

The columns, and the rounds and step of `gradients`, were chosen by hand with the records in view, which flatters all paths.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import load, parser, save, table

import fedjax_poisson as fp
from fedjax_poisson import accounting, randomness
from fedjax_poisson.federated import evaluation
from fedjax_poisson.mechanisms import Mechanism
from fedjax_poisson.mechanisms.experimental import data_embedding
from fedjax_poisson.reports.plotting import EPSILON, PLAIN, PRIVATE, PUBLISHED, PUBLISHED_LIGHT, grid, title

COLUMNS = ("TSH_low", "TSH_high", "T3_low", "T3_high", "T4U_low", "T4U_high", "FTI_low", "FTI_high")
DELTA, LARGEST_SITE, ROUNDS = 1e-4, 4096, 60
OFFSET = 9.5  # the largest relative change of a rate is 0.5 / (offset + 0.5) = 0.05, as in `poisson_embedding`
ORDERS = np.concatenate([np.linspace(1.05, 1.95, 19), accounting.DEFAULT_ORDERS])
ROWS, NAIVE, SUMS, SUM, GRADIENTS = "rows, corrected", "rows, as they are", "sums", "sums, encrypted", "gradients"
STYLES = {  # name, colour, marker, and a factor of epsilon that keeps bars apart
    ROWS: ("rows", PRIVATE, "o", 1.0),
    SUMS: ("sums, each site's noised by itself", PUBLISHED_LIGHT, "s", 0.96),
    SUM: ("sums, only their encrypted sum opened", PUBLISHED, "D", 1.0),
    GRADIENTS: ("gradients, 60 encrypted rounds", EPSILON, "^", 1.04),
}


class Moments(NamedTuple):
    """What least squares needs to know, for any label.

    Attributes:
      mean: float64 `[p]`.
      covariance: float64 `[p, p]`, not necessarily positive.
      floor: float64, what noise alone adds to an eigenvalue of a block of the covariance.
    """

    mean: np.ndarray
    covariance: np.ndarray
    floor: float


def columns_of(sites: fp.data.Sites) -> fp.data.Sites:
    """The eight columns alone."""
    kept = [sites.feature_names.index(name) for name in COLUMNS]
    assert sites.binary[kept].all()
    return dataclasses.replace(
        sites,
        features=sites.features[:, kept],
        feature_names=COLUMNS,
        feature_bounds=sites.feature_bounds[kept],
        binary=sites.binary[kept],
    )


def whole_rows(sites: fp.data.Sites, train: bool) -> np.ndarray:
    """float32 `[n, 9]` of 0 and 1: the columns, then the diagnosis."""
    own = sites.train == train
    return np.column_stack([sites.features[own], sites.labels[own]]).astype(np.float32)


def stated_epsilon(mechanism: Mechanism, target: float, dimension: int, *, senders: int, honest: int) -> float:
    """Epsilon of one release at `DELTA`, replace-one, the distance of the samplers from their laws included."""
    draw = mechanism.facts.sampler_distance
    distance = accounting.release_distance(senders=senders, dimension=dimension, draw=draw)
    reserve = accounting.plan_reserve(target, DELTA, distance)
    read = accounting.epsilon(ORDERS, mechanism.rdp(ORDERS, honest, dimension, "replace_one"), DELTA - reserve)
    if mechanism.cost is None:
        return read
    return min(read, accounting.fixed_plan_epsilon([mechanism.cost(honest, dimension, "replace_one")], DELTA - reserve))


def row_mechanism(epsilon: float, dimension: int) -> Mechanism:
    """The data embedding with the largest gain that this epsilon allows: its curve is linear in the gain."""
    low, high = 1e-6, 1e6
    for _ in range(60):
        gain = math.sqrt(low * high)
        curve = accounting.experimental.data_embedding_rdp(ORDERS, gain=gain, offset=OFFSET, pixels=dimension)
        reserve = accounting.plan_reserve(epsilon, DELTA, accounting.release_distance(senders=1, dimension=dimension))
        low, high = (gain, high) if accounting.epsilon(ORDERS, curve, DELTA - reserve) <= epsilon else (low, gain)
    return data_embedding(gain=low, offset=OFFSET)


@functools.partial(jax.jit, static_argnums=0)
def _row_counts(mechanism: Mechanism, stream: randomness.Stream, rows: jax.Array) -> jax.Array:
    numbers = jnp.arange(len(rows), dtype=jnp.uint32)
    return jax.vmap(lambda i, row: mechanism.privatize(randomness.fold_in(stream, i, "row"), row))(numbers, rows)


def noised_rows(mechanism: Mechanism, rows: np.ndarray) -> np.ndarray:
    """What is handed out for each record, as an unbiased estimate of it, float64 `[n, p]`."""
    counts = _row_counts(mechanism, randomness.stream(), jnp.asarray(rows))
    return np.asarray(mechanism.estimate(counts, 1), np.float64)


def row_moments(rows: np.ndarray, variance: Callable[[np.ndarray], np.ndarray] | None) -> Moments:
    """Moments of the true rows from noised ones.

    Args:
      rows: `[n, p]`.
      variance: `(mean [p]) -> [p]`, the mean variance of the noise of each column; None takes the rows as they are.
    """
    mean, covariance = rows.mean(axis=0), np.cov(rows.T)
    if variance is None:
        return Moments(mean, covariance, 0.0)
    noise = variance(mean)
    floor = 2 * float(noise.max()) * math.sqrt((rows.shape[1] - 1) / len(rows))
    return Moments(mean, covariance - np.diag(noise), floor)


def products(rows: np.ndarray) -> np.ndarray:
    """float32 `[n, p (p + 1) / 2]` of -1 and 1: each column, then each pair's product, with 0 and 1 coded as -1 and 1."""
    coded = np.column_stack([np.ones(len(rows)), 2 * rows - 1]).astype(np.float32)
    first, second = np.triu_indices(coded.shape[1], 1)
    return coded[:, first] * coded[:, second]


def sum_mechanism(epsilon: float, dimension: int, sites: int, honest: int) -> Mechanism:
    """The Poisson embedding of a site's sum of products, one release."""
    return fp.calibrate(
        epsilon=epsilon,
        delta=DELTA,
        rounds=1,
        senders=sites,
        honest_senders=honest,
        dimension=dimension,
        unit="record",
        clip_norm=math.sqrt(dimension) * (1 + 1e-6),  # a vector of ones is not to be shortened by rounding
        coordinate_bound=1.0,
        largest_site=LARGEST_SITE,
        adjacency="replace_one",
    ).mechanism


@functools.partial(jax.jit, static_argnums=0)
def _clipped(mechanism: Mechanism, contributions: jax.Array) -> jax.Array:
    return jax.vmap(mechanism.clip)(contributions)


@functools.partial(jax.jit, static_argnums=0)
def _sum_counts(mechanism: Mechanism, stream: randomness.Stream, grids: jax.Array) -> jax.Array:
    numbers = jnp.arange(len(grids), dtype=jnp.uint32)
    return jax.vmap(lambda i, grid: mechanism.embed(randomness.fold_in(stream, i, "sum"), grid))(numbers, grids)


def noised_sums(mechanism: Mechanism, rows: np.ndarray, site: np.ndarray, *, encrypted: bool) -> np.ndarray:
    """Estimated sums of the products over all records, float64 `[p (p + 1) / 2]`.

    Args:
      mechanism: `sum_mechanism`; with all of the noise in every site's counts unless they are encrypted.
      rows: float32 `[n, p]` of 0 and 1.
      site: int `[n]`.
      encrypted: only the encrypted sum is opened; else every site's counts are handed out and anyone adds them.
    """
    sites = np.unique(site)
    clipped = np.asarray(_clipped(mechanism, jnp.asarray(products(rows))))
    own = np.stack([clipped[site == number].sum(axis=0) for number in sites])
    grids, stream = jnp.asarray(own, jnp.int32), randomness.stream()
    if not encrypted:
        counts = np.asarray(_sum_counts(mechanism, stream, grids)).astype(np.int64).sum(axis=0)
        return np.asarray(mechanism.estimate(counts.astype(np.int32), len(sites)), np.float64)
    senders, size = grids.shape
    bound = mechanism.count_bound(senders, size)
    aggregator = fp.aggregator("round", count_bound=bound, senders=senders, size=size)
    return np.asarray(fp.federated.private_sum(mechanism, aggregator, grids, stream)[0], np.float64)


def sum_moments(sums: np.ndarray, records: int, variance: float) -> Moments:
    """Moments of the rows, coded as -1 and 1, from sums of products whose noise has this variance each."""
    size = round((math.sqrt(8 * len(sums) + 1) + 1) / 2)
    second = np.eye(size)
    second[np.triu_indices(size, 1)] = sums / records
    second = second + second.T - np.eye(size)
    mean = second[0, 1:]
    # The eigenvalues of a symmetric matrix of noise of variance s^2 reach 2 s sqrt(size) (Wigner).
    floor = 2 * math.sqrt(variance) / records * math.sqrt(size - 2)
    return Moments(mean, second[1:, 1:] - np.outer(mean, mean), floor)


def direction(moments: Moments, label: int) -> np.ndarray:
    """Least squares of one column on the others, `[p]` with 0 at the label's place."""
    others = np.arange(len(moments.mean)) != label
    values, vectors = np.linalg.eigh(moments.covariance[np.ix_(others, others)])
    solved = vectors @ ((vectors.T @ moments.covariance[others, label]) / np.maximum(values, max(moments.floor, 1e-6)))
    found = np.zeros(len(others))
    found[others] = solved
    return found


def naive_logistic(rows: np.ndarray, label: int) -> np.ndarray:
    """Logistic regression of one column on noised rows as if nothing had been added, `[p]` with 0 at the label's place.

    Newton's method with a small ridge and short steps; the loss is affine in the label, which noise has moved off 0 and 1.
    """
    others = np.arange(rows.shape[1]) != label
    x, y = np.column_stack([rows[:, others], np.ones(len(rows))]), rows[:, label]
    ridge, weights = 1e-2 * np.eye(x.shape[1]), np.zeros(x.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        curvature = x.T @ (x * (p * (1 - p))[:, None]) / len(x) + ridge
        step = np.linalg.solve(curvature, x.T @ (p - y) / len(x) + ridge @ weights)
        weights -= step * min(1.0, 2.0 / (float(np.linalg.norm(step)) + 1e-12))
    found = np.zeros(len(others))
    found[others] = weights[:-1]
    return found


def scores(weights: Callable[[int], np.ndarray], test: np.ndarray) -> dict[str, Any]:
    """AUC for the diagnosis, and the mean of it for each column from all the rest."""

    def auc(label: int) -> float:
        found = evaluation.all_scores(test @ weights(label), test[:, label])["auc"]
        return math.nan if found is None else float(found)

    last = test.shape[1] - 1
    return {"auc": auc(last), "auc_other_questions": float(np.mean([auc(label) for label in range(last)]))}


def gradients(sites: fp.data.Sites, epsilon: float, rounds: int) -> dict[str, Any]:
    """`fedsgd` for the diagnosis."""
    scaler = fp.federated.bounds_scaler(sites.feature_bounds, int(sites.train.sum()))
    train, test = (fp.federated.records_of(sites, split, scaler) for split in (True, False))
    model, count = fp.models.logistic(), len(sites.site_names)
    size = fp.federated.dimension_of(model, (len(COLUMNS),))
    mechanism, ledger = fp.calibrate(
        epsilon=epsilon,
        delta=DELTA,
        rounds=rounds,
        senders=count,
        dimension=size,
        unit="record",
        clip_norm=1.0,
        largest_site=LARGEST_SITE,
        adjacency="replace_one",
    )
    algorithm = fp.fedsgd(
        model,
        features=len(COLUMNS),
        records=int(sites.train.sum()),
        sampling_rate=1.0,
        senders=count,
        mechanism=mechanism,
        ledger=ledger,
        aggregator=fp.aggregator("round", count_bound=mechanism.count_bound(count, size), senders=count, size=size),
        server_optimizer=optax.sgd(5.0, momentum=0.8),
        average_from=rounds // 2,
        adjacency="replace_one",
    )
    evaluate = fp.evaluator(model, test)
    result = fp.fit(algorithm, train, rounds=rounds, evaluate=evaluate, evaluate_every=rounds, progress=False)
    return {"auc": result.history[-1]["auc"], "auc_other_questions": None, "epsilon": result.epsilon}


def once(sites: fp.data.Sites, epsilon: float, kind: str, mechanism: Mechanism) -> list[dict[str, Any]]:
    """One release that is handed out once, and what is trained on it."""
    train, test = whole_rows(sites, True), whole_rows(sites, False)
    if kind == ROWS:
        given = noised_rows(mechanism, train)
        # Poisson: a count has its mean as variance, so an estimate of x has (x + offset) / gain, at x = 1 the mechanism's bound.
        per_unit = mechanism.variance(1) / (1 + OFFSET)
        moments = row_moments(given, lambda mean: (mean + OFFSET) * per_unit)
        spent = stated_epsilon(mechanism, epsilon, train.shape[1], senders=1, honest=1)
        as_it_is = scores(lambda label: naive_logistic(given, label), test)
        return [
            {"kind": ROWS, "epsilon": spent, **scores(lambda label: direction(moments, label), test)},
            {"kind": NAIVE, "epsilon": spent, **as_it_is},
        ]
    count, encrypted = len(sites.site_names), kind == SUM
    senders, honest = (count, count - 1) if encrypted else (1, 1)
    given = noised_sums(mechanism, train, sites.site[sites.train], encrypted=encrypted)
    moments = sum_moments(given, len(train), mechanism.variance(count))
    spent = stated_epsilon(mechanism, epsilon, len(given), senders=senders, honest=honest)
    return [{"kind": kind, "epsilon": spent, **scores(lambda label: direction(moments, label), test)}]


def measure(sites: fp.data.Sites, epsilons: Sequence[float], runs: int, rounds: int) -> list[dict[str, Any]]:
    """All rows; those without privacy come last. What is handed out once is quick, and is repeated four times as often."""
    found: list[dict[str, Any]] = []
    size, count = len(COLUMNS) + 1, len(sites.site_names)
    pairs = size * (size + 1) // 2

    def keep(epsilon: float | None, run: int, rows: list[dict[str, Any]]) -> None:
        found.extend({"epsilon_target": epsilon, "run": run, **row} for row in rows)
        budget = "no privacy" if epsilon is None else f"epsilon {epsilon:g}"
        print(f"{budget}  " + "  ".join(f"{row['kind']}: {row['auc']:.3f}" for row in rows), flush=True)

    for epsilon in epsilons:
        mechanisms = {
            ROWS: row_mechanism(epsilon, size),
            SUMS: sum_mechanism(epsilon, pairs, 1, 1),
            SUM: sum_mechanism(epsilon, pairs, count, count - 1),
        }
        for kind, mechanism in mechanisms.items():
            for run in range(4 * runs):
                keep(epsilon, run, once(sites, epsilon, kind, mechanism))
        for run in range(runs):
            keep(epsilon, run, [{"kind": GRADIENTS, **gradients(sites, epsilon, rounds)}])
    train, test = whole_rows(sites, True), whole_rows(sites, False)
    moments = row_moments(train, None)
    least_squares = scores(lambda label: direction(moments, label), test)
    logistic = scores(lambda label: naive_logistic(train, label), test)
    keep(None, 0, [{"kind": ROWS, "epsilon": None, **least_squares}, {"kind": NAIVE, "epsilon": None, **logistic}])
    return found


def draw(result: dict[str, Any], path: Path) -> None:
    """AUC against epsilon: everything, and beside it what is near the clear model on an axis of its own."""
    figure, both = grid(4.8, 1, 2)
    budgets = sorted({row["epsilon"] for row in result["table"] if row["epsilon"] is not None})
    clear = next(row["auc"] for row in result["table"] if row["key"] == [ROWS, None])
    for panel, kinds, heading in (
        (both[0], (ROWS, SUMS, SUM, GRADIENTS), "Handed out once, or trained together"),
        (both[1], (SUMS, SUM, GRADIENTS), "The same without rows, enlarged"),
    ):
        panel.axhline(clear, color=PLAIN, linestyle="--", linewidth=1.5, label="least squares in the clear")
        for kind in kinds:
            own = [row for row in result["table"] if row["key"][0] == kind and row["epsilon"] is not None]
            name, colour, marker, aside = STYLES[kind]
            panel.errorbar(
                [aside * row["epsilon"] for row in own],
                [row["auc"] for row in own],
                yerr=[1.96 * (row["auc_error"] or 0.0) for row in own],
                marker=marker,
                markersize=5,
                color=colour,
                linewidth=1.8,
                elinewidth=1.3,
                capsize=3,
                label=name,
            )
        panel.set_xscale("log")
        panel.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
        panel.minorticks_off()
        panel.set_xlabel("epsilon")
        title(panel, heading)
    both[0].set_ylabel("AUC for the diagnosis, test records pooled")
    both[0].set_ylim(bottom=0.2)  # room for the legend
    both[0].legend(frameon=False, fontsize=9.5, loc="lower right")
    figure.supxlabel(
        f"thyroid disease, eight yes/no columns; delta {result['delta']:g}, unit: one record, replace-one; bars: 95 % interval of the mean",
        fontsize=9.5,
    )
    figure.savefig(path)


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, runs=3)
    options.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 3.0, 8.0, 12.0, 20.0])
    arguments = options.parse_args(argv)
    if not arguments.draw:
        epsilons, runs, rounds = ([8.0], 1, 2) if arguments.toy else (arguments.epsilons, arguments.runs, ROUNDS)
        rows = measure(columns_of(fp.data.load("thyroid")), epsilons, runs, rounds)
        found = {
            "columns": COLUMNS,
            "delta": DELTA,
            "unit": "record",
            "adjacency": "replace_one",
            "offset": OFFSET,
            "rounds": rounds,
            "rows": rows,
            "table": table(rows, lambda row: (row["kind"], row["epsilon_target"]), ("auc", "auc_other_questions")),
        }
        save("noised_table", arguments, found)
    result = load("noised_table", arguments)
    draw(result, arguments.out / "figures" / "noised_table.png")
    for row in result["table"]:
        print(row)


if __name__ == "__main__":
    main()
