"""A noise sender of a norm round: it sends noise as a client sends counts, before anybody knows the signs that the counts are turned by.

All noise senders of the terms are in the sum or the round dies: the privacy cost is that of the noise of the honest ones among them, whoever the clients are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedjax_poisson.aggregation import keys, messages
from fedjax_poisson.aggregation.contribution import contribution_message
from fedjax_poisson.aggregation.refusals import BadTerms, RoundUsed, UnknownSender
from fedjax_poisson.aggregation.round_keys import check_round_keys
from fedjax_poisson.aggregation.store import Store
from fedjax_poisson.aggregation.terms import Pinned, check_terms, decode_terms, parameters_of, terms_hash
from fedjax_poisson.randomness import Stream, is_reproducible

__all__ = ["NoiseSender", "contribute_noise"]


class NoiseSender(NamedTuple):
    """One noise sender.

    Attributes:
      key: its Ed25519 key; a member may use its own.
      pinned: what it knows from outside the server's reach, the noise senders among it.
      run: 16 bytes, the run it takes part in.
      store: what it said; not that of a client.
    """

    key: keys.Hidden
    pinned: Pinned
    run: bytes
    store: Store


def contribute_noise(
    sender: NoiseSender, terms_blob: bytes, noise: np.ndarray, stream: Stream, *, reproducible: bool = False
) -> bytes:
    """What a noise sender sends.

    Args:
      sender: who.
      terms_blob: the terms as the server sent them.
      noise: int32 `[D]`, drawn for this round from the sender's own randomness by the exact samplers (`Mechanism.noise`).
      stream: fresh randomness for the encryption.
      reproducible: take a stream that comes from a seed, for simulations.

    Returns:
      The message; the same bytes at every later call for the same terms.

    Raises:
      RoundRefused: the terms are not those that were pinned, or the round, or a later one, was taken part in under other terms.
      ValueError: the noise does not fit the terms, or the stream comes from a seed and `reproducible` is not set.
    """
    if is_reproducible(stream) and not reproducible:
        raise ValueError("The stream comes from a seed: give `stream()`, or reproducible=True to simulate.")
    terms = decode_terms(terms_blob)
    check_terms(terms, sender.pinned)
    if terms.run != sender.run:
        raise BadTerms("The terms are of another run.")
    if keys.public_of(sender.key) not in terms.noise:
        raise UnknownSender("This party is not among the round's noise senders.")
    round_keys = check_round_keys(terms)
    digest = terms_hash(terms)
    earlier = sender.store.get(terms.run, terms.round, "noise")
    if earlier is not None and sender.store.get(terms.run, terms.round, "noise terms") == digest:
        return earlier
    if sender.store.last(terms.run, "noise terms") >= terms.round:
        raise RoundUsed(f"Noise was sent in round {terms.round} or a later one already.")
    values = np.asarray(noise)
    if values.shape != (terms.size,) or values.dtype != np.int32:
        raise ValueError(f"noise is {values.dtype} {values.shape}; the terms are for int32 ({terms.size},).")
    if max(int(values.max()), -int(values.min())) > terms.count_bound:
        raise ValueError(f"A coordinate of the noise is beyond count_bound = {terms.count_bound}.")
    params = parameters_of(terms)
    sender.store.put(terms.run, terms.round, "noise terms", digest)
    message, _ = contribution_message(sender.key, "noise", digest, params, round_keys, values, stream, bytes(32))
    return sender.store.put(terms.run, terms.round, "noise", messages.encode(message))
