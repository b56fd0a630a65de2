"""A person's yes is to one set of terms, and stays."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fedjax_poisson.deployment import approvals
from fedjax_poisson.deployment.run_terms import encode_run_terms, run_terms_hash
from tests.deployment.identities import people, roster_of, terms_of

ONE = terms_of(roster_of(people()))
OTHER = dataclasses.replace(ONE, most_rounds=101)


def test_a_yes_is_to_one_set_of_terms(tmp_path: Path) -> None:
    assert approvals.waiting(tmp_path) == [] and not approvals.is_approved(tmp_path, ONE)
    digest = approvals.wait_for_approval(tmp_path, ONE)
    assert digest == run_terms_hash(ONE) == approvals.wait_for_approval(tmp_path, ONE)
    approvals.wait_for_approval(tmp_path, OTHER)
    assert len(approvals.waiting(tmp_path)) == 2
    approvals.approve(tmp_path, approvals.find_terms(tmp_path, digest.hex()[:8]))
    assert approvals.is_approved(tmp_path, ONE) and not approvals.is_approved(tmp_path, OTHER)
    assert approvals.waiting(tmp_path) == [OTHER]


def test_terms_are_found_by_file_or_by_the_start_of_their_hash(tmp_path: Path) -> None:
    path = tmp_path / "sent.terms"
    path.write_bytes(encode_run_terms(ONE))
    assert approvals.find_terms(tmp_path, str(path)) == ONE
    name = approvals.wait_for_approval(tmp_path, ONE).hex()
    assert approvals.find_terms(tmp_path, name) == ONE
    for wrong in (name[:7], "f" * 8 if name[0] != "f" else "0" * 8, "../../etc/", "*" * 8):
        with pytest.raises(ValueError, match=f"waiting: {name[:16]}"):
            approvals.find_terms(tmp_path, wrong)


def test_files_that_are_no_terms_do_not_stand_in_the_way_and_the_queue_has_an_end(tmp_path: Path, monkeypatch) -> None:
    approvals.wait_for_approval(tmp_path, ONE)
    (tmp_path / approvals.FOLDER / ("0" * 64 + ".terms")).write_bytes(b"junk")
    assert approvals.waiting(tmp_path) == [ONE]
    monkeypatch.setattr(approvals, "MOST_WAITING", 2)
    with pytest.raises(ValueError, match="remove those that nobody wants"):
        approvals.wait_for_approval(tmp_path, OTHER)
    approvals.wait_for_approval(tmp_path, ONE)
