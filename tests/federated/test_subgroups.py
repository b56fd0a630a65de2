"""Subgroups: the parts that a column tells apart, their scores, and what is no column."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedjax_poisson import data
from fedjax_poisson.federated.subgroups import Subgroup, subgroup_scores, subgroups_of


@pytest.fixture(scope="module")
def heart():
    return data.load("heart")


def test_parts_of_a_column_cover_all_records_once(heart):
    found = subgroups_of(heart, ["sex", "age>=60"])
    assert [part.name for part in found] == ["sex = 0", "sex = 1", "age < 60", "age >= 60"]
    for k in (0, 2):
        assert np.all(found[k].members ^ found[k + 1].members)
    age = heart.features[:, heart.feature_names.index("age")]
    assert np.array_equal(found[3].members, age >= 60) and age[found[2].members].max() < 60
    assert subgroups_of(heart, heart.subgroups)  # what the data set declares


def test_levels_are_parts_and_what_is_none_of_them_too(heart):
    names = tuple(f"kind={name[3:]}" if name.startswith("cp_") else name for name in heart.feature_names)
    found = subgroups_of(dataclasses.replace(heart, feature_names=names), ["kind"])
    assert [part.name for part in found] == ["kind = 2", "kind = 3", "kind = 4", "kind: none of these"]
    assert np.all(np.sum([part.members for part in found], axis=0) == 1)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ("postcode", "not a column that the model sees.*sex.*age>=NUMBER"),
        ("age", "say where to cut it, such as 'age>=55'"),
        ("sex>=1", "no number among the columns"),
        ("postcode>=3", "no number among the columns"),
    ],
)
def test_what_is_no_column_is_refused_with_those_that_there_are(heart, declared, words):
    with pytest.raises(ValueError, match=words):
        subgroups_of(heart, [declared])


def test_pictures_have_none():
    with pytest.raises(ValueError, match="pictures have no columns"):
        subgroups_of(data.load("xray", size=32, patients=12), ["sex"])


def test_a_model_that_fails_one_group_shows_it(heart):
    rng = np.random.default_rng(0)
    parts = subgroups_of(heart, ["sex"])
    right = 2.0 * heart.labels - 1
    outputs = np.where(parts[0].members, -right, right) + 0.1 * rng.normal(size=len(right))
    women, men = subgroup_scores("binary", outputs, heart.labels, parts)
    assert women["accuracy"] < 0.05 < 0.95 < men["accuracy"] and women["auc"] < 0.05 and men["sensitivity"] > 0.95
    assert women["records"] + men["records"] == len(right)
    assert men["interval"][0] < men["accuracy"] <= men["interval"][1]
    low, high = subgroup_scores("regression", outputs, heart.labels.astype(float), parts)
    assert low["rmse"] > high["rmse"]
    empty = parts[0]._replace(members=np.zeros(len(right), bool))
    assert subgroup_scores("binary", outputs, heart.labels, [empty]) == [
        {"column": "sex", "name": "sex = 0", "records": 0}
    ]


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_records_of_one_patient_count_as_one_patient_s(task):
    rng, truth, covered, alone = np.random.default_rng(4), 0.8, 0, 0
    for _ in range(600):
        owners = np.repeat(np.arange(60), rng.choice([1, 1, 3, 6], 60))
        right = (rng.random(60) < truth)[owners]
        labels = np.zeros((len(owners), 2) if task == "multilabel" else len(owners), int)
        outputs = np.where(right[:, None] if task == "multilabel" else right, -1.0, 1.0) * np.ones(labels.shape)
        everybody = [Subgroup("a", "a", np.ones(len(owners), bool))]
        (low, high), (alone_low, alone_high) = (
            subgroup_scores(task, outputs, labels, everybody, own)[0]["interval"] for own in (owners, None)
        )
        covered += low <= truth <= high
        alone += alone_low <= truth <= alone_high
    assert 0.9 < covered / 600
    assert alone / 600 < 0.8  # the twin: owners unknown
