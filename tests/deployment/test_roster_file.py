"""A roster as a file: what was written is read, foreign files are refused with what is wrong, signatures come together from several copies."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fedjax_poisson.deployment.roster import Party, RosterRefused, check_signatures, roster_hash, sign_roster
from fedjax_poisson.deployment.roster_file import SignedRoster, gather, read_roster, roster_text
from tests.deployment.identities import people, person, roster_of

WHO = people()
GOOD = dataclasses.replace(
    roster_of(WHO, name='Heart "A" \\ consortium'),
    operators=(Party("lab", person().public, b"\x00\xff", "sgx"),),
    members=("east", "lab", "west"),
    threshold=3,
)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    signatures = {"east": sign_roster(WHO["east"], GOOD)}
    path = tmp_path / "roster.toml"
    path.write_text(roster_text(GOOD, signatures), encoding="utf-8")
    assert read_roster(path) == SignedRoster(GOOD, signatures) == read_roster(path.read_text())
    assert roster_hash(GOOD).hex() in path.read_text().splitlines()[0]
    assert read_roster(roster_text(GOOD)).signatures == {}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("threshold = 3", "threshold = true", "True is not a number"),
        ("threshold = 3", "threshold = -3", "-3 is not a number"),
        ("threshold = 3", "", "threshold"),
        ("threshold = 3", "threshold = 2", "2 t > m"),
        ("threshold = 3", "treshold = 3", "it sets 'treshold'; known are"),
        ("[[sites]]", "[[site]]", "it sets 'site'"),
        ('verifier = "sgx"', "verifier = 3", "3 is not text"),
        ('attestation = "00ff"', 'attestation = "0g"', "non-hexadecimal"),
        ('attestation = "00ff"', 'attest = "00ff"', "a party has name and public"),
        ('members = ["east", "lab", "west"]', "members = 3", "3 is not a list"),
        ("threshold = 3", "threshold = ", "not a roster"),
        ("threshold = 3", "threshold = 3\nsignatures = 4", "not a roster"),
    ],
)
def test_a_foreign_file_is_refused_with_what_is_wrong(old: str, new: str, words: str) -> None:
    text = roster_text(GOOD)
    assert old in text
    with pytest.raises(RosterRefused, match=words):
        read_roster(text.replace(old, new))
    read_roster(text)


def test_a_huge_text_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(RosterRefused, match="no roster has more than"):
        read_roster("#" * (1 << 23))


def test_signatures_of_several_copies_come_together() -> None:
    everyone = {**WHO}
    roster = roster_of(everyone)
    copies = [SignedRoster(roster, {name: sign_roster(one, roster)}) for name, one in everyone.items()]
    both = gather(*copies)
    check_signatures(both.roster, both.signatures)
    other = dataclasses.replace(roster, corrupt=0)
    with pytest.raises(RosterRefused, match="copy 2 is of another roster"):
        gather(copies[0], SignedRoster(other, {"west": sign_roster(everyone["west"], other)}))
    with pytest.raises(RosterRefused, match="copy 2: that of west is wrong"):
        gather(copies[0], SignedRoster(roster, {"west": copies[0].signatures["east"]}))
    with pytest.raises(RosterRefused, match="copy 2: mallory is no party"):
        gather(copies[0], SignedRoster(roster, {"mallory": copies[0].signatures["east"]}))
