"""Ends of a process at every persist point, restarts, and other attacks on what a member or a client remembers."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import pickle
import signal
import sqlite3
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.aggregation import bodies, client, keys, member, messages, opening, rows, server
from fedjax_poisson.aggregation import refusals as r
from fedjax_poisson.aggregation.bodies import Include
from fedjax_poisson.aggregation.store import Store, memory_store, sqlite_store
from fedjax_poisson.aggregation.wire import prefixed, u64
from fedjax_poisson.randomness import fold_in, stream
from tests.aggregation import rounds
from tests.aggregation.rounds import World
from tests.aggregation.test_attacks import at, quorum
from tests.aggregation.test_attacks_members import ALL, include_quorum


class Killed(BaseException):
    """The process ends here."""


def mortal(inner: Store, deaths: list[tuple[str, str, str]]) -> Store:
    """A store that dies once before and once after each record is written or erased; `deaths` lists those that were."""

    def dying(kind, fn):
        def call(run, number, step, *blob):
            for when in ("before", "after"):
                if when == "after":
                    found = fn(run, number, step, *blob)
                if (kind, step, when) not in deaths:
                    deaths.append((kind, step, when))
                    raise Killed
            return found

        return call

    return Store(dying("put", inner.put), inner.get, inner.last, dying("erase", inner.erase))


def told_until_it_lives(world: World, k: int, blob: bytes, shares: bytes | None) -> bytes:
    """A notice again and again, with a restart and the shares after each death."""
    alive = True
    while True:
        try:
            if not alive:
                world.restart(k)
                alive = True
                if shares is not None and not world.states[k - 1].over:
                    world.say(k, "shares", shares)
            return world.tell(k, blob)
        except Killed:
            alive = False


def round_with_deaths(world: World) -> dict[str, set[bytes]]:
    """A round in which member 1 dies at every point; what it said, by label, is returned."""
    said: dict[str, set[bytes]] = {}
    world.begin()
    shares = None
    while world.server.phase != "opened":
        if world.server.phase == "contribution":
            world.phase()
            shares = messages.decode_notice(world.out[0].blob, 1 << 24, ["shares"]).body
            continue
        for one in world.out:
            if one.to != 1:
                world.hear(world.tell(one.to, one.blob))
                continue
            for _ in range(2):  # and asked twice
                reply = told_until_it_lives(world, 1, one.blob, shares if world.server.phase != "held" else None)
                said.setdefault(world.server.phase, set()).add(reply)
                world.hear(reply)
        world.server, world.out = server.advance(world.server)
    return said


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_26_a_member_that_is_killed_at_every_persist_point_says_the_same_bytes(kind, tmp_path):
    deaths: list[tuple[str, str, str]] = []
    inner = sqlite_store(tmp_path / "member.sqlite") if kind == "sqlite" else memory_store()
    world = World(stores=lambda k: mortal(inner, deaths) if k == 1 else memory_store())
    said = round_with_deaths(world)
    assert world.exact() and world.server.opened.wrong == () and 1 in world.include().members
    assert all(len(replies) == 1 for label, replies in said.items() if label != "held")
    points = {(kind_, step) for kind_, step, _ in deaths}
    steps = (
        "secrets",
        "round-key",
        "terms",
        "certify",
        "commit",
        "beacon-open",
        "seed",
        "projections",
        "fate",
        "include",
        "answer",
    )
    assert points == {("put", step) for step in steps} | {("erase", "secrets")}
    assert not inner.get(world.run, 1, "secrets"), "the keys of the round are erased, however often the process ends"


def test_26_twin_a_member_whose_record_is_lost_says_other_bytes():
    world, said = World(), set()
    for _ in range(2):
        world.members[0] = dataclasses.replace(world.members[0], store=memory_store())
        world.restart(1)
        said.add(world.say(1, "begin", world.run + u64(1)))
    assert len(said) == 2


CHILD = """
import os, pickle, signal, sys
from fedjax_poisson.aggregation import keys, member
from fedjax_poisson.aggregation.store import Store, sqlite_store
with open(sys.argv[1], "rb") as file:
    facts = pickle.load(file)
inner = sqlite_store(facts["path"])
def put(run, number, step, blob):
    found = inner.put(run, number, step, blob)
    if step == "answer":
        os.kill(os.getpid(), signal.SIGKILL)
    return found
one = member.Member(number=1, key=keys.Hidden(facts["key"]), pinned=facts["pinned"], roster=facts["roster"], run=facts["run"],
                    store=Store(put, inner.get, inner.last, inner.erase))
state = member.restore(one)
for blob in facts["blobs"]:
    state, reply = member.step(one, state, blob)
    sys.stdout.buffer.write(reply)
    sys.stdout.buffer.flush()
"""


def test_26_a_process_that_is_killed_after_its_answer_was_written(tmp_path):
    path = tmp_path / "member.sqlite"
    world = World(stores=lambda k: sqlite_store(path) if k == 1 else memory_store())
    world.begin()
    world.go("held")
    shares = world.out[0].blob
    world.go("answer")
    facts = {
        "path": path, "key": world.member_keys[0].value, "pinned": world.pinned, "roster": world.roster, "run": world.run,
        "blobs": [shares, world.out[0].blob],
    }  # fmt: skip
    (tmp_path / "facts").write_bytes(pickle.dumps(facts))
    world.members[0].store.close()  # one process at a time speaks for a member
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-c", CHILD, tmp_path / "facts"]
    child = subprocess.run(
        command, capture_output=True, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, check=False
    )
    assert child.returncode == -signal.SIGKILL, child.stderr[-2000:]
    assert rounds.reread(child.stdout).label == "held"  # and nothing of the answer left the process
    raw = sqlite3.connect(path).execute("SELECT bytes FROM taken WHERE step = 'answer'").fetchone()[0]
    world.members[0] = dataclasses.replace(world.members[0], store=sqlite_store(path))
    world.restart(1)
    assert not world.members[0].store.get(world.run, 1, "secrets")
    with pytest.raises(r.AlreadyDone):
        world.say(1, "included", include_quorum(world, world.include().clients[:-1]))
    assert world.tell(1, world.out[0].blob) == raw
    world.go()
    assert world.exact() and world.server.opened.wrong == ()


def test_26_a_client_that_is_killed_says_the_same_bytes_or_none():
    world = at("contribution")
    (invite,) = world.out
    deaths: list[tuple[str, str, str]] = []
    world.clients[0] = world.clients[0]._replace(store=mortal(world.clients[0].store, deaths))
    said = set()
    for _ in range(6):
        try:
            said.add(world.contribute(0, invite.blob))
        except (Killed, r.RoundUsed):
            pass
    assert len(said) <= 1 and deaths
    late: list[tuple[str, str, str]] = [
        ("put", "terms", "before"),
        ("put", "terms", "after"),
        ("put", "contribution", "before"),
    ]
    world.clients[1] = world.clients[1]._replace(store=mortal(world.clients[1].store, late))
    with pytest.raises(Killed):
        world.contribute(1, invite.blob)
    assert world.contribute(1, invite.blob) == world.contribute(1, invite.blob)


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
        found.append(client.read_contribution(rounds.reread(blob), world.params))
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


def test_33_what_is_erased_is_not_in_the_file(tmp_path):
    world = World(stores=lambda k: sqlite_store(tmp_path / f"{k}.sqlite"))
    world.begin()
    world.go("answer")
    secrets = [one.store.get(world.run, 1, "secrets") for one in world.members]
    assert all(s[:40] in (tmp_path / f"{k}.sqlite").read_bytes() for k, s in enumerate(secrets, 1))
    world.go()
    for path in tmp_path.iterdir():
        assert not any(s[at_ : at_ + 32] in path.read_bytes() for s in secrets for at_ in (0, 32, 64))


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


def test_a_dead_round_includes_nothing_whatever_is_restarted():
    steps = (
        "secrets",
        "round-key",
        "terms",
        "certify",
        "commit",
        "beacon-open",
        "seed",
        "projections",
        "fate",
        "include",
    )
    deaths = [("put", step, when) for step in steps for when in ("before", "after")] + [("put", "dead", "before")]
    world = World(stores=lambda k: mortal(memory_store(), deaths) if k == 1 else memory_store())
    world.begin()
    world.go("held")
    shares = messages.decode_notice(world.out[0].blob, 1 << 24, ["shares"]).body
    world.go("include")
    judged = world.out[0].blob
    with pytest.raises(Killed):  # between the record and the erasure of the keys
        world.say(1, "abandon", u64(1))
    deaths += [("erase", "secrets", "before"), ("erase", "secrets", "after")]
    world.states[0] = member.State()  # and a process that was started again without its state
    world.say(1, "begin", world.run + u64(1))
    with pytest.raises(r.OutOfOrder):
        world.say(1, "shares", shares)
    with pytest.raises(r.OutOfOrder):
        world.tell(1, judged)
    with pytest.raises(r.OutOfOrder):
        world.say(1, "included", include_quorum(world, world.server.committed))
    reply = world.say(1, "abandon", u64(1))
    assert rounds.reread(reply).label == "dead" and not world.members[0].store.get(world.run, 1, "secrets")


def test_shares_that_come_again_after_the_commit_change_nothing():
    world = at("commit")
    world.phase()
    held = dict(world.states[0].shares)
    late = bodies.read_handed(server.handed_to(world.server, 1, world.server.clients), world.server.draft)
    other = rounds.reread(rounds.seal(world, 4, rounds.parts(world, 4)))
    parts = client.read_contribution(other, world.params)
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


def test_one_signature_more_than_once_is_one():
    world = at("commit")
    body = bodies.commit_body(world.server.committed)
    three = messages.decode_quorum(quorum(world, "commit", body, (1, 2, 3)))
    with pytest.raises(r.NoQuorum):
        messages.check_quorum(
            three._replace(signatures=three.signatures * 2), "commit", world.digest, world.pinned.members, 4
        )
    with pytest.raises(r.DuplicateClient):
        messages.decode_quorum(messages.encode_quorum(three._replace(signatures=tuple(sorted(three.signatures * 2)))))
    stranger = keys.new_signing_key()
    extra = (keys.public_of(stranger), keys.sign(stranger, "commit", world.digest, body))
    with pytest.raises(r.NoQuorum):
        messages.check_quorum(
            three._replace(signatures=(*three.signatures, extra)), "commit", world.digest, world.pinned.members, 4
        )
