"""What a coordinator keeps, and how it gets back what it lost; every lie of a site has a twin without it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from fedjax_poisson.aggregation.refusals import Malformed
from fedjax_poisson.aggregation.terms import decode_terms
from fedjax_poisson.aggregation.transcript import terms_of
from fedjax_poisson.deployment.coordinator_folder import (
    fetch_sums,
    keep_sum,
    next_number,
    open_sums,
    release_of,
)
from fedjax_poisson.deployment.requests import Spoken
from tests.deployment.test_exchange import RUN, Group, group, held, wanted

__all__ = ["group"]


@pytest.fixture
def transcript(group: Group) -> bytes:
    return held(group, wanted(group), 4)


def fetched(group: Group, folder: Path, says: Mapping[str, Spoken | str], run: bytes = RUN) -> list[Path]:
    """What is kept after all sites said that they are one sum further."""
    sums = open_sums(folder)
    pinned = group.sites["north"].exchange.party.sender.pinned
    fetch_sums(
        lambda names, spoken: {name: says[name] for name in names},
        dict.fromkeys(says, 1),
        sums,
        pinned,
        run,
    )
    return sums.paths


def kept(blob: bytes) -> Spoken:
    return Spoken("kept", (bytes(8), blob))


def test_a_lost_sum_is_taken_from_whoever_keeps_it(group: Group, transcript: bytes, tmp_path: Path) -> None:
    harmed = transcript[:-40] + bytes(40)
    says: dict[str, Spoken | str] = {"east": kept(harmed), "north": kept(transcript), "south": "away"}
    (path,) = fetched(group, tmp_path / "one", says)
    assert path.name == "00000-train-1.round" and path.read_bytes() == transcript
    assert fetched(group, tmp_path / "none", {"east": kept(harmed), "south": "away"}) == []
    assert fetched(group, tmp_path / "other", says, run=bytes(16)) == []


def test_no_number_of_a_round_is_used_twice(group: Group, transcript: bytes, tmp_path: Path) -> None:
    sums = open_sums(tmp_path)
    assert sums.last == 0
    keep_sum(sums, transcript, terms_of(transcript))
    assert sums.last == open_sums(tmp_path).last == 4  # the file with the number is lost
    assert [next_number(open_sums(tmp_path)) for _ in range(3)] == [5, 6, 7]  # each is written down before it is used
    (tmp_path / "last_round.json").write_text(json.dumps({"round": 2}))  # an older copy
    assert next_number(open_sums(tmp_path)) == 5


def test_a_release_with_a_name_that_is_none_names_no_file(group: Group) -> None:
    draft = group.sites["north"].exchange
    wanted(group)
    terms = decode_terms(draft.wanted(60).draft or b"")
    assert release_of(terms) == "train 1"
    for name in ("../../away 1", "train", "/etc/x 1", "train 1\n", "", "x" * 300 + " 1"):
        with pytest.raises(Malformed):
            release_of(dataclasses.replace(terms, charge=f"{name}, charged by every site"))
