"""Declarations of the wrong kind are named before a file is opened."""

from __future__ import annotations

import math

import pytest

from tests.data.tables.healthy_table import load


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label": None}, "label is None"),
        ({"label": ["ill"]}, "label is ['ill']"),
        ({"site": 3}, "site is 3"),
        ({"patient": 3}, "patient is 3"),
        ({"positive": 1}, "positive is 1"),
        ({"positive": []}, "positive is []"),
        ({"positive": [1]}, "positive is [1]"),
        ({"categorical": "abc"}, "categorical is 'abc'"),
        ({"categorical": 5}, "categorical is 5"),
        ({"categorical": {"stage": "I"}}, "levels of 'stage' are 'I'"),
        ({"categorical": {"stage": 5}}, "levels of 'stage' are 5"),
        ({"categorical": {"stage": [None]}}, "levels of 'stage' hold None"),
        ({"categorical": {3: ["I"]}}, "a column of categorical is 3"),
        ({"bounds": 5}, "bounds is 5"),
        ({"bounds": None}, "bounds is None"),
        ({"bounds": {"age": 5}}, "bounds of 'age' are 5"),
        ({"bounds": {"age": (0, math.nan)}}, "two finite numbers"),
        ({"bounds": {"age": (True, 5)}}, "two finite numbers"),
        ({"fill": 5}, "fill is 5"),
        ({"fill": {"age": "x"}}, "fill of 'age' is 'x'"),
        ({"missing": 5}, "missing is 5"),
        ({"drop": "age"}, "drop is 'age'; expected a list of columns, such as ['age']"),
        ({"drop": 5}, "drop is 5"),
        ({"drop": {"age"}}, "such as ['age']"),
        ({"drop": [5]}, "a column of drop is 5"),
        ({"min_site_records": "x"}, "min_site_records is 'x'"),
        ({"min_site_records": 0}, "min_site_records is 0"),
        ({"min_site_records": -1}, "min_site_records is -1"),
        ({"min_site_records": 2.5}, "min_site_records is 2.5"),
        ({"sites_per_patient": 0}, "sites_per_patient is 0"),
        ({"sites_per_patient": True}, "sites_per_patient is True"),
        ({"test_fraction": "x"}, "test_fraction is 'x'"),
        ({"test_fraction": math.nan}, "test_fraction is nan"),
        ({"split_seed": -1}, "split_seed is -1"),
        ({"split_seed": 2**64}, "split_seed is"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_named_before_the_file_is_opened(options, words):
    with pytest.raises(ValueError) as error:
        load("nowhere.csv", **options)
    assert words in str(error.value) and "expected" in str(error.value)


@pytest.mark.parametrize("path", [5, None, b"t.csv", "", ["t.csv"]])
def test_a_path_of_the_wrong_kind_is_named(path):
    with pytest.raises(ValueError, match="path is"):
        load(path)
