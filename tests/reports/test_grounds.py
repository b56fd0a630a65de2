"""Every statement names what it rests on, and none is proved that is not."""

from __future__ import annotations

import pytest

from fedjax_poisson.reports.grounds import grounds
from fedjax_poisson.runs.run_folder import check_ledger, read_run
from tests.helpers.example_run import write_example_run

ROUND = {
    "aggregator": "round",
    "aggregator_info": {"members": 5, "threshold": 4, "malicious": 1, "mode": "round", "security_bits": 128},
}


def found(folder, **changes):
    write_example_run(folder, **changes)
    run = read_run(folder)
    return {each.statement: each for each in grounds(run, check_ledger(run))}


def test_a_private_run_has_one_proof_and_says_its_assumptions(tmp_path):
    own = found(tmp_path, **ROUND)
    by = {
        status: [words for words, each in own.items() if each.status == status]
        for status in ("proved", "checked", "assumed", "broken")
    }
    assert by["proved"] == ["The noise gives epsilon 0.9964."] or len(by["proved"]) == 1
    assert "Everything that was released had been paid for first." in by["checked"] and not by["broken"]
    assert "3 of the 4 hospitals add their noise and keep it secret." in by["assumed"]
    assert "Fewer than 4 of the 5 members of the committee pool what they hold." in by["assumed"]
    assert "epsilon is 1.8803" in own["3 of the 4 hospitals add their noise and keep it secret."].basis


@pytest.mark.parametrize("status", ["assumed", "published"])
def test_only_a_proved_mechanism_is_called_proved(tmp_path, status):
    summary = write_example_run(tmp_path)
    mechanism = {name: facts | {"status": status} for name, facts in summary["mechanism"].items()}
    assert all(each.status != "proved" for each in found(tmp_path / "b", mechanism=mechanism).values())
    assert all(each.status != "proved" for each in found(tmp_path / "c", mechanism=None).values())


def test_a_run_that_is_not_private_proves_nothing_and_a_ledger_that_does_not_hold_is_named(tmp_path):
    own = found(tmp_path, aggregator="plain")
    assert [each.status for each in own.values()] == ["checked"]
    own = found(tmp_path / "b", ledger=False)
    assert [words for words, each in own.items() if each.status == "broken"] == [
        "Everything that was released had been paid for first."
    ]


def test_parts_from_outside_are_their_authors_word(tmp_path):
    own = found(tmp_path, assumed=["mechanism mine:noise"])
    assert own["mechanism mine:noise: its privacy claim holds."].status == "assumed"
