"""A roster holds together, everybody signs the same one, and what it pins is what a round's terms are held against."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fedjax_poisson.aggregation import terms
from fedjax_poisson.aggregation.parameters import least_threshold
from fedjax_poisson.deployment import identity
from fedjax_poisson.deployment import roster as module
from fedjax_poisson.deployment.roster import (
    Party,
    RosterRefused,
    attested,
    check,
    check_signatures,
    named,
    party_of,
    pinned_of,
    roster_hash,
    roster_keys,
    sign_roster,
)
from tests.deployment.identities import NAMES, people, person, roster_of

WHO = people()
GOOD = roster_of(WHO)
ONE = GOOD.sites[0]


def test_a_sound_roster_passes_and_pins_the_committee_in_its_order() -> None:
    check(GOOD)
    pinned = pinned_of(GOOD)
    assert pinned.members == tuple(WHO[name].public for name in NAMES)
    assert (pinned.threshold, pinned.malicious, pinned.corrupt, pinned.least_honest) == (4, 1, 1, 3)
    assert pinned.roster == terms.roster_hash([one.public for one in WHO.values()]) and pinned.noise == ()
    other = dataclasses.replace(GOOD, members=("west", "east", "york"), threshold=3)
    check(other)
    assert pinned_of(other).members == tuple(WHO[name].public for name in ("west", "east", "york"))
    assert roster_keys(other) == frozenset(one.public for one in WHO.values())


def test_operators_are_members_without_data() -> None:
    lab = person()
    with_lab = dataclasses.replace(
        GOOD, operators=(Party("lab", lab.public),), members=("east", "north", "lab"), threshold=3
    )
    check(with_lab)
    assert lab.public in pinned_of(with_lab).members and lab.public not in roster_keys(with_lab)
    with pytest.raises(RosterRefused, match="'lab' is not a member"):
        check(dataclasses.replace(with_lab, members=("east", "north", "west")))


def sites(*parties: Party) -> dict[str, Any]:
    return {"sites": parties}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": " "}, "1 to 200 printable"),
        (sites(ONE), "1 sites"),
        (sites(ONE, *GOOD.sites), "'east' stands twice"),
        (sites(*GOOD.sites, Party("zeta", ONE.public)), "east and zeta have the same key"),
        (sites(*GOOD.sites, Party("Zeta", bytes(32))), "the name 'Zeta'"),
        (sites(*GOOD.sites, Party("../zeta", bytes(32))), "the name '../zeta'"),
        (sites(*GOOD.sites, Party("zeta", bytes(31))), "has 31 bytes"),
        (sites(*GOOD.sites, Party("zeta", bytes(32), bytes(1 << 17))), "attestation of zeta has 131072 bytes"),
        (sites(*GOOD.sites, Party("zeta", bytes(32), b"x", "os:system")), "the verifier of zeta"),
        ({"members": ("east", "east", "west")}, "member 'east' stands twice"),
        ({"members": ("east", "nobody", "west")}, "'nobody' is neither a site nor an operator"),
        ({"members": ("east",), "threshold": 1, "malicious": 0}, "1 members"),
        ({"malicious": 5}, "malicious = 5 of 5"),
        ({"malicious": -1}, "malicious = -1 of 5"),
        ({"threshold": 3}, "2 t > m \\+ f is needed.*the least is 4"),
        ({"threshold": 6}, "threshold = 6 of 5"),
        ({"corrupt": 4}, "minimum - corrupt >= 1"),
        ({"corrupt": -1}, "assumed corrupt"),
        ({"minimum": 6}, "minimum = 6 of 5 sites"),
        ({"minimum": 1, "corrupt": 0}, "minimum = 1 of 5 sites"),
    ],
)
def test_a_roster_under_which_something_would_not_hold_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RosterRefused, match=words):
        check(dataclasses.replace(GOOD, **changes))


def test_the_threshold_is_the_least_that_gives_one_set() -> None:
    for f in range(5):
        least = least_threshold(5, f)
        check(dataclasses.replace(GOOD, malicious=f, threshold=least))
        with pytest.raises(RosterRefused):
            check(dataclasses.replace(GOOD, malicious=f, threshold=least - 1))


def test_every_field_is_under_the_hash() -> None:
    """One change a field; the same roster again has the same hash (the twin)."""
    changes: list[dict[str, Any]] = [
        {"name": "Other"},
        {"threshold": 5},
        {"malicious": 0},
        {"corrupt": 0},
        {"minimum": 5},
        {"members": ("west", *NAMES[:3], "york")},
        {"operators": (Party("lab", bytes(32)),)},
        sites(ONE._replace(name="easter"), *GOOD.sites[1:]),
        sites(ONE._replace(public=bytes(32)), *GOOD.sites[1:]),
        sites(ONE._replace(attestation=b"quote"), *GOOD.sites[1:]),
        sites(ONE._replace(verifier="sgx"), *GOOD.sites[1:]),
        sites(*GOOD.sites[::-1]),
    ]
    hashes = [roster_hash(dataclasses.replace(GOOD, **change)) for change in changes]
    assert len({*hashes, roster_hash(GOOD)}) == len(changes) + 1
    assert {field.name for field in dataclasses.fields(GOOD)} == {name for change in changes for name in change}
    assert roster_hash(dataclasses.replace(GOOD, members=NAMES)) == roster_hash(GOOD)  # what the default means


def test_everybody_signs_and_who_did_not_is_named() -> None:
    signatures = {name: sign_roster(one, GOOD) for name, one in WHO.items()}
    check_signatures(GOOD, signatures)
    with pytest.raises(RosterRefused, match="that of north is missing"):
        check_signatures(GOOD, {name: blob for name, blob in signatures.items() if name != "north"})
    with pytest.raises(RosterRefused, match="that of west is wrong"):
        check_signatures(GOOD, {**signatures, "west": signatures["east"]})
    with pytest.raises(RosterRefused, match="mallory is no party"):
        check_signatures(GOOD, {**signatures, "mallory": signatures["east"]})
    other = dataclasses.replace(GOOD, corrupt=0)
    with pytest.raises(RosterRefused, match=r"east is wrong.*york is wrong"):
        check_signatures(other, signatures)
    unsafe = dataclasses.replace(GOOD, threshold=3)
    signed = {name: identity.sign(one, "roster", roster_hash(unsafe)) for name, one in WHO.items()}
    with pytest.raises(RosterRefused, match="2 t > m"):  # whatever all of them signed
        check_signatures(unsafe, signed)
    with pytest.raises(RosterRefused, match="not on the roster"):
        sign_roster(person(), GOOD)
    with pytest.raises(RosterRefused, match="2 t > m"):
        sign_roster(WHO["east"], dataclasses.replace(GOOD, threshold=3))


def test_names_and_keys_find_one_another() -> None:
    assert party_of(GOOD, "west").public == WHO["west"].public and named(GOOD, WHO["west"].public) == "west"
    assert named(GOOD, bytes(32)) == "00" * 8
    with pytest.raises(RosterRefused, match="'nobody' is not on the roster"):
        party_of(GOOD, "nobody")


def test_an_attestation_is_shown_and_checked_only_by_the_readers_own_functions() -> None:
    quoted = dataclasses.replace(
        GOOD,
        sites=(
            ONE._replace(attestation=b"good", verifier="sgx"),
            GOOD.sites[1]._replace(attestation=b"bad", verifier="sgx"),
            GOOD.sites[2]._replace(attestation=b"?", verifier="unheard-of"),
            GOOD.sites[3]._replace(attestation=b"?"),
            *GOOD.sites[4:],
        ),
    )

    def sgx(party: Party) -> str:
        if party.attestation != b"good":
            raise ValueError("the measurement is another one")
        return "runs the released image"

    assert attested(quoted, {"sgx": sgx}) == {
        "east": "runs the released image",
        "north": "does not hold: the measurement is another one",
        "south": "not checked: there is no verifier 'unheard-of' here",
        "west": "not checked: there is no verifier '' here",
    }
    check(quoted)
    assert pinned_of(quoted) == pinned_of(GOOD)  # no guarantee rests on it
    assert "No guarantee" in (module.__doc__ or "")
