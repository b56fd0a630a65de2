"""A folder as it was before every event of a process that was left alone: what a kill there, or in the middle of it, or a power cut would have left."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fault_campaign.events import Event, Watch, perform_half, watched

__all__ = ["ENDS", "Shot", "develop", "photographed", "place"]

ENDS = ("kill", "torn", "power cut")
"""How a process may end at a shot."""


class Shot(NamedTuple):
    """A folder before an event.

    Attributes:
      event: that was to come.
      transition: its name.
      folder: that was watched.
      copy: of it.
      gone: what a power cut would take: path in the folder to its bytes, None where there would be nothing.
      known: what `note` said.
    """

    event: Event
    transition: str
    folder: Path
    copy: Path
    gone: dict[Path, bytes | None]
    known: Any


@contextlib.contextmanager
def photographed(folder: Path, album: Path, note: Callable[[], Any]) -> Iterator[list[Shot]]:
    """Copy a folder before every event while the block runs.

    Args:
      folder: absolute, without links.
      album: for the copies; outside the folder.
      note: called with every copy: what is to be remembered with it.
    """
    shots: list[Shot] = []
    album.mkdir(parents=True)

    def shoot(watch: Watch, event: Event) -> None:
        copy = album / f"{event.number:05d}"
        shutil.copytree(folder, copy)
        gone = {path.relative_to(folder): data for path, data in watch.after_power_cut().items()}
        shots.append(Shot(event, event.transition(folder), folder, copy, gone, note()))

    with watched(folder, shoot):
        yield shots


def develop(shot: Shot, kind: str, to: Path) -> None:
    """Make the folder that the end of the process would have left."""
    shutil.copytree(shot.copy, to)
    if kind == "torn":
        perform_half(shot.event, (shot.folder, to))
    if kind == "power cut":
        for path, data in shot.gone.items():
            (to / path).unlink(missing_ok=True)
            if data is not None:
                (to / path).write_bytes(data)


def place() -> contextlib.AbstractContextManager[str]:
    """A folder for a part of the campaign, in memory where there is such a file system."""
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return tempfile.TemporaryDirectory(dir=shared)
