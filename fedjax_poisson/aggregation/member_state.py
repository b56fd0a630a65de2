"""What a member is, what it knows of a round, and what it has said: the parts that a restart brings back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from fedjax_poisson.aggregation import bodies, messages
from fedjax_poisson.aggregation.keys import Hidden
from fedjax_poisson.aggregation.parameters import RoundParameters
from fedjax_poisson.aggregation.refusals import OutOfOrder
from fedjax_poisson.aggregation.store import Store
from fedjax_poisson.aggregation.terms import Pinned, Terms, decode_terms, parameters_of, terms_hash

__all__ = ["Held", "Member", "State", "body_of", "decide", "restore", "said_of", "say", "under_way"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """Who a member is, and what it has pinned.

    Attributes:
      number: 1..m.
      key: its Ed25519 key.
      pinned: members, t, f, the hash of the roster, its own floor of honest senders.
      roster: the enrolled clients' keys.
      run: 16 bytes.
      store: what it said.
    """

    number: int
    key: Hidden
    pinned: Pinned
    roster: frozenset[bytes]
    run: bytes
    store: Store


class Held(NamedTuple):
    """What a member holds of one contribution.

    Attributes:
      digest: of its manifest.
      certificate: that the manifest names.
      share: uint32 `[L, N]`, the member's share of the secret.
      kappa: the 32 bytes that it came from.
    """

    digest: bytes
    certificate: bytes
    share: Hidden
    kappa: Hidden


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """Of one round, apart from what the store holds.

    Attributes:
      round: its number; -1 before the first.
      terms: once they were signed.
      digest: their hash.
      params: their parameters.
      shares: client key to what is held of its contribution.
      committed: D, once t members signed it.
      seed: of the functionals, once t members signed it.
      over: the round is over for this member, answered or dead.
    """

    round: int = -1
    terms: Terms | None = None
    digest: bytes = b""
    params: RoundParameters | None = None
    shares: Mapping[bytes, Held] = dataclasses.field(default_factory=dict)
    committed: tuple[tuple[bytes, bytes], ...] | None = None
    seed: bytes | None = None
    over: bool = False

    def __repr__(self) -> str:
        """How far the round is."""
        return f"State(round={self.round}, shares={len(self.shares)}, over={self.over})"


def say(member: Member, state: State, label: str, body: bytes) -> bytes:
    """Sign, make durable, return: the reply of a step that is taken once."""
    message = messages.encode(messages.make(member.key, label, state.digest, body))
    return member.store.put(member.run, state.round, label, message)


def said_of(member: Member, state: State, label: str) -> bytes | None:
    """The reply that was given, if the step was taken."""
    return member.store.get(member.run, state.round, label) or None


def decide(member: Member, state: State, fate: str) -> None:
    """Record whether this member's round goes to its include step or is dead: one record, so that two processes on one store cannot do both.

    Raises:
      AlreadyDone: the other was decided.
    """
    member.store.put(member.run, state.round, "fate", fate.encode())


def under_way(state: State) -> tuple[Terms, RoundParameters]:
    """The terms of a round that is under way.

    Raises:
      OutOfOrder: there is none, or it is over.
    """
    if state.over:
        raise OutOfOrder(f"Round {state.round} is over for this member.")
    if state.terms is None or state.params is None:
        raise OutOfOrder("This step needs terms first.")
    return state.terms, state.params


def body_of(blob: bytes) -> bytes:
    """The body of a message of one's own."""
    return messages.parts_of(blob).body


def restore(member: Member) -> State:
    """The state of the last round after a restart: what was said stays said; shares come again from the server, if the round goes on."""
    number = member.store.last(member.run, "round-key")
    if number < 0:
        return State()
    blob = member.store.get(member.run, number, "terms")
    if not blob:
        return State(round=number)
    terms = decode_terms(blob)
    state = State(round=number, terms=terms, digest=terms_hash(terms), params=parameters_of(terms))
    if member.store.get(member.run, number, "answer") or member.store.get(member.run, number, "dead"):
        member.store.erase(member.run, number, "secrets")  # the process may have ended before it came to that
        return dataclasses.replace(state, over=True)
    if member.store.get(member.run, number, "beacon-open"):
        said = member.store.get(member.run, number, "commit")
        assert said is not None
        state = dataclasses.replace(state, committed=bodies.read_commit(body_of(said), terms))
    said = member.store.get(member.run, number, "projections")
    if said:
        state = dataclasses.replace(state, seed=body_of(said)[:32])
    return state
