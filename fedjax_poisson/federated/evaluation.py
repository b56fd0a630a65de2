"""Scores per site and pooled, for binary and multi-class classifiers and for risks of times to an event, with their uncertainty.

In a simulation all of this is computed on test records in the clear; epsilon does not cover it. A score that is undefined for some
records (such as an AUC when only one class is present) is None and never a number.
`interval` estimates how much a score varies between runs (noise of the mechanism, initial weights); `bootstrap` estimates how much it would
vary with other test records for one run's model. They answer different questions, and neither contains the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special


class Interval(NamedTuple):
    """An estimate with its confidence interval.

    Attributes:
      estimate: the mean over runs, or the score of all records.
      low: lower end.
      high: upper end.
      level: probability of covering, 0 to 1.
    """

    estimate: float
    low: float
    high: float
    level: float


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Probability of class 1 float64 `[n]` from logits `[n]` (logistic), or of each class `[n, K]` from `[n, K]` (softmax)."""
    logits = np.asarray(logits, np.float64)
    return special.expit(logits) if logits.ndim == 1 else special.softmax(logits, axis=-1)


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Share of records whose predicted class is their label, both `[n]`."""
    return float(np.mean(np.asarray(predictions) == np.asarray(labels)))


def balanced_accuracy(labels: np.ndarray, predictions: np.ndarray) -> float | None:
    """Mean recall over the classes that are present (with two: of sensitivity and specificity); None where only one is.

    Args:
      labels: class indices (or bool) `[n]`.
      predictions: the same `[n]`.
    """
    labels, predictions = np.asarray(labels).astype(np.int64), np.asarray(predictions).astype(np.int64)
    present = np.unique(labels)
    if len(present) < 2:
        return None
    return float(np.mean([(predictions[labels == k] == k).mean() for k in present]))


def auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Area under the ROC curve (Mann-Whitney, ties count half); None where only one class is present.

    For several classes the unweighted mean over the classes that are present of one class against the rest.

    Args:
      labels: 0/1 `[n]`, or class indices 0..K-1 for scores of K classes.
      scores: `[n]`, larger means class 1; or `[n, K]` probabilities. Logits of K classes will not do: they are defined up to a constant of
        each record, so their order between records means nothing.
    """
    scores = np.asarray(scores)
    if scores.ndim == 2:
        labels = np.asarray(labels)
        areas = [_binary_auc(labels == k, scores[:, k]) for k in range(scores.shape[1])]
        known = [area for area in areas if area is not None]
        return float(np.mean(known)) if known else None
    return _binary_auc(np.asarray(labels).astype(bool), scores)


def brier(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean squared error of the probabilities (Brier 1950): 0 is perfect.

    For `[n]` it is the mean of (p - y)^2, at most 1; for `[n, K]` it is summed over the classes, at most 2, and so twice as large for the same
    two classes.
    """
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim == 1:
        return float(np.mean((probabilities - np.asarray(labels)) ** 2))
    wanted = np.eye(probabilities.shape[1])[np.asarray(labels)]
    return float(np.mean(((probabilities - wanted) ** 2).sum(axis=1)))


def reliability(labels: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> dict[str, list[Any]]:
    """Reliability diagram: mean predicted probability against observed frequency in equal-width bins.

    For `[n]` the probability is that of class 1 and the frequency that of class 1; for `[n, K]` the probability is that of the predicted class
    and the frequency how often it is right (Guo et al., On Calibration of Modern Neural Networks, ICML 2017). Empty bins are left out.
    """
    probabilities, hits = _confidence(labels, probabilities)
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.digitize(probabilities, edges) - 1, 0, bins - 1)
    used = [b for b in range(bins) if (index == b).any()]
    return {
        "bins": [float(x) for x in edges],
        "confidence": [float(probabilities[index == b].mean()) for b in used],
        "frequency": [float(hits[index == b].mean()) for b in used],
        "count": [int((index == b).sum()) for b in used],
    }


def calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean distance of the reliability diagram from its diagonal, bins weighted by their records.

    It is biased upwards for few records: compare models on the same records only.
    """
    diagram = reliability(labels, probabilities, bins)
    count = np.array(diagram["count"])
    gap = np.abs(np.array(diagram["confidence"]) - np.array(diagram["frequency"]))
    return float((count * gap).sum() / count.sum())


def concordance(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> float | None:
    """Harrell's C: how often, of two records whose order is known, the one with the earlier event has the larger risk.

    The order of i and j is known where i had an event, and j was seen later or was censored at the same time. Equal risks count half. Pairs of
    events at the same time are left out, as is every pair that only a censored time decides (Harrell, Lee and Mark, Statistics in Medicine 15,
    1996).

    Args:
      time: `[n]`, time of the event or of censoring.
      event: 0/1 `[n]`, 1 where the event was seen.
      risk: `[n]`, larger means earlier.

    Returns:
      0..1, one half for a constant risk; None where no pair can be ordered.

    Raises:
      ValueError: lengths differ or a value is not finite.
    """
    time, risk, event = np.asarray(time, np.float64), np.asarray(risk, np.float64), np.asarray(event).astype(bool)
    if not time.shape == event.shape == risk.shape or time.ndim != 1:
        raise ValueError(
            f"time {time.shape}, event {event.shape} and risk {risk.shape} must be vectors of one length: one entry a record."
        )
    if not (np.isfinite(time).all() and np.isfinite(risk).all()):
        raise ValueError(
            "time or risk is not finite in some record: a C-index needs both everywhere; leave such records out."
        )
    order = np.lexsort((~event, time))  # by time, events before those censored at the same time
    time, event, risk = time[order], event[order], risk[order]
    pairs, agreed = 0, 0.0
    for i in np.flatnonzero(event):
        later = slice(int(np.searchsorted(time, time[i], side="left")), None)
        open_ = (time[later] > time[i]) | ~event[later]
        others = risk[later][open_]
        pairs += len(others)
        agreed += (others < risk[i]).sum() + 0.5 * (others == risk[i]).sum()
    return float(agreed / pairs) if pairs else None


def interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """Mean of independent runs (seeds) with Student's t interval for it.

    Args:
      values: one score for each run, at least two.
      level: probability of covering.

    Returns:
      The mean and the ends, which are not clipped to a score's range.

    Raises:
      ValueError: fewer than two values, one that is not finite, or a level outside (0, 1).
    """
    scores = np.asarray(values, np.float64)
    _check_level(level)
    if scores.ndim != 1 or len(scores) < 2 or not np.isfinite(scores).all():
        raise ValueError(
            f"An interval over runs needs at least two finite scores; got {scores.tolist()}. Run more seeds, or use bootstrap for one run."
        )
    mean = float(scores.mean())
    from scipy import stats  # slow to import, and an evaluation in a training loop needs none of it

    half = float(stats.t.ppf((1 + level) / 2, len(scores) - 1) * scores.std(ddof=1) / np.sqrt(len(scores)))
    return Interval(mean, mean - half, mean + half, level)


def bootstrap(
    score: Callable[..., float | None],
    *arrays: np.ndarray,
    strata: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over the test records of one run (Efron 1979), the model kept as it is.

    Records are drawn with replacement: freely (plain) or within strata (stratified, for example within sites or classes, whose sizes are then
    taken as given). With groups whole patients are drawn, since the images of one patient are not independent.

    Args:
      score: function of the arrays, for example `auc`; draws for which it is None are left out.
      *arrays: what it takes, each with n records first, for example labels and logits.
      strata: `[n]`, or None for the plain bootstrap.
      groups: `[n]`, or None if every record is a group by itself. All records of a group must be in one stratum.
      draws: number of resamples.
      level: probability of covering.
      seed: of the resampling.

    Returns:
      The score of all records and the quantiles of the resampled ones.

    Raises:
      ValueError: the score is not defined for all records or for half of the resamples, lengths differ, or a group is in two strata.
    """
    _check_level(level)
    n = len(arrays[0]) if arrays else 0
    arrays = tuple(np.asarray(a) for a in arrays)
    strata = np.zeros(n, np.int64) if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1]
    groups = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    lengths = [*(len(a) for a in arrays), len(strata), len(groups)]
    if n == 0 or set(lengths) != {n}:
        raise ValueError(f"A bootstrap needs arrays, strata and groups of one length above 0; got lengths {lengths}.")
    estimate = score(*arrays)
    if estimate is None:
        raise ValueError(
            "The score is not defined for these records (for example one class only): there is no interval for it."
        )
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    home = np.array([strata[own[0]] for own in members])
    if (strata != home[groups]).any():
        raise ValueError(
            "A group (patient) has records in two strata: stratify by something that is one value for each patient."
        )
    pools = [np.flatnonzero(home == s) for s in range(int(home.max()) + 1)]
    generator, found = np.random.default_rng(seed), []
    alone = np.concatenate(members) if len(members) == n else None  # a record a group: looked up at once
    for _ in range(draws):
        chosen = np.concatenate([generator.choice(pool, len(pool)) for pool in pools])
        rows = np.concatenate([members[g] for g in chosen]) if alone is None else alone[chosen]
        value = score(*(a[rows] for a in arrays))
        if value is not None:
            found.append(value)
    if 2 * len(found) < draws:
        raise ValueError(
            f"The score was defined in {len(found)} of {draws} resamples: too few records for an interval; pool sites or stratify by class."
        )
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(estimate), float(low), float(high), level)


def all_scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float | int | None]:
    """Every score of one set of records.

    Args:
      logits: float `[n]` (decision: above 0) or `[n, K]` (decision: the largest).
      labels: 0/1 or class indices `[n]`.

    Returns:
      records, accuracy, balanced_accuracy, auc, brier, calibration_error.
    """
    chance, predictions = probabilities(logits), decide(logits)
    return {
        "records": len(labels),
        "accuracy": accuracy(labels, predictions),
        "balanced_accuracy": balanced_accuracy(labels, predictions),
        "auc": auc(labels, chance if chance.ndim == 2 else logits),
        "brier": brier(labels, chance),
        "calibration_error": calibration_error(labels, chance),
    }


def decide(logits: np.ndarray) -> np.ndarray:
    """Predicted classes int64 `[n]`: 1 above 0 for logits `[n]`, the largest of `[n, K]`."""
    logits = np.asarray(logits)
    return (logits > 0).astype(np.int64) if logits.ndim == 1 else logits.argmax(axis=-1)


def site_scores(
    logits: np.ndarray, labels: np.ndarray, mask: np.ndarray, site_names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """`all_scores` of each site that has test records, and of all of them pooled.

    Args:
      logits: float `[S, n]` or `[S, n, K]`.
      labels: int `[S, n]`.
      mask: bool `[S, n]`, real records.
      site_names: S names.

    Returns:
      `{"pooled": {...}, "sites": {name: {...}}}`.

    Raises:
      ValueError: no site has a test record.
    """
    filled = _filled(mask)
    return {
        "pooled": all_scores(logits[mask], labels[mask]),
        "sites": {site_names[s]: all_scores(logits[s][mask[s]], labels[s][mask[s]]) for s in filled},
    }


SCORES = (
    *("mean_client_accuracy", "pooled_accuracy", "auc", "balanced_accuracy", "brier", "calibration_error"),
    *("accuracy_by_site", "auc_by_site", "calibration_error_by_site"),
)
"""What `scores` returns."""


def scores(logits: np.ndarray, labels: np.ndarray, mask: np.ndarray, site_names: Sequence[str]) -> dict[str, Any]:
    """The scores that a run keeps of one set of predictions.

    Args:
      logits: float `[S, n]`, the decision is logit > 0; or `[S, n, K]`, the decision is the largest.
      labels: 0/1 or class indices `[S, n]`.
      mask: bool `[S, n]`, real records.
      site_names: S names.

    Returns:
      mean_client_accuracy (unweighted over sites with test records), pooled_accuracy, auc, balanced_accuracy, brier, calibration_error (all
      pooled), accuracy_by_site, auc_by_site, calibration_error_by_site.

    Raises:
      ValueError: no site has a test record.
    """
    found = site_scores(np.asarray(logits), np.asarray(labels), np.asarray(mask), site_names)
    by_site = {name: own["accuracy"] for name, own in found["sites"].items()}
    pooled = found["pooled"]
    return {
        "mean_client_accuracy": float(np.mean(list(by_site.values()))),
        "pooled_accuracy": pooled["accuracy"],
        **{name: pooled[name] for name in ("auc", "balanced_accuracy", "brier", "calibration_error")},
        "accuracy_by_site": by_site,
        **{
            f"{score}_by_site": {name: own[score] for name, own in found["sites"].items()}
            for score in ("auc", "calibration_error")
        },
    }


def _binary_auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return None
    if np.isnan(scores).any():
        return float("nan")
    # Ties share the mean of their ranks. By NumPy: importing scipy.stats would cost a short run more than all its scores.
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _confidence(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    if probabilities.ndim == 1:
        return probabilities, labels.astype(np.float64)
    return probabilities.max(axis=1), (probabilities.argmax(axis=1) == labels).astype(np.float64)


def _filled(mask: np.ndarray) -> list[int]:
    filled = [s for s in range(len(mask)) if mask[s].any()]
    if not filled:
        raise ValueError("No site has a test record: nothing to evaluate; choose a larger test fraction.")
    return filled


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a probability between 0 and 1, for example 0.95.")
