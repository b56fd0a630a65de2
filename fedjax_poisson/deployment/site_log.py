"""A site's log as a file of lines that are only ever added, each durable before the call returns (`log_entries` has what they say).

A line that was torn by a power cut was never acknowledged: it is cut off when the log is opened again, and an entry says so. Any other damage is refused: a
log whose middle was changed has been changed by somebody.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from fedjax_poisson.accounting import Pin
from fedjax_poisson.deployment.identity import Identity
from fedjax_poisson.deployment.log_entries import Entry, LogDamaged, check_chain, entry_of, genesis, line_of, make_entry
from fedjax_poisson.federated.checkpoints import sync_folder

__all__ = ["LogBusy", "LogUnwritable", "SiteLog", "ledger_pin", "open_log", "parse_log", "read_log"]


class LogBusy(RuntimeError):
    """Another process writes this log."""


class LogUnwritable(RuntimeError):
    """An entry could not be written down, so what it is about must not happen."""


class SiteLog(NamedTuple):
    """An open log; safe to call from several threads.

    Attributes:
      append: `(kind, **facts) -> Entry`: durable when it returns. Raises `ValueError` for facts that the kind has not, `LogUnwritable`.
      entries: `() -> tuple[Entry, ...]`: all so far.
      repaired: bytes of a torn last line that were cut off when it was opened; 0 if none.
      close: `() -> None`: another process may write it from here on.
    """

    append: Callable[..., Entry]
    entries: Callable[[], tuple[Entry, ...]]
    repaired: int
    close: Callable[[], None]


def read_log(path: str | Path) -> list[Entry]:
    """The entries of a log that may be anybody's; a torn last line is left out, the chain is not checked (`check_chain`).

    Raises:
      OSError: the file cannot be read.
      LogDamaged: a line is no entry.
    """
    return parse_log(Path(path).read_bytes())[0]


def parse_log(blob: bytes) -> tuple[list[Entry], int]:
    """Entries of whole lines, and the number of bytes behind the last newline (a torn line).

    Raises:
      LogDamaged: a line is no entry.
    """
    *lines, torn = blob.split(b"\n")
    return [entry_of(line, place) for place, line in enumerate(lines, 1)], len(torn)


def ledger_pin(entries: Sequence[Entry]) -> Pin | None:
    """How far the site's ledger reached when it was last charged, None if it never was: `Ledger.check_pin` refuses one that does not reach there.

    A ledger that was set back to a backup is whole by itself; only something kept elsewhere shows that it is not the newest.
    """
    charges = [entry.facts for entry in entries if entry.kind == "charge"]
    return Pin(charges[-1]["rows"], charges[-1]["ledger"]) if charges else None


def open_log(path: str | Path, who: Identity) -> SiteLog:
    """Open a site's log to add to it; made if it is missing, mode 0600.

    Raises:
      LogBusy: another process has it open.
      LogDamaged: it is not what this site wrote.
      LogUnwritable: it cannot be written.
    """
    path = Path(path)
    try:
        file: IO[bytes] = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600), "r+b", 0)
    except OSError as error:
        raise LogUnwritable(f"the log {path} cannot be opened ({error}); check its folder.") from error
    try:
        _lock(file, path)
        sync_folder(path.parent)
        blob = _read(file)
        entries, torn = _named(path, blob, who)
        if torn:
            file.truncate(len(blob) - torn)
            os.fsync(file.fileno())
        file.seek(len(blob) - torn)
    except OSError as error:
        file.close()
        raise LogUnwritable(f"the log {path} cannot be written ({error}); check the disk.") from error
    except BaseException:
        file.close()
        raise
    guard, broken = threading.Lock(), False

    def append(kind: str, **facts: Any) -> Entry:
        nonlocal broken
        with guard:
            if broken:
                raise LogUnwritable(
                    f"the log {path} could not be written before; start the worker again when the disk is well."
                )
            previous = entries[-1].hash if entries else genesis(who.public)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            entry = make_entry(who, len(entries) + 1, now, kind, facts, previous)
            try:
                _write(file, line_of(entry))
            except OSError as error:
                broken = True  # a part of the line may be there: nothing may follow it
                raise LogUnwritable(
                    f"the log {path} cannot be written ({error}), so nothing was done. Check the disk's space, then start again."
                ) from error
            entries.append(entry)
            return entry

    def all_entries() -> tuple[Entry, ...]:
        with guard:
            return tuple(entries)

    log = SiteLog(append, all_entries, torn, file.close)
    if torn:
        removed = hashlib.sha256(blob[len(blob) - torn :]).hexdigest()
        log.append("repaired", bytes=torn, removed=removed)
    return log


def _named(path: Path, blob: bytes, who: Identity) -> tuple[list[Entry], int]:
    try:
        entries, torn = parse_log(blob)
        check_chain(entries, who.public)
    except LogDamaged as error:
        raise LogDamaged(
            f"{path}: {error} Keep this file for whoever looks into it, and put back the newest copy; without one begin a new log and tell the consortium."
        ) from None
    return entries, torn


def _read(file: IO[bytes]) -> bytes:
    file.seek(0)
    parts = []
    while part := file.read(1 << 20):
        parts.append(part)
    return b"".join(parts)


def _write(file: IO[bytes], line: bytes) -> None:
    view = memoryview(line)
    while view:
        view = view[file.write(view) :]
    os.fsync(file.fileno())


def _lock(file: IO[bytes], path: Path) -> None:
    """Take the file for this process; the system lets go of it when the process ends, however it ends."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 40)  # a byte that no log reaches: locked bytes cannot be read there
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise LogBusy(
            f"{path} is open in another process; one worker at a time writes a site's log: stop the other."
        ) from None
