"""What a classifier does at every threshold, as counts from which all its curves follow: ROC, precision-recall and net benefit; and tables of other tasks.

One record of counts, `operating_points`, holds for exact records and for the noisy histogram that a private evaluation released. Curves of records in the
clear show more of the records than a few scores do: a run keeps them only of public ones (`runs.scoring.details`).

*Net benefit* (Vickers and Elkin, Medical Decision Making 26, 2006): whoever acts on a predicted probability of at least t holds one missed case to be as bad
as (1 - t)/t needless actions. In units of found cases for each person it is TP/n - FP/n t/(1 - t); acting on everybody has P/n - N/n t/(1 - t), on nobody 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "Curves",
    "agreement",
    "confusion",
    "curves_of",
    "noisy_operating_points",
    "noisy_reliability",
    "operating_points",
    "totals_show",
]

_GRID = np.linspace(0.0, 1.0, 101)
_MOST = 100  # quantiles of the predictions that are thresholds besides


def operating_points(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Counts at thresholds: a record is called positive where its probability is at least the threshold.

    Args:
      labels: 0/1 `[n]`.
      probabilities: of class 1, `[n]`.

    Returns:
      JSON values: thresholds (rising, from 0), true_positives, false_positives, positives, negatives, deviation (0: exact).

    >>> operating_points(np.array([0, 1]), np.array([0.2, 0.7]))["positives"]
    1
    """
    labels, chances = np.asarray(labels).astype(bool), np.asarray(probabilities, np.float64)
    own = np.unique(chances)
    if len(own) > _MOST:
        own = np.unique(np.quantile(chances, np.linspace(0, 1, _MOST), method="nearest"))
    thresholds = np.unique(np.concatenate([_GRID, own]))
    found = [np.sort(chances[labels]), np.sort(chances[~labels])]
    true, false = (len(each) - np.searchsorted(each, thresholds, side="left") for each in found)
    return {
        "thresholds": thresholds.tolist(),
        "true_positives": true.tolist(),
        "false_positives": false.tolist(),
        "positives": len(found[0]),
        "negatives": len(found[1]),
        "deviation": 0.0,
    }


def noisy_operating_points(histogram: np.ndarray, deviation: float) -> dict[str, Any] | None:
    """The same from a released histogram of predicted probabilities; None where the noise hides one of the classes.

    Args:
      histogram: float64 `[2, B]`, records of label 0 and 1 in equal bins of the probability.
      deviation: standard deviation of each entry's noise.
    """
    bins = histogram.shape[1]
    raw = histogram.sum(axis=1)
    if not totals_show(raw, deviation, bins):
        return None
    # Negative entries cannot be drawn, but to cut them at 0 adds noise of one sign: the totals stay those that were released.
    kept = np.maximum(histogram, 0.0)
    kept *= raw[:, None] / kept.sum(axis=1, keepdims=True)
    negatives, positives = raw.tolist()
    from_above = np.concatenate([np.cumsum(kept[:, ::-1], axis=1)[:, ::-1], np.zeros((2, 1))], axis=1)
    return {
        "thresholds": np.linspace(0, 1, bins + 1).tolist(),
        "true_positives": from_above[1].tolist(),
        "false_positives": from_above[0].tolist(),
        "positives": positives,
        "negatives": negatives,
        "deviation": float(deviation),
    }


def totals_show(totals: np.ndarray, deviation: float, bins: int) -> bool:
    """Whether the released totals of both classes stand out from their noise: a class without records does so in 1 of 741 releases.

    Args:
      totals: float64 `[2]`, sums over a released histogram's bins, with the sign that noise gave them.
      deviation: standard deviation of the noise of each bin.
      bins: of each class.
    """
    return bool(totals.min() > max(3 * deviation * np.sqrt(bins), 1))


def noisy_reliability(histogram: np.ndarray, deviation: float, bins: int = 8) -> dict[str, Any]:
    """`evaluation.reliability` from a released histogram; bins whose count drowns in the noise are left out.

    Args:
      histogram: float64 `[2, B]`, B a multiple of `bins`.
      deviation: standard deviation of each entry's noise.
      bins: of the diagram.
    """
    width = histogram.shape[1] // bins
    negatives, positives = histogram.reshape(2, bins, width).sum(axis=2)
    centres = (np.arange(histogram.shape[1]) + 0.5) / histogram.shape[1]
    weights = np.maximum(histogram.sum(axis=0), 0.0).reshape(bins, width)
    count = negatives + positives
    used = [b for b in range(bins) if count[b] > max(3 * deviation * np.sqrt(2 * width), 1) and weights[b].sum() > 0]
    own = centres.reshape(bins, width)
    return {
        "bins": np.linspace(0, 1, bins + 1).tolist(),
        "confidence": [float((own[b] * weights[b]).sum() / weights[b].sum()) for b in used],
        "frequency": [float(np.clip(positives[b] / count[b], 0, 1)) for b in used],
        "count": [float(count[b]) for b in used],
        "deviation": float(deviation * np.sqrt(width)),
    }


class Curves(NamedTuple):
    """Curves of operating points, float64 `[T]` each, by rising threshold; a ratio without a denominator is nan.

    Attributes:
      thresholds: T.
      sensitivity: share of the positive records that are found (recall).
      false_alarms: share of the negative records that are called positive.
      precision: share of those called positive that are.
      net_benefit: found cases for each record, less needless actions at their weight; nan at a threshold of 1.
      treat_all: the same of calling everybody positive.
      prevalence: share of positive records.
    """

    thresholds: np.ndarray
    sensitivity: np.ndarray
    false_alarms: np.ndarray
    precision: np.ndarray
    net_benefit: np.ndarray
    treat_all: np.ndarray
    prevalence: float


def curves_of(points: Mapping[str, Any]) -> Curves:
    """The curves of `operating_points`.

    Raises:
      ValueError: the points are not such counts.
    """
    try:
        thresholds, true, false = (
            np.asarray(points[name], np.float64) for name in ("thresholds", "true_positives", "false_positives")
        )
        positives, negatives = float(points["positives"]), float(points["negatives"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"these are no operating points ({error!r}); give what operating_points returned.") from error
    if not (thresholds.ndim == 1 and thresholds.shape == true.shape == false.shape and min(positives, negatives) > 0):
        raise ValueError(
            f"operating points with thresholds {thresholds.shape}, counts {true.shape} and {false.shape}, {positives:g} positive and {negatives:g} negative "
            "records: vectors of one length and records of both classes are needed."
        )
    everybody = positives + negatives
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = np.where(thresholds < 1, thresholds / (1 - thresholds), np.nan)
        precision = np.where(true + false > 0, true / (true + false), np.nan)
    return Curves(
        thresholds=thresholds,
        sensitivity=true / positives,
        false_alarms=false / negatives,
        precision=precision,
        net_benefit=(true - false * odds) / everybody,
        treat_all=(positives - negatives * odds) / everybody,
        prevalence=positives / everybody,
    )


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> list[list[int]]:
    """Records by true class (rows) and predicted class (columns), `[K][K]`."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (np.asarray(labels, np.int64), np.asarray(predictions, np.int64)), 1)
    return table.tolist()


def agreement(labels: np.ndarray, predicted: np.ndarray, bins: int = 10) -> dict[str, list[float]]:
    """Calibration of a predicted number: records in equal parts by what was predicted, with the means of both and the error of the label's mean.

    Args:
      labels: `[n]`.
      predicted: `[n]`.
      bins: parts, fewer where there are not ten records for each.
    """
    order = np.argsort(predicted, kind="stable")
    parts = np.array_split(order, max(1, min(bins, len(order) // 10)))
    labels, predicted = np.asarray(labels, np.float64), np.asarray(predicted, np.float64)
    return {
        "predicted": [float(predicted[part].mean()) for part in parts],
        "observed": [float(labels[part].mean()) for part in parts],
        "standard_error": [
            float(labels[part].std(ddof=1) / np.sqrt(len(part))) if len(part) > 1 else 0.0 for part in parts
        ],
        "count": [float(len(part)) for part in parts],
    }
