"""Rates with their intervals, and results as plain JSON: what every attack reports.

A failed attack proves nothing about privacy: it only shows what this attacker achieved. So each result carries `needs` (what the attacker must
have, even if nobody has it) and `try_next` (what a stronger attacker would do).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy import special


class Rate(NamedTuple):
    """An estimate with a two-sided interval.

    Attributes:
      value: the estimate.
      low: lower end.
      high: upper end.
      confidence: of the interval.
    """

    value: float
    low: float
    high: float
    confidence: float


def binomial_lower(successes: int, trials: int, confidence: float) -> float:
    """One-sided Clopper-Pearson lower bound of a success probability (Clopper and Pearson 1934), exact for every n."""
    return 0.0 if successes == 0 else float(special.betaincinv(successes, trials - successes + 1, 1 - confidence))


def binomial_upper(successes: int, trials: int, confidence: float) -> float:
    """One-sided Clopper-Pearson upper bound of a success probability."""
    return 1.0 if successes == trials else float(special.betaincinv(successes + 1, trials - successes, confidence))


def binomial_rate(successes: int, trials: int, confidence: float = 0.95) -> Rate:
    """Success rate with its two-sided Clopper-Pearson interval.

    Raises:
      ValueError: no trial, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} successes of {trials} trials: 0 <= successes <= trials and a trial are needed.")
    side = 1 - (1 - confidence) / 2
    return Rate(
        successes / trials,
        binomial_lower(successes, trials, side),
        binomial_upper(successes, trials, side),
        confidence,
    )


def auc(positive: np.ndarray, negative: np.ndarray, confidence: float = 0.95) -> Rate:
    """Area under the ROC curve with DeLong's interval (DeLong, DeLong and Clarke-Pearson 1988), on the logit scale so that it stays in [0, 1].

    Where the scores separate perfectly DeLong's variance is 0 and says nothing; then min(n, m) disjoint pairs, all in order, give an exact
    binomial bound.

    Args:
      positive: scores of members `[n]`, larger means member; -inf and inf are allowed, ties count one half.
      negative: scores of non-members `[m]`.
      confidence: of the interval.

    Raises:
      ValueError: a side is empty or a score is NaN.
    """
    positive, negative = _scores(positive, negative)
    n, m = positive.size, negative.size
    ordered_negative, ordered_positive = np.sort(negative), np.sort(positive)
    # How often each score beats the other side, ties half: DeLong's structural components.
    wins = (
        np.searchsorted(ordered_negative, positive, "left") + np.searchsorted(ordered_negative, positive, "right")
    ) / (2 * m)
    losses = 1 - (
        np.searchsorted(ordered_positive, negative, "left") + np.searchsorted(ordered_positive, negative, "right")
    ) / (2 * n)
    value = float(wins.mean())
    side = 1 - (1 - confidence) / 2
    if value in (0.0, 1.0) or min(n, m) < 2:
        pairs = min(n, m)
        sure = float((1 - confidence) ** (1 / pairs))
        low, high = (sure, 1.0) if value == 1 else (0.0, 1 - sure) if value == 0 else (0.0, 1.0)
        return Rate(value, low, high, confidence)
    deviation = math.sqrt(wins.var(ddof=1) / n + losses.var(ddof=1) / m)
    width = float(special.ndtri(side)) * deviation / (value * (1 - value))
    centre = float(special.logit(value))
    return Rate(value, float(special.expit(centre - width)), float(special.expit(centre + width)), confidence)


def weighted_auc(scores: np.ndarray, member: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUC under several weightings at once (bootstrap): scores `[N]` without ties, member bool `[N]`, weights `[B, N]`, answer `[B]`."""
    order = np.argsort(scores)
    sorted_member, sorted_weights = member[order], weights[:, order]
    negatives = np.where(sorted_member, 0, sorted_weights)
    positives = sorted_weights - negatives
    below = np.cumsum(negatives, axis=1)
    return (positives * below).sum(axis=1) / (positives.sum(axis=1) * below[:, -1])


def true_positive_rate(
    positive: np.ndarray, negative: np.ndarray, false_positive_rate: float, confidence: float = 0.95
) -> Rate:
    """Share of members above the threshold that at most this share of the non-members exceeds; Clopper-Pearson at that threshold.

    Only `floor(rate * m)` non-members may be above the threshold, so with fewer than 1/rate non-members it lies at their largest score. The
    threshold is itself an estimate: with few non-members its true rate varies, which the interval does not show (`membership` bootstraps it).
    """
    positive, negative = _scores(positive, negative)
    allowed = int(false_positive_rate * negative.size)
    threshold = np.sort(negative)[negative.size - 1 - allowed]
    return binomial_rate(int((positive > threshold).sum()), positive.size, confidence)


def _scores(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    positive, negative = np.asarray(positive, np.float64).ravel(), np.asarray(negative, np.float64).ravel()
    if not positive.size or not negative.size:
        raise ValueError(
            f"{positive.size} scores of members and {negative.size} of non-members: both are needed to measure an attack."
        )
    if np.isnan(positive).any() or np.isnan(negative).any():
        raise ValueError("A score is NaN: the attacked model diverged, or a confidence was infinite on both sides.")
    return positive, negative


def to_json(result: Any) -> Any:
    """A result (nested NamedTuples, arrays, numbers, text) as what `json.dumps` takes; NaN and infinities become None."""
    if hasattr(result, "_asdict"):
        return {name: to_json(value) for name, value in result._asdict().items()}
    if isinstance(result, dict):
        return {str(name): to_json(value) for name, value in result.items()}
    if isinstance(result, list | tuple):
        return [to_json(value) for value in result]
    if result is None or isinstance(result, str | bool | int):
        return result
    if isinstance(result, float):
        return result if math.isfinite(result) else None
    return to_json(np.asarray(result).tolist())
