"""The ChaCha20 block function compiled as one piece on CPUs.

In a loop XLA for CPUs runs every operation of the body as a task of its own, a fraction of a microsecond long, which the threads pass to and fro.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata

Words = tuple[jax.Array, ...]
CPU_BLOCKS = 4096  # most blocks in one function: 256 KiB of words
CPU_LANES = 256  # most blocks that one step of the CPU's loop works on: their state stays in the first-level cache
_VECTOR = 16  # lanes of a step are a multiple of it: what is left over after whole vectors is worked on word by word
# XLA:CPU compiles a call with these attributes as one function instead of dissolving it into the caller. They are
# hints: where they are not known, the call is inlined and the words are the same.
_ONE_FUNCTION = {"inlineable": "false", "xla_cpu_small_call": "true"}


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
    """A block function `(key, counter, nonce) -> Words` that works on up to CPU_LANES counters at a time, as one function.

    All steps have equally many, so that few are made for nothing.

    Args:
        block: the block function at an array of counters; more than CPU_BLOCKS of them are left to it whole.
    """

    def tiled(key: jax.Array, counter: jax.Array, nonce: Words) -> Words:
        tiles = max(1, -(-counter.size // CPU_LANES))
        lanes = -(-counter.size // (tiles * _VECTOR)) * _VECTOR

        def split(x: jax.Array) -> jax.Array:
            return jnp.pad(x.reshape(-1), (0, tiles * lanes - x.size)).reshape(tiles, lanes)

        def step(_: None, tile: tuple[jax.Array, dict[int, jax.Array]]) -> tuple[None, Words]:
            own = tuple(tile[1].get(i, word) for i, word in enumerate(nonce))
            return None, block(key, tile[0], own)

        varying = {i: split(word) for i, word in enumerate(nonce) if word.ndim}
        words = lax.scan(step, None, (split(counter), varying))[1]
        return tuple(word.reshape(-1)[: counter.size].reshape(counter.shape) for word in words)

    function = as_one_function(tiled)
    return lambda key, counter, nonce: (function if counter.size <= CPU_BLOCKS else block)(key, counter, nonce)
