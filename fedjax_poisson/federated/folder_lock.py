"""A lock that allows one process at a time in a run folder; two would charge the same round twice and overwrite each other's checkpoints."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

NAME = ".lock"


class FolderBusy(RuntimeError):
    """Another process works in the folder; the message names it."""


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock while the block runs.

    The lock belongs to the open file, so the system drops it when the process ends, however it ends: none is ever left behind. The file stays; it
    says who held it last.

    Args:
      folder: an existing folder.

    Raises:
      FolderBusy: another process holds it, with its number, machine and start.
      OSError: the folder cannot be written.
    """
    file = open(folder / NAME, "a+", encoding="utf-8")
    try:
        if not _take(file):
            file.seek(0)
            raise FolderBusy(f"{folder} is in use by {_who(file.read())}; wait for it, or stop it first.")
        file.truncate(0)
        me = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        file.write(json.dumps(me))
        file.flush()
        yield
    finally:
        file.close()


def _take(file: IO[str]) -> bool:
    """Lock an open file without waiting; False if somebody else has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _who(text: str) -> str:
    try:
        found: dict[str, Any] = json.loads(text)
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
