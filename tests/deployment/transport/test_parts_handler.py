"""A site's end of parts, by itself: what it holds, for whom, and what it forgets."""

from __future__ import annotations

import hashlib
import os
import threading

from fedjax_poisson.deployment.transport.part_messages import Answer, Question, Said, Wanted, read_answer, write
from fedjax_poisson.deployment.transport.parts_handler import parts_handler


def asked(handle: object, question: Question) -> Answer:
    blob = write(question)
    return read_answer(handle(blob), blob)  # type: ignore[operator]


def sending(request: bytes, ask: bytes, offset: int = 0, size: int = 10, most: int = 100) -> Question:
    return Question(
        Wanted.SEND, ask, hashlib.sha256(request).digest(), len(request), offset, most, request[offset : offset + size]
    )


def test_it_says_how_much_it_has_and_overlaps_and_gaps_change_nothing() -> None:
    request, ask = os.urandom(30), os.urandom(16)
    handle = parts_handler(lambda whole: whole[::-1])
    assert asked(handle, sending(request, ask, 20)).size == 0  # a gap
    assert asked(handle, sending(request, ask, 0)).size == 10
    assert asked(handle, sending(request, ask, 0)).size == 10  # once more
    assert asked(handle, sending(request, ask, 5)).size == 15  # overlaps
    assert asked(handle, sending(request, ask, 15, 15)).data == request[::-1]


def test_a_request_unlike_its_hash_never_reaches_the_handler() -> None:
    request, ask = os.urandom(20), os.urandom(16)
    calls: list[bytes] = []

    def handler(whole: bytes) -> bytes:
        calls.append(whole)
        return b""

    handle = parts_handler(handler)
    assert asked(handle, sending(request, ask)._replace(data=bytes(10))).size == 10
    answer = asked(handle, sending(request, ask, 10))
    assert answer.said is Said.HAVE and answer.size == 0 and calls == []
    asked(handle, sending(request, ask))
    assert asked(handle, sending(request, ask, 10)).said is Said.REPLY and calls == [request]


def test_a_taken_reply_is_forgotten_when_the_next_ask_begins_and_one_that_was_not_is_kept() -> None:
    handle = parts_handler(lambda whole: whole * 3)
    first, second, third = (os.urandom(16) for _ in range(3))
    taking = Question(Wanted.TAKE, first, bytes(32), 0, 10, 20)
    assert asked(handle, sending(b"0123456789", first, most=10)).size == 30
    asked(handle, sending(b"other", second))
    assert asked(handle, taking).data == b"0123456789" * 2  # its last part
    assert asked(handle, taking).said is Said.REPLY  # once more, in case it was lost
    asked(handle, sending(b"third", third))
    assert asked(handle, taking).said is Said.GONE


def test_when_all_asks_are_at_work_another_one_waits() -> None:
    go = threading.Event()

    def handler(whole: bytes) -> bytes:
        go.wait(20)
        return whole

    handle = parts_handler(handler, asks=2, hold=0.05)
    first, second, third = (os.urandom(16) for _ in range(3))
    assert asked(handle, sending(b"1", first)).said is Said.WORKING
    assert asked(handle, sending(b"2", second)).said is Said.WORKING
    assert asked(handle, sending(b"3", third)).said is Said.BUSY
    go.set()
    assert asked(handle, sending(b"1", first)).data == b"1"
    assert asked(handle, sending(b"3", third)).data == b"3"


def test_unfinished_requests_give_way() -> None:
    handle = parts_handler(lambda whole: whole, asks=2)
    names = [os.urandom(16) for _ in range(5)]
    request = os.urandom(20)
    for name in names:
        assert asked(handle, sending(request, name)).size == 10
    assert asked(handle, sending(request, names[4], 10)).said is Said.REPLY  # the newest is there
    assert asked(handle, sending(request, names[0], 10)).size == 0  # the oldest is not


def test_a_name_with_another_request_is_not_mixed_with_the_first() -> None:
    handle, ask = parts_handler(lambda whole: whole), os.urandom(16)
    asked(handle, sending(bytes(20), ask))
    assert asked(handle, sending(b"another request", ask)).said is Said.BUSY
