"""A member of the committee: it holds shares, agrees on one set of clients, and gives one answer.

`step(state, notice) -> (state, reply)` is a pure state machine apart from its store, which makes what it says durable before it is returned (`store`).
A member keeps, of one round at a time, the shares of the clients' secrets in memory and its box key in the store; both are erased with the answer, with
`dead`, or when later terms are signed. It never says a kappa or a share.

Order, each step once a round (the rows are those of `docs/explanation/one_round_one_key.md`): begin, terms -> certify, shares -> held, propose -> commit,
committed -> beacon-open, beacons -> seed, seeded -> projections, judged -> include, included -> answer; abandon -> dead, before the include step only.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from fedjax_poisson.aggregation import bodies, keys, messages, norm_member, screening, signs
from fedjax_poisson.aggregation.judging import Shown
from fedjax_poisson.aggregation.keys import Hidden
from fedjax_poisson.aggregation.member_shares import opened_boxes
from fedjax_poisson.aggregation.member_state import Member, State, body_of, decide, restore, said_of, say, under_way
from fedjax_poisson.aggregation.messages import Notice, check_quorum
from fedjax_poisson.aggregation.parameters import RoundParameters
from fedjax_poisson.aggregation.refusals import (
    AlreadyDone,
    BadTerms,
    NoQuorum,
    OutOfOrder,
    RoundUsed,
    TinySet,
    WrongTerms,
)
from fedjax_poisson.aggregation.round_keys import check_round_keys
from fedjax_poisson.aggregation.terms import check_terms, decode_terms, parameters_of, roster_hash, terms_hash
from fedjax_poisson.aggregation.wire import Reader, residue_bytes, u64

__all__ = ["LABELS", "Member", "State", "restore", "step"]

LABELS = (
    "begin",
    "terms",
    "terms and noise",
    "shares",
    "propose",
    "committed",
    "beacons",
    "seeded",
    "judged",
    "included",
    "abandon",
)
"""What a member listens to."""


def step(member: Member, state: State, blob: bytes) -> tuple[State, bytes]:
    """One notice of the server to one signed reply.

    Args:
      member: who.
      state: before.
      blob: an encoded `Notice`.

    Returns:
      The state after, and the encoded reply; the same bytes if the step was taken for the same content before.

    Raises:
      RoundRefused: by its name; the state stays as it was.
    """
    notice = messages.decode_notice(blob, _most_bytes(state), LABELS)
    return _STEPS[notice.label](member, state, notice)


def _most_bytes(state: State) -> int:
    if state.params is None or state.terms is None:
        return 1 << 17
    n, m, params = state.terms.parties, state.params.members, state.params
    share = 512 + 64 * m + keys.BOX_BYTES + params.polynomial_bytes + params.proof_bytes
    scalars = m * (256 + 32 * n + params.ring.limbs * (8 + 4 * params.scalars * n))
    return (1 << 17) + n * share + scalars + 200 * n


def _begin(member: Member, state: State, notice: Notice) -> tuple[State, bytes]:
    """A fresh box key and a commitment to the beacon, for a round larger than any before."""
    reader = Reader(notice.body)
    run, number = reader.take(16), reader.u64()
    reader.done()
    if run != member.run:
        raise WrongTerms("Another run.")
    if number >= 1 << 62:  # before the store is asked: databases hold no integers of 64 bits without a sign
        raise RoundUsed(f"Round {number} is beyond 2^62.")
    said = member.store.get(run, number, "round-key")
    last = max(state.round, member.store.last(run, "round-key"))
    if said and number == last:
        return (state if state.round == number else restore(member)), said
    if number <= last:
        raise RoundUsed(f"Round {number} is not larger than the last one.")
    if last >= 0:
        member.store.erase(run, last, "secrets")  # what was not answered will not be
    # a process that ended between the two records goes on with the secrets that it stored: the same bytes
    fresh = keys.new_box_seed().value + bodies.new_beacon().value + signs.new_part().value
    secrets = Hidden(member.store.get(run, number, "secrets") or fresh)
    seed, beacon, part = _parted(secrets.value)
    body = run + u64(number) + keys.box_public(Hidden(seed)) + bodies.commitment(beacon) + signs.commitment(part)
    member.store.put(run, number, "secrets", secrets.value)
    message = messages.encode(messages.make(member.key, "round-key", messages.NO_TERMS, body))
    return State(round=number), member.store.put(run, number, "round-key", message)


def _parted(secrets: bytes) -> tuple[bytes, bytes, bytes]:
    """A member's secrets of a round: the box key's seed, its part of the beacon, its part of the signs."""
    at = len(secrets) - signs.PART_BYTES
    return secrets[: keys.BOX_SEED_BYTES], secrets[keys.BOX_SEED_BYTES : at], secrets[at:]


def _terms(member: Member, state: State, notice: Notice) -> tuple[State, bytes]:
    """Sign the terms of a light round."""
    return _signed_terms(member, state, notice.body, None)


def _terms_and_noise(member: Member, state: State, notice: Notice) -> tuple[State, bytes]:
    """Sign the terms of a norm round and the list of all its noise, and open the member's part of the signs."""
    reader = Reader(notice.body)
    blob, noise = reader.prefixed(), reader.rest()
    return _signed_terms(member, state, blob, noise)


def _signed_terms(member: Member, state: State, blob: bytes, noise: bytes | None) -> tuple[State, bytes]:
    terms = decode_terms(blob)
    if state.terms is not None and terms != state.terms:
        raise AlreadyDone("Other terms were signed for this round; one set of terms a round.")
    if (terms.run, terms.round) != (member.run, state.round):
        raise RoundUsed(f"Terms of round {terms.round}; this member's round is {state.round}.")
    check_terms(terms, member.pinned)
    if roster_hash(tuple(member.roster)) != member.pinned.roster:
        raise BadTerms("This member's list of clients is not the roster that it has pinned.")
    check_round_keys(terms)
    own = member.store.get(member.run, state.round, "round-key")
    if own is None or terms.round_keys[member.number - 1] != own:
        raise BadTerms("The round key in this member's place is not the one that it announced.")
    if (terms.norm is None) != (noise is None):
        raise BadTerms("The terms of a norm round come with its noise, those of a light one alone.")
    if set(terms.noise) & member.roster:
        raise BadTerms("A noise sender's key is also that of a client.")
    digest = terms_hash(terms)
    after = dataclasses.replace(state, terms=terms, digest=digest, params=parameters_of(terms))
    entries = () if noise is None else norm_member.noise_entries(noise, terms, digest)
    secrets = member.store.get(member.run, state.round, "secrets")
    if not secrets:
        raise OutOfOrder("The keys of this round are gone.")
    member.store.put(member.run, state.round, "terms", blob)
    return after, say(member, after, "certify", signs.certify_body(terms, digest, entries, _parted(secrets)[2]))


def _shares(member: Member, state: State, notice: Notice) -> tuple[State, bytes]:
    """Open the boxes. What is not as the client signed it is left out, and said to be; no share and no kappa is ever said."""
    under_way(state)
    if state.committed is not None or said_of(member, state, "commit"):
        return _shares_again(member, state, notice)
    held, refused = opened_boxes(member, state, notice.body)
    after = dataclasses.replace(state, shares={**state.shares, **held})
    body = bodies.key_list(refused)
    return after, messages.encode(messages.make(member.key, "held", state.digest, body))


def _shares_again(member: Member, state: State, notice: Notice) -> tuple[State, bytes]:
    """After a restart the server may send the shares of D once more; only those of D are taken, and nothing else changes."""
    terms, _ = under_way(state)
    said = said_of(member, state, "commit")
    assert said is not None
    entries = dict(bodies.read_commit(body_of(said), terms))
    held, refused = opened_boxes(member, state, notice.body)
    kept = {key: found for key, found in held.items() if entries.get(key) == found.digest}
    after = dataclasses.replace(state, shares={**kept, **state.shares})
    return after, messages.encode(messages.make(member.key, "held", state.digest, bodies.key_list(refused)))


def _propose(member: Member, state: State, notice: Notice) -> tuple[State, bytes]:
    """Sign D, byte for byte as proposed, if all of it is held."""
    terms, _ = under_way(state)
    said = said_of(member, state, "commit")
    if said:
        if body_of(said) != notice.body:
            raise AlreadyDone("Another set of clients was signed for this round.")
        return state, said
    entries = bodies.read_commit(notice.body, terms)
    clients = bodies.check_noise(entries, terms)
    if len(clients) < terms.minimum:
        raise TinySet(f"{len(clients)} clients, the minimum is {terms.minimum}.")
    if terms.norm is not None:
        certified = said_of(member, state, "certify")
        if certified is None:
            raise OutOfOrder("This member has certified no noise.")
        norm_member.check_noise_entries(entries, terms, body_of(certified))
    for key, digest in entries:
        if key not in state.shares or state.shares[key].digest != digest:
            raise OutOfOrder("The set names a client whose share this member does not hold.")
    if terms.norm is not None:
        norm_member.check_certificates(notice.body[-32:], clients, state)
    return state, say(member, state, "commit", notice.body)


def _committed(member: Member, state: State, notice: Notice) -> tuple[State, bytes]:
    """Open the beacon's own part, once t members have signed one D."""
    terms, _ = under_way(state)
    found = messages.decode_quorum(notice.body)
    check_quorum(found, "commit", state.digest, terms.members, terms.threshold)
    entries = bodies.read_commit(found.body, terms)
    own = said_of(member, state, "commit")
    if own is None or body_of(own) != found.body:
        raise NoQuorum("This member did not sign this set; it takes no part in it.")
    if state.committed not in (None, entries):
        raise AlreadyDone("Another set has a quorum: members' signatures under two sets prove a fault.")
    secrets = member.store.get(member.run, state.round, "secrets")
    if not secrets:
        raise OutOfOrder("The keys of this round are gone.")
    after = dataclasses.replace(state, committed=entries)
    return after, say(member, after, "beacon-open", _parted(secrets)[1])


def _beacons(member: Member, state: State, notice: Notice) -> tuple[State, bytes]:
    """Sign the seed that follows from D and from the beacons that were opened."""
    terms, _ = under_way(state)
    if state.committed is None:
        raise OutOfOrder("There is no committed set yet.")
    said = said_of(member, state, "seed")
    if said:
        return state, said
    opened = bodies.read_many(notice.body, len(terms.members))
    parts: dict[bytes, bytes] = {}
    for blob in opened:
        message = messages.decode(blob, terms, state.digest, lambda label: terms.members, ["beacon-open"])
        parts[message.sender] = message.body
    own = said_of(member, state, "beacon-open")
    assert own is not None
    parts[terms.members[member.number - 1]] = body_of(own)
    seed = bodies.seed_of(terms, check_round_keys(terms), state.committed, parts)
    return state, say(member, state, "seed", seed)


def _seeded(member: Member, state: State, notice: Notice) -> tuple[State, bytes]:
    """Project the shares of the clients of D, once t members have signed one seed."""
    terms, params = under_way(state)
    if state.committed is None:
        raise OutOfOrder("There is no committed set yet.")
    said = said_of(member, state, "projections")
    reader = Reader(notice.body)
    found, handed = messages.decode_quorum(reader.prefixed()), reader.rest()
    if said:
        if body_of(said)[:32] != found.body:
            raise AlreadyDone("Projections were given for another seed.")
        return dataclasses.replace(state, seed=found.body), said
    check_quorum(found, "seed", state.digest, terms.members, terms.threshold)
    if len(found.body) != 32:
        raise WrongTerms("A seed has 32 bytes.")
    missing = [key for key, _ in state.committed if key not in state.shares]
    if missing:
        raise OutOfOrder(
            f"{len(missing)} shares of the set are not here (after a restart the server sends them again)."
        )
    if terms.norm is None:
        shown = Shown(_light_scalars(params, found.body, [state.shares[key].share for key, _ in state.committed]))
    else:
        shown = norm_member.scalars(member, state, found.body, handed)
    body = bodies.projections_body(found.body, state.committed, shown, params)
    after = dataclasses.replace(state, seed=found.body)
    return after, say(member, after, "projections", body)


def _light_scalars(params: RoundParameters, seed: bytes, shares: list[Hidden]) -> np.ndarray:
    """The scalars uint32 `[clients, 15, L]` of clients' shares."""
    drawn = screening.functionals(params, seed)
    return screening.projected(params, drawn.signs, drawn.uniform, [share.value for share in shares])


def _judged(member: Member, state: State, notice: Notice) -> tuple[State, bytes]:
    """Sign the set U: every client of it consistent and small by the scalars of the members M, and no smaller than the minimum."""
    terms, params = under_way(state)
    if state.committed is None or state.seed is None:
        raise OutOfOrder("There are no projections yet.")
    said = said_of(member, state, "include")
    reader = Reader(notice.body)
    body = reader.prefixed()
    if said:
        if body_of(said) != body:
            raise AlreadyDone("Another set was included in this round.")
        return state, said
    include = bodies.read_include(body, terms)
    if not set(include.clients) <= set(state.committed):
        raise NoQuorum("The set names a client that is not in the committed set.")
    left = len(bodies.check_noise(include.clients, terms))
    if left < terms.minimum:
        raise TinySet(f"{left} clients are left, the minimum is {terms.minimum}.")
    blobs = bodies.read_many(reader.rest(), len(terms.members))
    shown = bodies.read_scalars(blobs, terms, state.digest, params, state.seed, state.committed)
    bodies.check_include(include, shown, terms, state.digest, params, state.seed, state.committed)
    decide(member, state, "include")
    return state, say(member, state, "include", body)


def _included(member: Member, state: State, notice: Notice) -> tuple[State, bytes]:
    """The one answer: the sum of this member's shares over U. Then everything of the round is erased."""
    said = said_of(member, state, "answer")
    found = messages.decode_quorum(notice.body)
    if said:
        if body_of(said)[:32] != hashlib.sha256(found.body).digest():
            raise AlreadyDone("An answer was given for another set; there is one a round.")
        member.store.erase(member.run, state.round, "secrets")
        return dataclasses.replace(state, shares={}, over=True), said
    terms, params = under_way(state)
    if state.committed is None:
        raise OutOfOrder("There is no committed set yet.")
    check_quorum(found, "include", state.digest, terms.members, terms.threshold)
    include = bodies.read_include(found.body, terms)
    if member.number not in include.members:
        raise NoQuorum("This member is not among those whose scalars were used; it does not answer.")
    clients = bodies.check_noise(include.clients, terms)
    if not set(include.clients) <= set(state.committed) or len(clients) < terms.minimum:
        raise TinySet("The set is not part of the committed one, or below the minimum.")
    if any(key not in state.shares for key, _ in include.clients):
        raise OutOfOrder("Shares of the set are not here (after a restart the server sends them again).")
    total = sum_of_shares([state.shares[key].share.value for key, _ in include.clients], params)
    body = hashlib.sha256(found.body).digest() + residue_bytes(total, params.ring.moduli)
    decide(member, state, "include")
    reply = say(member, state, "answer", body)
    member.store.erase(member.run, state.round, "secrets")
    return dataclasses.replace(state, shares={}, over=True), reply


def sum_of_shares(shares: list[Any], params: RoundParameters) -> np.ndarray:
    """uint32 `[L, N]`: the sum of a member's shares."""
    q = np.asarray(params.ring.moduli, np.uint64)[:, None]
    total = np.zeros((params.ring.limbs, params.ring.degree), np.uint64)
    for share in shares:
        total += np.asarray(share, np.uint64)  # below 2^31 each: 2^32 of them fit
    return (total % q).astype(np.uint32)


def _abandon(member: Member, state: State, notice: Notice) -> tuple[State, bytes]:
    """Sign that the round is dead, and never include anything in it; possible only before the include step."""
    if Reader(notice.body).u64() != state.round or len(notice.body) != 8:
        raise WrongTerms("Another round.")
    said = said_of(member, state, "dead")
    if said:
        member.store.erase(member.run, state.round, "secrets")
        return dataclasses.replace(state, shares={}, over=True), said
    if state.terms is None:
        raise OutOfOrder("There are no terms yet: nobody can have contributed.")
    try:
        decide(member, state, "dead")
    except AlreadyDone:
        raise AlreadyDone(
            "A set was included: from here on the round may have been opened, and stays charged."
        ) from None
    reply = say(member, state, "dead", notice.body)
    member.store.erase(member.run, state.round, "secrets")
    return dataclasses.replace(state, shares={}, over=True), reply


_STEPS: dict[str, Callable[[Member, State, Notice], tuple[State, bytes]]] = {
    "begin": _begin,
    "terms": _terms,
    "terms and noise": _terms_and_noise,
    "shares": _shares,
    "propose": _propose,
    "committed": _committed,
    "beacons": _beacons,
    "seeded": _seeded,
    "judged": _judged,
    "included": _included,
    "abandon": _abandon,
}
