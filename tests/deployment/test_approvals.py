"""A person's yes is to one set of terms, and stays."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedjax_poisson.deployment import approvals
from fedjax_poisson.deployment.run_terms import encode_run_terms, run_terms_hash
from tests.deployment.identities import people, roster_of, terms_of

ONE = terms_of(roster_of(people()))
NOW = datetime.now(UTC)
OTHER = dataclasses.replace(ONE, most_rounds=101)


def test_a_yes_is_to_one_set_of_terms(tmp_path: Path) -> None:
    assert approvals.waiting(tmp_path, NOW) == [] and not approvals.is_approved(tmp_path, ONE)
    digest = approvals.wait_for_approval(tmp_path, ONE, NOW)
    assert digest == run_terms_hash(ONE) == approvals.wait_for_approval(tmp_path, ONE, NOW)
    approvals.wait_for_approval(tmp_path, OTHER, NOW)
    assert len(approvals.waiting(tmp_path, NOW)) == 2
    approvals.approve(tmp_path, approvals.find_terms(tmp_path, digest.hex()[:8], NOW))
    assert approvals.is_approved(tmp_path, ONE) and not approvals.is_approved(tmp_path, OTHER)
    assert approvals.waiting(tmp_path, NOW) == [OTHER]


def test_terms_are_found_by_file_or_by_the_start_of_their_hash(tmp_path: Path) -> None:
    path = tmp_path / "sent.terms"
    path.write_bytes(encode_run_terms(ONE))
    assert approvals.find_terms(tmp_path, str(path), NOW) == ONE
    name = approvals.wait_for_approval(tmp_path, ONE, NOW).hex()
    assert approvals.find_terms(tmp_path, name, NOW) == ONE
    for wrong in (name[:7], "f" * 8 if name[0] != "f" else "0" * 8, "../../etc/", "*" * 8):
        with pytest.raises(ValueError, match=f"waiting: {name[:16]}"):
            approvals.find_terms(tmp_path, wrong, NOW)


def test_files_that_are_no_terms_do_not_stand_in_the_way_and_the_queue_has_an_end(tmp_path: Path, monkeypatch) -> None:
    approvals.wait_for_approval(tmp_path, ONE, NOW)
    (tmp_path / approvals.FOLDER / ("0" * 64 + ".terms")).write_bytes(b"junk")
    assert approvals.waiting(tmp_path, NOW) == [ONE]
    monkeypatch.setattr(approvals, "MOST_WAITING", 2)
    with pytest.raises(ValueError, match="remove those that nobody wants"):
        approvals.wait_for_approval(tmp_path, OTHER, NOW)
    approvals.wait_for_approval(tmp_path, ONE, NOW)


def test_a_proposal_whose_time_is_over_waits_no_more_and_makes_room(tmp_path: Path, monkeypatch) -> None:
    ending = dataclasses.replace(ONE, begin_before=int(NOW.timestamp()) + 100)
    approvals.wait_for_approval(tmp_path, ending, NOW)
    monkeypatch.setattr(approvals, "MOST_WAITING", 1)
    assert approvals.waiting(tmp_path, NOW) == [ending]
    with pytest.raises(ValueError, match="remove those"):  # the twin: while it holds it takes its place
        approvals.wait_for_approval(tmp_path, ONE, NOW)
    later = NOW + timedelta(seconds=101)
    assert approvals.waiting(tmp_path, later) == []
    approvals.wait_for_approval(tmp_path, ONE, later)
    assert approvals.waiting(tmp_path, later) == [ONE]
