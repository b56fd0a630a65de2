"""What everybody may see of a round, in one file: the terms, who was in, what members signed, the summed rows and the answers. Anyone checks it again.

Checked: every member's signatures, the quorums under terms, D, seed and U, that U passed screening by the shown scalars, that the answers open the summed rows
to the stated counts. Not checked, since the clients' rows are not in it: that the summed rows are the sum of the rows whose hashes the manifests name.
A transcript shows sums of secrets and errors and functionals of each client's secret (and, in norm rounds, errors), all independent of the counts, and who
was in the round. In norm rounds it shows that each client of U proved the norm of a vector, and not, without its rows, that the vector is that of its rows.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from fedjax_poisson.aggregation import bodies, judging, messages, opening, signs
from fedjax_poisson.aggregation.messages import Message
from fedjax_poisson.aggregation.refusals import BadTerms, NoQuorum, WrongTerms
from fedjax_poisson.aggregation.round_keys import check_round_keys
from fedjax_poisson.aggregation.server_state import State, expected_of, sum_of_rows
from fedjax_poisson.aggregation.terms import (
    Pinned,
    Terms,
    check_terms,
    decode_terms,
    encode_terms,
    parameters_of,
    terms_hash,
)
from fedjax_poisson.aggregation.wire import Reader, read_residues, residue_bytes, u32

__all__ = ["Checked", "check_transcript", "summed_rows", "terms_of", "write_transcript"]

_MAGIC = b"FJPT\1"
_PHASES = ("commit", "beacon-open", "seed", "projections", "include", "answer")


class Checked(NamedTuple):
    """A transcript that holds.

    Attributes:
      terms: of the round.
      clients: keys of U, without those of noise senders.
      left_out: keys of clients of D that are not in U, and why.
      answered: members whose answers opened the round.
      wrong: members whose answers are proved wrong.
      disputed: members whose answers were not on the polynomial, while too few agree to say who is wrong.
      counts: int32 `[D]`, the opened sum.
    """

    terms: Terms
    clients: tuple[bytes, ...]
    left_out: tuple[tuple[bytes, str], ...]
    answered: tuple[int, ...]
    wrong: tuple[int, ...]
    disputed: tuple[int, ...]
    counts: np.ndarray


def write_transcript(state: State) -> bytes:
    """The transcript of an opened round.

    Raises:
      BadTerms: the round was not opened.
    """
    if state.opened is None or state.params is None:
        raise BadTerms("The round was not opened; there is nothing to check.")
    include = bodies.read_include(state.included, state.draft)
    total = sum_of_rows(state, include)
    parts = [encode_terms(state.draft), state.certificate]
    parts += [bodies.many(messages.encode(m) for m in state.heard[phase].values()) for phase in _PHASES]
    parts += [residue_bytes(total, state.params.ring.moduli), hashlib.sha256(state.opened.counts.data).digest()]
    return b"".join([_MAGIC, *(piece for part in parts for piece in (u32(len(part)), part))])


def terms_of(blob: bytes) -> Terms:
    """The terms that a transcript states; nothing of it is checked."""
    if not blob.startswith(_MAGIC):
        raise BadTerms("This is no transcript of a round.")
    return decode_terms(Reader(blob[len(_MAGIC) :]).prefixed())


def summed_rows(blob: bytes) -> np.ndarray:
    """The summed rows uint32 `[R, L, N]` that a transcript states; nothing of it is checked."""
    reader = Reader(blob[len(_MAGIC) :])
    params = parameters_of(decode_terms(reader.prefixed()))
    for _ in range(1 + len(_PHASES)):  # the certificate comes first
        reader.prefixed()
    return read_residues(reader.prefixed(), (params.rows,), params.ring.degree, params.ring.moduli)


def check_transcript(blob: bytes, pinned: Pinned | None = None) -> Checked:
    """Every public check of a round again, from its transcript alone.

    Args:
      blob: what `write_transcript` gave.
      pinned: the members' keys, t, f, the roster and the clients assumed corrupt, as the reader knows them. None takes those that the terms state, and then
        shows only that the transcript is consistent: anyone can make one with keys of their own.

    Raises:
      RoundRefused: by its name, what does not hold.
    """
    if not blob.startswith(_MAGIC):
        raise BadTerms("This is no transcript of a round.")
    reader = Reader(blob[len(_MAGIC) :])
    terms = decode_terms(reader.prefixed())
    own = Pinned(
        terms.members,
        terms.threshold,
        terms.malicious,
        terms.roster,
        noise=terms.noise,
        honest_noise=terms.honest_noise,
        squared_norm=terms.squared_norm,
    )
    check_terms(terms, pinned or own)
    digest, params = terms_hash(terms), parameters_of(terms)
    round_keys = check_round_keys(terms)
    certificate = signs.read_certificate(reader.prefixed(), terms, digest, round_keys)
    said = {phase: _signed(reader.prefixed(), phase, terms, digest) for phase in _PHASES}
    agreed = _agreed(said["commit"], "commit", terms, digest)
    committed = bodies.read_commit(agreed, terms)
    noise = tuple(entry for entry in committed if entry[0] in terms.noise)
    if terms.norm is not None and bodies.commit_hash(noise) != certificate.noise:
        raise WrongTerms("The committed set has other noise than the one that was certified.")
    if terms.norm is not None and agreed[-32:] != certificate.name:
        raise WrongTerms("The committed clients were shown another certificate, and so other signs.")
    beacons = {message.sender: message.body for message in said["beacon-open"].values()}
    seed = bodies.seed_of(terms, round_keys, committed, beacons)
    if _agreed(said["seed"], "seed", terms, digest) != seed:
        raise WrongTerms("The seed that was signed does not follow from the set and the beacons.")
    blobs = [messages.encode(message) for message in said["projections"].values()]
    shown = bodies.read_scalars(blobs, terms, digest, params, seed, committed)
    body = _agreed(said["include"], "include", terms, digest)
    include = bodies.read_include(body, terms)
    clients = bodies.check_noise(include.clients, terms)
    if not set(include.clients) <= set(committed) or len(clients) < terms.minimum:
        raise NoQuorum("The included set is not part of the committed one, or below the minimum.")
    bodies.check_include(include, shown, terms, digest, params, seed, committed)
    ring = params.ring
    total = read_residues(reader.prefixed(), (params.rows,), ring.degree, ring.moduli)
    answers = {}
    for number, message in said["answer"].items():
        if message.body[:32] != hashlib.sha256(body).digest():
            raise WrongTerms("An answer is for another set.")
        if number in include.members:
            answers[number] = read_residues(message.body[32:], (), ring.degree, ring.moduli)
    stated = reader.prefixed()
    reader.done()
    opened = opening.open_sum(params, digest, total, answers, expected_of(terms, len(include.clients)))
    counts = signs.turned(opened.counts, terms, digest, certificate)
    if hashlib.sha256(counts.data).digest() != stated:
        raise WrongTerms("The answers open to other counts than the stated ones.")
    left = tuple((key, judging.REASONS.get(reason, "unknown")) for key, reason in include.left_out)
    return Checked(
        terms,
        tuple(key for key, _ in clients),
        left,
        tuple(sorted(answers)),
        opened.wrong,
        opened.disputed,
        counts,
    )


def _signed(body: bytes, phase: str, terms: Terms, digest: bytes) -> dict[int, Message]:
    found: dict[int, Message] = {}
    for blob in bodies.read_many(body, len(terms.members)):
        message = messages.decode(blob, terms, digest, lambda label: terms.members, [phase])
        found[terms.members.index(message.sender) + 1] = message
    return found


def _agreed(said: dict[int, Message], label: str, terms: Terms, digest: bytes) -> bytes:
    """The body that t members signed."""
    for message in said.values():
        quorum = messages.quorum_of(said.values(), message.body)
        if len(quorum.signatures) >= terms.threshold:
            messages.check_quorum(quorum, label, digest, terms.members, terms.threshold)
            return message.body
    raise NoQuorum(f'No {terms.threshold} members signed the same "{label}".')
