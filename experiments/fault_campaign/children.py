"""Processes that do one thing and may die of it: forked, so that thousands of them cost seconds.

Fork only from a process with one thread: before jax has started a backend, and with one thread for linear algebra.
"""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Ended", "in_child", "start", "wait"]


class Ended(NamedTuple):
    """How a child ended.

    Attributes:
      killed: by SIGKILL.
      code: its exit status; 0 where `value` or `error` came back.
      value: what the function returned.
      error: what it raised.
    """

    killed: bool
    code: int
    value: Any = None
    error: BaseException | None = None


class Child(NamedTuple):
    """A child that runs: its number, and where its answer comes from."""

    pid: int
    pipe: int


def start(function: Callable[[], Any]) -> Child:
    """Fork a child that runs a function."""
    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("this process has several threads; a fork of it might wait for ever")
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return Child(pid, read)
    os.close(read)
    try:
        found: tuple[Any, BaseException | None] = (function(), None)
    except BaseException as error:
        from fault_campaign.verdicts import own_refusal  # the traceback does not survive the pipe; the verdict does

        error.__notes__ = [*getattr(error, "__notes__", []), *own_refusal(error)]
        found = (None, error)
    try:
        blob = pickle.dumps(found)
        pickle.loads(blob)
    except Exception:
        blob = pickle.dumps((None, RuntimeError(f"{found[1]!r}")))
    os.write(write, blob)
    os._exit(0)


def wait(child: Child, *, kill: bool = False) -> Ended:
    """Wait for a child; kill it first if asked."""
    if kill:
        os.kill(child.pid, signal.SIGKILL)
    parts = []
    while part := os.read(child.pipe, 1 << 16):
        parts.append(part)
    os.close(child.pipe)
    _, status = os.waitpid(child.pid, 0)
    if os.WIFSIGNALED(status):
        return Ended(True, -os.WTERMSIG(status))
    blob = b"".join(parts)
    value, error = pickle.loads(blob) if blob else (None, None)
    return Ended(False, os.WEXITSTATUS(status), value, error)


def in_child(function: Callable[[], Any]) -> Ended:
    """Run a function in a child and wait for it."""
    return wait(start(function))
