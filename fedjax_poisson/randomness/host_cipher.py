"""ChaCha20 key stream (RFC 8439) on the host, by the `cryptography` package: the words of `chacha`, for keys that are numbers and not yet part of a program.

A program for a handful of blocks takes far longer to compile than it runs in all; the package's C code compiles nothing. Where that package has no ChaCha20 (an
OpenSSL in FIPS mode), or one that gives other words, `available` says so, and the callers use their programs: the same words.

Source: Nir and Langley, RFC 8439 (2018), sections 2.3 and 2.4.
"""

from __future__ import annotations

import functools
import importlib

import numpy as np

__all__ = ["available", "cipher_words"]

_BLOCK_BYTES = 64


@functools.cache
def available() -> bool:
    """Whether the package makes ChaCha20 key streams here, checked by the block of RFC 8439, section 2.3.2; asked once."""
    key = np.frombuffer(bytes(range(32)), "<u4").astype(np.uint32)
    try:
        words = cipher_words(key, 1, (0x09000000, 0x4A000000, 0), 1)[0]
        return words[:4].tolist() == [0xE4E7F110, 0x15593BD1, 0x1FDD0F50, 0xC47120A3]
    except Exception:  # missing, too old, or refused by the machine's policy: several packages' own errors
        return False


def cipher_words(key: np.ndarray, counter: int, nonce: tuple[int, int, int], blocks: int) -> np.ndarray:
    """The words of the blocks `counter .. counter + blocks - 1`.

    Args:
      key: uint32 `[8]`.
      counter: of the first block; `counter + blocks` is at most 2^32.
      nonce: three 32-bit words.
      blocks: how many.

    Returns:
      uint32 `[blocks, 16]`.

    Raises:
      ValueError: the key is no uint32 `[8]`, or the counter would wrap, which implementations treat differently.
    """
    if key.shape != (8,) or key.dtype != np.uint32:
        raise ValueError(f"a key is uint32 [8], not {key.dtype} {list(key.shape)}")
    if counter + blocks > 1 << 32:
        raise ValueError(f"blocks {counter} to {counter + blocks - 1} exceed the 32-bit counter of a stream")
    ciphers = importlib.import_module("cryptography.hazmat.primitives.ciphers")
    start = np.asarray([counter, *nonce], "<u4").tobytes()
    algorithm = ciphers.algorithms.ChaCha20(np.ascontiguousarray(key, "<u4").tobytes(), start)
    stream = ciphers.Cipher(algorithm, mode=None).encryptor().update(bytes(_BLOCK_BYTES * blocks))
    return np.frombuffer(stream, "<u4").reshape(blocks, _BLOCK_BYTES // 4)
