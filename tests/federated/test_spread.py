"""Two real processes that train together: one is killed in the middle of a round, both are started again, and the run ends as one process's would."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from fedjax_poisson import federated
from tests.federated import two_processes

SCRIPT = Path(__file__).with_name("two_processes.py")


def _start(
    folder: Path, number: int, count: int, port: int, *, rounds: int, dies_at: int, devices: int
) -> subprocess.Popen:
    root = str(SCRIPT.parents[2])
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p),
    }
    arguments = [str(a) for a in (number, count, port, folder, rounds, dies_at)]
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def _run(folder: Path, count: int, *, rounds: int, dies_at: int = 0, devices: int = 2) -> list[tuple[int, str]]:
    folder.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    started = [_start(folder, i, count, port, rounds=rounds, dies_at=dies_at, devices=devices) for i in range(count)]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, output) for process, output in zip(started, outputs, strict=True)]


@pytest.mark.long  # two processes compile everything twice
def test_a_process_killed_mid_round_ends_clearly_and_the_run_goes_on_to_the_same_bits(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (tmp_path / "alone").mkdir()
        alone = two_processes.train(tmp_path / "alone", 2, federated.client_mesh(4))
    (survivor, said), (killed, _) = _run(tmp_path / "two", 2, rounds=2, dies_at=2)
    assert killed == -9 and survivor not in (0, None)
    assert re.search(
        r"nothing of this round\s+has been opened or charged|Nothing was opened and nothing was charged", said
    ), said
    assert "start all processes again" in said.lower()
    again = _run(tmp_path / "two", 2, rounds=2)
    assert [code for code, _ in again] == [0, 0], again[0][1]
    # Two rounds, each on the ledger once: the lost one had not been charged.
    assert "ledger ['train 1', 'train 2']" in again[0][1]
    np.testing.assert_array_equal(np.load(tmp_path / "two" / "params.npy"), alone)


def test_in_one_process_the_gate_and_the_stream_are_the_callers_own():
    def gate() -> None: ...

    assert federated.first_process_gate(gate) is gate and federated.first_process_gate(None) is None
    with pytest.warns(UserWarning, match="NOT private"):
        federated.shared_stream(3)
