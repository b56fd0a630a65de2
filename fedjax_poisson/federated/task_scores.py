"""Scores of models of several yes/no labels and of a number, in the form in which a run keeps those of classifiers (`evaluation.scores`).

Every task has the same names, so that summaries, figures and reports need not know which: a score that a task does not have is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjax_poisson.federated import evaluation

NUMBERS = ("rmse", "mean_absolute_error", "r2", "rmse_by_site", "r2_by_site")
"""Scores of a regression."""

SCORES = (*evaluation.SCORES, "auc_by_label", *NUMBERS)
"""What `scores_of` returns: `auc_by_label` are those of each class against the rest, or of each of several labels."""


def scores_of(
    task: str,
    outputs: np.ndarray,
    labels: np.ndarray,
    mask: np.ndarray,
    site_names: Sequence[str],
    label_names: Sequence[str] = (),
) -> dict[str, Any]:
    """The scores of one set of predictions.

    Args:
      task: "binary", "multiclass", "multilabel" or "regression".
      outputs: float `[S, n]` or `[S, n, K]`: logits, or numbers in the unit of the labels.
      labels: `[S, n]`, or 0/1 `[S, n, K]`.
      mask: bool `[S, n]`, real records.
      site_names: S names.
      label_names: of the classes or labels.

    Returns:
      Every name of `SCORES`.

    Raises:
      ValueError: no site has a test record.
    """
    outputs, labels, mask = np.asarray(outputs), np.asarray(labels), np.asarray(mask, bool)
    if not mask.any():
        raise ValueError("No site has a test record: nothing to evaluate; choose a larger test fraction.")
    found: dict[str, Any] = dict.fromkeys(SCORES)
    if task == "regression":
        return found | regression_scores(outputs, labels, mask, site_names)
    if task == "multilabel":
        return found | multilabel_scores(outputs, labels, mask, site_names, label_names)
    found |= evaluation.scores(outputs, labels, mask, site_names)
    if task == "multiclass":
        chances, classes = evaluation.probabilities(outputs[mask]), labels[mask]
        found["auc_by_label"] = {
            name: evaluation.auc(classes == k, chances[:, k]) for k, name in enumerate(label_names)
        }
    return found


def multilabel_scores(
    logits: np.ndarray, labels: np.ndarray, mask: np.ndarray, site_names: Sequence[str], label_names: Sequence[str]
) -> dict[str, Any]:
    """Scores of K yes/no labels, each the unweighted mean over the labels; accuracy is the share of right decisions.

    Args:
      logits: float `[S, n, K]`.
      labels: 0/1 `[S, n, K]`.
      mask: bool `[S, n]`.
      site_names: S names.
      label_names: K names.
    """

    def one(logits: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
        return [evaluation.all_scores(logits[:, k], labels[:, k]) for k in range(labels.shape[1])]

    pooled = one(logits[mask], labels[mask].astype(np.int64))
    sites = {
        name: one(logits[s][mask[s]], labels[s][mask[s]].astype(np.int64))
        for s, name in enumerate(site_names)
        if mask[s].any()
    }
    by_site = {
        score: {name: _mean(own, score) for name, own in sites.items()}
        for score in ("accuracy", "auc", "calibration_error")
    }
    return {
        "mean_client_accuracy": float(np.mean(list(by_site["accuracy"].values()))),
        "pooled_accuracy": _mean(pooled, "accuracy"),
        **{name: _mean(pooled, name) for name in ("auc", "balanced_accuracy", "brier", "calibration_error")},
        **{f"{score}_by_site": found for score, found in by_site.items()},
        "auc_by_label": {name: own["auc"] for name, own in zip(label_names, pooled, strict=True)},
    }


def regression_scores(
    predicted: np.ndarray, labels: np.ndarray, mask: np.ndarray, site_names: Sequence[str]
) -> dict[str, Any]:
    """Root mean squared error, mean absolute error and R2, pooled, and the first and last for each site.

    R2 is 1 less the squared error over that of the mean of the same labels: 0 is what the mean alone would reach, and it may be negative; None where
    all labels are alike.

    Args:
      predicted: float `[S, n]`, in the unit of the labels.
      labels: `[S, n]`.
      mask: bool `[S, n]`.
      site_names: S names.
    """
    own = [(name, s) for s, name in enumerate(site_names) if mask[s].any()]
    error = np.asarray(predicted, np.float64) - np.asarray(labels, np.float64)
    return {
        "rmse": _rmse(error[mask]),
        "mean_absolute_error": float(np.abs(error[mask]).mean()),
        "r2": _r2(error[mask], labels[mask]),
        "rmse_by_site": {name: _rmse(error[s][mask[s]]) for name, s in own},
        "r2_by_site": {name: _r2(error[s][mask[s]], labels[s][mask[s]]) for name, s in own},
    }


def _mean(found: Sequence[dict[str, Any]], score: str) -> float | None:
    """Over the labels for which the score is defined."""
    known = [each[score] for each in found if each[score] is not None]
    return float(np.mean(known)) if known else None


def _rmse(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(error**2)))


def _r2(error: np.ndarray, labels: np.ndarray) -> float | None:
    spread = float(np.var(np.asarray(labels, np.float64)))
    return 1 - float(np.mean(error**2)) / spread if spread > 0 else None
