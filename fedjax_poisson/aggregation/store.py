"""Write-ahead: what a party is about to send is on disk before its first byte leaves; after a restart the same bytes or none.

A store keeps records under (run, round, step), each written once. `put` returns only when the record is durable, and refuses other bytes for a step
that was taken. Secrets of a round (box key, shares' seeds) are kept under steps of their own and erased with `erase`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fedjax_poisson.aggregation.refusals import AlreadyDone

__all__ = ["Store", "StoreBusy", "memory_store", "sqlite_store"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS taken (
  run BLOB NOT NULL, round INTEGER NOT NULL, step TEXT NOT NULL, bytes BLOB NOT NULL, UNIQUE (run, round, step)
)
"""


class StoreBusy(RuntimeError):
    """Another process speaks for this party."""


class Store(NamedTuple):
    """Records of steps taken.

    Attributes:
      put: `(run, round, step, bytes) -> bytes`: durable when it returns; the same bytes again are no error, others raise `AlreadyDone`.
      get: `(run, round, step) -> bytes | None`.
      last: `(run, step) -> int`: the largest round with such a step, -1 if there is none.
      erase: `(run, round, step) -> None`: the record's bytes are gone, and the step stays taken.
      close: `() -> None`: another process may open it from here on.
    """

    put: Callable[[bytes, int, str, bytes], bytes]
    get: Callable[[bytes, int, str], bytes | None]
    last: Callable[[bytes, str], int]
    erase: Callable[[bytes, int, str], None]
    close: Callable[[], None] = lambda: None


def _refuse(step: str) -> AlreadyDone:
    return AlreadyDone(f'The step "{step}" of this round was taken for other bytes; nothing is said twice.')


def memory_store(*, keep: int | None = None) -> Store:
    """A store without a disk, for simulations and tests.

    Args:
      keep: rounds whose records are kept, the newest ones; None keeps all. That a step was taken in some round is never forgotten.
    """
    taken: dict[tuple[bytes, int, str], bytes] = {}
    newest: dict[tuple[bytes, str], int] = {}

    def put(run: bytes, number: int, step: str, blob: bytes) -> bytes:
        if taken.setdefault((run, number, step), blob) != blob:
            raise _refuse(step)
        if number > newest.get((run, step), -1):
            newest[run, step] = number
            if keep is not None:
                for old in [one for one in taken if one[1] <= number - keep]:
                    del taken[old]
        return blob

    def last(run: bytes, step: str) -> int:
        return newest.get((run, step), -1)

    def erase(run: bytes, number: int, step: str) -> None:
        if (run, number, step) in taken:
            taken[run, number, step] = b""

    return Store(put, lambda run, number, step: taken.get((run, number, step)), last, erase)


def sqlite_store(path: str | Path) -> Store:
    """A store in one SQLite file: every record is synchronised before `put` returns, erased bytes are overwritten in the file.

    What the file system keeps beside it (blocks of a journal that was removed, snapshots, copies inside a solid-state drive) may hold erased secrets
    longer: keep the file on an encrypted disk.

    Args:
      path: the file; made if it is missing. It is locked while the store is open.

    Raises:
      StoreBusy: another process has it open.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0)
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    try:
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        connection.close()
        raise StoreBusy(
            f"{path} is open in another process ({error}); one process at a time speaks for a party."
        ) from None
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.execute("PRAGMA journal_size_limit=0")  # under an exclusive lock the journal is kept, cut to this
    connection.execute("PRAGMA synchronous=EXTRA")
    connection.execute("PRAGMA secure_delete=ON")
    connection.execute(_SCHEMA)

    def get(run: bytes, number: int, step: str) -> bytes | None:
        row = connection.execute(
            "SELECT bytes FROM taken WHERE run = ? AND round = ? AND step = ?", (run, number, step)
        ).fetchone()
        return None if row is None else bytes(row[0])

    def put(run: bytes, number: int, step: str, blob: bytes) -> bytes:
        try:
            connection.execute("INSERT INTO taken VALUES (?, ?, ?, ?)", (run, number, step, blob))
        except sqlite3.IntegrityError:
            if get(run, number, step) != blob:
                raise _refuse(step) from None
        return blob

    def last(run: bytes, step: str) -> int:
        row = connection.execute("SELECT MAX(round) FROM taken WHERE run = ? AND step = ?", (run, step)).fetchone()
        return -1 if row[0] is None else int(row[0])

    def erase(run: bytes, number: int, step: str) -> None:
        connection.execute(
            "UPDATE taken SET bytes = zeroblob(0) WHERE run = ? AND round = ? AND step = ?", (run, number, step)
        )

    return Store(put, get, last, erase, connection.close)
