"""How far a store is known to reach, in a small file beside it: a store that is lost or set back alone is noticed when it is opened.

The file has two slots, written in turn, so that a torn write leaves the one before. A slot is a count, a head of the store's chain, and a hash over both.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fedjax_poisson.aggregation.wire import u64

__all__ = ["Mark", "MarkFile", "mark_file"]

_SLOT = 512  # bytes apart: in sectors of their own
_BYTES = 8 + 32 + 32


class Mark(NamedTuple):
    """A place in a store's chain: the number of records, and the head after them, 32 bytes."""

    records: int
    head: bytes


class MarkFile(NamedTuple):
    """The mark of one store.

    Attributes:
      read: `() -> Mark | None`: the newest mark; None where there is none yet.
      write: `(mark) -> None`: durable when it returns; the newest one again is not written.
      close: `() -> None`.
    """

    read: Callable[[], Mark | None]
    write: Callable[[Mark], None]
    close: Callable[[], None]


def mark_file(store: Path) -> MarkFile:
    """The file beside a store, made if it is missing.

    Raises:
      OSError: it cannot be written; also raised by `write`.
    """
    path = store.with_name(store.name + ".mark")
    new = not path.exists()
    file = open(path, "x+b" if new else "r+b", buffering=0)
    if new and hasattr(os, "O_DIRECTORY"):  # the name must survive a power cut
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    written: Mark | None = None

    def slot(number: int) -> Mark | None:
        file.seek(number * _SLOT)
        raw = file.read(_BYTES) or b""
        if len(raw) < _BYTES or hashlib.sha256(raw[:40]).digest() != raw[40:]:
            return None
        return Mark(int.from_bytes(raw[:8], "little"), raw[8:40])

    def read() -> Mark | None:
        return max((mark for mark in (slot(0), slot(1)) if mark is not None), default=None)

    def write(mark: Mark) -> None:
        nonlocal written
        if mark == written:
            return
        raw = u64(mark.records) + mark.head
        file.seek(mark.records % 2 * _SLOT)
        file.write(raw + hashlib.sha256(raw).digest())
        os.fsync(file.fileno())
        written = mark

    return MarkFile(read, write, file.close)
