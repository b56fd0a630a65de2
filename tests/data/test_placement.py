"""What every loader shares: merging by count, numbering patients, keeping an official split, joining feature blocks."""

from __future__ import annotations

import numpy as np

from fedjax_poisson.data.placement import merge_small_sites, place_records
from fedjax_poisson.data.splitting import SplitRules

RULES = SplitRules(min_site_records=2, test_fraction=0.5, split_seed=0)
LABELS = np.zeros(7, np.int32)


def test_sites_are_named_in_order_and_small_ones_merged():
    placement = place_records(LABELS, ["b", "a", "b", "a", "c", "d", "b"], None, RULES)
    assert placement.site_names == ("a", "b", "other") and placement.unit == "record"
    np.testing.assert_array_equal(placement.site, [1, 0, 1, 0, 2, 2, 1])
    assert placement.notes[0].endswith("merged into 'other': c, d") and not placement.warnings
    assert "fewer than 2 records" in placement.uncovered[0][0] and "min_site_records=1" in placement.uncovered[0][1]


def test_labels_play_no_part_in_merging():
    places = ["a", "a", "b", "c", "c", "c", "d"]
    plain = place_records(LABELS, places, None, RULES)
    other = place_records(np.array([1, 0, 1, 1, 0, 1, 0], np.int32), places, None, RULES)
    np.testing.assert_array_equal(plain.site, other.site)


def test_an_other_that_exists_takes_the_small_ones_and_stays_however_small():
    names, codes, merged = merge_small_sites(["other", "x", "y"], np.array([0, 1, 2, 2, 2]), 3)
    assert names == ("other", "y") and merged == ("x",)
    np.testing.assert_array_equal(codes, [0, 0, 1, 1, 1])


def test_merging_everything_into_one_site_is_said():
    placement = place_records(LABELS, list("abcdefg"), None, RULES)
    assert placement.site_names == ("other",) and "left only one" in placement.warnings[0]


def test_an_official_split_is_kept_and_patients_make_the_unit():
    train = np.array([True, True, False, True, True, True, True])
    placement = place_records(LABELS, ["a"] * 7, list("ppqrstu"), RULES, train=train)
    np.testing.assert_array_equal(placement.train, train)
    assert (
        placement.unit == "patient"
        and placement.group[0] == placement.group[1]
        and placement.notes == ("official split",)
    )
