"""A site that dials, with its worker in another process behind a Unix socket."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fedjax_poisson.deployment.certificates import create_certificates
from fedjax_poisson.deployment.transport.dial import dial, to_socket
from fedjax_poisson.deployment.transport.link import Unreached
from fedjax_poisson.deployment.transport.tls import Credentials, tls_link
from tests.deployment.flower_network import free_port, workers


def test_requests_reach_the_worker_and_its_absence_is_said(tmp_path: Path) -> None:
    files, port, stop = create_certificates(tmp_path / "keys", sites=("ulm",)), free_port(), threading.Event()
    path = tmp_path / "work" / "ulm" / "worker.socket"
    credentials = Credentials(files.authority, *files.sites["ulm"])
    said: list[str] = []
    given = (("localhost", port), credentials, to_socket(path), stop)
    dialling = threading.Thread(target=dial, args=given, kwargs={"say": said.append})
    dialling.start()
    for _ in range(100):
        if said:
            break
        stop.wait(0.1)
    assert len(said) == 1 and "trying again" in said[0]  # three connections, one line
    link = tls_link(("127.0.0.1", port), Credentials(files.authority, files.server, files.server_key), ("ulm",))
    ((_, reply),) = link.ask({"ulm": b"a"}, 20)
    assert isinstance(reply, Unreached) and "ConnectionError" in reply.reason
    with workers(tmp_path / "work", {"ulm": bytes.upper}):
        assert dict(link.ask({"ulm": b"a"}, 20)) == {"ulm": b"A"}
    assert said[1] == f"localhost:{port} is reached"
    stop.set()
    dialling.join(30)
    link.close()
    assert not dialling.is_alive()


def test_files_that_are_not_there_are_said_at_once(tmp_path: Path) -> None:
    nothing = Credentials(tmp_path / "ca.crt", tmp_path / "ulm.crt", tmp_path / "ulm.key")
    with pytest.raises(FileNotFoundError):
        dial(("localhost", 1), nothing, bytes.upper, threading.Event())
