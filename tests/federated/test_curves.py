"""Curves from counts: against direct computation, the published net benefit, and a released histogram."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_poisson.federated import evaluation
from fedjax_poisson.federated.curves import (
    agreement,
    confusion,
    curves_of,
    noisy_operating_points,
    noisy_reliability,
    operating_points,
)


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    labels = (rng.random(500) < 0.3).astype(int)
    return labels, 1 / (1 + np.exp(-(2 * labels - 1.6 + rng.normal(size=500))))


def test_every_point_counts_what_is_at_least_its_threshold(sample):
    labels, chances = sample
    own = curves_of(operating_points(labels, chances))
    for at in range(0, len(own.thresholds), 17):
        called = chances >= own.thresholds[at]
        assert own.sensitivity[at] == pytest.approx(called[labels == 1].mean())
        assert own.false_alarms[at] == pytest.approx(called[labels == 0].mean())
        if called.any():
            assert own.precision[at] == pytest.approx(labels[called].mean())
    assert own.sensitivity[0] == own.false_alarms[0] == 1 and own.thresholds[0] == 0
    area = -np.trapezoid(own.sensitivity, own.false_alarms)
    assert area == pytest.approx(evaluation.auc(labels, chances), abs=5e-3)


def test_net_benefit_is_that_of_vickers_and_elkin(sample):
    """True positives / n - false positives / n * t / (1 - t): on counts, and in a cohort of which everything is known."""
    labels, chances = sample
    own = curves_of(operating_points(labels, chances))
    at = int(np.argmin(np.abs(own.thresholds - 0.2)))
    called, t = chances >= own.thresholds[at], own.thresholds[at]
    direct = (called & (labels == 1)).mean() - (called & (labels == 0)).mean() * t / (1 - t)
    assert own.net_benefit[at] == pytest.approx(direct)
    assert own.treat_all[0] == pytest.approx(own.prevalence) == pytest.approx(labels.mean())
    everybody = int(np.argmin(np.abs(own.thresholds - own.prevalence)))
    assert abs(own.treat_all[everybody]) < 0.02  # at a threshold of the prevalence acting on all is worth nothing
    perfect = curves_of(operating_points(labels, labels * 0.98 + 0.01))
    assert perfect.net_benefit[(perfect.thresholds > 0.02) & (perfect.thresholds < 0.98)] == pytest.approx(
        labels.mean()
    )


def test_many_records_keep_few_thresholds(sample):
    rng = np.random.default_rng(1)
    labels, chances = rng.integers(0, 2, 20_000), rng.random(20_000) ** 6  # nearly all are small
    found = operating_points(labels, chances)
    assert 101 <= len(found["thresholds"]) <= 202
    assert -np.trapezoid(curves_of(found).sensitivity, curves_of(found).false_alarms) == pytest.approx(
        evaluation.auc(labels, chances), abs=5e-3
    )


def test_a_histogram_without_noise_gives_the_same_curves_up_to_its_bins(sample):
    labels, chances = sample
    bins = 32
    place = np.minimum((chances * bins).astype(int), bins - 1)
    histogram = np.stack([np.bincount(place[labels == k], minlength=bins) for k in (0, 1)]).astype(float)
    found, exact = (
        curves_of(each) for each in (noisy_operating_points(histogram, 0.0), operating_points(labels, chances))
    )
    for t in (0.25, 0.5, 0.75):
        a, b = (int(np.argmin(np.abs(own.thresholds - t))) for own in (found, exact))
        assert found.sensitivity[a] == pytest.approx(exact.sensitivity[b])
        assert found.net_benefit[a] == pytest.approx(exact.net_benefit[b])
    drawn = noisy_reliability(histogram, 0.0)
    assert sum(drawn["count"]) == 500
    direct = evaluation.reliability(labels, chances, bins=8)
    assert drawn["frequency"] == pytest.approx(direct["frequency"]) and drawn["count"] == pytest.approx(direct["count"])
    assert drawn["confidence"] == pytest.approx(direct["confidence"], abs=1 / 64)


def test_what_drowns_in_the_noise_is_left_out(sample):
    histogram = np.full((2, 32), 3.0)
    assert noisy_operating_points(histogram, 50.0) is None
    assert noisy_reliability(histogram, 50.0)["count"] == []


@pytest.mark.parametrize("points", [{}, {"thresholds": "x"}, None])
def test_what_are_no_counts_is_refused(points, sample):
    with pytest.raises(ValueError, match="no operating points"):
        curves_of(points)
    good = operating_points(*sample)
    with pytest.raises(ValueError, match="vectors of one length"):
        curves_of({**good, "true_positives": [1.0]})
    with pytest.raises(ValueError, match="both classes"):
        curves_of({**good, "positives": 0})


def test_several_classes_and_numbers():
    assert confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3) == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    rng = np.random.default_rng(2)
    predicted = rng.normal(size=200)
    found = agreement(predicted + 0.1 * rng.normal(size=200) + 3, predicted)
    assert len(found["count"]) == 10 and sum(found["count"]) == 200
    gap = np.array(found["observed"]) - np.array(found["predicted"])
    assert gap == pytest.approx(3, abs=0.2)  # a bias shows in every part
    assert len(agreement(np.arange(5.0), np.arange(5.0))["count"]) == 1


def _released(positives: int, deviation: float, releases: int):
    """Noisy histograms of 2,000 records, of which so many are cases."""
    rng = np.random.default_rng(3)
    for _ in range(releases):
        chances = rng.beta(1.2, 8, 2000 - positives), rng.beta(2, 4, positives)
        exact = np.stack([np.histogram(own, 32, (0, 1))[0] for own in chances])
        yield exact + rng.normal(0, deviation, (2, 32))


def test_without_a_single_case_hardly_any_release_shows_curves():
    deviation = 20.0
    shown = cut = 0
    for histogram in _released(0, deviation, 1500):
        shown += noisy_operating_points(histogram, deviation) is not None
        cut += np.maximum(histogram, 0).sum(axis=1).min() > 3 * deviation * np.sqrt(32)
    assert shown / 1500 < 0.01
    assert cut / 1500 > 0.05  # the twin: totals of what noise left above 0 show cases that are not there


def test_cutting_noise_below_zero_invents_no_cases():
    stated, cut = [], []
    for histogram in _released(400, 12.0, 1000):
        found = noisy_operating_points(histogram, 12.0)
        if found is None:  # in one of 500
            continue
        assert found["true_positives"][0] == pytest.approx(found["positives"])
        stated.append(found["positives"] / (found["positives"] + found["negatives"]))
        kept = np.maximum(histogram, 0).sum(axis=1)
        cut.append(kept[1] / kept.sum())
    error = np.std(stated) / np.sqrt(len(stated))
    assert abs(np.mean(stated) - 0.2) < 4 * error
    assert np.mean(cut) - 0.2 > 8 * error  # the twin
