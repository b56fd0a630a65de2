"""Flower as a carrier: the coordinator's end. Needs nothing of Flower itself.

    coordinator ── Unix socket ── ServerApp (relay) ── SuperLink ══ TLS ══ SuperNode ── ClientApp ── Unix socket ── the site's worker

The coordinator listens; the ServerApp of `deployment/flowerapp` calls, says which nodes there are, takes what is to be asked and brings what was replied
(`relay_messages`, `flower_relay`). Which node is which site is what the nodes say: contents are signed, so a node that takes another site's name reads and
forges nothing, and only makes that site unreached.
"""

from __future__ import annotations

import collections
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fedjax_poisson.deployment.transport.frames import MOST_BYTES
from fedjax_poisson.deployment.transport.link import Asked, Link, Unreached, check_asked, check_site_names, gather
from fedjax_poisson.deployment.transport.relay_messages import Errand, Orders, read_call, write_orders
from fedjax_poisson.deployment.transport.sockets import serve

__all__ = ["APP", "PART_BYTES", "PATIENCE", "flower_link"]

APP = Path(__file__).parent.parent / "flowerapp"  # what `flwr run` is given
PART_BYTES = (
    32 << 20
)  # for `in_parts` over this link: a message starts a process at the site, which takes seconds, so few and large ones
PATIENCE = 120.0  # seconds, likewise: a message that is on its way for half a minute is not lost on a busy machine
_MOST_ORDERS = MOST_BYTES // 2  # bytes in one answer to the relay
_SETTLE = 30.0  # seconds that a site may be missing from the nodes before it counts as unreached


def flower_link(socket: Path, sites: tuple[str, ...], *, settle: float = _SETTLE) -> Link:
    """A link to sites through a Flower run; it listens until it is closed.

    Args:
      socket: where the relay calls; the run's `socket` setting (`flwr run ... --run-config 'socket="PATH"'`).
      sites: their names, as the SuperNodes have them in `site` of their `--node-config`.
      settle: seconds, from the relay's first call or the last time that the site had a node, that an ask waits for its node.

    Raises:
      ValueError, SocketBusy, OSError: of `sockets.serve`, or a name that is none.
    """
    desk = _Desk(check_site_names(sites), settle)
    started: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def listen() -> None:
        try:
            serve(socket, desk.handle, desk.closed, ready=lambda: started.put(None))
        except BaseException as error:
            started.put(error)

    listener = threading.Thread(target=listen, name="flower link", daemon=True)
    listener.start()
    if (error := started.get()) is not None:
        raise error

    def asker(site: str, request: bytes) -> Callable[[float], bytes | Unreached]:
        return lambda seconds: desk.ask(site, request, seconds)

    def ask(asked: Asked, seconds: float) -> Iterator[tuple[str, bytes | Unreached]]:
        check_asked(sites, asked, desk.closed)
        return gather({site: asker(site, request) for site, request in asked.items()}, seconds)

    def close() -> None:
        desk.close()
        listener.join(5)

    return Link(sites, ask, close)


class _Desk:
    """What is to be carried, and who waits for it; every thread under one lock."""

    def __init__(self, sites: tuple[str, ...], settle: float) -> None:
        self.sites, self.settle, self.closed = sites, settle, threading.Event()
        self.change = threading.Condition()
        self.nodes: dict[str, tuple[int, ...]] = {}
        self.seen: dict[str, float] = {}  # when a site last had a node
        self.first_call: float | None = None
        self.keys = 0
        self.errands: collections.OrderedDict[int, tuple[Errand, float]] = collections.OrderedDict()
        self.waiting: dict[int, queue.SimpleQueue[bytes | Unreached]] = {}

    def ask(self, site: str, request: bytes, seconds: float) -> bytes | Unreached:
        until = time.monotonic() + seconds
        node = self._node(site, until)
        if isinstance(node, Unreached):
            return node
        reply: queue.SimpleQueue[bytes | Unreached] = queue.SimpleQueue()
        with self.change:
            self.keys += 1
            key = self.keys
            self.waiting[key] = reply
            self.errands[key] = Errand(key, node, max(until - time.monotonic(), 0.0), request), until
            self.change.notify_all()
        del request
        try:
            return reply.get(timeout=max(until - time.monotonic(), 0.0))
        except queue.Empty:
            return Unreached(f"no reply through Flower in {seconds:g} s")
        finally:
            with self.change:
                self.waiting.pop(key, None)
                self.errands.pop(key, None)

    def _node(self, site: str, until: float) -> int | Unreached:
        """The site's node, as soon as there is one."""
        with self.change:
            while True:
                found = self.nodes.get(site, ())
                if len(found) == 1:
                    return found[0]
                now = time.monotonic()
                if len(found) > 1:
                    numbers = ", ".join(map(str, found))
                    return Unreached(f"several SuperNodes say that they are this site: {numbers}; one of them is wrong")
                if self.first_call is not None:
                    patient = max(self.first_call, self.seen.get(site, 0.0)) + self.settle
                    if now >= min(patient, until):
                        return Unreached("no SuperNode that is connected says that it is this site")
                else:
                    patient = until
                    if now >= until:
                        return Unreached("no Flower run has called: start one with this coordinator's socket")
                self.change.wait(min(patient, until) - now)

    def handle(self, blob: bytes) -> bytes:
        """Answer the relay's call."""
        call = read_call(blob)
        now = time.monotonic()
        with self.change:
            self.nodes = {site: call.nodes.get(site, ()) for site in self.sites}
            self.seen.update({site: now for site, found in self.nodes.items() if found})
            if self.first_call is None:
                self.first_call = now
            self.change.notify_all()
            for key, reply in call.returns:
                if (waits := self.waiting.get(key)) is not None:  # else nobody waits any more
                    waits.put(reply if isinstance(reply, bytes) else Unreached(reply))
            until = now + min(max(call.wait, 0.0), 30.0)
            while not self.errands and not self.closed.is_set() and time.monotonic() < until:
                self.change.wait(until - time.monotonic())
            return write_orders(Orders(tuple(self._next()), self.closed.is_set()))

    def _next(self) -> Iterator[Errand]:
        size = 0
        while self.errands:
            key, (errand, until) = next(iter(self.errands.items()))
            if size and size + len(errand.request) > _MOST_ORDERS:
                return
            del self.errands[key]
            size += len(errand.request)
            yield errand._replace(seconds=max(until - time.monotonic(), 0.0))

    def close(self) -> None:
        """The next call is told that it is over; asks that wait get no reply."""
        self.closed.set()
        with self.change:
            self.change.notify_all()
            for waits in self.waiting.values():
                waits.put(Unreached("the link was closed"))
