"""Every event by which a process changes files under a folder, and what goes wrong at one of them.

Python's files are watched by wrapping `open`, `os.fsync`, `os.replace` and `os.unlink`; SQLite's by the table of system calls of its unix VFS, which exists
for this purpose (`xSetSystemCall`). A process can be killed before or in the middle of an event, or the disk be full from an event on. What a power cut
leaves is built beside that: bytes of Python's files that were not synchronised are gone, and renames and new files whose folder was not. SQLite's own files
are taken to be synchronised when SQLite says so, which its makers test and nobody can watch from here: a sync does not pass through the table.
"""

from __future__ import annotations

import _sqlite3
import builtins
import contextlib
import ctypes
import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["EXITED", "KINDS", "Event", "Watch", "perform_half", "strike", "watched"]

KINDS = ("kill", "exit", "torn", "full disk", "power cut")
"""What `strike` knows: SIGKILL before the event; `os._exit` before it; SIGKILL after half of it; ENOSPC in it and after it; power is cut before it."""
EXITED = 41


class Event(NamedTuple):
    """One change that is about to be made.

    Attributes:
      number: 1, 2, ... in this process.
      call: create, write, truncate, fsync, replace or unlink; those of SQLite with "sqlite " in front.
      path: what is changed; of a rename the old name.
      target: of a rename the new name.
      data: what will be written.
      place: byte where it will be.
    """

    number: int
    call: str
    path: Path
    target: Path | None = None
    data: bytes = b""
    place: int = 0

    def transition(self, folder: Path) -> str:
        """The event by its call and file, without numbers that differ from run to run."""
        file = (self.target or self.path).relative_to(folder).as_posix()
        if file.endswith(".round"):
            file = "transcripts/*.round"
        return f"{self.call} {file or '.'}"


class Watch:
    """What is under watch, and what a power cut would take away.

    Args:
      folder: only changes below it are events.
      decide: called with every event before it happens; may copy files or end the process. "full disk" makes the event fail with ENOSPC.
    """

    def __init__(self, folder: Path, decide: Callable[[Event], str | None]) -> None:
        self.folder, self.decide, self.number = folder, decide, 0
        self.lost: dict[Path, bytes | None] = {}  # path -> its bytes after a power cut; None: not there
        self.entries: dict[Path, bytes | None] = {}  # the same for names whose folder is not synchronised

    def inside(self, path: Path) -> bool:
        """Whether a path is watched."""
        return path == self.folder or self.folder in path.parents

    def event(self, call: str, path: Path, **facts: Any) -> None:
        """Announce a change.

        Raises:
          OSError: the disk is full.
        """
        self.number += 1
        found = Event(self.number, call, path, **facts)
        if self.decide(found) == "full disk" and call not in ("fsync", "unlink", "sqlite unlink"):
            perform_half(found)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # without a name, as a write fails

    def written(self, path: Path) -> None:
        """A Python file is about to change: until it is synchronised, its bytes are those of before."""
        if path not in self.lost:
            self.lost[path] = path.read_bytes() if path.exists() else None

    def after_power_cut(self) -> dict[Path, bytes | None]:
        """What the disk holds under each path that is not safe now; None where it holds nothing."""
        return {**self.lost, **self.entries}


def perform_half(event: Event, root: tuple[Path, Path] | None = None) -> None:
    """Write the first half of a write's bytes, in the watched folder or, given (folder, copy), in a copy of it."""
    if not event.data:
        return
    path = event.path if root is None else root[1] / event.path.relative_to(root[0])
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, event.data[: len(event.data) // 2], event.place)
    finally:
        os.close(descriptor)


def strike(watch: Watch, event: Event, kind: str) -> str | None:
    """Let a fault of this kind happen now; only a full disk returns."""
    if kind == "full disk":
        return kind
    if kind == "exit":
        os._exit(EXITED)
    if kind == "torn":
        perform_half(event)
    if kind == "power cut":
        for path, data in watch.after_power_cut().items():
            if data is None:
                _unlink(path)
            else:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.write(descriptor, data)
                os.close(descriptor)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("the process is gone")


def _unlink(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        _original_unlink(path)


_original_unlink = os.unlink


class _File:
    """A file of Python whose changes are events; they are on their way to the system at once, as if nothing were buffered."""

    def __init__(self, inner: Any, path: Path, watch: Watch) -> None:
        self._inner, self._path, self._watch = inner, path, watch

    def write(self, data: Any) -> int:
        raw = data.encode() if isinstance(data, str) else bytes(data)
        place = self._path.stat().st_size if "a" in self._inner.mode else self._inner.tell()
        self._watch.written(self._path)
        self._watch.event("write", self._path, data=raw, place=place)
        done = self._inner.write(data)
        self._inner.flush()
        return done

    def truncate(self, size: int | None = None) -> int:
        self._watch.written(self._path)
        self._watch.event("truncate", self._path)
        return self._inner.truncate(size)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *error: object) -> None:
        self._inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _python(watch: Watch) -> dict[tuple[Any, str], Any]:
    """Replacements of Python's functions: (module, name) to function."""
    plain_open, fsync, replace, unlink = builtins.open, os.fsync, os.replace, os.unlink

    def open_(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if not isinstance(file, str | os.PathLike) or not set(mode) & set("wax+"):
            return plain_open(file, mode, *rest, **named)
        path = Path(os.path.abspath(file))
        if not watch.inside(path) or path.is_dir():  # in a folder: a file without a name, which no death leaves
            return plain_open(file, mode, *rest, **named)
        new = not path.exists()
        if new or "w" in mode:
            watch.event("create", path)
            if new:
                watch.entries.setdefault(path, None)
            watch.written(path)
        return _File(plain_open(file, mode, *rest, **named), path, watch)

    def fsync_(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if watch.inside(path):
            watch.event("fsync", path)
        fsync(descriptor)
        watch.lost.pop(path, None)
        if path.is_dir():
            for entry in [each for each in list(watch.entries) if each.parent == path]:  # other threads may add some
                del watch.entries[entry]

    def replace_(source: Any, target: Any, **named: Any) -> None:
        old, new = Path(os.path.abspath(source)), Path(os.path.abspath(target))
        if not watch.inside(new):
            return replace(source, target, **named)
        watch.event("replace", old, target=new)
        before = new.read_bytes() if new.exists() else None
        watch.entries.setdefault(new, before)
        watch.entries.pop(old, None)
        if old in watch.lost:  # renamed before its bytes were safe: an empty file under the new name
            watch.lost.pop(old)
            watch.lost[new] = b""
        return replace(source, target, **named)

    def unlink_(path: Any, **named: Any) -> None:
        if watch.inside(Path(os.path.abspath(path))):
            watch.event("unlink", Path(os.path.abspath(path)))
        unlink(path, **named)

    return {
        (builtins, "open"): open_,
        (io, "open"): open_,
        (os, "fsync"): fsync_,
        (os, "replace"): replace_,
        (os, "unlink"): unlink_,
    }


class _Vfs(ctypes.Structure):
    """The beginning of `sqlite3_vfs`, as in sqlite3.h."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("version", "file_size", "longest_path")),
        *((name, ctypes.c_void_p) for name in ("next", "name", "data", "open", "delete", "access", "full_path")),
        *((name, ctypes.c_void_p) for name in ("dl_open", "dl_error", "dl_symbol", "dl_close", "random", "sleep")),
        *((name, ctypes.c_void_p) for name in ("time", "last_error", "time64", "set_call", "get_call", "next_call")),
    )


def _system_calls() -> tuple[Callable[[str, Any], None], Callable[[str], int]]:
    """Functions that set and get an entry of SQLite's table of system calls."""
    find = ctypes.CDLL(_sqlite3.__file__).sqlite3_vfs_find
    find.restype, find.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    vfs = ctypes.cast(find(None), ctypes.POINTER(_Vfs))
    if vfs.contents.version < 3:
        raise RuntimeError("this SQLite has no table of system calls: the campaign needs its unix VFS")
    here = ctypes.cast(vfs, ctypes.c_void_p)
    setter = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(vfs.contents.set_call)
    getter = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(vfs.contents.get_call)

    def put(name: str, function: Any) -> None:
        if setter(here, name.encode(), None if function is None else ctypes.cast(function, ctypes.c_void_p)):
            raise RuntimeError(f"SQLite does not let {name} be replaced")

    return put, lambda name: getter(here, name.encode())


_INT, _TEXT, _SIZE = ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t
_POINTER, _SIGNED, _WIDE = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int64
_CALLS = {
    "open": ctypes.CFUNCTYPE(_INT, _TEXT, _INT, _INT, use_errno=True),
    "unlink": ctypes.CFUNCTYPE(_INT, _TEXT, use_errno=True),
    "ftruncate": ctypes.CFUNCTYPE(_INT, _INT, _WIDE, use_errno=True),
    "write": ctypes.CFUNCTYPE(_SIGNED, _INT, _POINTER, _SIZE, use_errno=True),
    "pwrite64": ctypes.CFUNCTYPE(_SIGNED, _INT, _POINTER, _SIZE, _WIDE, use_errno=True),
}


def _sqlite(watch: Watch, get: Callable[[str], int]) -> dict[str, Any]:
    """Replacements of SQLite's system calls."""
    real = {name: kind(get(name)) for name, kind in _CALLS.items()}

    def announced(call: str, path: Path, then: Callable[[], int], **facts: Any) -> int:
        if watch.inside(path):
            try:
                watch.event(f"sqlite {call}", path, **facts)
            except OSError as error:
                ctypes.set_errno(error.errno or errno.EIO)
                return -1
        return then()

    def of(descriptor: int) -> Path:
        return Path(os.readlink(f"/proc/self/fd/{descriptor}"))

    def open_(name: bytes, flags: int, mode: int) -> int:
        path = Path(os.fsdecode(name))
        if not flags & os.O_CREAT or path.exists():
            return real["open"](name, flags, mode)
        return announced("create", path, lambda: real["open"](name, flags, mode))

    def unlink_(name: bytes) -> int:
        return announced("unlink", Path(os.fsdecode(name)), lambda: real["unlink"](name))

    def truncate_(descriptor: int, size: int) -> int:
        return announced("truncate", of(descriptor), lambda: real["ftruncate"](descriptor, size))

    def write_(descriptor: int, data: int, size: int) -> int:
        facts = {"data": ctypes.string_at(data, size), "place": os.lseek(descriptor, 0, os.SEEK_CUR)}
        return announced("write", of(descriptor), lambda: real["write"](descriptor, data, size), **facts)

    def pwrite_(descriptor: int, data: int, size: int, place: int) -> int:
        facts = {"data": ctypes.string_at(data, size), "place": place}
        return announced("write", of(descriptor), lambda: real["pwrite64"](descriptor, data, size, place), **facts)

    made = {"open": open_, "unlink": unlink_, "ftruncate": truncate_, "write": write_, "pwrite64": pwrite_}
    return {name: _CALLS[name](function) for name, function in made.items()}


@contextlib.contextmanager
def watched(folder: Path, decide: Callable[[Watch, Event], str | None]) -> Iterator[Watch]:
    """Watch a folder while the block runs.

    Args:
      folder: absolute, without links.
      decide: `(watch, event)`, called before every event (`Watch`).
    """
    watch = Watch(folder, lambda event: decide(watch, event))
    put, get = _system_calls()
    calls = _sqlite(watch, get)
    functions = _python(watch)
    before = {(module, name): getattr(module, name) for module, name in functions}
    try:
        for (module, name), function in functions.items():
            setattr(module, name, function)
        for name, function in calls.items():
            put(name, function)
        yield watch
    finally:
        for (module, name), function in before.items():
            setattr(module, name, function)
        for name in calls:
            put(name, None)
