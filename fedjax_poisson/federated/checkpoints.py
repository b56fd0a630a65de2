"""Files of a run that survive a kill at any moment: written to a temporary file, flushed, and renamed into place."""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file so that a reader, or a crash, sees the old bytes or the new ones, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(path.suffix + ".part")
    with open(beside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut; nothing where the system has no such thing."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class CheckpointDamaged(RuntimeError):
    """The checkpoint cannot be read: its contents are lost, but the charges stand."""


def save_tree(path: Path, tree: Any, **facts: Any) -> None:
    """Save the leaves of a pytree of arrays and some JSON facts in one npz (no pickles)."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {f"leaf_{i}": leaf for i, leaf in enumerate(leaves)}
    np.savez(buffer, facts=np.array(json.dumps(facts)), **arrays)
    write_atomic(path, buffer.getvalue())


def load_tree(path: Path, like: Any) -> tuple[Any, dict[str, Any]]:
    """Load what `save_tree` wrote into the structure of `like`.

    Raises:
      CheckpointDamaged: the file is no checkpoint any more.
      ValueError: it does not hold the leaves of `like` (another model or optimiser).
    """
    saved, facts = _read(path)
    leaves, structure = jax.tree.flatten(like)
    if [(a.shape, a.dtype) for a in saved] != [(np.shape(b), np.asarray(b).dtype) for b in leaves]:
        raise ValueError(
            f"{path} was written for another model or optimiser; resume with the run folder's own config.toml."
        )
    return jax.tree.unflatten(structure, [jax.numpy.asarray(a) for a in saved]), facts


def read_facts(path: Path) -> dict[str, Any]:
    """The JSON facts of a checkpoint.

    Raises:
      CheckpointDamaged: the file is no checkpoint any more.
    """
    return _read(path)[1]


def _read(path: Path) -> tuple[list[np.ndarray], dict[str, Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            return [file[f"leaf_{i}"] for i in range(len(file.files) - 1)], facts
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, IndexError, TypeError, ValueError, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        raise CheckpointDamaged(f"{path} is damaged ({type(error).__name__})") from error


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Append one JSON object as a line and flush it to disk, with the file's name if the file is new."""
    new = not path.exists()
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync_folder(path.parent)


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The JSON objects of a file, and how many lines are not one; a torn last line (killed while writing) is not counted."""
    rows: list[dict[str, Any]] = []
    damaged = 0
    if not path.exists():
        return rows, damaged
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for place, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if isinstance(row, dict) and isinstance(row.get("round"), int):
            rows.append(row)
        elif place < len(lines):
            damaged += 1
    return rows, damaged


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Replace a JSON-lines file atomically."""
    write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace a JSON file atomically, indented for readers."""
    write_atomic(path, (json.dumps(value, indent=2) + "\n").encode())
