"""A client's contribution: what it refuses to take part in, one secret under one message, and randomness that nobody else can draw again."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.aggregation import client, contribution, messages, opening, rows
from fedjax_poisson.aggregation import refusals as r
from fedjax_poisson.aggregation.store import memory_store
from fedjax_poisson.randomness import fold_in, stream
from tests.aggregation import rounds
from tests.aggregation.test_attacks import at


def test_27_no_secret_of_a_client_is_under_two_messages():
    """Also where the store was lost and the caller gives the same stream again: for other terms or other counts the secret is another."""
    world = at("contribution")
    (invite,) = world.out
    root, found = stream(), []
    reader = messages.Reader(messages.decode_notice(invite.blob, 1 << 20, ["invite"]).body)
    terms, certificate = reader.prefixed(), reader.prefixed()
    for counts in (world.counts[0], world.counts[1]):
        one = world.clients[0]._replace(store=memory_store())
        blob = client.contribute(one, terms, certificate, counts, root, model=rounds.MODEL)
        found.append(contribution.read_contribution(rounds.reread(blob), world.params))
    assert all(a != b for a, b in zip(found[0].corrections, found[1].corrections, strict=True))


def test_27_twin_one_stream_under_two_messages_gives_the_difference_of_the_counts():
    world = at("contribution")
    root = stream()
    one, two = (rounds.parts(world, i, root=root).rows.astype(np.int64) for i in (0, 1))
    (q,) = world.params.ring.moduli
    difference = jnp.asarray(((one - two) % q).astype(np.uint32))
    nothing = jnp.zeros((1, 1024), jnp.uint32)
    common = rows.common_of(world.params, world.digest)
    counts, _, _ = opening._decode(world.params, common, difference, nothing)
    assert (np.asarray(counts)[:40] == world.counts[0] - world.counts[1]).all()


@pytest.mark.filterwarnings("ignore::fedjax_poisson.randomness.ReproducibleStreamWarning")
def test_40_a_stream_from_a_seed_is_for_simulations_that_say_so():
    world = at("contribution")
    reader = messages.Reader(messages.decode_notice(world.out[0].blob, 1 << 20, ["invite"]).body)
    one, invited, counts = world.clients[0], (reader.prefixed(), reader.prefixed()), world.counts[0]
    with pytest.raises(ValueError, match="seed"):
        client.contribute(one, *invited, counts, fold_in(stream(7), 1), model=rounds.MODEL)
    assert one.store.last(world.run, "terms") == -1
    # the twin: whoever has the seed makes the same secret again
    client.contribute(one, *invited, counts, fold_in(stream(7), 1), model=rounds.MODEL, reproducible=True)


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
