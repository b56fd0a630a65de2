"""Mutated bytes of every kind to members, the server and clients: a reply, or a refusal by name; quickly, and with no more memory than the sizes allow.

Half of the mutations are under good signatures: what a malicious client or member signs reaches the code behind the signature checks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import random
import time
import tracemalloc
from collections.abc import Callable
from typing import NamedTuple

import pytest

from fedjax_poisson.aggregation import (
    bodies,
    client,
    contribution,
    member,
    messages,
    noise,
    prover,
    server,
)
from fedjax_poisson.aggregation.refusals import RoundRefused
from fedjax_poisson.aggregation.store import Store, memory_store
from fedjax_poisson.aggregation.terms import decode_terms
from fedjax_poisson.aggregation.wire import Reader, prefixed, u32, u64
from fedjax_poisson.randomness import stream
from tests.aggregation import rounds
from tests.aggregation.rounds import World
from tests.aggregation.test_attacks import at, quorum
from tests.helpers.entropy import drawn_once

FEW, MANY = 300, 10_000
MOST_SECONDS = 1.0
MOST_MEMORY = 8 << 20
"""No message of these worlds has more than 30 kB; a length that was believed would ask for 4 GB."""


class Sample(NamedTuple):
    """One good input: what it is given to, and the bytes."""

    give: Callable[[bytes], object]
    blob: bytes
    signed: Callable[[random.Random], bytes]


def recording_store() -> tuple[Store, dict]:
    """A memory store, and all that was ever put into it."""
    inner, taken = memory_store(), {}

    def put(run, number, step, blob):
        taken[run, number, step] = inner.put(run, number, step, blob)
        return blob

    return Store(put, inner.get, inner.last, inner.erase), taken


def store_of(taken: dict) -> Store:
    """A store with these records; what is put in is forgotten with it."""
    made = memory_store()
    for (run, number, step), blob in taken.items():
        made.put(run, number, step, blob)
    return made


def mutated(rng: random.Random, blob: bytes) -> bytes:
    """Other bytes, near the given ones."""
    raw = bytearray(blob)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(raw) + 1)
        kind = rng.randrange(9)
        if kind == 0 and raw:
            raw[at % len(raw)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del raw[at:]
        elif kind == 2:
            raw += rng.randbytes(rng.choice((1, 4, 64, 5000)))
        elif kind == 3:  # a length, or a number
            raw[at : at + 4] = u32(rng.choice((0, 1, 2**31, 2**32 - 1, len(blob), len(blob) + 1, rng.randrange(64))))
        elif kind == 4:  # the first lengths are where the structure is
            at = rng.choice((0, 4, 8, 12)) % (len(raw) + 1)
            raw[at : at + 4] = u32(rng.choice((0, 1, 5, 6, 7, 20, 21, 2**20, 2**32 - 1)))
        elif kind == 5:  # two fields change places
            size = rng.choice((4, 32, 64, 96))
            other = rng.randrange(len(raw) + 1)
            one, two = bytes(raw[at : at + size]), bytes(raw[other : other + size])
            if len(one) == len(two) == size and abs(at - other) >= size:
                raw[at : at + size], raw[other : other + size] = two, one
        elif kind == 6:
            raw[at : at + 32] = rng.randbytes(32)
        elif kind == 7:
            del raw[at : at + rng.choice((1, 4, 32, 64))]
        else:
            raw = bytearray(rng.randbytes(rng.choice((0, 1, 4, 40, len(blob)))))
    return bytes(raw)


@drawn_once
def samples() -> dict[str, Sample]:
    """One good input of every kind, by its name, from one light round and one norm round."""
    return {
        **of_a_round(False),
        **{"norm " + name: sample for name, sample in of_a_round(True).items() if name in OF_NORM},
    }


def of_a_round(norm: bool) -> dict[str, Sample]:
    """Inputs of every kind from one round."""
    store, taken = recording_store()
    world = World(norm=norm, stores=lambda k: store if k == 1 else memory_store())
    found: dict[str, Sample] = {}
    world.begin()
    while world.server.phase != "opened":
        state, phase = world.server, world.server.phase
        if phase == "contribution":
            invite = world.out[0].blob
            give = functools.partial(invited, world)
            found["invite"] = Sample(give, invite, functools.partial(certified, world, invite))
            world.contributions(range(5))
            blob = world.heard[-1]
        elif phase in ("noise", "proof"):
            body = world.out[0].blob
            give = functools.partial(noised if phase == "noise" else proved, world)
            name = {"noise": "send noise", "proof": "prove"}[phase]
            found[name] = Sample(give, body, functools.partial(changed, name, body))
            (world.send_noise if phase == "noise" else world.prove)(body)
            blob = world.heard[-1]
        else:
            for one in world.out:
                if one.to == 1:
                    label = messages.decode_notice(one.blob, 1 << 24, member.LABELS).label
                    give = functools.partial(told, world.members[0], world.states[0], dict(taken))
                    found["notice " + label] = Sample(give, one.blob, functools.partial(notice, world, label, one.blob))
                    if label == "shares":
                        body = messages.encode_notice(messages.Notice("abandon", u64(1)))
                        found["notice abandon"] = Sample(give, body, functools.partial(notice, world, "abandon", body))
                reply = world.tell(one.to, one.blob)
                world.heard.append(reply)
                world.hear(reply)
                blob = reply
        found["message " + phase] = Sample(functools.partial(heard, state), blob, functools.partial(again, world, blob))
        world.server, world.out = server.advance(world.server)
    assert world.exact()
    given_up = at("held")
    given_up.server, out = server.abandon(given_up.server)
    blob = given_up.tell(out[0].to, out[0].blob)
    again_of = functools.partial(again, given_up, blob)
    found["message dead"] = Sample(functools.partial(heard, given_up.server), blob, again_of)
    return found


def told(who: member.Member, state: member.State, taken: dict, blob: bytes) -> object:
    return member.step(dataclasses.replace(who, store=store_of(taken)), state, blob)


def heard(state: server.State, blob: bytes) -> object:
    after = server.receive(state, blob)
    return server.advance(after)  # what was taken in must not break what follows


def invited(world: World, blob: bytes) -> object:
    reader = Reader(messages.decode_notice(blob, 1 << 20, ["invite"]).body)
    one = world.clients[0]._replace(store=memory_store())
    return client.accept_terms(one, reader.prefixed(), reader.prefixed(), rounds.MODEL)


def noised(world: World, blob: bytes) -> object:
    body = messages.decode_notice(blob, 1 << 20, ["send noise"]).body
    return noise.contribute_noise(world.noise_senders[0]._replace(store=memory_store()), body, world.noise[0], stream())


def proved(world: World, blob: bytes) -> object:
    reader = Reader(messages.decode_notice(blob, 1 << 20, ["prove"]).body)
    return prover.prove(world.clients[0], *(reader.prefixed() for _ in range(3)))


def changed(name: str, blob: bytes, rng: random.Random) -> bytes:
    """A notice with another body."""
    body = messages.decode_notice(blob, 1 << 20, [name]).body
    return messages.encode_notice(messages.Notice(name, mutated(rng, body)))


def signer(world: World, sender: bytes):
    every = {rounds.keys.public_of(key): key for key in (*world.member_keys, *world.client_keys)}
    return every[sender]


def again(world: World, blob: bytes, rng: random.Random) -> bytes:
    """A message with another body or other parts, signed by its sender."""
    found = rounds.reread(blob)
    body, attached = found.body, found.attached
    if found.label == "proof":
        parts = prover.read_proof(found, world.params)
        listed = list(parts.corrections)
        place = rng.randrange(len(listed))
        listed[place] = mutated(rng, listed[place])
        body = parts.seed + b"".join(hashlib.sha256(part).digest() for part in listed)
        attached = b"".join(prefixed(part) for part in listed)
    if found.label in ("contribution", "noise"):
        if rng.random() < 0.3:
            attached = mutated(rng, attached)
        else:  # parts as their hashes say
            parts = contribution.read_contribution(found, world.params)
            listed = [parts.rows, *parts.boxes, *parts.corrections]
            place = rng.randrange(len(listed))
            listed[place] = mutated(rng, listed[place])
            hashes = [hashlib.sha256(part).digest() for part in listed]
            body = b"".join([hashes[0], parts.manifest.certificate, *hashes[1:]])
            attached = b"".join(prefixed(part) for part in listed)
    if found.label not in ("contribution", "noise", "proof") or rng.random() < 0.2:
        body = mutated(rng, body)
    return messages.encode(messages.make(signer(world, found.sender), found.label, found.terms, body, attached))


def notice(world: World, label: str, blob: bytes, rng: random.Random) -> bytes:
    """A notice whose signed contents are changed and signed again by all members, or by the client."""
    body = messages.decode_notice(blob, 1 << 24, member.LABELS).body
    if label in ("committed", "included"):
        name = {"committed": "commit", "included": "include"}[label]
        body = quorum(world, name, mutated(rng, messages.decode_quorum(body).body), range(1, 7))
    elif label == "seeded":
        reader = Reader(body)
        found, handed = messages.decode_quorum(reader.prefixed()), reader.rest()
        if handed and rng.random() < 0.7:
            body = prefixed(messages.encode_quorum(found)) + mutated(rng, handed)
        else:
            body = prefixed(quorum(world, "seed", mutated(rng, found.body), range(1, 7))) + handed
    elif label == "shares":
        handed = bodies.read_handed(body, world.server.draft)
        place = rng.randrange(len(handed))
        one = handed[place]
        if rng.random() < 0.5:
            one = one._replace(signed=again_short(world, one.signed, rng))
        else:
            name = rng.choice(("box", "correction"))
            one = one._replace(**{name: mutated(rng, getattr(one, name))})
        handed[place] = one
        body = bodies.handed_body(handed)
    elif label == "beacons":
        listed = bodies.read_many(body, 6)
        listed[rng.randrange(len(listed))] = again(world, rng.choice(listed), rng)
        body = bodies.many(listed)
    elif label == "judged":
        reader = Reader(body)
        include, listed = reader.prefixed(), bodies.read_many(reader.rest(), 6)
        if rng.random() < 0.5:
            include = mutated(rng, include)
        else:
            listed[rng.randrange(len(listed))] = again(world, rng.choice(listed), rng)
        body = prefixed(include) + bodies.many(listed)
    else:
        body = mutated(rng, body)
    return messages.encode_notice(messages.Notice(label, body))


def again_short(world: World, blob: bytes, rng: random.Random) -> bytes:
    found = rounds.reread(blob)
    body = mutated(rng, found.body)
    return messages.encode(messages.make(signer(world, found.sender), found.label, found.terms, body))


def certified(world: World, blob: bytes, rng: random.Random) -> bytes:
    """An invitation to other terms under a certificate of all members."""
    reader = Reader(messages.decode_notice(blob, 1 << 20, ["invite"]).body)
    raw = mutated(rng, reader.prefixed())
    try:
        digest = rounds.terms_module.terms_hash(decode_terms(raw))
    except RoundRefused:
        digest = bytes(32)
    made = [rounds.reread(world.signed(k, "certify", digest, digest)) for k in range(1, 7)]
    return messages.encode_notice(
        messages.Notice("invite", prefixed(raw) + prefixed(messages.encode_quorum(messages.quorum_of(made, digest))))
    )


def campaign(name: str, count: int, seed: int) -> dict[str, int]:
    """Mutations of one kind of input; the outcomes, counted by their names."""
    rng, sample = random.Random(f"{name} {seed}"), samples()[name]
    outcomes: dict[str, int] = {}
    for _ in range(2):  # so that no compilation is timed
        with contextlib.suppress(RoundRefused):
            sample.give(sample.blob)
    for i in range(count):
        blob = sample.signed(rng) if i % 2 else mutated(rng, sample.blob)
        watched = i % 25 == 0
        if watched:
            tracemalloc.start()
        begun = time.process_time()  # others share the machine
        try:
            sample.give(blob)
            outcome = "taken"
        except RoundRefused as refusal:
            outcome = type(refusal).__name__
        except BaseException as error:
            raise AssertionError(f"{name}, mutation {i} of seed {seed}: {blob.hex()[:2000]}") from error
        finally:
            peak = tracemalloc.get_traced_memory()[1] if watched else 0
            tracemalloc.stop()
        assert time.process_time() - begun < MOST_SECONDS * (10 if watched else 1), (name, i)
        assert peak < MOST_MEMORY, (name, i, peak)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


LIGHT = (
    "invite",
    *("notice " + label for label in member.LABELS if label != "terms and noise"),
    *("message " + phase for phase in server.PHASES if phase not in ("noise", "proof", "opened", "over")),
)
OF_NORM = (
    "send noise",
    "message noise",
    "notice terms and noise",
    "message certify",
    "invite",
    "notice propose",
    "prove",
    "message proof",
    "notice seeded",
    "message projections",
    "notice judged",
)
"""What a norm round has, or has otherwise than a light one."""
NAMES = (*LIGHT, *("norm " + name for name in OF_NORM))


def test_every_kind_of_input_is_there():
    assert set(samples()) == set(NAMES)
    for name, sample in samples().items():
        try:
            sample.give(
                sample.blob
            )  # the sample itself is taken; of the server's phases some need more than one message
        except RoundRefused as refusal:
            assert type(refusal).__name__ in ("MissingNoise", "NoQuorum", "TinySet") and "message" in name, name


@pytest.mark.parametrize("name", NAMES)
def test_mutations_are_refused_by_name(name):
    outcomes = campaign(name, FEW, 0)
    assert len(outcomes) > 1, outcomes


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_many_mutations_are_refused_by_name(name):
    begun = time.perf_counter()
    outcomes = campaign(name, MANY, 1)
    print(f"\n{name}: {MANY} in {time.perf_counter() - begun:.0f} s, {outcomes}")
