"""Heart and thyroid, as they ship: sizes, splits, bounds, and the score that global standardisation reaches."""

from __future__ import annotations

import importlib.resources

import numpy as np
import pytest
from scipy import optimize, special

from fedjax_poisson import data
from tests.data.helpers import area_under_curve, shared_file


def fit_logistic(x, y, ridge=1e-3):
    """Logistic regression by L-BFGS in float64; returns (weight, bias)."""
    x = x.astype(np.float64)

    def objective(theta):
        z = x @ theta[:-1] + theta[-1]
        residual = special.expit(z) - y
        loss = np.mean(np.logaddexp(0, z) - y * z) + ridge * theta[:-1] @ theta[:-1] / 2
        return loss, np.append(x.T @ residual / len(y) + ridge * theta[:-1], residual.mean())

    theta = optimize.minimize(objective, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x
    return theta[:-1], theta[-1]


def standardised(sites, per_site=False):
    x = np.clip(sites.features, sites.feature_bounds[:, 0], sites.feature_bounds[:, 1]).astype(np.float64)
    out = np.empty_like(x)
    for s in range(len(sites.site_names)) if per_site else [slice(None)]:
        rows = sites.site == s if per_site else np.ones(len(x), bool)
        fit = rows & sites.train
        out[rows] = (x[rows] - x[fit].mean(0)) / np.maximum(x[fit].std(0), 1e-6)
    return out


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


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'hart'.*heart, thyroid.*from_csv"):
        data.load("hart")


def test_licences_and_attribution_ship():
    folder = importlib.resources.files("fedjax_poisson.data")
    text = (folder / "LICENSES.md").read_text()
    files = [entry.name for entry in (folder / "files").iterdir()]
    assert sorted(files) == ["heart.npz", "thyroid.csv.gz"]
    assert all(f"files/{name}" in text for name in files)
    for person in ("Janosi", "Steinbrunn", "Pfisterer", "Detrano", "Quinlan"):
        assert person in text
    for name in ("heart", "thyroid"):
        assert data.load(name).provenance.licence == "CC BY 4.0"
        assert data.load(name).provenance.citation in " ".join(text.split())
