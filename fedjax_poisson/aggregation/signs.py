"""Public signs of a norm round: each coordinate of every client's counts is turned by +1 or -1 that nobody knew when the noise was fixed.

A noise sender could shift the sum along a direction of its choice. Its vector is fixed before the signs are, and the opened sum is turned back, so along
any fixed direction its shift becomes a random sum of the variance that honest noise has there too (a spike keeps its place, not its sign). Honest noise is
symmetric, so turning it changes nothing: *proved*. The signs come from ChaCha20 under a hash of the terms, the list of noise, and the parts g_k that members
committed to before the terms were known; who gathers signatures chooses among the sets of t signers or more, and as many drawings (60,460 of 20 members with
t = 14: the largest of so many random sums is below 4.7 standard deviations, sqrt(2 ln T), in the mean).
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.aggregation import bodies, messages
from fedjax_poisson.aggregation.keys import Hidden
from fedjax_poisson.aggregation.messages import Message, check_quorum
from fedjax_poisson.aggregation.refusals import BadTerms, NoQuorum
from fedjax_poisson.aggregation.round_keys import RoundKey
from fedjax_poisson.aggregation.rows import hash_words, words_stream
from fedjax_poisson.aggregation.terms import Terms
from fedjax_poisson.aggregation.wire import prefixed
from fedjax_poisson.randomness import bits

__all__ = [
    "PART_BYTES",
    "Certificate",
    "certificate_of",
    "certify_body",
    "commitment",
    "new_part",
    "read_certificate",
    "signs_of",
    "turned",
]

PART_BYTES = 64
"""A member's part: 32 random bytes and a salt of 32."""


class Certificate(NamedTuple):
    """What t members signed before clients speak.

    Attributes:
      noise: SHA-256 of the list of noise contributions (`bodies.commit_hash`); empty in light rounds.
      parts: member key to its part of the signs; empty in light rounds.
      name: a hash of what was certified, which contributions name: in norm rounds of who signed with which part, not of signatures, of which a signer can make
        any number.
    """

    noise: bytes
    parts: Mapping[bytes, bytes]
    name: bytes


def new_part() -> Hidden:
    """A member's part of the signs."""
    return Hidden(os.urandom(PART_BYTES))


def commitment(part: Hidden | bytes) -> bytes:
    """The hash that a round key commits to a part with."""
    raw = part.value if isinstance(part, Hidden) else part
    return hashlib.sha256(b"fedjax-poisson/1/sign part\0" + raw).digest()


def certify_body(terms: Terms, digest: bytes, noise: bodies.Entries, part: bytes) -> bytes:
    """What a member signs: the hash of the terms; in norm rounds also the list of noise contributions and its part of the signs."""
    if terms.norm is None:
        return digest
    return digest + bodies.commit_hash(noise) + part


def certificate_of(terms: Terms, digest: bytes, said: Iterable[Message]) -> bytes:
    """The certificate of members' `certify` messages, as clients are shown it."""
    listed = list(said)
    if terms.norm is None:
        return messages.encode_quorum(messages.quorum_of(listed, digest))
    return bodies.many(messages.encode(message) for message in sorted(listed, key=lambda message: message.sender))


def read_certificate(blob: bytes, terms: Terms, digest: bytes, round_keys: Iterable[RoundKey | None]) -> Certificate:
    """A certificate that t members signed for these terms and, in norm rounds, for one list of noise.

    Raises:
      RoundRefused: by its name; in norm rounds also where a part of the signs is not the one that its member committed to.
    """
    if terms.norm is None:
        found = messages.decode_quorum(blob)
        if found.body != digest:
            raise BadTerms("The certificate is for other terms.")
        check_quorum(found, "certify", digest, terms.members, terms.threshold)
        return Certificate(b"", {}, hashlib.sha256(blob).digest())
    committed = {
        member: key.sign_commitment for member, key in zip(terms.members, round_keys, strict=True) if key is not None
    }
    noise, parts = b"", {}
    for signed in bodies.read_many(blob, len(terms.members)):
        message = messages.decode(signed, terms, digest, lambda label: terms.members, ["certify"])
        check_certify(message, terms, digest, committed.get(message.sender))
        if noise not in (b"", message.body[32:64]):
            raise BadTerms("Members signed different lists of noise.")
        noise = message.body[32:64]
        parts[message.sender] = message.body[64:]
    if len(parts) < terms.threshold:
        raise NoQuorum(f"{len(parts)} of {len(terms.members)} members certified, {terms.threshold} are needed.")
    listed = b"".join(member + parts[member] for member in sorted(parts))
    return Certificate(noise, parts, hashlib.sha256(b"fedjax-poisson/1/certificate\0" + noise + listed).digest())


def check_certify(message: Message, terms: Terms, digest: bytes, committed: bytes | None) -> None:
    """Refuse a member's `certify` for other terms, or one that opens another part of the signs than its round key committed to."""
    if message.body[:32] != digest:
        raise BadTerms("A certificate for other terms.")
    if terms.norm is None:
        if len(message.body) != 32:
            raise BadTerms("A light round's certificate has a hash and no more.")
        return
    if len(message.body) != 64 + PART_BYTES or committed is None or commitment(message.body[64:]) != committed:
        raise BadTerms("A member's part of the signs is not the one that it committed to.")


def turned(counts: np.ndarray, terms: Terms, digest: bytes, certificate: Certificate) -> np.ndarray:
    """Opened counts int32 `[D]` times the round's signs; in light rounds, which have none, the counts themselves."""
    return counts if terms.norm is None else counts * signs_of(counts.size, terms, digest, certificate)


def signs_of(size: int, terms: Terms, digest: bytes, certificate: Certificate) -> np.ndarray:
    """int32 `[D]` of +1 and -1; all +1 in light rounds."""
    if terms.norm is None:
        return np.ones(size, np.int32)
    ordered = [certificate.parts[member] for member in terms.members if member in certificate.parts]
    words = hash_words("signs", digest, certificate.noise, *(prefixed(part) for part in ordered))
    return np.asarray(_signs(size, words))


@functools.partial(jax.jit, static_argnums=0)
def _signs(size: int, words: Array) -> Array:
    drawn = bits(words_stream(words), -(-size // 32))
    flat = (drawn[:, None] >> jnp.arange(32, dtype=jnp.uint32)[None]) & jnp.uint32(1)
    return 1 - 2 * flat.reshape(-1)[:size].astype(jnp.int32)
