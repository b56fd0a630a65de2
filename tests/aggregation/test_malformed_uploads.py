"""A thousand malformed uploads around five honest ones: each is refused by its name, and the round opens exactly the honest sum."""

from __future__ import annotations

import random

import numpy as np
import pytest

from fedjax_poisson.aggregation import keys, messages, server
from fedjax_poisson.aggregation.refusals import RoundRefused
from fedjax_poisson.aggregation.spool import file_spool
from tests.aggregation import rounds
from tests.aggregation.rounds import World
from tests.aggregation.test_round_fuzz import again, mutated

HONEST, COUNT = range(5), 1000


def malformed(world: World, honest: list[bytes], rng: random.Random) -> tuple[str, bytes]:
    """What is wrong with it, and an upload: of a network that changes bytes, of strangers, of other rounds, of members, or signed by an enrolled cheat."""
    kind = rng.choice(
        ("changed", "changed", "stranger", "other terms", "a member's", "signed", "signed", "signed", "large")
    )
    blob = rng.choice(honest)
    if kind == "changed":
        return kind, mutated(rng, blob)
    found = rounds.reread(blob)
    if kind == "large":
        return kind, blob + bytes(rng.choice((1, 100, 1 << 20)))
    if kind == "signed":  # by the sixth client, which nobody else speaks for
        own = messages.make(world.client_keys[5], "contribution", found.terms, found.body, found.attached)
        return kind, again(world, messages.encode(own), rng)
    key = {"stranger": keys.new_signing_key(), "a member's": world.member_keys[0]}.get(kind, world.client_keys[5])
    terms = rng.randbytes(32) if kind == "other terms" else found.terms
    return kind, messages.encode(messages.make(key, "contribution", terms, found.body, found.attached))


@pytest.mark.parametrize("kept", ["memory", "disk"])
def test_a_thousand_malformed_uploads_stop_nothing(kept, tmp_path):
    rng, world = random.Random(kept), World(clients=6)
    world.counts = np.random.default_rng(3).integers(-9, 10, world.counts.shape).astype(np.int32)
    world.begin()
    if kept == "disk":
        world.server, world.out = server.start(world.draft(), world.roster, file_spool(tmp_path))
    world.go("contribution")
    honest = [world.contribute(i, world.out[0].blob) for i in HONEST]
    waiting, names, refused, tried = list(honest), {}, 0, 0
    while refused < COUNT or waiting:
        tried += 1
        if waiting and tried % (COUNT // 5) == COUNT // 10:
            world.hear(waiting.pop(0))
        kind, blob = malformed(world, honest, rng)
        before = world.server
        try:
            world.hear(blob)
        except RoundRefused as refusal:
            assert world.server is before
            names.setdefault(kind, set()).add(type(refusal).__name__)
            refused += 1
            continue
        # else it repeats a manifest that was taken, whose first contents count, or is well-formed and wrong inside: the cheat's one contribution
        new = set(world.server.clients) - set(before.clients)
        assert world.server is before or (new == {world.public(5)} and kind == "signed") or blob in honest
    assert set(names) == {"changed", "stranger", "other terms", "a member's", "signed", "large"} and tried < 2 * COUNT
    assert names["stranger"] == names["a member's"] == {"UnknownSender"} and names["other terms"] == {"WrongTerms"}
    assert names["large"] <= {"Oversize", "Malformed"} and len(set().union(*names.values())) >= 6
    world.server, world.out = server.advance(world.server)
    world.go()
    assert set(world.inside()) == set(HONEST) and world.exact() and not world.refused


def test_the_sum_is_not_that_of_an_upload_too_few():
    """The twin: the same comparison, with one honest upload that was lost on the way, fails."""
    world = World()
    world.begin()
    world.go("contribution")
    for i in HONEST[:-1]:
        world.hear(world.contribute(i, world.out[0].blob))
    world.server, world.out = server.advance(world.server)
    world.go()
    assert world.exact() and not (world.server.opened.counts == world.counts[list(HONEST)].sum(0)).all()
