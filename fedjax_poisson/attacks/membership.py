"""Membership inference: was this record in the training data?

* `loss_threshold`: Yeom, Giacomelli, Fredrikson and Jha 2018: members have smaller losses.
* `lira`: the likelihood-ratio attack of Carlini et al. 2022 ("Membership Inference Attacks From First Principles", algorithm 1): shadow models
  with and without the record give two Gaussians of its logit-scaled confidence; the score is how much likelier the attacked model's
  confidence is under the first (online) or how far above the second alone (offline).

Every model trained on a random half is attacked in turn with all the others as its shadows. Scores of one record under several models, or of
one model on several records, are not independent: the intervals resample records and models (Owen 2007's pigeonhole bootstrap, which
overcovers a little).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from scipy import special

from fedjax_poisson.attacks.results import Rate, weighted_auc

_NEEDS = {
    "loss_threshold": "the released parameters and the candidate record with its label",
    "lira_online": "the released parameters, the candidate record, data of the same law and shadow trainings with and without the candidate",
    "lira_offline": "the released parameters, the candidate record, data of the same law and shadow trainings without the candidate",
}
_TRY_NEXT = (
    "more shadow models; the sequence of released parameters or sums instead of the last (white-box); canary records (`audit`); "
    "queries of perturbed copies"
)


class MembershipResult(NamedTuple):
    """How well members were told from non-members.

    Attributes:
      attack: its name.
      auc: area under the ROC curve; 0.5 is chance.
      balanced_accuracy: mean of both sides' accuracy at a threshold chosen on the other half of the records.
      tpr_at_1_percent: true positive rate at a false positive rate of 1 %; 0.01 is chance.
      tpr_at_0_1_percent: at 0.1 %.
      decisions: member decisions, non-member decisions; with fewer than 1000 of the latter the 0.1 % point is the largest score.
      models: attacked models.
      records: candidate records.
      needs: what the attacker must have.
      try_next: what a stronger attacker would do.
    """

    attack: str
    auc: Rate
    balanced_accuracy: Rate
    tpr_at_1_percent: Rate
    tpr_at_0_1_percent: Rate
    decisions: tuple[int, int]
    models: int
    records: int
    needs: str
    try_next: str


def lira_scores(
    confidence: np.ndarray,
    member: np.ndarray,
    *,
    mode: Literal["online", "offline"] = "online",
    variance: Literal["per_record", "pooled"] | None = None,
) -> np.ndarray:
    """LiRA's score of each record under each model, all other models being the shadows: float64 `[M, n]`, larger means member.

    Args:
      confidence: float `[M, n]` logit-scaled confidences (`shadow.confidences`).
      member: bool `[M, n]`.
      mode: "online" compares with models that hold the record too, "offline" only with those that do not.
      variance: "per_record" or "pooled" over records; None pools below 64 models, as Carlini et al. do (section VI-C).

    Raises:
      ValueError: a record has fewer than three models on a side that is needed, so that none is left for a variance.
    """
    confidence, member = np.asarray(confidence, np.float64), np.asarray(member, bool)
    fewest = int(min(member.sum(axis=0).min(), (~member).sum(axis=0).min()))
    if confidence.shape != member.shape or fewest < 3:
        raise ValueError(
            f"confidence {confidence.shape}, member {member.shape}, {fewest} models on a record's smaller side: equal shapes and at least 3 are needed."
        )
    pooled = len(confidence) < 64 if variance is None else variance == "pooled"

    def others(side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the record's confidence over the other models of this side, `[M, n]`."""
        count = side.sum(axis=0) - side
        total = np.where(side, confidence, 0).sum(axis=0) - np.where(side, confidence, 0)
        mean = total / count
        centre = np.where(side, confidence, 0).sum(axis=0) / side.sum(axis=0)
        deviation = np.where(side, confidence - centre, 0)
        square = (deviation**2).sum(axis=0) - deviation**2
        spread = np.maximum(square - count * (mean - centre) ** 2, 0) / (count - 1)
        return mean, np.broadcast_to(spread.mean(axis=1, keepdims=True), spread.shape) if pooled else spread

    mean_out, var_out = others(~member)
    var_out = var_out + 1e-12
    if mode == "offline":
        return special.log_ndtr((confidence - mean_out) / np.sqrt(var_out))
    mean_in, var_in = others(member)
    var_in = var_in + 1e-12

    def log_density(mean: np.ndarray, var: np.ndarray) -> np.ndarray:
        return -0.5 * (np.log(var) + (confidence - mean) ** 2 / var)

    return log_density(mean_in, var_in) - log_density(mean_out, var_out)


def lira(
    confidence: np.ndarray,
    member: np.ndarray,
    *,
    mode: Literal["online", "offline"] = "online",
    variance: Literal["per_record", "pooled"] | None = None,
    seed: int = 0,
) -> MembershipResult:
    """LiRA against every model in turn; arguments as in `lira_scores`, seed for the bootstrap."""
    return evaluate(lira_scores(confidence, member, mode=mode, variance=variance), member, f"lira_{mode}", seed=seed)


def loss_threshold(confidence: np.ndarray, member: np.ndarray, *, seed: int = 0) -> MembershipResult:
    """Yeom et al.'s threshold on the loss, against every model: the logit-scaled confidence falls with the loss, so it is the score."""
    return evaluate(np.asarray(confidence, np.float64), member, "loss_threshold", seed=seed)


def evaluate(
    scores: np.ndarray,
    member: np.ndarray,
    attack: str,
    *,
    needs: str | None = None,
    resamples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> MembershipResult:
    """Rates of any attack's scores, intervals by the percentiles of a bootstrap over records and models.

    Args:
      scores: float `[M, n]` or `[n]`, larger means member.
      member: bool of that shape.
      attack: its name.
      needs: what the attacker must have; None for the attacks of this module.
      resamples: of the bootstrap.
      confidence: of the intervals.
      seed: of the bootstrap and of the tie-breaking.

    Raises:
      ValueError: shapes differ, a score is NaN, or a side is empty.
    """
    scores, member = np.atleast_2d(np.asarray(scores, np.float64)), np.atleast_2d(np.asarray(member, bool))
    if scores.shape != member.shape or np.isnan(scores).any() or member.all() or not member.any():
        raise ValueError(
            f"scores {scores.shape} and member {member.shape}: equal shapes, no NaN and both members and non-members are needed."
        )
    rng = np.random.default_rng(seed)
    models, records = scores.shape
    # Ranks with ties broken at random: which of two equal scores is larger must not depend on the side it is on.
    order = np.lexsort((rng.random(scores.size), scores.ravel()))
    flat_member, owner = member.ravel()[order], np.tile(np.arange(records), models)[order]

    def weights(count: int) -> np.ndarray:
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
        return np.vstack([np.ones(count), drawn if count > 1 else np.ones((resamples, 1))])

    spread = weights(records)[:, owner] * weights(models)[:, np.repeat(np.arange(models), records)[order]]
    ends = (50 * (1 - confidence), 50 * (1 + confidence))

    def rate(value: np.ndarray) -> Rate:
        low, high = np.nanpercentile(value[1:], ends)
        return Rate(float(value[0]), float(low), float(high), confidence)

    return MembershipResult(
        attack=attack,
        auc=rate(weighted_auc(np.arange(scores.size), flat_member, spread)),
        balanced_accuracy=rate(_balanced_accuracy(flat_member, owner, spread, rng.permutation(records) % 2 == 0)),
        tpr_at_1_percent=rate(_tpr(flat_member, spread, 0.01)),
        tpr_at_0_1_percent=rate(_tpr(flat_member, spread, 0.001)),
        decisions=(int(member.sum()), int((~member).sum())),
        models=models,
        records=records,
        needs=_NEEDS.get(attack, "not said") if needs is None else needs,
        try_next=_TRY_NEXT,
    )


def _tpr(member: np.ndarray, weights: np.ndarray, rate: float) -> np.ndarray:
    """True positive rate of each weighting `[B, N]` at the given false positive rate; members in rising order of score."""
    falling_member, falling = member[::-1], weights[:, ::-1]
    false = np.cumsum(np.where(falling_member, 0, falling), axis=1)
    true = np.cumsum(np.where(falling_member, falling, 0), axis=1)
    within = (false <= rate * false[:, -1:]).sum(axis=1)
    hit = np.take_along_axis(true, np.maximum(within - 1, 0)[:, None], axis=1)[:, 0]
    return np.where(within > 0, hit, 0) / true[:, -1]


def _balanced_accuracy(member: np.ndarray, owner: np.ndarray, weights: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Balanced accuracy of each weighting, the threshold chosen on one half of the records (unweighted) and used on the other."""
    mine, total = half[owner], np.zeros(len(weights))
    for chosen in (mine, ~mine):
        # Youden's index of cutting before position i, over the half that chooses.
        positives, negatives = chosen & member, chosen & ~member
        below = np.cumsum(negatives) / max(negatives.sum(), 1) - np.cumsum(positives) / max(positives.sum(), 1)
        cut = int(np.argmax(below)) + 1
        used = weights * ~chosen
        sensitivity = (used[:, cut:] * member[cut:]).sum(axis=1) / np.maximum((used * member).sum(axis=1), 1)
        specificity = (used[:, :cut] * ~member[:cut]).sum(axis=1) / np.maximum((used * ~member).sum(axis=1), 1)
        total += (sensitivity + specificity) / 4
    return total
