"""The first screen: four questions in their order, answered with numbers and intervals, for every kind of run."""

from __future__ import annotations

import re

import pytest

from fedjax_poisson.reports.answers import answers
from fedjax_poisson.reports.trade_off import trade_off
from fedjax_poisson.runs.run_folder import check_ledger, read_run
from tests.helpers.example_run import write_example_run


def text_of(folder, **changes):
    write_example_run(folder, **changes)
    run = read_run(folder)
    ledger = check_ledger(run)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answers(run, ledger, trade_off(run, ledger)).markup))


def test_four_questions_are_answered_in_order(tmp_path):
    text = text_of(tmp_path)
    places = [
        text.index(words)
        for words in ("What was learned?", "How well does it work?", "What left each hospital?", "How private is it?")
    ]
    assert places == sorted(places)
    for words in (
        "Logistic regression", "“no disease” or “disease”", "14 parameters", "4 hospitals", "486 training records",
        "81.9 %", "of the 254 test records are classified correctly (95 % interval 76.7 to 86.1 %)", "0.881 (0.84 to 0.92)",
        "Cleveland 104 82.7 %", "21 encrypted messages", "Only the sum over all 4 hospitals was decrypted",
        "for each record", "if the server and 1 hospital work together", "proved The noise gives epsilon", "assumed 3 of the 4",
    ):  # fmt: skip
        assert words in text, words


def test_a_run_without_encryption_or_scores_says_so(tmp_path):
    text = text_of(tmp_path, aggregator="plain", pooled_accuracy=None, evaluation="none")
    assert "21 messages in the clear" in text and "Nothing was encrypted" in text and "encrypted sum" not in text
    assert "Not measured" in text and "--evaluation private" in text
    assert "Not private" in text and " proved " not in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "regression", "classes": ["stay"], "rmse": 3.2, "intervals": {"rmse": [2.9, 3.6]}}, ("Linear regression", "“stay”", "3.2", "2.9 to 3.6")),
        ({"task": "multilabel", "classes": ["died", "back"]}, ("yes or no for each of died and back", "of the labels of")),
        ({"task": "multiclass", "classes": [f"c{k}" for k in range(9)]}, ("Softmax regression", "(9 in all)")),
        ({"model": "mlp"}, ("A neural network with two hidden layers",)),
        ({"record_shape": [28, 28, 1]}, ("from images of 28 × 28 × 1",)),
        ({"unit": "client"}, ("for each client",)),
        ({"conditions": [{"fact": "f", "remedy": "r"}], "verdict": "conditional", "private": False}, ("With the conditions in the box above",)),
    ],
)  # fmt: skip
def test_every_kind_of_run_has_words(tmp_path, changes, words):
    text = text_of(tmp_path, **changes)
    for each in words:
        assert each in text, each


def test_many_sites_are_cut_and_the_rest_is_counted(tmp_path):
    scores = {f"site {k}": 0.8 for k in range(20)}
    assert "14 more sites below." in text_of(tmp_path, accuracy_by_site=scores)


NORM_ROUNDS = {
    "unit": "client",
    "aggregator": "round",
    "aggregator_info": {"members": 5, "threshold": 4, "malicious": 1, "mode": "round"},
    "noise_senders": {"senders": 5, "honest": 3},
}


def test_in_norm_rounds_the_noise_is_that_of_noise_senders(tmp_path):
    text = text_of(tmp_path / "a", **NORM_ROUNDS)
    assert "sends an encrypted clipped update of its model, without noise of its own" in text
    assert "The noise is added by 5 noise senders before anything is opened." in text
    assert "noisy" not in text and "added before it leaves" not in text
    own = text_of(tmp_path / "b", **NORM_ROUNDS | {"unit": "record"})
    assert "sends an encrypted sum over its own records, without noise of its own" in own
    other = text_of(tmp_path / "c", **NORM_ROUNDS | {"noise_senders": None})
    assert "a noisy, encrypted clipped update of its model" in other and "added before it leaves" in other


def test_a_site_whose_noise_is_counted_can_take_it_off(tmp_path):
    knows = "but not a hospital that took part: it knows its own noise"
    assert knows in text_of(tmp_path / "d", honest_senders=4)
    assert knows not in text_of(tmp_path / "e")  # priced without the noise of one site
    assert "but not a noise sender: it" in text_of(
        tmp_path, **NORM_ROUNDS | {"noise_senders": {"senders": 5, "honest": 5}}
    )


def test_private_scores_say_whom_they_count_and_what_noise_does(tmp_path):
    pulls, counted = (
        "noise of the release pulls the area towards 0.5",
        "of the held-out patients are classified correctly",
    )
    text = text_of(tmp_path / "f", evaluation="private", unit="patient")
    assert counted in text and pulls in text and "test records are" not in text
    text = text_of(tmp_path / "g", evaluation="private", auc=None)
    assert counted not in text and pulls not in text
    assert pulls not in text_of(tmp_path / "h", unit="patient")
