"""Where a server keeps what clients sent until it is needed: in memory, or in a file, so that a round of many clients needs little memory.

A spool is a function that takes bytes in and returns a function that gives them back, as often as it is asked. Nothing in it is secret: rows are encrypted,
and shares lie in the members' boxes. It need not survive the process; a server that ends loses its round.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from fedjax_poisson.aggregation.refusals import NoRoom

__all__ = ["Spool", "file_spool", "memory_spool"]

Spool = Callable[[bytes], Callable[[], bytes]]
"""`(bytes) -> () -> bytes`."""


def memory_spool() -> Spool:
    """A spool in memory."""
    return lambda blob: lambda: blob


def file_spool(folder: Path | None = None) -> Spool:
    """A spool in a file without a name, which is gone with the process or when nobody refers to the spool any more.

    Args:
      folder: on a disk with room for everything; None is the system's folder for temporary files.

    Raises:
      OSError: no file can be made there.
    """
    file = tempfile.TemporaryFile(dir=folder, buffering=0)
    end = 0

    def read(place: int, size: int) -> bytes:
        found = os.pread(file.fileno(), size, place)
        if len(found) != size:
            raise NoRoom(
                f"The spool gave back {len(found)} of {size} bytes. Look after its disk, and begin another round."
            )
        return found

    def keep(blob: bytes) -> Callable[[], bytes]:
        nonlocal end
        try:
            written = os.pwrite(file.fileno(), blob, end)
        except OSError as error:
            raise NoRoom(
                f"The server cannot keep {len(blob)} bytes ({error.strerror}). Give its spool more room, and send again."
            ) from error
        if written != len(blob):
            raise NoRoom(f"The server kept {written} of {len(blob)} bytes. Give its spool more room, and send again.")
        place, end = end, end + written
        return functools.partial(read, place, written)

    return keep
