"""The section for the clinician: only of public or paid-for records, and it says whose they are and what they cost."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fedjax_poisson.federated.private_scores import scores_of
from fedjax_poisson.reports.clinical import for_the_clinician
from fedjax_poisson.runs.run_folder import read_run
from tests.helpers.example_run import write_example_run

NONE = {"curves": None, "reliability": None, "subgroups": None, "intervals": None}


def text_of(folder, **changes):
    write_example_run(folder, **changes)
    section = for_the_clinician(read_run(folder), folder / "figures").markup
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", section))


def test_public_records_are_named_and_cost_nothing(tmp_path):
    text = text_of(tmp_path)
    assert "254 held-out records of the public data set “heart”" in text and "cost none of the budget" in text
    assert "net benefit" in text and "sex = 1" in text and "81.0 %" in text


def test_a_private_release_is_named_with_its_price_and_its_noise(tmp_path):
    rng = np.random.default_rng(0)
    histogram = np.stack([np.linspace(30, 1, 32), np.linspace(1, 30, 32)]) + 2 * rng.normal(size=(2, 32))
    counts = np.array([500.0, 480.0, 400.0, 390.0])
    found = scores_of(np.concatenate([counts, histogram.ravel()]), 2.0, ("north", "south"))
    releases = [{"purpose": "evaluate", "count": 1, "epsilon_alone": 0.75}]
    text = text_of(tmp_path, evaluation="private", public_data=False, subgroups=None, releases=releases, **found)
    assert "one noisy, encrypted histogram" in text and "inside epsilon (which would be 0.7500 for it alone)" in text
    assert re.search(r"The noise alone moves a point of these curves by about \d+\.\d % \(sensitivity\)", text)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"public_data": False, "evaluation": "clear"}, "Nothing is drawn here: the records are not public"),
        ({"evaluation": "none"}, "Nothing is drawn here, since the settings asked for no scores"),
    ],
)
def test_where_nothing_may_be_drawn_the_reason_and_the_remedy_are_said(tmp_path, changes, words):
    text = text_of(tmp_path, **NONE, **changes)
    assert words in text and "--evaluation private" in text and "net benefit" not in text


def test_several_classes_have_a_table(tmp_path):
    text = text_of(tmp_path, curves={"confusion": [[5, 1], [2, 9]]}, task="multiclass", classes=["a", "b"])
    assert "a 5 1 b 2 9" in text
