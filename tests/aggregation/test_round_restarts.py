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

import pytest

from fedjax_poisson.aggregation import member, messages, server
from fedjax_poisson.aggregation import refusals as r
from fedjax_poisson.aggregation.store import Store, memory_store, sqlite_store
from fedjax_poisson.aggregation.wire import u64
from tests.aggregation import rounds
from tests.aggregation.rounds import World
from tests.aggregation.test_attacks import at
from tests.aggregation.test_attacks_members import include_quorum

RECORDED = (
    *("secrets", "round-key", "terms", "certify", "commit", "beacon-open", "seed", "projections", "fate"),
    *("include", "answer"),
)
"""What a member writes down in a round that is opened, in order."""


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
    assert points == {("put", step) for step in RECORDED} | {("erase", "secrets")}
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


def test_a_dead_round_includes_nothing_whatever_is_restarted():
    deaths = [("put", step, when) for step in RECORDED[:-1] for when in ("before", "after")] + [
        ("put", "dead", "before")
    ]
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
