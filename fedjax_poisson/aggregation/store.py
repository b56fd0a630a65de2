"""Write-ahead: what a party is about to send is on disk before its first byte leaves; after a restart the same bytes or none.

A store keeps records under (run, round, step), each written once. `put` returns only when the record is durable, and refuses other bytes for a step
that was taken. Secrets of a round (box key, shares' seeds) are kept under steps of their own and erased with `erase`.

A file on disk also holds a chain of hashes over its records, and beside it lies a mark that says how far the chain reached (`store_mark`): a store that was
damaged, lost or set back to an older copy is refused by its name, since whoever speaks from it would answer a second time.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from fedjax_poisson.aggregation.refusals import AlreadyDone
from fedjax_poisson.aggregation.store_mark import Mark, mark_file
from fedjax_poisson.aggregation.wire import prefixed, u64

__all__ = ["Store", "StoreBusy", "StoreDamaged", "StoreUnwritable", "memory_store", "sqlite_store"]

_COLUMNS = ("place", "run", "round", "step", "hash", "bytes")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS taken (
  place INTEGER PRIMARY KEY, run BLOB NOT NULL, round INTEGER NOT NULL, step TEXT NOT NULL, hash BLOB NOT NULL, bytes BLOB NOT NULL,
  UNIQUE (run, round, step)
)
"""


class StoreBusy(RuntimeError):
    """Another process speaks for this party."""


class StoreDamaged(RuntimeError):
    """The file is not the store that this party has spoken from: damaged, lost, or an older copy."""


class StoreUnwritable(RuntimeError):
    """A step could not be written down (full disk, no permission), so nothing of it may be said."""


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
    longer: keep the file on an encrypted disk. The mark (`store_mark`) is a second small file; a backup of both that is put back is not noticed here, and
    counts among the f members or clients that the protocol withstands.

    Args:
      path: the file; made if it is missing. It is locked while the store is open.

    Raises:
      StoreBusy: another process has it open.
      StoreDamaged: it is not a store, its records do not follow from one another, or it holds fewer than were taken.
      StoreUnwritable: it cannot be written; also raised by the store's functions.
    """
    path = Path(path)
    with _named(path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0)
    try:
        with _named(path):
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
            connection.execute("PRAGMA journal_mode=DELETE")
            connection.execute(
                "PRAGMA journal_size_limit=0"
            )  # under an exclusive lock the journal is kept, cut to this
            connection.execute("PRAGMA synchronous=EXTRA")
            connection.execute("PRAGMA secure_delete=ON")
            connection.execute(_SCHEMA)
            heads = _heads(connection, path)
            marked = mark_file(path)
    except BaseException:
        connection.close()
        raise
    try:
        with _named(path):
            if (known := marked.read()) is not None and (
                known.records >= len(heads) or heads[known.records] != known.head
            ):
                raise StoreDamaged(
                    f"{path} holds {len(heads) - 1} steps and is not what this party has spoken from ({known.records} were taken): it was lost, or replaced by "
                    f"another or an older copy. {_RESTORE}"
                )
            marked.write(Mark(len(heads) - 1, heads[-1]))
    except BaseException:
        connection.close()
        marked.close()
        raise
    newest = Mark(len(heads) - 1, heads[-1])

    def get(run: bytes, number: int, step: str) -> bytes | None:
        with _named(path):
            row = connection.execute(
                "SELECT bytes FROM taken WHERE run = ? AND round = ? AND step = ?", (run, number, step)
            ).fetchone()
        return None if row is None else bytes(row[0])

    def put(run: bytes, number: int, step: str, blob: bytes) -> bytes:
        nonlocal newest
        digest = hashlib.sha256(blob).digest()
        with _named(path):
            try:
                connection.execute(
                    "INSERT INTO taken VALUES (?, ?, ?, ?, ?, ?)", (newest.records + 1, run, number, step, digest, blob)
                )
                newest = Mark(newest.records + 1, _next_head(newest.head, run, number, step, digest))
            except sqlite3.IntegrityError:
                if get(run, number, step) != blob:
                    raise _refuse(step) from None
            marked.write(newest)
        return blob

    def last(run: bytes, step: str) -> int:
        with _named(path):
            row = connection.execute("SELECT MAX(round) FROM taken WHERE run = ? AND step = ?", (run, step)).fetchone()
        return -1 if row[0] is None else int(row[0])

    def erase(run: bytes, number: int, step: str) -> None:
        with _named(path):
            connection.execute(
                "UPDATE taken SET bytes = zeroblob(0) WHERE run = ? AND round = ? AND step = ?", (run, number, step)
            )

    def close() -> None:
        connection.close()
        marked.close()

    return Store(put, get, last, erase, close)


_RESTORE = "Restore the newest copy; without it this party must not speak again under its key: give it a new one and enrol it anew."


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """SQLite's and the system's errors under the names of this module."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise StoreBusy(
                f"{path} is open in another process ({error}); one process at a time speaks for a party: stop the other, or wait for it."
            ) from None
        raise _unwritable(path, error) from error
    except sqlite3.DatabaseError as error:
        raise StoreDamaged(f"{path} is not a store of steps ({error}). {_RESTORE}") from error
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: Exception) -> StoreUnwritable:
    return StoreUnwritable(
        f"the store {path} cannot be written ({error}), so nothing was said. Check the disk's space and the permissions of its folder, then start again."
    )


def _next_head(head: bytes, run: bytes, number: int, step: str, digest: bytes) -> bytes:
    """The chain after a record; what is erased later leaves it as it is."""
    return hashlib.sha256(head + prefixed(run) + u64(number) + prefixed(step.encode()) + digest).digest()


def _heads(connection: sqlite3.Connection, path: Path) -> list[bytes]:
    """The chain's heads after 0, 1, ... records, each record checked.

    Raises:
      StoreDamaged: a record was changed or is missing, or the file is of another version.
    """
    columns = tuple(row[1] for row in connection.execute("PRAGMA table_info(taken)"))
    if columns != _COLUMNS:
        raise StoreDamaged(f"{path} has a table of another kind ({', '.join(columns)}). {_RESTORE}")
    (sound,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if sound != "ok":
        raise StoreDamaged(f"{path} is damaged ({sound}). {_RESTORE}")
    heads = [bytes(32)]
    for place, run, number, step, digest, blob in connection.execute("SELECT * FROM taken ORDER BY place"):
        kinds = (type(run), type(number), type(step), type(digest), type(blob))
        whole = kinds == (bytes, int, str, bytes, bytes) and 0 <= number and place == len(heads)
        if not whole or (blob and hashlib.sha256(blob).digest() != digest):  # no bytes: erased
            raise StoreDamaged(f"record {len(heads)} of {path} was changed, or one before it is missing. {_RESTORE}")
        heads.append(_next_head(heads[-1], run, number, step, digest))
    return heads
