"""The links of the privacy ledger: what a row holds, how it is hashed, and the tables they live in.

A link's hash is SHA-256 over the canonical JSON (sorted keys, no spaces, exact floats) of all its fields, among them
the hash of its curve and the hash of the link before it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedjax_poisson.accounting.renyi import FloatArray

FORMAT = "privacy-ledger-1"
FIELDS = (
    *("id", "time", "purpose", "label", "unit", "adjacency", "mechanism", "parameters"),
    *("honest_senders", "senders", "curve", "spent", "previous", "hash"),
)
COLUMNS = ", ".join(FIELDS)
_BUSY_SECONDS = 60.0
_FINAL = "BEGIN SELECT RAISE(ABORT, 'a release on the ledger is final'); END"
SCHEMA = (
    "CREATE TABLE settings (id INTEGER PRIMARY KEY CHECK (id = 0), body TEXT NOT NULL, hash TEXT NOT NULL)",
    "CREATE TABLE curves (hash TEXT PRIMARY KEY, rdp BLOB NOT NULL)",
    "CREATE TABLE releases (id INTEGER PRIMARY KEY, "
    + ", ".join(f"{name} {'INTEGER' if name.endswith('senders') else 'TEXT'} NOT NULL" for name in FIELDS[1:])
    + ", UNIQUE (hash))",
    f"CREATE TRIGGER releases_are_final BEFORE UPDATE ON releases {_FINAL}",
    f"CREATE TRIGGER releases_stay BEFORE DELETE ON releases {_FINAL}",
)


class LedgerCorrupt(RuntimeError):
    """The file is not the chain it claims to be; the message names the first bad row."""


class Release(NamedTuple):
    """One row of the ledger.

    Attributes:
      id: 1, 2, ... in the order of spending.
      time: UTC, ISO 8601.
      purpose: what it was for: "update", "clip", "standardize", "screening", "evaluation", ...
      label: the caller's name for it, such as "round 12"; may repeat.
      unit: "record", "patient" or "client".
      adjacency: "zero_out" or "replace_one".
      mechanism: name of the mechanism.
      parameters: its parameters, JSON values.
      honest_senders: senders whose noise was counted.
      senders: senders in the sum.
      rdp: curve on the ledger's orders, float64[n].
      spent: divergence at the ledger's order a* after this release, rounded up.
      previous: hash of the link before.
      hash: hash of this link.
    """

    id: int
    time: str
    purpose: str
    label: str
    unit: str
    adjacency: str
    mechanism: str
    parameters: dict[str, Any]
    honest_senders: int
    senders: int
    rdp: FloatArray
    spent: float
    previous: str
    hash: str


def canonical(value: object) -> str:
    """The one JSON text of a value; NaN and infinity are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def digest(content: str | bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def pack_curve(rdp: FloatArray) -> bytes:
    """Exact little-endian float64 bytes of a curve."""
    return rdp.astype("<f8").tobytes()


def unpack_curve(blob: bytes) -> FloatArray:
    """The curve of `pack_curve`, read-only."""
    curve = np.frombuffer(blob, "<f8").astype(np.float64)
    curve.setflags(write=False)
    return curve


def link_hash(row: tuple[Any, ...]) -> str:
    """Hash of a row of `FIELDS`, its last field (the hash itself) left out."""
    return digest(canonical(dict(zip(FIELDS[:-1], row[: len(FIELDS) - 1], strict=True))))


def as_release(row: tuple[Any, ...], curve: FloatArray) -> Release:
    """A stored row and its curve as a `Release`."""
    return Release._make((*row[:7], json.loads(row[7]), *row[8:10], curve, float.fromhex(row[11]), *row[12:]))


def connect(path: Path) -> sqlite3.Connection:
    """Open the file with a write-ahead log and a flush to disk at every commit.

    Raises:
      LedgerCorrupt: the file is not an SQLite database.
    """
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
    except sqlite3.OperationalError:
        connection.close()
        raise
    except sqlite3.DatabaseError as error:
        connection.close()
        raise LedgerCorrupt(f"{path} is not a privacy ledger: {error}") from error
    return connection


def tables(connection: sqlite3.Connection) -> set[str]:
    """Names of the tables in the file."""
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
