"""The envelope of a message: whose contributions it contains, for which round and parameters, and a tag that reveals any change.

Layout, integers little-endian:

| bytes | what |
|---|---|
| 4 | magic `FJPS` |
| 1 | format version |
| 1 | backend |
| 2 | zero |
| 8 | round |
| 8 | size D |
| 4 | senders in the message |
| 4 | number of ids, I |
| 16 | fingerprint of the public parameters and key |
| 8 | body length, B |
| 16 I | ids, ascending, distinct |
| B | body, the backend's own bytes |
| 32 | tag |

The tag is BLAKE2b-256, keyed with a channel key that the senders, the server and the key holder share (RFC 7693 section
2.9: keyed BLAKE2 is a MAC). The channel key opens no ciphertext. It detects a change on the way; it does not tell one
sender from another, so it is no substitute for authenticated connections between sites.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import secrets
import struct
from typing import NamedTuple

from fedjax_poisson.ckks.errors import WireError

ID_BYTES = 16
TAG_BYTES = 32
_MAGIC = b"FJPS"
_VERSION = 1
_HEAD = struct.Struct("<4sBBHQQII16sQ")
_MAX_IDS = 1 << 20


class Envelope(NamedTuple):
    """One message, taken apart.

    Attributes:
      backend: number of the backend that made the body.
      round: number of the round it belongs to.
      size: D, values carried.
      senders: contributions added up in the body; at least the number of ids (an id may stand for several simulated
        senders).
      ids: 16-byte nonces, one per message that went into the body.
      fingerprint: 16 bytes that name the public parameters and key.
      body: the backend's bytes.
    """

    backend: int
    round: int
    size: int
    senders: int
    ids: frozenset[bytes]
    fingerprint: bytes
    body: bytes


def new_id() -> bytes:
    """A fresh 16-byte nonce from the operating system."""
    return secrets.token_bytes(ID_BYTES)


def new_channel_key() -> bytes:
    """A fresh 32-byte channel key from the operating system."""
    return secrets.token_bytes(32)


def overhead(ids: int = 1) -> int:
    """Bytes that an envelope adds to its body."""
    return _HEAD.size + ID_BYTES * ids + TAG_BYTES


def pack(envelope: Envelope, channel_key: bytes) -> bytes:
    """The bytes of a message, tagged."""
    head = _HEAD.pack(
        _MAGIC,
        _VERSION,
        envelope.backend,
        0,
        envelope.round,
        envelope.size,
        envelope.senders,
        len(envelope.ids),
        envelope.fingerprint,
        len(envelope.body),
    )
    content = b"".join((head, *sorted(envelope.ids), envelope.body))
    return content + _tag(content, channel_key)


def unpack(blob: bytes, channel_key: bytes) -> Envelope:
    """Take a message apart after checking its tag and every length.

    Raises:
      WireError: too short, altered, of another format, or with inconsistent lengths.
    """
    if len(blob) < overhead(0):
        raise WireError(
            f"The message has {len(blob)} bytes; even an empty one has {overhead(0)}: it was truncated. Send it again."
        )
    content, tag = blob[:-TAG_BYTES], blob[-TAG_BYTES:]
    if content[:4] != _MAGIC:
        raise WireError("The message does not begin with FJPS: it is of another format. Send what `to_bytes` returned.")
    if not hmac.compare_digest(tag, _tag(content, channel_key)):
        raise WireError(
            "The tag of the message does not fit its content: it was altered or truncated on the way, or made under "
            "another channel key. Leave it out or ask its sender again."
        )
    _, version, backend, zero, round_, size, senders, ids, mark, length = _HEAD.unpack_from(content)
    if version != _VERSION or zero:
        raise WireError(
            f"The message has format version {version}; this package reads version {_VERSION}. Use one release at all "
            "sites."
        )
    if ids > _MAX_IDS or len(content) != _HEAD.size + ID_BYTES * ids + length:
        raise WireError(f"The message states {ids} ids and {length} body bytes but has {len(content)} bytes in all.")
    if not 1 <= ids <= senders:
        raise WireError(f"The message states {ids} ids for {senders} senders; every message has at least one of each.")
    start = _HEAD.size + ID_BYTES * ids
    listed = [content[i : i + ID_BYTES] for i in range(_HEAD.size, start, ID_BYTES)]
    if any(a >= b for a, b in itertools.pairwise(listed)):
        raise WireError("The ids of the message are not ascending and distinct.")
    return Envelope(backend, round_, size, senders, frozenset(listed), mark, content[start:])


def _tag(content: bytes, channel_key: bytes) -> bytes:
    return hashlib.blake2b(content, key=channel_key, digest_size=TAG_BYTES).digest()
