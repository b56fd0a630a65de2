"""A whole round in one process: every role with its own keys and its own messages, exactly as between machines; or bare, where messages cannot be made.

`encrypt` is a client's contribution to the round that is under way (another size begins another round), `add` joins contributions, `check` takes the round
to its include step (everything that can be refused is refused there, before a release is charged), `open` asks for the answers and opens. A round is over
when it was opened; `begin` starts a new one and drops what was not opened.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fedjax_poisson.aggregation import bare, keys, member, messages, server, terms, transcript
from fedjax_poisson.aggregation.bare import DeviceFunctions, RoundSum
from fedjax_poisson.aggregation.client import Client, contribute
from fedjax_poisson.aggregation.envelope import new_id
from fedjax_poisson.aggregation.opening import Expected
from fedjax_poisson.aggregation.parameters import RoundParameters, choose
from fedjax_poisson.aggregation.refusals import RoundRefused
from fedjax_poisson.aggregation.roles import (
    Opened,
    Sealed,
    check_announced,
    check_joined,
    check_unopened,
    checked_counts,
)
from fedjax_poisson.aggregation.server_state import included_clients
from fedjax_poisson.aggregation.store import memory_store
from fedjax_poisson.aggregation.terms import Pinned, Terms
from fedjax_poisson.aggregation.wire import Reader
from fedjax_poisson.randomness import Stream, bits, fold_in, is_reproducible

__all__ = ["Committee", "LocalRounds", "Setting", "local_rounds"]


class Setting(NamedTuple):
    """What all rounds of one aggregator have in common.

    Attributes:
      run: 16 bytes.
      count_bound: bound on |any coordinate of the sum|.
      count_rms: root mean square that honest counts keep to; None if not stated.
      senders: most clients of a round.
      minimum: fewest.
      corrupt: clients assumed corrupt.
      members: m.
      threshold: t.
      malicious: f.
      mechanism: facts, canonical JSON.
      size: D of every message; None takes any.
    """

    run: bytes
    count_bound: int
    count_rms: float | None
    senders: int
    minimum: int
    corrupt: int
    members: int
    threshold: int
    malicious: int
    mechanism: str
    size: int | None


class LocalRounds(NamedTuple):
    """The functions of an aggregator; `Aggregator` has their docs."""

    begin: Callable[[], None]
    encrypt: Callable[..., Sealed]
    add: Callable[[Sealed, Sealed], Sealed]
    check: Callable[[Sealed, int], None]
    open: Callable[[Sealed, int], Opened]
    functions: Callable[[int], DeviceFunctions]
    parameters: Callable[[int], RoundParameters]
    message_bytes: Callable[[int], int]


def parameters_for(setting: Setting, size: int) -> RoundParameters:
    """The parameters of rounds of D values."""
    return choose(
        size,
        setting.count_bound,
        setting.senders,
        setting.members,
        setting.threshold,
        corrupt=setting.corrupt,
        count_rms=None if setting.count_rms is None else thousandths(setting.count_rms) / 1000,
    )


def thousandths(count_rms: float) -> int:
    """How terms state a root mean square: rounded up, so that an honest sum at the bound is not refused."""
    return math.ceil(count_rms * 1000)


def draft_of(setting: Setting, number: int, size: int, members: tuple[bytes, ...], roster: bytes) -> Terms:
    """The terms of a round, without round keys."""
    return Terms(
        run=setting.run,
        round=number,
        model=bytes(32),
        mechanism=setting.mechanism,
        charge="charged by the ledger of the process that runs all roles",
        size=size,
        count_bound=setting.count_bound,
        count_rms=0 if setting.count_rms is None else thousandths(setting.count_rms),
        senders=setting.senders,
        minimum=setting.minimum,
        corrupt=setting.corrupt,
        threshold=setting.threshold,
        malicious=setting.malicious,
        members=members,
        round_keys=tuple(b"" for _ in members),
        roster=roster,
    )


def message_bytes(params: RoundParameters) -> int:
    """Bytes of one client's contribution on the wire."""
    parts = (
        params.rows_bytes + params.members * (4 + keys.BOX_BYTES) + params.corrections * (4 + params.polynomial_bytes)
    )
    body = 64 + 32 * params.members + 32 * params.corrections
    return 4 + len("contribution") + 32 + 32 + 4 + body + 64 + 4 + 4 + parts


class Committee:
    """All members and clients of one process, each with keys of its own; only `rounds` sees more than one of them."""

    def __init__(self, setting: Setting) -> None:
        signing = [keys.new_signing_key() for _ in range(setting.members)]
        clients = [keys.new_signing_key() for _ in range(setting.senders)]
        self.public = tuple(keys.public_of(key) for key in signing)
        self.roster = frozenset(keys.public_of(key) for key in clients)
        self.roster_hash = terms.roster_hash(tuple(self.roster))
        pinned = Pinned(
            self.public,
            setting.threshold,
            setting.malicious,
            self.roster_hash,
            setting.minimum - setting.corrupt,
            setting.corrupt,
        )
        self.members = tuple(
            member.Member(
                number=number, key=key, pinned=pinned, roster=self.roster, run=setting.run, store=memory_store(keep=2)
            )
            for number, key in enumerate(signing, 1)
        )
        self.clients = tuple(Client(key, pinned, self.roster, setting.run, memory_store(keep=2)) for key in clients)
        self.states = [member.State() for _ in signing]

    def say(self, state: server.State, outgoing: list[server.Outgoing]) -> server.State:
        """Hand notices to members, and their replies to the server."""
        for one in outgoing:
            if one.to:
                place = one.to - 1
                self.states[place], reply = member.step(self.members[place], self.states[place], one.blob)
                state = server.receive(state, reply)
        return state


class _Under(NamedTuple):
    """A round that is under way: the server's state, what clients are shown, and how many have spoken."""

    state: server.State
    terms: bytes
    certificate: bytes
    sent: int
    outgoing: list[server.Outgoing]


def local_rounds(setting: Setting, *, authenticate: bool) -> LocalRounds:
    """Rounds of one process.

    Args:
      setting: what they have in common.
      authenticate: with signatures, boxes, agreement and screening; else bare (`bare`).
    """
    cell: dict[str, Any] = {"number": 0, "under": None, "opened": set(), "committee": None}
    digest = terms.terms_hash(
        draft_of(
            setting, 0, setting.size or 1, tuple(bytes([k]) * 32 for k in range(1, setting.members + 1)), bytes(32)
        )
    )
    made: dict[int, DeviceFunctions] = {}

    def parameters(size: int) -> RoundParameters:
        return parameters_for(setting, size)

    def functions(size: int) -> DeviceFunctions:
        if size not in made:
            expected = Expected(
                setting.senders, setting.corrupt, setting.count_bound, setting.count_rms, setting.malicious
            )
            made[size] = bare.device_functions(parameters(size), digest, expected)
        return made[size]

    def begin() -> None:
        cell["under"] = None

    def encrypt(counts: Any, stream: Any = None, *, round: int = 0) -> Sealed:
        values = checked_counts(counts, setting.count_bound, setting.size, round)
        if not isinstance(stream, Stream):
            raise ValueError(
                "Rounds encrypt from a randomness stream; give one, fresh for every message (randomness.fold_in)."
            )
        if not authenticate:
            payload = bare.encrypt_one(functions(values.size), values, stream)
            return Sealed(payload, values.size, 1, frozenset([new_id()]), int(round))
        return _contribute(values, stream, round)

    def _contribute(values: np.ndarray, stream: Stream, number: int) -> Sealed:
        if cell["committee"] is None:
            cell["committee"] = Committee(setting)
        committee: Committee = cell["committee"]
        under: _Under | None = cell["under"]
        over = under is None or under.sent == setting.senders or under.state.phase != "contribution"
        if under is None or over or under.state.draft.size != values.size:
            cell["number"] += 1
            under = _open_round(
                committee, draft_of(setting, cell["number"], values.size, committee.public, committee.roster_hash)
            )
        who = committee.clients[under.sent]
        blob = contribute(
            who, under.terms, under.certificate, values, stream, model=bytes(32), reproducible=is_reproducible(stream)
        )
        state = server.receive(under.state, blob)
        cell["under"] = under._replace(state=state, sent=under.sent + 1)
        name = state.clients[keys.public_of(who.key)].digest
        return Sealed(None, values.size, 1, frozenset([name]), int(number))

    def add(a: Sealed, b: Sealed) -> Sealed:
        check_joined(a, b, setting.senders)
        if (a.payload is None) != (b.payload is None):
            raise RoundRefused("A signed contribution and a simulated sum do not belong together; leave one out.")
        payload = None
        if a.payload is not None:
            payload = bare.add_two(functions(a.size), a.payload, b.payload)
        return Sealed(payload, a.size, a.senders + b.senders, a.ids | b.ids, a.round)

    def check(sealed: Sealed, size: int) -> None:
        check_announced(sealed, size, setting.minimum, setting.senders)
        check_unopened(sealed, cell["opened"])
        if sealed.payload is not None:
            _counted(int(sealed.payload.senders), sealed)
            return
        _counted(len(sealed.ids), sealed)
        under: _Under | None = cell["under"]
        if under is None or not sealed.ids <= {one.digest for one in under.state.clients.values()}:
            raise RoundRefused("The round of these contributions is over. Nothing was opened.")
        if under.state.phase == "answer":
            if _included(under.state) != sealed.ids:
                raise RoundRefused("This round was taken to its include step for another set. Nothing was opened.")
            return
        cell["under"] = _to_include(cell["committee"], under, sealed)

    def open_sum(sealed: Sealed, size: int) -> Opened:
        check(sealed, size)
        if isinstance(sealed.payload, RoundSum):
            expected = Expected(
                sealed.senders, setting.corrupt, setting.count_bound, setting.count_rms, setting.malicious
            )
            counts = bare.open_one(functions(size), sealed.payload, expected)
            cell["opened"] |= sealed.ids
            return Opened(counts, sealed.senders, True)
        under: _Under = cell["under"]
        state = cell["committee"].say(under.state, under.outgoing)
        cell["opened"] |= sealed.ids
        cell["under"] = None
        state, _ = server.advance(state)
        assert state.opened is not None
        return Opened(state.opened.counts, sealed.senders, True, transcript.write_transcript(state))

    return LocalRounds(
        begin=begin,
        encrypt=encrypt,
        add=add,
        check=check,
        open=open_sum,
        functions=functions,
        parameters=parameters,
        message_bytes=lambda size: message_bytes(parameters(size)),
    )


def _open_round(committee: Committee, draft: Terms) -> _Under:
    """A round up to where clients may speak."""
    state, outgoing = server.start(draft, committee.roster)
    while state.phase != "contribution":
        state = committee.say(state, outgoing)
        state, outgoing = server.advance(state)
    reader = Reader(messages.decode_notice(outgoing[0].blob, 1 << 24, ["invite"]).body)
    return _Under(state, reader.prefixed(), reader.prefixed(), 0, [])


def _to_include(committee: Committee, under: _Under, sealed: Sealed) -> _Under:
    """The round up to where answers are asked for, with the clients of a sum; the others count as lost."""
    chosen = {key: one for key, one in under.state.clients.items() if one.digest in sealed.ids}
    state, outgoing = server.advance(dataclasses.replace(under.state, clients=chosen))
    while state.phase != "answer":
        state = committee.say(state, outgoing)
        state, outgoing = server.advance(state)
    if _included(state) != sealed.ids:
        raise RoundRefused("A contribution did not pass screening. Nothing was opened.")
    return under._replace(state=state, outgoing=outgoing)


def _included(state: server.State) -> frozenset[bytes]:
    """Names of the contributions of U."""
    return frozenset(digest for _, digest in included_clients(state))


def _counted(found: int, sealed: Sealed) -> None:
    if found != sealed.senders:
        raise RoundRefused(
            f"The sum counts {found} contributions and its message {sealed.senders}. Nothing was opened."
        )


def run_name(stream: Stream | None) -> bytes:
    """16 bytes that name a run: from a stream (so that several processes agree), or fresh."""
    if stream is None:
        return os.urandom(16)
    return hashlib.sha256(np.asarray(bits(fold_in(stream, "run name"), 8)).tobytes()).digest()[:16]
