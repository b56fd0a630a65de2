"""Auditing with one training run: a lower bound of epsilon from guesses about many canaries that were each in or out by a coin.

Steinke, Nasr and Jagielski 2023 ("Privacy Auditing with One (1) Training Run"), theorem 5.2: if m canaries are each included with
probability one half and the auditor guesses r of them (abstaining on the others), then for every (epsilon, delta)-DP training the number V of
correct guesses obeys, with W ~ Binomial(r, e^eps / (1 + e^eps)) and f(v) = P(W >= v),

    P(V >= v) <= f(v) + 2 m delta max_{1 <= i <= m} (f(v - i) - f(v)) / i.

The bound is for the zero-out relation (a canary's contribution or nothing); a zero-out pair is a replace-one pair too.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import special


class OneRunAudit(NamedTuple):
    """What one run shows about its epsilon.

    Attributes:
      epsilon_lower: with this confidence the training is not (epsilon, delta)-DP for any smaller epsilon; 0 where nothing was shown.
      epsilon_claimed: what was claimed at this delta.
      delta: of the claim.
      violated: epsilon_lower > epsilon_claimed.
      canaries: m.
      guesses: r, guesses made.
      correct: v, guesses that were right.
      confidence: of the bound.
      attack: how the canaries were scored.
      needs: what the auditor must have.
      try_next: what a stronger auditor would do.
    """

    epsilon_lower: float
    epsilon_claimed: float
    delta: float
    violated: bool
    canaries: int
    guesses: int
    correct: int
    confidence: float
    attack: str
    needs: str
    try_next: str


def one_run_p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Largest probability of so many correct guesses under any (epsilon, delta)-DP training (theorem 5.2).

    Args:
      canaries: m, each included independently with probability one half.
      guesses: r <= m, decided without looking at who was included.
      correct: v <= r.
      epsilon: in nats, >= 0.
      delta: in [0, 1).

    Raises:
      ValueError: the numbers do not fit each other.
    """
    if not 0 <= correct <= guesses <= canaries or guesses < 1 or epsilon < 0 or not 0 <= delta < 1:
        raise ValueError(
            f"correct {correct}, guesses {guesses}, canaries {canaries}, epsilon {epsilon}, delta {delta}: "
            "0 <= correct <= guesses <= canaries, a guess, epsilon >= 0 and 0 <= delta < 1 are needed."
        )
    if correct == 0:
        return 1.0
    probability = float(special.expit(epsilon))
    # f at v, v - 1, ..., 0; beyond i = v the numerator stays and the denominator grows.
    at_least = special.bdtrc(np.arange(correct - 1, -1, -1, dtype=np.float64), guesses, probability)
    at_least = np.append(at_least, 1.0)
    slope = ((at_least[1:] - at_least[0]) / np.arange(1, correct + 1)).max()
    return min(float(at_least[0] + 2 * canaries * delta * slope), 1.0)


def one_run_epsilon(canaries: int, guesses: int, correct: int, delta: float, confidence: float = 0.95) -> float:
    """Lower bound of epsilon: the least epsilon that the test does not reject; arguments as in `one_run_p_value`.

    Found from below on a grid and refined, so a p-value that were not monotone could only lower it. Never above log of the number of
    guesses over the significance: that many right guesses are possible by chance.
    """
    level, low, step = 1 - confidence, 0.0, 0.25
    if one_run_p_value(canaries, guesses, correct, 0.0, delta) > level:
        return 0.0
    for _ in range(14):
        while one_run_p_value(canaries, guesses, correct, low + step, delta) <= level:
            low += step
        step /= 2
    return low


def choose_guesses(canaries: int, signal_to_noise: float, delta: float, confidence: float = 0.95) -> int:
    """How many canaries to guess (half of them "in"), chosen before the run by what an ideal Gaussian would give.

    A number chosen after seeing the scores' success would need a correction; this one looks at no outcome.

    Args:
      canaries: m.
      signal_to_noise: 1 / z: canary's norm over the noise's standard deviation along it, all rounds together (`sqrt(rounds) / z`).
      delta: of the claim.
      confidence: of the bound.

    Returns:
      An even number of guesses in 2..m.
    """
    rng = np.random.default_rng(0)
    trials = max(1, 20_000 // canaries)
    included = rng.random((trials, canaries)) < 0.5
    scores = rng.normal(size=included.shape) + signal_to_noise * included
    order = np.argsort(scores, axis=1)
    hit = np.take_along_axis(included, order, axis=1)
    best, chosen = (-1.0, -2.0), 2
    sizes = np.unique((2 * np.geomspace(1, canaries // 2, 24).round()).astype(int))
    for guesses in sizes:
        half = guesses // 2
        correct = (hit[:, -half:].sum(axis=1) + (~hit[:, :half]).sum(axis=1)).mean()
        bound = one_run_epsilon(canaries, int(guesses), int(correct), delta, confidence)
        # Where no number shows anything, the one whose p-value is least comes nearest to it.
        value = (bound, -one_run_p_value(canaries, int(guesses), int(correct), 0.0, delta))
        if value > best:
            best, chosen = value, int(guesses)
    return chosen


def one_run_audit(
    scores: np.ndarray,
    included: np.ndarray,
    *,
    epsilon_claimed: float,
    delta: float,
    guesses: int,
    attack: str,
    needs: str,
    confidence: float = 0.95,
) -> OneRunAudit:
    """Guess the highest scores in and the lowest out, and bound epsilon.

    Args:
      scores: float `[m]`, larger means included.
      included: bool `[m]`, the coins.
      epsilon_claimed: at `delta`, for the release that was scored (all rounds).
      delta: of the claim.
      guesses: r, even; fixed before the run (`choose_guesses`). Half are "in", half "out".
      attack: how the canaries were scored.
      needs: what the auditor must have.
      confidence: of the bound.
    """
    scores, included = np.asarray(scores, np.float64), np.asarray(included, bool)
    half, canaries = guesses // 2, scores.size
    if scores.shape != included.shape or guesses % 2 or not 2 <= guesses <= canaries or np.isnan(scores).any():
        raise ValueError(
            f"{scores.shape} scores, {included.shape} coins, {guesses} guesses: equal shapes, no NaN and an even number of guesses <= m are needed."
        )
    order = np.argsort(scores, kind="stable")
    correct = int(included[order[-half:]].sum() + (~included[order[:half]]).sum())
    lower = one_run_epsilon(canaries, guesses, correct, delta, confidence)
    ceiling = one_run_epsilon(canaries, guesses, guesses, delta, confidence)
    return OneRunAudit(
        epsilon_lower=lower,
        epsilon_claimed=epsilon_claimed,
        delta=delta,
        violated=lower > epsilon_claimed,
        canaries=canaries,
        guesses=guesses,
        correct=correct,
        confidence=confidence,
        attack=attack,
        needs=needs,
        try_next=f"more canaries (with {canaries} and {guesses} guesses no bound above {ceiling:.2f} is possible); the exact pair (`audit`)"
        if math.isfinite(ceiling)
        else "the exact pair (`audit`)",
    )
