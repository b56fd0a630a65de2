"""Names, versions and hashes out of pip's report of a resolution, for `make_wheels.sh`.

lock.py wanted REPORT OWN-WHEEL     what is to be downloaded, one NAME==VERSION a line, without the project's own wheel
lock.py lock REPORT FOLDER          the lock: each with the SHA-256 of its wheel in FOLDER, which must be the one that the index stated
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Package(NamedTuple):
    """One resolved package; `digest` is what the index states, or empty."""

    name: str
    version: str
    digest: str


def normal(name: str) -> str:
    """A package's name, as PEP 503 compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def packages(report: Path) -> Iterator[Package]:
    """What pip resolved."""
    for one in json.loads(report.read_text())["install"]:
        digest = one["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256", "")
        yield Package(normal(one["metadata"]["name"]), one["metadata"]["version"], digest)


def wheels(folder: Path) -> dict[tuple[str, str], Path]:
    """Wheels of a folder by (name, version)."""
    found = {}
    for path in sorted(folder.glob("*.whl")):
        name, version = path.name.split("-")[:2]
        found[normal(name), version] = path
    return found


def lock(report: Path, folder: Path) -> Iterator[str]:
    """Lines of a lock.

    Raises:
      SystemExit: a wheel is missing, or is not the one that was resolved.
    """
    there = wheels(folder)
    for one in sorted(packages(report)):
        path = there.get((one.name, one.version))
        if path is None:
            sys.exit(f"lock.py: there is no wheel of {one.name} {one.version} in {folder}")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if one.digest not in ("", digest):
            sys.exit(
                f"lock.py: {path.name} has SHA-256 {digest}, and the index stated {one.digest}; it was altered on its way"
            )
        yield f"{one.name}=={one.version} --hash=sha256:{digest}"


def main(command: str, report: str, place: str) -> None:
    """Print what was asked for."""
    if command == "wanted":
        own = normal(Path(place).name.split("-")[0])
        print("\n".join(f"{one.name}=={one.version}" for one in packages(Path(report)) if one.name != own))
    elif command == "lock":
        print("\n".join(lock(Path(report), Path(place))))
    else:
        sys.exit(f"lock.py: {command} is neither wanted nor lock")


if __name__ == "__main__":
    main(*sys.argv[1:])
