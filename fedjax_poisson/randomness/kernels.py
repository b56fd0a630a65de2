"""The ChaCha20 block function compiled as one piece: a Pallas kernel for CUDA devices, one function for CPUs.

On CUDA devices XLA has no loop whose sixteen words stay in registers: it either writes the state to memory in every
iteration or is given twenty unrolled rounds, which compile slowly. On CPUs it runs every operation of a loop's body as
a task of its own, a fraction of a microsecond long, which the threads pass to and fro.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata

Words = tuple[jax.Array, ...]
LANES = 256  # blocks one program instance works on
CPU_BLOCKS = 4096  # most blocks in one function: 256 KiB of words
CPU_LANES = 256  # blocks that one step of the CPU's loop works on: their state stays in the first-level cache
# XLA:CPU compiles a call with these attributes as one function instead of dissolving it into the caller. They are
# hints: where they are not known, the call is inlined and the words are the same.
_ONE_FUNCTION = {"inlineable": "false", "xla_cpu_small_call": "true"}


def looped_block(
    constants: tuple[int, ...],
    double_round: Callable[[Words], Words],
    key: jax.Array,
    counter: jax.Array,
    nonce: Words,
    *,
    interpret: bool = False,
) -> Words:
    """Sixteen words of the blocks at `counter`.

    Args:
        constants: the four constant words.
        double_round: two rounds of sixteen words.
        key: uint32[8].
        counter: uint32[...].
        nonce: three uint32 scalars.
        interpret: run the kernel's steps as ordinary operations, on any device (for tests).
    """
    # Here, not above: no form that is chosen by itself needs it, and in jax 0.7 the import adds settings.
    from jax.experimental import pallas as pl

    count = max(counter.size, 1)
    size = -(-count // LANES) * LANES
    flat = jnp.pad(counter.reshape(-1), (0, size - counter.size))
    head = jnp.concatenate([key, jnp.stack(nonce), jnp.zeros(5, jnp.uint32)])
    plane = pl.BlockSpec((LANES,), lambda i: (i,))
    shape = jax.eval_shape(lambda head, flat: head[0] | flat, head, flat)  # inherits the mesh axes both vary over
    words = pl.pallas_call(
        functools.partial(_kernel, constants, double_round),
        grid=(size // LANES,),
        in_specs=[pl.BlockSpec((16,), lambda i: (0,)), plane],
        out_specs=[plane] * 16,
        out_shape=[shape] * 16,
        interpret=interpret,
    )(head, flat)
    return tuple(word[: counter.size].reshape(counter.shape) for word in words)


def _kernel(
    constants: tuple[int, ...],
    double_round: Callable[[Words], Words],
    head: jax.Array,
    counter: jax.Array,
    *out: jax.Array,
) -> None:
    lanes = counter[...]
    fixed = [jnp.uint32(c) for c in constants] + [head[i] for i in range(8)]
    tail = [head[i] for i in range(8, 11)]
    start = tuple(jnp.broadcast_to(word, lanes.shape) for word in [*fixed, lanes, *tail])
    end = lax.fori_loop(0, 10, lambda _, words: double_round(words), start)
    for ref, a, b in zip(out, end, start, strict=True):
        ref[...] = a + b


def as_one_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of arrays, compiled as one piece on CPUs: for loops over tiles that fit in the first-level cache.

    No operation inside may be large enough for XLA to share it out over threads (arrays of half a MiB, or 200,000
    operations): one function cannot. So a batch under vmap is worked off one after the other, and callers keep to
    CPU_BLOCKS blocks in a call.

    Args:
        function: takes and returns pytrees of small arrays; the same object at every call, or it is traced again.
    """
    jitted = jax.jit(_without_hints(function))

    def call(*arguments: Any) -> Any:
        with set_xla_metadata(**_ONE_FUNCTION):
            return jitted(*arguments)

    return jax.custom_batching.sequential_vmap(call)


def _without_hints(function: Callable[..., Any]) -> Callable[..., Any]:
    def inside(*arguments: Any) -> Any:
        with set_xla_metadata(**dict.fromkeys(_ONE_FUNCTION)):
            return function(*arguments)

    return inside


def tiled_block(block: Callable[[jax.Array, jax.Array, Words], Words]) -> Callable[..., Words]:
    """A block function `(key, counter, nonce) -> Words` that works on CPU_LANES counters at a time, as one function.

    Args:
        block: the block function at an array of counters; more than CPU_BLOCKS of them are left to it whole.
    """

    def tiled(key: jax.Array, counter: jax.Array, nonce: Words) -> Words:
        tiles = -(-counter.size // CPU_LANES)

        def split(x: jax.Array) -> jax.Array:
            return jnp.pad(x.reshape(-1), (0, tiles * CPU_LANES - x.size)).reshape(tiles, CPU_LANES)

        def step(_: None, tile: tuple[jax.Array, dict[int, jax.Array]]) -> tuple[None, Words]:
            own = tuple(tile[1].get(i, word) for i, word in enumerate(nonce))
            return None, block(key, tile[0], own)

        varying = {i: split(word) for i, word in enumerate(nonce) if word.ndim}
        words = lax.scan(step, None, (split(counter), varying))[1]
        return tuple(word.reshape(-1)[: counter.size].reshape(counter.shape) for word in words)

    function = as_one_function(tiled)
    return lambda key, counter, nonce: (function if counter.size <= CPU_BLOCKS else block)(key, counter, nonce)
