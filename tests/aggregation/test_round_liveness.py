"""What one client, or one member, must not be able to stop; and what goes on is exact."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedjax_poisson.aggregation import bodies, keys, messages
from fedjax_poisson.aggregation import refusals as r
from fedjax_poisson.aggregation.bodies import key_list
from fedjax_poisson.aggregation.wire import u64
from tests.aggregation import rounds
from tests.aggregation.rounds import World
from tests.aggregation.test_attacks import at, quorum, with_client


def test_more_clients_than_the_terms_have_room_for():
    """With one more in their list every member would refuse it as oversize, and an eager client would end the round."""
    world = World(clients=8)
    world.begin()
    world.go()
    assert world.exact() and len(world.inside()) == 6 and world.names() == ["OutOfOrder"] * 2


@pytest.mark.parametrize("how", ["zeros", "ones", "low order"])
def test_a_box_key_that_nobody_can_use(how):
    """One malicious member would cost all clients the round: each would fail at its box, charged already."""
    good = keys.box_public(keys.new_box_seed())
    bad = {"zeros": bytes(1216), "ones": b"\xff" * 1216, "low order": good[:1184] + bytes(32)}[how]
    world = World()
    world.begin()
    body = world.run + u64(1) + bad + bytes(32)
    world.tamper("round-key", lambda blob: world.signed(3, "round-key", body, messages.NO_TERMS), 3)
    world.go()
    assert world.exact() and len(world.inside()) == 5 and world.names() == ["BadBox"]
    assert world.include().members == (1, 2, 4, 5, 6)


@pytest.mark.parametrize("part", ["rows", "box", "correction"])
@pytest.mark.parametrize("longer", [-1, 1, 4096])
def test_parts_of_other_sizes_are_refused_by_the_server(part, longer):
    """A long box or correction, at the cost of the others, would make one member's list too large for it: it refuses all of it."""
    world = at("contribution")
    made = rounds.parts(world, 4)
    honest = rounds.reread(rounds.seal(world, 4, made))
    found = rounds.client.read_contribution(honest, world.params)

    def resized(blob: bytes) -> bytes:
        return blob + bytes(longer) if longer > 0 else blob[:longer]

    changed = {
        "rows": lambda: rounds.seal(world, 4, made, raw_rows=resized(found.rows)),
        "box": lambda: rounds.seal(world, 4, made, boxes={2: resized(found.boxes[1]), 3: b"", 4: b"", 5: b"", 6: b""}),
        "correction": lambda: rounds.seal(
            world, 4, made, raw_corrections={5: resized(found.corrections[1]), 6: b"", 4: b""}
        ),
    }[part]()
    with pytest.raises((r.Malformed, r.BadBox, r.Oversize)):
        world.hear(changed)
    with_client(world, messages.encode(honest)).go()
    assert world.exact() and len(world.inside()) == 5


def complaining(world: World, k: int, about) -> None:
    world.tamper("held", lambda blob: world.signed(k, "held", key_list(about)), k)


def test_one_member_that_refuses_everything_is_left_out_where_there_are_enough():
    world = at("held")
    complaining(world, 2, world.server.clients)
    world.go()
    assert world.exact() and len(world.inside()) == 5 and 2 not in world.include().members


def test_with_five_members_a_complaint_costs_that_client_and_nobody_else():
    world = at("held", m=5)
    complaining(world, 2, [world.public(0)])
    world.go()
    assert world.exact() and world.inside() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "label", ["round-key", "certify", "held", "commit", "beacon-open", "seed", "projections", "include", "answer"]
)
@pytest.mark.parametrize("m", [5, 6])
def test_one_member_that_is_silent_from_some_step_on(label, m):
    world = World(m)
    world.begin()
    for later in messages.MEMBER_LABELS[messages.MEMBER_LABELS.index(label) :]:
        world.tamper(later, lambda blob: None, 2)
    world.go()
    assert world.exact() and len(world.inside()) == 5 and world.server.opened.wrong == ()


@pytest.mark.parametrize(
    "label", ["certify", "held", "commit", "beacon-open", "seed", "projections", "include", "answer"]
)
def test_one_member_that_signs_rubbish(label):
    world = World()
    world.begin()
    world.tamper(label, lambda blob: world.signed(2, label, b"\x01" * 40), 2)
    world.go()
    assert world.exact() and len(world.inside()) == 5


@pytest.mark.parametrize("value", [-(1 << 31), (1 << 31) - 1, 201, -201])
def test_counts_beyond_the_bound_are_refused_by_the_client_itself(value):
    world = at("contribution")
    world.counts[0, 3] = value
    with pytest.raises(ValueError, match="count_bound"):
        world.contribute(0, world.out[0].blob)
    world.counts[0, 3] = 200 if value > 0 else -200
    world.counts[1:, 3] = 0
    world.go()
    assert world.exact() and abs(world.server.opened.counts[3]) == 200


def test_a_client_takes_one_floor_of_honest_senders_and_a_model():
    world = at("contribution")
    with pytest.raises(r.BadTerms):
        world.contribute(0, world.out[0].blob, model=bytes(32))
    world.clients[0] = world.clients[0]._replace(run=bytes(16))
    with pytest.raises(r.BadTerms):
        world.contribute(0, world.out[0].blob)
    world.clients[1] = world.clients[1]._replace(roster=frozenset())
    with pytest.raises(r.BadTerms):  # another list than the pinned roster
        world.contribute(1, world.out[0].blob)
    world.clients[2] = world.clients[2]._replace(pinned=world.pinned._replace(least_honest=3))
    with pytest.raises(r.BadTerms):
        world.contribute(2, world.out[0].blob)
    assert world.clients[2].store.last(world.run, "terms") == -1  # a refusal uses up nothing


def test_a_certificate_of_other_terms_or_of_three_members():
    world = at("contribution")
    reader = messages.Reader(messages.decode_notice(world.out[0].blob, 1 << 20, ["invite"]).body)
    terms, certificate = reader.prefixed(), reader.prefixed()
    quorum = messages.decode_quorum(certificate)
    three = messages.encode_quorum(quorum._replace(signatures=quorum.signatures[:3]))
    with pytest.raises(r.NoQuorum):
        rounds.client.accept_terms(world.clients[0], terms, three, rounds.MODEL)
    other = rounds.terms_module.encode_terms(dataclasses.replace(world.server.draft, charge="x"))
    with pytest.raises(r.BadTerms):
        rounds.client.accept_terms(world.clients[0], other, certificate, rounds.MODEL)


def chosen_beacon(world: World) -> World:
    """Member 2 opens 64 bytes of its choice in place of what it announced."""
    world.tamper("beacon-open", lambda blob: world.signed(2, "beacon-open", b"\x07" * 64), 2)
    return world.go("seed")


def test_28_a_beacon_unlike_its_hash_counts_as_zero_for_everybody(monkeypatch):
    world = chosen_beacon(at("commit"))
    parts = {m.sender: m.body for m in world.server.heard["beacon-open"].values()}
    without = {sender: body for sender, body in parts.items() if sender != world.pinned.members[1]}
    found = rounds.client.check_round_keys(world.server.draft)
    seeds = [bodies.seed_of(world.server.draft, found, world.server.committed, shown) for shown in (parts, without)]
    assert seeds[0] == seeds[1]
    world.go()
    assert world.exact() and world.server.seed == seeds[0]
    # the twin: where the hash is not compared the member chooses the seed after all others have shown theirs
    monkeypatch.setattr(bodies, "commitment", lambda beacon: found[1].commitment)
    keys_ = tuple(key._replace(commitment=found[1].commitment) for key in found)
    twins = {
        bodies.seed_of(
            world.server.draft, keys_, world.server.committed, {**parts, world.pinned.members[1]: bytes([i]) * 64}
        )
        for i in range(4)
    }
    assert len(twins) == 4


def test_a_client_that_writes_behind_the_vector_stops_the_round_and_changes_nothing():
    world = at("contribution")
    made = rounds.parts(world, 4)
    behind = np.zeros(1024, np.int64)
    behind[700] = world.params.ring.step
    made.rows = rounds.plus(world, made.rows, rounds.form(world, behind)[None])
    with_client(world, rounds.seal(world, 4, made)).go("answer")
    with pytest.raises(r.OpeningRefused):
        world.go()


def test_a_member_takes_no_part_in_a_set_that_it_did_not_sign():
    world = at("commit")
    body = bodies.commit_body(world.server.committed)
    with pytest.raises(r.NoQuorum):
        world.say(1, "committed", quorum(world, "commit", body, (2, 3, 4, 5, 6)))
    world.say(1, "propose", bodies.commit_body(world.server.committed[:-1]))
    with pytest.raises(r.NoQuorum):
        world.say(1, "committed", quorum(world, "commit", body, (2, 3, 4, 5, 6)))
    unknown = (*world.server.committed[:-1], (world.server.committed[-1][0], bytes(32)))
    with pytest.raises(r.OutOfOrder):  # a manifest that it does not hold
        world.say(2, "propose", bodies.commit_body(unknown))
