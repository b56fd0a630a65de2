"""Files of a run that survive a kill at any moment: written beside, flushed, and renamed into place."""

from __future__ import annotations

import io
import json
import os
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
      ValueError: the file does not hold the leaves of `like` (another model or optimiser).
    """
    with np.load(path, allow_pickle=False) as file:
        facts = json.loads(str(file["facts"]))
        leaves, structure = jax.tree.flatten(like)
        saved = [file[f"leaf_{i}"] for i in range(len(file.files) - 1)]
    if [(a.shape, a.dtype) for a in saved] != [(np.shape(b), np.asarray(b).dtype) for b in leaves]:
        raise ValueError(
            f"{path} was written for another model or optimiser; resume with the run folder's own config.toml."
        )
    return jax.tree.unflatten(structure, [jax.numpy.asarray(a) for a in saved]), facts


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Append one JSON object as a line and flush it to disk."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All complete JSON lines; a torn last line (the process was killed while writing) is dropped."""
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Replace a JSON-lines file atomically."""
    write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace a JSON file atomically, indented for readers."""
    write_atomic(path, (json.dumps(value, indent=2) + "\n").encode())
