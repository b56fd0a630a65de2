"""A client's second message in a norm round: the proof that its counts are short, shared to the members (`proof`).

It is made once, for one set D that names the client's own contribution and for one seed that t members signed. It names that seed, and no member with
another one answers: else who hides a part of the seed from the client could have functionals opened that the proof was not made for.
"""

from __future__ import annotations

import functools
import hashlib
from typing import NamedTuple

import jax
import numpy as np

from fedjax_poisson.aggregation import bodies, keys, messages, proof, rows, sharing, sketch
from fedjax_poisson.aggregation.client import Client
from fedjax_poisson.aggregation.messages import Message, check_quorum
from fedjax_poisson.aggregation.parameters import RoundParameters
from fedjax_poisson.aggregation.refusals import (
    AlreadyDone,
    BadBox,
    BadTerms,
    LongVector,
    Malformed,
    NoQuorum,
    WrongTerms,
)
from fedjax_poisson.aggregation.terms import check_terms, decode_terms, parameters_of, terms_hash
from fedjax_poisson.aggregation.wire import Reader, prefixed, read_residues, residue_bytes
from fedjax_poisson.randomness import Stream, fold_in
from fedjax_poisson.small_programs import few_values

__all__ = [
    "HandedProof",
    "Proof",
    "expanded_share",
    "proof_corrections",
    "proof_name",
    "proof_share",
    "prove",
    "read_correction",
    "read_proof",
    "shared",
]


class Proof(NamedTuple):
    """A proof in parts: the signed message without what it names, the seed, and the corrections of members t..m."""

    message: Message
    seed: bytes
    corrections: tuple[bytes, ...]


class HandedProof(NamedTuple):
    """What the server hands a member of one proof: the signed body, and the member's correction (empty below t)."""

    signed: bytes
    correction: bytes


def proof_name(message: Message) -> bytes:
    """The name of a proof: over its sender and its signed body."""
    return hashlib.sha256(b"fedjax-poisson/1/proof name\0" + message.sender + message.body).digest()


def expanded_share(params: RoundParameters, kappa: bytes) -> np.ndarray:
    """uint32 `[L, length]`: what a member's 32 bytes are expanded to for the proof; other words than for the secret's share."""
    return np.asarray(_expanded(params, np.frombuffer(kappa, "<u4").astype(np.uint32)))


def _expand(params: RoundParameters, words: jax.Array) -> jax.Array:
    return proof.uniform_values(params, fold_in(rows.words_stream(words), "proof"))


def _values_of_shares(params: RoundParameters, *others: object) -> int:
    return 0 if params.proof is None else params.ring.limbs * params.proof.length


_expanded = few_values(_values_of_shares, static_argnums=0)(_expand)


def _correct(params: RoundParameters, weights: jax.Array, values: jax.Array, words: jax.Array) -> jax.Array:
    return sharing.corrections(params, weights, values, jax.vmap(functools.partial(_expand, params))(words))


_corrections = few_values(_values_of_shares, static_argnums=0)(_correct)


@few_values(_values_of_shares, static_argnums=0)
def _made_corrections(
    params: RoundParameters, weights: jax.Array, plain: jax.Array, stream: Stream, words: jax.Array
) -> jax.Array:
    return _correct(params, weights, proof.values_of(params, plain, stream), words)


def prove(client: Client, terms_blob: bytes, committed: bytes, seeded: bytes) -> bytes:
    """The proof of the contribution that the client made under these terms.

    Args:
      client: who.
      terms_blob: of the round.
      committed: a quorum of the members' `commit`.
      seeded: a quorum of their `seed`.

    Returns:
      The message; the same bytes at every later call.

    Raises:
      RoundRefused: by its name; `LongVector` where no proof exists, which an honest client meets with at most 10^-12.
    """
    terms = decode_terms(terms_blob)
    check_terms(terms, client.pinned)
    digest = terms_hash(terms)
    if client.store.get(terms.run, terms.round, "terms") != digest or terms.norm is None:
        raise BadTerms("This client took no part in a norm round with these terms.")
    params, public = parameters_of(terms), keys.public_of(client.key)
    seed = messages.decode_quorum(seeded)
    check_quorum(seed, "seed", digest, terms.members, terms.threshold)
    if len(seed.body) != 32:
        raise WrongTerms("A seed has 32 bytes.")
    earlier = client.store.get(terms.run, terms.round, "proof")
    if earlier:
        if _seed_of(earlier) != seed.body:
            raise AlreadyDone("A proof was made for another seed; there is one a round.")
        client.store.erase(terms.run, terms.round, "secrets")  # the process may have ended before it came to that
        return earlier
    found = messages.decode_quorum(committed)
    check_quorum(found, "commit", digest, terms.members, terms.threshold)
    entries = dict(bodies.read_commit(found.body, terms))
    said, hidden = (client.store.get(terms.run, terms.round, step) for step in ("contribution", "secrets"))
    if not said or not hidden:
        raise BadTerms("What this client's proof is made of is gone.")
    if entries.get(public) != messages.manifest_hash(messages.parts_of(said)):
        raise NoQuorum("The committed set does not name this client's contribution.")
    client.store.put(terms.run, terms.round, "proof seed", seed.body)  # before anything depends on it: one seed a round
    try:
        message = _made(client, params, digest, seed.body, hidden)
    except LongVector:
        client.store.erase(terms.run, terms.round, "secrets")
        raise
    blob = client.store.put(terms.run, terms.round, "proof", messages.encode(message))
    client.store.erase(terms.run, terms.round, "secrets")
    return blob


def _seed_of(blob: bytes) -> bytes:
    return messages.parts_of(blob).body[:32]


def _made(client: Client, params: RoundParameters, digest: bytes, seed: bytes, hidden: bytes) -> Message:
    """The signed proof from what the client kept: 32 bytes of its own, the members' 32 bytes each, and its counts."""
    own, kappas = hidden[:32], [hidden[32 + 32 * k : 64 + 32 * k] for k in range(params.members)]
    counts = np.frombuffer(hidden[32 + 32 * params.members :], "<i4").astype(np.int32)
    drawn = fold_in(rows.words_stream(np.frombuffer(own, "<u4").astype(np.uint32)), *seed_words(seed))
    digits = sketch.digits_of(params, sketch.sketch_of(params, seed), counts)
    made = proof_corrections(params, digest, digits, drawn, kappas)
    parts = [residue_bytes(one, params.ring.moduli) for one in made]
    body = seed + b"".join(hashlib.sha256(part).digest() for part in parts)
    return messages.make(client.key, "proof", digest, body, b"".join(prefixed(part) for part in parts))


def seed_words(seed: bytes) -> tuple[int, ...]:
    """A seed as labels of a stream."""
    return tuple(int(word) for word in np.frombuffer(seed, "<u4"))


def proof_corrections(
    params: RoundParameters, digest: bytes, digits: np.ndarray, stream: Stream, kappas: list[bytes]
) -> np.ndarray:
    """The corrections of a proof of digits int64 `[16, k]`: `shared` of `proof.proof_values`, in one program.

    Raises:
      LongVector: no proof exists.
    """
    weights = sharing.dealing_weights(digest, params.members, params.threshold, params.ring.moduli)
    plain = proof.plain_bits(params, digits)
    return np.asarray(_made_corrections(params, weights, plain, stream, _words_of(kappas)))


def shared(params: RoundParameters, digest: bytes, values: np.ndarray, kappas: list[bytes]) -> np.ndarray:
    """The corrections uint32 `[m - t + 1, L, length]` that share values uint32 `[L, length]` to the members."""
    weights = sharing.dealing_weights(digest, params.members, params.threshold, params.ring.moduli)
    return np.asarray(_corrections(params, weights, values, _words_of(kappas)))


def _words_of(kappas: list[bytes]) -> np.ndarray:
    """uint32 `[m, 8]`: the members' 32 bytes each."""
    return np.frombuffer(b"".join(kappas), "<u4").astype(np.uint32).reshape(len(kappas), 8)


def read_proof(message: Message, params: RoundParameters) -> Proof:
    """A proof in parts, each as its signed body names it.

    Raises:
      Malformed: a part that is missing, of another size, or not the one that was signed.
    """
    reader = Reader(message.body)
    seed = reader.take(32)
    hashes = [reader.take(32) for _ in range(params.corrections)]
    reader.done()
    attached = Reader(message.attached)
    corrections = tuple(attached.prefixed() for _ in range(params.corrections))
    attached.done()
    for part, digest in zip(corrections, hashes, strict=True):
        if len(part) != params.proof_bytes or hashlib.sha256(part).digest() != digest:
            raise Malformed("A correction of a proof is not the one that its client signed.")
    return Proof(message._replace(attached=b""), seed, corrections)


def read_correction(params: RoundParameters, blob: bytes) -> np.ndarray:
    """A correction of a proof: uint32 `[L, length]`.

    Raises:
      RoundRefused: another length, or a residue that is not below its prime.
    """
    assert params.proof is not None
    return read_residues(blob, (), params.proof.length, params.ring.moduli)


def proof_share(params: RoundParameters, number: int, message: Message, correction: bytes, kappa: bytes) -> np.ndarray:
    """A member's share of a proof, uint32 `[L, length]`.

    Args:
      params: of the round.
      number: of the member.
      message: the signed proof.
      correction: the member's, empty below t.
      kappa: the member's 32 bytes of this client.

    Raises:
      RoundRefused: the correction is not the one that the client signed, or cannot be read.
    """
    share, place = expanded_share(params, kappa), number - params.threshold
    if len(message.body) != 32 + 32 * params.corrections:
        raise Malformed("A proof's body has another length.")
    if place < 0:
        if correction:
            raise BadBox("A member below t has no correction.")
        return share
    if hashlib.sha256(correction).digest() != message.body[32 + 32 * place : 64 + 32 * place]:
        raise BadBox("The correction of a proof is not the one that the client signed.")
    found = read_correction(params, correction)
    total: np.ndarray = (share + found) % np.asarray(params.ring.moduli, np.uint32)[:, None]  # primes below 2^31
    return total
