"""Programs that call the host are found, wherever the call stands; others are not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from fedjax_poisson.federated.host_calls import calls_host

SHAPE = jax.ShapeDtypeStruct((), jnp.float32)
X = np.float32(1)


def _double(x):
    return np.float32(2) * x


def _with_rule(call):
    ruled = jax.custom_vjp(call)
    ruled.defvjp(lambda x: (call(x), None), lambda _, slope: (slope,))
    return ruled


CALLS = {
    "debug.print": lambda x: (jax.debug.print("{}", x), x)[1],
    "debug.callback": lambda x: (jax.debug.callback(lambda _: None, x), x)[1],
    "pure_callback": lambda x: jax.pure_callback(_double, SHAPE, x, vmap_method="sequential"),
    "io_callback": lambda x: io_callback(_double, SHAPE, x),
    "nothing": lambda x: jnp.float32(2) * x,
}
PLACES = {
    "itself": lambda call: call,
    "a program inside": jax.jit,
    "a loop": lambda call: lambda x: jax.lax.scan(lambda c, _: (call(c), None), x, None, length=2)[0],
    "a loop with a condition": lambda call: lambda x: jax.lax.while_loop(lambda c: c < jnp.float32(3), call, x),
    "a branch": lambda call: lambda x: jax.lax.cond(x > jnp.float32(0), call, lambda x: x, x),
    "a rule of its own": lambda call: _with_rule(call),
    "a checkpoint": jax.checkpoint,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("call", CALLS)
def test_a_call_is_found_where_there_is_one(call, place):
    program = jax.jit(lambda x: PLACES[place](CALLS[call])(x))
    assert calls_host(program, (X,)) == (call != "nothing")


def test_the_trace_serves_the_call_and_the_answer_is_kept():
    traces = []

    def traced(x):
        traces.append(1)
        return jnp.float32(2) * x

    program = jax.jit(traced)
    assert not calls_host(program, (X,)) and not calls_host(program, (X,))
    assert float(program(X)) == 2 and len(traces) == 1
