"""Scores on held-out records from one private, encrypted sum: the accuracy of each site, and the AUC, with noise set by the budget.

A record contributes one vector: a 1 for its site's count, a 1 for its site's correct decisions where the model is right, and a 1 in the histogram of
predicted probabilities of its label. So its Euclidean norm is at most sqrt(3) and no entry exceeds 1; a patient with several records contributes the mean
of their vectors. No unit is both held out and trained on, but the release is still charged to the same budget, so that no argument about the split is
needed.

Everything here is a function of the opened sum: scores are estimates whose standard error follows from the variance of the noise.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson.aggregation import Aggregator
from fedjax_poisson.federated import records as records_lib
from fedjax_poisson.federated.curves import noisy_operating_points, noisy_reliability, totals_show
from fedjax_poisson.federated.intervals import private_intervals
from fedjax_poisson.federated.private_sum import Gate, SumInfo, private_sum
from fedjax_poisson.federated.records import Records
from fedjax_poisson.mechanisms.types import Mechanism, partial_of
from fedjax_poisson.randomness import Stream

BINS = 32
"""Bins of the predicted probability, equally wide; even, so that one half is an edge and the decision can be read off."""

CLIP_NORM = math.sqrt(3.0)
"""L2 bound of one unit's vector."""


def score_dimension(sites: int) -> int:
    """Length of the score vector: a count and the correct decisions of each site, and a histogram for each label."""
    return 2 * sites + 2 * BINS


def private_scores(
    probabilities: Array,
    cohort: Records,
    *,
    mechanism: Mechanism,
    aggregator: Aggregator,
    stream: Stream,
    gate: Gate | None = None,
    largest_unit: int = 1,
) -> tuple[np.ndarray, SumInfo]:
    """One release: the summed score vectors of all held-out records.

    Args:
      probabilities: float32 `[S, n]`, the model's probability of class 1.
      cohort: the held-out records; labels 0 or 1.
      mechanism: integer mechanism with `clip_norm` of at least `CLIP_NORM` and a `coordinate_bound` of at least 1 (smaller ones would clip every record).
      aggregator: encryption backend for `score_dimension(S)` values.
      stream: this release's stream.
      gate: asked before the sum is opened.
      largest_unit: records of the largest unit.

    Returns:
      float64 `[2 S + 2 BINS]`, the estimated sum, and what the release cost.
    """
    grids = score_grids(mechanism, largest_unit, probabilities, cohort)
    sites = grids.shape[0]
    own = jax.nn.one_hot(jnp.arange(sites), sites, dtype=jnp.int32)  # each site's count stands in a place of its own
    rows = jnp.concatenate([own * grids[:, :1], own * grids[:, 1:2], grids[:, 2:]], axis=1)
    total, info = private_sum(mechanism, aggregator, rows, stream, gate=gate)
    return np.asarray(total, np.float64), info


def score_grids(mechanism: Mechanism, largest_unit: int, probabilities: Array, cohort: Records) -> Array:
    """Each site's summed vectors `[count, correct, histogram of label 0, of label 1]` on the mechanism's grid, int32 `[S, 2 + 2 BINS]`."""
    records_lib.check_sums_fit(mechanism, cohort.labels.shape[1])
    return _score_grids(largest_unit, partial_of(mechanism.clip, 2 + 2 * BINS), probabilities, cohort)


@functools.partial(jax.jit, static_argnums=0)
def _score_grids(largest_unit: int, clip: Partial, probabilities: Array, cohort: Records) -> Array:
    everyone = jnp.ones(cohort.labels.shape[1], bool)

    def contribution(chance: Array, label: Array) -> Array:
        place = jnp.clip((chance * jnp.float32(BINS)).astype(jnp.int32), 0, BINS - 1)
        positive = label > jnp.float32(0.5)
        right = (place >= BINS // 2) == positive
        row = jax.nn.one_hot(place + jnp.where(positive, BINS, 0), 2 * BINS, dtype=jnp.float32)
        return jnp.concatenate([jnp.ones(1, jnp.float32), right.astype(jnp.float32)[None], row])

    def one_site(chance: Array, labels: Array, unit: Array) -> Array:
        return records_lib.summed_contributions(
            contribution, clip, chance, labels, unit, everyone, largest_unit=largest_unit, average=True
        )

    return jax.vmap(one_site)(probabilities, cohort.labels.astype(jnp.float32), cohort.unit)


def scores_of(total: np.ndarray, deviation: float, site_names: tuple[str, ...]) -> dict[str, Any]:
    """Scores from an (estimated or exact) sum of score vectors; None where noise leaves nothing to divide by.

    Args:
      total: float64 `[2 S + 2 BINS]`.
      deviation: standard deviation of each entry's noise.
      site_names: S names.

    Returns:
      accuracy_by_site, mean_client_accuracy (over sites whose count is above three deviations), pooled_accuracy, auc (ties within a bin count half; noise pulls
      it towards 0.5, since entries below 0 are cut), balanced_accuracy, and pooled_accuracy_error: the standard error that the noise alone gives the pooled
      accuracy; intervals, reliability and curves, which a report draws: all of them functions of the same released sum.
    """
    sites = len(site_names)
    counts, right, histogram = total[:sites], total[sites : 2 * sites], total[2 * sites :].reshape(2, BINS)
    by_site = {
        name: float(np.clip(right[s] / counts[s], 0, 1)) if counts[s] > max(3 * deviation, 1) else None
        for s, name in enumerate(site_names)
    }
    known = [value for value in by_site.values() if value is not None]
    all_counts, spread = counts.sum(), deviation * math.sqrt(sites)
    pooled, error = None, None
    if all_counts > max(3 * spread, 1):
        pooled = float(np.clip(right.sum() / all_counts, 0, 1))
        error = spread * math.sqrt(1 + pooled**2) / float(all_counts)
    kept = np.maximum(histogram, 0)
    negatives, positives = kept.sum(axis=1)
    area = recall = None
    if totals_show(histogram.sum(axis=1), deviation, BINS):
        below = np.cumsum(kept[0]) - kept[0] / 2
        area = float((kept[1] * below).sum() / (negatives * positives))
        half = BINS // 2
        recall = float((kept[0, :half].sum() / negatives + kept[1, half:].sum() / positives) / 2)
    points = noisy_operating_points(histogram, deviation)
    return {
        "mean_client_accuracy": float(np.mean(known)) if known else None,
        "pooled_accuracy": pooled,
        "auc": area,
        "balanced_accuracy": recall,
        "accuracy_by_site": {name: value for name, value in by_site.items() if value is not None},
        "pooled_accuracy_error": error,
        "intervals": private_intervals(total, deviation, site_names),
        "reliability": noisy_reliability(histogram, deviation),
        "curves": {} if points is None else {"points": {"": points}},
    }
