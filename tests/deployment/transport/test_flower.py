"""The coordinator's end of a Flower run, with a relay that is called by hand."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from fedjax_poisson.deployment.transport.flower import APP, flower_link
from fedjax_poisson.deployment.transport.link import Unreached
from fedjax_poisson.deployment.transport.relay_messages import Call, Orders, Return, read_orders, write_call
from fedjax_poisson.deployment.transport.sockets import SocketBusy, ask_socket


def call(socket: Path, nodes: dict[str, tuple[int, ...]], *returns: Return, wait: float = 5.0) -> Orders:
    reply = ask_socket(socket, write_call(Call(nodes, returns, wait)), 20)
    assert isinstance(reply, bytes), reply
    return read_orders(reply)


def asking(
    link: object, asked: dict[str, bytes], seconds: float
) -> tuple[dict[str, bytes | Unreached], threading.Thread]:
    replies: dict[str, bytes | Unreached] = {}
    thread = threading.Thread(target=lambda: replies.update(link.ask(asked, seconds)))  # type: ignore[attr-defined]
    thread.start()
    return replies, thread


def test_an_ask_goes_to_the_node_that_has_the_name_and_its_reply_comes_back(tmp_path: Path) -> None:
    socket = tmp_path / "state" / "relay"
    link = flower_link(socket, ("ulm", "bonn"))
    replies, thread = asking(link, {"ulm": b"one", "bonn": b"two"}, 20)
    orders = call(socket, {"ulm": (11,), "bonn": (12,), "nobody": (13,)})
    while len(orders.errands) < 2:
        orders = Orders((*orders.errands, *call(socket, {"ulm": (11,), "bonn": (12,)}).errands), False)
    assert {one.node: one.request for one in orders.errands} == {11: b"one", 12: b"two"}
    by_node = {one.node: one.key for one in orders.errands}
    nodes = {"ulm": (11,), "bonn": (12,)}
    call(socket, nodes, Return(by_node[12], "it has a cold"), Return(999, b"of nobody"), wait=0)
    call(socket, nodes, Return(by_node[11], b"reply"), wait=0)
    thread.join(20)
    assert replies == {"ulm": b"reply", "bonn": Unreached("it has a cold")}
    link.close()


def test_names_that_nobody_or_several_claim_make_that_site_unreached(tmp_path: Path) -> None:
    socket = tmp_path / "state" / "relay"
    link = flower_link(socket, ("ulm", "bonn", "kiel"), settle=0.3)
    replies, thread = asking(link, {"ulm": b"1", "bonn": b"2", "kiel": b"3"}, 10)
    nodes = {"ulm": (1, 2), "kiel": (3,)}
    orders = call(socket, nodes)
    assert [one.request for one in orders.errands] == [b"3"]
    call(socket, nodes, Return(orders.errands[0].key, b"here"), wait=0)
    thread.join(9)
    assert replies["kiel"] == b"here"
    assert "several SuperNodes say that they are this site: 1, 2" in replies["ulm"].reason  # type: ignore[union-attr]
    assert "no SuperNode that is connected" in replies["bonn"].reason  # type: ignore[union-attr]
    link.close()


def test_without_a_run_and_without_a_reply_the_time_ends_it(tmp_path: Path) -> None:
    socket = tmp_path / "state" / "relay"
    link = flower_link(socket, ("ulm",))
    started = time.monotonic()
    ((_, reply),) = link.ask({"ulm": b"1"}, 0.5)
    assert isinstance(reply, Unreached) and time.monotonic() - started < 5
    call(socket, {"ulm": (1,)}, wait=0)
    ((_, reply),) = link.ask({"ulm": b"2"}, 0.5)
    assert isinstance(reply, Unreached)
    time.sleep(0.3)
    assert call(socket, {"ulm": (1,)}, wait=0).errands == ()  # nobody waits for it, so it is not carried
    link.close()


def test_closing_tells_the_relay_and_those_who_wait(tmp_path: Path) -> None:
    socket = tmp_path / "state" / "relay"
    link = flower_link(socket, ("ulm",))
    call(socket, {"ulm": (1,)}, wait=0)
    replies, thread = asking(link, {"ulm": b"1"}, 20)
    assert len(call(socket, {"ulm": (1,)}).errands) == 1
    told: list[Orders] = []
    relay = threading.Thread(target=lambda: told.append(call(socket, {"ulm": (1,)}, wait=20)))
    relay.start()
    time.sleep(0.3)
    link.close()
    for one in (relay, thread):
        one.join(10)
    assert told == [Orders((), True)] and replies == {"ulm": Unreached("the link was closed")}
    with pytest.raises(ValueError, match="closed"):
        link.ask({"ulm": b"2"}, 1)


def test_a_socket_in_use_is_said_at_once(tmp_path: Path) -> None:
    link = flower_link(tmp_path / "state" / "relay", ("ulm",))
    with pytest.raises(SocketBusy):
        flower_link(tmp_path / "state" / "relay", ("ulm",))
    link.close()


def test_the_bundle_is_there_and_only_it_imports_flower() -> None:
    assert (APP / "pyproject.toml").is_file()
    package = APP.parent.parent
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(line.lstrip().startswith(("import flwr", "from flwr")) for line in path.read_text().splitlines())
    }
    assert users - {"benchmarks/aggregation.py"} == {  # that one measures Flower's own secure sum beside this one
        "deployment/flowerapp/client_app.py",
        "deployment/flowerapp/server_app.py",
    }
