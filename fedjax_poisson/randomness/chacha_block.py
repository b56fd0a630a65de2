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
            same words: "double" a double round in one piece (accelerators), "single" a round in one piece (accelerators, for few blocks), "loop2" a loop
            over two double rounds word by word, "passes" over one in short passes (CPU, where there are too many for a function), "piece" the same as
            one function (CPU, for few), "tiled" "loop2" for a few hundred blocks at a time (CPU).

    Returns:
        Sixteen uint32 arrays of the shape of `counter`: the words of each block.

    Raises:
        KeyError: for an unknown form.
    """
    if form is not None:
        return FORMS[form](key, counter, nonce)
    many = counter.size > _FEW
    cpu = FORMS["passes" if counter.size > kernels.CPU_BLOCKS else _CPU_FORM if many else _CPU_FORM_FOR_FEW]
    default = FORMS[_ACCELERATOR_FORM if many else _ACCELERATOR_FORM_FOR_FEW]
    return by_platform(key, counter, nonce, cpu=cpu, tpu=FORMS[_TPU_FORM], default=default)


def _in_pieces(pieces: int, piece: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array, jax.Array, Words], Words]:
    """A loop whose state is one array uint32[16, blocks], so that what comes between two states is one kernel of a GPU, with the words of a block in registers.

    Two pieces go round together, from one array into another and back: with one piece the loop would copy its result to where its argument was. The barrier
    keeps them apart, so that the compiler finds the same kernel twice. Under vmap the sixteen words stay in front.
    """

    @jax.custom_batching.custom_vmap
    def rounds(state: jax.Array) -> jax.Array:
        return state + lax.fori_loop(0, pieces // 2, lambda _, x: piece(lax.optimization_barrier(piece(x))), state)

    @rounds.def_vmap
    def _(size: int, batched: list[bool], states: jax.Array) -> tuple[jax.Array, bool]:
        del size, batched
        return jnp.moveaxis(rounds(jnp.moveaxis(states, 0, 1)), 1, 0), True

    def block(key: jax.Array, counter: jax.Array, nonce: Words) -> Words:
        return tuple(rounds(jnp.stack(_first_state(key, counter, nonce))))

    return block


def _one_double_round(state: jax.Array) -> jax.Array:
    return jnp.stack(_double_round(tuple(state), _whole))


# In a round each of the four words that a quarter round takes is of another row of the square, at the same place of each row if the rows are turned. Columns
# need no turn, diagonals turn rows b, c, d by 1, 2, 3, and afterwards back by as much. Mirrored besides, a turn is its own inverse: place i of row r goes to
# r - i, and again to i. So all rounds are the same, each followed by this exchange; after twenty everything is in its place.
_EXCHANGED = tuple(4 * row + (row - place) % 4 for row in range(4) for place in range(4))


def _one_round(state: jax.Array) -> jax.Array:
    rows = tuple(state[i : i + 4] for i in range(0, 16, 4))
    words = jnp.concatenate(_half_quarter_round(_half_quarter_round(rows, 16, 12), 8, 7))
    return jnp.stack([words[i] for i in _EXCHANGED])


def _first_state(key: jax.Array, counter: jax.Array, nonce: Words) -> Words:
    start = [jnp.uint32(c) for c in _CONSTANTS] + [key[i] for i in range(8)] + [counter, *nonce]
    # A zero that varies over the mesh axes of every input, as shard_map wants of a loop's carry; the compiler drops it.
    nothing = (key[0] | counter | nonce[0] | nonce[1] | nonce[2]) & jnp.uint32(0)
    return tuple(jnp.broadcast_to(word, nothing.shape) | nothing for word in start)


def _in_xla(rounds_at_once: int, cut: Callable[[Words], Words]) -> Callable[[jax.Array, jax.Array, Words], Words]:
    """A form in plain XLA: a loop over `rounds_at_once` double rounds, word by word.

    A double round is traced once and repeated when the program is lowered: a program is traced for every platform, and lowered for one.
    """

    def block(key: jax.Array, counter: jax.Array, nonce: Words) -> Words:
        return _twenty_rounds(_first_state(key, counter, nonce), rounds_at_once, cut)

    return block


def _twenty_rounds(state: Words, rounds_at_once: int, cut: Callable[[Words], Words]) -> Words:
    end = lax.fori_loop(0, 10, _one_turn(cut), state, unroll=rounds_at_once)
    return tuple(a + b for a, b in zip(end, state, strict=True))


@functools.cache  # the same object at every call, so that it is traced once for a shape
def _one_turn(cut: Callable[[Words], Words]) -> Callable[[jax.Array, Words], Words]:
    return lambda _, state: _double_round(state, cut)


def _in_one_piece(rounds: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array, jax.Array, Words], Words]:
    """A form whose rounds, uint32[16, blocks] to the same, are one function for one stream, and under vmap all streams together.

    As operations of a program the rounds of a few blocks are hundreds of tasks, each far shorter than it takes to hand it to a thread. One array
    in and one out: with an array a word XLA for CPUs (jax 0.10.2) ended the process when one such function was called with what another had given
    (`test_streams_of_streams_compile`).
    """
    function = kernels.as_one_function(rounds)

    @jax.custom_batching.custom_vmap
    def piece(state: jax.Array) -> jax.Array:
        words: jax.Array = function(state)
        return words

    @piece.def_vmap
    def _(size: int, batched: list[bool], states: jax.Array) -> tuple[jax.Array, bool]:
        del size, batched
        return jax.vmap(rounds)(states), True

    def block(key: jax.Array, counter: jax.Array, nonce: Words) -> Words:
        return tuple(piece(jnp.stack(_first_state(key, counter, nonce))))

    return block


def _passes(state: jax.Array) -> jax.Array:
    return jnp.stack(_twenty_rounds(tuple(state), 1, lax.optimization_barrier))


def _whole(words: Words) -> Words:
    return words


# XLA:CPU fuses per output: without the barriers it would evaluate half a quarter round again for each of its four
# outputs (3 % slower on two idle cores, up to a quarter on busy ones).
FORMS: dict[str, Callable[[jax.Array, jax.Array, Words], Words]] = {
    "passes": _in_xla(1, lax.optimization_barrier),
    "loop2": _in_xla(2, _whole),
    "single": _in_pieces(20, _one_round),
    "double": _in_pieces(10, _one_double_round),
}
FORMS["tiled"] = kernels.tiled_block(FORMS["loop2"])
FORMS["piece"] = _in_one_piece(_passes)
_CPU_FORM, _CPU_FORM_FOR_FEW = "tiled", "piece"
# A GPU moves the state through memory between kernels, 64 bytes in and out for a block: once a double round by "double", 25 us for a million words on an
# H100 with 3.35 TB/s (computed from bytes, not timed). Compiling a block takes .42 s of a processor by it, .25 by "single" with twice the kernels, a second by
# "loop2" and 40 s with all rounds in registers.
_ACCELERATOR_FORM, _ACCELERATOR_FORM_FOR_FEW = "double", "single"
_TPU_FORM = "single"  # compiled twice as quickly as "double" for ten thousand blocks
_FEW = 256  # blocks of one stream up to which a form's compiling or starting costs more than its running


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
