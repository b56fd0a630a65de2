"""How a site's worker is doing: one small file that it replaces as it works, for people and for a monitoring system.

It holds names from the code and numbers, none about records: not even how many the site has. Written whole or not at all, in the site's folder.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from pathlib import Path
from typing import Any

from fedjax_poisson.federated.checkpoints import write_atomic

__all__ = ["STATUS_FILE", "age", "prometheus_text", "read_status", "write_status"]

STATUS_FILE = "status.json"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+ -]{0,79}|")
_PREFIX = "fedjax_poisson_site_"


def write_status(state: Path, phase: str, **facts: float | int | bool | str) -> None:
    """Replace the status.

    Args:
      state: the site's folder.
      phase: what the worker does, a word from the code: "waiting", "training", "refused", ...
      facts: by name; numbers, or short names from the code (a run's hexadecimal name, a refusal's class).

    Raises:
      ValueError: a fact is free text or no number; nothing was written.
      OSError: the file cannot be written.
    """
    values: dict[str, Any] = {"phase": phase, **facts, "pid": os.getpid()}
    for name, value in values.items():
        number = isinstance(value, int | float) and math.isfinite(value)
        if not _NAME.fullmatch(name) or not (number or (isinstance(value, str) and _WORD.fullmatch(value))):
            raise ValueError(
                f"the status {name!r:.60} must be a number or a short name from the code; seen: a {type(value).__name__}."
            )
    values["updated"] = int(time.time())
    path = state / STATUS_FILE
    write_atomic(path, (json.dumps(values, indent=2) + "\n").encode())


def read_status(state: Path) -> dict[str, Any]:
    """The newest status.

    Raises:
      FileNotFoundError: no worker has written one.
      ValueError: the file is damaged.
    """
    path = state / STATUS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no worker has run here yet; start one with: fedjax-poisson site serve POLICY.toml"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); the worker replaces it when it goes on.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no status; the worker replaces it when it goes on.")
    return found


def age(status: dict[str, Any], now: float | None = None) -> float:
    """Seconds since the status was written, infinity if it does not say."""
    written = status.get("updated")
    return max(0.0, (time.time() if now is None else now) - written) if isinstance(written, int | float) else math.inf


def prometheus_text(status: dict[str, Any]) -> str:
    """The numbers of a status in the text format of Prometheus (0.0.4), for the text-file collector of its node exporter; the phase is a label."""
    lines = []
    for name, value in sorted(status.items()):
        if isinstance(value, int | float) and _NAME.fullmatch(name):
            lines += [f"# TYPE {_PREFIX}{name} gauge", f"{_PREFIX}{name} {float(value):.17g}"]
    phase = str(status.get("phase", ""))
    if _WORD.fullmatch(phase):
        lines += [f"# TYPE {_PREFIX}phase gauge", f'{_PREFIX}phase{{phase="{phase}"}} 1']
    return "\n".join(lines) + "\n"
