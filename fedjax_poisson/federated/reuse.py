"""One stream, one round, one release: a second, different release under the same noise is refused.

A round's noise is a function of the stream and the round number alone. Two *different* sums with the same noise differ by exactly the difference in the
data, so opening both would reveal it, whatever the ledger says. Opening the same sum again reveals nothing new.

Pure functions could prevent this by deriving the noise from everything that enters a release. That would cost a pass over all records, and a cohort
that is streamed block by block is not known before its noise is drawn. Instead, an algorithm remembers a fingerprint of what it released for every
(stream, round), and refuses a different one before anything is charged or released. This memory belongs to one algorithm in one process. Across
algorithms (a sweep, a restart) only a separate stream for each run helps, which is why `randomness.stream()` takes fresh bits from the operating system.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.aggregation import RoundRefused
from fedjax_poisson.randomness import Stream, fold_in

_LANES = ((0x9E3779B1, 0x85EBCA77), (0xC2B2AE3D, 0x27D4EB2F))  # odd multipliers of the word and of its place


class Openings(NamedTuple):
    """Record of what was opened under which noise.

    Attributes:
      check: `(stream, round, fingerprint)`; raises `RoundRefused` if another sum was opened under this stream in this round.
      remember: `(stream, round, fingerprint)`, right before the sum is released.
    """

    check: Callable[[Stream, int, Any], None]
    remember: Callable[[Stream, int, Any], None]


def openings() -> Openings:
    """An empty memory of openings."""
    seen: dict[tuple[bytes, int], bytes] = {}

    def place(stream: Stream, number: int) -> tuple[bytes, int]:
        return hashlib.blake2b(np.asarray(stream.key).tobytes(), digest_size=16).digest(), number

    def check(stream: Stream, number: int, fingerprint: Any) -> None:
        found = seen.get(place(stream, number))
        if found is not None and found != np.asarray(fingerprint).tobytes():
            raise RoundRefused(
                f"Another sum was already released in round {number} under this stream: another cohort, other records or another state. Both would carry "
                "the same noise and their difference would reveal the data. Nothing was released; give every run a separate stream "
                '(fold_in(stream, "run", i), or a new randomness.stream()).'
            )

    def remember(stream: Stream, number: int, fingerprint: Any) -> None:
        seen[place(stream, number)] = np.asarray(fingerprint).tobytes()

    return Openings(check, remember)


def round_stream(stream: Stream, number: int | Array) -> Stream:
    """The stream of one round of an algorithm; `number` is the rounds done before it, a Python int or a traced uint32."""
    return fold_in(stream, "round", number)


@jax.jit
def fingerprint(values: Array) -> Array:
    """64 bits of any int32 or uint32 array, uint32 `[2]`: a sum of mixed words, so its order does not matter to the device.

    Two arrays that nobody made to collide share it with probability about 2**-64. It detects mistakes, not attacks.
    """
    words = values.reshape(-1).astype(jnp.uint32)
    place = jnp.arange(words.size, dtype=jnp.uint32)
    return jnp.stack(
        [jnp.sum(_mixed(words * jnp.uint32(a) + place * jnp.uint32(b)), dtype=jnp.uint32) for a, b in _LANES]
    )


def _mixed(words: Array) -> Array:
    """Murmur3's finalizer, a bijection of 32-bit words."""
    words = (words ^ (words >> jnp.uint32(16))) * jnp.uint32(0x85EBCA6B)
    words = (words ^ (words >> jnp.uint32(13))) * jnp.uint32(0xC2B2AE35)
    return words ^ (words >> jnp.uint32(16))
