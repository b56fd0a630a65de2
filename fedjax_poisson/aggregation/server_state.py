"""What the server knows of a round, and what it checks of the words of members and clients before it takes them in."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from fedjax_poisson.aggregation import bodies, contribution, keys, messages, prover, signs
from fedjax_poisson.aggregation.bodies import Entries, Include
from fedjax_poisson.aggregation.contribution import Contribution
from fedjax_poisson.aggregation.growing_table import GrowingTable, with_entry
from fedjax_poisson.aggregation.messages import Message
from fedjax_poisson.aggregation.opening import Expected, OpenedSum
from fedjax_poisson.aggregation.parameters import RoundParameters
from fedjax_poisson.aggregation.refusals import BadTerms, DuplicateClient, OutOfOrder, WrongTerms
from fedjax_poisson.aggregation.round_keys import check_round_keys, round_key_of
from fedjax_poisson.aggregation.spool import Spool, memory_spool
from fedjax_poisson.aggregation.terms import Terms
from fedjax_poisson.aggregation.wire import Reader, read_residues, residues_by_prime, u64

__all__ = [
    "CHECKS",
    "State",
    "Taken",
    "add_rows",
    "certificate_of",
    "commit_of",
    "expected_of",
    "included_clients",
    "noise_of",
    "sum_of_rows",
    "take_contribution",
    "take_proof",
]


class Taken(NamedTuple):
    """A contribution that was taken in, checked: its signed manifest, and what was attached to it, which the state's spool keeps.

    Attributes:
      message: without what was attached.
      digest: its name.
      params: of the round.
      attached: gives the bytes that were attached.
    """

    message: Message
    digest: bytes
    params: RoundParameters
    attached: Callable[[], bytes]

    @property
    def rows(self) -> np.ndarray:
        """uint32 `[R, L, N]`."""
        ring = self.params.ring
        return read_residues(Reader(self.attached()).prefixed(), (self.params.rows,), ring.degree, ring.moduli)

    def handed(self, number: int) -> tuple[bytes, bytes]:
        """What member `number` gets: its box, and its correction, empty below t."""
        reader, place = Reader(self.attached()), number - self.params.threshold
        reader.prefixed()
        boxes = [reader.prefixed() for _ in range(self.params.members)]
        corrections = [reader.prefixed() for _ in range(self.params.corrections)]
        return boxes[number - 1], corrections[place] if place >= 0 else b""


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """One round.

    Attributes:
      draft: the terms, without round keys until they are there.
      roster: the enrolled clients' keys.
      phase: what is waited for.
      digest: hash of the terms.
      params: their parameters.
      heard: phase to member number to message, of what members said.
      clients: client key to contribution; in norm rounds those of noise senders too.
      proofs: client key to its proof.
      spool: keeps what is attached to contributions.
      deciding: the members that go on.
      committed: D.
      seed: of the functionals.
      included: the include body.
      certificate: the bytes that clients and readers check the terms by.
      opened: the result.
    """

    draft: Terms
    roster: frozenset[bytes]
    phase: str = "round-key"
    digest: bytes = b""
    params: RoundParameters | None = None
    heard: Mapping[str, Mapping[int, Message]] = dataclasses.field(default_factory=dict)
    clients: Mapping[bytes, Taken] = dataclasses.field(default_factory=GrowingTable)
    proofs: Mapping[bytes, prover.Proof] = dataclasses.field(default_factory=GrowingTable)
    spool: Spool = dataclasses.field(default_factory=memory_spool)
    deciding: tuple[int, ...] = ()
    committed: Entries = ()
    seed: bytes = b""
    included: bytes = b""
    certificate: bytes = b""
    opened: OpenedSum | None = None


def _check_round_key(state: State, message: Message, number: int) -> None:
    _, key = round_key_of(messages.encode(message), state.draft.members)
    if (key.run, key.round) != (state.draft.run, state.draft.round):
        raise WrongTerms(f"A round key for round {key.round}, not {state.draft.round}.")
    keys.seal_box(key.box_key, bytes(32), b"")  # a key that no client can use would cost all of them the round


def _check_certify(state: State, message: Message, number: int) -> None:
    key = check_round_keys(state.draft)[number - 1]
    signs.check_certify(message, state.draft, state.digest, None if key is None else key.sign_commitment)
    if state.draft.norm is not None and message.body[32:64] != bodies.commit_hash(noise_of(state)):
        raise WrongTerms("A certificate for another list of noise.")


def _check_held(state: State, message: Message, number: int) -> None:
    bodies.read_key_list(message.body, state.draft.parties)


def _check_commit(state: State, message: Message, number: int) -> None:
    if message.body != commit_of(state):
        raise WrongTerms("Another set of clients than the one that was proposed.")


def _check_projections(state: State, message: Message, number: int) -> None:
    assert state.params is not None
    bodies.read_scalars(
        [messages.encode(message)], state.draft, state.digest, state.params, state.seed, state.committed
    )


def _check_include(state: State, message: Message, number: int) -> None:
    if message.body != state.included:
        raise WrongTerms("Another set than the one that was proposed.")


def _check_answer(state: State, message: Message, number: int) -> None:
    assert state.params is not None
    if message.body[:32] != hashlib.sha256(state.included).digest():
        raise WrongTerms("An answer for another set.")
    ring = state.params.ring
    read_residues(message.body[32:], (), ring.degree, ring.moduli)


def _check_dead(state: State, message: Message, number: int) -> None:
    if message.body != u64(state.draft.round):
        raise WrongTerms("Another round.")


CHECKS: dict[str, Callable[[State, Message, int], None]] = {
    "round-key": _check_round_key,
    "certify": _check_certify,
    "held": _check_held,
    "commit": _check_commit,
    "projections": _check_projections,
    "include": _check_include,
    "answer": _check_answer,
    "dead": _check_dead,
}


def take_contribution(state: State, blob: bytes) -> State:
    """Take in a client's contribution, or a noise sender's in the phase of that name; the first one that it signed counts.

    Raises:
      RoundRefused: by its name; the state stays as it was.
    """
    params, noise = state.params, state.phase == "noise"
    assert params is not None
    senders = state.draft.noise if noise else state.roster
    message = messages.decode(blob, state.draft, state.digest, lambda label: senders, [state.phase])
    digest = messages.manifest_hash(message)
    if message.sender in state.clients:
        if state.clients[message.sender].digest == digest:
            return state
        raise DuplicateClient("A client's second contribution: the first one counts.")
    most = len(state.draft.noise) if noise else state.draft.parties
    if len(state.clients) == most:  # one more, and every member would refuse the list of them
        raise OutOfOrder(f"{state.draft.senders} clients have sent, as many as the terms have room for.")
    found: Contribution = contribution.read_contribution(message, params)
    if found.manifest.certificate != (bytes(32) if noise else certificate_of(state).name):
        raise WrongTerms("The client was shown another certificate.")
    ring = params.ring
    for _ in residues_by_prime(found.rows, params.rows * ring.degree, ring.moduli):
        pass  # each is checked
    taken = Taken(message._replace(attached=b""), digest, params, state.spool(message.attached))
    return dataclasses.replace(state, clients=with_entry(state.clients, message.sender, taken))


def take_proof(state: State, blob: bytes) -> State:
    """Take in a client's proof for the round's seed; the first one that it signed counts.

    Raises:
      RoundRefused: by its name; the state stays as it was.
    """
    assert state.params is not None
    message = messages.decode(blob, state.draft, state.digest, lambda label: state.roster, ["proof"])
    found = prover.read_proof(message, state.params)
    for part in found.corrections:  # one that cannot be read would cost its member its place among those that decide
        prover.read_correction(state.params, part)
    if found.seed != state.seed:
        raise WrongTerms("A proof for another seed.")
    if message.sender not in {key for key, _ in state.committed}:
        raise OutOfOrder("A proof of a client that is not in the committed set.")
    if message.sender in state.proofs:
        if state.proofs[message.sender].message.body == message.body:
            return state
        raise DuplicateClient("A client's second proof: the first one counts.")
    return dataclasses.replace(state, proofs=with_entry(state.proofs, message.sender, found))


def certificate_of(state: State) -> signs.Certificate:
    """What t members certified, from the bytes that clients were shown."""
    return _certificate(state.certificate, state.draft, state.digest)


@functools.lru_cache(maxsize=8)
def _certificate(blob: bytes, terms: Terms, digest: bytes) -> signs.Certificate:
    return signs.read_certificate(blob, terms, digest, check_round_keys(terms))


def commit_of(state: State) -> bytes:
    """What members sign of D."""
    return bodies.commit_body(state.committed, b"" if state.draft.norm is None else certificate_of(state).name)


def noise_of(state: State) -> Entries:
    """The contributions of noise senders, as entries of a set."""
    return tuple(sorted((key, one.digest) for key, one in state.clients.items() if key in state.draft.noise))


def sum_of_rows(state: State, include: Include) -> np.ndarray:
    """uint32 `[R, L, N]`: the rows of U, added."""
    params = state.params
    if params is None:
        raise BadTerms("The round has no terms yet.")
    total = np.zeros((params.rows, params.ring.limbs, params.ring.degree), np.uint32)
    for key, _ in include.clients:
        add_rows(total, Reader(state.clients[key].attached()).prefixed(), params)
    return total


def add_rows(total: np.ndarray, rows: bytes, params: RoundParameters) -> None:
    """Add a client's rows to a sum uint32 `[R, L, N]`, in place and one prime at a time.

    Raises:
      Malformed, ResidueRange: they are no rows.
    """
    for limb, values in enumerate(residues_by_prime(rows, params.rows * params.ring.degree, params.ring.moduli)):
        own = total[:, limb]
        own += values.reshape(own.shape)  # below 2 q < 2^32
        np.minimum(own, own - np.uint32(params.ring.moduli[limb]), out=own)  # below q it wraps around, and is larger


def included_clients(state: State) -> Entries:
    """The clients of U, once it was proposed."""
    return bodies.check_noise(bodies.read_include(state.included, state.draft).clients, state.draft)


def expected_of(terms: Terms, clients: int) -> Expected:
    """What the sum of so many clients keeps to under these terms."""
    rms = terms.count_rms / 1000 if terms.count_rms else None
    return Expected(clients, terms.corrupt, terms.count_bound, rms, terms.malicious)
