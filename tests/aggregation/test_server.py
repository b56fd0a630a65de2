"""The server goes on: what one client, or one member, must not be able to stop; and what goes on is exact."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_poisson.aggregation import keys, messages
from fedjax_poisson.aggregation import refusals as r
from fedjax_poisson.aggregation.bodies import key_list
from fedjax_poisson.aggregation.wire import u64
from tests.aggregation import rounds
from tests.aggregation.rounds import World
from tests.aggregation.test_attacks import at, with_client


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
    body = world.run + u64(1) + bad + bytes(64)
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
    found = rounds.contribution.read_contribution(honest, world.params)

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


def test_a_client_that_writes_behind_the_vector_stops_the_round_and_changes_nothing():
    world = at("contribution")
    made = rounds.parts(world, 4)
    behind = np.zeros(1024, np.int64)
    behind[700] = world.params.ring.step
    made.rows = rounds.plus(world, made.rows, rounds.form(world, behind)[None])
    with_client(world, rounds.seal(world, 4, made)).go("answer")
    with pytest.raises(r.OpeningRefused):
        world.go()
