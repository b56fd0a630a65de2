"""Every score against its definition written out in loops, and every interval against the coverage that it claims."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from fedjax_poisson.federated import evaluation


def made(n=60, classes=3, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    logits = generator.normal(size=(n, classes)).round(1) + 0.8 * np.eye(classes)[labels]
    return labels, logits


def area_by_pairs(positive, scores):
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    return np.mean(pairs)


def test_auc_is_the_share_of_ordered_pairs_and_its_mean_over_classes():
    labels, logits = made()
    binary, margin = labels > 0, logits[:, 1]
    assert evaluation.auc(binary, margin) == pytest.approx(area_by_pairs(binary, margin), abs=1e-12)
    by_class = [area_by_pairs(labels == k, logits[:, k]) for k in range(3)]
    assert evaluation.auc(labels, logits) == pytest.approx(np.mean(by_class), abs=1e-12)
    assert evaluation.auc(np.zeros(4), np.arange(4.0)) is None
    # A class that nobody has says nothing; the mean is over the others.
    wide = np.concatenate([logits, np.zeros((len(labels), 1))], axis=1)
    assert evaluation.auc(labels, wide) == evaluation.auc(labels, logits)


def test_two_classes_give_the_same_scores_in_either_form():
    labels, logits = made(classes=2)
    logits = logits + np.random.default_rng(1).normal(size=logits.shape)  # no ties, which rounding would break
    margin = logits[:, 1] - logits[:, 0]
    one, two = evaluation.probabilities(margin), evaluation.probabilities(logits)
    np.testing.assert_allclose(one, two[:, 1])
    assert evaluation.auc(labels, margin) == pytest.approx(evaluation.auc(labels, two))
    assert 2 * evaluation.brier(labels, one) == pytest.approx(evaluation.brier(labels, two))
    np.testing.assert_array_equal(evaluation.decide(margin), evaluation.decide(logits))
    assert evaluation.probabilities(np.array([-1e4, 1e4])).tolist() == [0.0, 1.0]


def test_balanced_accuracy_is_the_mean_recall():
    labels, logits = made()
    predictions = evaluation.decide(logits)
    recalls = []
    for k in range(3):
        own = [p == k for p, label in zip(predictions, labels, strict=True) if label == k]
        recalls.append(sum(own) / len(own))
    assert evaluation.balanced_accuracy(labels, predictions) == pytest.approx(np.mean(recalls))
    assert evaluation.balanced_accuracy(labels > 0, predictions > 0) == pytest.approx(
        ((predictions > 0)[labels > 0].mean() + (predictions == 0)[labels == 0].mean()) / 2
    )
    assert evaluation.balanced_accuracy(np.ones(5), np.ones(5)) is None


def test_brier_is_the_mean_squared_error():
    labels, logits = made()
    chance = evaluation.probabilities(logits)
    wanted = np.mean([sum((chance[i, k] - (labels[i] == k)) ** 2 for k in range(3)) for i in range(len(labels))])
    assert evaluation.brier(labels, chance) == pytest.approx(wanted)
    assert evaluation.brier(np.array([0, 1]), np.array([0.0, 1.0])) == 0.0


@pytest.mark.parametrize("several", [False, True])
def test_calibration_error_is_the_weighted_gap_of_the_diagram(several):
    labels, logits = made(300)
    chance = evaluation.probabilities(logits) if several else evaluation.probabilities(logits[:, 1])
    top = chance.max(axis=1) if several else chance
    hit = (chance.argmax(axis=1) == labels) if several else labels > 0
    if not several:
        labels = (labels > 0).astype(int)
    total = 0.0
    for b in range(10):
        # Half-open bins, the last one closed.
        own = [i for i in range(300) if b / 10 <= top[i] < (b + 1) / 10 or (b == 9 and top[i] == 1)]
        if own:
            total += len(own) / 300 * abs(np.mean([top[i] for i in own]) - np.mean([hit[i] for i in own]))
    assert evaluation.calibration_error(labels, chance) == pytest.approx(total, abs=1e-12)
    assert sum(evaluation.reliability(labels, chance)["count"]) == 300


@pytest.mark.statistical
def test_true_probabilities_are_calibrated_and_sharpened_ones_are_not():
    generator = np.random.default_rng(1)
    chance = generator.uniform(0.02, 0.98, 20000)
    labels = (generator.random(20000) < chance).astype(int)
    # Ten bins of 2,000 records: each gap has a standard deviation below 0.0112, so their mean is far below 0.02.
    assert evaluation.calibration_error(labels, chance) < 0.02
    odds = (chance / (1 - chance)) ** 1.5
    assert evaluation.calibration_error(labels, odds / (1 + odds)) > 0.04


def concordance_by_pairs(time, event, risk):
    known, agreed = 0, 0.0
    for i, j in itertools.permutations(range(len(time)), 2):
        if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
            known += 1
            agreed += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    return agreed / known if known else None


@pytest.mark.parametrize("seed", range(4))
def test_concordance_is_harrells_with_ties_and_censoring(seed):
    generator = np.random.default_rng(seed)
    time, event = generator.integers(1, 12, 70), generator.random(70) < 0.6
    risk = generator.integers(0, 6, 70) - 0.3 * time
    assert evaluation.concordance(time, event, risk) == pytest.approx(
        concordance_by_pairs(time, event, risk), abs=1e-12
    )
    assert evaluation.concordance(time, event, np.zeros(70)) == 0.5


def test_concordance_of_known_cases():
    time, event = np.array([1.0, 2.0, 3.0]), np.array([1, 1, 0])
    assert evaluation.concordance(time, event, -time) == 1.0
    assert evaluation.concordance(time, event, time) == 0.0
    # Censored first: nothing is known of the later ones; two events at once: no order.
    assert evaluation.concordance(time, np.array([0, 0, 1]), -time) is None
    assert evaluation.concordance(np.ones(2), np.ones(2), np.arange(2.0)) is None
    # Censored at the time of an event: it lived longer.
    assert evaluation.concordance(np.ones(2), np.array([1, 0]), np.array([1.0, 0.0])) == 1.0
    with pytest.raises(ValueError, match="not finite"):
        evaluation.concordance(time, event, np.array([0.0, np.nan, 1.0]))
    with pytest.raises(ValueError, match="one length"):
        evaluation.concordance(time, event, np.zeros(2))


def test_interval_is_students():
    # Three scores with mean 0.8 and deviation 0.02: 4.303 * 0.02 / sqrt(3) from the table of Student's t.
    found = evaluation.interval([0.78, 0.80, 0.82])
    assert found.estimate == pytest.approx(0.80) and found.level == 0.95
    assert found.high - found.estimate == pytest.approx(4.302653 * 0.02 / np.sqrt(3), rel=1e-6)
    assert evaluation.interval([0.5, 0.5]).low == 0.5
    with pytest.raises(ValueError, match="at least two finite"):
        evaluation.interval([0.8])
    with pytest.raises(ValueError, match="level is 95"):
        evaluation.interval([0.8, 0.9], level=95)


@pytest.mark.statistical
def test_interval_covers_as_often_as_it_says_and_a_normal_one_would_not():
    generator = np.random.default_rng(2)
    runs = generator.normal(0.8, 0.02, (2000, 4))
    covered = np.mean([(f := evaluation.interval(r)).low <= 0.8 <= f.high for r in runs])
    assert abs(covered - 0.95) < 5 * np.sqrt(0.95 * 0.05 / 2000)
    half = 1.96 * runs.std(axis=1, ddof=1) / 2
    normal = np.mean(np.abs(runs.mean(axis=1) - 0.8) <= half)
    assert abs(normal - 0.95) > 5 * np.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.statistical
def test_bootstrap_has_the_width_of_the_binomial_law_and_groups_widen_it():
    generator = np.random.default_rng(3)
    right = np.repeat((generator.random(200) < 0.8).astype(int), 2)
    plain = evaluation.bootstrap(evaluation.accuracy, right, np.ones(400, int), draws=600)
    grouped = evaluation.bootstrap(
        evaluation.accuracy, right, np.ones(400, int), groups=np.repeat(np.arange(200), 2), draws=600
    )
    share = right.mean()
    width = 2 * 1.96 * np.sqrt(share * (1 - share) / np.array([400, 200]))
    # The ends of an interval of 600 resamples vary by about a tenth of its width.
    np.testing.assert_allclose([plain.high - plain.low, grouped.high - grouped.low], width, rtol=0.2)
    assert plain.estimate == share == grouped.estimate


def test_bootstrap_within_strata_keeps_their_sizes():
    labels, scores = np.array([0] * 30 + [1] * 3), np.random.default_rng(0).normal(size=33)
    seen = []

    def spy(labels, scores):
        seen.append(int(labels.sum()))
        return evaluation.auc(labels, scores)

    evaluation.bootstrap(spy, labels, scores, strata=labels, draws=50)
    assert set(seen) == {3}
    seen.clear()
    same = [evaluation.bootstrap(spy, labels, scores, draws=50, seed=5) for _ in range(2)]
    assert len(set(seen)) > 1 and same[0] == same[1]


def test_bootstrap_refuses_what_has_no_interval():
    ones = np.ones(20)
    with pytest.raises(ValueError, match="not defined for these records"):
        evaluation.bootstrap(evaluation.auc, ones, ones)
    with pytest.raises(ValueError, match="one length above 0"):
        evaluation.bootstrap(evaluation.auc, ones, np.ones(3))
    with pytest.raises(ValueError, match="two strata"):
        evaluation.bootstrap(evaluation.accuracy, ones, ones, strata=np.arange(20), groups=np.arange(20) // 2)
    rare = lambda labels: 0.5 if labels.sum() == 1 and labels[0] == 1 else None  # noqa: E731
    with pytest.raises(ValueError, match="too few records"):
        evaluation.bootstrap(rare, np.eye(20)[0], draws=100)


def rectangle(classes):
    labels, logits = made(24, classes)
    if classes == 2:
        logits = logits[:, 1] - logits[:, 0]
    mask = np.ones((3, 8), bool)
    mask[1, 5:] = mask[2] = False
    return logits.reshape(3, 8, *logits.shape[1:]).astype(np.float32), labels.reshape(3, 8).astype(np.int32), mask


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_by_site_and_pooled_are_those_of_the_records(classes):
    logits, labels, mask = rectangle(classes)
    found = evaluation.scores(logits, labels, mask, ["a", "b", "empty"])
    decisions = evaluation.decide(logits.reshape(24, -1).squeeze()).reshape(3, 8)
    by_site = {"a": np.mean(decisions[0] == labels[0]), "b": np.mean(decisions[1, :5] == labels[1, :5])}
    assert found["accuracy_by_site"] == pytest.approx(by_site)
    assert found["mean_client_accuracy"] == pytest.approx(np.mean(list(by_site.values())))
    assert found["pooled_accuracy"] == pytest.approx((8 * by_site["a"] + 5 * by_site["b"]) / 13)
    ranking = logits[mask] if classes == 2 else evaluation.probabilities(logits[mask])
    assert found["auc"] == pytest.approx(evaluation.auc(labels[mask], ranking))
    if classes == 3:  # a constant added to a record's logits changes no probability and so no score
        shift = np.random.default_rng(0).normal(size=(3, 8, 1)).astype(np.float32)
        again = evaluation.scores(logits + 5 * shift, labels, mask, ["a", "b", "empty"])
        assert again["auc"] == pytest.approx(found["auc"])
    table = evaluation.site_scores(logits, labels, mask, ["a", "b", "empty"])
    assert table["sites"]["b"]["records"] == 5 and table["pooled"]["records"] == 13
    assert table["pooled"]["brier"] == pytest.approx(
        evaluation.brier(labels[mask], evaluation.probabilities(logits[mask]))
    )
    with pytest.raises(ValueError, match="No site has a test record"):
        evaluation.scores(logits, labels, np.zeros_like(mask), ["a", "b", "empty"])


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_ties_share_the_mean_of_their_ranks(levels):
    rng = np.random.default_rng(levels)
    scores, labels = rng.integers(0, levels, 300) / levels, rng.random(300) < 0.4
    ranks, positives = stats.rankdata(scores), int(labels.sum())
    wanted = (ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * (300 - positives))
    assert evaluation.auc(labels, scores) == wanted
    scores[7] = np.nan
    assert np.isnan(evaluation.auc(labels, scores))
