"""What the coordinator asks of a site, and what a site answers: a word, then parts, in one encoding.

Nothing here is secret, signed or believed. What matters is signed inside the parts (messages of a round, terms, transcripts); a request that was lost, doubled
or altered ends in a refusal, or in the same bytes as before.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from fedjax_poisson.aggregation.refusals import Malformed, Oversize
from fedjax_poisson.aggregation.wire import Reader, prefixed, u32

__all__ = ["NO_RUN", "REFUSED", "Spoken", "decode", "encode", "facts", "read_signatures", "refused", "words"]

_MAGIC = b"FJPD\1"
_MOST_PARTS = 64
_MOST_WORD = 32
_MOST_BYTES = 1 << 31
_MOST_FACTS = 1 << 20

REFUSED = "refused"
NO_RUN = "No run is under way"
"""What a site says that was asked about rounds and has begun none; the coordinator then sends it the start again."""


class Spoken(NamedTuple):
    """A request or a reply.

    Attributes:
      word: which; "refused" of a reply that says why not.
      parts: its content.
    """

    word: str
    parts: tuple[bytes, ...] = ()


def encode(spoken: Spoken) -> bytes:
    """The one encoding."""
    return _MAGIC + prefixed(spoken.word.encode()) + u32(len(spoken.parts)) + b"".join(map(prefixed, spoken.parts))


def decode(blob: bytes) -> Spoken:
    """A request or reply from bytes.

    Raises:
      Oversize, Malformed: it is none.
    """
    if len(blob) > _MOST_BYTES:
        raise Oversize(f"A request of {len(blob)} bytes; at most {_MOST_BYTES}.")
    if not blob.startswith(_MAGIC):
        raise Malformed("These bytes are no request of this version.")
    reader = Reader(blob[len(_MAGIC) :])
    word, count = reader.prefixed(), reader.u32()
    if len(word) > _MOST_WORD or count > _MOST_PARTS:
        raise Oversize(f"A request with a word of {len(word)} bytes and {count} parts.")
    parts = tuple(reader.prefixed() for _ in range(count))
    reader.done()
    try:
        return Spoken(word.decode(), parts)
    except UnicodeDecodeError:
        raise Malformed("A request's word is not UTF-8.") from None


def refused(error: BaseException | str) -> bytes:
    """The reply that says why not; of an error, its name and its words."""
    said = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return encode(Spoken(REFUSED, (said.encode(),)))


def words(said: bytes | str) -> str:
    """What a site says, for people: a line of at most 500 printable characters, so that it can neither steer a terminal nor fill a file."""
    text = said[:2000].decode(errors="replace") if isinstance(said, bytes) else said
    return "".join(one if one.isprintable() else " " for one in text[:500])


def facts(part: bytes) -> dict[str, Any]:
    """A part that is a JSON object.

    Raises:
      Oversize, Malformed: it is none.
    """
    if len(part) > _MOST_FACTS:
        raise Oversize(f"A part of {len(part)} bytes as JSON; at most {_MOST_FACTS} are read.")
    try:
        found = json.loads(part)
    except (ValueError, RecursionError):
        raise Malformed("A part is not JSON.") from None
    if not isinstance(found, dict):
        raise Malformed("A part is JSON, and no object.")
    return found


def read_signatures(blob: bytes) -> dict[str, bytes]:
    """Signatures by party.

    Raises:
      RoundRefused: they are none.
    """
    try:
        return {str(name): bytes.fromhex(value) for name, value in facts(blob).items()}
    except (TypeError, ValueError):
        raise Malformed("Signatures are hexadecimal texts by party.") from None
