"""Attacks that a hostile reading found: each fails by name, and works with its one check off."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedjax_poisson.aggregation import bodies, member, messages, opening, server_state, sharing
from fedjax_poisson.aggregation import refusals as r
from fedjax_poisson.aggregation import terms as terms_module
from fedjax_poisson.aggregation.bodies import Include
from fedjax_poisson.aggregation.wire import prefixed, read_residues, u64
from tests.aggregation import rounds
from tests.aggregation.test_attacks import at
from tests.aggregation.test_round_dead import give_up


def test_fewer_corrupt_clients_with_a_lower_minimum_keep_the_floor_and_are_refused():
    """minimum - corrupt is the same, but the set that is opened is smaller by as many clients as are no longer assumed corrupt."""
    world = at("certify")
    draft = world.server.draft
    pinned = world.pinned._replace(corrupt=1, least_honest=2)
    lower = dataclasses.replace(draft, minimum=2, corrupt=0)
    with pytest.raises(r.BadTerms, match="assumed corrupt"):
        terms_module.check_terms(lower, pinned)
    terms_module.check_terms(lower, pinned._replace(corrupt=0))  # the twin: with the floor alone they are taken


def test_one_record_decides_between_include_and_dead():
    """Two processes of one member on one store, one asked to include and one to abandon at the same moment."""
    world = at("include")
    judged = next(one for one in world.out if one.to == 1)
    before = world.states[0]
    world.tell(1, judged.blob)
    with pytest.raises(r.AlreadyDone):
        member.step(world.members[0], before, messages.encode_notice(messages.Notice("abandon", u64(1))))
    other = at("include")
    judged, before = next(one for one in other.out if one.to == 1), other.states[0]
    other.say(1, "abandon", u64(1))
    with pytest.raises(r.AlreadyDone):
        member.step(other.members[0], before, judged.blob)


def test_twin_without_the_record_a_member_signs_both(monkeypatch):
    monkeypatch.setattr(member, "decide", lambda *_: None)
    world = at("include")
    judged, before = next(one for one in world.out if one.to == 1), world.states[0]
    world.tell(1, judged.blob)
    member.step(world.members[0], before, messages.encode_notice(messages.Notice("abandon", u64(1))))


@pytest.mark.parametrize("lie", ["an honest client is out", "another reason", "a stranger is named"])
def test_who_is_left_out_and_why_is_checked(lie):
    world = at("include")
    entries = world.server.committed
    shown = bodies.many(messages.encode(one) for one in world.server.heard["projections"].values())
    if lie == "a stranger is named":
        body = bodies.include_body(Include(entries, (1, 2, 3, 4, 5, 6), ((bytes(32), 1),)))
    else:
        reason = 2 if lie == "an honest client is out" else 1
        body = bodies.include_body(Include(entries[1:], (1, 2, 3, 4, 5, 6), ((entries[0][0], reason),)))
    with pytest.raises(r.WrongTerms, match="left out"):
        world.say(1, "judged", prefixed(body) + shown)


def collusion(world: rounds.World):
    """Client 4's rows are under s + d while its shares are of s, and member 1 adds lambda^-1 d to its answer."""
    params = world.params
    shift = np.zeros(params.ring.degree, np.int64)
    shift[:40] = 3
    form = rounds.form(world, shift)
    made = rounds.parts(world, 4)
    moved = rounds.plus(world, made.rows, rounds.product(world, rounds.common(world), form[None]))
    world.contributions([0, 1, 2, 3])
    world.hear(rounds.seal(world, 4, dataclasses.replace(made, rows=moved)))
    world.server, world.out = rounds.server.advance(world.server)
    world.go("answer")
    answers = {}
    for one in world.out:
        ring = params.ring
        answers[one.to] = read_residues(
            rounds.reread(world.tell(one.to, one.blob)).body[32:], (), ring.degree, ring.moduli
        )
    numbers = sorted(answers)[: params.threshold]
    at_points = sharing.points(world.digest, params.members, params.ring.moduli)
    weight = sharing.lagrange([at_points[k - 1] for k in numbers], (0,) * params.ring.limbs, params.ring.moduli)[0]
    q = np.asarray(params.ring.moduli, np.uint64)
    inverse = np.asarray([pow(int(w), -1, int(p)) for w, p in zip(weight, q, strict=True)], np.uint64)
    added = (np.asarray(form, np.uint64) * inverse[:, None]) % q[:, None]
    answers[1] = ((answers[1] + added) % q[:, None]).astype(np.uint32)
    total = server_state.sum_of_rows(world.server, world.include())
    expected = server_state.expected_of(world.server.draft, 5)
    return opening.open_sum(params, world.digest, total, answers, expected)


def test_a_client_and_a_member_together_do_not_make_honest_members_the_liars():
    """Four of six answers agree with the liar's: fewer than t + f, so nobody is named. The counts are what the rows hold."""
    world = at("contribution")
    opened = collusion(world)
    assert opened.wrong == () and opened.disputed == (5, 6)
    np.testing.assert_array_equal(opened.counts, world.counts.sum(axis=0))


def test_twin_by_t_answers_alone_two_honest_members_would_be_named(monkeypatch):
    world = at("contribution")
    real = server_state.expected_of
    monkeypatch.setattr(server_state, "expected_of", lambda *a: real(*a)._replace(malicious=0))
    assert collusion(world).wrong == (5, 6)


def test_two_members_that_lie_about_boxes_do_not_end_a_round_where_t_agree():
    """One complains about every client: with m = 5 no t + f are left without it, so it is treated as away."""
    world = at("held", m=5)
    everyone = bodies.key_list(world.server.clients)
    world.tamper("held", lambda blob: world.signed(1, "held", everyone), 1)
    world.go()
    assert world.inside() == [0, 1, 2, 3, 4] and world.exact()
    assert 1 not in world.include().members


def test_a_member_that_lies_about_every_client_does_not_end_a_round_where_t_agree():
    world = at("projections", m=5)

    def lie(blob: bytes) -> bytes:
        body = bytearray(rounds.reread(blob).body)
        for place in range(64, len(body), 7):
            body[place] ^= 1
        return world.signed(2, "projections", bytes(body))

    world.tamper("projections", lie, 2)
    world.go()
    assert world.inside() == [0, 1, 2, 3, 4] and world.exact()
    assert 2 not in world.include().members


def test_two_clients_with_one_stream_send_different_rows():
    world = at("contribution")
    invite = world.out[0].blob
    root = rounds.stream()
    world.counts[1] = world.counts[0]
    sent = []
    for i in (0, 1):
        reader = rounds.Reader(messages.decode_notice(invite, 1 << 20, ["invite"]).body)
        blob = rounds.client.contribute(
            world.clients[i], reader.prefixed(), reader.prefixed(), world.counts[i], root, model=rounds.MODEL
        )
        sent.append(rounds.reread(blob).body[:32])
    assert sent[0] != sent[1]


def test_members_that_gave_up_do_not_answer():
    world = at("commit")
    assert give_up(world) == {}
    with pytest.raises(r.OutOfOrder):
        world.say(1, "propose", bodies.commit_body(()))
