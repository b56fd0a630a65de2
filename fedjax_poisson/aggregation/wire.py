"""Reading and writing bytes: little-endian integers, length prefixes, residues at the bits of their primes; whatever is wrong has a name."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence

import numpy as np

from fedjax_poisson.aggregation.refusals import DuplicateClient, Malformed, ResidueRange
from fedjax_poisson.ckks.ciphertext_bytes import pack_bits, unpack_bits

__all__ = [
    "Reader",
    "prefixed",
    "read_residues",
    "residue_bytes",
    "residues_by_prime",
    "residues_size",
    "u8",
    "u32",
    "u64",
]


def u8(value: int) -> bytes:
    """One byte."""
    return struct.pack("<B", value)


def u32(value: int) -> bytes:
    """Four bytes."""
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    """Eight bytes."""
    return struct.pack("<Q", value)


def prefixed(blob: bytes) -> bytes:
    """The bytes behind their length."""
    return u32(len(blob)) + blob


class Reader:
    """A cursor over bytes. Every read checks that the bytes are there before anything of their size is allocated."""

    def __init__(self, blob: bytes) -> None:
        self._blob, self._at = blob, 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > len(self._blob) - self._at:
            raise Malformed(
                f"The message ends after {len(self._blob)} bytes, {self._at + count} were needed: it is truncated."
            )
        found = self._blob[self._at : self._at + count]
        self._at += count
        return found

    def u8(self) -> int:
        """One byte as an integer."""
        return self.take(1)[0]

    def u32(self) -> int:
        """Four bytes as an integer."""
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        """Eight bytes as an integer."""
        return int.from_bytes(self.take(8), "little")

    def prefixed(self) -> bytes:
        """Bytes behind their length."""
        return self.take(self.u32())

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._blob) - self._at)

    def done(self) -> None:
        """Refuse bytes that are left over."""
        if self._at != len(self._blob):
            raise Malformed(f"{len(self._blob) - self._at} bytes are left over behind the message.")

    def increasing(self, count: int, width: int) -> list[bytes]:
        """`count` entries of `width` bytes whose first 32 bytes, a key, increase strictly."""
        raw = self.take(count * width)
        entries = [raw[i * width : (i + 1) * width] for i in range(count)]
        if len({entry[:32] for entry in entries}) != count:
            raise DuplicateClient("A key stands twice in a list.")
        if any(a[:32] > b[:32] for a, b in itertools.pairwise(entries)):
            raise Malformed("A list is not increasing by key.")
        return entries


def _bits(q: int) -> int:
    return (q - 1).bit_length()


def residues_size(count: int, moduli: Sequence[int]) -> int:
    """Bytes of `count` residues of each prime."""
    return sum(-(-count * _bits(q) // 8) for q in moduli)


def residue_bytes(residues: np.ndarray, moduli: Sequence[int]) -> bytes:
    """uint32 `[..., L, N]` as bytes, prime after prime."""
    values = np.asarray(residues)
    return b"".join(pack_bits(values[..., limb, :], _bits(q)) for limb, q in enumerate(moduli))


def read_residues(blob: bytes, lead: Sequence[int], size: int, moduli: Sequence[int]) -> np.ndarray:
    """The inverse: uint32 `[*lead, L, size]`.

    Raises:
      Malformed: another length.
      ResidueRange: a residue is not below its prime, or a filling bit is set.
    """
    out = np.empty((*lead, len(moduli), size), np.uint32)
    for limb, values in enumerate(residues_by_prime(blob, out[..., 0, :].size, moduli)):
        out[..., limb, :] = values.reshape(*lead, size)
    return out


def residues_by_prime(blob: bytes, count: int, moduli: Sequence[int]) -> Iterator[np.ndarray]:
    """The same for a reader that needs one prime at a time: `count` residues of each, uint32, checked before they are handed out.

    Raises:
      Malformed, ResidueRange: as `read_residues`.
    """
    if len(blob) != residues_size(count, moduli):
        raise Malformed(f"{len(blob)} bytes of residues, {residues_size(count, moduli)} were expected.")
    at = 0
    for limb, q in enumerate(moduli):
        part = blob[at : at + -(-count * _bits(q) // 8)]
        at += len(part)
        values = unpack_bits(part, count, _bits(q))
        spare = 8 * len(part) - count * _bits(q)
        if (values >= q).any() or (spare and part and part[-1] >> (8 - spare)):
            raise ResidueRange(f"A residue of prime {limb} is not below {q}.")
        yield values
