"""The command's entry point: where compiled programs are kept is settled before jax is imported, then the command line runs.

Most of a short run's time is tracing and compilation, and the next run needs the same programs. So the command keeps them on disk, traced
(`traced_programs`) and compiled, and the sampling tables of the noise levels that it met (`kept_tables`), unless `--no-cache` is given or the user has set
jax's own variables (a notebook and a script keep what they set; the library itself sets nothing). What is kept are programs and tables: records, keys and noise
are their arguments, and a test looks for records in the files. jax's key of a program holds its version, the device and every compiler flag.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import stat
import sys
from collections.abc import MutableMapping
from importlib import util
from pathlib import Path

from fedjax_poisson.kept_files import TABLES, TRACES, forget  # jax is not imported before the variables are set

__all__ = ["MOST_BYTES", "MOST_TRACED_BYTES", "NO_CACHE", "TABLES", "TRACES", "keep_programs", "main"]

NO_CACHE = "--no-cache"
_FOLDER = "JAX_COMPILATION_CACHE_DIR"
_SETTINGS = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
_COMPILED, _OWN = re.compile(r".+-(cache|atime)"), re.compile(r"[0-9a-f]{64}|writing-\w+")  # jax's files, and ours
MOST_TRACED_BYTES = 32 << 20
MOST_BYTES = 256 << 20  # jax's own limit would need a further package, and a lock at every look-up


def keep_programs(environment: MutableMapping[str, str], home: Path) -> Path | None:
    """Set jax's variables so that compiled programs are kept in a folder of the user's, and that of traced programs beside it.

    Traced programs need `flatbuffers`, as `jax.export` does: where it is missing (a notebook machine that brings its own packages) each run traces.

    Args:
      environment: variables of the process; changed unless they name a folder already.
      home: the user's home, for where there is no XDG_CACHE_HOME.

    Returns:
      The folder, mode 0700; None if the user has settled the matter, or if it cannot be made or others may write to it (said on standard error: a run works
      without it). Where nothing compiled is kept nothing traced is either.
    """
    if environment.get("JAX_ENABLE_COMPILATION_CACHE", "true").lower() in ("0", "false"):
        forget(environment)
        return None
    if _FOLDER in environment:
        return None
    # The specification of that variable: a path that is not absolute is ignored.
    named = Path(environment.get("XDG_CACHE_HOME", ""))
    above = (named if named.is_absolute() else home / ".cache") / "fedjax_poisson"
    folder, traces, tables = above / "xla", above / "traces", above / "tables"
    try:
        above.parent.mkdir(parents=True, exist_ok=True)
        for each in (above, folder, traces, tables):
            each.mkdir(mode=0o700, exist_ok=True)
            _check_own(each)
        for each, room, names in (
            (folder, MOST_BYTES, _COMPILED),
            (traces, MOST_TRACED_BYTES, _OWN),
            (tables, MOST_TRACED_BYTES, _OWN),
        ):
            each.chmod(0o700)
            _trim(each, room, names)
    except OSError as error:
        print(f"fedjax-poisson: compiled programs are not kept, {folder}: {error}", file=sys.stderr)
        forget(environment)
        return None
    environment[_FOLDER] = str(folder)
    environment.setdefault(TABLES, str(tables))
    if util.find_spec("flatbuffers") is not None:
        environment.setdefault(TRACES, str(traces))
    for name, value in _SETTINGS.items():
        environment.setdefault(name, value)
    return folder


def _check_own(folder: Path) -> None:
    """Refuse a folder that others may write to: who may decides what the command executes.

    Raises:
      PermissionError: it is a link, somebody else's, or group or others may write to it.
    """
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode):
        raise PermissionError(f"{folder} is no folder but a link or a file; remove it")
    if hasattr(os, "geteuid") and facts.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to another user; remove it, or set XDG_CACHE_HOME")
    if os.name == "posix" and facts.st_mode & 0o022:
        raise PermissionError(f"others may write to {folder}; if you trust what is in it: chmod go-w {folder}")


def _trim(folder: Path, room: int, names: re.Pattern[str]) -> None:
    """Remove the oldest programs beyond so many bytes; another process that looks one up meanwhile makes it anew. Files of other names stay."""
    found = []
    for file in folder.iterdir():
        with contextlib.suppress(OSError):  # another process removed it
            facts = file.lstat()
            if names.fullmatch(file.name) and stat.S_ISREG(facts.st_mode):
                found.append((facts, file))
    for facts, file in sorted(found, key=lambda one: one[0].st_mtime, reverse=True):
        room -= facts.st_size
        if room < 0:
            with contextlib.suppress(OSError):
                file.unlink()


def main() -> None:
    """Run `fedjax-poisson`; `--no-cache` anywhere on its command line compiles everything anew and keeps nothing."""
    arguments = sys.argv[1:]
    if NO_CACHE in arguments:
        forget(os.environ)
    else:
        keep_programs(os.environ, Path.home())
    # What is imported stays until the end: looking through it for garbage again and again took a twentieth of a short run.
    gc.disable()
    from fedjax_poisson.cli import main as command

    gc.freeze()
    gc.enable()
    command([argument for argument in arguments if argument != NO_CACHE])
