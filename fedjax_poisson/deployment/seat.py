"""A party's seat in the committee of one run: it takes the protocol's steps, and an answer is in the party's log before it counts as said.

A site that is a member and a member without records sit here alike. The state machine makes what it says durable before it returns it (`member.step`); the log
follows, so what the log names is in the store (`backups.check_said`); and only then do the bytes leave.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from fedjax_poisson.aggregation import member, messages

__all__ = ["Seat", "Told", "take_seat"]

Told = Callable[..., object]
"""`(kind, **facts)`: what goes into the party's log, durable when it returns."""


class Seat(NamedTuple):
    """A seat that is taken; may be used from several threads.

    Attributes:
      notice: `(bytes) -> bytes`: a notice of the server to the member's signed reply. Raises `RoundRefused` by its name, and what the log raises.
      round: `() -> int`: the number of the round that it sits in, -1 before the first.
    """

    notice: Callable[[bytes], bytes]
    round: Callable[[], int]


def take_seat(sitting: member.Member, tell: Told) -> Seat:
    """The seat, where its store stands.

    Args:
      sitting: who.
      tell: the log. What it raises goes through, and the answer is not said: it is told again when it is asked for again.
    """
    guard = threading.Lock()
    state = member.restore(sitting)
    told: tuple[int, bytes] | None = None

    def notice(blob: bytes) -> bytes:
        nonlocal state, told
        with guard:
            state, reply = member.step(sitting, state, blob)
            said = messages.parts_of(reply)
            answer = (state.round, said.body[:32])
            if said.label == "answer" and told != answer:
                tell("answer", round=state.round, included=answer[1].hex(), bytes=len(reply))
                told = answer  # only now: what could not be written down is not said when it is asked again
            return reply

    return Seat(notice, lambda: state.round)
