"""The report of a run that is not finished yet: another process gets ready to write it while the run trains.

Writing a report takes as long as a third of a short run, most of it for matplotlib: its import and its drawing. The command therefore parts in two before it
starts a thread or a device: one process runs, the other imports what a report needs, waits, and writes the finished run's report from its folder, as
`write_report` does anywhere, with half of the figures drawn by a third. Nothing but the folder's name passes between them. Where the process cannot part (no
second core, no `fork` or no room for it, threads or devices that are at work), and if the other one fails, which is said, the report is written here. The
other processes end with this one, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from fedjax_poisson.platforms import usable_cores

__all__ = ["report_writer"]

_PR_SET_PDEATHSIG = 1  # of Linux, prctl(2)


class _Other(NamedTuple):
    """The other process, and the ends of two pipes: the folder's name goes out, the page's comes in."""

    number: int
    asked: int
    answer: int


@contextlib.contextmanager
def report_writer() -> Iterator[Callable[[Path], Path]]:
    """`(folder of a finished run) -> report.html`, once; raises as `page.write_report` does. The other process ends with the block."""
    other = _parted() if _can_part() else None
    asked = answered = False

    def write(folder: Path) -> Path:
        nonlocal asked, answered
        if other is not None and not asked:
            asked = True
            page = _written(other, folder)
            if page is not None:
                answered = True
                return page
            warnings.warn("the process that was to write the report failed: it is written here", stacklevel=2)
        from fedjax_poisson.reports.page import write_report  # not before it is needed: it imports matplotlib

        return write_report(folder)

    try:
        yield write
    finally:
        if other is not None:
            if not asked:
                os.close(other.asked)
            if not answered:  # whatever it is at: an error, or Ctrl-C, need not wait for it
                os.kill(other.number, signal.SIGKILL)
            os.close(other.answer)
            os.waitpid(other.number, 0)


def _can_part() -> bool:
    """A second core, and neither threads nor devices that a copy of the process would lack; a jax that does not say counts as at work."""
    devices = getattr(sys.modules.get("jax._src.xla_bridge"), "backends_are_initialized", None)
    at_work = threading.active_count() > 1 or devices is None or devices()
    return sys.platform == "linux" and usable_cores() > 1 and not at_work


def _parted() -> _Other | None:
    """The other process; None where the system has no room for one."""
    asked, answer, parent = os.pipe(), os.pipe(), os.getpid()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # a closed one has nothing to write twice
            stream.flush()
    try:
        number = os.fork()
    except OSError:
        for end in (*asked, *answer):
            os.close(end)
        return None
    if number == 0:
        _end_with(parent)
        os.close(asked[1])
        os.close(answer[0])
        _serve(asked[0], answer[1])
    os.close(asked[0])
    os.close(answer[1])
    return _Other(number, asked[1], answer[0])


def _end_with(parent: int) -> None:
    """The system ends this process as soon as the one that it parted from ends, however that comes: two never write one folder."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def _serve(asked: int, answer: int) -> NoReturn:
    """The other process: it ends without an answer if the run does, or if the report fails, and never returns to what its copy was doing."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run decides what Ctrl-C means
        from fedjax_poisson.reports.page import write_report

        folder = _read_all(asked)
        if folder:
            path = Path(os.fsdecode(folder))
            os.write(answer, os.fsencode(write_report(path, draw=_half_drawn(path))))
        code = 0
    except Exception:  # the run writes the report itself, and raises what there is to raise
        pass
    finally:
        os._exit(code)


def _written(other: _Other, folder: Path) -> Path | None:
    try:
        os.write(other.asked, os.fsencode(folder))
    except BrokenPipeError:
        pass
    finally:
        os.close(other.asked)
    found = _read_all(other.answer)
    return Path(os.fsdecode(found)) if found else None


def _read_all(end: int) -> bytes:
    parts = []
    while part := os.read(end, 1 << 12):
        parts.append(part)
    return b"".join(parts)


def _half_drawn(folder: Path) -> Callable[[Path], object]:
    """Have half of the figures drawn by another process from now on; the function draws the others, and what that one did not finish."""
    from fedjax_poisson.reports.figures import FIGURES, write_figures

    names, parent = list(FIGURES), os.getpid()
    try:
        number = os.fork()
    except OSError:
        return write_figures
    if number == 0:
        code = 1
        try:
            _end_with(parent)
            write_figures(folder, names[::2])
            code = 0
        finally:
            os._exit(code)

    def draw(folder: Path) -> None:
        write_figures(folder, names[1::2])
        _, status = os.waitpid(number, 0)
        if status:
            write_figures(folder, names[::2])

    return draw
