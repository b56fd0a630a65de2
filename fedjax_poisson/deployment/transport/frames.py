"""Messages on a stream: `u32 length, request` there, `u8 status, u32 length, reply` back; a limit of size, and a time for the whole of each."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator

from fedjax_poisson.deployment.transport.link import Handler, Unreached, failure_words

__all__ = ["MOST_BYTES", "Cut", "answer", "ask", "receive", "refuse", "send"]

MOST_BYTES = 1 << 27  # of one request or reply; larger ones travel in parts
_PIECE = 1 << 18
_REPLIED, _FAILED = 0, 1


class Cut(Exception):
    """The connection ended, or its time did; the message says which."""


def ask(connection: socket.socket, request: bytes, until: float, most_bytes: int) -> bytes | Unreached:
    """A request, and its reply.

    Args:
      connection: to whoever answers with `answer`.
      request: the bytes.
      until: when it has to be there, of `time.monotonic`.
      most_bytes: of the reply.

    Raises:
      Cut: there is none; the connection is of no more use.
    """
    with contextlib.suppress(Cut):  # whoever is too busy to read it cuts, and has said so
        send(connection, struct.pack("<I", len(request)), request, until)
    (status,) = _exactly(connection, 1, until)
    reply = receive(connection, until, most_bytes)
    return reply if status == _REPLIED else Unreached(reply[:300].decode(errors="replace"))


def answer(connection: socket.socket, request: bytes, handler: Handler, patience: float) -> None:
    """The handler's reply to a request that was received; what it raises is logged, and its class said.

    Raises:
      Cut: nobody took it in `patience` seconds.
    """
    try:
        status, reply = _REPLIED, handler(request)
    except Exception as error:
        status, reply = _FAILED, failure_words(error).encode()
    del request
    send(connection, struct.pack("<BI", status, len(reply)), reply, time.monotonic() + patience)


def refuse(connection: socket.socket, words: str) -> None:
    """Say why there will be no reply, if it can be said at once."""
    with contextlib.suppress(Cut):
        send(connection, struct.pack("<BI", _FAILED, len(words.encode())), words.encode(), time.monotonic())


def receive(connection: socket.socket, until: float, most_bytes: int, begun: bytes = b"") -> bytes:
    """A length and as many bytes.

    Args:
      connection: where they come from.
      until: when they have to be there, of `time.monotonic`.
      most_bytes: that may come.
      begun: what has been read of them.

    Raises:
      Cut: they do not come, or are too many.
    """
    (length,) = struct.unpack("<I", begun + _exactly(connection, 4 - len(begun), until))
    if length > most_bytes:
        raise Cut(f"a message of {length} bytes was announced, {most_bytes} are allowed")
    return _exactly(connection, length, until)


def send(connection: socket.socket, head: bytes, body: bytes, until: float) -> None:
    """Both, one after the other.

    Raises:
      Cut: they are not taken.
    """
    joined = len(body) < 1 << 16  # one packet where it fits into one
    for part in (memoryview(head + body),) if joined else (memoryview(head), memoryview(body)):
        while part:
            with _in_time(connection, until):
                part = part[connection.send(part[:_PIECE]) :]


def _exactly(connection: socket.socket, length: int, until: float) -> bytes:
    """Memory follows what has arrived, not what was announced."""
    received = bytearray()
    while len(received) < length:
        with _in_time(connection, until):
            piece = connection.recv(min(_PIECE, length - len(received)))
        if not piece:
            raise Cut("the connection was cut")
        received += piece
    return bytes(received)


@contextlib.contextmanager
def _in_time(connection: socket.socket, until: float) -> Iterator[None]:
    """The time for everything, not for each piece: a peer that drips a byte a second gets no longer."""
    try:
        connection.settimeout(max(until - time.monotonic(), 1e-3))
        yield
    except TimeoutError:
        raise Cut("no reply in time") from None
    except OSError:
        raise Cut("the connection was cut") from None
