"""Sampling tables that are kept on disk: what one run has computed in exact integers, the next one reads.

The tables of a law follow from its rates and from the source of this package, which name the file (`kept_files`); neither records nor draws are in them.
They take some tenths of a second to make, a large sum's seconds. Only the command keeps them, in a folder that `start` names, and no longer once it imports a
part of the user's own (`extensions.find`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedjax_poisson import kept_files

__all__ = ["MOST_BYTES", "HostTables", "kept"]

MOST_BYTES = 1 << 22
"""Larger tables are made anew: they would push all others out of the folder."""


class HostTables(NamedTuple):
    """The arrays of `tables.SamplingTables` on the host, uint32 each, and what they are away from the law."""

    entries: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    origins: np.ndarray
    slopes: np.ndarray
    distance: float


def kept(what: object, make: Callable[[], HostTables]) -> HostTables:
    """What an earlier run kept under this name, or what `make` gives, which is kept now.

    Args:
      what: all that the tables follow from but the source; told apart by its `repr`.
      make: makes them.
    """
    folder = os.environ.get(kept_files.TABLES)
    if not folder or kept_files.SOURCE is None:
        return make()
    path = kept_files.named(Path(folder), [kept_files.SOURCE, what])
    body = kept_files.read(path)
    if body is not None:
        return _parsed(body)
    made = make()
    body = _in_bytes(made)
    if len(body) <= MOST_BYTES:
        kept_files.write(path, body, "a sampling table")
    return made


def _in_bytes(tables: HostTables) -> bytes:
    arrays = tables[:-1]
    head = json.dumps([[len(each) for each in arrays], tables.distance.hex()]).encode()
    return head + b"\n" + b"".join(each.astype("<u4").tobytes() for each in arrays)


def _parsed(body: bytes) -> HostTables:
    head, _, rest = body.partition(b"\n")
    lengths, distance = json.loads(head)
    entries, middle, low, origins, slopes = np.split(
        np.frombuffer(rest, "<u4").astype(np.uint32), np.cumsum(lengths)[:-1]
    )
    return HostTables(entries, middle, low, origins, slopes, float.fromhex(distance))
