"""Attacks on terms, bytes, secrets and restarts, numbered as in `docs/explanation/attacks_that_fail.md`; a twin has the one check off."""

from __future__ import annotations

import copy
import dataclasses
import logging
import pickle
import tracemalloc

import numpy as np
import pytest

from fedjax_poisson.aggregation import (
    client,
    contribution,
    keys,
    member,
    messages,
    opening,
    parameters,
    round_keys,
    rows,
    server_state,
)
from fedjax_poisson.aggregation import refusals as r
from fedjax_poisson.aggregation import terms as terms_module
from fedjax_poisson.aggregation.store import memory_store
from fedjax_poisson.aggregation.terms import decode_terms, encode_terms, terms_hash
from fedjax_poisson.aggregation.wire import prefixed, u32
from fedjax_poisson.ckks.parameters import LIMITS
from fedjax_poisson.randomness import stream
from tests.aggregation import rounds
from tests.aggregation.rounds import World
from tests.aggregation.test_attacks import at
from tests.helpers.reach import reachable

CHANGES = {
    "run": bytes(16),
    "round": 2,
    "model": bytes(32),
    "mechanism": '{"a": 1}',
    "charge": "all",
    "size": 41,
    "count_bound": 201,
    "count_rms": 1,
    "senders": 7,
    "minimum": 4,
    "corrupt": 0,
    "threshold": 5,
    "malicious": 0,
    "members": (bytes(32),) * 6,
    "round_keys": (b"",) * 6,
    "roster": bytes(32),
    "noise": (bytes(32),),
    "honest_noise": 1,
    "squared_norm": 1,
}


def first_of_a(terms) -> bytes:
    return rows.hash_words("a", terms_hash(terms)).tobytes()


@pytest.mark.parametrize("field", CHANGES)
def test_24_another_value_of_any_field_is_another_a(field):
    terms = at("certify").server.draft
    assert set(CHANGES) == {f.name for f in dataclasses.fields(terms)}
    other = dataclasses.replace(terms, **{field: CHANGES[field]})
    assert first_of_a(other) != first_of_a(terms)
    assert decode_terms(encode_terms(other)) == other


def test_24_twin_a_field_that_is_not_encoded_keeps_a(monkeypatch):
    monkeypatch.setattr(terms_module, "encode_terms", lambda t: encode_terms(dataclasses.replace(t, charge="")))
    terms = World().draft(round_keys=(b"",) * 6)
    assert first_of_a(terms) == first_of_a(dataclasses.replace(terms, charge="all"))


def other_terms(world: World, **changes) -> bytes:
    """An invitation to other terms of the round, certified by everybody's keys: more than f members may be malicious here."""
    terms = dataclasses.replace(world.server.draft, **changes)
    digest = terms_hash(terms)
    made = [rounds.reread(world.signed(k, "certify", digest, digest)) for k in range(1, world.m + 1)]
    certificate = messages.encode_quorum(messages.quorum_of(made, digest))
    return messages.encode_notice(messages.Notice("invite", prefixed(encode_terms(terms)) + prefixed(certificate)))


def test_25_a_client_takes_part_in_a_round_once():
    world = at("contribution")
    (invite,) = world.out
    first = world.contribute(0, invite.blob)
    assert world.contribute(0, invite.blob) == first
    with pytest.raises(r.RoundUsed):
        world.contribute(0, other_terms(world, charge="other"))
    world.begin(2)
    world.go("contribution")
    world.contribute(1, world.out[0].blob)
    with pytest.raises(r.RoundUsed):  # an earlier round, which it had no part in
        world.contribute(1, invite.blob)


def test_25_twin_a_client_without_its_store_speaks_twice():
    world = at("contribution")
    first = world.contribute(0, world.out[0].blob)
    world.clients[0] = world.clients[0]._replace(store=memory_store())
    assert world.contribute(0, other_terms(world, charge="other")) != first


def test_31_sizes_are_refused_before_anything_is_allocated():
    world = at("contribution")
    blob = world.contribute(0, world.out[0].blob)
    limit = messages.most_bytes("contribution", world.server.draft)
    cases = [
        (bytes(limit + 1), r.Oversize),
        (blob[:-1], r.Malformed),
        (blob + b"\0", r.Malformed),
        (u32(2**32 - 1) + blob[4:], r.Malformed),
        (blob[:80] + u32(2**32 - 1) + blob[84:], r.Malformed),
        (b"", r.Malformed),
    ]
    for bad, name in cases:
        tracemalloc.start()
        with pytest.raises(r.RoundRefused) as refused:
            world.hear(bad)
        assert tracemalloc.get_traced_memory()[1] < 1 << 17
        tracemalloc.stop()
        assert isinstance(refused.value, name)
    notices = [
        ("shares", u32(2**32 - 1)),
        ("shares", u32(6) + u32(2**32 - 1)),
        ("propose", u32(2**32 - 1)),
        ("propose", u32(6)),
        ("terms", encode_terms(world.server.draft)[:-1]),
    ]
    for label, body in notices:
        with pytest.raises((r.Oversize, r.Malformed, r.AlreadyDone)):
            world.say(1, label, body)
    with pytest.raises(r.Oversize):
        world.tell(1, bytes(1 << 20))


def with_residue_q(world: World) -> bytes:
    made = rounds.parts(world, 4)
    made.rows = made.rows.copy()
    made.rows[0, 0, 7] = world.params.ring.moduli[0]
    return rounds.seal(world, 4, made)


def test_31_a_residue_that_is_not_below_its_prime():
    world = at("contribution")
    with pytest.raises(r.ResidueRange):
        world.hear(with_residue_q(world))
    (q,) = world.params.ring.moduli
    made = rounds.parts(world, 4)
    made.corrections = made.corrections.copy()
    made.corrections[0, 0, 7] = q
    world.hear(rounds.seal(world, 4, made))  # only members read corrections
    world.contributions(range(4))
    world.server, world.out = rounds.server.advance(world.server)
    world.go()
    assert world.inside() == [0, 1, 2, 3] or world.server.opened.wrong == ()
    assert world.exact() and 4 not in world.include().members


def test_31_twin_without_the_comparison_it_is_taken_in(monkeypatch):
    world = at("contribution")
    monkeypatch.setattr(server_state, "residues_by_prime", lambda *a: iter(()))
    world.hear(with_residue_q(world))


def secrets_of(world: World) -> list[bytes]:
    """Bytes of every share and every box key."""
    shares = [np.asarray(s.shares[key].share.value).tobytes() for s in world.states for key in s.shares]
    return shares + [m.store.get(world.run, 1, "secrets")[:32] for m in world.members]


def leaks(root, secrets) -> bool:
    for found in reachable(root):
        raw = found if isinstance(found, bytes) else np.asarray(found).tobytes() if hasattr(found, "dtype") else b""
        if raw and any(secret in raw for secret in secrets):
            return True
    return False


def test_33_secrets_are_in_no_repr_pickle_log_message_or_server(caplog):
    caplog.set_level(logging.DEBUG)
    world = at("answer")
    secrets = secrets_of(world)
    assert len(secrets) == 6 * 5 + 6
    for state, one in zip(world.states, world.members, strict=True):
        for thing in (state, state.shares, one, one.key, world.clients[0]):
            assert not any(s[:16].hex() in repr(thing) or repr(s[:16])[2:-1] in repr(thing) for s in secrets)
        with pytest.raises(TypeError):
            pickle.dumps(state)
        with pytest.raises(TypeError):
            copy.deepcopy(state.shares)
    root = stream()
    drawn = rows.draw(world.params, root)
    assert repr(drawn) == "Secrets(...)"
    with pytest.raises(TypeError):
        pickle.dumps(drawn)
    assert not leaks(world.server, secrets)
    assert not any(s in blob for s in secrets for blob in [*world.heard, *(o.blob for o in world.out)])
    world.go()
    assert not leaks(world.server, secrets) and not any(s[:16].hex() in caplog.text for s in secrets)
    assert all(not m.store.get(world.run, 1, "secrets") for m in world.members) and not any(
        s.shares for s in world.states
    )


def test_33_twin_a_share_at_the_server_is_found():
    world = at("answer")
    secrets = secrets_of(world)
    share = rounds.share_of(world, 1, 0)
    assert leaks(dataclasses.replace(world.server, clients={**world.server.clients, b"x": share}), secrets)


def test_34_no_residue_and_no_distance_is_published(monkeypatch):
    world = at("answer")
    monkeypatch.setattr(rounds.server, "expected_of", lambda terms, clients: opening.Expected(clients, 1, 1))
    with pytest.raises(r.OpeningRefused) as refused:
        world.go()
    assert not any(char.isdigit() for char in str(refused.value).replace("count_bound = 1", ""))
    assert opening.OpenedSum._fields == ("counts", "wrong", "disputed")


def test_35_an_opened_sum_of_binomials_fixes_no_secret():
    words = at("contribution").params
    drawn = np.stack([np.asarray(rows.draw(words, stream()).secret) for _ in range(2)])
    assert np.abs(drawn.sum(0)).max() < 84  # +-84 alone would fix both


def test_35_twin_two_ternary_secrets_are_read_in_two_ninths_of_their_coefficients():
    secrets = np.random.default_rng(1).integers(-1, 2, (2, 8192))
    total = secrets.sum(0)
    read = np.abs(total) == 2
    assert (secrets[0][read] == total[read] // 2).all() and abs(read.mean() - 2 / 9) < 0.02


def test_37_huge_parameters():
    world = at("certify")
    most = 2**32 - 1
    for change in (
        {"size": most},
        {"senders": most},
        {"senders": (1 << 20) + 1},
        {"count_bound": most},
    ):
        tracemalloc.start()
        with pytest.raises(r.BadTerms):
            terms_module.check_terms(dataclasses.replace(world.server.draft, **change), world.pinned)
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
        tracemalloc.stop()
    blob = encode_terms(dataclasses.replace(world.server.draft, mechanism="0" * (1 << 18)))
    with pytest.raises(r.Oversize):
        decode_terms(blob)
    with pytest.raises(r.Oversize):
        decode_terms(encode_terms(dataclasses.replace(world.server.draft, charge="x" * (1 << 15))))


def planted(world: World) -> tuple[bytes, keys.Hidden]:
    """An invitation whose key of member 6, who did not sign, is the server's own."""
    seed = keys.new_box_seed()
    body = world.run + (1).to_bytes(8, "little") + keys.box_public(seed) + bytes(64)
    key = world.member_keys[0]  # the server has a malicious member's key, not that of member 6
    blob = messages.encode(messages.make(key, "round-key", messages.NO_TERMS, body))
    return other_terms(world, round_keys=(*world.server.draft.round_keys[:5], blob)), seed


def test_39_a_planted_box_key_is_refused():
    world = at("contribution")
    invite, _ = planted(world)
    with pytest.raises(r.UnknownSender):
        world.contribute(0, invite)
    message = rounds.reread(world.server.draft.round_keys[0])
    forged = messages.encode(message._replace(sender=world.pinned.members[5]))
    with pytest.raises(r.BadSignature):
        world.contribute(0, other_terms(world, round_keys=(*world.server.draft.round_keys[:5], forged)))


def test_39_twin_without_the_comparison_the_server_opens_the_box(monkeypatch):
    world = at("contribution")
    invite, seed = planted(world)
    monkeypatch.setattr(
        client, "check_round_keys", lambda terms: tuple(REAL_KEY(blob, terms.members)[1] for blob in terms.round_keys)
    )
    message = rounds.reread(world.contribute(0, invite))
    box = contribution.read_contribution(message, world.params).boxes[5]
    assert len(keys.box_opener(seed)(box, contribution.box_info(message.terms, world.public(0), 6)).value) == 32


REAL_KEY = round_keys.round_key_of


@pytest.mark.parametrize("senders", [1, 100, 10_000])
def test_41_no_terms_have_parameters_over_the_scaled_limit(senders):
    for size in (1, 3000, 10**5, 10**6, 10**7):
        for bound in (3, 200, 10**6):
            try:
                ring = parameters.choose(size, bound, senders, 6, 4).ring
            except ValueError:
                continue  # none at all is no danger
            assert np.log2(float(ring.modulus)) <= LIMITS["2024"][ring.degree] * (1 - parameters.HINTS / ring.degree)


FALSE_TERMS = {
    "subset": lambda w: {"members": w.pinned.members[:5], "round_keys": w.server.draft.round_keys[:5]},
    "another member": lambda w: {"members": (keys.public_of(w.client_keys[0]), *w.pinned.members[1:])},
    "t": lambda w: {"threshold": 5},
    "f": lambda w: {"malicious": 0},
    "roster": lambda w: {"roster": bytes(32)},
    "floor": lambda w: {"minimum": 2},
    "noise": lambda w: {"noise": (bytes(32),), "honest_noise": 1, "squared_norm": 1},
    "mechanism": lambda w: {"mechanism": "[" * 10_000},
    "no keys": lambda w: {"round_keys": (*w.server.draft.round_keys[:3], b"", b"", b"")},
}


@pytest.mark.parametrize("name", FALSE_TERMS)
def test_42_false_terms_are_refused_by_members_and_clients(name):
    world = at("certify")
    changes = FALSE_TERMS[name](world)
    with pytest.raises(r.BadTerms):
        world.say(1, "terms", encode_terms(dataclasses.replace(world.server.draft, **changes)))
    with pytest.raises(r.BadTerms):
        world.contribute(0, other_terms(world, **changes))


def test_42_twin_who_pins_these_takes_them(monkeypatch):
    world = at("certify")
    monkeypatch.setattr(member, "roster_hash", lambda clients: bytes(32))
    pinned = world.pinned._replace(roster=bytes(32))
    world.members[0] = dataclasses.replace(world.members[0], pinned=pinned)
    world.say(1, "terms", encode_terms(dataclasses.replace(world.server.draft, roster=bytes(32))))


def test_21_two_terms_to_two_halves_have_no_certificate():
    world = at("certify")
    halves = [world.server.draft, dataclasses.replace(world.server.draft, charge="other")]
    signed: dict[int, list] = {0: [], 1: []}
    for k in range(1, 7):
        signed[k % 2].append(rounds.reread(world.say(k, "terms", encode_terms(halves[k % 2]))))
    for terms, made in zip(halves, signed.values(), strict=True):
        digest = terms_hash(terms)
        made.append(rounds.reread(world.signed(1, "certify", digest, digest)))  # one malicious member signs both
        certificate = messages.encode_quorum(messages.quorum_of({m.sender: m for m in made}.values(), digest))
        if len({m.sender for m in made}) < 4:
            with pytest.raises(r.NoQuorum):
                client.accept_terms(world.clients[0], encode_terms(terms), certificate, rounds.MODEL)
    assert min(len({m.sender for m in made}) for made in signed.values()) == 3
    with pytest.raises(r.AlreadyDone):
        world.say(2, "terms", encode_terms(halves[1]))


def test_39_a_member_is_not_declared_away_behind_its_back():
    world = at("certify")
    with pytest.raises(r.BadTerms):
        world.say(
            6,
            "terms",
            encode_terms(dataclasses.replace(world.server.draft, round_keys=(*world.server.draft.round_keys[:5], b""))),
        )
    world.tamper("terms", lambda blob: None, 6)
    world.go()
    assert world.exact() and world.include().members == (1, 2, 3, 4, 5)


def test_a_round_with_the_largest_number_and_the_same_people_in_another_run():
    world = World()
    world.begin((1 << 62) - 1)
    world.go()
    assert world.exact()
    old, key = world.out, world.server.draft.round_keys[0]
    other = world.fresh()
    other.run = bytes(16)
    other.members = [dataclasses.replace(one, run=other.run) for one in other.members]
    other.clients = [one._replace(run=other.run) for one in other.clients]
    other.begin((1 << 62) - 1)
    with pytest.raises(r.WrongTerms):  # a round key of the first run, under the same round's number
        other.hear(key)
    other.go()
    assert other.exact() and not old


def test_39_round_keys_of_another_round_or_run_are_refused():
    world = at("contribution")
    old = world.server.draft.round_keys[4]
    world.begin(2)
    world.go("contribution")
    with pytest.raises(r.BadTerms):
        world.contribute(0, other_terms(world, round_keys=(*world.server.draft.round_keys[:4], old, b"")))
