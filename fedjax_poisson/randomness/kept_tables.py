"""Sampling tables that are kept on disk: what one run has computed in exact integers, the next one reads.

The tables of a law follow from its rates, from their plan and from the source of this package, which name the file (`kept_files`); neither records nor draws
are in them. Only the command keeps them, in a folder that `start` names, and no longer once it imports a part of the user's own (`extensions.find`).
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedjax_poisson import kept_files

__all__ = ["MOST_BYTES", "HostTables", "kept"]

MOST_BYTES = 1 << 26
"""A folder that holds more, twice what `start` leaves in it, takes no further table: a sweep, or rounds of many attendances, would fill the disk."""


class HostTables(NamedTuple):
    """The arrays of `tables.SamplingTables` on the host, uint32 each, and what they are away from the law."""

    entries: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    origins: np.ndarray
    slopes: np.ndarray
    distance: float


def kept(what: object, fits: Callable[[HostTables], bool], make: Callable[[], HostTables]) -> HostTables:
    """What an earlier run kept under this name, or what `make` gives, which is kept now.

    Args:
      what: all that the tables follow from but the source; told apart by its `repr`.
      fits: whether tables are of the shape and the accuracy that this process expects; others are made again.
      make: makes them.
    """
    folder = os.environ.get(kept_files.TABLES)
    if not folder or kept_files.SOURCE is None:
        return make()
    path = kept_files.named(Path(folder), [kept_files.SOURCE, platform.machine(), np.__version__, what])
    body = kept_files.read(path)
    found = None if body is None else _parsed(body)
    if found is not None and fits(found):
        return found
    made = make()
    body = _in_bytes(made)
    if _size(path.parent) + len(body) <= MOST_BYTES:
        kept_files.write(path, body, "a sampling table")
    return made


def _size(folder: Path) -> int:
    try:
        return sum(entry.stat().st_size for entry in os.scandir(folder))
    except OSError:  # a file that another process just removed, or no folder at all, which writing says
        return 0


def _in_bytes(tables: HostTables) -> bytes:
    arrays = tables[:-1]
    head = json.dumps([[len(each) for each in arrays], tables.distance.hex()]).encode()
    return head + b"\n" + b"".join(each.astype("<u4").tobytes() for each in arrays)


def _parsed(body: bytes) -> HostTables | None:
    head, _, rest = body.partition(b"\n")
    try:
        lengths, distance = json.loads(head)
        words = np.frombuffer(rest, "<u4").astype(np.uint32)
        if sum(lengths) != words.size:
            return None
        entries, middle, low, origins, slopes = np.split(words, np.cumsum(lengths)[:-1])
        return HostTables(entries, middle, low, origins, slopes, float.fromhex(distance))
    except (ValueError, TypeError):
        return None
