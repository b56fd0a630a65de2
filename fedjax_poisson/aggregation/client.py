"""A client of a round: it checks the terms, encrypts once, and speaks once.

A contribution is a signed *manifest* (hashes of the rows, of every box and of every correction) followed by these. Before anything is encrypted the client
checks everything that row 2 of the protocol names (`docs/aggregation.md`); the bytes are in its store before they are returned, and a second call for the
round returns the same bytes.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.aggregation import keys, messages, rows, sharing
from fedjax_poisson.aggregation.messages import NO_TERMS, Message, check_quorum
from fedjax_poisson.aggregation.parameters import RoundParameters
from fedjax_poisson.aggregation.refusals import BadBox, BadTerms, Malformed, RoundUsed, UnknownSender
from fedjax_poisson.aggregation.store import Store
from fedjax_poisson.aggregation.terms import (
    Pinned,
    Terms,
    check_terms,
    decode_terms,
    parameters_of,
    roster_hash,
    terms_hash,
)
from fedjax_poisson.aggregation.wire import Reader, prefixed, residue_bytes, u64
from fedjax_poisson.randomness import Stream, bits, fold_in, is_reproducible

__all__ = [
    "Client",
    "Contribution",
    "Manifest",
    "accept_terms",
    "box_info",
    "contribute",
    "read_contribution",
    "read_manifest",
    "round_key_of",
    "taken_back",
]


class Client(NamedTuple):
    """One client.

    Attributes:
      key: its Ed25519 key.
      pinned: what it knows from outside the server's reach.
      roster: the enrolled clients' keys; its own must be among them.
      run: 16 bytes, the run it takes part in.
      store: what it said.
    """

    key: keys.Hidden
    pinned: Pinned
    roster: frozenset[bytes]
    run: bytes
    store: Store


class Manifest(NamedTuple):
    """The signed body of a contribution: hashes of what follows it."""

    rows: bytes
    certificate: bytes
    boxes: tuple[bytes, ...]
    corrections: tuple[bytes, ...]


class Contribution(NamedTuple):
    """A contribution in parts; bytes as they travel."""

    message: Message
    manifest: Manifest
    rows: bytes
    boxes: tuple[bytes, ...]
    corrections: tuple[bytes, ...]


class RoundKey(NamedTuple):
    """A member's announcement of a round: a fresh box key, and a commitment to what it will open."""

    run: bytes
    round: int
    box_key: bytes
    commitment: bytes


def round_key_of(blob: bytes, members: Sequence[bytes]) -> tuple[bytes, RoundKey]:
    """A signed `round-key` and its sender.

    Raises:
      RoundRefused: of the kinds of `messages.decode`.
    """
    message = messages.decode(blob, None, NO_TERMS, lambda label: members, ["round-key"])
    reader = Reader(message.body)
    found = RoundKey(reader.take(16), reader.u64(), reader.take(keys.BOX_KEY_BYTES), reader.take(32))
    reader.done()
    return message.sender, found


def check_round_keys(terms: Terms) -> tuple[RoundKey | None, ...]:
    """Every member's round key, signed by that member for this run and round; None for a member that is away.

    Raises:
      RoundRefused: fewer than t are there, or one is planted or of another round.
    """
    found: list[RoundKey | None] = []
    for member, blob in zip(terms.members, terms.round_keys, strict=True):
        if not blob:
            found.append(None)
            continue
        sender, key = round_key_of(blob, terms.members)
        if sender != member:
            raise UnknownSender("A round key stands in another member's place.")
        if (key.run, key.round) != (terms.run, terms.round):
            raise BadTerms(f"A round key is for round {key.round}, the terms are for round {terms.round}.")
        found.append(key)
    if sum(key is not None for key in found) < terms.threshold:
        raise BadTerms(f"Fewer than t = {terms.threshold} members are there.")
    return tuple(found)


def box_info(terms: bytes, client: bytes, number: int) -> bytes:
    """What binds a box to its round, client and member."""
    return b"fedjax-poisson/1/box\0" + terms + client + bytes([number])


def accept_terms(
    client: Client, terms_blob: bytes, certificate: bytes, model: bytes
) -> tuple[Terms, tuple[RoundKey | None, ...]]:
    """Every check that precedes encryption.

    Raises:
      RoundRefused: the first that fails, by its name.
    """
    terms = decode_terms(terms_blob)
    check_terms(terms, client.pinned)
    digest = terms_hash(terms)
    found = messages.decode_quorum(certificate)
    if found.body != digest:
        raise BadTerms("The certificate is for other terms.")
    check_quorum(found, "certify", digest, client.pinned.members, client.pinned.threshold)
    round_keys = check_round_keys(terms)
    if terms.run != client.run:
        raise BadTerms("The terms are of another run.")
    if roster_hash(tuple(client.roster)) != client.pinned.roster:
        raise BadTerms("This client's list of clients is not the roster that it has pinned.")
    if keys.public_of(client.key) not in client.roster:
        raise UnknownSender("This client's own key is not on the roster.")
    if terms.model != model:
        raise BadTerms("The terms are for another model than the one that this client trained.")
    return terms, round_keys


def contribute(
    client: Client,
    terms_blob: bytes,
    certificate: bytes,
    counts: np.ndarray,
    stream: Stream,
    *,
    model: bytes,
    charge: Callable[[Terms], None] | None = None,
    reproducible: bool = False,
) -> bytes:
    """What the client sends.

    Args:
      client: who.
      terms_blob: the terms as the server sent them.
      certificate: a quorum of the members' `certify`.
      counts: int32 `[D]`, each within the count bound.
      stream: fresh randomness for this round and nothing else.
      model: SHA-256 of what the counts were computed for.
      charge: charges the client's own privacy filter for the sum, and raises to refuse; called before the bytes are stored, and again only if the process
        ended in between.
      reproducible: take a stream that comes from a seed: for simulations, where it hides nothing from whoever has the seed.

    Returns:
      The message; the same bytes at every later call for the same terms.

    Raises:
      RoundRefused: a check failed (`accept_terms`), or the round, or a later one, was taken part in under other terms.
      ValueError: the counts do not fit the terms, or the stream comes from a seed and `reproducible` is not set.
    """
    if is_reproducible(stream) and not reproducible:
        raise ValueError(
            "The stream comes from a seed, and whoever has it reads the counts: give `stream()`, or reproducible=True to simulate."
        )
    terms, round_keys = accept_terms(client, terms_blob, certificate, model)
    digest = terms_hash(terms)
    earlier = client.store.get(terms.run, terms.round, "contribution")
    if earlier is not None and client.store.get(terms.run, terms.round, "terms") == digest:
        return earlier
    if client.store.last(terms.run, "terms") >= terms.round:
        raise RoundUsed(
            f"Round {terms.round} or a later one was taken part in already: a secret is used once, under one set of terms."
        )
    params = parameters_of(terms)
    values = np.asarray(counts)
    if values.shape != (terms.size,) or values.dtype != np.int32:
        raise ValueError(f"counts are {values.dtype} {values.shape}; the terms are for int32 ({terms.size},).")
    if values.size and max(int(values.max()), -int(values.min())) > terms.count_bound:
        raise ValueError(f"A count is beyond count_bound = {terms.count_bound}: it could wrap into its neighbour.")
    if charge is not None:
        charge(terms)
    client.store.put(terms.run, terms.round, "terms", digest)
    # Bound to the terms, the client and the counts: a stream that is given again, its store lost, yields no secret twice.
    own = fold_in(
        stream, *(int(word) for word in rows.hash_words("fresh", digest, keys.public_of(client.key), values.tobytes()))
    )
    made, secret, kappas = _seal(params, rows.common_of(params, digest), jnp.asarray(values), own)
    words = np.asarray(kappas).astype("<u4")
    public = keys.public_of(client.key)
    moduli = params.ring.moduli
    boxes = tuple(
        b"" if key is None else keys.seal_box(key.box_key, words[k].tobytes(), box_info(digest, public, k + 1))
        for k, key in enumerate(round_keys)
    )
    parts = [residue_bytes(one, moduli) for one in _dealt(params, digest, secret, kappas)]
    row_bytes = residue_bytes(np.asarray(made), moduli)
    hashes = [hashlib.sha256(part).digest() for part in (row_bytes, certificate, *boxes, *parts)]
    attached = prefixed(row_bytes) + b"".join(prefixed(part) for part in (*boxes, *parts))
    message = messages.make(client.key, "contribution", digest, b"".join(hashes), attached)
    return client.store.put(terms.run, terms.round, "contribution", messages.encode(message))


@functools.partial(jax.jit, static_argnums=0)
def _seal(params: RoundParameters, a: jax.Array, counts: jax.Array, stream: Stream) -> tuple[jax.Array, ...]:
    """Rows, the secret in NTT form, and the members' 32 bytes each."""
    secrets = rows.draw(params, stream)
    made = rows.encrypt(params, a, counts, secrets)
    return made, rows.small_form(params, secrets.secret), kappas_of(params, stream)


def kappas_of(params: RoundParameters, stream: Stream) -> jax.Array:
    """The members' 32 bytes, uint32 `[m, 8]`, of a client's stream."""
    return bits(fold_in(stream, "kappas"), (params.members, 8))


def _dealt(params: RoundParameters, digest: bytes, secret: jax.Array, kappas: jax.Array) -> np.ndarray:
    """The corrections of a secret uint32 `[L, N]`."""
    none = jnp.zeros_like(secret)
    expanded = jnp.stack([sharing.share_of(params, kappa, none) for kappa in kappas])
    weights = sharing.dealing_weights(digest, params.members, params.threshold, params.ring.moduli)
    return np.asarray(sharing.corrections(params, jnp.asarray(weights), secret, expanded))


def taken_back(client: Client, terms_blob: bytes, dead: bytes) -> Terms:
    """The terms of a round whose charge the client may take back, by t members' signatures that it is dead.

    A member signs that only before it has signed an include set, and never does so afterwards: at most m - t + f < t members sign a set, so none is opened,
    also where t - 1 members pool what they hold.

    Args:
      client: who.
      terms_blob: of the round.
      dead: a quorum of the members' `dead`.

    Raises:
      RoundRefused: not this client's round, or fewer than t members signed.
    """
    terms = decode_terms(terms_blob)
    check_terms(terms, client.pinned)
    digest = terms_hash(terms)
    if client.store.get(terms.run, terms.round, "terms") != digest:
        raise BadTerms("This client took no part in a round with these terms.")
    found = messages.decode_quorum(dead)
    if found.body != u64(terms.round):
        raise BadTerms("The members signed that another round is dead.")
    check_quorum(found, "dead", digest, client.pinned.members, client.pinned.threshold)
    return terms


def read_manifest(body: bytes, params: RoundParameters) -> Manifest:
    """The hashes in a contribution's signed body.

    Raises:
      Malformed: another length.
    """
    reader = Reader(body)
    found = Manifest(
        reader.take(32),
        reader.take(32),
        tuple(reader.take(32) for _ in range(params.members)),
        tuple(reader.take(32) for _ in range(params.corrections)),
    )
    reader.done()
    return found


def read_contribution(message: Message, params: RoundParameters) -> Contribution:
    """A contribution in parts, each as the manifest names it.

    Raises:
      Malformed, BadBox: a part that is missing, of another size, or not the one that was signed.
    """
    manifest = read_manifest(message.body, params)
    reader = Reader(message.attached)
    row_bytes = reader.prefixed()
    boxes = tuple(reader.prefixed() for _ in range(params.members))
    corrections = tuple(reader.prefixed() for _ in range(params.corrections))
    reader.done()
    # sizes first: with one part made longer at the cost of the others, a member's list would be too large for it
    if len(row_bytes) != params.rows_bytes or any(len(part) != params.polynomial_bytes for part in corrections):
        raise Malformed("Rows or a correction of another size than the terms imply.")
    if any(len(box) not in (0, keys.BOX_BYTES) for box in boxes):
        raise BadBox(f"A box has {keys.BOX_BYTES} bytes, or none for a member that is away.")
    named = (manifest.rows, *manifest.boxes, *manifest.corrections)
    for part, digest in zip((row_bytes, *boxes, *corrections), named, strict=True):
        if hashlib.sha256(part).digest() != digest:
            raise Malformed("A part of a contribution is not the one that its manifest names.")
    return Contribution(message, manifest, row_bytes, boxes, corrections)
