"""A member's steps one by one: what it says again, what it refuses, and that nothing it said is unsaid."""

from __future__ import annotations

import pytest

from fedjax_poisson.aggregation import bodies, contribution, member, messages, server
from fedjax_poisson.aggregation import refusals as r
from fedjax_poisson.aggregation.bodies import Include
from fedjax_poisson.aggregation.store import sqlite_store
from fedjax_poisson.aggregation.wire import prefixed, u64
from tests.aggregation import rounds
from tests.aggregation.rounds import World
from tests.aggregation.test_attacks import at, quorum
from tests.aggregation.test_attacks_members import ALL


def test_a_begin_does_not_reset_a_member():
    world = at("include")
    before = world.states[0]
    world.say(1, "begin", world.run + u64(1))
    assert world.states[0] is before
    world.states[0] = member.State()  # a process that was started again without its state
    world.say(1, "begin", world.run + u64(1))
    assert world.states[0].committed == before.committed and world.states[0].seed == before.seed
    with pytest.raises(r.RoundUsed):
        world.say(1, "begin", world.run + u64(0))


@pytest.mark.parametrize("number", [1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_rounds_beyond_what_a_database_holds_have_a_refusal(number, tmp_path):
    world = World(stores=lambda k: sqlite_store(tmp_path / f"{k}.sqlite"))
    with pytest.raises(r.RoundUsed):
        world.say(1, "begin", world.run + u64(number))
    world.say(1, "begin", world.run + u64((1 << 62) - 1))
    with pytest.raises(r.RoundUsed):
        world.say(1, "begin", world.run + u64(1))


def test_after_the_include_step_no_restart_makes_a_round_dead():
    world = at("answer")
    for restart in (lambda: None, lambda: world.restart(1), lambda: world.states.__setitem__(0, member.State())):
        restart()
        world.say(1, "begin", world.run + u64(1))
        with pytest.raises(r.AlreadyDone):
            world.say(1, "abandon", u64(1))


def test_shares_that_come_again_after_the_commit_change_nothing():
    world = at("commit")
    world.phase()
    held = dict(world.states[0].shares)
    late = bodies.read_handed(server.handed_to(world.server, 1, world.server.clients), world.server.draft)
    other = rounds.reread(rounds.seal(world, 4, rounds.parts(world, 4)))
    parts = contribution.read_contribution(other, world.params)
    swapped = [bodies.Handed(messages.encode(other._replace(attached=b"")), parts.boxes[0], b"")]
    with pytest.raises(r.DuplicateClient):
        world.say(1, "shares", bodies.handed_body(swapped))
    world.restart(1)
    world.say(1, "shares", bodies.handed_body(swapped))  # not in D by this manifest: not taken
    assert not world.states[0].shares
    world.say(1, "shares", bodies.handed_body(late))
    assert {k: v[0] for k, v in world.states[0].shares.items()} == {k: v[0] for k, v in held.items()}


def test_beacons_shown_selectively_give_no_quorum_on_a_seed_of_the_servers_choice():
    world = at("seed")
    shown = [m for m in world.heard if rounds.reread(m).label == "beacon-open"]
    seeds = {rounds.reread(world.say(k, "beacons", bodies.many(shown[k - 1 : k]))).body for k in ALL}
    assert len(seeds) == 6  # each holds its own part for shown, so no two of them sign one seed
    again = {rounds.reread(world.say(k, "beacons", bodies.many(shown))).body for k in ALL}
    assert again == seeds  # and nobody signs a second one
    with pytest.raises(r.NoQuorum):
        world.phase()


def test_a_member_that_decides_must_have_shown_scalars_and_m_is_no_small_choice():
    world = at("include")
    shown = [m for m in world.heard if rounds.reread(m).label == "projections"]
    entries = world.server.committed
    for members, blobs in (((1, 2, 3), shown[:3]), ((1, 2, 3, 4), shown), ((1, 2, 3, 4, 5), shown[:4]), ((), shown)):
        body = bodies.include_body(Include(entries, members, ()))
        with pytest.raises(r.NoQuorum):
            world.say(1, "judged", prefixed(body) + bodies.many(blobs))
    with pytest.raises(r.WrongTerms):
        world.say(1, "judged", prefixed(bodies.include_body(Include(entries, (1, 1, 2, 3), ()))) + bodies.many(shown))
    foreign = tuple(sorted((*entries[:-1], (bytes(32), bytes(32)))))
    with pytest.raises(r.NoQuorum):
        world.say(1, "judged", prefixed(bodies.include_body(Include(foreign, ALL, ()))) + bodies.many(shown))


def chosen_beacon(world: World) -> World:
    """Member 2 opens 64 bytes of its choice in place of what it announced."""
    world.tamper("beacon-open", lambda blob: world.signed(2, "beacon-open", b"\x07" * 64), 2)
    return world.go("seed")


def test_28_a_beacon_unlike_its_hash_counts_as_zero_for_everybody(monkeypatch):
    world = chosen_beacon(at("commit"))
    parts = {m.sender: m.body for m in world.server.heard["beacon-open"].values()}
    without = {sender: body for sender, body in parts.items() if sender != world.pinned.members[1]}
    found = rounds.round_keys.check_round_keys(world.server.draft)
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
