"""A site's worker behind a Unix socket, and the link to such sockets.

One connection carries one request and one reply, each with its length in front: `u32 length, request` there, `u8 status, u32 length, reply` back.

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
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from fedjax_poisson.deployment.transport.link import (
    Asked,
    Handler,
    Link,
    Unreached,
    check_asked,
    check_site_names,
    failure_words,
    gather,
)

__all__ = ["MOST_BYTES", "MOST_CONNECTIONS", "SocketBusy", "ask_socket", "serve", "socket_link"]

MOST_BYTES = 1 << 27  # of one request or reply; larger ones travel in parts
MOST_CONNECTIONS = 32  # served at once; the next one is told that the site is busy
_LONGEST_PATH = 103  # what every system's sockaddr_un holds, the smallest of them (macOS) with its zero byte
_PIECE = 1 << 18
_REPLIED, _FAILED = 0, 1


class SocketBusy(RuntimeError):
    """Another process serves this socket."""


class _Cut(Exception):
    """The connection ended, or its time did; the message says which."""


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
                    _refuse(connection)
        finally:
            path.unlink(missing_ok=True)
        until = time.monotonic() + patience
        for _ in range(MOST_CONNECTIONS):
            slots.acquire(timeout=max(until - time.monotonic(), 0.0))


def _serve_one(
    connection: socket.socket, handler: Handler, slots: threading.BoundedSemaphore, patience: float, most_bytes: int
) -> None:
    try:
        with connection:
            try:
                request = _receive(connection, time.monotonic() + patience, most_bytes)
            except _Cut:
                return  # whoever asked is gone, or too slow
            try:
                status, reply = _REPLIED, handler(request)
            except Exception as error:
                status, reply = _FAILED, failure_words(error).encode()
            del request
            with contextlib.suppress(_Cut):
                _send(connection, struct.pack("<BI", status, len(reply)), reply, time.monotonic() + patience)
    finally:
        slots.release()


def _refuse(connection: socket.socket) -> None:
    words = b"the site is busy: too many connections at once"
    with connection, contextlib.suppress(_Cut):
        _send(connection, struct.pack("<BI", _FAILED, len(words)), words, time.monotonic())


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
            with contextlib.suppress(_Cut):  # a busy site cuts, and has said so
                _send(connection, struct.pack("<I", len(request)), request, until)
            (status,) = _receive_exactly(connection, 1, until)
            reply = _receive(connection, until, most_bytes)
    except _Cut as cut:
        return Unreached(f"{cut} ({seconds:g} s were given)")
    except OSError as error:
        return Unreached(f"its socket cannot be reached ({errno.errorcode.get(error.errno or 0, 'error')})")
    return reply if status == _REPLIED else Unreached(reply[:300].decode(errors="replace"))


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

    def ask(asked: Asked, seconds: float) -> Iterator[tuple[str, bytes | Unreached]]:
        check_asked(sites, asked, closed)
        return gather({site: asker(paths[site], request) for site, request in asked.items()}, seconds)

    return Link(sites, ask, closed.set)


def _address(path: Path) -> str:
    """The shorter of the path as it is and as it is from here."""
    return min(str(path), os.path.relpath(path), key=lambda one: len(os.fsencode(one)))


def _receive(connection: socket.socket, until: float, most_bytes: int) -> bytes:
    (length,) = struct.unpack("<I", _receive_exactly(connection, 4, until))
    if length > most_bytes:
        raise _Cut(f"a message of {length} bytes was announced, {most_bytes} are allowed")
    return _receive_exactly(connection, length, until)


def _receive_exactly(connection: socket.socket, length: int, until: float) -> bytes:
    """Memory follows what has arrived, not what was announced."""
    received = bytearray()
    while len(received) < length:
        with _in_time(connection, until):
            piece = connection.recv(min(_PIECE, length - len(received)))
        if not piece:
            raise _Cut("the connection was cut")
        received += piece
    return bytes(received)


def _send(connection: socket.socket, head: bytes, body: bytes, until: float) -> None:
    view = memoryview(head + body) if len(body) < 1 << 16 else None
    for part in (view,) if view is not None else (memoryview(head), memoryview(body)):
        while part:
            with _in_time(connection, until):
                part = part[connection.send(part[:_PIECE]) :]


@contextlib.contextmanager
def _in_time(connection: socket.socket, until: float) -> Iterator[None]:
    """The time for everything, not for each piece: a peer that drips a byte a second gets no longer."""
    try:
        connection.settimeout(max(until - time.monotonic(), 1e-3))
        yield
    except TimeoutError:
        raise _Cut("no reply in time") from None
    except OSError:
        raise _Cut("the connection was cut") from None


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
