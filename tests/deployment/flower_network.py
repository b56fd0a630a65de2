"""A real Flower network on this machine: a SuperLink with TLS and node authentication, a SuperNode for each site, and the relay's run.

python -m tests.deployment.flower_network      # seconds and bytes of a message, and of 52 MB in parts, beside the bare sockets
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import fedjax_poisson
from fedjax_poisson.deployment.certificates import create_certificates
from fedjax_poisson.deployment.transport.dial import dial, to_socket
from fedjax_poisson.deployment.transport.flower import APP, PART_BYTES, PATIENCE, flower_link
from fedjax_poisson.deployment.transport.link import Handler, Link
from fedjax_poisson.deployment.transport.parts import in_parts
from fedjax_poisson.deployment.transport.parts_handler import parts_handler
from fedjax_poisson.deployment.transport.sockets import serve, socket_link
from fedjax_poisson.deployment.transport.tls import Credentials, tls_link

SUPERLINK = shutil.which("flower-superlink", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def workers(folder: Path, handlers: Mapping[str, Handler]) -> Iterator[dict[str, Path]]:
    """Each handler behind a socket."""
    stop, threads = threading.Event(), []
    paths = {site: folder / site / "worker.socket" for site in handlers}
    for site, handler in handlers.items():
        ready = threading.Event()
        threads.append(threading.Thread(target=serve, args=(paths[site], handler, stop), kwargs={"ready": ready.set}))
        threads[-1].start()
        assert ready.wait(10)
    try:
        yield paths
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def process(log: Path, *command: str, **environment: str) -> subprocess.Popen[bytes]:
    """A process in a session of its own, with what it starts."""
    with log.open("ab") as file:
        return subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, **environment}, start_new_session=True, cwd=log.parent
        )


def end(started: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, as a group: what a SuperNode starts can outlive it."""
    for signal_number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal_number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(patience)


class FlowerNetwork(NamedTuple):
    """Flower at work.

    Attributes:
      link: to the workers.
      alive: the processes: "superlink", and each site's SuperNode by the site's name.
      begin: `(name)`: starts one of them again, as it was started first.
      relay: starts the run that carries; again where an earlier one ended.
    """

    link: Link
    alive: dict[str, subprocess.Popen[bytes]]
    begin: Callable[[str], None]
    relay: Callable[[], None]


@contextlib.contextmanager
def flower_network(
    folder: Path, paths: Mapping[str, Path], names: Mapping[str, str] | None = None
) -> Iterator[FlowerNetwork]:
    """Workers that are reached through Flower; all processes are ended at the end.

    Args:
      folder: for keys, logs, and Flower's state.
      paths: of the workers' sockets, by the site's name.
      names: what each SuperNode says that it is, where that is not the truth.
    """
    assert SUPERLINK is not None
    tools = Path(SUPERLINK).parent
    files = create_certificates(folder / "keys", sites=tuple(paths))
    home, port = folder / "flwr", free_port()
    home.mkdir()
    address = f"127.0.0.1:{port}"
    (home / "config.toml").write_text(
        f'[superlink.here]\naddress = "{address}"\nroot-certificates = "{files.authority}"\n'
    )
    environment = {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(fedjax_poisson.__file__).parent.parent),
    }
    tls = (
        "--ssl-ca-certfile",
        str(files.authority),
        "--ssl-certfile",
        str(files.server),
        "--ssl-keyfile",
        str(files.server_key),
    )

    def flwr(*words: str) -> None:
        command = [str(tools / "flwr"), *words]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr

    with contextlib.ExitStack() as stack:
        link = flower_link(folder / "coordinator" / "relay.socket", tuple(paths))
        stack.callback(link.close)
        command = (SUPERLINK, *tls, "--enable-supernode-auth", "--disable-runtime-dependency-installation")
        more = ("--database", str(folder / "superlink.db"), "--host", "127.0.0.1", "--port", str(port))
        commands, alive = {"superlink": (*command, *more)}, dict[str, subprocess.Popen[bytes]]()

        def begin(name: str) -> None:
            alive[name] = process(folder / f"{name}.log", *commands[name], **environment)
            stack.callback(end, alive[name])
            until = time.monotonic() + 60
            while name == "superlink" and time.monotonic() < until:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.2)

        begin("superlink")
        for site, path in paths.items():
            flwr("supernode", "register", str(files.node_keys[site]) + ".pub", "here")
            config = f'site="{(names or {}).get(site, site)}" socket="{path}"'
            node = (
                str(tools / "flower-supernode"),
                "--root-certificates",
                str(files.authority),
                "--superlink",
                address,
            )
            keys = ("--auth-supernode-private-key", str(files.node_keys[site]), *tls, "--port", str(free_port()))
            commands[site] = (*node, *keys, "--node-config", config)
            begin(site)
        run_config = f'socket="{folder / "coordinator" / "relay.socket"}"'

        def relay() -> None:
            flwr("run", str(APP), "here", "--run-config", run_config)

        relay()
        yield FlowerNetwork(link, alive, begin, relay)


def processor_seconds(sessions: set[int]) -> float:
    """What the living processes of these sessions, and their children that ended, have used."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) in sessions:
                ticks += sum(int(one) for one in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


_SIZE, _MEASURED = 52_000_000, ("a", "b", "c")


def _work(folder: Path) -> None:
    """Three workers with an upload of 52 MB each, in a process of their own, so that the memory that is measured is the coordinator's."""
    reply = os.urandom(_SIZE)
    handler = parts_handler(lambda request: reply if request == b"large" else request)
    with workers(folder, dict.fromkeys(_MEASURED, handler)):
        sys.stdin.read()


def _measure(parts_of_flower: list[int]) -> None:
    sessions: set[int] = {os.getsid(0)}

    def ask(link: Link, request: bytes) -> float:
        started, total = time.monotonic(), 0
        for site, one in link.ask({site: request for site in link.sites}, 600):
            assert isinstance(one, bytes), (site, one)
            total += len(one)
        assert total == 3 * (_SIZE if request == b"large" else len(request))
        return time.monotonic() - started

    def said(title: str, link: Link, repeats: int) -> None:
        for words, request, count in (("a small message", b"small", repeats), ("52 MB", b"large", 1)):
            before = processor_seconds(sessions)
            wall = sorted(ask(link, request) for _ in range(count))
            used = (processor_seconds(sessions) - before) / count
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{title}: {words} of 3 sites {wall[0]:.3f} s (median {wall[count // 2]:.3f}), {used:.3f} s of processor; "
                f"the coordinator's largest memory so far {memory:.0f} MB",
                flush=True,
            )

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fl", dir="/tmp")))
        command = [sys.executable, "-m", "tests.deployment.flower_network", "workers", str(folder)]
        working = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE))
        assert working.stdin is not None
        stack.callback(working.stdin.close)
        paths = {site: folder / site / "worker.socket" for site in _MEASURED}
        while not all(path.exists() for path in paths.values()):
            time.sleep(0.1)
        said("socket", in_parts(socket_link(paths)), 100)
        files, port, stop = create_certificates(folder / "tls", sites=_MEASURED), free_port(), threading.Event()
        bare = tls_link(("127.0.0.1", port), Credentials(files.authority, files.server, files.server_key), _MEASURED)
        for site, path in paths.items():
            credentials = Credentials(files.authority, *files.sites[site])
            dialling = (("localhost", port), credentials, to_socket(path), stop)
            threading.Thread(target=dial, args=dialling, daemon=True).start()
        said("TLS (with the dialling ends in this process)", in_parts(bare), 100)
        stop.set()
        bare.close()
        started = time.monotonic()
        network = stack.enter_context(flower_network(folder, paths))
        carried = network.link
        sessions.update(one.pid for one in network.alive.values())
        ask(in_parts(carried), b"first")
        print(f"Flower: {time.monotonic() - started:.1f} s from nothing to the first replies", flush=True)
        for part in parts_of_flower or [PART_BYTES]:
            said(f"Flower, parts of {part >> 20} MiB", in_parts(carried, part_bytes=part, patience=PATIENCE), 5)


if __name__ == "__main__":
    if sys.argv[1:2] == ["workers"]:
        _work(Path(sys.argv[2]))
    else:
        _measure([int(one) for one in sys.argv[1:]])
