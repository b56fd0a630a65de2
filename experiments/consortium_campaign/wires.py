"""What a network may do to one request and its reply. Nothing here knows keys: whoever alters, keeps and plays back has only what passed by."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from consortium_campaign.light_site import name_of
from fedjax_poisson.aggregation.refusals import RoundRefused
from fedjax_poisson.deployment.requests import decode
from fedjax_poisson.deployment.transport.link import Asked, Handler, Link, Unreached, gather

__all__ = ["KINDS", "Wire", "hostile_link"]

CUT = Unreached("the connection was cut")


class Wire(NamedTuple):
    """One request on its way.

    Attributes:
      blob: the request.
      seconds: that it has.
      handler: of the site.
      past: requests that this site was sent in this run, oldest first.
      foreign: requests that it was sent in another run.
      others: handlers of other sites.
      rng: by chance.
    """

    blob: bytes
    seconds: float
    handler: Handler
    past: list[bytes]
    foreign: list[bytes]
    others: list[Handler]
    rng: random.Random


def _flipped(blob: bytes, rng: random.Random) -> bytes:
    raw = bytearray(blob)
    for _ in range(rng.choice((1, 1, 4))):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return bytes(raw)


def _cut_off(blob: bytes, rng: random.Random) -> bytes:
    return blob[: rng.randrange(len(blob))]


def _delivered(wire: Wire, blobs: list[bytes]) -> None:
    """Requests whose replies nobody reads; what a handler raises stays with its site."""
    for blob in blobs:
        try:
            wire.handler(blob)
        except Exception:
            continue


def _slow(wire: Wire) -> bytes:
    reply = wire.handler(wire.blob)
    time.sleep(wire.seconds + 0.2)
    return reply


def _late(wire: Wire) -> Unreached:
    threading.Timer(wire.rng.uniform(0.05, 1.5) * wire.seconds, _delivered, (wire, [wire.blob])).start()
    return CUT


def _doubled(wire: Wire) -> bytes:
    found: list[bytes] = []
    other = threading.Thread(target=lambda: found.append(wire.handler(wire.blob)))
    other.start()
    reply = wire.handler(wire.blob)
    other.join(wire.seconds)
    return found[0] if found and wire.rng.random() < 0.5 else reply


def _and_later(wire: Wire) -> bytes:
    reply = wire.handler(wire.blob)
    threading.Timer(wire.rng.uniform(0.01, 2.0) * wire.seconds, _delivered, (wire, [wire.blob])).start()
    return reply


def _after(wire: Wire, blobs: list[bytes]) -> bytes:
    chosen = wire.rng.sample(blobs, min(len(blobs), 12))
    _delivered(wire, chosen)
    return wire.handler(wire.blob)


def _instead(wire: Wire, blobs: list[bytes]) -> bytes:
    return wire.handler(wire.rng.choice(blobs)) if blobs else wire.handler(wire.blob)


def _lost_reply(wire: Wire) -> Unreached:
    wire.handler(wire.blob)
    return CUT


KINDS: Mapping[str, Callable[[Wire], bytes | Unreached]] = {
    "request lost": lambda wire: CUT,
    "reply lost": _lost_reply,
    "reply too slow": _slow,
    "request late": _late,
    "doubled": _doubled,
    "doubled later": _and_later,
    "old ones replayed": lambda wire: _after(wire, wire.past),
    "an old one instead": lambda wire: _instead(wire, wire.past),
    "another run's replayed": lambda wire: _after(wire, wire.foreign),
    "another run's instead": lambda wire: _instead(wire, wire.foreign),
    "request altered": lambda wire: wire.handler(_flipped(wire.blob, wire.rng)),
    "request cut off": lambda wire: wire.handler(_cut_off(wire.blob, wire.rng)),
    "reply altered": lambda wire: _flipped(wire.handler(wire.blob), wire.rng),
    "reply cut off": lambda wire: _cut_off(wire.handler(wire.blob), wire.rng),
    "another site's reply": lambda wire: wire.rng.choice(wire.others)(wire.blob),
}
"""Kinds of faults of one message."""


def hostile_link(
    handlers: Mapping[str, Handler],
    fault: Callable[[str, str], Callable[[Wire], bytes | Unreached] | None],
    before: Callable[[str], None],
    past: dict[str, list[bytes]],
    foreign: Mapping[str, list[bytes]],
    rng: random.Random,
) -> Link:
    """A link in one process with one bad moment.

    Args:
      handlers: by site.
      fault: `(site, request)` -> what happens to this one; None for nothing.
      before: told each request that is about to be sent to all; may raise to end the asker's process.
      past: gets every request, by site.
      foreign: requests of another run, by site.
      rng: by chance.
    """

    def ask(asked: Asked, seconds: float) -> Iterator[tuple[str, bytes | Unreached]]:
        words = {site: _word(blob) for site, blob in asked.items()}
        for word in sorted(set(words.values())):
            before(f"ask {word}")

        def asker(site: str, blob: bytes) -> Callable[[float], bytes | Unreached]:
            def call(left: float) -> bytes | Unreached:
                bad = fault(site, words[site])
                earlier = list(past[site])
                past[site].append(blob)
                if bad is None:
                    return handlers[site](blob)
                others = [handler for name, handler in handlers.items() if name != site]
                return bad(Wire(blob, left, handlers[site], earlier, list(foreign.get(site, [])), others, rng))

            return call

        yield from gather({site: asker(site, blob) for site, blob in asked.items()}, seconds)
        for word in sorted(set(words.values())):
            before(f"heard {word}")

    return Link(tuple(handlers), ask, lambda: None)


def _word(blob: bytes) -> str:
    try:
        return name_of(decode(blob))
    except RoundRefused:
        return "?"
