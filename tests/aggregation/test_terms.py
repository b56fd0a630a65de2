"""Terms: one encoding, back again, and refusals by name; what others pin is in the attacks (`test_attacks_terms`)."""

from __future__ import annotations

import dataclasses

import pytest

from fedjax_poisson.aggregation import terms as t
from fedjax_poisson.aggregation.refusals import BadTerms, RoundRefused
from tests.aggregation.rounds import World


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def drafted(world: World, **changes) -> t.Terms:
    keys = tuple(b"round key %d" % k for k in range(world.m))
    return dataclasses.replace(world.draft(round_keys=keys), **changes)


def test_terms_come_back_whatever_is_in_them(world):
    for changes in (
        {},
        {"mechanism": '{"name": "Poisson – λ"}', "charge": "", "count_rms": 2**32 - 1},
        {"round": 2**63},
    ):
        terms = drafted(world, **changes)
        assert t.decode_terms(t.encode_terms(terms)) == terms
        t.check_terms(terms, world.pinned)


def test_every_truncation_and_every_byte_more_is_refused(world):
    blob = t.encode_terms(drafted(world))
    for cut in range(len(blob)):
        with pytest.raises(RoundRefused):
            t.decode_terms(blob[:cut])
    with pytest.raises(RoundRefused, match="left over"):
        t.decode_terms(blob + b"\0")


def test_versions_and_texts_are_checked(world):
    blob = t.encode_terms(drafted(world, charge="none"))
    with pytest.raises(BadTerms, match="version 1"):
        t.decode_terms(b"\1" + blob[1:])
    with pytest.raises(BadTerms, match="UTF-8"):
        t.decode_terms(blob.replace(b"none", b"\xff\xff\xff\xff"))
    long = drafted(world, charge="x" * (1 << 14))
    assert t.decode_terms(t.encode_terms(long)) == long
    with pytest.raises(RoundRefused, match="longer than 16384"):
        t.decode_terms(t.encode_terms(dataclasses.replace(long, charge=long.charge + "x")))


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        ({"minimum": 3, "corrupt": 1}, {"minimum": 3, "corrupt": 2}, "fewer honest senders"),
        ({"minimum": 6}, {"minimum": 7}, "minimum = 7"),
        ({"count_bound": 1}, {"count_bound": 0}, "count_bound = 0"),
        ({"mechanism": "[]"}, {"mechanism": "["}, "not JSON"),
        ({"squared_norm": 0}, {"squared_norm": 1}, "a light one, without a norm"),
        ({"noise": ()}, {"noise": (bytes(32),)}, "1 noise senders"),
        ({"size": 1}, {"size": 0}, "0 values"),
    ],
)
def test_both_sides_of_each_bound(world, good, bad, words):
    t.check_terms(drafted(world, **good), world.pinned)
    with pytest.raises(BadTerms, match=words):
        t.check_terms(drafted(world, **bad), world.pinned)


def test_the_roster_has_one_hash_in_any_order():
    a, b = bytes(32), bytes(31) + b"\1"
    assert t.roster_hash((a, b)) == t.roster_hash([b, a]) != t.roster_hash((a,))


def test_facts_of_a_mechanism_are_texts():
    found = t.mechanism_facts("poisson", [("dark_count", 8.5), ("modulation", 0.05)], purpose="train")
    assert found == {"name": "poisson", "purpose": "train", "dark_count": "8.5", "modulation": "0.05"}
