"""Large requests and replies in parts, over carriers that lose, double and mix up messages, and bear only small ones.

    coordinator:  link = in_parts(socket_link(paths))
    site:         serve(path, parts_handler(handle), stop)

A request travels part by part, all sites at once; the site says how much it has, so a part that is lost or comes twice changes nothing. When the request is
whole, the handler is called once, however often the last part comes; while it works the site says so, and no single message has to wait long. A reply of
several parts is taken one site after another, when its reader asks for it: the coordinator holds one reply that it reads and one that arrives, whatever the
number of sites.
"""

from __future__ import annotations

import hashlib
import io
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from fedjax_poisson.deployment.transport.link import Asked, Link, Unreached, check_asked, gather
from fedjax_poisson.deployment.transport.part_messages import (
    Answer,
    Question,
    Said,
    Unreadable,
    Wanted,
    read_answer,
    write,
)

__all__ = ["MOST_WHOLE", "PART_BYTES", "in_parts"]

PART_BYTES = 1 << 20
MOST_WHOLE = 1 << 30  # of one request or reply
_TRIES = 6  # of one message without any progress, before the site counts as unreached
_BEGINNINGS = 3  # of one request, or one reply, that does not arrive as it was sent
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0


def in_parts(
    link: Link,
    *,
    part_bytes: int = PART_BYTES,
    patience: float = 60.0,
    most_bytes: int = MOST_WHOLE,
) -> Link:
    """A link whose requests and replies may be large, over one whose messages may not.

    Every site must answer with `parts_handler.parts_handler`. A reply of several parts gets, from the moment its turn comes, an equal share of the time that
    is left among the sites that have not had theirs: a slow one takes nothing from the others.

    Args:
      link: carries messages of up to `part_bytes` and some 150 bytes more.
      part_bytes: of a request or reply in one message.
      patience: seconds for one message and its answer; then it counts as lost and is sent again. More than the `hold` of the sites' handlers.
      most_bytes: of a whole reply.

    Raises:
      ValueError: `part_bytes` or `patience` are not positive.
    """
    if part_bytes < 1 or patience <= 0:
        raise ValueError(
            f"part_bytes = {part_bytes}, patience = {patience:g}: both must be positive; leave them out for the defaults."
        )
    closed = threading.Event()

    def ask(asked: Asked, seconds: float) -> Iterator[tuple[str, bytes | Unreached]]:
        check_asked(link.sites, asked, closed)
        until = time.monotonic() + seconds
        asks = {
            site: _Ask(link, site, request, secrets.token_bytes(16), part_bytes, patience, most_bytes)
            for site, request in asked.items()
        }
        heads = gather({site: _deliverer(one, until) for site, one in asks.items()}, seconds)
        return _replies(heads, asks, until)

    def close() -> None:
        closed.set()
        link.close()

    return Link(link.sites, ask, close)


class _Ask(NamedTuple):
    """One request to one site."""

    link: Link
    site: str
    request: bytes
    name: bytes
    part_bytes: int
    patience: float
    most_bytes: int


class _Broken(Exception):
    """This site gives no reply any more; the message says why."""


class _Restarted(Exception):
    """The site has nothing of this ask."""


def _deliverer(ask: _Ask, until: float) -> Callable[[float], Answer | Unreached]:
    def deliver(_seconds: float) -> Answer | Unreached:
        try:
            return _deliver(ask, until)
        except _Broken as broken:
            return Unreached(str(broken))

    return deliver


def _replies(
    heads: Iterator[tuple[str, Answer | Unreached]], asks: dict[str, _Ask], until: float
) -> Iterator[tuple[str, bytes | Unreached]]:
    for site, head in heads:
        ask = asks.pop(site)
        if isinstance(head, Unreached):
            yield site, head
        else:
            now = time.monotonic()
            yield site, _whole_or_not(ask, head, now + max(until - now, 0.0) / (len(asks) + 1))


def _whole_or_not(ask: _Ask, head: Answer, until: float) -> bytes | Unreached:
    try:
        return _take(ask, head, until)
    except _Broken as broken:
        return Unreached(str(broken))


def _deliver(ask: _Ask, until: float) -> Answer:
    """The request, part by part, until the site has the reply: its answer with the reply's first part.

    Raises:
      _Broken: it will not come.
    """
    digest = hashlib.sha256(ask.request).digest()
    size, offset, furthest, beginnings = len(ask.request), 0, 0, 1
    tries = _Tries(ask.site)
    while True:
        part = ask.request[offset : offset + ask.part_bytes]
        question = Question(Wanted.SEND, ask.name, digest, size, offset, ask.part_bytes, part)
        answer = _answer(ask, question, until, tries)
        if answer.said is Said.REPLY:
            return answer
        if answer.said is Said.FAILED:
            raise _Broken(answer.data[:300].decode(errors="replace"))
        if answer.said is Said.WORKING:
            offset, tries.failed = size, 0
        elif answer.said is Said.HAVE and answer.size <= size:
            offset = answer.size
            if offset > furthest:
                furthest, tries.failed = offset, 0
                continue
            tries.again("the request does not arrive as it was sent", until)
            if offset == 0 and furthest:  # the site was started anew, or a part was altered
                furthest, beginnings = 0, beginnings + 1
                if beginnings > _BEGINNINGS:
                    raise _Broken("the request does not arrive as it was sent")
        else:
            tries.again("it is busy" if answer.said is Said.BUSY else "its answers make no sense", until)


def _take(ask: _Ask, head: Answer, until: float) -> bytes:
    """The whole reply.

    Raises:
      _Broken: it will not come.
    """
    tries = _Tries(ask.site)
    for _ in range(_BEGINNINGS):
        if head.size > ask.most_bytes:
            raise _Broken(f"its reply has {head.size} bytes, and {ask.most_bytes} are allowed")
        try:
            if (whole := _parts(ask, head, until, tries)) is not None:
                return whole
        except _Restarted:
            pass
        tries.again("its reply is not what it announced", until)
        head = _deliver(ask, until)
    raise _Broken("its reply is not what it announced")


def _parts(ask: _Ask, head: Answer, until: float, tries: _Tries) -> bytes | None:
    """The reply of this size and digest; None if its parts make another one."""
    whole, digest = io.BytesIO(head.data), hashlib.sha256(head.data)  # its value is later taken without a copy
    whole.seek(0, io.SEEK_END)
    while whole.tell() < head.size:
        most = min(ask.part_bytes, head.size - whole.tell())
        answer = _answer(ask, Question(Wanted.TAKE, ask.name, bytes(32), 0, whole.tell(), most), until, tries)
        if answer.said is Said.GONE:
            raise _Restarted
        if answer.said is not Said.REPLY or not 0 < len(answer.data) <= most:
            tries.again("its answers make no sense", until)
            continue
        if (answer.size, answer.digest) != (head.size, head.digest):
            return None
        tries.failed = 0
        whole.write(answer.data)
        digest.update(answer.data)
    return whole.getvalue() if (whole.tell(), digest.digest()) == (head.size, head.digest) else None


class _Tries:
    """Failures in a row of one site; a little state that its loop sets back on progress."""

    def __init__(self, site: str) -> None:
        self.site, self.failed = site, 0

    def again(self, why: str, until: float) -> None:
        """Wait a little before the next try.

        Raises:
          _Broken: enough was tried.
        """
        self.failed += 1
        pause = min(_FIRST_PAUSE * 2**self.failed, _LONGEST_PAUSE)
        if self.failed >= _TRIES or time.monotonic() + pause >= until:
            raise _Broken(f"{why} (tried {self.failed} times)" if self.failed > 1 else why)
        time.sleep(pause)


def _answer(ask: _Ask, question: Question, until: float, tries: _Tries) -> Answer:
    """The site's answer to a question, asked again while none comes.

    Raises:
      _Broken: none comes.
    """
    blob = write(question)
    while True:
        seconds = min(ask.patience, until - time.monotonic())
        if seconds <= 0:
            raise _Broken("its time was over before its reply was whole")
        reply = dict(ask.link.ask({ask.site: blob}, seconds)).get(ask.site, Unreached("no reply"))
        if isinstance(reply, Unreached):
            tries.again(reply.reason, until)
            continue
        try:
            answer = read_answer(reply, blob)
        except Unreadable as error:
            tries.again(f"its answer is of no use: {error}", until)
            continue
        if answer.said is Said.UNREADABLE:
            tries.again("the question does not arrive as it was sent", until)
            continue
        return answer
