"""examples/consortium/run.sh: it starts what it says and leaves no process behind, however it ends. The runs are stand-ins (`stand_in`)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment.flower_network import SUPERLINK
from tests.helpers import compiling

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "examples" / "consortium" / "run.sh"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short name, and in `bin` what the script finds in PATH."""
    with tempfile.TemporaryDirectory(prefix="fp", dir="/tmp") as name:
        folder = Path(name)
        tools = folder / "bin"
        tools.mkdir()
        stand_in = f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent / "stand_in.py"} "$@"\n'
        for tool, text in (("fedjax-poisson", stand_in), ("python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')):
            (tools / tool).write_text(text)
            (tools / tool).chmod(0o700)
        (folder / "processes").touch()
        yield folder


def started(place: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    tools = [str(place / "bin"), *([str(Path(SUPERLINK).parent)] if SUPERLINK else []), os.environ["PATH"]]
    surroundings = {
        **os.environ,
        "PATH": os.pathsep.join(tools),
        "PYTHONPATH": str(ROOT),
        "STAND_IN_PROCESSES": str(place / "processes"),
        **environment,
    }
    command = ["bash", str(SCRIPT), "--out", str(place / "out"), *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=surroundings, cwd=place
    )


def left(place: Path) -> list[int]:
    """Processes of the script that still live."""
    living = []
    for line in (place / "processes").read_text().splitlines():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(line), 0)
            living.append(int(line))
    return living


def test_two_rounds_of_five_sites_and_nothing_is_left(place: Path) -> None:
    script = started(place, "--rounds", "2")
    said, _ = script.communicate(timeout=120)
    assert script.returncode == 0, said
    assert "round 1: 5 replies" in said and "sound" in said
    assert len((place / "processes").read_text().splitlines()) >= 5 + 1 + 5 + 5 + 2
    assert left(place) == []
    again = started(place)
    said, _ = again.communicate(timeout=20)
    assert again.returncode == 2 and "never overwritten" in said


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [("the coordinator fails", 3, "ended with code 3"), ("a worker dies", 1, "a process ended before the worker of")],
)
def test_a_failure_is_said_with_the_logs_and_nothing_is_left(place: Path, fault: str, code: int, words: str) -> None:
    script = started(place, "--rounds", "1", STAND_IN=fault)
    said, _ = script.communicate(timeout=120)
    assert script.returncode == code and words in said, said
    assert "the last lines of the logs" in said
    assert left(place) == []


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_every_process(place: Path, sent: signal.Signals, code: int) -> None:
    script = started(place, "--rounds", "1", STAND_IN="the coordinator waits")
    log, until = place / "out" / "logs" / "coordinator.log", time.monotonic() + 100
    while time.monotonic() < until and not (log.exists() and "round 0" in log.read_text()):
        time.sleep(0.2)
    assert len(left(place)) >= 6
    script.send_signal(sent)
    script.communicate(timeout=60)
    assert script.returncode == code
    assert left(place) == []


@pytest.mark.parametrize("words", [["--round", "3"], ["--rounds", "0"], ["--rounds"], ["--transport", "pigeon"]])
def test_arguments_that_make_no_sense_start_nothing(place: Path, words: list[str]) -> None:
    script = started(place, *words)
    said, _ = script.communicate(timeout=20)
    assert script.returncode == 2 and ("usage" in said or "run.sh:" in said)
    assert not (place / "out").exists()


@pytest.mark.long
@pytest.mark.skipif(SUPERLINK is None, reason="needs Flower: pip install 'fedjax-poisson[flower]'")
def test_the_same_over_flower(place: Path) -> None:
    script = started(place, "--rounds", "2", "--transport", "flower")
    said, _ = script.communicate(timeout=600)
    assert script.returncode == 0, said
    assert "round 1: 5 replies" in said and "sound" in said
    assert left(place) == []


@pytest.mark.long
@pytest.mark.parametrize("transport", ["socket", "tls"])
def test_real_processes_give_the_model_and_the_ledgers_of_one_process(transport: str, tmp_path: Path) -> None:
    """The heart data at five hospitals, three rounds, one seed; the script itself holds another seed against it, which must give another model."""
    script = ROOT / "experiments" / "consortium_example.py"
    words = ["--compare", "--rounds", "3", "--transport", transport, "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(script), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": compiling.flags()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    (row,) = json.loads((tmp_path / "results" / "consortium_example.json").read_text())["rows"]
    assert row["same_model"] and row["same_ledger_rows"] == [True] * 5 and row["ledger_rows"] == 5
    assert row["other_seed_differs"]
