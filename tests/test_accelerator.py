"""An accelerator that lies idle is told of once; a machine without one, or a user who wants the CPU, hears nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import pytest

from fedjax_poisson import accelerator, randomness


@pytest.fixture(autouse=True)
def _a_machine_that_wants_whatever_there_is(monkeypatch: pytest.MonkeyPatch):
    """As on a user's machine: no platform is asked for, and nothing was told yet; jax itself stays on the CPU."""
    for name in ("JAX_PLATFORM_NAME", "CUDA_VISIBLE_DEVICES", *accelerator._TPU_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    before = jax.config.jax_platforms
    jax.default_backend()
    jax.config.update("jax_platforms", None)
    accelerator.warn_if_idle.cache_clear()
    yield
    jax.config.update("jax_platforms", before)
    accelerator.warn_if_idle.cache_clear()


def _heard() -> list[str]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        randomness.stream()
        randomness.stream()
    return [str(one.message) for one in seen if one.category is accelerator.IdleAcceleratorWarning]


def test_an_idle_accelerator_is_told_of_once(monkeypatch):
    monkeypatch.setattr(accelerator, "present", lambda: "an NVIDIA GPU")
    (message,) = _heard()
    assert "this machine has an NVIDIA GPU, but jax computes on the CPU" in message
    assert f"jax {jax.__version__}" in message and "[cuda12]" in message and "JAX_PLATFORMS=cpu" in message


def test_without_an_accelerator_nothing_is_told(monkeypatch):
    monkeypatch.setattr(accelerator, "present", lambda: None)
    assert _heard() == []


def test_an_accelerator_in_use_is_no_news(monkeypatch):
    monkeypatch.setattr(accelerator, "present", lambda: "a TPU")
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert _heard() == []


@pytest.mark.parametrize("platforms", ["cpu", "cpu,cuda"])
def test_who_asks_for_the_cpu_hears_nothing(monkeypatch, platforms):
    monkeypatch.setattr(accelerator, "present", lambda: "an NVIDIA GPU")
    jax.config.update("jax_platforms", platforms)
    assert _heard() == []
    jax.config.update("jax_platforms", None)
    accelerator.warn_if_idle.cache_clear()
    monkeypatch.setenv("JAX_PLATFORM_NAME", "cpu")
    assert _heard() == []


@pytest.mark.parametrize(
    ("node", "found"),
    [
        ("dev/nvidia0", "an NVIDIA GPU"),
        ("dev/dxg", "an NVIDIA GPU"),
        ("dev/kfd", "an AMD GPU"),
        ("dev/accel0", "a TPU"),
        ("dev/nvidiactl", None),
        ("dev/null", None),
    ],
)
def test_what_a_machine_shows(tmp_path: Path, node, found):
    (tmp_path / node).parent.mkdir(parents=True)
    (tmp_path / node).touch()
    assert accelerator.present(tmp_path) == found


def test_a_hidden_gpu_does_not_count_and_a_tpu_may_show_in_the_environment(tmp_path: Path, monkeypatch):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert accelerator.present(tmp_path) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert accelerator.present(tmp_path) == "an NVIDIA GPU"
    (tmp_path / "dev" / "nvidia0").unlink()
    monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    assert accelerator.present(tmp_path) == "a TPU"


def test_the_import_tells_nothing_and_starts_nothing():
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "from fedjax_poisson import accelerator\n"
        "accelerator.present = lambda: 'an NVIDIA GPU'\n"
        "import fedjax_poisson.federated, jax\n"
        "assert len(jax._src.xla_bridge._backends) == 0\n"
        "try: fedjax_poisson.randomness.stream()\n"
        "except accelerator.IdleAcceleratorWarning: print('told at the first stream')\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "told at the first stream"
