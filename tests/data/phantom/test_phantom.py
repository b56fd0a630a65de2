"""The synthetic radiographs: what differs between sites and what must not, and that only the lungs carry the label."""

from __future__ import annotations

import importlib.util
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from fedjax_poisson import data
from fedjax_poisson.data.phantom import lesions, phantom
from fedjax_poisson.data.phantom.acquisition import SCANNERS
from tests.data.helpers import area_under_curve
from tests.helpers.stat import chi_square_pvalue

SIZE = 32


@pytest.fixture(scope="module")
def sites():
    return data.load("xray", patients=260, size=SIZE)


def expected(labels, size=SIZE, seed=0, site=None):
    """Settings, trunk and expected photons of 64 patients: the deterministic part of a picture."""
    n = np.arange(64, dtype=np.int32)
    machines = np.array(list(SCANNERS.values()), np.float32)[n % 6 if site is None else np.full(64, site)]
    return phantom._expose(np.uint32(seed), n, n, np.asarray(labels, np.int32), machines, size)


# The data set --------------------------------------------------------------------------------------------------------


def test_the_container_says_what_it_is(sites):
    assert sites.features.shape == (len(sites.labels), SIZE, SIZE, 1) and sites.features.dtype == np.float32
    assert sites.features.min() >= 0 and sites.features.max() <= 1
    assert sites.site_names == tuple(SCANNERS) and sites.class_names == lesions.CLASSES
    assert sites.unit == "patient" and len(np.unique(sites.group)) == 6 * 260
    text = data.describe(sites)
    assert "SYNTHETIC" in sites.provenance.source and "no diagnostic claim" in sites.provenance.source
    assert "WARNING: SYNTHETIC" in text and "not a privacy mechanism" in text


def test_patients_have_one_label_and_one_side_and_some_two_pictures(sites):
    _, first, member, count = np.unique(sites.group, return_index=True, return_inverse=True, return_counts=True)
    assert set(count) == {1, 2} and 0.15 < np.mean(count == 2) < 0.35
    for values in (sites.labels, sites.train, sites.site):
        np.testing.assert_array_equal(values, values[first][member])
    assert 0.2 < np.mean(~sites.train) < 0.3


def test_two_pictures_of_a_patient_show_the_same_chest_and_are_not_copies(sites):
    twice = np.flatnonzero(np.bincount(sites.group) == 2)
    pairs = np.array([np.flatnonzero(sites.group == g) for g in twice])
    flat = sites.features.reshape(len(sites.labels), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    same = (flat[pairs[:, 0]] * flat[pairs[:, 1]]).sum(axis=1)
    # Another patient of the same site.
    other = np.concatenate([
        (flat[a] * flat[np.roll(a, 1)]).sum(axis=1)
        for s in range(6)
        if len(a := pairs[sites.site[pairs[:, 0]] == s, 0]) > 1
    ])  # fmt: skip
    assert same.max() < 0.9999
    assert np.median(same) > np.quantile(other, 0.75)


@pytest.mark.statistical
def test_prevalence_is_each_sites_own(sites):
    first = np.unique(sites.group, return_index=True)[1]
    labels, place = sites.labels[first], sites.site[first]
    counts = [np.bincount(labels[place == s], minlength=3) for s in range(6)]
    for s in range(6):
        assert chi_square_pvalue(counts[s], np.array(phantom._PREVALENCE[s])) > 1e-4
    # The twin: the prevalence of a site where disease is rare does not fit the one where it is common.
    assert chi_square_pvalue(counts[2], np.array(phantom._PREVALENCE[1])) < 1e-4


def test_the_seed_decides_everything():
    options = {"patients": 3, "sites": 2, "size": SIZE}
    one, again, other = (data.load("xray", seed=seed, **options) for seed in (4, 4, 5))
    np.testing.assert_array_equal(one.features, again.features)
    np.testing.assert_array_equal(one.train, again.train)
    assert not np.array_equal(one.features[0], other.features[0])


def test_binary_labels_are_the_same_pictures_with_the_diseases_joined():
    options = {"patients": 30, "sites": 1, "size": SIZE}
    three, two = data.load("xray", **options), data.load("xray", binary=True, **options)
    np.testing.assert_array_equal(three.features, two.features)
    np.testing.assert_array_equal(np.minimum(three.labels, 1), two.labels)
    assert two.class_names == ("no pneumonia", "pneumonia")


def test_more_sites_than_six_draw_their_machines_between_the_known_ones():
    scanners, prevalence = phantom._sites(9, np.random.default_rng(0))
    known = np.array(list(SCANNERS.values()))
    drawn = np.array(list(scanners.values()))[6:]
    assert list(scanners)[5:8] == ["F collimated", "G drawn", "H drawn"]
    assert (
        (drawn >= known.min(axis=0)).all() and (drawn <= known.max(axis=0)).all() and len(np.unique(drawn[:, 0])) == 3
    )
    np.testing.assert_allclose(prevalence.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 16}, "size is 16; expected 32 to 128"),
        ({"sites": 27}, "sites 27; expected at least 1 patient and 1 to 26 sites"),
        ({"patients": 0}, "patients is 0"),
        ({"second_image": 2.0}, "second_image is 2.0"),
        ({"seed": -1}, "seed is -1"),
        ({"test_fraction": 1.0}, "test_fraction is 1.0"),
    ],
)
def test_arguments_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        data.load("xray", **({"patients": 1, "sites": 1, "size": SIZE} | options))
    with pytest.raises(ValueError, match=r"labels run from 0 to 3; expected 0\.\.2"):
        phantom.render(np.array([0, 3]), np.arange(2), np.zeros(2), list(SCANNERS.values()), size=SIZE)


def test_every_size_of_data_set_runs_one_program(sites):
    before = phantom._expose._cache_size()
    data.load("xray", patients=7, sites=3, size=SIZE)
    assert phantom._expose._cache_size() == before


def test_the_gallery_shows_every_site_and_class(tmp_path):
    script = pathlib.Path(__file__).parents[3] / "experiments" / "phantom_gallery.py"
    spec = importlib.util.spec_from_file_location("phantom_gallery", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.gallery(data.load("xray", patients=20, sites=2, size=SIZE), tmp_path / "gallery.png")
    drawn = np.asarray(Image.open(tmp_path / "gallery.png"))
    assert drawn.ndim == 2 and drawn.shape[1] > 900
    # Two rows of nine pictures on white paper: text is never a tenth dark, a row of pictures always is somewhere.
    paper = (drawn == 255).mean(axis=1) > 0.9
    assert 1 + (np.diff(np.flatnonzero(~paper)) > 1).sum() >= 2
    assert (drawn[~paper] < 128).mean() > 0.1


# Nothing but the lung carries the label ------------------------------------------------------------------------------


def test_a_disease_changes_the_lungs_and_not_one_photon_outside_them():
    none, focal, both = (np.asarray(expected(np.full(64, k))[2]) for k in range(3))
    frame = np.ones((SIZE, SIZE), bool)
    frame[2:-2, 2:-2] = False
    for ill in (focal, both):
        np.testing.assert_array_equal(ill[:, frame], none[:, frame])
        assert (ill <= none).all()
        assert 0.02 < np.mean(ill < 0.98 * none) < 0.35
    # Less light by what is filled: on one side of the chest, or on both.
    lost = np.stack([np.where(ill < 0.97 * none, none - ill, 0) / none for ill in (focal, both)])
    left, right = lost[..., : SIZE // 2].sum(axis=(2, 3)), lost[..., SIZE // 2 :].sum(axis=(2, 3))
    lopsided = np.abs(left - right) / (left + right + 1e-9)
    assert np.median(lopsided[0]) > 0.95 and np.median(lopsided[1]) < 0.4


def test_settings_and_anatomy_do_not_know_the_label():
    healthy, ill = expected(np.zeros(64)), expected(np.arange(64) % 3)
    for a, b in zip(jax.tree.leaves(healthy[:2]), jax.tree.leaves(ill[:2]), strict=True):
        np.testing.assert_array_equal(a, b)


def ridge_auc(features, sites, penalty):
    """Held-out AUC of disease, from features less their site's mean so that prevalence cannot be read off the machine."""
    x = features.reshape(len(features), -1).astype(np.float64)
    ill = (sites.labels > 0).astype(float)
    target = ill.copy()
    for s in range(len(sites.site_names)):
        own = sites.site == s
        x[own] -= x[own & sites.train].mean(axis=0)
        x[own] /= x[own & sites.train].std(axis=0).mean()
        target[own] -= target[own & sites.train].mean()
    fit = x[sites.train]
    weights = np.linalg.solve(fit.T @ fit + penalty * np.eye(x.shape[1]), fit.T @ target[sites.train])
    scores, test = x @ weights, ~sites.train
    return np.mean(
        [area_under_curve(scores[own], ill[own]) for s in range(6) if (own := test & (sites.site == s)).any()]
    )


def test_pixels_tell_the_disease_and_the_border_does_not(sites):
    border = data.border_only(sites, 2)
    # 240 test pictures: the standard error of an AUC is about 0.035.
    assert ridge_auc(sites.features, sites, 300.0) > 0.65
    assert abs(ridge_auc(border.features, sites, 300.0) - 0.5) < 0.12
