"""Strictness for every test: no silent dtype promotion, several host devices for shard_map, hypothesis profiles, the same draws every time."""

from __future__ import annotations

import gc
import itertools
import os
import pathlib

# Before jax is imported: eight host devices so that shard_map tests mean something, two cores are all there is.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
# Most of a test's time is compilation, and workers and subprocesses compile the same programs: keep them on disk. The
# smallest too: one is read in a third of the time that it takes to compile.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parent.parent / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import hypothesis
import jax
import pytest

from tests.helpers import compiling, entropy

hypothesis.settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True)
hypothesis.settings.register_profile("nightly", max_examples=1000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

TESTS = pathlib.Path(__file__).parent
FRESH_ENTROPY = os.environ.get("FRESH_ENTROPY") == "1"
if not FRESH_ENTROPY:
    entropy.install()
compiling.install()


def _as_shipped(item):
    marked = item.get_closest_marker("as_shipped") is not None
    return compiling.is_as_shipped(item.path, TESTS, marked)


def pytest_collection_finish(session):
    # What was imported and collected stays: Python need not look through it for garbage again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def pytest_collection_modifyitems(items):
    # Together, so that a worker seldom changes from one to the other.
    items.sort(key=lambda item: not _as_shipped(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    # By the test's name and not by a counter: which tests ran before it in this worker makes no difference.
    compiling.compile_as_shipped(_as_shipped(item))
    with entropy.seeded(item.nodeid):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef, request):
    # What several tests share has a name of its own: any of them may be the first that asks for it.
    if fixturedef.scope == "function":
        return (yield)
    with entropy.seeded(f"{fixturedef.baseid}::{fixturedef.argname}[{request.param_index}]"):
        return (yield)


@pytest.fixture
def system_entropy(monkeypatch):
    """For tests of just that: the package asks the operating system itself."""
    for reader, (module, _) in entropy.READERS.items():
        monkeypatch.setattr(f"fedjax_poisson.{reader}.{module.__name__}", module)


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
