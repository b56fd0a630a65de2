"""Rounds whose messages are lost, late, doubled, replayed or of another round, whose members start again, and whose stores end at every event.

All parties are in one process, each with its own keys, and speak by bytes only. Whatever happens, a round opens exactly the sum over the clients that it
names, or is refused by name; and nobody says two things about one step.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fault_campaign import verdicts
from fault_campaign.shots import develop, photographed
from fault_campaign.verdicts import Row
from fedjax_poisson.aggregation import keys, member, messages, server
from fedjax_poisson.aggregation.client import contribute
from fedjax_poisson.aggregation.committee import Committee
from fedjax_poisson.aggregation.parameters import default_malicious, least_threshold
from fedjax_poisson.aggregation.refusals import RoundRefused
from fedjax_poisson.aggregation.round_setting import RoundSetting, draft_of
from fedjax_poisson.aggregation.server_state import included_clients
from fedjax_poisson.aggregation.store import Store, StoreDamaged, memory_store, sqlite_store
from fedjax_poisson.aggregation.wire import Reader
from fedjax_poisson.randomness import stream

__all__ = ["KINDS", "Fault", "Net", "lost_messages", "setting", "store_album", "store_ends", "transitions"]

KINDS = ("lost", "late", "doubled", "replayed", "of another round", "starts again")
SIZE, BOUND = 40, 200
_LIMIT = 1 << 24


class Fault(NamedTuple):
    """One fault of a round.

    Attributes:
      way: "notice" (to a member), "reply" (of a member), "invite" (to a client) or "contribution" (of one).
      label: of the message.
      who: number of the member, from 1, or place of the client, from 0.
      kind: one of `KINDS`.
    """

    way: str
    label: str
    who: int
    kind: str


def setting(members: int = 5, clients: int = 5) -> RoundSetting:
    """Small rounds: 40 values, one of the members may lie."""
    malicious = default_malicious(members)
    return RoundSetting(
        run=bytes(range(16)),
        count_bound=BOUND,
        count_rms=None,
        senders=clients,
        minimum=3,
        corrupt=1,
        members=members,
        threshold=least_threshold(members, malicious),
        malicious=malicious,
        mechanism="{}",
        size=SIZE,
    )


class Net:
    """Everybody, and the network between them.

    Args:
      own: of the rounds.
      stores: makes a member's store from its number; None keeps those in memory.
      said: where what is said is noted: (party, round and step; bytes).
    """

    def __init__(
        self,
        own: RoundSetting,
        stores: Callable[[int], Store] | None = None,
        said: list[tuple[str, bytes]] | None = None,
    ) -> None:
        self.own = own
        self.committee = Committee(own)
        if stores is not None:
            self.committee.members = tuple(
                dataclasses.replace(one, store=stores(one.number)) for one in self.committee.members
            )
        self.states = [member.State() for _ in self.committee.members]
        self.said: list[tuple[str, bytes]] = [] if said is None else said
        self.passed: list[tuple[int, str, str, int, bytes]] = []  # (round, way, label, who, bytes)
        self.late: list[tuple[str, int, bytes]] = []
        self.number = 0
        self.counts = np.zeros((own.senders, SIZE), np.int32)
        self.server: server.State | None = None

    def passes(self, fault: Fault | None, way: str, label: str, who: int, blob: bytes) -> list[bytes]:
        """What the network delivers at once of one message."""
        earlier = [each for each in self.passed if each[1] == way and each[3] == who]
        self.passed.append((self.number, way, label, who, blob))
        if fault is None or fault[:3] != (way, label, who):
            return [blob]
        if fault.kind == "late":
            self.late.append((way, who, blob))
        if fault.kind == "starts again" and way == "notice":
            self.states[who - 1] = member.restore(self.committee.members[who - 1])
        if fault.kind in ("lost", "late"):
            return []
        old = [each[4] for each in earlier if (each[0] == self.number) == (fault.kind == "replayed")]
        same = [each[4] for each in earlier if each[0] != self.number and each[2] == label]
        more = {"doubled": [blob], "replayed": old[-1:], "of another round": same[-1:] or old[-1:]}
        return [*more.get(fault.kind, []), blob]

    def tell(self, fault: Fault | None, who: int, blob: bytes) -> None:
        """One notice to a member, and its reply to the server."""
        try:
            self.states[who - 1], reply = member.step(self.committee.members[who - 1], self.states[who - 1], blob)
        except RoundRefused:
            return
        label = _label(reply)
        if label != "held":  # says what came in last, and binds nobody
            self.said.append((f"member {who}: round {self.states[who - 1].round} {label}", reply))
        for one in self.passes(fault, "reply", label, who, reply):
            self.hear(one)

    def hear(self, blob: bytes) -> None:
        """One message to the server."""
        assert self.server is not None
        try:
            self.server = server.receive(self.server, blob)
        except RoundRefused:
            return

    def invited(self, fault: Fault | None, who: int, blob: bytes) -> None:
        """An invitation to a client, and its contribution to the server."""
        reader = Reader(messages.decode_notice(blob, _LIMIT, ["invite"]).body)
        one = self.committee.clients[who]
        try:
            made = contribute(one, reader.prefixed(), reader.prefixed(), self.counts[who], stream(), model=bytes(32))
        except RoundRefused:
            return
        round_ = next((each[0] for each in self.passed if each[1] == "invite" and each[4] == blob), self.number)
        self.said.append((f"client {who}: round {round_}", made))
        for found in self.passes(fault, "contribution", "contribution", who, made):
            self.hear(found)

    def round(self, counts: np.ndarray, fault: Fault | None) -> str:
        """One round with one fault: "opened exactly", "opened wrongly", or the name of what refused it."""
        self.number, self.counts = self.number + 1, counts
        committee = self.committee
        draft = draft_of(self.own, self.number, SIZE, committee.public, committee.roster_hash)
        self.server, out = server.start(draft, committee.roster)
        while self.server.phase != "opened":
            waiting, self.late = self.late, []
            for one in out:
                label = messages.decode_notice(one.blob, _LIMIT, [*member.LABELS, "invite"]).label
                for who in [one.to] if one.to else range(self.own.senders):
                    way = "notice" if one.to else "invite"
                    for blob in self.passes(fault, way, label, who, one.blob):
                        (self.tell if one.to else self.invited)(fault, who, blob)
            for way, who, blob in waiting:
                if way in ("reply", "contribution"):
                    self.hear(blob)
                else:
                    (self.tell if way == "notice" else self.invited)(None, who, blob)
            try:
                self.server, out = server.advance(self.server)
            except RoundRefused as refusal:
                return f"refused by {type(refusal).__name__}"
        inside = {key for key, _ in included_clients(self.server)}
        chosen = [i for i, one in enumerate(committee.clients) if keys.public_of(one.key) in inside]
        assert self.server.opened is not None
        exact = (self.server.opened.counts == counts[chosen].sum(0)).all()
        return f"opened {'exactly' if exact else 'wrongly'}, {len(chosen)} clients"


def _label(blob: bytes) -> str:
    return Reader(blob).prefixed().decode("ascii", "replace")


def transitions(own: RoundSetting) -> list[tuple[str, str, int]]:
    """Every message of an undisturbed round: (way, label, who)."""
    net = Net(own)
    net.round(_counts(own, random.Random(0)), None)
    return [(way, label, who) for _, way, label, who, _ in net.passed]


def _counts(own: RoundSetting, rng: random.Random) -> np.ndarray:
    drawn = np.random.default_rng(rng.randrange(2**32))
    return drawn.integers(-BOUND // own.senders, BOUND // own.senders + 1, (own.senders, SIZE)).astype(np.int32)


def lost_messages(own: RoundSetting, rng: random.Random, count: int) -> Iterator[Row]:
    """Rounds with one fault each: every label and way under every kind that it can have, then by chance; a sample of these where there are fewer."""
    every = transitions(own)
    by_label: dict[tuple[str, str], list[int]] = {}
    for way, label, who in every:
        by_label.setdefault((way, label), []).append(who)
    plan = [
        Fault(way, label, rng.choice(who), kind)
        for (way, label), who in by_label.items()
        for kind in KINDS
        if kind != "starts again" or way == "notice"
    ]
    if count < len(plan):
        plan = rng.sample(plan, count)
    while len(plan) < count:
        way, label, who = rng.choice(every)
        plan.append(Fault(way, label, who, rng.choice(KINDS if way == "notice" else KINDS[:-1])))
    net = Net(own)
    for at, fault in enumerate(plan):
        if at % 40 == 0:  # other people, so that what is remembered stays small
            net = Net(own)
            net.round(_counts(own, rng), None)
        try:
            outcome = net.round(_counts(own, rng), fault)
            wrong = ["the sum is not that of its clients"] if "wrongly" in outcome else []
            if "refused" in outcome and fault.kind not in ("lost", "late", "starts again"):
                wrong.append("a message too many stopped the round")
        except Exception as error:
            outcome, wrong = f"{type(error).__name__}", [f"{type(error).__name__} would be a traceback: {error}"]
            net = Net(own)
            net.round(_counts(own, rng), None)
        wrong += verdicts.second_answers(net.said)
        yield Row("messages", f"{fault.way} {fault.label}", fault.kind, outcome, wrong)


# Stores of a real member and a real client


class Told(NamedTuple):
    """What a party heard in a round, and everything that is needed to hear it again after it ended somewhere."""

    shots: list[Any]
    notices: list[bytes]
    net: Net


def store_album(own: RoundSetting, base: Path) -> tuple[Told, Told]:
    """A round in which member 1 and then client 0 keep their stores on disk, with a copy before every event: the member's and the client's."""
    found = []
    for party in ("member", "client"):
        folder = base / party
        folder.mkdir(parents=True)
        said: list[tuple[str, bytes]] = []
        with photographed(folder, base / f"{party} album", functools.partial(tuple, said)) as shots:
            made = sqlite_store(folder / "store.sqlite")
            net = Net(own, (lambda k, s=made: s if k == 1 else memory_store()) if party == "member" else None, said)
            if party == "client":
                first, *rest = net.committee.clients
                net.committee.clients = (first._replace(store=made), *rest)
            outcome = net.round(_counts(own, random.Random(1)), None)
            made.close()
        assert outcome.startswith("opened exactly"), outcome
        way, who = ("notice", 1) if party == "member" else ("invite", 0)
        heard = [blob for _, passed, _, number, blob in net.passed if (passed, number) == (way, who)]
        found.append(Told(shots, heard, net))
    return found[0], found[1]


def member_again(told: Told, store: Store) -> list[tuple[str, bytes]]:
    """What member 1 says after it ended and started from a store: all notices of its round once more."""
    one = dataclasses.replace(told.net.committee.members[0], store=store)
    state, said = member.restore(one), []
    for blob in told.notices:
        for _ in range(2):  # and asked twice
            try:
                state, reply = member.step(one, state, blob)
            except RoundRefused:
                continue
            if (label := _label(reply)) != "held":
                said.append((f"member 1: round 1 {label}", reply))
    return said


def client_again(told: Told, store: Store) -> list[tuple[str, bytes]]:
    """What client 0 says after it ended and started from a store; the randomness that it has is fresh."""
    one, said = told.net.committee.clients[0]._replace(store=store), []
    for blob in told.notices * 2:
        reader = Reader(messages.decode_notice(blob, _LIMIT, ["invite"]).body)
        try:
            made = contribute(one, reader.prefixed(), reader.prefixed(), told.net.counts[0], stream(), model=bytes(32))
        except RoundRefused:
            continue
        said.append(("client 0: round 1", made))
    return said


AGAIN = {"member": member_again, "client": client_again}


def store_ends(party: str, told: Told, plan: list[tuple[int, str]], base: Path) -> Iterator[Row]:
    """A party that ends at an event of its store and starts again: plan entries are (place in shots, how it ends)."""
    for at, kind in plan:
        shot, folder = told.shots[at], base / "again"
        develop(shot, kind, folder)
        try:
            store = sqlite_store(folder / "store.sqlite")
            said = AGAIN[party](told, store)
            store.close()
            left = [
                each for each in shot.known if each[0].startswith("member 1:" if party == "member" else "client 0:")
            ]
            wrong = verdicts.second_answers([*left, *said])
            outcome = f"said the same {len(said) // 2} again" if said else "said nothing more"
        except StoreDamaged as error:
            outcome, wrong = "refused by StoreDamaged", [f"cannot go on: {error}"]
        except Exception as error:
            outcome, wrong = type(error).__name__, [f"{type(error).__name__} would be a traceback: {error}"]
        shutil.rmtree(folder)
        yield Row(f"{party}'s store", shot.transition, kind, outcome, wrong)
