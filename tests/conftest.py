"""Strictness for every test: no silent dtype promotion, several host devices for shard_map, hypothesis profiles."""

from __future__ import annotations

import gc
import itertools
import os
import pathlib

# Before jax is imported: eight host devices so that shard_map tests mean something, two cores are all there is.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
# Most of a test's time is compilation, and workers and subprocesses compile the same programs: keep them on disk.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parent.parent / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import hypothesis
import jax
import pytest

hypothesis.settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True)
hypothesis.settings.register_profile("nightly", max_examples=1000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _strict_jax():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(autouse=True)
def _room_for_compiled_programs():
    # Linux lets a process hold 65,530 memory mappings, and every program that XLA compiles for the CPU keeps about six:
    # a worker that runs half of the suite would reach the limit and die with MemoryError in some innocent test.
    yield
    if _MAPPINGS.exists() and next(_finished) % 20 == 0 and _MAPPINGS.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
        gc.collect()


_MAPPINGS = pathlib.Path("/proc/self/maps")
_finished = itertools.count(1)
