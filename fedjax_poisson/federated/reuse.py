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


def fingerprint(values: Array | np.ndarray) -> Array:
    """64 bits of any int32 or uint32 array, uint32 `[2]`: a sum of mixed words, so its order does not matter to the device.

    Two arrays that nobody made to collide share it with probability about 2**-64. It detects mistakes, not attacks.
    """
    found: Array = _fingerprint(np, values) if isinstance(values, np.ndarray) else _of_device(values)
    return found


@jax.jit
def _of_device(values: Array) -> Array:
    found: Array = _fingerprint(jnp, values)
    return found


def _fingerprint(xp: Any, values: Any) -> Any:
    words = values.reshape(-1).astype(np.uint32)
    place = xp.arange(words.size, dtype=np.uint32)
    sums = [xp.sum(_mixed(words * np.uint32(a) + place * np.uint32(b)), dtype=np.uint32) for a, b in _LANES]
    return xp.stack(sums)


def _mixed(words: Any) -> Any:
    """Murmur3's finalizer, a bijection of 32-bit words."""
    words = (words ^ (words >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    words = (words ^ (words >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return words ^ (words >> np.uint32(16))
