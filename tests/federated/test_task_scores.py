"""Scores of several labels and of numbers, under the names that all tasks share."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_poisson.federated import evaluation, task_scores

NAMES = ("a", "b", "empty")


@pytest.fixture
def sample():
    rng = np.random.default_rng(2)
    mask = np.ones((3, 40), bool)
    mask[1, 25:] = False
    mask[2] = False
    return rng, mask


def test_several_labels_are_the_mean_of_each_alone(sample):
    rng, mask = sample
    logits = rng.normal(size=(3, 40, 2))
    labels = (logits + rng.normal(size=logits.shape) > 0).astype(int)
    found = task_scores.scores_of("multilabel", logits, labels, mask, NAMES, ("died", "back"))
    each = [evaluation.scores(logits[..., k], labels[..., k], mask, NAMES) for k in range(2)]
    for name in ("mean_client_accuracy", "pooled_accuracy", "auc", "brier", "calibration_error", "balanced_accuracy"):
        assert found[name] == pytest.approx(np.mean([own[name] for own in each]))
    assert found["auc_by_label"] == {"died": each[0]["auc"], "back": each[1]["auc"]}
    assert found["auc_by_site"]["b"] == pytest.approx(np.mean([own["auc_by_site"]["b"] for own in each]))
    assert set(found["accuracy_by_site"]) == {"a", "b"} and found["rmse"] is None


def test_a_label_without_both_values_does_not_count_for_the_auc(sample):
    rng, mask = sample
    logits = rng.normal(size=(3, 40, 2))
    labels = np.stack([logits[..., 0] > 0, np.zeros((3, 40))], axis=-1).astype(int)
    found = task_scores.scores_of("multilabel", logits, labels, mask, NAMES, ("died", "back"))
    assert found["auc"] == 1.0 and found["auc_by_label"] == {"died": 1.0, "back": None}


def test_numbers_are_scored_in_their_unit(sample):
    rng, mask = sample
    labels = rng.normal(50, 10, size=(3, 40))
    predicted = labels + 3
    found = task_scores.scores_of("regression", predicted, labels, mask, NAMES)
    assert found["rmse"] == pytest.approx(3) and found["mean_absolute_error"] == pytest.approx(3)
    assert found["r2"] == pytest.approx(1 - 9 / labels[mask].var())
    assert set(found["rmse_by_site"]) == {"a", "b"} and found["auc"] is None and found["pooled_accuracy"] is None
    mean = task_scores.scores_of("regression", np.full_like(labels, labels[mask].mean()), labels, mask, NAMES)
    assert mean["r2"] == pytest.approx(0, abs=1e-12)
    assert task_scores.scores_of("regression", labels, np.ones_like(labels), mask, NAMES)["r2"] is None


def test_classes_have_an_auc_each_against_the_rest(sample):
    rng, mask = sample
    logits = rng.normal(size=(3, 40, 3))
    labels = (logits + rng.normal(size=logits.shape)).argmax(axis=-1)
    found = task_scores.scores_of("multiclass", logits, labels, mask, NAMES, ("x", "y", "z"))
    assert found["auc"] == pytest.approx(np.mean(list(found["auc_by_label"].values())))
    assert set(found) == set(task_scores.SCORES)


def test_nothing_to_score_is_said(sample):
    with pytest.raises(ValueError, match="test fraction"):
        task_scores.scores_of("regression", np.zeros((1, 3)), np.zeros((1, 3)), np.zeros((1, 3), bool), ("a",))
