"""A site's end of requests and replies in parts: what it holds of each ask, and when the handler is called."""

from __future__ import annotations

import hashlib
import io
import threading

from fedjax_poisson.deployment.transport.link import Handler, failure_words
from fedjax_poisson.deployment.transport.part_messages import (
    Answer,
    Question,
    Said,
    Unreadable,
    Wanted,
    read_question,
    write,
)
from fedjax_poisson.deployment.transport.parts import MOST_WHOLE

__all__ = ["parts_handler"]


class _Held:
    """What a site holds of one ask; `lock` guards it."""

    def __init__(self, size: int, digest: bytes) -> None:
        self.size, self.digest = size, digest
        self.received = io.BytesIO()
        self.lock = threading.Lock()
        self.started = self.taken = False
        self.done = threading.Event()
        self.reply, self.reply_digest, self.failure = b"", bytes(32), ""


def parts_handler(handler: Handler, *, most_bytes: int = MOST_WHOLE, hold: float = 20.0, asks: int = 4) -> Handler:
    """A site's handler behind `in_parts`.

    The handler is called once for each ask, in a thread of its own. Its reply is kept until it was taken and the next ask begins; an ask that comes again
    after that, or after a restart, calls the handler again, which has to give the same bytes or refuse.

    Args:
      handler: of whole requests. What it raises goes to this process's log, and its class to the asker.
      most_bytes: of a whole request.
      hold: seconds that an answer waits for the handler before it says that the site is working.
      asks: that are held at once, requests on their way in and replies on their way out together; a new one takes the place of the oldest at which nothing is
        at work.
    """
    table: dict[bytes, _Held] = {}
    table_lock = threading.Lock()

    def find(question: Question) -> _Held | None:
        with table_lock:
            if (held := table.get(question.ask)) is not None:
                return held if (held.size, held.digest) == (question.size, question.digest) else None
            for name in [name for name, one in table.items() if one.taken]:
                del table[name]
            if len(table) >= asks:
                idle = [name for name, one in table.items() if one.done.is_set() or not one.started]
                if not idle:
                    return None
                del table[idle[0]]
            return table.setdefault(question.ask, _Held(question.size, question.digest))

    def work(held: _Held, request: bytes) -> None:
        try:
            held.reply = handler(request)
            held.reply_digest = hashlib.sha256(held.reply).digest()
        except Exception as error:
            held.failure = failure_words(error)
        finally:
            held.done.set()

    def send(question: Question) -> Answer:
        name = b""
        if question.size > most_bytes:
            words = f"the request has {question.size} bytes, and the site allows {most_bytes}"
            return Answer(Said.FAILED, name, data=words.encode())
        if (held := find(question)) is None:
            return Answer(Said.BUSY, name)
        with held.lock:
            if not held.started and not _received(held, question):
                return Answer(Said.HAVE, name, size=held.received.tell())
            if not held.started:
                held.started = True
                request, held.received = held.received.getvalue(), io.BytesIO()
                threading.Thread(target=work, args=(held, request), daemon=True).start()
                del request
        if not held.done.wait(hold):
            return Answer(Said.WORKING, name)
        if held.failure:
            return Answer(Said.FAILED, name, data=held.failure.encode())
        return _part_of(held, 0, question.most)

    def take(question: Question) -> Answer:
        with table_lock:
            held = table.get(question.ask)
        if held is None or not held.done.is_set() or held.failure:
            return Answer(Said.GONE, b"")
        return _part_of(held, question.offset, question.most)

    def handle(blob: bytes) -> bytes:
        try:
            question = read_question(blob)
        except Unreadable:
            return write(Answer(Said.UNREADABLE, blob[-32:].rjust(32, b"\0")))
        answer = send(question) if question.wanted is Wanted.SEND else take(question)
        return write(answer._replace(question=blob[-32:]))

    return handle


def _received(held: _Held, question: Question) -> bool:
    """Add a part; whether the request is whole. A request whose hash is wrong begins anew."""
    have = held.received.tell()
    if question.offset <= have < question.offset + len(question.data):
        held.received.write(memoryview(question.data)[have - question.offset :][: held.size - have])
    if held.received.tell() < held.size:
        return False
    if hashlib.sha256(held.received.getbuffer()).digest() != held.digest:
        held.received = io.BytesIO()
        return False
    return True


def _part_of(held: _Held, offset: int, most: int) -> Answer:
    if offset + most >= len(held.reply):
        held.taken = True
    return Answer(Said.REPLY, b"", held.reply_digest, len(held.reply), held.reply[offset : offset + most])
