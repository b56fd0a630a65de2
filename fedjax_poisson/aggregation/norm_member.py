"""What a member does in norm rounds beyond light ones: it holds the list of all noise, and answers for proofs that were made for its own seed."""

from __future__ import annotations

import functools

import numpy as np

from fedjax_poisson.aggregation import bodies, messages, proof, prover, screening, sketch
from fedjax_poisson.aggregation.bodies import Entries
from fedjax_poisson.aggregation.judging import NO_PROOF, Shown
from fedjax_poisson.aggregation.member_state import Held, Member, State, under_way
from fedjax_poisson.aggregation.messages import Message
from fedjax_poisson.aggregation.parameters import HINTS, RoundParameters
from fedjax_poisson.aggregation.refusals import DuplicateClient, Oversize, RoundRefused, WrongTerms
from fedjax_poisson.aggregation.terms import Terms
from fedjax_poisson.aggregation.wire import Reader, prefixed, u32

__all__ = ["check_certificates", "check_noise_entries", "handed_proofs", "noise_entries", "scalars"]


def noise_entries(listed: bytes, terms: Terms, digest: bytes) -> Entries:
    """The signed contributions of all noise senders, as entries of a set.

    Raises:
      RoundRefused: one is missing, stands twice, or is not signed for these terms by a noise sender.
    """
    found: dict[bytes, bytes] = {}
    for blob in bodies.read_many(listed, len(terms.noise)):
        message = messages.decode(blob, terms, digest, lambda label: terms.noise, ["noise"])
        if message.sender in found:
            raise DuplicateClient("A noise sender stands twice in a list.")
        found[message.sender] = messages.manifest_hash(message)
    entries = tuple(sorted(found.items()))
    bodies.check_noise(entries, terms)
    return entries


def check_noise_entries(entries: Entries, terms: Terms, certified: bytes) -> None:
    """Refuse a set whose noise is not that of the list that this member certified.

    Raises:
      WrongTerms: it is other noise.
    """
    noise = tuple(entry for entry in entries if entry[0] in terms.noise)
    if bodies.commit_hash(noise) != certified[32:64]:
        raise WrongTerms("The set has other noise than the list that was certified before clients spoke.")


def check_certificates(name: bytes, clients: Entries, state: State) -> None:
    """Refuse a set whose clients were not all shown the certificate of this name: else the server could choose signs for each of them.

    Raises:
      WrongTerms: a client's contribution names another.
    """
    if any(state.shares[key].certificate != name for key, _ in clients):
        raise WrongTerms("A client of the set was shown another certificate.")


def handed_proofs(handed: list[prover.HandedProof]) -> bytes:
    """What a member gets of all proofs."""
    return u32(len(handed)) + b"".join(prefixed(part) for one in handed for part in one)


def _read_proofs(body: bytes, state: State, member: Member, seed: bytes) -> dict[bytes, tuple[Message, bytes]]:
    """Client key to the signed proof and this member's correction; a proof for another seed is left out."""
    terms, _ = under_way(state)
    reader = Reader(body)
    count = reader.u32()
    if count > terms.senders:
        raise Oversize(f"{count} proofs; the terms have {terms.senders} clients.")
    found: dict[bytes, tuple[Message, bytes]] = {}
    for _ in range(count):
        signed, correction = reader.prefixed(), reader.prefixed()
        message = messages.decode(signed, terms, state.digest, lambda label: member.roster, ["proof"])
        if message.sender in found:
            raise DuplicateClient("A client gave two proofs.")
        if message.body[:32] == seed:
            found[message.sender] = (message, correction)
    reader.done()
    return found


@functools.lru_cache(maxsize=1)
def _secret_weights(params: RoundParameters, seed: bytes, digest: bytes) -> np.ndarray:
    """Public, and the same for all members: where they are in one process it is made once a round."""
    return np.asarray(sketch.secret_weights(params, sketch.sketch_of(params, seed), digest))


def scalars(member: Member, state: State, seed: bytes, handed: bytes) -> Shown:
    """A member's scalars of all of D: functionals of every secret, and what is opened of the proofs that were made for this seed."""
    _, params = under_way(state)
    assert state.committed is not None and params.proof is not None
    proofs = _read_proofs(handed, state, member, seed)
    drawn = screening.functionals(params, seed)
    weights = _secret_weights(params, seed, state.digest)
    uniform = np.concatenate([drawn.uniform, weights])
    shares = [state.shares[key].share.value for key, _ in state.committed]
    every = screening.projected(params, drawn.signs, uniform, shares)
    out = np.zeros((len(state.committed), params.scalars, params.ring.limbs), np.uint32)
    names = []
    for place, (key, _) in enumerate(state.committed):
        held = state.shares[key]
        projected = every[place]
        out[place, :HINTS] = projected[:HINTS]
        name = NO_PROOF
        if key in proofs:
            message, correction = proofs[key]
            try:
                out[place, HINTS:] = _of_proof(params, member, seed, held, message, correction, projected[HINTS:])
                name = prover.proof_name(message)
            except RoundRefused:  # not as its client signed it: as if there were none
                out[place, HINTS:] = 0
        names.append(name)
    return Shown(out, tuple(names))


def _of_proof(
    params: RoundParameters,
    member: Member,
    seed: bytes,
    held: Held,
    message: Message,
    correction: bytes,
    projected: np.ndarray,
) -> np.ndarray:
    """This member's shares of what is opened of one proof: uint32 `[opened, L]`."""
    share = prover.proof_share(params, member.number, message, correction, held.kappa.value)
    challenge = proof.challenge_of(params, seed, message.sender, prover.proof_name(message))
    return proof.member_scalars(params, challenge, share, projected)
