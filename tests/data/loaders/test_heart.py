"""Heart, as it ships: sizes, split, bounds, and the score that global standardisation reaches."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_poisson import data
from tests.data.helpers import fit_logistic, shared_file, standardised


def mean_client_accuracy(sites, x):
    weight, bias = fit_logistic(x[sites.train], sites.labels[sites.train])
    right = (x @ weight + bias > 0) == sites.labels
    return np.mean([right[(sites.site == s) & ~sites.train].mean() for s in range(len(sites.site_names))])


def test_heart_has_flambys_sizes():
    sites = data.load("heart")
    assert sites.site_names == ("Cleveland", "Hungary", "Switzerland", "Long Beach")
    np.testing.assert_array_equal(data.site_sizes(sites), [[199, 104], [172, 89], [30, 16], [85, 45]])
    assert sites.features.shape == (740, 13) and sites.unit == "record" and not sites.warnings
    assert sites.feature_names[:2] == ("age", "sex")


def test_heart_is_the_reference_file_value_for_value():
    with np.load(shared_file("fed_heart_disease_flamby.npz"), allow_pickle=False) as reference:
        sites = data.load("heart")
        np.testing.assert_array_equal(sites.features, reference["X"])
        np.testing.assert_array_equal(sites.labels, reference["y"])
        np.testing.assert_array_equal(sites.site, reference["site"])
        np.testing.assert_array_equal(sites.train, reference["train"])


def test_heart_bounds_clip_only_what_is_implausible():
    sites = data.load("heart")
    clipped = dict(zip(sites.feature_names, data.clipped_fraction(sites), strict=True))
    # One zero blood pressure and one cholesterol of 603; nothing else.
    assert clipped.pop("trestbps") == pytest.approx(1 / 740)
    assert clipped.pop("chol") == pytest.approx(1 / 740)
    assert max(clipped.values()) == 0


def test_heart_says_what_is_wrong_with_its_cholesterol():
    sites = data.load("heart")
    column = sites.features[:, sites.feature_names.index("chol")]
    zeros = [int((column[sites.site == s] == 0).sum()) for s in range(4)]
    assert zeros == [0, 0, 46, 33]
    assert any("chol = 0 means not measured: in all 46" in note for note in sites.provenance.notes)


def test_heart_global_standardisation_reaches_eighty_percent_and_per_site_does_not():
    sites = data.load("heart")
    together = mean_client_accuracy(sites, standardised(sites))
    apart = mean_client_accuracy(sites, standardised(sites, per_site=True))
    assert 0.785 <= together <= 0.825
    assert apart < together - 0.03
