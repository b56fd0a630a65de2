"""Files that the command keeps between runs, and the source that what is in them follows from.

A file is written whole or not at all, and begins with a hash of the rest: one that is not what was written is as good as none. Its name is a hash of all that
its content follows from, the source of this package first. The source's hash is that of the files as this module was imported. What the system knows of them is
looked at again before a file is written, and if it differs (a package that was updated under a running worker) nothing is kept. A file that is read is another
process's, which wrote it from the source of its name. Who may write to the folder decides what is read: `start` makes folders for the user alone.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import MutableMapping
from pathlib import Path

__all__ = ["SOURCE", "TABLES", "TRACES", "forget", "named", "read", "source", "write"]

TRACES, TABLES = "FEDJAX_POISSON_TRACES", "FEDJAX_POISSON_TABLES"
"""The variables that name the folders of traced programs (`traced_programs`) and of sampling tables (`randomness.kept_tables`); `start` sets them."""
_PACKAGE = Path(__file__).parent
_DIGEST = hashlib.sha256().digest_size
_TEMPORARY = "writing-"


def forget(environment: MutableMapping[str, str]) -> None:
    """Keep and read nothing from now on."""
    for variable in (TRACES, TABLES):
        environment.pop(variable, None)


def named(folder: Path, what: object) -> Path:
    """The file for what is told apart by its `repr`."""
    return folder / hashlib.sha256(repr(what).encode()).hexdigest()


def read(path: Path) -> bytes | None:
    """What was written, or None if there is no such file or it is damaged."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    digest, body = raw[:_DIGEST], raw[_DIGEST:]
    return body if hashlib.sha256(body).digest() == digest else None


def write(path: Path, body: bytes, what: str) -> None:
    """Keep it, unless the package was replaced meanwhile; a folder that cannot be written to is a warning, since everything works without."""
    if SOURCE is None or _stamps() != _STAMPS:
        return
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=_TEMPORARY, delete=False) as file:
            try:
                file.write(hashlib.sha256(body).digest() + body)
                file.flush()
                os.replace(file.name, path)
            except BaseException:  # Ctrl-C too
                os.unlink(file.name)
                raise
    except OSError as error:
        warnings.warn(f"{what} is not kept, {path.parent}: {error}", stacklevel=3)


def source() -> str | None:
    """A hash of the package's source as it lies on disk; None where it is not all there (a zip file, compiled files alone)."""
    state = hashlib.sha256()
    try:
        for file in _files():
            state.update(str(file.relative_to(_PACKAGE)).encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    except OSError:
        return None
    return state.hexdigest()


def _stamps() -> list[tuple[str | int, ...]] | None:
    """What the system knows of each file of the source, its place on the disk and the time of its last change among it: another after any replacement."""
    try:
        facts = [(str(file), file.stat()) for file in _files()]
    except OSError:
        return None
    return [(name, one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino) for name, one in facts]


def _files() -> list[Path]:
    """The source's files.

    Raises:
      FileNotFoundError: this one is not among them.
    """
    files = sorted(_PACKAGE.rglob("*.py"))
    if _PACKAGE / Path(__file__).name not in files:
        raise FileNotFoundError(__file__)
    return files


_STAMPS = _stamps()  # before the hash: what is replaced in between differs from these
SOURCE = source()
