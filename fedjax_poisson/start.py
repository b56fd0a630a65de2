"""The command's entry point: where compiled programs are kept is settled before jax is imported, then the command line runs.

Most of a short run's time is tracing and compilation, and the next run needs the same programs. So the command keeps them on disk, traced
(`traced_programs`) and compiled, unless `--no-cache` is given or the user has set jax's own variables (a notebook and a script keep what they set; the library
itself sets nothing). What is kept are programs: records, keys and noise are their arguments, and a test looks for records in the files. jax's key of a program
holds its version, the device and every compiler flag.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from importlib import util
from pathlib import Path

__all__ = ["MOST_BYTES", "MOST_TRACED_BYTES", "NO_CACHE", "TRACES", "keep_programs", "main"]

NO_CACHE = "--no-cache"
_FOLDER = "JAX_COMPILATION_CACHE_DIR"
TRACES = "FEDJAX_POISSON_TRACES"  # read by `traced_programs`, which imports jax
_SETTINGS = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
MOST_TRACED_BYTES = 32 << 20
MOST_BYTES = 256 << 20  # jax's own limit would need a further package, and a lock at every look-up


def keep_programs(environment: MutableMapping[str, str], home: Path) -> Path | None:
    """Set jax's variables so that compiled programs are kept in a folder of the user's, and that of traced programs beside it.

    Traced programs need `flatbuffers`, as `jax.export` does: where it is missing (a notebook machine that brings its own packages) each run traces.

    Args:
      environment: variables of the process; changed unless they name a folder already.
      home: the user's home, for where there is no XDG_CACHE_HOME.

    Returns:
      The folder, mode 0700; None if the user has settled the matter, or if it cannot be made (said on standard error: a run works without it).
    """
    if _FOLDER in environment or environment.get("JAX_ENABLE_COMPILATION_CACHE", "true").lower() in ("0", "false"):
        return None
    # The specification of that variable: a path that is not absolute is ignored.
    named = Path(environment.get("XDG_CACHE_HOME", ""))
    above = (named if named.is_absolute() else home / ".cache") / "fedjax_poisson"
    folder, traces = above / "xla", above / "traces"
    try:
        for each, room in ((folder, MOST_BYTES), (traces, MOST_TRACED_BYTES)):
            each.mkdir(parents=True, exist_ok=True)
            # Who may write here decides what the command executes; fails where the folder is somebody else's.
            each.chmod(0o700)
            _trim(each, room)
    except OSError as error:
        print(f"fedjax-poisson: compiled programs are not kept, {folder}: {error}", file=sys.stderr)
        return None
    environment[_FOLDER] = str(folder)
    if util.find_spec("flatbuffers") is not None:
        environment.setdefault(TRACES, str(traces))
    for name, value in _SETTINGS.items():
        environment.setdefault(name, value)
    return folder


def _trim(folder: Path, room: int) -> None:
    """Remove the oldest programs beyond so many bytes; another process that looks one up meanwhile compiles it."""
    found = [(file.stat(), file) for file in folder.iterdir() if file.is_file()]
    for facts, file in sorted(found, key=lambda one: one[0].st_mtime, reverse=True):
        room -= facts.st_size
        if room < 0:
            file.unlink(missing_ok=True)


def main() -> None:
    """Run `fedjax-poisson`; `--no-cache` anywhere on its command line compiles everything anew and keeps nothing."""
    arguments = sys.argv[1:]
    if NO_CACHE not in arguments:
        keep_programs(os.environ, Path.home())
    from fedjax_poisson.cli import main as command

    command([argument for argument in arguments if argument != NO_CACHE])
