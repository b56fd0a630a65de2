"""A round that died before its include step gives charges back by t members' signatures; after it there is no way back."""

from __future__ import annotations

import pytest

from fedjax_poisson.aggregation import client, keys, messages, server
from fedjax_poisson.aggregation import refusals as r
from fedjax_poisson.aggregation.terms import encode_terms
from fedjax_poisson.aggregation.wire import Reader, u64
from tests.aggregation.test_attacks import at, quorum


def give_up(world):
    """The server gives the round up; every member is asked. Returns who signed, and why the others did not."""
    world.server, out = server.abandon(world.server)
    refused = {}
    for one in out:
        try:
            world.server = server.receive(world.server, world.tell(one.to, one.blob))
        except r.RoundRefused as error:
            refused[one.to] = type(error).__name__
    return refused


def dead_quorum(world) -> bytes:
    """What the server tells the clients at the end."""
    world.server, out = server.advance(world.server)
    assert world.server.phase == "over" and out[0].to == 0
    reader = Reader(messages.decode_notice(out[0].blob, 1 << 20, ["dead"]).body)
    assert reader.prefixed() == encode_terms(world.server.draft)
    return reader.prefixed()


@pytest.mark.parametrize("phase", ["contribution", "held", "commit", "beacon-open", "seed", "projections"])
def test_before_the_include_step_clients_take_their_charge_back(phase):
    world = at(phase)
    assert give_up(world) == {}
    dead, blob = dead_quorum(world), encode_terms(world.server.draft)
    if phase == "contribution":  # nobody took part yet: nothing was charged, and there is nothing to take back
        with pytest.raises(r.BadTerms, match="took no part"):
            client.taken_back(world.clients[0], blob, dead)
    else:
        assert client.taken_back(world.clients[0], blob, dead).round == 1
    assert all(state.over and not state.shares for state in world.states)
    assert not any(one.store.get(world.run, 1, "secrets") for one in world.members)
    with pytest.raises(r.OutOfOrder):
        server.advance(world.server)


def test_a_member_that_signed_a_set_never_signs_that_the_round_is_dead():
    world = at("include")
    kept = world.server
    world.phase()  # members sign the set
    with pytest.raises(r.OutOfOrder, match="cannot be given up"):
        server.abandon(world.server)
    for k in range(1, 7):  # a server that asks all the same
        with pytest.raises(r.AlreadyDone, match="stays charged"):
            world.say(k, "abandon", u64(1))
    assert kept.phase == "include"


def test_a_member_that_signed_dead_never_signs_a_set():
    world = at("include")
    judged = [one for one in world.out if one.to == 1]
    world.say(1, "abandon", u64(1))
    with pytest.raises(r.OutOfOrder, match="over"):
        world.tell(1, judged[0].blob)
    world.restart(1)
    with pytest.raises(r.OutOfOrder, match="over"):
        world.tell(1, judged[0].blob)


def test_fewer_than_t_signatures_or_another_round_take_nothing_back():
    world = at("held")
    blob = encode_terms(world.server.draft)
    with pytest.raises(r.NoQuorum):
        client.taken_back(world.clients[0], blob, quorum(world, "dead", u64(1), (1, 2, 3)))
    with pytest.raises(r.BadTerms, match="another round"):
        client.taken_back(world.clients[0], blob, quorum(world, "dead", u64(2), (1, 2, 3, 4)))
    stranger = world.clients[0]._replace(store=at("held").clients[0].store, key=keys.new_signing_key())
    with pytest.raises(r.BadTerms, match="took no part"):
        client.taken_back(stranger, blob, quorum(world, "dead", u64(1), (1, 2, 3, 4)))
    assert client.taken_back(world.clients[0], blob, quorum(world, "dead", u64(1), (1, 2, 3, 4))).round == 1


def test_the_server_refuses_to_call_a_round_dead_with_too_few():
    world = at("held")
    world.server, out = server.abandon(world.server)
    for one in out[:3]:
        world.server = server.receive(world.server, world.tell(one.to, one.blob))
    with pytest.raises(r.NoQuorum):
        server.advance(world.server)
