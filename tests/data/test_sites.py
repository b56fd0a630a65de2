"""The container: what it refuses, how sites are cut out and padded."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedjax_poisson import data


def tiny(**changes):
    fields = {
        "features": np.arange(12, dtype=np.float32).reshape(6, 2),
        "labels": np.array([0, 1, 0, 1, 1, 0], np.int32),
        "site": np.array([0, 0, 0, 1, 1, 0], np.int32),
        "site_names": ("north", "south"),
        "train": np.array([True, True, False, True, False, True]),
        "group": np.arange(6, dtype=np.int64),
        "unit": "record",
        "feature_names": ("a", "b"),
        "feature_bounds": np.array([[0, 10], [0, 10]], np.float32),
        "binary": np.array([False, False]),
        "class_names": ("no", "yes"),
        "provenance": data.Provenance(name="tiny", source="made up"),
    }
    return data.Sites(**(fields | changes))


def test_site_split_keeps_the_order_of_the_file():
    x_train, y_train, x_test, y_test = data.site_split(tiny(), 0)
    np.testing.assert_array_equal(x_train, [[0, 1], [2, 3], [10, 11]])
    np.testing.assert_array_equal(y_train, [0, 1, 0])
    np.testing.assert_array_equal(x_test, [[4, 5]])
    np.testing.assert_array_equal(y_test, [0])


@pytest.mark.parametrize("s", [-1, 2])
def test_site_split_names_the_sites_when_asked_for_another(s):
    with pytest.raises(IndexError, match=r"north, south"):
        data.site_split(tiny(), s)


def test_padded_is_the_sites_and_zeros():
    stacked = data.padded(tiny())
    assert stacked.features.shape == (2, 3, 2) and stacked.features.dtype == np.float32
    assert stacked.labels.dtype == np.int32
    np.testing.assert_array_equal(stacked.mask, [[True, True, True], [True, False, False]])
    np.testing.assert_array_equal(stacked.features[1], [[6, 7], [0, 0], [0, 0]])
    np.testing.assert_array_equal(stacked.labels, [[0, 1, 0], [1, 0, 0]])


def test_padded_images_and_multi_label():
    images = np.ones((6, 4, 4, 2), np.float32)
    stacked = data.padded(tiny(features=images, labels=np.ones((6, 2), np.int32)), train=False)
    assert stacked.features.shape == (2, 1, 4, 4, 2)
    assert stacked.labels.shape == (2, 1, 2)


def test_padded_groups_number_the_patients_of_each_site():
    sites = tiny(group=np.array([7, 7, 9, 5, 3, 2], np.int64), unit="patient")
    np.testing.assert_array_equal(data.padded_groups(sites), [[1, 1, 0], [0, -1, -1]])


def test_every_record_is_in_exactly_one_place_of_padded():
    sites = data.load("heart")
    places = np.concatenate([rows[mask] for rows, mask in (data.padded_rows(sites, t) for t in (True, False))])
    np.testing.assert_array_equal(np.sort(places), np.arange(740))


def test_clipped_fraction_counts_values_outside():
    np.testing.assert_allclose(data.clipped_fraction(tiny()), [0.0, 1 / 6])


def test_describe_prints_warnings_and_notes():
    text = data.describe(
        tiny(
            warnings=("ranges from the data",),
            provenance=data.Provenance(name="tiny", source="made up", notes=("two rows dropped",)),
        )
    )
    assert "WARNING: ranges from the data" in text and "two rows dropped" in text and "south" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.zeros((6, 2))}, "float64"),
        ({"features": np.zeros((0, 2), np.float32)}, "no record"),
        ({"features": np.full((6, 2), np.nan, np.float32)}, "NaN or infinity in: a, b"),
        ({"labels": np.array([0, 1, 0, 1, 2, 0], np.int32)}, r"row 4 has the label 2; declared classes are no, yes"),
        ({"labels": np.zeros(6, np.int64)}, "labels is int64"),
        ({"site": np.array([0, 0, 0, 2, 1, 0], np.int32)}, "site runs from 0 to 2"),
        ({"site": np.zeros(6, np.int32)}, "south"),
        ({"train": np.zeros(6, bool)}, "no record is in the training split"),
        ({"group": np.array([0, 1, 1, 3, 4, 5], np.int64)}, r"group 1 in rows \[1, 2\]"),
        ({"group": np.zeros(5, np.int64)}, "group is int64 of shape"),
        ({"feature_bounds": np.array([[0, 10], [3, 3]], np.float32)}, "bounds of 'b' are 3.0..3.0"),
        ({"feature_bounds": np.array([[0, np.inf], [0, 3]], np.float32)}, "finite"),
        ({"feature_names": ("a",)}, "1 feature names for 2"),
        ({"unit": "hospital"}, "unit is 'hospital'"),
    ],
)
def test_a_wrong_container_is_refused_with_the_fact(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_the_container_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny().unit = "patient"
