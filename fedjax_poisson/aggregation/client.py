"""A client of a round: it checks the terms, encrypts once, and speaks once (in norm rounds it proves its norm after that, `prover`).

A contribution is a signed *manifest* (hashes of the rows, of every box and of every correction) followed by these. Before anything is encrypted the client
checks everything that row 2 of the protocol names (`docs/explanation/one_round_one_key.md`); the bytes are in its store before they are returned, and
a second call for the round returns the same bytes. In norm rounds the counts are clean, and turned by public signs (`signs`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fedjax_poisson.aggregation import keys, messages, rows
from fedjax_poisson.aggregation.contribution import contribution_message
from fedjax_poisson.aggregation.messages import check_quorum
from fedjax_poisson.aggregation.refusals import BadTerms, RoundUsed, UnknownSender
from fedjax_poisson.aggregation.round_keys import RoundKey, check_round_keys
from fedjax_poisson.aggregation.signs import Certificate, read_certificate, signs_of
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
from fedjax_poisson.aggregation.wire import u64
from fedjax_poisson.randomness import Stream, bits, fold_in, is_reproducible

__all__ = [
    "Client",
    "accept_terms",
    "contribute",
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


def accept_terms(
    client: Client, terms_blob: bytes, certificate: bytes, model: bytes
) -> tuple[Terms, tuple[RoundKey | None, ...], Certificate]:
    """Every check that precedes encryption; the terms, the members' round keys and what they certified.

    Raises:
      RoundRefused: the first that fails, by its name.
    """
    terms = decode_terms(terms_blob)
    check_terms(terms, client.pinned)
    digest = terms_hash(terms)
    round_keys = check_round_keys(terms)
    shown = read_certificate(certificate, terms, digest, round_keys)
    if terms.run != client.run:
        raise BadTerms("The terms are of another run.")
    if roster_hash(tuple(client.roster)) != client.pinned.roster:
        raise BadTerms("This client's list of clients is not the roster that it has pinned.")
    if keys.public_of(client.key) not in client.roster:
        raise UnknownSender("This client's own key is not on the roster.")
    if terms.model != model:
        raise BadTerms("The terms are for another model than the one that this client trained.")
    return terms, round_keys, shown


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
      certificate: t members' `certify`, as `signs.certificate_of` puts them together.
      counts: int32 `[D]`, each within the count bound; in norm rounds without noise, and within the norm.
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
    terms, round_keys, shown = accept_terms(client, terms_blob, certificate, model)
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
    signs = signs_of(values.size, terms, digest, shown)
    if terms.norm is not None and squared_norm(values) > terms.squared_norm:
        raise ValueError(
            f"The squared norm of the counts is {squared_norm(values)}, beyond squared_norm = {terms.squared_norm}: they would be refused."
        )
    earlier_round = client.store.last(terms.run, "secrets")
    if earlier_round >= 0:
        client.store.erase(terms.run, earlier_round, "secrets")  # what was not proved will not be
    if charge is not None:
        charge(terms)
    client.store.put(terms.run, terms.round, "terms", digest)
    turned = values * signs
    message, kappas = contribution_message(
        client.key, "contribution", digest, params, round_keys, turned, stream, shown.name
    )
    if terms.norm is not None:  # what the proof is made of, until it is
        fresh = rows.hash_words("proof", digest, keys.public_of(client.key), turned.tobytes())
        own = np.asarray(bits(fold_in(stream, *(int(word) for word in fresh)), 8)).astype("<u4").tobytes()
        client.store.put(terms.run, terms.round, "secrets", own + kappas + turned.astype("<i4").tobytes())
    return client.store.put(terms.run, terms.round, "contribution", messages.encode(message))


def squared_norm(values: np.ndarray) -> int:
    """The exact squared norm of int32 counts."""
    squares = values.astype(np.int64) ** 2  # below 2^62 each; their halves add up to less than 2^63
    return (int((squares >> 32).sum()) << 32) + int((squares & 0xFFFFFFFF).sum())


def taken_back(client: Client, terms_blob: bytes, dead: bytes) -> Terms:
    """The terms of a round whose charge the client may take back, by t members' signatures that it is dead.

    A member signs that only before it has signed an include set, and never does so afterwards: at most m - t + f < t members sign a set, so none is opened,
    also where t - 1 members pool what they hold. In a norm round the distance of screening stays charged (`accounting.SCREENING`): members may have judged
    proofs by then, and who passed is known.

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
    client.store.erase(terms.run, terms.round, "secrets")
    return terms
