"""Intervals of scores: published values, coverage with a twin that is too narrow, and what is not defined."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_poisson.federated.intervals import private_intervals, score_intervals, share_interval, wilson_interval


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_against_published_values(hits, count, low, high):
    assert wilson_interval(hits / count, count) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


def _coverage(intervals, truth):
    return np.mean([low <= truth <= high for low, high in intervals])


def test_private_intervals_cover_noise_and_records_and_records_alone_do_not():
    rng, truth, deviation, records = np.random.default_rng(0), 0.8, 12.0, 120
    found, alone = [], []
    for _ in range(2000):
        right = rng.binomial(records, truth)
        total = np.array([records, right], float) + deviation * rng.normal(size=2)
        own = private_intervals(np.concatenate([total, np.zeros(4)]), deviation, ("a",))["pooled_accuracy"]
        if own is not None:
            found.append(own)
            alone.append(wilson_interval(min(max(total[1] / total[0], 0), 1), total[0]))
    assert _coverage(found, truth) > 0.92
    assert _coverage(alone, truth) < 0.80  # the twin: the noise left out


def test_a_site_whose_count_drowns_in_the_noise_has_no_interval():
    found = private_intervals(np.array([100.0, 5.0, 80.0, 3.0, 0.0, 0.0]), 4.0, ("big", "small"))
    assert set(found["accuracy_by_site"]) == {"big"}


def _sample(rng, task, shape=(2, 40)):
    truth = rng.integers(0, 2, shape)
    if task == "multilabel":
        truth = rng.integers(0, 2, (*shape, 3))
    if task == "multiclass":
        truth = rng.integers(0, 3, shape)
        return rng.normal(size=(*shape, 3)) + 2 * np.eye(3)[truth], truth
    return 2.0 * truth - 1 + rng.normal(size=truth.shape), truth


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
def test_every_task_has_the_intervals_of_its_scores(task):
    outputs, labels = _sample(np.random.default_rng(1), task)
    mask = np.ones((2, 40), bool)
    mask[1, 5:] = False  # a site of five records
    found = score_intervals(task, outputs, labels, mask, ("a", "b"))
    by_site = {key: own for key, own in found.items() if key.endswith("_by_site")}
    assert by_site and all(set(own) == {"a", "b"} for own in by_site.values())
    flat = [own for key, own in found.items() if not key.endswith("_by_site")]
    assert all(low < high for low, high in flat)
    resampled = {
        "binary": "auc_by_site",
        "multiclass": "auc_by_site",
        "regression": "rmse_by_site",
    }
    if task in resampled:
        assert found[resampled[task]]["b"] is None  # too few to draw from


def test_patients_with_several_records_widen_the_interval_of_a_share():
    rng = np.random.default_rng(2)
    truth = np.repeat(rng.integers(0, 2, 30), 8)[None]
    wrong = np.repeat(rng.random(30) < 0.3, 8)[None]  # all records of a patient are right or wrong together
    outputs, mask = np.where(wrong, 1 - 2.0 * truth, 2.0 * truth - 1), np.ones(truth.shape, bool)
    groups = np.repeat(np.arange(30), 8)[None]
    single, whole = (
        score_intervals("binary", outputs, truth, mask, ("a",), own)["pooled_accuracy"] for own in (None, groups)
    )
    assert whole[1] - whole[0] > 1.8 * (single[1] - single[0])


def test_of_many_sites_only_shares_have_intervals():
    outputs = np.random.default_rng(4).normal(size=(40, 12))
    labels, mask = (
        (outputs + np.random.default_rng(5).normal(size=outputs.shape) > 0).astype(int),
        np.ones((40, 12), bool),
    )
    found = score_intervals("binary", outputs, labels, mask, [f"s{k}" for k in range(40)])
    assert len(found["accuracy_by_site"]) == 40 and found["auc_by_site"] == {} and found["auc"] is not None


def test_one_class_alone_has_no_area():
    outputs, mask = np.random.default_rng(3).normal(size=(1, 30)), np.ones((1, 30), bool)
    found = score_intervals("binary", outputs, np.ones((1, 30), int), mask, ("a",))
    assert found["auc"] is None and found["pooled_accuracy"] is not None


def _patients(rng, patients: int, share: float):
    """Decisions of patients with 1 to 6 records, all right or all wrong, and whose they are."""
    owners = np.repeat(np.arange(patients), rng.choice([1, 1, 3, 6], patients))
    return (rng.random(patients) < share)[owners], owners


def test_a_share_of_dependent_decisions_is_covered_and_of_independent_ones_is_not():
    rng, known, alone = np.random.default_rng(6), [], []
    for _ in range(1500):
        right, owners = _patients(rng, 60, 0.8)
        known.append(share_interval(right, owners))
        alone.append(wilson_interval(right.mean(), len(right)))
    assert 0.91 < _coverage(known, 0.8) < 0.97
    assert _coverage(alone, 0.8) < 0.75  # the twin: every record its own patient


def test_a_share_of_independent_decisions_has_wilson_s_interval_and_an_undivided_one_that_of_its_patients():
    right = np.arange(40) % 4 > 0
    assert share_interval(right, np.arange(40)[::-1]) == pytest.approx(wilson_interval(0.75, 40))
    owners = np.repeat(np.arange(5), 8)
    assert share_interval(np.ones(40), owners) == wilson_interval(1.0, 5)
    assert share_interval(right, owners) == wilson_interval(0.75, 5)  # each patient 6 of 8
    assert share_interval(right, np.zeros(40, int)) == wilson_interval(0.75, 1)
    apart = np.arange(40) % 2
    apart[1], apart[2] = (
        0,
        1,
    )  # 18 patients right and wrong once each, one never, one always: less spread than independent decisions have
    assert share_interval(apart, np.repeat(np.arange(20), 2)) == wilson_interval(
        0.5, 40
    )  # never of more than there are


def test_perfect_scores_of_few_records_have_no_interval_of_width_zero():
    labels = (np.arange(20) % 2)[None]
    outputs, mask, owners = np.where(labels, 3.0, -3.0), np.ones((1, 20), bool), np.arange(20)[None]
    for own in (owners, owners // 2):
        found = score_intervals("binary", outputs, labels, mask, ("a",), own)
        assert found["auc"] is None and found["auc_by_site"] == {"a": None}
        low, high = found["pooled_accuracy"]
        assert low == pytest.approx(wilson_interval(1.0, len(np.unique(own)))[0]) and high == pytest.approx(1)
    found = score_intervals("regression", labels + 1.0, labels * 1.0, mask, ("a",))
    assert found["rmse"] is None
