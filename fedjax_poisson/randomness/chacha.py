"""ChaCha20 streams (RFC 8439), in uint32 JAX and on the host: the only source of privacy and encryption randomness.

A `Stream` is a 256-bit key. It is made once from the operating system (`stream`), split by labels (`fold_in`) and
consumed once (`bits`, or a sampler of this package). Both are the ChaCha20 block function under that key, in separate
domains: word 13 of the initial state, the first nonce word, is 0 for output blocks and names the kind of label for
derivations, so no block is ever used for two things. A derived key is the first half of such a block: as long as
ChaCha20 is a pseudorandom function, streams with different labels are independent.

Who owns what: a stream may be folded any number of times with different labels and read by **one** call; a second read
gives the same words.

The PyPI package `jax-chacha-prng` 1.4.3 was looked at first: it fails on import with jax 0.10, requires numpy < 2, and derives by random 96-bit
nonces under one key; hence this module.

Source: Nir and Langley, RFC 8439 (2018), sections 2.1-2.4; Bernstein, "ChaCha, a variant of Salsa20" (2008).
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import warnings
from collections.abc import Callable
from typing import NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fedjax_poisson.accelerator import warn_if_idle
from fedjax_poisson.platforms import by_platform
from fedjax_poisson.randomness import host_cipher, kernels
from fedjax_poisson.randomness.chacha_block import Words, chacha20_block
from fedjax_poisson.traced_programs import is_traced, traced_once

BLOCK_WORDS = 16
TILE = 4096  # lanes that a CPU works on at once: sixteen words of each stay in the second-level cache
MAX_BYTES = 1 << 38  # the 32-bit block counter times 64 bytes
OUTPUT, _INTEGER_LABEL, _TEXT_LABEL, _SEED = 0, 1, 2, 3  # first nonce word: the domain of a block


class ReproducibleStreamWarning(UserWarning):
    """A stream was made from a seed: anyone who knows the seed can remove all noise and decrypt every ciphertext."""


class Stream(NamedTuple):
    """A ChaCha20 key with its origin; a pytree of uint32, so it can be vmapped, scanned and sharded.

    Attributes:
        key: uint32[8], 256 secret bits; of the host (NumPy) until a program derives it, so that what is drawn from it outside programs lies on the default
            device. Never shown by `repr`, never pickled.
        reproducible: uint32[], 1 when the key descends from a seed (not private), 0 when it descends from the operating
            system.
    """

    key: jax.Array | np.ndarray
    reproducible: jax.Array | np.ndarray

    def __repr__(self) -> str:
        """Show the origin and never the key."""
        shape = getattr(self.key, "shape", ())
        flag = self.reproducible
        known = isinstance(flag, jax.Array | np.ndarray | np.generic) and not isinstance(flag, jax.core.Tracer)
        origin = ("seeded, NOT private" if np.any(np.asarray(flag)) else "operating system") if known else "traced"
        return f"Stream(<256-bit key hidden>, batch={tuple(shape[:-1])}, origin={origin})"

    def __str__(self) -> str:
        """Show the origin and never the key."""
        return repr(self)

    def __copy__(self) -> Stream:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Stream:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled."""
        raise TypeError(
            "a Stream holds a secret key and cannot be pickled; save the round number and fold it in again instead"
        )


def stream(seed: int | None = None) -> Stream:
    """Make a new stream.

    Args:
        seed: None for 256 bits from `os.urandom`. A non-negative int gives the same stream in every process and on
            every device, warns, and marks the stream and all its descendants as reproducible: not private.

    Returns:
        A `Stream`.

    Raises:
        TypeError: if the seed is not an int.
        ValueError: if the seed is negative or has more than 256 bits.
    """
    warn_if_idle()
    if seed is None:
        key = np.frombuffer(os.urandom(32), "<u4").astype(np.uint32)
        key.flags.writeable = False
        return Stream(key, np.zeros((), np.uint32))
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(
            f"a seed is an int, got {type(seed).__name__}; leave it out for secret bits from the operating system"
        )
    if not 0 <= int(seed) < 1 << 256:
        raise ValueError(f"a seed has 0 to 256 bits, got {seed}; choose a non-negative int below 2**256")
    warnings.warn(
        "stream(seed=...) is reproducible and therefore NOT private: "
        "use it for tests and simulations, stream() for people's data",
        ReproducibleStreamWarning,
        stacklevel=2,
    )
    key = np.frombuffer(int(seed).to_bytes(32, "little"), "<u4").astype(np.uint32)
    # One derivation, so that small seeds do not leave nearly-zero keys behind.
    nonce = _words(_SEED, 0, 0)
    made = _derived_on_host(key, 0, nonce) if is_on_host(key) else _derive(key, np.uint32(0), nonce)
    return Stream(made, np.ones((), np.uint32))


def is_reproducible(stream: Stream) -> bool:
    """Whether a (concrete) stream is derived from a seed and therefore protects nobody."""
    return bool(np.any(np.asarray(stream.reproducible)))


def fold_in(stream: Stream, *labels: int | str | jax.Array) -> Stream:
    """Derive the stream named by `labels`; different labels give independent keys and therefore disjoint blocks.

    Labels are folded one after the other, `fold_in(s, a, b) == fold_in(fold_in(s, a), b)`, each by one block of the
    parent in a domain that output never uses. Integers and texts never meet: 7 and "7" are different labels.

    Args:
        stream: the parent; it stays usable.
        labels: each a Python int in [0, 2^32), a text (hashed to 96 bits of SHA-256 on the host), or a uint32/int32
            scalar array, traced or not (round, client index; an int32 is read as its 32-bit pattern). vmap over a label
            for one stream per client.

    Returns:
        The derived `Stream`.

    Raises:
        TypeError: for a label of another type or an array that is not a 32-bit integer scalar.
        ValueError: for an int outside [0, 2^32) or for no label at all.
    """
    if not labels:
        raise ValueError("fold_in needs at least one label: without one the parent would be used twice")
    words = [_label_words(label) for label in labels]
    if is_on_host(stream.key) and not is_traced(words):
        key = np.asarray(stream.key)
        for counter, nonce in words:
            key = _derived_on_host(key, int(counter), nonce)
        return Stream(key, stream.reproducible)
    if len(words) == 1:
        return Stream(_derive(stream.key, *words[0]), stream.reproducible)
    return Stream(_derive_all(stream.key, tuple(words)), stream.reproducible)


def fold_each(stream: Stream, *labels: int | str | jax.Array) -> tuple[Stream, ...]:
    """The streams of several labels of one parent, `fold_each(s, a, b) == (fold_in(s, a), fold_in(s, b))`, by one call of the block function.

    In a program each call of it is compiled by itself, and on an accelerator a single block is dozens of kernels whatever it computes.

    Args:
        stream: the parent; it stays usable.
        labels: as in `fold_in`.

    Returns:
        A `Stream` for each label.

    Raises:
        TypeError, ValueError: as `fold_in`; or a label stands twice.
    """
    if not labels:
        raise ValueError("fold_each needs at least one label: it gives a stream for each")
    words = [_label_words(label) for label in labels]
    known = [one for one in words if not is_traced(one)]
    if len({(int(counter), *map(int, nonce)) for counter, nonce in known}) < len(known):
        raise ValueError(f"fold_each of {labels}: a label stands twice, and would give the same stream twice")
    if is_on_host(stream.key) and not is_traced(words):
        return tuple(fold_in(stream, label) for label in labels)
    counters, nonces = zip(*words, strict=True)
    keys = _derive_each(stream.key, counters, nonces)
    return tuple(Stream(keys[i], stream.reproducible) for i in range(len(labels)))


def is_on_host(key: jax.Array | np.ndarray) -> bool:
    """Whether blocks of a key are made without a program: its words are known, and this host can read them."""
    if is_traced(key) or not isinstance(key, np.ndarray | jax.Array):  # part of a program, or a shape
        return False
    if key.shape != (8,):
        raise ValueError(
            f"a stream's key is uint32 [8], here {list(key.shape)}; use a batch of streams inside jax.vmap"
        )
    return host_cipher.available() and (isinstance(key, np.ndarray) or key.is_fully_addressable)


def _derived_on_host(key: np.ndarray, counter: int, nonce: tuple[np.uint32, ...]) -> np.ndarray:
    """As `_derive`."""
    first, second, third = nonce
    return host_cipher.cipher_words(key, counter, (int(first), int(second), int(third)), 1)[0, :8]


def bits(stream: Stream, shape: int | tuple[int, ...]) -> jax.Array:
    """Read uniform random 32-bit words.

    Word j of block b (RFC 8439 order inside a block, counter b) is element j * blocks + b: planes of equal words, which
    is the order the arithmetic is vectorised in. Each word is used once; the order is part of the contract and is the
    same on every device.

    Args:
        stream: consumed by this call.
        shape: how many words, or the shape of the answer.

    Returns:
        uint32 array of that shape.

    Raises:
        ValueError: if more than 2^38 bytes are asked for (the 32-bit block counter would wrap).
    """
    shape = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    count = math.prod(shape)
    if count == 0:
        return jnp.zeros(shape, jnp.uint32)
    blocks = -(-count // BLOCK_WORDS)
    if blocks <= TILE and is_on_host(stream.key):
        planes = host_cipher.cipher_words(np.asarray(stream.key), 0, (OUTPUT, 0, 0), blocks).T
        return jax.device_put(planes.reshape(-1)[:count].reshape(shape))
    return jnp.concatenate(block_words(stream, blocks))[:count].reshape(shape)


def block_words(stream: Stream, blocks: int, first: jax.Array | None = None) -> Words:
    """The sixteen words of the output blocks `first .. first + blocks - 1`, as sixteen uint32[blocks] arrays.

    The form is chosen by the device the program is lowered for; the words are the same. A CPU works on tiles that stay in its caches; an accelerator
    takes all blocks at once, in a loop of a few rounds that compiles quickly.

    Args:
        stream: the key; the caller owns the counters it asks for.
        blocks: static number of blocks, at most 2^32.
        first: uint32 scalar (traced or not), the first counter; 0 by default.

    Raises:
        ValueError: if `blocks` exceeds the 32-bit counter.
    """
    _check_counter(blocks)
    return _block_words(blocks, stream.key, jnp.uint32(0) if first is None else first)


def _check_counter(blocks: int) -> None:
    if blocks > MAX_BYTES // 64:
        raise ValueError(
            f"{blocks} blocks of 64 bytes exceed the 2^38 bytes of one stream; "
            "fold in a label per part and read each part separately"
        )


@functools.partial(jax.jit, static_argnums=0)
def _block_words(blocks: int, key: jax.Array, first: jax.Array) -> Words:
    def all_at_once(key: jax.Array, first: jax.Array) -> Words:
        return output_block(key, jnp.arange(blocks, dtype=jnp.uint32) + first)

    def tile_by_tile(key: jax.Array, first: jax.Array) -> Words:
        # Tiles of words that stay in the second-level cache through all rounds, one stream after the other under vmap.
        tiles = -(-blocks // TILE)
        lanes = -(-blocks // tiles)

        def one_tile(_: None, tile: jax.Array) -> tuple[None, Words]:
            return None, output_block(key, jnp.arange(lanes, dtype=jnp.uint32) + (first + tile * jnp.uint32(lanes)))

        words = lax.scan(one_tile, None, jnp.arange(tiles, dtype=jnp.uint32))[1]
        return tuple(word.reshape(-1)[:blocks] for word in words)

    if blocks <= TILE:
        return all_at_once(key, first)
    return by_platform(key, first, cpu=jax.custom_batching.sequential_vmap(tile_by_tile), default=all_at_once)


def word_tiles(
    stream: Stream, tiles: int, lanes: int, then: Callable[[jax.Array], jax.Array] | None = None
) -> jax.Array:
    """All words of tiles * lanes output blocks, uint32[tiles, 16, lanes] as a CPU makes them: [t, j, i] is word j of block t * lanes + i.

    Args:
        stream: consumed by this call.
        tiles: how many.
        lanes: blocks of a tile.
        then: what to make of each word, in the loop that makes the words, where they are in the first-level cache; a function of arrays, word by word, and
            the same object at every call.

    Raises:
        ValueError: as `block_words`.
    """
    _check_counter(tiles * lanes)

    def all_at_once(stream: Stream) -> jax.Array:
        planes = jnp.stack(block_words(stream, tiles * lanes))
        words = jnp.swapaxes(planes.reshape(BLOCK_WORDS, tiles, lanes), 0, 1)
        return words if then is None else then(words)

    if tiles == 1:
        return all_at_once(stream)
    return by_platform(stream, cpu=_tile_loop(tiles, lanes, then), default=all_at_once)


@functools.cache
def _tile_loop(tiles: int, lanes: int, then: Callable[[jax.Array], jax.Array] | None) -> Callable[[Stream], jax.Array]:
    most = max(1, kernels.CPU_BLOCKS // lanes)
    even = max(size for size in range(1, most + 1) if tiles % size == 0)
    own = even if 2 * even > most else min(most, tiles)  # tiles in one part; nothing is cut off afterwards if they fit
    parts = -(-tiles // own)

    def one_part(key: jax.Array, first: jax.Array) -> jax.Array:
        def one_tile(tile: jax.Array) -> jax.Array:
            counter = jnp.arange(lanes, dtype=jnp.uint32) + (first + tile) * jnp.uint32(lanes)
            words = jnp.stack(output_block(key, counter, form="loop2"))
            # A word at a time, that no operation is large enough to be shared out over threads (`kernels.as_one_function`).
            return words if then is None else lax.map(then, words)

        return lax.map(one_tile, jnp.arange(own, dtype=jnp.uint32))

    function = kernels.as_one_function(one_part)

    def loop(stream: Stream) -> jax.Array:
        starts = jnp.arange(parts, dtype=jnp.uint32) * jnp.uint32(own)
        words = lax.map(functools.partial(function, stream.key), starts)
        return words.reshape(parts * own, BLOCK_WORDS, lanes)[:tiles]

    return loop


def output_block(key: jax.Array, counter: jax.Array, form: str | None = None) -> Words:
    """The sixteen words of the output blocks at these uint32 counters (`form` as in `chacha20_block`)."""
    zero = jnp.uint32(0)
    return chacha20_block(key, counter, (jnp.uint32(OUTPUT), zero, zero), form=form)


@jax.jit
def _derive(key: jax.Array, counter: jax.Array, nonce: Words) -> jax.Array:
    """The key derived from the block with this counter and nonce, uint32[8]."""
    return jnp.stack(chacha20_block(key, counter, nonce)[:8])


@jax.jit
def _derive_each(key: jax.Array, counters: Words, nonces: tuple[Words, ...]) -> jax.Array:
    """The keys derived from blocks with these counters and nonces, uint32[n, 8]."""
    nonce = tuple(jnp.stack(words) for words in zip(*nonces, strict=True))
    return jnp.stack(chacha20_block(key, jnp.stack(counters), nonce)[:8], axis=-1)


@traced_once()  # not compiled quickly: where a stream is a constant of a program, this is part of that program
def _derive_all(key: jax.Array, labels: tuple[tuple[jax.Array, Words], ...]) -> jax.Array:
    """One derivation after the other, as a scan: the rounds are compiled once however many labels there are."""
    rows = jnp.stack([jnp.stack([counter, *nonce]) for counter, nonce in labels])
    key = key | (jnp.bitwise_or.reduce(rows.ravel()) & jnp.uint32(0))  # the carry varies over the labels' mesh axes too
    return lax.scan(lambda parent, row: (_derive(parent, row[0], (row[1], row[2], row[3])), None), key, rows)[0]


def _label_words(label: int | str | jax.Array) -> tuple[jax.Array | np.uint32, tuple[np.uint32, ...]]:
    """Counter and nonce of the block that derives `label`: of the host where they are known, since each number made on a device is a program of its own."""
    if isinstance(label, str):
        digest = np.frombuffer(hashlib.sha256(label.encode()).digest(), "<u4")
        return np.uint32(digest[0]), _words(_TEXT_LABEL, digest[1], digest[2])
    if isinstance(label, int | np.integer) and not isinstance(label, bool):
        if not 0 <= label < 1 << 32:
            raise ValueError(f"an integer label lies in [0, 2^32), got {label}; fold in two labels for more")
        return np.uint32(int(label)), _words(_INTEGER_LABEL, 0, 0)
    if not isinstance(label, jax.Array | np.ndarray):
        raise TypeError(
            f"a label is an int, a text or a 32-bit integer scalar, got {type(label).__name__}; convert it first"
        )
    if label.ndim != 0 or label.dtype not in (np.dtype(np.uint32), np.dtype(np.int32)):
        raise TypeError(
            f"an array label is a uint32 or int32 scalar, got {label.dtype}{list(label.shape)}; "
            "vmap fold_in over an array of labels"
        )
    nonce = _words(_INTEGER_LABEL, 0, 0)
    if not is_traced(label) and (isinstance(label, np.ndarray) or label.is_fully_addressable):
        return np.uint32(int(label) & 0xFFFFFFFF), nonce
    return lax.bitcast_convert_type(jnp.asarray(label), jnp.uint32), nonce


def _words(*values: int | np.integer) -> tuple[np.uint32, ...]:
    return tuple(np.uint32(int(value)) for value in values)
