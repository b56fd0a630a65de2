"""The control that should accompany every score on images: a classifier that sees only the border.

In collections whose classes come from different hospitals, the frame of an image (collimation, markers, burnt-in text, exposure) reveals the
source, and the source reveals the class. Whatever a linear model reads off a border of four pixels, a network can read as well, without having
learned anything about lungs. The control is trained in the clear on the training images; it is not a release of the run, and epsilon does not cover it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special

from fedjax_poisson import data
from fedjax_poisson.federated import evaluation

WIDTH = 4
"""Width of the border in pixels."""

_RIDGE = 1.0  # of the standardised weights' squares, summed over records: the usual default of statistics packages
WHY = (
    "The border contains no lung. Whatever the border-only classifier achieves, a network can achieve by recognising the source of an image instead "
    "of a disease; only the model's gain over it can come from anatomy."
)


def border_scores(sites: data.Sites, width: int = WIDTH) -> dict[str, Any]:
    """Test scores of a softmax regression on the border pixels.

    Args:
      sites: images `[n, height, width, channels]` with one label each.
      width: of the border, in pixels.

    Returns:
      width, accuracy, balanced_accuracy, auc, majority_accuracy (always the training set's commonest class) and why.

    Raises:
      ValueError: the features are not images.
    """
    border = data.border_only(sites, width)
    classes = len(sites.class_names)
    fit = border.train
    centre, scale = border.features[fit].mean(axis=0), border.features[fit].std(axis=0) + np.float32(1e-6)
    x = ((border.features - centre) / scale).astype(np.float64)
    logits = _regression(x[fit], border.labels[fit], classes, x[~fit])
    found = evaluation.all_scores(logits[:, 1] - logits[:, 0] if classes == 2 else logits, border.labels[~fit])
    common = int(np.bincount(border.labels[fit], minlength=classes).argmax())
    return {
        "width": width,
        **{name: found[name] for name in ("accuracy", "balanced_accuracy", "auc")},
        "majority_accuracy": float(np.mean(border.labels[~fit] == common)),
        "why": WHY,
    }


def _regression(x: np.ndarray, y: np.ndarray, classes: int, test: np.ndarray) -> np.ndarray:
    """Logits float64 `[m, classes]` for `test` of a ridge softmax regression; intercepts are not shrunk."""
    wanted = np.eye(classes)[y]
    width = x.shape[1]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(width + 1, classes)
        logits = x @ weights[1:] + weights[0]
        loss = (special.logsumexp(logits, axis=1) - (wanted * logits).sum(axis=1)).sum()
        residual = special.softmax(logits, axis=1) - wanted
        slope = np.concatenate([residual.sum(axis=0)[None], x.T @ residual + _RIDGE * weights[1:]])
        return float(loss + 0.5 * _RIDGE * (weights[1:] ** 2).sum()), slope.ravel()

    start = np.zeros((width + 1) * classes)
    from scipy import optimize  # a quarter of a second of start-up

    best = optimize.minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
    weights = best.reshape(width + 1, classes)
    return test @ weights[1:] + weights[0]
