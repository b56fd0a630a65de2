"""Handling of Ctrl-C (or a termination request) during a run: the round is finished and saved, then the run stops; a second Ctrl-C stops at once.

An interruption between the charge of a release and its checkpoint would lose a charged round, and while a program compiles, Python's KeyboardInterrupt
may be swallowed. The first signal therefore only sets a flag that the run reads between rounds.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_SIGNALS = ("SIGINT", "SIGTERM")


@contextlib.contextmanager
def stop_requested(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Take over the signals while the block runs; yields a function that returns whether to stop.

    Args:
      say: told once that the run will stop after this round.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> Any:
        del frame
        noted.append(number)
        if len(noted) > 1:
            raise KeyboardInterrupt
        say("stopping after this round; Ctrl-C again stops at once and may lose a round that is already paid for")

    if threading.current_thread() is not threading.main_thread():  # signals can only be taken over there
        yield lambda: False
        return
    before = {name: signal.signal(getattr(signal, name), note) for name in _SIGNALS if hasattr(signal, name)}
    try:
        yield lambda: bool(noted)
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
