"""Whoever is lost, and whenever: a round opens the exact sum of those who are in it, or is refused by name."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from fedjax_poisson.aggregation import messages, server
from fedjax_poisson.aggregation.refusals import NoQuorum, RoundRefused, TinySet
from tests.aggregation import rounds
from tests.aggregation.rounds import BOUND, MINIMUM, World

PHASES = messages.MEMBER_LABELS[:-1]
"""Without that in which a round is given up."""
"""What members say, in order; clients speak between the second and the third."""


def at_the_ends(world: World) -> World:
    """Counts whose sum over all clients is at the ends of the stated range."""
    clients = len(world.clients)
    signs = np.where(np.arange(rounds.SIZE) % 2, 1, -1)
    world.counts = np.tile((signs * (BOUND // clients)).astype(np.int32), (clients, 1))
    world.counts[0] += (signs * (BOUND % clients)).astype(np.int32)
    return world


def away(world: World, k: int, label: str, *, afterwards: bool) -> None:
    """Member k says nothing in one phase, or from it on."""
    for later in PHASES[PHASES.index(label) :] if afterwards else [label]:
        world.tamper(later, lambda blob: None, k)


def lose_rows(world: World, clients: set[int]) -> None:
    """The server loses what these clients sent, before members are asked."""
    kept = {key: one for key, one in world.server.clients.items() if key not in {world.public(i) for i in clients}}
    world.server = dataclasses.replace(world.server, clients=kept)


def screened_out(world: World, i: int) -> None:
    """Client i sends a secret that is too large everywhere: it is in D, and screening leaves it out of U."""
    world.begin()
    while world.server.phase != "contribution":
        world.phase()
    bad = rounds.seal(world, i, rounds.parts(world, i, shift=np.full(1024, 3000)))
    world.contributions(j for j in range(len(world.clients)) if j != i)
    world.hear(bad)


def advance(world: World) -> None:
    """On from the contributions that are there."""
    world.server, world.out = server.advance(world.server)
    world.go()


# Clients


@pytest.mark.parametrize("lost", [(), (0,), (4,), (1, 3), (0, 5), (0, 1, 2)])
def test_clients_lost_before_sending(lost):
    world = at_the_ends(World(clients=6))
    world.begin()
    world.go(senders=[i for i in range(6) if i not in lost])
    assert world.exact() and world.inside() == [i for i in range(6) if i not in lost] and not world.refused
    if not lost:
        assert np.abs(world.server.opened.counts).max() == BOUND


def test_fewer_clients_than_the_minimum():
    world = at_the_ends(World())
    world.begin()
    with pytest.raises(TinySet):
        world.go(senders=range(MINIMUM - 1))
    assert world.server.opened is None


def test_clients_lost_between_sending_and_commit():
    for lost in ({0}, {1, 4}):
        world = at_the_ends(World())
        world.begin()
        while world.server.phase != "contribution":
            world.phase()
        world.contributions(range(5))
        lose_rows(world, lost)
        advance(world)
        assert world.exact() and set(world.inside()) == set(range(5)) - lost


@pytest.mark.parametrize("out", [0, 2, 4])
@pytest.mark.parametrize("m", [5, 6])
def test_a_client_lost_between_commit_and_include(m, out):
    world = World(m)
    screened_out(world, out)
    advance(world)
    assert len(world.server.committed) == 5
    assert world.inside() == [i for i in range(5) if i != out] and world.exact()


def test_too_many_clients_lost_between_commit_and_include():
    world = World(clients=MINIMUM)
    screened_out(world, 1)
    with pytest.raises(TinySet, match="passed screening"):
        advance(world)
    assert world.server.opened is None


def test_a_message_that_comes_too_late_is_refused_and_changes_nothing():
    world = World()
    world.begin()
    while world.server.phase != "contribution":
        world.phase()
    late = world.contribute(4, world.out[0].blob)
    world.contributions(range(4))
    world.server, world.out = server.advance(world.server)
    while world.server.phase != "opened":
        with pytest.raises(RoundRefused):
            world.hear(late)
        world.phase()
    assert world.exact() and world.inside() == [0, 1, 2, 3]


# Members


@pytest.mark.parametrize("label", PHASES)
@pytest.mark.parametrize(("m", "k"), [(5, 1), (5, 5), (6, 3)])
def test_one_member_away_in_one_phase_and_back_in_the_next(m, k, label):
    world = at_the_ends(World(m))
    world.begin()
    away(world, k, label, afterwards=False)
    world.go()
    assert world.exact() and len(world.inside()) == 5


@pytest.mark.parametrize("label", PHASES)
def test_as_many_members_away_as_may_be_and_one_more(label):
    """m - t = 2 of six: exact. Three: a named refusal, and nothing is opened."""
    for gone in ((1, 2), (2, 5), (5, 6)):
        world = at_the_ends(World(6))
        world.begin()
        for k in gone:
            away(world, k, label, afterwards=True)
        world.go()
        assert world.exact() and len(world.inside()) == 5
    world = World(6)
    world.begin()
    for k in (1, 4, 6):
        away(world, k, label, afterwards=True)
    with pytest.raises(NoQuorum):
        world.go()
    assert world.server.opened is None


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(PHASES[2:], 2)))
def test_two_members_lost_one_after_the_other(first, second):
    world = World(6)
    world.begin()
    away(world, 2, first, afterwards=True)
    away(world, 5, second, afterwards=True)
    world.go(senders=(0, 2, 3, 4))
    assert world.exact() and world.inside() == [0, 2, 3, 4]


@pytest.mark.parametrize("label", PHASES)
def test_members_that_forget_and_come_back_from_their_store(label):
    """One member before each phase: exact. All of them: exact, or too few know a share; never anything else."""
    world = at_the_ends(World(6))
    world.begin()
    while world.server.phase != label:
        world.phase()
    world.restart(3)
    world.go()
    assert world.exact() and len(world.inside()) == 5
    world = at_the_ends(World(6))
    world.begin()
    while world.server.phase != label:
        world.phase()
    for k in range(1, 7):
        world.restart(k)
    try:
        world.go()
    except NoQuorum:
        assert world.server.opened is None
    else:
        assert world.exact() and len(world.inside()) == 5


def test_clients_and_members_lost_in_one_round():
    world = World(6, 6)
    screened_out(world, 1)
    lose_rows(world, {4})
    away(world, 6, "held", afterwards=True)
    away(world, 3, "projections", afterwards=True)
    advance(world)
    assert world.inside() == [0, 2, 3, 5] and world.exact()
    assert world.server.opened.wrong == ()
