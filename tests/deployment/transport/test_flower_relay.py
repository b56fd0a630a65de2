"""The relay inside a Flower run, with a Grid that is made up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedjax_poisson.deployment.transport import flower_relay
from fedjax_poisson.deployment.transport.flower import flower_link
from fedjax_poisson.deployment.transport.flower_relay import Carrier, Parcel, relay
from fedjax_poisson.deployment.transport.link import Unreached
from fedjax_poisson.deployment.transport.parts import in_parts
from fedjax_poisson.deployment.transport.parts_handler import parts_handler


class Grid:
    """Nodes that answer at once, or never (None)."""

    def __init__(self, names: dict[int, str], answer: Callable[[Parcel], bytes | str | None]) -> None:
        self.names, self.answer = names, answer
        self.ready: dict[str, bytes | str] = {}
        self.pushed: list[Parcel] = []
        self.refused = 0

    def push(self, parcels: list[Parcel]) -> list[str | None]:
        marks: list[str | None] = []
        for parcel in parcels:
            if self.refused:
                self.refused -= 1
                marks.append(None)
                continue
            self.pushed.append(parcel)
            mark = f"m{len(self.pushed)}"
            reply = self.names[parcel.node].encode() if parcel.kind == "name" else self.answer(parcel)
            if reply is not None:
                self.ready[mark] = reply
            marks.append(mark)
        return marks

    def pull(self, marks: list[str]) -> Iterator[tuple[str, bytes | str]]:
        for mark in marks:
            if mark in self.ready:
                yield mark, self.ready.pop(mark)

    def carrier(self) -> Carrier:
        return Carrier(lambda: list(self.names), self.push, self.pull)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower_relay, "_LOOK_FOR_NODES", 0.1)


def relaying(socket: Path, grid: Grid) -> threading.Thread:
    thread = threading.Thread(target=relay, args=(socket, grid.carrier()), kwargs={"pause": 0.01, "idle": 0.2})
    thread.start()
    return thread


def test_large_messages_cross_in_parts_and_it_ends_with_the_link(tmp_path: Path) -> None:
    handlers = {1: parts_handler(lambda request: request * 3), 2: parts_handler(lambda request: request[::-1])}
    grid = Grid({1: "ulm", 2: "bonn"}, lambda parcel: handlers[parcel.node](parcel.request))
    socket = tmp_path / "state" / "relay"
    link = in_parts(flower_link(socket, ("ulm", "bonn")), part_bytes=1000)
    thread = relaying(socket, grid)
    request = bytes(range(256)) * 20
    assert dict(link.ask({"ulm": request, "bonn": request}, 30)) == {"ulm": request * 3, "bonn": request[::-1]}
    assert [one.kind for one in grid.pushed].count("name") == 2  # each is asked once
    assert max(len(one.request) for one in grid.pushed) < 1150
    link.close()
    thread.join(10)
    assert not thread.is_alive()


def test_a_node_that_leaves_and_one_that_comes_late(tmp_path: Path) -> None:
    grid = Grid({1: "ulm"}, lambda parcel: b"from %d" % parcel.node)
    socket = tmp_path / "state" / "relay"
    link = flower_link(socket, ("ulm", "bonn"), settle=5)
    thread = relaying(socket, grid)
    assert dict(link.ask({"ulm": b""}, 10)) == {"ulm": b"from 1"}
    threading.Timer(0.5, lambda: grid.names.update({2: "bonn"})).start()
    assert dict(link.ask({"bonn": b""}, 10)) == {"bonn": b"from 2"}
    del grid.names[1]
    grid.names[3] = "ulm"  # it was started anew, under another number
    time.sleep(1.0)
    assert dict(link.ask({"ulm": b""}, 10)) == {"ulm": b"from 3"}
    link.close()
    thread.join(10)


def test_faults_of_one_node_are_its_own(tmp_path: Path) -> None:
    replies = {1: b"fine", 2: "it is ill", 3: None}
    grid = Grid({1: "ulm", 2: "bonn", 3: "kiel"}, lambda parcel: replies[parcel.node])
    socket = tmp_path / "state" / "relay"
    link = flower_link(socket, ("ulm", "bonn", "kiel"))
    thread = relaying(socket, grid)
    found = dict(link.ask({"ulm": b"", "bonn": b"", "kiel": b""}, 3))
    assert found["ulm"] == b"fine" and found["bonn"] == Unreached("it is ill")
    assert isinstance(found["kiel"], Unreached)
    grid.refused = 1
    ((_, reply),) = link.ask({"ulm": b""}, 10)
    assert reply == Unreached("Flower did not take the message")
    link.close()
    thread.join(10)


def test_without_its_coordinator_it_ends_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower_relay, "_CALL_AGAIN", 0.1)
    thread = relaying(tmp_path / "nobody", Grid({}, lambda _parcel: b""))
    thread.join(10)
    assert not thread.is_alive()
