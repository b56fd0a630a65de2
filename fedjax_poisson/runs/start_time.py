"""What a run's start took last time, kept beside the compiled programs: how long a user will wait for the first round, from a record and never from a guess.

A start is all that lies between the plan and the end of the first training round; nearly all of it is compilation or, where programs were kept, tracing and
look-up. Whether it compiled is seen from the folder: the kept programs became more. The record holds seconds and a hash of the settings, nothing of the data.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_poisson.federated.checkpoints import write_atomic
from fedjax_poisson.runs.config import Config

__all__ = ["Start", "StartRecord", "begin", "expected", "finish", "key_of", "programs_folder"]

_FILE = "start_seconds.json"
_ONLY_NUMBERS = ("epsilon", "delta", "rounds", "seed", "ledger")  # programs are the same, or nearly, whatever these are


class StartRecord(NamedTuple):
    """What earlier starts with the same settings took.

    Attributes:
      versions: of the package and of jax, in the last of them.
      compiled_seconds: of the last one that compiled its programs; None if none did.
      cached_seconds: of the last one that found all of them; None if none did.
    """

    versions: str
    compiled_seconds: float | None
    cached_seconds: float | None


class Start(NamedTuple):
    """A start that is under way.

    Attributes:
      folder: of kept programs; None where none are kept.
      key: of the settings.
      versions: of the package and of jax.
      programs: kept before it.
      earlier: what is on record; None if nothing is.
    """

    folder: Path | None
    key: str
    versions: str
    programs: int
    earlier: StartRecord | None


def programs_folder() -> Path | None:
    """Where jax keeps compiled programs in this process; None where it keeps none."""
    import jax

    settings = jax.config.values
    folder = settings["jax_compilation_cache_dir"]
    return Path(folder) if folder and settings["jax_enable_compilation_cache"] else None


def key_of(config: Config, device: str) -> str:
    """A hash of what decides which programs a run needs, apart from versions.

    Args:
      config: settings; the budget and other numbers that need no other programs are left out.
      device: what compiles, such as "cpu".
    """
    settings = {name: value for name, value in dataclasses.asdict(config).items() if name not in _ONLY_NUMBERS}
    return hashlib.sha256(json.dumps([settings, device], sort_keys=True, default=str).encode()).hexdigest()[:32]


def begin(folder: Path | None, key: str, versions: str) -> Start:
    """Look up what earlier starts took; a record that cannot be read counts as none.

    Args:
      folder: `programs_folder()`.
      key: `key_of(...)`.
      versions: of the package and of jax.
    """
    if folder is None:
        return Start(None, key, versions, 0, None)
    try:
        earlier = StartRecord(**_read(folder)[key])
    except (KeyError, TypeError):
        earlier = None
    return Start(folder, key, versions, _programs(folder), earlier)


def expected(start: Start) -> tuple[str, float | None]:
    """What the user waits for, and how many seconds it took last time; None where no such start is on record."""
    if start.folder is None:
        return "compiling, not cached", None
    earlier = start.earlier
    if earlier is None:
        return "compiling (first time), cached afterwards", None
    if earlier.versions == start.versions and start.programs:
        return "loading compiled programs", earlier.cached_seconds
    return "compiling, cached afterwards", earlier.compiled_seconds


def finish(start: Start, seconds: float) -> None:
    """Record a start that is over. A folder that cannot be written costs the next start its number, nothing else.

    Args:
      start: from `begin`.
      seconds: from the plan to the end of the first training round.
    """
    if start.folder is None:
        return
    compiled = _programs(start.folder) > start.programs
    # What was compiled by an earlier version stays an estimate; what was loaded is known for these versions only.
    same = start.earlier is not None and start.earlier.versions == start.versions
    before = start.earlier.compiled_seconds if start.earlier else None
    loaded = start.earlier.cached_seconds if same and start.earlier else None
    made = StartRecord(start.versions, seconds if compiled else before, loaded if compiled else seconds)
    try:
        rows = {**_read(start.folder), start.key: made._asdict()}
        write_atomic(start.folder / _FILE, json.dumps(rows).encode())
    except OSError:
        pass


def _read(folder: Path) -> dict[str, Any]:
    try:
        rows = json.loads((folder / _FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return rows if isinstance(rows, dict) else {}


def _programs(folder: Path) -> int:
    try:
        return sum(name.endswith("-cache") for name in os.listdir(folder))
    except OSError:
        return 0
