"""Unix sockets: who may connect, one process a path, and peers that are slow, cut or too large."""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedjax_poisson.deployment.transport import sockets
from fedjax_poisson.deployment.transport.link import Handler, Unreached
from fedjax_poisson.deployment.transport.sockets import SocketBusy, ask_socket, serve, socket_link


@contextlib.contextmanager
def served(path: Path, handler: Handler, **settings: object) -> Iterator[threading.Event]:
    stop, ready = threading.Event(), threading.Event()
    thread = threading.Thread(target=serve, args=(path, handler, stop), kwargs={"ready": ready.set, **settings})
    thread.start()
    assert ready.wait(10)
    try:
        yield stop
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "worker.socket"


def test_requests_and_replies_of_all_sizes(path: Path) -> None:
    with served(path, lambda request: request[::-1]):
        link = socket_link({"ulm": path, "bonn": path.with_name("nobody")})
        for request in (b"", b"abc", os.urandom(3_000_000)):
            assert dict(link.ask({"ulm": request}, 20)) == {"ulm": request[::-1]}
        absent = dict(link.ask({"bonn": b"x"}, 5))["bonn"]
        assert absent == Unreached("no worker: there is no socket at its path")


def test_only_this_user_may_connect_and_the_socket_goes_with_its_server(path: Path) -> None:
    with served(path, bytes.upper):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.exists()


def test_a_group_may_connect_and_not_read_the_folder(path: Path) -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    with served(path, bytes.upper, group=group):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o710
        assert ask_socket(path, b"a", 5) == b"A"


def test_a_folder_that_others_may_enter_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o755)
    with pytest.raises(ValueError, match="others may enter"):
        serve(path, bytes.upper, threading.Event())
    path.parent.chmod(0o700)
    with served(path, bytes.upper):
        assert ask_socket(path, b"a", 5) == b"A"


def test_a_living_server_is_refused_and_a_dead_ones_socket_is_replaced(path: Path) -> None:
    program = (
        "import sys, threading; from pathlib import Path; from fedjax_poisson.deployment.transport.sockets import serve\n"
        "serve(Path(sys.argv[1]), bytes.lower, threading.Event(), ready=lambda: print('ready', flush=True))"
    )
    other = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "ready\n"
        with pytest.raises(SocketBusy, match=f"process {other.pid}"):
            serve(path, bytes.upper, threading.Event())
        assert ask_socket(path, b"Ab", 5) == b"ab"  # the living one is still heard
    finally:
        other.kill()
        other.wait()
    assert path.exists()  # killed: it could not remove it
    assert ask_socket(path, b"Ab", 5) == Unreached("no worker: its socket is there, and nobody serves it")
    with served(path, bytes.upper):
        assert ask_socket(path, b"Ab", 5) == b"AB"


def test_what_is_no_socket_is_never_removed(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_text("the only copy of something")
    with pytest.raises(ValueError, match="is no socket"):
        serve(path, bytes.upper, threading.Event())
    assert path.read_text() == "the only copy of something"


def test_a_path_too_long_for_a_socket_is_refused_with_its_length(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most 103"):
        serve(tmp_path / ("x" * 104), bytes.upper, threading.Event())


def test_a_long_path_that_is_short_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("x" * 104)
    folder.mkdir(mode=0o700)
    monkeypatch.chdir(folder)
    with served(folder / "worker.socket", bytes.upper):
        assert ask_socket(folder / "worker.socket", b"a", 5) == b"A"


def test_a_handler_that_raises_says_its_class_only(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("ERROR", "fedjax_poisson")

    def handler(request: bytes) -> bytes:
        if request == b"bad":
            raise FileNotFoundError("/srv/ulm/patients.csv")
        return request

    with served(path, handler):
        failed = ask_socket(path, b"bad", 5)
        assert isinstance(failed, Unreached) and failed.reason.startswith("the site failed: FileNotFoundError")
        assert "patients" not in failed.reason and "Traceback" not in failed.reason
        assert ask_socket(path, b"good", 5) == b"good"
    assert "patients.csv" in caplog.text


def test_slow_cut_and_oversized_peers_harm_nobody_else(path: Path) -> None:
    with served(path, bytes.upper, patience=1.0, most_bytes=1000):
        drip, cut, large = (socket.socket(socket.AF_UNIX) for _ in range(3))
        for peer in (drip, cut, large):
            peer.connect(str(path))
        drip.sendall(struct.pack("<I", 500) + b"a")
        cut.sendall(struct.pack("<I", 500) + b"a")
        cut.close()
        large.sendall(struct.pack("<I", 1001))
        large.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert large.recv(1) == b""  # ended before a byte of it was read
        for number in range(20):
            assert ask_socket(path, b"x%d" % number, 5) == b"X%d" % number
        started = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() - started < 8:
                drip.sendall(b"a")  # each byte in good time, the whole never
                time.sleep(0.1)
        assert time.monotonic() - started < 4
        drip.close()
        large.close()


def test_more_connections_than_are_served_are_told_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "MOST_CONNECTIONS", 2)
    with served(path, bytes.upper, patience=2.0):
        idle = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        for peer in idle:
            peer.connect(str(path))
        time.sleep(0.3)
        refused = ask_socket(path, b"x", 5)
        assert isinstance(refused, Unreached)
        idle.pop().close()
        time.sleep(0.3)
        assert ask_socket(path, b"x", 5) == b"X"
        idle.pop().close()


def test_a_reply_that_is_too_large_or_never_comes(path: Path) -> None:
    def handler(request: bytes) -> bytes:
        if request == b"sleep":
            time.sleep(1.5)
        return bytes(2000)

    with served(path, handler):
        large = ask_socket(path, b"", 5, most_bytes=1999)
        assert isinstance(large, Unreached) and "2000 bytes" in large.reason
        assert ask_socket(path, b"", 5, most_bytes=2000) == bytes(2000)
        late = ask_socket(path, b"sleep", 0.3)
        assert isinstance(late, Unreached) and "no reply in time" in late.reason


def test_a_thin_relay_loads_neither_jax_nor_numpy() -> None:
    program = "import sys, fedjax_poisson.deployment.transport.sockets, fedjax_poisson.deployment.transport.parts_handler; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "fedjax_poisson.deployment.transport.sockets" in loaded
    assert not {"jax", "numpy", "cryptography"} & set(loaded)
