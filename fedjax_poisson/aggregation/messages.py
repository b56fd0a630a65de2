"""Messages: a label, the terms they belong to, a sender, a body and a signature; sizes and senders are checked before anything is believed.

Members and clients sign everything they say. What the server says is not signed, since nothing rests on it: a `Notice` carries only what others
signed, or proposals that members check.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from fedjax_poisson.aggregation import keys
from fedjax_poisson.aggregation.refusals import (
    BadSignature,
    DuplicateClient,
    Malformed,
    NoQuorum,
    Oversize,
    UnknownMessage,
    UnknownSender,
    WrongTerms,
)
from fedjax_poisson.aggregation.terms import Terms, parameters_of
from fedjax_poisson.aggregation.wire import Reader, prefixed, residues_size, u32

__all__ = [
    "CLIENT_LABELS",
    "MEMBER_LABELS",
    "NO_TERMS",
    "Message",
    "Notice",
    "Quorum",
    "check_quorum",
    "decode",
    "decode_notice",
    "decode_quorum",
    "encode",
    "encode_notice",
    "encode_quorum",
    "make",
    "most_bytes",
    "parts_of",
    "quorum_of",
]

NO_TERMS = bytes(32)
"""What stands for the terms in a `round-key`, which is older than they are."""
MEMBER_LABELS = (
    "round-key",
    "certify",
    "held",
    "commit",
    "beacon-open",
    "seed",
    "projections",
    "include",
    "answer",
    "dead",
)
CLIENT_LABELS = ("noise", "contribution", "proof")
_HEAD = 4 + 32 + 32 + 32 + 4 + 4 + 64
ROUND_KEY_BYTES = 16 + 8 + keys.BOX_KEY_BYTES + 32 + 32
ENTRY_BYTES = 64


class Message(NamedTuple):
    """One signed message.

    Attributes:
      label: which.
      terms: hash of the terms.
      sender: Ed25519 key, 32 bytes.
      body: what is signed.
      signature: 64 bytes.
      attached: what the body names by its hash and what follows it unsigned (a contribution's rows, boxes and corrections, a proof's corrections).
    """

    label: str
    terms: bytes
    sender: bytes
    body: bytes
    signature: bytes
    attached: bytes = b""


class Notice(NamedTuple):
    """What the server says: a label and a body."""

    label: str
    body: bytes


class Quorum(NamedTuple):
    """Signatures of several members under the same body.

    Attributes:
      body: what they signed.
      signatures: (member key, signature), increasing by key.
    """

    body: bytes
    signatures: tuple[tuple[bytes, bytes], ...]


def make(key: keys.Hidden, label: str, terms_hash: bytes, body: bytes, attached: bytes = b"") -> Message:
    """A signed message."""
    sender, signature = keys.name_and_sign(key, label, terms_hash, body)
    return Message(label, terms_hash, sender, body, signature, attached)


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    return b"".join(
        [
            prefixed(message.label.encode()),
            message.terms,
            message.sender,
            prefixed(message.body),
            message.signature,
            prefixed(message.attached),
        ]
    )


@functools.lru_cache(maxsize=64)
def most_bytes(label: str, terms: Terms | None) -> int:
    """The largest message of a label under some terms; None before there are any.

    Raises:
      UnknownMessage: no such label.
    """
    if label == "round-key":
        return _HEAD + len(label) + ROUND_KEY_BYTES
    if label not in MEMBER_LABELS + CLIENT_LABELS or terms is None:
        raise UnknownMessage(f'A message "{label[:32]}" is not expected here.')
    params = parameters_of(terms)
    polynomial = residues_size(params.ring.degree, params.ring.moduli)
    clients, members = terms.parties, len(terms.members)
    contribution = 64 + 32 * members + 32 * params.corrections
    bodies = {
        "certify": 32 + (32 + 64 if terms.noise else 0),
        "held": 4 + 32 * clients,
        "commit": 4 + ENTRY_BYTES * clients + (32 if terms.noise else 0),
        "beacon-open": 64,
        "seed": 32,
        "projections": 32
        + 32
        + residues_size(clients * params.scalars, params.ring.moduli)
        + (32 * clients if terms.noise else 0)
        + 8,
        "include": 4 + ENTRY_BYTES * clients + 4 + members + 4 + 33 * clients,
        "answer": 32 + polynomial,
        "dead": 8,
        "noise": contribution,
        "contribution": contribution,
        "proof": 32 + 32 * params.corrections,
    }
    attached = 0
    if label == "proof":
        attached = params.corrections * (4 + params.proof_bytes)
    elif label in CLIENT_LABELS:
        attached = residues_size(params.rows * params.ring.degree, params.ring.moduli)
        attached += members * (4 + keys.BOX_BYTES) + params.corrections * (4 + polynomial) + 4
    return _HEAD + len(label) + bodies[label] + attached


def decode(
    blob: bytes,
    terms: Terms | None,
    terms_hash: bytes,
    senders: Callable[[str], Iterable[bytes]],
    labels: Sequence[str],
) -> Message:
    """A message whose size, label, terms, sender and signature hold, checked in this order.

    Args:
      blob: foreign bytes.
      terms: of the round; None before there are any.
      terms_hash: their hash, `NO_TERMS` before.
      senders: label to the keys that may send it.
      labels: what is expected.

    Raises:
      Oversize, Malformed, UnknownMessage, WrongTerms, UnknownSender, BadSignature: the first that applies.
    """
    limit = max(most_bytes(label, terms) for label in labels)
    if len(blob) > limit:
        raise Oversize(f"A message of {len(blob)} bytes; the terms allow {limit}.")
    reader = Reader(blob)
    raw = reader.prefixed()
    label = raw.decode("ascii", "replace")
    if label not in labels:
        raise UnknownMessage(f'A message "{label[:32]}" is not expected here, only {", ".join(labels)}.')
    if len(blob) > most_bytes(label, terms):
        raise Oversize(f'A "{label}" of {len(blob)} bytes; the terms allow {most_bytes(label, terms)}.')
    found, sender, body, signature = reader.take(32), reader.take(32), reader.prefixed(), reader.take(64)
    attached = reader.prefixed()
    reader.done()
    if found != (NO_TERMS if label == "round-key" else terms_hash):
        raise WrongTerms(f'A "{label}" of other terms: of another round, or of terms that the server showed to others.')
    if sender not in senders(label):
        raise UnknownSender(f'A "{label}" of key {sender.hex()[:16]}, which may not send it.')
    if attached and label not in CLIENT_LABELS:
        raise Malformed(f'A "{label}" has nothing attached.')
    keys.verify(sender, label, found, body, signature)
    return Message(label, found, sender, body, signature, attached)


def parts_of(blob: bytes) -> Message:
    """A message of one's own in parts; nothing of it is checked."""
    reader = Reader(blob)
    label, terms, sender = reader.prefixed().decode("ascii"), reader.take(32), reader.take(32)
    body, signature = reader.prefixed(), reader.take(64)
    return Message(label, terms, sender, body, signature, reader.prefixed())


def encode_notice(notice: Notice) -> bytes:
    """The bytes of a notice."""
    return prefixed(notice.label.encode()) + prefixed(notice.body)


def decode_notice(blob: bytes, limit: int, labels: Sequence[str]) -> Notice:
    """A notice of an expected label.

    Raises:
      Oversize, Malformed, UnknownMessage: the first that applies.
    """
    if len(blob) > limit:
        raise Oversize(f"A notice of {len(blob)} bytes; at most {limit} are expected here.")
    reader = Reader(blob)
    label = reader.prefixed().decode("ascii", "replace")
    if label not in labels:
        raise UnknownMessage(f'A notice "{label[:32]}" is not expected here.')
    body = reader.prefixed()
    reader.done()
    return Notice(label, body)


def quorum_of(messages: Iterable[Message], body: bytes) -> Quorum:
    """The signatures under one body among messages."""
    return Quorum(body, tuple(sorted((m.sender, m.signature) for m in messages if m.body == body)))


def encode_quorum(quorum: Quorum) -> bytes:
    """The bytes of a quorum."""
    return prefixed(quorum.body) + u32(len(quorum.signatures)) + b"".join(a + b for a, b in quorum.signatures)


def decode_quorum(blob: bytes) -> Quorum:
    """A quorum from bytes; its signatures are not checked here."""
    reader = Reader(blob)
    body, count = reader.prefixed(), reader.u32()
    if count > 20:
        raise Oversize(f"{count} signatures; a round has at most 20 members.")
    entries = reader.increasing(count, 96)
    reader.done()
    return Quorum(body, tuple((entry[:32], entry[32:]) for entry in entries))


def check_quorum(quorum: Quorum, label: str, terms_hash: bytes, members: Sequence[bytes], threshold: int) -> None:
    """Refuse a quorum of fewer than t members.

    Raises:
      NoQuorum: fewer than t of the members signed this body.
    """
    good = set()
    for member, signature in quorum.signatures:
        if member not in members:
            continue
        try:
            keys.verify(member, label, terms_hash, quorum.body, signature)
        except BadSignature:
            continue
        good.add(member)
    if len(good) < threshold:
        raise NoQuorum(f'{len(good)} of {len(members)} members signed this "{label}", {threshold} are needed.')


def entries_of(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A list of (client key, manifest hash), increasing by key, as bytes.

    Raises:
      DuplicateClient: a client twice.
    """
    ordered = sorted(pairs)
    if len({key for key, _ in ordered}) != len(ordered):
        raise DuplicateClient("A client stands twice in a list.")
    return u32(len(ordered)) + b"".join(key + digest for key, digest in ordered)


def read_entries(reader: Reader, most: int) -> tuple[tuple[bytes, bytes], ...]:
    """The inverse of `entries_of`.

    Raises:
      Oversize, Malformed: too many, or not increasing.
    """
    count = reader.u32()
    if count > most:
        raise Oversize(f"A list of {count} clients; the terms have {most}.")
    return tuple((entry[:32], entry[32:]) for entry in reader.increasing(count, ENTRY_BYTES))


def manifest_hash(message: Message) -> bytes:
    """The name of a contribution: over its sender and its signed body."""
    return hashlib.sha256(b"fedjax-poisson/1/manifest\0" + message.sender + message.body).digest()
