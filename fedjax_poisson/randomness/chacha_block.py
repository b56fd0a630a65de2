"""The ChaCha20 block function (RFC 8439 section 2.3) in forms that give the same words: which one is quick depends on the device and the number of blocks.

Source: Nir and Langley, RFC 8439 (2018), sections 2.1-2.3.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_poisson.platforms import by_platform
from fedjax_poisson.randomness import kernels

_CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)  # "expand 32-byte k"
_COLUMNS_AND_DIAGONALS = (
    ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)),
    ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)),
)


Words = tuple[jax.Array, ...]


@functools.partial(jax.jit, static_argnames="form", inline=True)  # outside jit it would be compiled at every call
def chacha20_block(key: jax.Array, counter: jax.Array, nonce: Words, *, form: str | None = None) -> Words:
    """The ChaCha20 block function (RFC 8439 section 2.3) at many counters.

    Args:
        key: uint32[8], little-endian words.
        counter: uint32[...], the block counters.
        nonce: three uint32 words, scalars or of the shape of `counter`.
        form: how the twenty rounds are written; None takes what is best on the device the program is lowered for, compiling counted. All give the
            same words: "loop" (accelerators), "loop2" (the same for very many blocks), "rows2" (for few), "loop5" a loop over that many double
            rounds, "passes" the same in short passes, "tiled" the same for a few hundred blocks at a time (CPU);
            "unrolled" straight-line code, which a GPU keeps in registers.

    Returns:
        Sixteen uint32 arrays of the shape of `counter`: the words of each block.

    Raises:
        KeyError: for an unknown form.
    """
    if form is not None:
        return FORMS[form](key, counter, nonce)
    many = counter.size > _FEW
    cpu = FORMS[_CPU_FORM if many and counter.size <= kernels.CPU_BLOCKS else _CPU_FORM_FOR_FEW]
    default = FORMS[_accelerator_form(counter.size)]
    return by_platform(key, counter, nonce, cpu=cpu, default=default)


def _accelerator_form(blocks: int) -> str:
    if blocks <= _FEW:
        return _ACCELERATOR_FORM_FOR_FEW
    return _ACCELERATOR_FORM if blocks <= _VERY_MANY else _ACCELERATOR_FORM_FOR_VERY_MANY


def _in_rows(rounds_at_once: int) -> Callable[[jax.Array, jax.Array, Words], Words]:
    """A loop whose state is four arrays of four words: a quarter round is four operations and not sixteen, and few kernels, at twice the traffic."""

    def turned(row: jax.Array, by: int) -> jax.Array:
        return jnp.concatenate([row[by:], row[:by]])

    def double_round(_: int, state: Words) -> Words:
        for turn in (1, -1):  # columns, then diagonals
            a, b, c, d = _half_quarter_round(_half_quarter_round(state, 16, 12), 8, 7)
            state = (a, turned(b, turn), turned(c, 2), turned(d, -turn))
        return state

    def block(key: jax.Array, counter: jax.Array, nonce: Words) -> Words:
        words = _first_state(key, counter, nonce)
        state = tuple(jnp.stack(words[i : i + 4]) for i in range(0, 16, 4))
        end = lax.fori_loop(0, 10, double_round, state, unroll=rounds_at_once)
        return tuple(word for a, b in zip(end, state, strict=True) for word in a + b)

    return block


def _first_state(key: jax.Array, counter: jax.Array, nonce: Words) -> Words:
    start = [jnp.uint32(c) for c in _CONSTANTS] + [key[i] for i in range(8)] + [counter, *nonce]
    # A zero that varies over the mesh axes of every input, as shard_map wants of a loop's carry; the compiler drops it.
    nothing = (key[0] | counter | nonce[0] | nonce[1] | nonce[2]) & jnp.uint32(0)
    return tuple(jnp.broadcast_to(word, nothing.shape) | nothing for word in start)


def _in_xla(rounds_at_once: int, cut: Callable[[Words], Words]) -> Callable[[jax.Array, jax.Array, Words], Words]:
    """A form in plain XLA: a loop over `rounds_at_once` double rounds, straight-line code when that is all ten.

    A double round is traced once and repeated when the program is lowered: a program is traced for every platform, and lowered for one.
    """

    def one(_: jax.Array, state: Words) -> Words:
        return _double_round(state, cut)

    def block(key: jax.Array, counter: jax.Array, nonce: Words) -> Words:
        state = _first_state(key, counter, nonce)
        end = lax.fori_loop(0, 10, one, state, unroll=rounds_at_once)
        return tuple(a + b for a, b in zip(end, state, strict=True))

    return block


def _whole(words: Words) -> Words:
    return words


# XLA:CPU fuses per output: without the barriers it would evaluate half a quarter round again for each of its four
# outputs (3 % slower on two idle cores, up to a quarter on busy ones).
FORMS: dict[str, Callable[[jax.Array, jax.Array, Words], Words]] = {
    "passes": _in_xla(1, lax.optimization_barrier),
    "loop": _in_xla(1, _whole),
    "loop2": _in_xla(2, _whole),
    "loop5": _in_xla(5, _whole),
    "rows2": _in_rows(2),
    "unrolled": _in_xla(10, _whole),
}
FORMS["tiled"] = kernels.tiled_block(FORMS["loop2"])
_CPU_FORM, _CPU_FORM_FOR_FEW = "tiled", "passes"
# A GPU's loop moves the state through memory: XLA makes three kernels of a double round ("loop"), four of two ("loop2"), so a block of 64 bytes costs 30 or 20
# passes of at most 128. On an H100 with 3.35 TB/s that is 72 or 48 us for a million words at most; unrolled, in registers, 1.2. But compiling a block for it
# takes .4, 1.0 or 40 s of a processor (one form at a time, jax 0.10.2), and a round has ten or so: "loop2" gains its .6 s back after 2.5e10 words. Assumed from
# bytes, not timed on a GPU. A Pallas kernel would keep the state in registers too, but its language reaches no GPU before the H100.
_ACCELERATOR_FORM, _ACCELERATOR_FORM_FOR_VERY_MANY = "loop", "loop2"
_ACCELERATOR_FORM_FOR_FEW = "rows2"  # a single block is 64 kernels and copies of an H100 by it, 211 by "loop" (counted likewise), compiled as quickly
_VERY_MANY = 1 << 20  # blocks of one call, 1.7e7 words: it gains its compile time back in 1,500 calls
_FEW = 256  # blocks of one stream up to which starting kernels costs more than running them


def _double_round(state: Words, cut: Callable[[Words], Words]) -> Words:
    words = list(state)
    for quarter_rounds in _COLUMNS_AND_DIAGONALS:
        for a, b, c, d in quarter_rounds:
            quarter: Words = (words[a], words[b], words[c], words[d])
            for first, second in ((16, 12), (8, 7)):
                quarter = cut(_half_quarter_round(quarter, first, second))
            words[a], words[b], words[c], words[d] = quarter
    return tuple(words)


def _half_quarter_round(quarter: Words, first: int, second: int) -> Words:
    a, b, c, d = quarter
    a = a + b
    d = _rotate(d ^ a, first)
    c = c + d
    b = _rotate(b ^ c, second)
    return a, b, c, d


def _rotate(x: jax.Array, by: int) -> jax.Array:
    return (x << jnp.uint32(by)) | (x >> jnp.uint32(32 - by))
