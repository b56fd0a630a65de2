"""All members and clients of one process, each with keys of its own, and a round driven through them message by message."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from fedjax_poisson.aggregation import keys, member, messages, prover, server, terms
from fedjax_poisson.aggregation.client import Client, contribute
from fedjax_poisson.aggregation.noise import NoiseSender, contribute_noise
from fedjax_poisson.aggregation.refusals import LongVector, RoundRefused
from fedjax_poisson.aggregation.round_setting import RoundSetting, draft_of, noise_sent
from fedjax_poisson.aggregation.server_state import included_clients
from fedjax_poisson.aggregation.store import memory_store
from fedjax_poisson.aggregation.terms import Pinned
from fedjax_poisson.aggregation.wire import Reader
from fedjax_poisson.randomness import Stream, is_reproducible

__all__ = ["Committee", "UnderWay", "add_contribution", "answered", "included", "open_round", "to_include"]


class Committee:
    """All members and clients of one process, each with keys of its own; only this process sees more than one of them."""

    def __init__(self, setting: RoundSetting) -> None:
        signing = [keys.new_signing_key() for _ in range(setting.members)]
        clients = [keys.new_signing_key() for _ in range(setting.senders)]
        self.public = tuple(keys.public_of(key) for key in signing)
        self.roster = frozenset(keys.public_of(key) for key in clients)
        self.roster_hash = terms.roster_hash(tuple(self.roster))
        noise = signing if setting.noise_senders == setting.members else _fresh(setting.noise_senders)
        self.noise = tuple(sorted(keys.public_of(key) for key in noise)) if setting.norm else ()
        pinned = Pinned(
            self.public,
            setting.threshold,
            setting.malicious,
            self.roster_hash,
            setting.minimum - setting.corrupt,
            setting.corrupt,
            self.noise,
            setting.norm.honest_noise if setting.norm else 0,
            setting.norm.squared_norm if setting.norm else 0,
        )
        self.noise_senders = tuple(
            NoiseSender(key, pinned, setting.run, memory_store(keep=2)) for key in (noise if setting.norm else ())
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
        """Hand notices to members, and their replies to the server; ask clients for their proofs."""
        for one in outgoing:
            if not one.to and state.phase == "proof":
                state = self._proofs(state, one.blob)
            if one.to:
                place = one.to - 1
                self.states[place], reply = member.step(self.members[place], self.states[place], one.blob)
                state = server.receive(state, reply)
        return state

    def _proofs(self, state: server.State, blob: bytes) -> server.State:
        reader = Reader(messages.decode_notice(blob, 1 << 26, ["prove"]).body)
        parts = [reader.prefixed() for _ in range(3)]
        inside = {key for key, _ in state.committed}
        for client in self.clients:
            if keys.public_of(client.key) not in inside:
                continue
            try:
                state = server.receive(state, prover.prove(client, *parts))
            except LongVector:  # it sits the round out, as any party would see
                continue
        return state

    def send_noise(self, setting: RoundSetting, state: server.State, blob: bytes, stream: Stream) -> server.State:
        """The contributions of all noise senders, each from a part of the stream of its own."""
        terms_blob = messages.decode_notice(blob, 1 << 24, ["send noise"]).body
        for number, sender in enumerate(self.noise_senders):
            noise, own = noise_sent(setting, number, state.draft.size, stream)
            sent = contribute_noise(sender, terms_blob, noise, own, reproducible=is_reproducible(stream))
            state = server.receive(state, sent)
        return state


def _fresh(count: int) -> list[keys.Hidden]:
    return [keys.new_signing_key() for _ in range(count)]


class UnderWay(NamedTuple):
    """A round that is under way: the server's state, what clients are shown, how many have spoken, and what the server has to send."""

    state: server.State
    terms: bytes
    certificate: bytes
    sent: int
    outgoing: list[server.Outgoing]


def open_round(committee: Committee, setting: RoundSetting, number: int, size: int, stream: Stream) -> UnderWay:
    """A round of D values up to where clients may speak; the stream is for the noise of norm rounds."""
    draft = draft_of(setting, number, size, committee.public, committee.roster_hash, committee.noise)
    state, outgoing = server.start(draft, committee.roster)
    while state.phase != "contribution":
        if state.phase == "noise":
            state = committee.send_noise(setting, state, outgoing[0].blob, stream)
        else:
            state = committee.say(state, outgoing)
        state, outgoing = server.advance(state)
    reader = Reader(messages.decode_notice(outgoing[0].blob, 1 << 24, ["invite"]).body)
    return UnderWay(state, reader.prefixed(), reader.prefixed(), 0, [])


def add_contribution(
    committee: Committee, under: UnderWay, counts: np.ndarray, stream: Stream
) -> tuple[UnderWay, bytes]:
    """The next client's counts to the server; also the name of its contribution."""
    who = committee.clients[under.sent]
    blob = contribute(
        who, under.terms, under.certificate, counts, stream, model=bytes(32), reproducible=is_reproducible(stream)
    )
    state = server.receive(under.state, blob)
    return under._replace(state=state, sent=under.sent + 1), state.clients[keys.public_of(who.key)].digest


def to_include(committee: Committee, under: UnderWay, chosen: frozenset[bytes]) -> UnderWay:
    """The round up to where answers are asked for, with the contributions of a sum; the others count as lost.

    Raises:
      RoundRefused: one of them did not pass screening, or the members do not go on.
    """
    noise = under.state.draft.noise
    clients = {key: one for key, one in under.state.clients.items() if one.digest in chosen or key in noise}
    state, outgoing = server.advance(dataclasses.replace(under.state, clients=clients))
    while state.phase != "answer":
        state = committee.say(state, outgoing)
        state, outgoing = server.advance(state)
    after = under._replace(state=state, outgoing=outgoing)
    if included(after) != chosen:
        raise RoundRefused("A contribution did not pass screening. Nothing was opened.")
    return after


def included(under: UnderWay) -> frozenset[bytes]:
    """Names of the contributions of U."""
    return frozenset(digest for _, digest in included_clients(under.state))


def answered(committee: Committee, under: UnderWay) -> server.State:
    """The server's state with the members' answers, to be opened by its next `advance`."""
    return committee.say(under.state, under.outgoing)
