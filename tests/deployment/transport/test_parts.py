"""Large messages in parts over a carrier that does its worst: the same bytes, or `Unreached`."""

from __future__ import annotations

import hashlib
import random
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from fedjax_poisson.deployment.transport import parts
from fedjax_poisson.deployment.transport.in_process import in_process
from fedjax_poisson.deployment.transport.link import Asked, Handler, Link, Unreached
from fedjax_poisson.deployment.transport.part_messages import Answer, Said, write
from fedjax_poisson.deployment.transport.parts import in_parts
from fedjax_poisson.deployment.transport.parts_handler import parts_handler

REQUEST = bytes(random.Random(1).randbytes(1000))
REPLY = bytes(random.Random(2).randbytes(1300))
PART = 100
Middle = Callable[[int, bytes, Handler], bytes | Unreached]
"""What a carrier does with the message of this number (0, 1, ...): it may call the site's handler or not."""


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_FIRST_PAUSE", 1e-4)


def through(middle: Middle, handlers: dict[str, Handler]) -> Link:
    """A link over a hostile carrier; its messages are numbered site by site."""
    numbers = dict.fromkeys(handlers, 0)

    def ask(asked: Asked, seconds: float) -> Iterator[tuple[str, bytes | Unreached]]:
        for site, blob in asked.items():
            number = numbers[site]
            numbers[site] += 1
            yield site, middle(number, blob, handlers[site])

    return Link(tuple(handlers), ask, lambda: None)


def counted(reply: bytes = REPLY) -> tuple[Handler, list[bytes]]:
    """A handler, and the requests that it was called with."""
    calls: list[bytes] = []

    def handler(request: bytes) -> bytes:
        calls.append(request)
        return reply

    return handler, calls


def one(middle: Middle, handler: Handler, request: bytes = REQUEST, **settings: float) -> bytes | Unreached:
    link = in_parts(through(middle, {"ulm": parts_handler(handler)}), part_bytes=PART, **settings)  # type: ignore[arg-type]
    ((_, reply),) = list(link.ask({"ulm": request}, 20))
    return reply


MESSAGES = 10 + 12  # ten parts of the request, the last brings the reply's first; twelve more of the reply


def honest(_number: int, blob: bytes, site: Handler) -> bytes | Unreached:
    return site(blob)


def test_small_ones_take_one_message_and_large_ones_their_parts() -> None:
    for request, reply, expected in ((b"", b"", 1), (b"x" * PART, b"y" * PART, 1), (REQUEST, REPLY, MESSAGES)):
        numbers: list[int] = []
        handler, calls = counted(reply)

        def middle(number: int, blob: bytes, site: Handler, numbers: list[int] = numbers) -> bytes:
            numbers.append(number)
            assert len(blob) <= PART + 150
            answer = site(blob)
            assert len(answer) <= PART + 150
            return answer

        assert one(middle, handler, request) == reply
        assert calls == [request] and len(numbers) == expected


def _lost_going(blob: bytes, site: Handler) -> bytes | Unreached:
    return Unreached("lost")


def _lost_coming(blob: bytes, site: Handler) -> bytes | Unreached:
    site(blob)
    return Unreached("lost")


def _doubled(blob: bytes, site: Handler) -> bytes | Unreached:
    first = site(blob)
    assert site(blob) == first
    return first


def _cut_going(blob: bytes, site: Handler) -> bytes | Unreached:
    return site(blob[:-1])


def _cut_coming(blob: bytes, site: Handler) -> bytes | Unreached:
    return site(blob)[:-1]


def _altered_going(blob: bytes, site: Handler) -> bytes | Unreached:
    return site(blob[:60] + bytes([blob[60] ^ 4]) + blob[61:])


def _altered_coming(blob: bytes, site: Handler) -> bytes | Unreached:
    answer = site(blob)
    return answer[:-40] + bytes([answer[-40] ^ 4]) + answer[-39:]


def _invented(blob: bytes, site: Handler) -> bytes | Unreached:
    return b"<html>502 Bad Gateway</html>"


FAULTS = [
    _lost_going,
    _lost_coming,
    _doubled,
    _cut_going,
    _cut_coming,
    _altered_going,
    _altered_coming,
    _invented,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.__name__)
def test_each_message_in_turn_meets_a_fault(fault: Callable[[bytes, Handler], bytes | Unreached]) -> None:
    for place in range(MESSAGES):
        handler, calls = counted()
        reply = one(lambda n, blob, site, place=place: fault(blob, site) if n == place else site(blob), handler)  # type: ignore[misc]
        assert reply == REPLY and calls == [REQUEST]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.__name__)
def test_a_fault_that_never_ends_makes_the_site_unreached(
    fault: Callable[[bytes, Handler], bytes | Unreached],
) -> None:
    for place in (0, 5, 9, 10, 15):
        handler, _ = counted()
        reply = one(lambda n, blob, site, place=place: fault(blob, site) if n >= place else site(blob), handler)  # type: ignore[misc]
        assert reply == REPLY if fault is _doubled else isinstance(reply, Unreached)


def test_messages_that_change_places() -> None:
    """Answers come one message late, and questions are sent again out of order."""
    late: list[bytes] = []
    seen: list[bytes] = []

    def middle(number: int, blob: bytes, site: Handler) -> bytes | Unreached:
        seen.append(blob)
        site(random.Random(number).choice(seen))  # an old question once more
        late.append(site(blob))
        return late[-2] if number % 3 == 1 else late[-1]

    handler, calls = counted()
    assert one(middle, handler) == REPLY and calls == [REQUEST]


def test_parts_of_another_whole() -> None:
    """Every part of another ask, and of the same ask to another site, in place of the wanted one."""
    other_handler, _ = counted(REPLY[::-1])
    others = parts_handler(other_handler)
    kept: list[tuple[bytes, bytes]] = []

    def record(_number: int, blob: bytes, site: Handler) -> bytes:
        kept.append((blob, site(blob)))
        return kept[-1][1]

    link = in_parts(through(record, {"bonn": others}), part_bytes=PART)
    assert list(link.ask({"bonn": REQUEST[::-1]}, 20)) == [("bonn", REPLY[::-1])]
    for place in range(MESSAGES):

        def swap(number: int, blob: bytes, site: Handler, place: int = place) -> bytes | Unreached:
            if number != place:
                return site(blob)
            site(kept[place][0])  # the site gets the other's question, the asker the other's answer
            return kept[place][1]

        handler, calls = counted()
        assert one(swap, handler) == REPLY and calls[-1] == REQUEST


def test_a_carrier_that_forges_hashes_too_is_met_by_the_hash_of_the_whole() -> None:
    """It alters one part of the reply and makes the message's own hash anew, each time."""

    def forge(number: int, blob: bytes, site: Handler) -> bytes | Unreached:
        answer = site(blob)
        if number < 12:
            return answer
        digest, data = answer[37:69], answer[77:-32]
        size = int.from_bytes(answer[69:77], "little")
        return write(Answer(Said.REPLY, blob[-32:], digest, size, data[:-1] + bytes([data[-1] ^ 1])))

    handler, calls = counted()
    reply = one(forge, handler)
    assert isinstance(reply, Unreached) and "not what it announced" in reply.reason
    assert calls == [REQUEST]  # asked again, not worked again


def test_without_the_hash_of_the_whole_the_forger_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: the same carrier, and a check that finds every whole good."""

    class _Blind:
        def __init__(self, data: bytes = b"") -> None:
            pass

        def update(self, data: bytes) -> None:
            pass

        def digest(self) -> bytes:
            return hashlib.sha256(REPLY).digest()

    class _Module:
        @staticmethod
        def sha256(data: bytes = b"") -> object:
            return hashlib.sha256(data) if data == REQUEST else _Blind(data)

    monkeypatch.setattr(parts, "hashlib", _Module)

    def forge(number: int, blob: bytes, site: Handler) -> bytes | Unreached:
        answer = site(blob)
        if number < 12:
            return answer
        size = int.from_bytes(answer[69:77], "little")
        return write(Answer(Said.REPLY, blob[-32:], answer[37:69], size, bytes(len(answer[77:-32]))))

    handler, _ = counted()
    reply = one(forge, handler)
    assert isinstance(reply, bytes) and len(reply) == len(REPLY) and reply != REPLY


@pytest.mark.parametrize("seed", range(8))
def test_a_random_mix_of_everything(seed: int) -> None:
    draws, draw_lock = random.Random(seed), threading.Lock()

    def middle(_number: int, blob: bytes, site: Handler) -> bytes | Unreached:
        with draw_lock:
            fault = draws.choice(FAULTS) if draws.random() < 0.35 else None
        return site(blob) if fault is None else fault(blob, site)

    replies = {name: random.Random(name).randbytes(700) for name in ("ulm", "bonn", "kiel")}
    calls: list[str] = []

    def handler(name: str) -> Handler:
        def handle(request: bytes) -> bytes:
            assert request == REQUEST
            calls.append(name)
            return replies[name]

        return parts_handler(handle)

    link = in_parts(through(middle, {name: handler(name) for name in replies}), part_bytes=PART)
    for site, reply in link.ask({name: REQUEST for name in replies}, 30):
        assert reply == replies[site] or isinstance(reply, Unreached)
    assert len(calls) <= len(replies) and len(set(calls)) == len(calls)


def test_a_handler_that_takes_long_is_called_once_and_waited_for() -> None:
    calls: list[bytes] = []

    def slow(request: bytes) -> bytes:
        calls.append(request)
        time.sleep(0.6)
        return b"done"

    waited: list[float] = []

    def middle(_number: int, blob: bytes, site: Handler) -> bytes | Unreached:
        started = time.monotonic()
        answer = site(blob)
        waited.append(time.monotonic() - started)
        return answer

    link = in_parts(through(middle, {"ulm": parts_handler(slow, hold=0.1)}), part_bytes=PART, patience=1.0)
    assert list(link.ask({"ulm": REQUEST}, 20)) == [("ulm", b"done")]
    assert calls == [REQUEST] and max(waited) < 0.5  # no message waits for the whole of it


def test_a_handler_that_raises_is_not_called_again() -> None:
    calls: list[bytes] = []

    def broken(request: bytes) -> bytes:
        calls.append(request)
        raise ZeroDivisionError("at /srv/ulm")

    reply = one(honest, broken)
    assert isinstance(reply, Unreached) and "ZeroDivisionError" in reply.reason and "srv" not in reply.reason
    assert len(calls) == 1


@pytest.mark.parametrize("place", [5, 9, 10, 15])
def test_a_site_that_starts_anew_in_the_middle_gets_all_of_it_again(place: int) -> None:
    handler, calls = counted()
    workers = [parts_handler(handler)]

    def middle(number: int, blob: bytes, _site: Handler) -> bytes | Unreached:
        if number == place:
            workers[0] = parts_handler(handler)  # what the old one held is lost
        return workers[0](blob)

    assert one(middle, handler) == REPLY
    assert set(calls) == {REQUEST} and len(calls) <= 2


def test_the_same_request_asked_twice_is_two_asks() -> None:
    handler, calls = counted()
    link = in_parts(in_process({"ulm": parts_handler(handler)}), part_bytes=PART)
    for _ in range(2):
        assert list(link.ask({"ulm": b"how are you"}, 10)) == [("ulm", REPLY)]
    assert len(calls) == 2  # never an old reply to a new question


def test_sizes_beyond_what_is_allowed_are_refused_before_they_are_sent() -> None:
    handler, calls = counted()
    small = parts_handler(handler, most_bytes=len(REQUEST) - 1)
    ((_, reply),) = in_parts(in_process({"ulm": small}), part_bytes=PART).ask({"ulm": REQUEST}, 10)
    assert isinstance(reply, Unreached) and "999" in reply.reason and calls == []
    enough = parts_handler(handler, most_bytes=len(REQUEST))
    link = in_parts(in_process({"ulm": enough}), part_bytes=PART, most_bytes=len(REPLY))
    assert list(link.ask({"ulm": REQUEST}, 10)) == [("ulm", REPLY)]
    link = in_parts(in_process({"ulm": enough}), part_bytes=PART, most_bytes=len(REPLY) - 1)
    ((_, reply),) = link.ask({"ulm": REQUEST}, 10)
    assert isinstance(reply, Unreached) and "1300 bytes" in reply.reason


def test_a_slow_reply_takes_nothing_from_the_others() -> None:
    """One site gives its head at once and then never a part; the others' replies arrive whole, in time."""

    def middle(number: int, blob: bytes, site: Handler) -> bytes | Unreached:
        if site is slow and number > 0:
            time.sleep(0.3)
            return Unreached("lost")
        return site(blob)

    slow = parts_handler(lambda _request: REPLY)
    handlers = {"slow": slow, **{name: parts_handler(lambda _request: REPLY) for name in ("a", "b", "c")}}
    link = in_parts(through(middle, handlers), part_bytes=PART)
    replies = dict(link.ask({name: b"go" for name in handlers}, 4))
    assert isinstance(replies.pop("slow"), Unreached)
    assert replies == {"a": REPLY, "b": REPLY, "c": REPLY}


def _peak(read: Callable[[Iterator[tuple[str, bytes | Unreached]]], int]) -> float:
    """Megabytes that the coordinator holds at most for five replies of 64 MB; the sites' own are made before and shared."""
    size = 64 << 20
    reply = bytes(size)
    link = in_parts(
        in_process({f"site{number}": parts_handler(lambda _request: reply) for number in range(5)}), part_bytes=1 << 20
    )
    tracemalloc.start()
    try:
        assert read(link.ask({site: b"upload" for site in link.sites}, 120)) == 5 * size
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def test_the_coordinator_holds_two_replies_at_most_and_a_reader_that_keeps_all_holds_all() -> None:
    def one_by_one(replies: Iterator[tuple[str, bytes | Unreached]]) -> int:
        total = 0
        for _, reply in replies:
            total += len(reply)
        return total

    def all_at_once(replies: Iterator[tuple[str, bytes | Unreached]]) -> int:
        return sum(len(reply) for _, reply in list(replies))

    assert _peak(one_by_one) < 2.3 * 64  # one that is read, one that arrives in a buffer that grows by eighths
    assert _peak(all_at_once) > 5 * 64


@pytest.mark.parametrize("settings", [{"part_bytes": 0}, {"patience": 0.0}])
def test_settings_that_make_no_sense(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        in_parts(in_process({"ulm": bytes.upper}), **settings)  # type: ignore[arg-type]
