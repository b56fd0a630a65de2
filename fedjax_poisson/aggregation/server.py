"""The server of a round: it relays and adds, holds no secret, and is trusted for going on only.

`receive(state, blob)` takes one message, `advance(state)` ends a phase with what has come in (all of it, or the time is up) and says what is sent next.
Nothing is believed of a message that its signature does not carry; a bad one is refused by its name and the round goes on without it. Clients whose boxes
or corrections some members refuse, and whose scalars disagree, are weighed so that the most clients stay, with t + f members or more where there are as many.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from fedjax_poisson.aggregation import bodies, client, messages, opening, screening
from fedjax_poisson.aggregation.bodies import Handed, Include
from fedjax_poisson.aggregation.messages import NO_TERMS, Message, Notice, Quorum
from fedjax_poisson.aggregation.refusals import (
    AlreadyDone,
    NoQuorum,
    OutOfOrder,
    TinySet,
)
from fedjax_poisson.aggregation.server_state import (
    CHECKS,
    State,
    Taken,
    expected_of,
    sum_of_rows,
    take_contribution,
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
    if state.phase == "contribution":
        return len(state.clients) == state.draft.senders
    expected = state.deciding or tuple(range(1, len(state.draft.members) + 1))
    return set(expected) <= set(state.heard.get(state.phase, {}))


def receive(state: State, blob: bytes) -> State:
    """Take in one message of the phase.

    Raises:
      RoundRefused: by its name; the state stays as it was.
    """
    if state.phase in ("opened", "over"):
        raise OutOfOrder("The round is over.")
    if state.phase == "contribution":
        return take_contribution(state, blob)
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
        phase="certify",
        deciding=tuple(sorted(said)),
    )
    blob = encode_terms(terms)
    return after, [_notice(k, "terms", blob) for k in after.deciding]


def _after_certify(state: State) -> tuple[State, list[Outgoing]]:
    said = _said(state)
    _need(state, len(said))
    certificate = messages.encode_quorum(messages.quorum_of(said.values(), state.digest))
    after = dataclasses.replace(state, certificate=certificate, phase="contribution", deciding=tuple(sorted(said)))
    invite = prefixed(encode_terms(state.draft)) + prefixed(certificate)
    return after, [_notice(0, "invite", invite)]


def _after_contributions(state: State) -> tuple[State, list[Outgoing]]:
    if len(state.clients) < state.draft.minimum:
        raise TinySet(
            f"{len(state.clients)} clients sent, at least {state.draft.minimum} were announced. Nothing was opened and nothing was charged."
        )
    after = dataclasses.replace(state, phase="held")
    return after, [_notice(k, "shares", handed_to(state, k, state.clients)) for k in state.deciding]


def handed_to(state: State, number: int, which: Mapping[bytes, Taken] | set[bytes]) -> bytes:
    """What a member gets of the contributions of some clients."""
    handed = [
        Handed(messages.encode(one.message), *one.handed(number))
        for one in (state.clients[key] for key in sorted(which))
    ]
    return bodies.handed_body(handed)


def _least(state: State, available: int) -> int:
    """Members that must decide: t + f where there are as many, else all that there are."""
    return min(available, state.draft.threshold + state.draft.malicious)


def _after_held(state: State) -> tuple[State, list[Outgoing]]:
    refused = {k: set(bodies.read_key_list(message.body, state.draft.senders)) for k, message in _said(state).items()}
    _need(state, len(refused))

    def stay(members: tuple[int, ...]) -> set[bytes]:
        return set(state.clients) - set().union(*(refused[k] for k in members))

    deciding = screening.best_members(sorted(refused), _least(state, len(refused)), lambda m: len(stay(m)))
    if len(stay(deciding)) < state.draft.minimum:  # as if the members that refuse were away
        deciding = screening.best_members(sorted(refused), state.draft.threshold, lambda m: len(stay(m)))
    kept = stay(deciding)
    if len(kept) < state.draft.minimum:
        raise TinySet(
            f"Members hold the shares of {len(kept)} clients, at least {state.draft.minimum} were announced. Nothing was opened."
        )
    entries = tuple(sorted((key, state.clients[key].digest) for key in kept))
    after = dataclasses.replace(state, committed=entries, deciding=deciding, phase="commit")
    body = bodies.commit_body(entries)
    return after, [_notice(k, "propose", body) for k in deciding]


def _quorum(state: State, body: bytes) -> Quorum:
    return messages.quorum_of(_said(state).values(), body)


def _after_commit(state: State) -> tuple[State, list[Outgoing]]:
    said = _said(state)
    _need(state, len(said))
    after = dataclasses.replace(state, deciding=tuple(sorted(said)), phase="beacon-open")
    body = messages.encode_quorum(_quorum(state, bodies.commit_body(state.committed)))
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
    seed = bodies.seed_of(state.draft, client.check_round_keys(state.draft), state.committed, parts)
    agreed = tuple(sorted(k for k, message in said.items() if message.body == seed))
    _need(state, len(agreed))
    after = dataclasses.replace(state, seed=seed, deciding=agreed, phase="projections")
    body = messages.encode_quorum(_quorum(state, seed))
    return after, [_notice(k, "seeded", body) for k in agreed]


def _after_projections(state: State) -> tuple[State, list[Outgoing]]:
    params, said = state.params, _said(state)
    assert params is not None
    _need(state, len(said))
    shown = bodies.read_scalars(
        (messages.encode(message) for message in said.values()),
        state.draft,
        state.digest,
        params,
        state.seed,
        state.committed,
    )
    signs = screening.functionals(params, state.seed).signs

    def verdicts(members: tuple[int, ...]) -> np.ndarray:
        return screening.verdicts(params, state.digest, members, np.stack([shown[k] for k in members]), signs)

    def passing(members: tuple[int, ...]) -> int:
        return int((verdicts(members) == 0).sum())

    numbers = tuple(sorted(shown))
    members, least = numbers, state.draft.threshold + state.draft.malicious
    reasons = verdicts(numbers)
    if (reasons == 1).any() and len(numbers) > least:
        members = screening.best_members(numbers, least, passing)
        reasons = verdicts(members)
    if (reasons == 0).sum() < state.draft.minimum:  # as if those that disagree were away: only the others' go out
        members = screening.best_members(numbers, state.draft.threshold, passing)
        reasons = verdicts(members)
        said = {k: said[k] for k in members}
    clients = tuple(entry for entry, reason in zip(state.committed, reasons, strict=True) if not reason)
    if len(clients) < state.draft.minimum:
        raise TinySet(
            f"{len(clients)} clients passed screening, at least {state.draft.minimum} were announced. Nothing was opened."
        )
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
    return dataclasses.replace(state, opened=found, phase="opened"), []


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
    "certify": _after_certify,
    "contribution": _after_contributions,
    "held": _after_held,
    "commit": _after_commit,
    "beacon-open": _after_beacons,
    "seed": _after_seeds,
    "projections": _after_projections,
    "include": _after_include,
    "answer": _after_answers,
    "opened": _over,
    "dead": _after_dead,
    "over": _over,
}

PHASES = tuple(_ADVANCE)
"""What the server waits for, in order; the last two only where a round is given up."""
