"""Which forms of a function are traced: all of them, or the one of the platform that is named, and never the one's trace in place of the others'."""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.platforms import by_platform, for_only, usable_cores


def _watched():
    """A compiled function of two forms, inside another compiled one, and which of them were traced so far."""
    traced: list[str] = []

    def form(name, by):
        def one(x):
            traced.append(name)
            return x * by

        return one

    @jax.jit
    def inner(x):
        return by_platform(x, cpu=form("cpu", 2), default=form("default", 2))

    return jax.jit(lambda x: inner(x) + 1), traced


def test_all_forms_are_traced_where_nothing_is_said():
    function, traced = _watched()
    np.testing.assert_array_equal(function(jnp.arange(3)), [1, 3, 5])
    assert set(traced) == {"cpu", "default"}


@pytest.mark.skipif(not hasattr(jax, "make_user_context"), reason="this jax has no contexts that its caches know")
@pytest.mark.parametrize(("platform", "form"), [("cpu", "cpu"), ("tpu", "default")])
def test_one_form_is_traced_for_one_platform(platform, form):
    function, traced = _watched()
    with for_only(platform):
        assert int(function(jnp.int32(4))) == 9
    assert set(traced) == {form}


@pytest.mark.skipif(not hasattr(jax, "make_user_context"), reason="this jax has no contexts that its caches know")
def test_a_trace_for_one_platform_is_not_taken_for_all():
    function, traced = _watched()
    with for_only("cpu"):
        function(jnp.int32(4))
    traced.clear()
    function(jnp.int32(4))
    assert set(traced) == {"cpu", "default"}
    lowered = function.trace(jnp.int32(4)).lower(lowering_platforms=("cuda",))
    assert "stablehlo" in lowered.as_text()


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")  # not every system has it
    assert usable_cores() == 64
