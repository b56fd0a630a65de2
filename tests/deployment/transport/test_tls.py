"""The coordinator's port: who gets in, under whose name, and what is left of connections that die."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedjax_poisson.deployment.certificates import Certificates, create_certificates
from fedjax_poisson.deployment.transport.dial import dial
from fedjax_poisson.deployment.transport.link import Handler, Link, Unreached
from fedjax_poisson.deployment.transport.parts import in_parts
from fedjax_poisson.deployment.transport.parts_handler import parts_handler
from fedjax_poisson.deployment.transport.tls import Credentials, tls_link
from tests.deployment.flower_network import free_port

SITES = ("ulm", "bonn", "kiel")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return create_certificates(tmp_path_factory.mktemp("keys"), sites=(*SITES, "jena"))


def server(files: Certificates) -> Credentials:
    return Credentials(files.authority, files.server, files.server_key)


def site(files: Certificates, name: str) -> Credentials:
    return Credentials(files.authority, *files.sites[name])


@contextlib.contextmanager
def opened(files: Certificates, port: int, **settings: float) -> Iterator[Link]:
    link = tls_link(("127.0.0.1", port), server(files), SITES, **settings)  # type: ignore[arg-type]
    try:
        yield link
    finally:
        link.close()


@contextlib.contextmanager
def dialled(credentials: Credentials, port: int, handler: Handler, **settings: int) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=dial, args=(("localhost", port), credentials, handler, stop), kwargs=settings)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def test_each_certificate_is_its_site_and_large_messages_cross(files: Certificates) -> None:
    port = free_port()
    with contextlib.ExitStack() as stack:
        link = stack.enter_context(opened(files, port))
        for name in SITES:
            handler = parts_handler(lambda request, name=name: name.encode() + request)  # type: ignore[misc]
            stack.enter_context(dialled(site(files, name), port, handler))
        for request in (b"", os.urandom(3_000_000)):
            replies = dict(in_parts(link).ask({name: request for name in SITES}, 30))
            assert replies == {name: name.encode() + request for name in SITES}


def test_whoever_has_no_certificate_of_the_authority_gets_nowhere(files: Certificates, tmp_path: Path) -> None:
    """A stranger's own authority, no certificate at all, a site's name signed by itself; and a party that is no site of this link."""
    port, others = free_port(), create_certificates(tmp_path, sites=("ulm",))
    with opened(files, port, settle=1.5) as link, contextlib.ExitStack() as stack:
        stranger = Credentials(files.authority, *others.sites["ulm"])
        stack.enter_context(dialled(stranger, port, lambda request: b"forged", connections=1))
        stack.enter_context(dialled(site(files, "jena"), port, lambda request: b"jena", connections=1))
        plain = ssl.create_default_context(cafile=str(files.authority))
        with (
            pytest.raises(OSError),
            socket.create_connection(("127.0.0.1", port), 5) as raw,
            plain.wrap_socket(raw, server_hostname="localhost") as connection,
        ):
            connection.sendall(b"x")
            if connection.recv(1) == b"":
                raise ConnectionResetError
        ((_, reply),) = link.ask({"ulm": b"secret"}, 5)
        assert isinstance(reply, Unreached) and "not connected" in reply.reason
        with dialled(site(files, "ulm"), port, lambda request: b"true"):  # the twin: with its own certificate
            assert dict(link.ask({"ulm": b"secret"}, 5)) == {"ulm": b"true"}


def test_a_site_dials_no_server_of_another_authority_or_host(files: Certificates, tmp_path: Path) -> None:
    others, calls = create_certificates(tmp_path, sites=("ulm",)), []

    def handler(request: bytes) -> bytes:
        calls.append(request)
        return b""

    port = free_port()
    stranger = Credentials(files.authority, others.server, others.server_key)
    link = tls_link(("127.0.0.1", port), stranger, SITES, settle=1.5)
    with dialled(site(files, "ulm"), port, handler, connections=1):
        ((_, reply),) = link.ask({"ulm": b"x"}, 3)
    link.close()
    assert isinstance(reply, Unreached) and calls == []


def test_a_site_comes_back_after_the_coordinator_and_after_itself(files: Certificates) -> None:
    port = free_port()
    with dialled(site(files, "ulm"), port, bytes.upper, connections=1):  # before anybody listens
        for _ in range(2):
            with opened(files, port, settle=20) as link:
                assert dict(link.ask({"ulm": b"a"}, 20)) == {"ulm": b"A"}
    with opened(files, port, settle=20) as link:
        for _ in range(2):
            with dialled(site(files, "ulm"), port, bytes.upper, connections=1):
                assert dict(link.ask({"ulm": b"a"}, 20)) == {"ulm": b"A"}


def test_slow_strangers_and_slow_sites_harm_nobody_else(files: Certificates) -> None:
    port, release = free_port(), threading.Event()

    def slow(request: bytes) -> bytes:
        release.wait(20)
        return b"late"

    with contextlib.ExitStack() as stack:
        link = stack.enter_context(opened(files, port))
        silent = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(5)]  # they never shake hands
        stack.enter_context(dialled(site(files, "ulm"), port, slow))
        stack.enter_context(dialled(site(files, "bonn"), port, bytes.upper))
        started = time.monotonic()
        replies = dict(link.ask({"ulm": b"a", "bonn": b"b"}, 3))
        assert replies["bonn"] == b"B" and isinstance(replies["ulm"], Unreached)
        assert time.monotonic() - started < 6
        release.set()
        for peer in silent:
            peer.close()
        assert dict(link.ask({"ulm": b"a"}, 20)) == {"ulm": b"late"}  # over another of its connections, or a new one
