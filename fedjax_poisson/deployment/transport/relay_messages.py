"""What the relay inside a Flower run and the coordinator say to each other, over the coordinator's Unix socket.

The relay calls (`Call`): which nodes there are, what was replied. The coordinator answers (`Orders`): what is to be asked next. One message is
`u32 length, JSON, blobs one after another`; the JSON says how long each blob is.
"""

from __future__ import annotations

import json
import struct
from typing import Any, NamedTuple

__all__ = ["Call", "Errand", "Orders", "Return", "read_call", "read_orders", "write_call", "write_orders"]


class Errand(NamedTuple):
    """A message that is to be carried to a node.

    Attributes:
      key: names it among all errands.
      node: the node's number.
      seconds: after which nobody waits for its reply.
      request: the bytes.
    """

    key: int
    node: int
    seconds: float
    request: bytes


class Return(NamedTuple):
    """What came of an errand: the reply, or in words why there is none."""

    key: int
    reply: bytes | str


class Call(NamedTuple):
    """From the relay.

    Attributes:
      nodes: by each site's name, the nodes that say they are it.
      returns: since the last call.
      wait: seconds that the answer may take if there is nothing to carry.
    """

    nodes: dict[str, tuple[int, ...]]
    returns: tuple[Return, ...]
    wait: float


class Orders(NamedTuple):
    """From the coordinator.

    Attributes:
      errands: to carry now.
      over: the relay may end.
    """

    errands: tuple[Errand, ...]
    over: bool


def write_call(call: Call) -> bytes:
    """The bytes of a call."""
    returns = [
        {"key": one.key, "bytes": len(one.reply)}
        if isinstance(one.reply, bytes)
        else {"key": one.key, "why": one.reply[:300]}
        for one in call.returns
    ]
    blobs = [one.reply for one in call.returns if isinstance(one.reply, bytes)]
    return _write({"nodes": call.nodes, "returns": returns, "wait": call.wait}, blobs)


def read_call(blob: bytes) -> Call:
    """The call in these bytes.

    Raises:
      ValueError: they are none.
    """
    head, rest = _read(blob)
    try:
        returns = tuple(
            Return(int(one["key"]), rest.take(int(one["bytes"])) if "bytes" in one else str(one["why"]))
            for one in head["returns"]
        )
        nodes = {str(name): tuple(int(node) for node in found) for name, found in head["nodes"].items()}
        return Call(nodes, returns, float(head["wait"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no call of a relay: {error!r} is missing or of another kind") from None


def write_orders(orders: Orders) -> bytes:
    """The bytes of orders."""
    errands = [
        {"key": one.key, "node": one.node, "seconds": one.seconds, "bytes": len(one.request)} for one in orders.errands
    ]
    return _write({"errands": errands, "over": orders.over}, [one.request for one in orders.errands])


def read_orders(blob: bytes) -> Orders:
    """The orders in these bytes.

    Raises:
      ValueError: they are none.
    """
    head, rest = _read(blob)
    try:
        errands = tuple(
            Errand(int(one["key"]), int(one["node"]), float(one["seconds"]), rest.take(int(one["bytes"])))
            for one in head["errands"]
        )
        return Orders(errands, bool(head["over"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no orders of a coordinator: {error!r} is missing or of another kind") from None


class _Rest:
    """The blobs behind a head, taken one after another."""

    def __init__(self, blob: bytes, start: int) -> None:
        self.view, self.place = memoryview(blob), start

    def take(self, length: int) -> bytes:
        if not 0 <= length <= len(self.view) - self.place:
            raise ValueError(f"a blob of {length} bytes is announced, {len(self.view) - self.place} are there")
        self.place += length
        return bytes(self.view[self.place - length : self.place])


def _write(head: dict[str, Any], blobs: list[bytes]) -> bytes:
    text = json.dumps(head).encode()
    return b"".join((struct.pack("<I", len(text)), text, *blobs))


def _read(blob: bytes) -> tuple[dict[str, Any], _Rest]:
    if len(blob) < 4 or len(blob) < (end := 4 + struct.unpack_from("<I", blob)[0]):
        raise ValueError("the message is cut short")
    head = json.loads(blob[4:end])
    if not isinstance(head, dict):
        raise ValueError("the message has no head")
    return head, _Rest(blob, end)
