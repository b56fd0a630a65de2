"""A site's worker behind a Unix socket, and the link to such sockets.

One connection carries one request and one reply (`frames`).

Who may speak to a worker is whoever the file system lets in: by default the user who runs it, and nobody else. A relay whose code comes from outside (a
Flower SuperNode runs the bundle that it is sent) should be another user: give the socket a `group` that both are in, and the relay can hand in requests, and
read none of the worker's files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from fedjax_poisson.deployment.transport.frames import MOST_BYTES, Cut, answer, ask, receive, refuse
from fedjax_poisson.deployment.transport.link import (
    Asked,
    Handler,
    Link,
    Unreached,
    check_asked,
    check_site_names,
    gather,
)

__all__ = ["MOST_CONNECTIONS", "SocketBusy", "ask_socket", "serve", "socket_link"]

MOST_CONNECTIONS = 32  # served at once; the next one is told that the site is busy
_LONGEST_PATH = 103  # what every system's sockaddr_un holds, the smallest of them (macOS) with its zero byte


class SocketBusy(RuntimeError):
    """Another process serves this socket."""


def serve(
    path: Path,
    handler: Handler,
    stop: threading.Event,
    *,
    group: str | None = None,
    patience: float = 30.0,
    most_bytes: int = MOST_BYTES,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Answer requests that come to a Unix socket, until told to stop.

    A connection that sends slowly, or is cut, costs its own thread for at most `patience` seconds and nobody else anything. What a handler raises is logged
    here; the asker gets the name of its class (`link.failure_words`).

    Args:
      path: of the socket; its folder is made if it is missing. A file `.lock` beside it says which process serves it; a socket that a dead process left is
        replaced.
      handler: called in a thread of its own for each request.
      stop: when set, no new connection is taken, those that are open are ended within `patience`, and the call returns.
      group: of users who may connect besides this one; None for nobody else.
      patience: seconds in all for a request to arrive, and again for its reply to be taken. The handler's own time is not limited.
      most_bytes: of a request; a longer one is refused before it is read.
      ready: called once when connections are taken.

    Raises:
      SocketBusy: another process serves this path.
      ValueError: the path is too long for a socket, something else lies there, or others than this user (and the group) may enter its folder.
      OSError: the folder cannot be written.
    """
    with _sole_server(path), contextlib.closing(_listening(path, group)) as listener:
        slots = threading.BoundedSemaphore(MOST_CONNECTIONS)
        try:
            ready()
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                except OSError as error:
                    if error.errno not in (errno.ECONNABORTED, errno.EMFILE, errno.ENFILE, errno.EINTR):
                        raise
                    time.sleep(0.1)  # out of file descriptors, as a rule: those in use come back
                    continue
                if slots.acquire(blocking=False):
                    threading.Thread(
                        target=_serve_one, args=(connection, handler, slots, patience, most_bytes), daemon=True
                    ).start()
                else:
                    with connection:
                        refuse(connection, "the site is busy: too many connections at once")
        finally:
            path.unlink(missing_ok=True)
        until = time.monotonic() + patience
        for _ in range(MOST_CONNECTIONS):
            slots.acquire(timeout=max(until - time.monotonic(), 0.0))


def _serve_one(
    connection: socket.socket, handler: Handler, slots: threading.BoundedSemaphore, patience: float, most_bytes: int
) -> None:
    try:
        with connection, contextlib.suppress(Cut):  # whoever asked is gone, or too slow
            answer(connection, receive(connection, time.monotonic() + patience, most_bytes), handler, patience)
    finally:
        slots.release()


def ask_socket(path: Path, request: bytes, seconds: float, *, most_bytes: int = MOST_BYTES) -> bytes | Unreached:
    """One request to a socket, one reply.

    Args:
      path: of the socket.
      request: less than `most_bytes` of the other side.
      seconds: for everything.
      most_bytes: of the reply.
    """
    until = time.monotonic() + seconds
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(max(seconds, 1e-3))
            try:
                connection.connect(_address(path))
            except FileNotFoundError:
                return Unreached("no worker: there is no socket at its path")
            except ConnectionRefusedError:
                return Unreached("no worker: its socket is there, and nobody serves it")
            except PermissionError:
                return Unreached("no permission to connect to its socket")
            return ask(connection, request, until, most_bytes)
    except Cut as cut:
        return Unreached(f"{cut} ({seconds:g} s were given)")
    except OSError as error:
        return Unreached(f"its socket cannot be reached ({errno.errorcode.get(error.errno or 0, 'error')})")


def socket_link(paths: Mapping[str, Path], *, most_bytes: int = MOST_BYTES) -> Link:
    """A link to workers behind Unix sockets of this machine (or of others, through `ssh -L` and the like).

    Args:
      paths: of the sockets, by the site's name.
      most_bytes: of a reply.

    Raises:
      ValueError: a name that is none.
    """
    sites = check_site_names(tuple(paths))
    closed = threading.Event()

    def asker(path: Path, request: bytes) -> Callable[[float], bytes | Unreached]:
        return lambda seconds: ask_socket(path, request, seconds, most_bytes=most_bytes)

    def ask_all(asked: Asked, seconds: float) -> Iterator[tuple[str, bytes | Unreached]]:
        check_asked(sites, asked, closed)
        return gather({site: asker(paths[site], request) for site, request in asked.items()}, seconds)

    return Link(sites, ask_all, closed.set)


def _address(path: Path) -> str:
    """The shorter of the path as it is and as it is from here."""
    return min(str(path), os.path.relpath(path), key=lambda one: len(os.fsencode(one)))


@contextlib.contextmanager
def _sole_server(path: Path) -> Iterator[None]:
    """Hold the lock of a socket; the system drops it with the process, however that ends."""
    if len(os.fsencode(_address(path))) > _LONGEST_PATH:
        raise ValueError(
            f"{path} has {len(os.fsencode(path))} bytes, and a socket's path at most {_LONGEST_PATH}; choose a shorter one, or start in a folder nearer to it."
        )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with open(descriptor, "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SocketBusy(
                f"{path} is served by {_holder(lock)}; one process serves a site: stop it, or choose another path."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _holder(lock: IO[str]) -> str:
    number = lock.read(20)
    return f"process {number}" if number.isdigit() else "another process"


def _listening(path: Path, group: str | None) -> socket.socket:
    """The socket, for this user (and the group) alone. Call it with the lock held."""
    folder = path.parent
    if group is not None:
        shutil.chown(folder, group=group)
        folder.chmod(0o710)
    found = folder.stat()
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & (0o067 if group else 0o077):
        raise ValueError(
            f"others may enter {folder} (mode {stat.S_IMODE(found.st_mode):04o}, owner {found.st_uid}), and would reach the worker; "
            f"make it yours alone: chmod 700, or choose another folder."
        )
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ValueError(f"{path} is there and is no socket; move it away, or choose another path.")
        path.unlink()  # its process is dead: this one has the lock
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(_address(path))
        if group is not None:
            shutil.chown(path, group=group)
        path.chmod(0o600 if group is None else 0o660)
        listener.listen(MOST_CONNECTIONS)
        listener.settimeout(0.2)
    except BaseException:
        listener.close()
        raise
    return listener
