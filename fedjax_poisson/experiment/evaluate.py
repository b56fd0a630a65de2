"""Scores of a binary classifier per site and pooled. In a simulation they are computed on test records in the clear: epsilon does not cover them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats


def auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Area under the ROC curve (Mann-Whitney, ties count half); None where only one class is present.

    Args:
      labels: 0/1 `[n]`.
      scores: `[n]`, larger means class 1.
    """
    labels = np.asarray(labels).astype(bool)
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return None
    ranks = stats.rankdata(scores)
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def balanced_accuracy(labels: np.ndarray, predictions: np.ndarray) -> float | None:
    """Mean of sensitivity and specificity; None where only one class is present."""
    labels = np.asarray(labels).astype(bool)
    if labels.all() or not labels.any():
        return None
    hit = np.asarray(predictions).astype(bool) == labels
    return float((hit[labels].mean() + hit[~labels].mean()) / 2)


def reliability(labels: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> dict[str, list[Any]]:
    """Reliability diagram: mean predicted probability against observed frequency in equal-width bins."""
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.digitize(probabilities, edges) - 1, 0, bins - 1)
    used = [b for b in range(bins) if (index == b).any()]
    return {
        "bins": [float(x) for x in edges],
        "confidence": [float(probabilities[index == b].mean()) for b in used],
        "frequency": [float(np.asarray(labels)[index == b].mean()) for b in used],
        "count": [int((index == b).sum()) for b in used],
    }


def scores(logits: np.ndarray, labels: np.ndarray, mask: np.ndarray, site_names: Sequence[str]) -> dict[str, Any]:
    """All scores of one set of predictions.

    Args:
      logits: float `[S, n]`; the decision is logit > 0.
      labels: 0/1 `[S, n]`.
      mask: bool `[S, n]`, real records.
      site_names: S names.

    Returns:
      mean_client_accuracy (unweighted over sites with test records), pooled_accuracy, auc, balanced_accuracy, accuracy_by_site,
      auc_by_site.
    """
    correct = (logits > 0) == (labels > 0)
    filled = [s for s in range(len(site_names)) if mask[s].any()]
    by_site = {site_names[s]: float(correct[s][mask[s]].mean()) for s in filled}
    if not by_site:
        raise ValueError("No site has a test record: nothing to evaluate; choose a larger test fraction.")
    pooled_labels, pooled_logits = labels[mask], logits[mask]
    return {
        "mean_client_accuracy": float(np.mean(list(by_site.values()))),
        "pooled_accuracy": float(correct[mask].mean()),
        "auc": auc(pooled_labels, pooled_logits),
        "balanced_accuracy": balanced_accuracy(pooled_labels, pooled_logits > 0),
        "accuracy_by_site": by_site,
        "auc_by_site": {site_names[s]: auc(labels[s][mask[s]], logits[s][mask[s]]) for s in filled},
    }
