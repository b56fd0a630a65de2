import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from fedjax_poisson.benchmarks import targets
from fedjax_poisson.benchmarks.targets import TARGETS, described_device, needs


def test_a_missing_compiler_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(targets, "_found", lambda module: False)
    assert needs(TARGETS["rocm"]) is None
    assert f"jax-cuda12-plugin=={jax.__version__}" in needs(TARGETS["t4"])
    assert f"jax[tpu]=={jax.__version__}" in needs(TARGETS["v5e"])
    monkeypatch.setattr(targets, "_found", lambda module: True)
    assert all(needs(target) is None for target in TARGETS.values())


def test_modules_of_missing_parents_are_not_found():
    assert not targets._found("no_such_package.part") and not targets._found("no_such_package")
    assert targets._found("json.decoder")


def test_what_can_only_be_lowered_for_has_no_device():
    with pytest.raises(ValueError, match="lowered for, not compiled for"):
        described_device(TARGETS["rocm"])


def test_peaks_are_those_of_the_data_sheets():
    assert TARGETS["h100"].integer_per_s == pytest.approx(132 * 64 * 1.98e9)
    assert TARGETS["t4"].multiply_add_per_s == pytest.approx(40 * 64 * 1.59e9)


@pytest.mark.skipif(importlib.util.find_spec("jax_plugins") is None, reason="no compiler for a GPU is installed")
@pytest.mark.parametrize("name", ["h100", "t4"])
def test_a_described_gpu_compiles(name):
    if needs(TARGETS[name]) is not None:
        pytest.skip("no compiler for CUDA is installed")
    shape = jax.ShapeDtypeStruct((64, 64), jnp.float32, sharding=SingleDeviceSharding(described_device(TARGETS[name])))
    lowered = jax.jit(lambda x: jnp.sin(x) @ x).trace(shape).lower(lowering_platforms=("cuda",))
    assert "ENTRY" in lowered.compile(compiler_options=TARGETS[name].options).as_text()
