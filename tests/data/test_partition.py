"""Made-up sites: whole patients, exact counts, the skew that was asked for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedjax_poisson import data


def label_spread(sites):
    rates = [sites.labels[sites.site == s].mean() for s in range(len(sites.site_names))]
    return np.std(rates)


def test_dirichlet_keeps_records_split_and_labels():
    heart = data.load("heart")
    cut = data.dirichlet(heart, 6, 1.0, seed=1)
    np.testing.assert_array_equal(cut.features, heart.features)
    np.testing.assert_array_equal(cut.train, heart.train)
    assert cut.site_names == tuple(f"site {s}" for s in range(6))
    assert data.site_sizes(cut)[:, 0].min() >= 2
    assert "Dirichlet(1)" in cut.provenance.notes[-1]


def test_dirichlet_skew_falls_with_alpha():
    thyroid = data.load("thyroid")
    harsh, mild, none = (label_spread(data.dirichlet(thyroid, 8, alpha, seed=2)) for alpha in (0.3, 3.0, 3000.0))
    assert harsh > 2 * mild > 4 * none
    assert none < 0.02


def test_dirichlet_test_mixture_is_the_training_mixture():
    cut = data.dirichlet(data.load("thyroid"), 5, 1.0, seed=0)
    for s in range(5):
        own = cut.site == s
        assert cut.labels[own & cut.train].mean() == pytest.approx(cut.labels[own & ~cut.train].mean(), abs=0.02)


def test_the_seed_decides():
    heart = data.load("heart")
    same = [data.dirichlet(heart, 4, 0.5, seed=9).site for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert (data.dirichlet(heart, 4, 0.5, seed=8).site != same[0]).any()
    assert (data.quantity_skew(heart, 4, 0.5, seed=8).site != data.quantity_skew(heart, 4, 0.5, seed=9).site).any()


def test_quantity_skew_changes_sizes_and_not_labels():
    thyroid = data.load("thyroid")
    skewed, even = (data.quantity_skew(thyroid, 6, alpha, seed=4) for alpha in (0.5, 1e5))
    sizes = data.site_sizes(skewed)[:, 0]
    assert sizes.max() > 4 * sizes.min() and sizes.min() >= 2 and sizes.sum() == thyroid.train.sum()
    assert np.ptp(data.site_sizes(even)[:, 0]) < 30
    large = data.site_sizes(skewed).sum(axis=1) > 500
    rates = np.array([skewed.labels[skewed.site == s].mean() for s in range(6)])
    assert np.ptp(rates[large]) < 0.08


@pytest.mark.parametrize("cut", [lambda s: data.dirichlet(s, 3, 0.5), lambda s: data.quantity_skew(s, 3, 0.5)])
def test_patients_stay_whole(cut):
    heart = data.load("heart")
    # Patients of up to four neighbouring records on one side of the split.
    group = np.where(heart.train, np.arange(740) // 4, 1000 + np.arange(740) // 4).astype(np.int64)
    sites = cut(dataclasses.replace(heart, group=group, unit="patient", sites_per_unit=2))
    assert sites.sites_per_unit == 1
    for g in np.unique(group):
        assert len(np.unique(sites.site[group == g])) == 1


def test_by_site_cuts_along_an_attribute():
    heart = data.load("heart")
    sex = np.where(heart.features[:, 1] == 1, "male", "female")
    cut = data.by_site(heart, sex)
    assert cut.site_names == ("female", "male")
    np.testing.assert_array_equal(cut.site == 1, sex == "male")
    with pytest.raises(ValueError, match="3 values for 740 records"):
        data.by_site(heart, ["a", "b", "c"])


def test_multi_label_records_can_be_dealt():
    heart = data.load("heart")
    labels = np.stack([heart.labels, 1 - heart.labels, np.zeros_like(heart.labels)], axis=1)
    many = dataclasses.replace(heart, labels=labels, class_names=("a", "b", "c"))
    assert len(data.dirichlet(many, 4, 1.0).site_names) == 4


@pytest.mark.parametrize(
    ("count", "alpha", "message"),
    [(4, 0.0, "alpha is 0.0"), (4, -1.0, "positive"), (0, 1.0, "0 sites"), (400, 1.0, "there are 486")],
)
@pytest.mark.parametrize("cut", [data.dirichlet, data.quantity_skew])
def test_impossible_cuts_are_refused(cut, count, alpha, message):
    with pytest.raises(ValueError, match=message):
        cut(data.load("heart"), count, alpha)


def test_a_skew_that_cannot_fill_every_site_says_so():
    with pytest.raises(ValueError, match="raise alpha, or make fewer sites"):
        data.dirichlet(data.load("heart"), 40, 0.01)
