"""Bins that need no look at the data: octaves, equal parts, buckets of texts."""

from __future__ import annotations

import numpy as np

from fedjax_poisson.data.tables import bins


def test_every_number_is_between_the_edges_of_its_octave():
    values = np.array([0.0, 1.0, -1.0, 3.9, 4.0, -1e-9, 1e-3, -2.5, 2020.0, np.nan])
    place, edges = bins.octave_bins(values), bins.octave_edges()
    known = ~np.isnan(values)
    assert place[-1] == -1 and place.dtype == np.int32 and len(edges) == bins.OCTAVES + 1
    assert np.all(edges[place[known]] <= values[known]) and np.all(values[known] < edges[place[known] + 1])
    assert place[0] == place[5] == bins.OCTAVES // 2 and place[3] + 1 == place[4]
    np.testing.assert_array_equal(bins.octave_bins(np.array([-1e300, 1e300, -np.inf])), [0, bins.OCTAVES - 1, 0])


def test_equal_bins_take_what_is_outside_at_their_ends():
    np.testing.assert_array_equal(
        bins.linear_bins(np.array([-5.0, 0.0, 8.0, 15.999, 16.0, 99.0, np.nan]), 0.0, 16.0), [0, 0, 16, 31, 31, 31, -1]
    )


def test_a_bucket_is_a_public_function_of_column_and_text():
    same = bins.text_buckets("sex", ["F", "M", "F", "", "1.0", "1"])
    assert same[0] == same[2] != same[1] and same[4] == same[5] and 0 <= same.min() <= same.max() < bins.BUCKETS
    assert bins.text_buckets("sex", [""])[0] == bins.text_buckets("sex", ["missing"])[0]
    assert bins.text_buckets("other column", ["F"])[0] != same[0]
    assert same[0] == 2025  # the same in every process and on every machine, or sites would not agree
