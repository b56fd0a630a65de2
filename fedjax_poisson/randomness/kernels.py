"""The ChaCha20 block function as a Pallas kernel for CUDA devices: a real loop whose sixteen words stay in registers.

XLA has no such loop: it either writes the state to memory in every iteration or is given twenty unrolled rounds, which
compile slowly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

Words = tuple[jax.Array, ...]
LANES = 256  # blocks one program instance works on


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
