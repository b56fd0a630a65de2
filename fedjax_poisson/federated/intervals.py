"""How far the scores of one model may be off because the test records are few: 95 % intervals, overall and by site.

A share of right decisions gets Wilson's interval, which is valid for a handful of records; where a patient has several records these are not independent,
and it is that of as many independent records as have the same variance (`share_interval`). For every other score whole patients are drawn by the bootstrap
(`evaluation.bootstrap`). An interval says nothing about how much
another run of the same recipe would differ (noise, initial weights). Epsilon does not cover intervals of scores in the clear.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fedjax_poisson.federated import evaluation

__all__ = ["LEVEL", "private_intervals", "right_decisions", "score_intervals", "share_interval", "wilson_interval"]

LEVEL = 0.95
"""Probability of covering."""

_Z = 1.959963984540054  # of the normal law at LEVEL
_FEWEST_DRAWS, _MOST_DRAWS, _ROWS = (
    200,
    1000,
    2_000_000,
)  # resamples of the bootstrap: fewer where there are many records
_MOST_SITES = 30  # sites beyond which none of them gets a resampled interval: it would take longer than the training
_LEAST = 8  # records below which no resampled interval is given


def wilson_interval(frequency: float, count: float, z: float = _Z) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927), valid even for the handful of records in a bin.

    Args:
      frequency: the observed share, 0 to 1.
      count: observations, > 0; need not be whole.
      z: quantile of the normal law.
    """
    centre = (frequency + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(max(frequency * (1 - frequency), 0.0) / count + z**2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def share_interval(right: np.ndarray, owners: np.ndarray) -> tuple[float, float]:
    """95 % interval of the share of right decisions, where those on one owner's records depend on each other.

    Wilson's interval of n / d decisions, with d the design effect (Kish, Survey Sampling, 1965): the variance of the share between owners, that of a ratio of
    two means over owners (Cochran, Sampling Techniques, 1977, chapter 6) and to first order of the bootstrap over owners, over that of n independent decisions.
    An interval of this kind is that of Korn and Graubard (Survey Methodology 24, 1998) with Wilson's in place of Clopper and Pearson's. There are never more
    than n decisions, and as many as owners where all owners have the same share, since then nothing shows how far decisions depend on each other. With one
    record each it is Wilson's own.

    Checked in simulations of 60 patients with 1 to 6 records, all right or all wrong (tests): it covers 93 % at a share of 0.8; but only 84 % at 0.95, where
    three patients are wrong and their numbers of records decide.

    Args:
      right: bool or 0/1 `[n]`, n > 0.
      owners: `[n]`, whose record each is.
    """
    right = np.asarray(right, np.float64)
    place = np.unique(owners, return_inverse=True)[1].reshape(-1)
    sizes, hits = np.bincount(place), np.bincount(place, right)
    count, people, share = len(right), len(sizes), float(right.mean())
    between = 0.0
    if people > 1:
        between = float(np.sum((hits - share * sizes) ** 2)) / count**2 * people / (people - 1)
    independent = share * (1 - share) / max(count - 1, 1)
    if between <= 1e-9 * independent:
        return wilson_interval(share, people)
    return wilson_interval(share, min(count, count * independent / between))


def score_intervals(
    task: str,
    outputs: np.ndarray,
    labels: np.ndarray,
    mask: np.ndarray,
    site_names: Sequence[str],
    groups: np.ndarray | None = None,
) -> dict[str, Any]:
    """Intervals of the scores of `task_scores.scores_of`, by their names.

    Args:
      task: "binary", "multiclass", "multilabel" or "regression".
      outputs: float `[S, n]` or `[S, n, K]`: logits, or numbers in the unit of the labels.
      labels: `[S, n]`, or 0/1 `[S, n, K]`.
      mask: bool `[S, n]`, real records.
      site_names: S names.
      groups: int `[S, n]`, whose record it is; None where every record is its own.

    Returns:
      `{score: [low, high] or None}`, and `{score: {site: [low, high] or None}}` for those by site; None where there are too few records
      or all resamples have one score; no site where there are more than 30 and the score needs resampling.
    """
    outputs, labels, mask = np.asarray(outputs), np.asarray(labels), np.asarray(mask, bool)
    owners = np.arange(mask.size).reshape(mask.shape) if groups is None else np.asarray(groups)
    sites = [(name, s) for s, name in enumerate(site_names) if mask[s].any()]

    def over(score: Callable[..., float | None], where: Any) -> list[float] | None:
        return _resampled(score, outputs[where], labels[where], owners[where])

    def each(score: Callable[..., float | None]) -> dict[str, list[float] | None]:
        return {} if len(sites) > _MOST_SITES else {name: over(score, (s, mask[s])) for name, s in sites}

    if task == "regression":
        return {"rmse": over(_rmse, mask), "rmse_by_site": each(_rmse)}

    def share(where: Any) -> list[float]:
        right = right_decisions(task, outputs[where], labels[where])
        return list(share_interval(right.ravel(), np.repeat(owners[where], right.size // len(right))))

    shares = {"pooled_accuracy": share(mask), "accuracy_by_site": {name: share((s, mask[s])) for name, s in sites}}
    if task == "multilabel":
        return shares
    return {**shares, "auc": over(_auc, mask), "auc_by_site": each(_auc)}


def right_decisions(task: str, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether each decision is right, bool `[n]`, or `[n, K]` of K labels.

    Args:
      task: "binary", "multiclass" or "multilabel".
      outputs: logits `[n]` or `[n, K]`.
      labels: `[n]`, or 0/1 `[n, K]`.
    """
    if task == "multilabel":
        return np.asarray((outputs > 0) == (labels > 0))
    return np.asarray(evaluation.decide(outputs) == labels)


def private_intervals(total: np.ndarray, deviation: float, site_names: Sequence[str]) -> dict[str, Any]:
    """Intervals of accuracies that were released as noisy counts (`private_scores`): few records and the noise of the release together.

    The estimate is right / count. To first order its variance is p (1 - p) / count, from the records, and deviation^2 (1 + p^2) / count^2, from the noise.

    Args:
      total: float64 `[2 S + ...]`, released counts and right decisions of each site.
      deviation: standard deviation of each entry's noise.
      site_names: S names.

    Returns:
      `{"pooled_accuracy": [low, high] or None, "accuracy_by_site": {site: [low, high]}}`; sites whose count drowns in the noise are left out.
    """
    sites = len(site_names)
    counts, right = total[:sites], total[sites : 2 * sites]

    def one(count: float, correct: float, noise: float) -> list[float] | None:
        if count <= max(3 * noise, 1):
            return None
        p = min(max(correct / count, 0.0), 1.0)
        # Wilson's interval of as many records as have the same standard error altogether: it does not vanish at p = 1.
        of_noise = noise**2 * (1 + p**2) / count**2
        low, high = wilson_interval(p, count)
        spread = _Z * math.sqrt(of_noise)
        return [max(0.0, p - math.hypot(p - low, spread)), min(1.0, p + math.hypot(high - p, spread))]

    by_site = {name: one(float(counts[s]), float(right[s]), deviation) for s, name in enumerate(site_names)}
    return {
        "pooled_accuracy": one(float(counts.sum()), float(right.sum()), deviation * math.sqrt(sites)),
        "accuracy_by_site": {name: found for name, found in by_site.items() if found is not None},
    }


def _resampled(
    score: Callable[..., float | None], outputs: np.ndarray, labels: np.ndarray, owners: np.ndarray
) -> list[float] | None:
    if len(np.unique(owners)) < _LEAST:
        return None
    draws = int(np.clip(_ROWS / len(labels), _FEWEST_DRAWS, _MOST_DRAWS))
    try:
        found = evaluation.bootstrap(
            score, outputs, labels, groups=np.unique(owners, return_inverse=True)[1], draws=draws, level=LEVEL
        )
    except ValueError:  # one class alone: the score is not defined
        return None
    # Records that are all sorted rightly, or all missed by as much, are so in every resample: that is no interval of width 0.
    return None if found.low == found.high else [found.low, found.high]


def _auc(outputs: np.ndarray, labels: np.ndarray) -> float | None:
    return evaluation.auc(labels, evaluation.probabilities(outputs) if outputs.ndim == 2 else outputs)


def _rmse(outputs: np.ndarray, labels: np.ndarray) -> float:
    return float(np.sqrt(np.mean((np.asarray(outputs, np.float64) - np.asarray(labels, np.float64)) ** 2)))
