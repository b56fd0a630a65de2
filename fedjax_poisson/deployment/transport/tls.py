"""The coordinator's port: sites dial in (`dial`), both sides show certificates of the consortium's authority, and requests go out over the connections.

Sites open connections outward only, to one port. A connection carries one request at a time; a site keeps a few open, and each is used by whoever asks next.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_poisson.deployment.transport.frames import MOST_BYTES, Cut, ask
from fedjax_poisson.deployment.transport.link import Asked, Link, Unreached, check_asked, check_site_names, gather

__all__ = ["Credentials", "keep_alive", "tls_context", "tls_link"]

MOST_OF_A_SITE = 8  # connections of one site; the oldest idle one gives way
_HANDSHAKES = 32  # at once, of whoever knocks
_HANDSHAKE_SECONDS = 10.0
_SETTLE = 20.0  # seconds that an ask waits for a site that is not connected
_log = logging.getLogger(__name__)


class Credentials(NamedTuple):
    """Files by which one end of a connection knows the other (`deployment.certificates`).

    Attributes:
      authority: certificate of the consortium's authority.
      certificate: one's own, signed by it.
      key: one's own, mode 0600.
    """

    authority: Path
    certificate: Path
    key: Path


def tls_context(credentials: Credentials, *, server: bool) -> ssl.SSLContext:
    """TLS 1.3 with certificates on both sides, of this authority only.

    Raises:
      OSError: a file cannot be read, or is none of its kind (ssl.SSLError).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(credentials.authority)
    context.load_cert_chain(credentials.certificate, credentials.key)
    if server:
        context.num_tickets = 0  # a connection that nobody asked to speak is silent then
    return context


def keep_alive(connection: socket.socket) -> None:
    """Have the system probe a silent peer, so that firewalls keep the connection and a vanished peer is noticed within a minute."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if (option := getattr(socket, name, None)) is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def tls_link(
    address: tuple[str, int],
    credentials: Credentials,
    sites: tuple[str, ...],
    *,
    settle: float = _SETTLE,
    most_bytes: int = MOST_BYTES,
) -> Link:
    """A link to the sites that dial in; it listens until it is closed.

    A site is who its certificate says (its common name); a certificate of another authority, or of nobody who is asked, gets no connection.

    Args:
      address: host ("" for all of this machine's addresses) and port to listen on.
      credentials: of the coordinator; the certificate is a server's (`certificates.create_server_certificate`).
      sites: who is asked.
      settle: seconds that an ask waits for a site that is not connected.
      most_bytes: of a reply.

    Raises:
      ValueError: a name that is none.
      OSError: the port is taken, or a file cannot be read.
    """
    context = tls_context(credentials, server=True)
    pool = _Pool(check_site_names(sites))
    listener = socket.create_server(address, backlog=_HANDSHAKES)
    listener.settimeout(0.2)
    listening = threading.Thread(target=_listen, args=(listener, context, pool), name="tls link", daemon=True)
    listening.start()

    def asker(site: str, request: bytes) -> Callable[[float], bytes | Unreached]:
        def call(seconds: float) -> bytes | Unreached:
            until = time.monotonic() + seconds
            connection = pool.take(site, min(until, time.monotonic() + settle))
            if connection is None:
                return Unreached("it is not connected, or all its connections are in use")
            try:
                reply = ask(connection, request, until, most_bytes)
            except Cut as cut:
                connection.close()
                return Unreached(f"{cut} ({seconds:g} s were given)")
            pool.put(site, connection)
            return reply

        return call

    def ask_all(asked: Asked, seconds: float) -> Iterator[tuple[str, bytes | Unreached]]:
        check_asked(sites, asked, pool.closed)
        return gather({site: asker(site, request) for site, request in asked.items()}, seconds)

    def close() -> None:
        pool.close()
        listening.join(5)  # the port is free again then

    return Link(sites, ask_all, close)


class _Pool:
    """Idle connections by site."""

    def __init__(self, sites: tuple[str, ...]) -> None:
        self.closed, self.change = threading.Event(), threading.Condition()
        self.idle: dict[str, collections.deque[ssl.SSLSocket]] = {site: collections.deque() for site in sites}

    def put(self, site: str, connection: ssl.SSLSocket) -> None:
        with self.change:
            if self.closed.is_set():
                connection.close()
                return
            while len(self.idle[site]) >= MOST_OF_A_SITE:
                self.idle[site].popleft().close()
            self.idle[site].append(connection)
            self.change.notify_all()

    def take(self, site: str, until: float) -> ssl.SSLSocket | None:
        """The connection that was used last, of those that are still open."""
        with self.change:
            while not self.closed.is_set():
                while self.idle[site]:
                    connection = self.idle[site].pop()
                    if not select.select([connection], [], [], 0)[0]:
                        return connection
                    connection.close()  # a peer that says something unasked has closed it
                if (left := until - time.monotonic()) <= 0:
                    return None
                self.change.wait(left)
        return None

    def close(self) -> None:
        self.closed.set()
        with self.change:
            for connections in self.idle.values():
                while connections:
                    connections.pop().close()
            self.change.notify_all()


def _listen(listener: socket.socket, context: ssl.SSLContext, pool: _Pool) -> None:
    slots = threading.BoundedSemaphore(_HANDSHAKES)
    with listener:
        while not pool.closed.is_set():
            try:
                raw, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                time.sleep(0.1)  # out of file descriptors, as a rule: those in use come back
                continue
            if slots.acquire(blocking=False):
                threading.Thread(target=_welcome, args=(raw, context, pool, slots), daemon=True).start()
            else:
                raw.close()


def _welcome(raw: socket.socket, context: ssl.SSLContext, pool: _Pool, slots: threading.BoundedSemaphore) -> None:
    """Shake hands with whoever knocks; a site's connection goes to the pool."""
    try:
        raw.settimeout(_HANDSHAKE_SECONDS)
        keep_alive(raw)
        connection = context.wrap_socket(raw, server_side=True)
        name = _common_name(connection)
        if name in pool.idle:
            pool.put(name, connection)
        else:
            _log.warning("%.40r has a certificate of the authority and is no site of this link", name)
            connection.close()
    except OSError as error:
        _log.info("a connection was refused: %s", error)
        with contextlib.suppress(OSError):
            raw.close()
    finally:
        slots.release()


def _common_name(connection: ssl.SSLSocket) -> str:
    found: dict[str, Any] = dict(connection.getpeercert() or {})
    return next((str(value) for part in found.get("subject", ()) for key, value in part if key == "commonName"), "")
