"""The comparison with other libraries: its tables, its baseline in plain JAX, and how processes are counted."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

PEERS = Path(__file__).parents[2] / "experiments" / "benchmarks" / "peers"


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(PEERS))
    return importlib.import_module


def record(name: str, repeat: int, median: float, privacy: str = "on", variant: str = "", **facts):
    shared = {"workload": "W1", "accuracy": 0.93, "min_ms": median / 2, "cpu_ms": 3 * median, "compile_s": 1.0}
    return (
        {"peer": name, "variant": variant, "privacy": privacy, "repeat": repeat, "median_ms": median} | shared | facts
    )


def test_every_peer_has_a_script_and_runs_for_every_workload(peer):
    compare, workloads = peer("compare"), peer("harness").workloads().CONFIGS
    for name, found in compare.PEERS.items():
        assert set(found.runs) == set(workloads) and all(found.runs.values()), name
        assert name == "fedjax_poisson" or (PEERS / f"peer_{name}.py").exists()
    readme = (PEERS / "README.md").read_text()
    assert all(f"| `{name}` |" in readme for name in compare.PEERS)


def test_ratios_are_taken_within_a_repeat_and_to_plain_jax_with_the_same_privacy(peer):
    compare = peer("compare")
    measured = [record("plain_jax", i, base) for i, base in enumerate((1.0, 2.0, 10.0))]
    measured += [record("plain_jax", i, 0.1, privacy="off") for i in range(3)]
    measured += [record("pfl", i, time) for i, time in enumerate((3.0, 8.0, 10.0))]  # 3, 4 and 1 times the base
    row = compare.rows(measured)[-1]
    to = compare.base(compare.rows(measured), "on")
    assert compare.ratio(row, to, "median_ms") == 3.0  # the ratio of the medians would be 4
    assert compare.ratio(row, to, "cpu_ms") == 3.0
    last = compare.table("W1", measured).splitlines()[-1].split(" | ")
    assert last[3:9] == ["8", "1.5", "24", "3", "3", "3"]


def test_a_run_that_does_not_learn_is_marked(peer):
    compare = peer("compare")
    fine, bad = (compare.table("W1", [record("pfl", 0, 1.0, accuracy=value)]) for value in (0.93, 0.91))
    assert "NOT as expected" in bad and "NOT as expected" not in fine


def test_a_peer_that_no_interpreter_has_is_left_out_with_the_reason(peer):
    compare = peer("compare")
    assert compare.interpreter(("json",), [sys.executable])[0] == sys.executable
    python, reason = compare.interpreter(("json", "no_such_peer"), [sys.executable])
    assert python is None and "no_such_peer" in reason and "README" in reason


def test_the_baseline_clips_every_update_and_sums(peer):
    updates = {"a": np.arange(12.0).reshape(3, 2, 2), "b": np.array([[0.1], [30.0], [0.2]])}
    updates["a"][0] *= 0.01  # the first is short and stays as it is
    norms = np.sqrt((updates["a"] ** 2).sum((1, 2)) + (updates["b"] ** 2).sum(1))
    assert norms[0] < 0.5 < norms[1:].min()
    found = peer("peer_plain_jax").clipped_sum(jax.tree.map(jnp.asarray, updates), 0.5)
    for name, leaf in updates.items():
        shape = (3,) + (1,) * (leaf.ndim - 1)
        expected = (leaf * np.minimum(1, 0.5 / norms).reshape(shape)).sum(0)
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)
        assert not np.allclose(leaf.sum(0), expected, rtol=0.1)  # without the clip it would be another


def test_chunks_of_clients_change_nothing_but_the_order_of_sums(peer):
    harness, plain = peer("harness"), peer("peer_plain_jax")
    task = harness.task(argparse.Namespace(workload="W1", privacy="as_stated", passes=1))
    data, ids = (jnp.asarray(task.x), jnp.asarray(task.y)), jnp.asarray(task.cohorts[0, :20], jnp.int32)
    after = []
    for chunk in (1, 5, 20):
        one_round = plain.build_round(task.config, plain.DEFAULTS | {"chunk": str(chunk)}, *data)
        with jax.numpy_rank_promotion("allow"):  # the peers are not held to the package's strictness
            after.append(jax.jit(one_round)(jax.tree.map(jnp.asarray, task.params), ids, jax.random.key(0), *data))
    for other in after[1:]:
        for name, leaf in after[0].items():
            np.testing.assert_allclose(other[name], leaf, atol=1e-5)
    assert np.abs(after[0]["w0"] - task.params["w0"]).max() > 1e-3


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are read from /proc, which only Linux has")
def test_processor_time_and_memory_are_those_of_the_whole_family(peer):
    flower = peer("peer_flower")
    code = "import time\nx = bytearray(10**8)\nwhile time.process_time() < .5: pass\nprint(flush=True)\ninput()"
    before, memory = flower.processor_s(), flower.peak_bytes()
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert child.pid in flower.family()
        assert flower.processor_s() - before > 0.4
        assert flower.peak_bytes() - memory > 9e7
        child.communicate(b"\n")
    assert child.pid not in flower.family()
    assert flower.processor_s() - before > 0.4  # an ended child still counts


@pytest.mark.skipif(
    not Path("/proc/stat").exists(), reason="the load of others is read from /proc, which only Linux has"
)
def test_a_run_of_ones_own_is_not_the_load_of_others(peer):
    compare = peer("compare")
    code = 'import time\nwhile time.process_time() < 1: pass\nprint(\'{"variant": ""}\')'

    def busy() -> float:
        user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().split()[1:9])
        return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")

    before = busy()
    found = compare.timed([sys.executable, "-c", code], dict(os.environ), 60.0)
    own = busy() - before - found["others"] * found["process_s"]
    assert 0.9 < own < 2.0  # one second of work, and the start of an interpreter
