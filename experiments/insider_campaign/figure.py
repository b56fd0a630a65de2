"""The figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """To come."""
