"""The messages in which large requests and replies travel: one part each, with a hash over all of it, and an answer that names its question.

The hashes find what an unreliable carrier loses, mixes up or damages. Against one that lies on purpose they hold only as far as it does not make them anew;
what is inside is signed, and checked by those who read it.
"""

from __future__ import annotations

import hashlib
import struct
from enum import IntEnum
from typing import Any, NamedTuple

__all__ = [
    "ANSWER_BYTES",
    "OVERHEAD",
    "QUESTION_BYTES",
    "Answer",
    "Question",
    "Said",
    "Unreadable",
    "Wanted",
    "read_answer",
    "read_question",
    "write",
]

_QUESTION = struct.Struct("<4sB16s32sQQI")
_ANSWER = struct.Struct("<4sB32s32sQ")
_ASKS, _SAYS = b"fjq1", b"fja1"
QUESTION_BYTES, ANSWER_BYTES = _QUESTION.size + 32, _ANSWER.size + 32  # of one without its part
OVERHEAD = max(QUESTION_BYTES, ANSWER_BYTES)


class Unreadable(ValueError):
    """The bytes are no message of this kind, or not as they were sent."""


class Wanted(IntEnum):
    """What a question is for."""

    SEND = 1  # here is a part of the request; when it is whole, the reply is wanted
    TAKE = 2  # a part of the reply is wanted


class Said(IntEnum):
    """What an answer says."""

    HAVE = 1  # `size` bytes of the request are here: send from there on
    WORKING = 2  # the request is whole, the reply is not ready
    REPLY = 3  # the reply has `size` bytes and this `digest`; `data` is a part of it
    FAILED = 4  # there will be no reply; `data` says why
    GONE = 5  # nothing of this ask is here (any more)
    BUSY = 6  # too many asks at once
    UNREADABLE = 7  # the question did not arrive as it was sent


class Question(NamedTuple):
    """To a site.

    Attributes:
      wanted: what for.
      ask: 16 bytes that are new for each ask, and the same in all questions of one.
      digest: SHA-256 of the whole request.
      size: of the whole request, in bytes.
      offset: of this part in the request, or of the wanted part in the reply.
      most: bytes of the reply that an answer may carry.
      data: the part.
    """

    wanted: Wanted
    ask: bytes
    digest: bytes
    size: int
    offset: int
    most: int
    data: bytes = b""


class Answer(NamedTuple):
    """From a site.

    Attributes:
      said: what it says.
      question: the hash at the end of the question that it answers.
      digest: SHA-256 of the whole reply, zeros if there is none.
      size: see `Said`.
      data: see `Said`.
    """

    said: Said
    question: bytes
    digest: bytes = bytes(32)
    size: int = 0
    data: bytes = b""


def write(message: Question | Answer) -> bytes:
    """The bytes of a message; the last 32 are the SHA-256 of those before."""
    if isinstance(message, Question):
        head = _QUESTION.pack(_ASKS, *message[:-1])
    else:
        head = _ANSWER.pack(_SAYS, *message[:-1])
    digest = hashlib.sha256(head)
    digest.update(message.data)
    return b"".join((head, message.data, digest.digest()))


def read_question(blob: bytes) -> Question:
    """The question in these bytes.

    Raises:
      Unreadable: they are none.
    """
    (wanted, ask, digest, size, offset, most), data = _fields(blob, _QUESTION, _ASKS)
    if wanted not in Wanted.__members__.values() or (data and offset + len(data) > size):
        raise Unreadable("a question out of its ranges")
    return Question(Wanted(wanted), ask, digest, size, offset, most, data)


def read_answer(blob: bytes, question: bytes) -> Answer:
    """The answer in these bytes, if it answers this question.

    Args:
      blob: the bytes.
      question: the bytes of the question.

    Raises:
      Unreadable: they are none, or answer another question.
    """
    (said, asked, digest, size), data = _fields(blob, _ANSWER, _SAYS)
    if asked != question[-32:]:
        raise Unreadable("it answers another question")
    if said not in Said.__members__.values():
        raise Unreadable("an answer of another version")
    return Answer(Said(said), asked, digest, size, data)


def _fields(blob: bytes, form: struct.Struct, label: bytes) -> tuple[list[Any], bytes]:
    if len(blob) < form.size + 32:
        raise Unreadable("it is cut short")
    body = memoryview(blob)[:-32]
    if hashlib.sha256(body).digest() != blob[-32:]:
        raise Unreadable("it is not as it was sent")
    found, *fields = form.unpack_from(body)
    if found != label:
        raise Unreadable("it is of another kind or version")
    return fields, bytes(body[form.size :])
