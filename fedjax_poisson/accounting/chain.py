"""The links of the privacy ledger: the contents of a row, how it is hashed, and the tables that store it.

A link's hash is SHA-256 over the canonical JSON (sorted keys, no spaces, exact floats) of all its fields, among them
the hash of its charge (`law.Charge`) and the hash of the link before it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_poisson.accounting.law import Charge, Law, charged, checked, first_meter, follows, unpack

FORMAT = "privacy-ledger-3"
MEMORY = ":memory:"
"""The path of a ledger that is gone with its process."""

FIELDS = (
    *("id", "time", "purpose", "label", "unit", "adjacency", "mechanism", "parameters"),
    *("honest_senders", "senders", "data", "origin", "charge", "meter", "distance", "previous", "hash"),
)
COLUMNS = ", ".join(FIELDS)
PLACE = {name: place for place, name in enumerate(FIELDS)}
"""Where a field stands in a row."""
_BUSY_SECONDS = 60.0
_FINAL = "BEGIN SELECT RAISE(ABORT, 'a release on the ledger is final'); END"
SCHEMA = (
    "CREATE TABLE settings (id INTEGER PRIMARY KEY CHECK (id = 0), body TEXT NOT NULL, hash TEXT NOT NULL)",
    "CREATE TABLE charges (hash TEXT PRIMARY KEY, body BLOB NOT NULL)",
    "CREATE TABLE releases (id INTEGER PRIMARY KEY, "
    + ", ".join(f"{name} {'INTEGER' if name.endswith('senders') else 'TEXT'} NOT NULL" for name in FIELDS[1:])
    + ", UNIQUE (hash))",
    f"CREATE TRIGGER releases_are_final BEFORE UPDATE ON releases {_FINAL}",
    f"CREATE TRIGGER releases_stay BEFORE DELETE ON releases {_FINAL}",
)


class LedgerCorrupt(RuntimeError):
    """The file is not the chain it claims to be, or not the one that was pinned; the message names the first bad row."""


class LedgerUnwritable(RuntimeError):
    """A release could not be written down (full disk, no permission), so nothing may be opened."""


class Pin(NamedTuple):
    """How far a ledger was known to reach: keep it elsewhere (a checkpoint, a summary).

    Attributes:
      rows: number of releases.
      head: hash of the last of them, or of the settings where there is none.
    """

    rows: int
    head: str


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
      data: what names the data set, whatever is learned from it (`data.Sites`' provenance); empty if not said.
      origin: JSON values about where the release was made: the run, its aggregator, where its randomness was from.
      charge: its Renyi curve on the ledger's orders, float64[n], or its cost in remaining variance (`law`).
      meter: the ledger's number after this release (`law`): divergence spent at its order a*, or variance left.
      distance: total-variation distance of everything released so far from the laws that the curves are of, rounded up.
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
    data: str
    origin: dict[str, Any]
    charge: Charge
    meter: float
    distance: float
    previous: str
    hash: str


def canonical(value: object) -> str:
    """The one JSON text of a value; NaN and infinity are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def digest(content: str | bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def link_hash(row: tuple[Any, ...]) -> str:
    """Hash of a row of `FIELDS`, its last field (the hash itself) left out."""
    return digest(canonical(dict(zip(FIELDS[:-1], row[: len(FIELDS) - 1], strict=True))))


def as_release(row: tuple[Any, ...], charge: Charge) -> Release:
    """A stored row and its charge as a `Release`."""
    found = dict(zip(FIELDS, row, strict=True))
    found["charge"] = charge
    for name in ("parameters", "origin"):
        found[name] = json.loads(found[name])
    for name in ("meter", "distance"):
        found[name] = float.fromhex(found[name])
    return Release(**found)


def read_charges(connection: sqlite3.Connection, law: Law, path: Path) -> dict[str, Charge]:
    """The charges of a ledger by their hashes.

    Raises:
      LedgerCorrupt: one is not of the law.
    """
    found = connection.execute("SELECT hash, body FROM charges").fetchall()
    try:
        return {key: unpack(law, blob) for key, blob in found}
    except (ValueError, TypeError) as error:
        raise LedgerCorrupt(f"a charge on the ledger {path} cannot be read ({error}): it was changed") from error


def check_pinned(connection: sqlite3.Connection, pin: Pin, *, genesis: str, path: Path) -> None:
    """Refuse a ledger that does not hold what it held when the pin was taken; later rows may follow.

    Raises:
      LedgerCorrupt: rows are missing, or the chain is another one.
    """
    last = connection.execute("SELECT max(id) FROM releases").fetchone()[0] or 0
    if last < pin.rows:
        raise LedgerCorrupt(
            f"{path} holds {last} releases, but {pin.rows} had been charged: it was lost, cut or replaced by an older copy"
        )
    found: str | None = genesis
    if pin.rows:
        found = connection.execute("SELECT hash FROM releases WHERE id = ?", (pin.rows,)).fetchone()[0]
    if found != pin.head:
        raise LedgerCorrupt(
            f"row {pin.rows} of {path} is not the release that was charged (hash {str(found)[:12]}, expected {pin.head[:12]}): "
            "it is another ledger, or was written anew"
        )


def verify_chain(
    connection: sqlite3.Connection,
    *,
    genesis: str,
    law: Law,
    unit: str,
    adjacency: str,
    expected_head: str | None,
) -> int:
    """Recompute every link; the number of releases. The facts are those of the `Ledger`.

    Raises:
      LedgerCorrupt: naming the first bad row.
    """
    body, first = connection.execute("SELECT body, hash FROM settings").fetchone()
    if digest(body) != first or first != genesis or canonical(json.loads(body)) != body:
        raise LedgerCorrupt("the settings of the ledger (budget, unit, adjacency, orders) were changed")
    blobs = dict(connection.execute("SELECT hash, body FROM charges"))
    previous, meter, apart, count = genesis, first_meter(law), 0.0, 0
    for row in connection.execute(f"SELECT {COLUMNS} FROM releases ORDER BY id"):
        count += 1
        found = dict(zip(FIELDS, row, strict=True))
        blob, name = blobs.get(found["charge"], b""), f"row {count} ({found['label']!r})"
        if found["id"] != count:
            raise LedgerCorrupt(f"row {count} is missing, the next one is {found['id']}: a release was removed")
        if found["previous"] != previous or link_hash(row) != found["hash"]:
            raise LedgerCorrupt(f"{name} does not follow from the row before it: it was changed, inserted or moved")
        after = _after(law, meter, blob) if digest(blob) == found["charge"] else None
        if after is None:
            raise LedgerCorrupt(f"the charge of {name} was changed or removed")
        meter = float.fromhex(found["meter"])
        if not follows(law, meter, after) or (found["unit"], found["adjacency"]) != (unit, adjacency):
            raise LedgerCorrupt(f"the total, unit or adjacency of {name} is not the ledger's")
        apart, before = float.fromhex(found["distance"]), apart
        if apart < before:
            raise LedgerCorrupt(f"the samplers' distance falls in {name}: it only adds up")
        previous = found["hash"]
    if expected_head is not None and previous != expected_head:
        raise LedgerCorrupt(
            f"the chain of {count} rows ends in {previous[:12]}, expected {expected_head[:12]}: rows were cut from or added at the end"
        )
    return count


def _after(law: Law, meter: float, blob: bytes) -> float | None:
    """The meter after a stored charge; None where it is not a charge of the law, or more than was left."""
    try:
        return charged(law, meter, checked(law, unpack(law, blob), "a release"))
    except (ValueError, KeyError, TypeError):
        return None


def connect(path: Path, *, create: bool = False) -> sqlite3.Connection:
    """Open the file for writing: one file at rest, flushed to disk at every commit.

    The rollback journal is truncated and flushed at each commit (`synchronous=FULL`), so a committed release survives a power cut, and a copy of the
    closed file is the whole ledger (a write-ahead log would be a second file, and reading it would write).

    Raises:
      LedgerCorrupt: the file is not an SQLite database.
      LedgerUnwritable: it cannot be opened for writing.
    """
    mode = "rwc" if create else "rw"
    try:
        connection = _open(path, mode)
        connection.execute("PRAGMA journal_mode=TRUNCATE")
        connection.execute("PRAGMA synchronous=FULL")
    except sqlite3.OperationalError as error:
        raise unwritable(path, error) from error
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open the file without ever writing to it or next to it.

    A journal that a killed process left must be rolled back before the file can be read; that is done on a copy.

    Raises:
      LedgerCorrupt: the file is not an SQLite database.
    """
    try:
        return _open(path, "ro")
    except sqlite3.OperationalError:
        pass
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "ledger.sqlite"
        shutil.copyfile(path, copy)
        for end in ("-journal", "-wal"):
            if (beside := Path(str(path) + end)).exists():
                shutil.copyfile(beside, str(copy) + end)
        with contextlib.closing(_open(copy, "rw")) as repaired:
            held = sqlite3.connect(MEMORY, isolation_level=None, check_same_thread=False)
            repaired.backup(held)
    return held


def _open(path: Path, mode: str) -> sqlite3.Connection:
    where = MEMORY if str(path) == MEMORY else f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(
        where,
        uri=where != MEMORY,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        raise
    except sqlite3.DatabaseError as error:
        connection.close()
        raise LedgerCorrupt(f"{path} is not a privacy ledger: {error}") from error
    return connection


def unwritable(path: Path, error: sqlite3.Error) -> LedgerUnwritable:
    """The message if the database refuses to be written."""
    return LedgerUnwritable(
        f"the ledger {path} cannot be written ({error}), so nothing was opened. Check the disk's space and the permissions of its folder, then go on."
    )


@contextlib.contextmanager
def reading_from(path: Path) -> Iterator[None]:
    """SQLite's errors while a ledger is read, under the names of this module.

    Raises:
      LedgerCorrupt: what the file holds cannot be read.
      LedgerUnwritable: another process holds it for writing.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            raise unwritable(path, error) from error
        raise LedgerCorrupt(f"the ledger {path} cannot be read ({error}): it is damaged") from error


def tables(connection: sqlite3.Connection) -> set[str]:
    """Names of the tables in the file."""
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
