"""How messages name an option: in the spelling of the command line, TOML files and Python, since users of all three see the same messages."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def option(name: str, value: object) -> str:
    """One setting in both spellings.

    >>> option("test_fraction", 0.5)
    '--test-fraction 0.5 (test_fraction=0.5 in Python)'
    """
    return f"--{name.replace('_', '-')} {shlex.quote(str(value))} ({name}={value!r} in Python)"


def leave_out(*columns: str) -> str:
    """How columns are left out; a name with a comma fits into a TOML list only.

    >>> leave_out("sex")
    "leave it out: --drop sex (drop=['sex'] in Python)"
    """
    what = "it" if len(columns) == 1 else "them"
    python = f"(drop={list(columns)!r} in Python)"
    if any("," in name for name in columns):
        return f"leave {what} out: drop = {json.dumps(list(columns), ensure_ascii=False)} in a TOML file {python}"
    return f"leave {what} out: --drop {shlex.quote(','.join(columns))} {python}"


def declare_bounds(column: str, low: float = 0, high: float = 100) -> str:
    """How the public range of a number is declared.

    >>> declare_bounds("age")
    "[bounds] age = [0, 100] in a TOML file (bounds={'age': (0, 100)} in Python)"
    """
    return f"[bounds] {key(column)} = [{low:g}, {high:g}] in a TOML file (bounds={{{column!r}: ({low:g}, {high:g})}} in Python)"


def declare_levels(column: str, levels: Sequence[str]) -> str:
    """How to declare the public levels of a category; "..." marks levels that were left out.

    >>> print(declare_levels("sex", ["F", "M"]))
    [categorical] sex = ["F", "M"] in a TOML file (categorical={'sex': ['F', 'M']} in Python)
    """
    listed = json.dumps(list(levels), ensure_ascii=False)
    return f"[categorical] {key(column)} = {listed} in a TOML file (categorical={{{column!r}: {list(levels)!r}}} in Python)"


def key(column: str) -> str:
    """A column's name as a key of a TOML table."""
    return column if _BARE_KEY.fullmatch(column) else json.dumps(column, ensure_ascii=False)
