"""A party's record of the answers it has given, so that no answer is ever given twice, not even after a crash.

Two partial decryptions of one ciphertext differ only in their smudging noise, so their average has less of it, and
enough of them show the share. An entry is on disk (SQLite, full synchronisation) before the answer exists; a crash in
between costs that ciphertext, never the key.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable
from typing import NamedTuple

from fedjax_poisson.ckks.errors import RoundRefused


class AnswerGuard(NamedTuple):
    """The record of answers given.

    Attributes:
      claim: takes 1 or more byte strings (ciphertext digest, contribution ids); records them all, or raises
        `RoundRefused` if any is there already.
      path: its file, or None if it lives in memory and forgets at the end of the process.
    """

    claim: Callable[[Iterable[bytes]], None]
    path: str | None


def answer_guard(path: str | os.PathLike[str] | None) -> AnswerGuard:
    """Open or create a guard.

    Args:
      path: a file that belongs to one party and one key; None keeps the entries in memory, for simulations whose keys
        die with the process.

    Raises:
      ValueError: the file is something else, or cannot be written.
    """
    name = None if path is None else os.fspath(path)

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(name or ":memory:", timeout=30, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS answered (what BLOB PRIMARY KEY) WITHOUT ROWID")
        return connection

    try:
        memory = connect()
        if name is not None:
            memory.close()
    except sqlite3.Error as reason:
        raise ValueError(
            f"{name} cannot serve as an answer guard ({reason}); give a new or an earlier guard file in a writable "
            "folder."
        ) from None

    def claim(entries: Iterable[bytes]) -> None:
        listed = sorted(set(entries))
        if not listed:
            raise ValueError("Nothing to claim: give the digest of the ciphertext.")
        connection = memory if name is None else connect()
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany("INSERT INTO answered VALUES (?)", [(entry,) for entry in listed])
            except sqlite3.IntegrityError:
                connection.execute("ROLLBACK")
                raise RoundRefused(
                    "This party has answered for this ciphertext, or for a contribution in it, before; a second "
                    "answer would leak its key share. Have every sender encrypt afresh."
                ) from None
            connection.execute("COMMIT")
        finally:
            if name is not None:
                connection.close()

    return AnswerGuard(claim, name)
