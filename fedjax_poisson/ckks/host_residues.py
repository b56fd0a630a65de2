"""Uniform residues on the host: the numbers of `rlwe_samplers.uniform_residues`, in NumPy, for parties that should not wait for a compiler.

A party of a round expands a few polynomials from 32 bytes each; the program that does so takes longer to compile than it runs in all. The words are those of
`rlwe_samplers.random_words`, their sum is taken modulo each prime by the machine's 64-bit division. Tests compare the two bit by bit.
"""

from __future__ import annotations

import functools
import math

import jax
import numpy as np

from fedjax_poisson.ckks import rlwe_samplers
from fedjax_poisson.randomness import Stream, host_cipher

__all__ = ["random_words", "uniform_residues", "wide_binomial", "word_planes"]


def uniform_residues(
    key: np.ndarray,
    shape: tuple[int, ...],
    moduli: tuple[int, ...],
    *,
    slack_bits: int = rlwe_samplers.UNIFORM_SLACK_BITS,
) -> np.ndarray:
    """Residues of integers uniform modulo the product of the moduli; the law is that of `rlwe_samplers.uniform_residues`.

    Args:
      key: uint32 `[8]`, of a stream that this call consumes.
      shape: `(..., N)`.
      moduli: the L primes, below 2^31.
      slack_bits: as there.

    Returns:
      uint32 `[..., L, N]`.
    """
    count = rlwe_samplers.uniform_words(math.prod(moduli).bit_length(), slack_bits)
    words = random_words(key, (count, *shape)).astype(np.uint64)
    found = np.empty((*shape[:-1], len(moduli), shape[-1]), np.uint32)
    for limb, q in enumerate(moduli):
        total = words[0] % np.uint64(q)
        for i in range(1, count):  # two products, (2^32 - 1) (2^31 - 2) each at most, and a residue stay below 2^64
            total += words[i] * np.uint64((1 << 32 * i) % q)
            if i % 2 == 0:
                total %= np.uint64(q)
        found[..., limb, :] = total % np.uint64(q)
    return found


def random_words(key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The words of `rlwe_samplers.random_words` of a stream's key uint32 `[8]`, in its order; an array of its own."""
    return word_planes(key, 1, shape)[0]


def word_planes(key: np.ndarray, planes: int, shape: tuple[int, ...]) -> np.ndarray:
    """The words of `rlwe_samplers.word_planes` of a stream's key."""
    if not host_cipher.available():
        return np.array(_by_program(planes, shape, key))
    count = math.prod(shape)
    tiles, lanes = rlwe_samplers.word_tiling(count)
    blocks = host_cipher.cipher_words(key, 0, (0, 0, 0), planes * tiles * lanes)
    words = blocks.reshape(planes * tiles, lanes, -1).swapaxes(1, 2).reshape(planes, -1)[:, :count]
    return words.reshape(planes, *shape).astype(np.uint32)


def wide_binomial(key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The draws of `rlwe_samplers.wide_binomial` of a stream's key, int64."""
    words = word_planes(key, 3, shape)
    upper = (words[0] >> np.uint32(1)).astype(np.int64)
    lower = words[1].astype(np.uint64) << np.uint64(32) | words[2].astype(np.uint64)
    size = np.zeros(shape, np.int64)
    for threshold in rlwe_samplers.wide_thresholds():
        top, rest = threshold >> 64, np.uint64(threshold & (1 << 64) - 1)
        size += (upper > top) | ((upper == top) & (lower >= rest))
    return np.where(words[0] & np.uint32(1), -size, size)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _by_program(planes: int, shape: tuple[int, ...], key: jax.Array) -> jax.Array:
    return rlwe_samplers.word_planes(Stream(key, np.zeros((), np.uint32)), planes, shape)
