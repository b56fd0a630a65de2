"""Accidents that happen to files while nobody looks: torn, empty, shortened, foreign, older, with wrong bytes, or gone."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

__all__ = ["HARM", "harm"]


def _flipped(data: bytes, rng: random.Random) -> bytes:
    raw = bytearray(data)
    for _ in range(3):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return bytes(raw)


def _zeroed(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(max(1, len(data) // 512)) * 512
    return data[:start] + bytes(min(512, len(data) - start)) + data[start + 512 :]


_CHANGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "empty": lambda data, rng: b"",
    "truncated": lambda data, rng: data[: rng.randrange(1, len(data))],
    "torn tail": lambda data, rng: data[: -rng.randrange(1, min(40, len(data)))],
    "bits flipped": _flipped,
    "a sector of zeros": _zeroed,
    "other bytes": lambda data, rng: rng.randbytes(len(data)),
    "text": lambda data, rng: b"[1, 2]\n",
    "wrong JSON": lambda data, rng: b'{"round": 1, "purpose": 3}\n',
}
HARM = (*_CHANGES, "foreign", "older", "missing", "a folder")
"""Kinds of accidents; foreign and older need another folder to take the file from."""


def harm(path: Path, kind: str, rng: random.Random, other: Path | None = None) -> None:
    """Let an accident happen to a file.

    Args:
      path: the file.
      kind: one of `HARM`.
      rng: where and how.
      other: the foreign or older file.
    """
    if kind in ("foreign", "older"):
        assert other is not None
        shutil.copyfile(other, path)
        return
    data = path.read_bytes()
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(_CHANGES[kind](data, rng))
