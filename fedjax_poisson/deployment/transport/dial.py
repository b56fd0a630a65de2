"""A site's end of the coordinator's port (`tls`): it dials out, and answers what comes over the connections.

The process that dials needs no key of the site's identity: give it `lambda request: ...` that hands requests to the worker's Unix socket (`to_socket`), and
run it as another user.
"""

from __future__ import annotations

import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

from fedjax_poisson.deployment.transport.frames import MOST_BYTES, Cut, answer, receive
from fedjax_poisson.deployment.transport.link import Handler, Unreached
from fedjax_poisson.deployment.transport.sockets import ask_socket
from fedjax_poisson.deployment.transport.tls import Credentials, keep_alive, tls_context

__all__ = ["dial", "to_socket"]

_CONNECT_SECONDS = 10.0
_LONGEST_PAUSE = 30.0
_log = logging.getLogger(__name__)


def dial(
    address: tuple[str, int],
    credentials: Credentials,
    handler: Handler,
    stop: threading.Event,
    *,
    connections: int = 3,
    patience: float = 60.0,
    most_bytes: int = MOST_BYTES,
    say: Callable[[str], None] = _log.warning,
) -> None:
    """Keep connections to the coordinator open and answer its requests, until told to stop.

    A connection that fails or is cut is dialled again after a pause that doubles up to half a minute.

    Args:
      address: host and port of the coordinator; its certificate must name the host.
      credentials: of the site; the certificate's common name is the site's name (`certificates.create_site_certificate`).
      handler: of requests, called from as many threads as there are connections.
      stop: when set, connections are ended as soon as what they are at is answered.
      connections: that are kept open.
      patience: seconds for a request to arrive whole, and again for its reply to be taken.
      most_bytes: of a request.
      say: told when the coordinator is reached, and when it is not; of all connections together, each once until the other is true.

    Raises:
      OSError: a file of the credentials cannot be read.
    """
    context = tls_context(credentials, server=False)
    told, lock = [""], threading.Lock()

    def tell(state: str, words: str) -> None:
        with lock:
            if told[0] != state:
                told[0] = state
                say(words)

    def heard(request: bytes) -> bytes:
        tell(
            "there", f"{address[0]}:{address[1]} is reached"
        )  # not before: who is refused learns it after the handshake
        return handler(request)

    def keep() -> None:
        failures = 0
        while not stop.is_set():
            try:
                with _connect(address, context) as connection:
                    began = time.monotonic()
                    try:
                        _serve(connection, heard, stop, patience, most_bytes)
                    except Cut as cut:
                        said = str(cut)
                    else:
                        return
                failures = 0 if time.monotonic() - began > _LONGEST_PAUSE else failures + 1
            except OSError as error:
                failures, said = failures + 1, str(error)
            if failures:
                tell("away", f"no connection to {address[0]}:{address[1]}: {said}; trying again")
            stop.wait(min(0.5 * 2 ** min(failures, 8), _LONGEST_PAUSE) * random.uniform(0.5, 1.0))

    threads = [threading.Thread(target=keep, name=f"dial {number}", daemon=True) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def to_socket(path: Path, seconds: float = 90.0) -> Handler:
    """A handler that hands requests to a worker behind a Unix socket."""

    def handle(request: bytes) -> bytes:
        reply = ask_socket(path, request, seconds)
        if isinstance(reply, Unreached):
            raise ConnectionError(reply.reason)
        return reply

    return handle


def _connect(address: tuple[str, int], context: ssl.SSLContext) -> ssl.SSLSocket:
    raw = socket.create_connection(address, _CONNECT_SECONDS)
    try:
        keep_alive(raw)
        return context.wrap_socket(raw, server_hostname=address[0])
    except BaseException:
        raw.close()
        raise


def _serve(
    connection: ssl.SSLSocket, handler: Handler, stop: threading.Event, patience: float, most_bytes: int
) -> None:
    """Answer requests until told to stop.

    Raises:
      Cut: the connection is of no more use.
    """
    while not stop.is_set():
        try:
            connection.settimeout(0.5)  # not a look whether something is there: that may be TLS's own
            begun = connection.recv(1)
        except TimeoutError:
            continue
        except OSError as error:
            raise Cut(str(error)) from None
        if not begun:
            raise Cut("the coordinator ended the connection")
        answer(connection, receive(connection, time.monotonic() + patience, most_bytes, begun), handler, patience)
