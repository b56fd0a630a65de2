"""The relay inside a Flower run: it carries errands between the coordinator's socket and Flower's nodes, and reads none of them.

Written for a `Carrier`, three functions that `deployment/flowerapp/server_app.py` makes of Flower's Grid, so that it can be tried without Flower.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from fedjax_poisson.deployment.transport.link import Unreached
from fedjax_poisson.deployment.transport.relay_messages import Call, Errand, Return, read_orders, write_call
from fedjax_poisson.deployment.transport.sockets import ask_socket

__all__ = ["Carrier", "Parcel", "relay"]

_log = logging.getLogger(__name__)
_LOOK_FOR_NODES = 3.0  # seconds between two looks
_NAMING = 60.0  # seconds that a node has to say its name
_CALL_AGAIN = 60.0  # seconds without the coordinator before the relay ends


class Parcel(NamedTuple):
    """A message for a node.

    Attributes:
      node: its number.
      kind: "ask", or "name" for the site's name.
      request: the bytes.
      seconds: that there are for its reply.
    """

    node: int
    kind: str
    request: bytes
    seconds: float


class Carrier(NamedTuple):
    """Flower's Grid, as far as the relay needs it.

    Attributes:
      nodes: the numbers of those that are connected.
      push: sends parcels; a name for each, in their order, or None for one that could not be sent.
      pull: of parcels by these names, those that have a reply: the name, and the reply's bytes, or in words why there are none.
    """

    nodes: Callable[[], Iterable[int]]
    push: Callable[[list[Parcel]], list[str | None]]
    pull: Callable[[list[str]], Iterable[tuple[str, bytes | str]]]


class _Sent(NamedTuple):
    key: int | None  # None: a question for the node's name
    node: int
    until: float


def relay(socket: Path, carrier: Carrier, *, pause: float = 0.2, idle: float = 5.0) -> None:
    """Carry until the coordinator says that it is over, or is away for a minute.

    Args:
      socket: the coordinator's.
      carrier: of parcels.
      pause: seconds between two looks for replies.
      idle: seconds that a call waits at the coordinator when nothing is under way.
    """
    names: dict[int, str] = {}
    sent: dict[str, _Sent] = {}
    returns: list[Return] = []
    looked, heard = 0.0, time.monotonic()
    while True:
        now = time.monotonic()
        if now - looked >= _LOOK_FOR_NODES:
            looked = now
            here = set(carrier.nodes())
            names = {node: name for node, name in names.items() if node in here}
            asked = {one.node for one in sent.values() if one.key is None}
            strangers = sorted(here - set(names) - asked)
            sent.update(_push(carrier, [Errand(0, node, _NAMING, b"") for node in strangers], naming=True)[0])
        naming = any(one.key is None for one in sent.values())
        call = Call(
            _by_name(names), tuple(returns), 0.0 if sent and not naming else min(idle, pause if naming else idle)
        )
        answer = ask_socket(socket, write_call(call), idle + 30.0)
        if isinstance(answer, Unreached):
            if time.monotonic() - heard > _CALL_AGAIN:
                _log.error("the coordinator is away (%s); the relay ends", answer.reason)
                return
            time.sleep(1.0)
            continue
        heard, returns = time.monotonic(), []
        orders = read_orders(answer)
        if orders.over:
            return
        under_way, failed = _push(carrier, list(orders.errands), naming=False)
        sent.update(under_way)
        returns.extend(failed)
        if sent:
            time.sleep(0.0 if returns else pause)
            returns.extend(_collect(carrier, sent, names))


def _push(carrier: Carrier, errands: list[Errand], *, naming: bool) -> tuple[dict[str, _Sent], list[Return]]:
    if not errands:
        return {}, []
    kind, now = "name" if naming else "ask", time.monotonic()
    marks = carrier.push([Parcel(one.node, kind, one.request, one.seconds) for one in errands])
    under_way = {
        mark: _Sent(None if naming else errand.key, errand.node, now + errand.seconds)
        for mark, errand in zip(marks, errands, strict=True)
        if mark is not None
    }
    failed = [
        Return(errand.key, "Flower did not take the message")
        for mark, errand in zip(marks, errands, strict=True)
        if mark is None and not naming
    ]
    return under_way, failed


def _collect(carrier: Carrier, sent: dict[str, _Sent], names: dict[int, str]) -> list[Return]:
    """What has come; takes it out of `sent`, and out of it what nobody waits for any more."""
    returns = []
    for mark, reply in carrier.pull(list(sent)):
        if (one := sent.pop(mark, None)) is None:
            continue
        if one.key is not None:
            returns.append(Return(one.key, reply))
        elif isinstance(reply, bytes):
            names[one.node] = reply[:32].decode(errors="replace")
        else:
            _log.warning("node %d does not say its name: %s", one.node, reply)
    now = time.monotonic()
    for mark in [mark for mark, one in sent.items() if one.until < now]:
        del sent[mark]
    return returns


def _by_name(names: dict[int, str]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for node in sorted(names):
        found[names[node]] = (*found.get(names[node], ()), node)
    return found
