"""Thyroid, as it ships: sites, the public merge, flags and labels."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_poisson import data
from tests.data.helpers import area_under_curve, fit_logistic, standardised


def test_thyroid_sites_and_the_public_merge():
    sites = data.load("thyroid")
    assert sites.features.shape == (9172, 41)
    assert sites.site_names == ("STMW", "SVHC", "SVHD", "SVI", "other")
    np.testing.assert_array_equal(data.site_sizes(sites).sum(axis=1), [255, 956, 71, 2394, 5496])
    assert any("WEST" in note for note in sites.provenance.notes)
    assert sites.labels.mean() == pytest.approx(2401 / 9172)
    kept_apart = data.load("thyroid", min_site_records=1)
    assert "WEST" in kept_apart.site_names


def test_thyroid_is_deterministic_and_the_seed_matters():
    first, second, other = (data.load("thyroid", split_seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.train, second.train)
    assert (first.train != other.train).any()
    assert (~first.train).mean() == pytest.approx(0.34, abs=0.002)


def test_thyroid_ages_are_human_and_hormones_flagged():
    sites = data.load("thyroid")
    names = sites.feature_names
    assert sites.features[:, names.index("age")].max() <= 120
    assert sites.features[:, names.index("TSH_measured")].sum() == 8330
    assert data.clipped_fraction(sites).max() < 0.002
    assert sites.binary.sum() == 34


def test_thyroid_range_flags_are_what_a_laboratory_would_mark():
    sites, plain = data.load("thyroid"), data.load("thyroid", range_flags=False)
    assert plain.features.shape == (9172, 29)
    names = sites.feature_names
    tsh = np.exp(sites.features[:, names.index("log_TSH")])
    np.testing.assert_array_equal(sites.features[:, names.index("TSH_high")], tsh > 4.5)
    measured = sites.features[:, names.index("TBG_measured")] == 1
    for side in ("low", "high"):
        flagged = sites.features[:, names.index(f"TBG_{side}")] == 1
        assert 0 < flagged.sum() < measured.sum() and not (flagged & ~measured).any()


def test_thyroid_any_condition_needs_the_range_flags():
    scores = []
    for range_flags in (True, False):
        sites = data.load("thyroid", range_flags=range_flags)
        x = standardised(sites)
        weight, bias = fit_logistic(x[sites.train], sites.labels[sites.train])
        scores.append(area_under_curve(x[~sites.train] @ weight + bias, sites.labels[~sites.train]))
    assert scores[0] > 0.945 and scores[1] < 0.76


def test_thyroid_hypothyroid_label_reads_the_diagnosis_letters():
    sites = data.load("thyroid", label="hypothyroid")
    # F 233, G 359, E 1, GK 49, FK 6, GI 10, GKJ 1; "H|K" is more likely K and stays negative.
    assert sites.labels.sum() == 233 + 359 + 1 + 49 + 6 + 10 + 1
    with pytest.raises(ValueError, match="'any' or 'hypothyroid'"):
        data.load("thyroid", label="hyper")


def test_thyroid_hypothyroid_is_learnable():
    sites = data.load("thyroid", label="hypothyroid")
    x = standardised(sites)
    weight, bias = fit_logistic(x[sites.train], sites.labels[sites.train])
    assert area_under_curve(x[~sites.train] @ weight + bias, sites.labels[~sites.train]) > 0.96
