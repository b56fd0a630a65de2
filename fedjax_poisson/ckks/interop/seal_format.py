"""Strict readers and writers of the two containers that TenSEAL uses: protocol buffers outside, SEAL objects inside.

All integers are little-endian. Every length is compared with the bytes that are there before anything is cut or
allocated.
"""

from __future__ import annotations

import struct
import sys
import zlib
from typing import NamedTuple

import numpy as np

from fedjax_poisson.ckks.errors import WireError

_MAX_FIELDS = 1 << 20
_MAGIC = 0xA15E
_HEADER = struct.Struct("<HBBBBHQ")  # magic, header size, version major and minor, compression, zero, total bytes


def read_fields(blob: bytes) -> dict[int, list[bytes]]:
    """The fields of a protocol-buffers message, each as raw bytes in order of appearance.

    Varints are returned as their encoding, 64-bit fields as 8 bytes, 32-bit fields as 4 bytes, length-delimited ones as
    their content.

    Raises:
      WireError: not a well-formed message (Protocol Buffers encoding specification).
    """
    fields: dict[int, list[bytes]] = {}
    at = 0
    for _ in range(_MAX_FIELDS):
        if at == len(blob):
            return fields
        key, at = read_varint(blob, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise WireError("A protocol-buffers field has number 0: the bytes are not a message.")
        if kind == 0:
            start = at
            _, at = read_varint(blob, at)
            content = blob[start:at]
        elif kind in (1, 5):
            content, at = _take(blob, at, 8 if kind == 1 else 4)
        elif kind == 2:
            length, at = read_varint(blob, at)
            content, at = _take(blob, at, length)
        else:
            raise WireError(f"A protocol-buffers field has wire type {kind}, which TenSEAL never writes.")
        fields.setdefault(number, []).append(content)
    raise WireError(f"The message has more than {_MAX_FIELDS} fields.")


def read_varint(blob: bytes, at: int) -> tuple[int, int]:
    """The unsigned varint at `at` and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(blob):
            raise WireError("The message ends within a varint: it was truncated.")
        byte = blob[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                raise WireError("A varint is larger than 64 bits.")
            return value, at
    raise WireError("A varint has more than ten bytes.")


def write_varint(value: int) -> bytes:
    """The varint of an unsigned integer below 2^64."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_field(number: int, content: bytes) -> bytes:
    """A length-delimited protocol-buffers field."""
    return write_varint(number << 3 | 2) + write_varint(len(content)) + content


def write_double(number: int, value: float) -> bytes:
    """A 64-bit floating-point protocol-buffers field."""
    return write_varint(number << 3 | 1) + struct.pack("<d", value)


def _take(blob: bytes, at: int, length: int) -> tuple[bytes, int]:
    if length > len(blob) - at:
        raise WireError(f"A field announces {length} bytes and {len(blob) - at} are left: truncated or altered.")
    return blob[at : at + length], at + length


class SealObject(NamedTuple):
    """A SEAL object: the version that wrote it and its uncompressed body."""

    major: int
    minor: int
    body: bytes


def read_object(blob: bytes, *, limit: int, what: str) -> SealObject:
    """Take a SEAL object apart: 16-byte header, then the body, decompressed if need be.

    Args:
      blob: the whole object, nothing after it.
      limit: most bytes its body may have once decompressed; more are not even produced.
      what: its name in error messages.

    Raises:
      WireError: a header that SEAL does not write, a wrong total, an unknown compression, or a body beyond the limit.
      ImportError: the body is Zstandard-compressed and no decompressor is installed.
    """
    if len(blob) < _HEADER.size:
        raise WireError(f"The {what} has {len(blob)} bytes, fewer than SEAL's header of {_HEADER.size}.")
    magic, header_size, major, minor, compression, reserved, total = _HEADER.unpack_from(blob)
    if magic != _MAGIC or header_size != _HEADER.size or reserved:
        raise WireError(f"The {what} does not begin with SEAL's header: it is of another format or altered.")
    if total != len(blob):
        raise WireError(
            f"The header of the {what} announces {total} bytes and there are {len(blob)}: truncated or altered."
        )
    if major not in (3, 4):
        raise WireError(f"The {what} was written by SEAL {major}.{minor}; versions 3 and 4 are understood.")
    body = blob[_HEADER.size :]
    if compression == 0:
        if len(body) > limit:
            raise WireError(f"The {what} has {len(body)} bytes; at most {limit} fit these parameters.")
        return SealObject(major, minor, body)
    if compression == 1:
        return SealObject(major, minor, _inflate(body, limit, what))
    if compression == 2:
        return SealObject(major, minor, _unzstd(body, limit, what))
    raise WireError(f"The {what} has compression {compression}; 0 (none), 1 (zlib) and 2 (Zstandard) exist.")


def write_object(body: bytes) -> bytes:
    """An uncompressed SEAL object of format 3.6, which SEAL 3.6 to 4.4 all read."""
    return _HEADER.pack(_MAGIC, _HEADER.size, 3, 6, 0, 0, _HEADER.size + len(body)) + body


class Reader:
    """A cursor over a body that is never read past its end."""

    def __init__(self, body: bytes, what: str) -> None:
        self._body, self._at, self._what = body, 0, what

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        if length > len(self._body) - self._at:
            raise WireError(
                f"The {self._what} ends after {len(self._body)} bytes, within a field of {length}: truncated or "
                "altered."
            )
        self._at += length
        return self._body[self._at - length : self._at]

    def u8(self) -> int:
        """An unsigned byte."""
        return self.take(1)[0]

    def u64(self) -> int:
        """A 64-bit unsigned integer."""
        return int.from_bytes(self.take(8), "little")

    def f64(self) -> float:
        """A double."""
        return struct.unpack("<d", self.take(8))[0]

    def words(self, count: int) -> np.ndarray:
        """A SEAL DynArray that must hold exactly `count` 64-bit words, as uint64."""
        inner = read_object(self.take(24 + 8 * count), limit=8 + 8 * count, what=f"array of the {self._what}")
        stated = int.from_bytes(inner.body[:8], "little")
        if stated != count or len(inner.body) != 8 + 8 * count:
            raise WireError(f"The {self._what} holds {stated} words where its parameters need {count}.")
        return np.frombuffer(inner.body, "<u8", offset=8)

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._body):
            raise WireError(f"{len(self._body) - self._at} bytes follow the end of the {self._what}.")


def write_words(words: np.ndarray) -> bytes:
    """A DynArray of 64-bit words."""
    return write_object(struct.pack("<Q", words.size) + words.astype("<u8").tobytes())


def _inflate(body: bytes, limit: int, what: str) -> bytes:
    machine = zlib.decompressobj()
    try:
        out = machine.decompress(body, limit + 1)
    except zlib.error as reason:
        raise WireError(f"The {what} does not decompress: {reason}.") from None
    if len(out) > limit or not machine.eof or machine.unused_data:
        raise WireError(f"The {what} does not decompress to at most {limit} bytes: truncated, oversized or altered.")
    return out


def _unzstd(body: bytes, limit: int, what: str) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd

        machine, error = zstd.ZstdDecompressor(), zstd.ZstdError
        try:
            out = machine.decompress(body, max_length=limit + 1)
        except error as reason:
            raise WireError(f"The {what} does not decompress: {reason}.") from None
        if len(out) > limit or not machine.eof or machine.unused_data:
            raise WireError(
                f"The {what} does not decompress to at most {limit} bytes: truncated, oversized or altered."
            )
        return out
    try:
        import zstandard
    except ImportError:
        raise ImportError(
            f"The {what} is Zstandard-compressed, as TenSEAL writes everything. Install the reader: pip install "
            "zstandard (the `interop` extra of fedjax-poisson; Python 3.14 has it built in)."
        ) from None
    try:
        with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=False) as stream:
            out = stream.read(limit + 1)
    except zstandard.ZstdError as reason:
        raise WireError(f"The {what} does not decompress: {reason}.") from None
    if len(out) > limit:
        raise WireError(f"The {what} decompresses to more than {limit} bytes, which is all its parameters can need.")
    return out
