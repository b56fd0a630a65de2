"""The server of a round: it relays and adds, holds no secret, and is trusted for going on only.

`receive(state, blob)` takes one message, `advance(state)` ends a phase with what has come in (all of it, or the time is up) and says what is sent next.
Nothing is believed of a message that its signature does not carry; a bad one is refused by its name and the round goes on without it. Clients whose boxes
or corrections some members refuse, and whose scalars disagree, are weighed so that the most clients stay, with t + f members or more where there are as many.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

from fedjax_poisson.aggregation import bodies, deciding, messages, opening, signs
from fedjax_poisson.aggregation.bodies import Handed, Include
from fedjax_poisson.aggregation.messages import NO_TERMS, Message, Notice, Quorum
from fedjax_poisson.aggregation.norm_member import handed_proofs
from fedjax_poisson.aggregation.prover import HandedProof
from fedjax_poisson.aggregation.refusals import (
    AlreadyDone,
    MissingNoise,
    NoQuorum,
    OutOfOrder,
    TinySet,
)
from fedjax_poisson.aggregation.round_keys import check_round_keys
from fedjax_poisson.aggregation.server_state import (
    CHECKS,
    State,
    Taken,
    certificate_of,
    commit_of,
    expected_of,
    noise_of,
    sum_of_rows,
    take_contribution,
    take_proof,
)
from fedjax_poisson.aggregation.spool import Spool, memory_spool
from fedjax_poisson.aggregation.terms import Terms, encode_terms, parameters_of, terms_hash
from fedjax_poisson.aggregation.wire import prefixed, read_residues, u64

__all__ = ["PHASES", "Outgoing", "State", "Taken", "abandon", "advance", "complete", "receive", "start"]


class Outgoing(NamedTuple):
    """What is to be sent: to a member's number, or 0 for every client."""

    to: int
    blob: bytes


def start(draft: Terms, roster: frozenset[bytes], spool: Spool | None = None) -> tuple[State, list[Outgoing]]:
    """Ask the members for their round keys; `draft.round_keys` is filled in from their answers. None for the spool keeps what clients send in memory."""
    body = draft.run + u64(draft.round)
    state = State(draft=draft, roster=roster, spool=spool or memory_spool())
    return state, [_notice(k, "begin", body) for k in range(1, len(draft.members) + 1)]


def _notice(to: int, label: str, body: bytes) -> Outgoing:
    return Outgoing(to, messages.encode_notice(Notice(label, body)))


def complete(state: State) -> bool:
    """Whether everybody that the phase waits for has spoken."""
    if state.phase == "noise":
        return len(state.clients) == len(state.draft.noise)
    if state.phase == "contribution":
        return len(state.clients) == state.draft.parties
    if state.phase == "proof":
        return len(state.proofs) == len(state.committed) - len(state.draft.noise)
    expected = state.deciding or tuple(range(1, len(state.draft.members) + 1))
    return set(expected) <= set(state.heard.get(state.phase, {}))


def receive(state: State, blob: bytes) -> State:
    """Take in one message of the phase.

    Raises:
      RoundRefused: by its name; the state stays as it was.
    """
    if state.phase in ("opened", "over"):
        raise OutOfOrder("The round is over.")
    if state.phase in ("noise", "contribution"):
        return take_contribution(state, blob)
    if state.phase == "proof":
        return take_proof(state, blob)
    terms = None if state.phase == "round-key" else state.draft
    digest = NO_TERMS if terms is None else state.digest
    message = messages.decode(blob, terms, digest, lambda label: state.draft.members, [state.phase])
    number = state.draft.members.index(message.sender) + 1
    heard = state.heard.get(state.phase, {})
    if number in heard:
        if heard[number].body == message.body:
            return state
        raise AlreadyDone(
            f'Member {number} said "{state.phase}" twice, and differently: both are signed, which proves its fault.'
        )
    if state.phase in CHECKS:
        CHECKS[state.phase](state, message, number)
    return dataclasses.replace(state, heard={**state.heard, state.phase: {**heard, number: message}})


def advance(state: State) -> tuple[State, list[Outgoing]]:
    """End the phase with what has come in.

    Raises:
      RoundRefused: too little has; the round is over, unopened.
    """
    return _ADVANCE[state.phase](state)


def _said(state: State) -> Mapping[int, Message]:
    return state.heard.get(state.phase, {})


def _need(state: State, found: int) -> None:
    if found < state.draft.threshold:
        raise NoQuorum(
            f'{found} of {len(state.draft.members)} members said "{state.phase}", {state.draft.threshold} are needed. Nothing was opened.'
        )


def _after_round_keys(state: State) -> tuple[State, list[Outgoing]]:
    said = _said(state)
    _need(state, len(said))
    numbers = range(1, len(state.draft.members) + 1)
    blobs = tuple(messages.encode(said[k]) if k in said else b"" for k in numbers)
    terms = dataclasses.replace(state.draft, round_keys=blobs)
    after = dataclasses.replace(
        state,
        draft=terms,
        digest=terms_hash(terms),
        params=parameters_of(terms),
        phase="certify" if terms.norm is None else "noise",
        deciding=tuple(sorted(said)),
    )
    blob = encode_terms(terms)
    if terms.norm is not None:
        return after, [_notice(0, "send noise", blob)]
    return after, [_notice(k, "terms", blob) for k in after.deciding]


def _after_noise(state: State) -> tuple[State, list[Outgoing]]:
    if len(state.clients) < len(state.draft.noise):
        raise MissingNoise(
            f"{len(state.clients)} of {len(state.draft.noise)} noise senders sent: all of them are in a sum, or there is none. Nothing was opened."
        )
    listed = bodies.many(messages.encode(state.clients[key].message) for key, _ in noise_of(state))
    body = prefixed(encode_terms(state.draft)) + listed
    return dataclasses.replace(state, phase="certify"), [_notice(k, "terms and noise", body) for k in state.deciding]


def _after_certify(state: State) -> tuple[State, list[Outgoing]]:
    said = _said(state)
    _need(state, len(said))
    certificate = signs.certificate_of(state.draft, state.digest, said.values())
    after = dataclasses.replace(state, certificate=certificate, phase="contribution", deciding=tuple(sorted(said)))
    invite = prefixed(encode_terms(state.draft)) + prefixed(certificate)
    return after, [_notice(0, "invite", invite)]


def _after_contributions(state: State) -> tuple[State, list[Outgoing]]:
    sent = len(state.clients) - len(state.draft.noise)
    if sent < state.draft.minimum:
        raise TinySet(f"{sent} clients sent, at least {state.draft.minimum} were announced. Nothing was opened.")
    after = dataclasses.replace(state, phase="held")
    return after, [_notice(k, "shares", handed_to(state, k, state.clients)) for k in state.deciding]


def handed_to(state: State, number: int, which: Mapping[bytes, Taken] | set[bytes]) -> bytes:
    """What a member gets of the contributions of some clients."""
    handed = [
        Handed(messages.encode(one.message), *one.handed(number))
        for one in (state.clients[key] for key in sorted(which))
    ]
    return bodies.handed_body(handed)


def _after_held(state: State) -> tuple[State, list[Outgoing]]:
    refused = {k: set(bodies.read_key_list(message.body, state.draft.parties)) for k, message in _said(state).items()}
    _need(state, len(refused))
    members, kept = deciding.holders(state, refused)
    entries = tuple(sorted((key, state.clients[key].digest) for key in kept))
    after = dataclasses.replace(state, committed=entries, deciding=members, phase="commit")
    return after, [_notice(k, "propose", commit_of(after)) for k in members]


def _quorum(state: State, body: bytes) -> Quorum:
    return messages.quorum_of(_said(state).values(), body)


def _after_commit(state: State) -> tuple[State, list[Outgoing]]:
    said = _said(state)
    _need(state, len(said))
    after = dataclasses.replace(state, deciding=tuple(sorted(said)), phase="beacon-open")
    body = messages.encode_quorum(_quorum(state, commit_of(state)))
    return after, [_notice(k, "committed", body) for k in after.deciding]


def _after_beacons(state: State) -> tuple[State, list[Outgoing]]:
    said = _said(state)
    _need(state, len(said))
    after = dataclasses.replace(state, deciding=tuple(sorted(said)), phase="seed")
    body = bodies.many(messages.encode(message) for message in said.values())
    return after, [_notice(k, "beacons", body) for k in after.deciding]


def _after_seeds(state: State) -> tuple[State, list[Outgoing]]:
    said = _said(state)
    parts = {message.sender: message.body for message in state.heard["beacon-open"].values()}
    seed = bodies.seed_of(state.draft, check_round_keys(state.draft), state.committed, parts)
    agreed = tuple(sorted(k for k, message in said.items() if message.body == seed))
    _need(state, len(agreed))
    quorum = messages.encode_quorum(_quorum(state, seed))
    after = dataclasses.replace(state, seed=seed, deciding=agreed, phase="projections")
    if state.draft.norm is None:
        return after, [_notice(k, "seeded", prefixed(quorum)) for k in agreed]
    committed = messages.encode_quorum(messages.quorum_of(state.heard["commit"].values(), commit_of(state)))
    invite = prefixed(encode_terms(state.draft)) + prefixed(committed) + prefixed(quorum)
    return dataclasses.replace(after, phase="proof"), [_notice(0, "prove", invite)]


def _after_proofs(state: State) -> tuple[State, list[Outgoing]]:
    quorum = messages.encode_quorum(messages.quorum_of(state.heard["seed"].values(), state.seed))
    out = []
    for k in state.deciding:
        place = k - state.draft.threshold
        handed = [
            HandedProof(messages.encode(one.message), one.corrections[place] if place >= 0 else b"")
            for _, one in sorted(state.proofs.items())
        ]
        out.append(_notice(k, "seeded", prefixed(quorum) + handed_proofs(handed)))
    return dataclasses.replace(state, phase="projections"), out


def _after_projections(state: State) -> tuple[State, list[Outgoing]]:
    said = _said(state)
    _need(state, len(said))
    members, shown, reasons = deciding.judges(state, [messages.encode(message) for message in said.values()])
    said = {k: said[k] for k in shown}
    clients = tuple(entry for entry, reason in zip(state.committed, reasons, strict=True) if not reason)
    left = tuple((key, int(reason)) for (key, _), reason in zip(state.committed, reasons, strict=True) if reason)
    body = bodies.include_body(Include(clients, members, left))
    after = dataclasses.replace(
        state,
        heard={**state.heard, "projections": said},
        included=body,
        deciding=tuple(sorted(said)),
        phase="include",
    )
    shown_body = prefixed(body) + bodies.many(messages.encode(said[k]) for k in after.deciding)
    return after, [_notice(k, "judged", shown_body) for k in after.deciding]


def _after_include(state: State) -> tuple[State, list[Outgoing]]:
    said = _said(state)
    _need(state, len(said))
    include = bodies.read_include(state.included, state.draft)
    after = dataclasses.replace(state, deciding=include.members, phase="answer")
    body = messages.encode_quorum(_quorum(state, state.included))
    return after, [_notice(k, "included", body) for k in include.members]


def _after_answers(state: State) -> tuple[State, list[Outgoing]]:
    params = state.params
    assert params is not None
    include = bodies.read_include(state.included, state.draft)
    ring = params.ring
    answers = {
        k: read_residues(message.body[32:], (), ring.degree, ring.moduli)
        for k, message in _said(state).items()
        if k in include.members
    }
    found = opening.open_sum(
        params, state.digest, sum_of_rows(state, include), answers, expected_of(state.draft, len(include.clients))
    )
    certificate = certificate_of(state)
    counts = signs.turned(found.counts, state.draft, state.digest, certificate)
    return dataclasses.replace(state, opened=found._replace(counts=counts), phase="opened"), []


def abandon(state: State) -> tuple[State, list[Outgoing]]:
    """Give a round up before its include step: ask the members to sign that it is dead, so that clients may take their charge back.

    Raises:
      OutOfOrder: there are no terms yet, or a set was proposed: from there on the round may have been opened, and stays charged.
    """
    if state.phase in ("round-key", "include", "answer", "opened", "dead", "over"):
        raise OutOfOrder(f'A round in phase "{state.phase}" cannot be given up.')
    members = tuple(sorted(state.heard["round-key"]))
    after = dataclasses.replace(state, phase="dead", deciding=members)
    return after, [_notice(k, "abandon", u64(state.draft.round)) for k in members]


def _after_dead(state: State) -> tuple[State, list[Outgoing]]:
    said = _said(state)
    _need(state, len(said))
    body = prefixed(encode_terms(state.draft))
    body += prefixed(messages.encode_quorum(messages.quorum_of(said.values(), u64(state.draft.round))))
    return dataclasses.replace(state, phase="over"), [_notice(0, "dead", body)]


def _over(state: State) -> tuple[State, list[Outgoing]]:
    raise OutOfOrder("The round is over.")


_ADVANCE: dict[str, Callable[[State], tuple[State, list[Outgoing]]]] = {
    "round-key": _after_round_keys,
    "noise": _after_noise,
    "certify": _after_certify,
    "contribution": _after_contributions,
    "held": _after_held,
    "commit": _after_commit,
    "beacon-open": _after_beacons,
    "seed": _after_seeds,
    "proof": _after_proofs,
    "projections": _after_projections,
    "include": _after_include,
    "answer": _after_answers,
    "opened": _over,
    "dead": _after_dead,
    "over": _over,
}

PHASES = tuple(_ADVANCE)
"""What the server waits for, in order: noise and proofs in norm rounds only, the last two where a round is given up."""
