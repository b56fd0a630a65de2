"""Schedules: messages in any order, lost, doubled and late, members that are restarted, one member that is malicious, a server that proposes anything.

Whatever happens, at most one set is opened, nobody says anything twice, no set is below the minimum, and a round ends opened and exact or with a refusal.
The arithmetic is the package's own; its results, and signatures, are kept by their inputs, since thousands of schedules repeat the same ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from unittest import mock

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from fedjax_poisson.aggregation import bodies, client, contribution, judging, keys, member, messages, server, signs
from fedjax_poisson.aggregation.bodies import Include
from fedjax_poisson.aggregation.refusals import RoundRefused
from fedjax_poisson.aggregation.wire import prefixed, residue_bytes, u64
from tests.aggregation import rounds
from tests.aggregation.kept_results import ROOT, SECRETS, TEMPLATES, patched
from tests.aggregation.rounds import MALICIOUS, MINIMUM, THRESHOLD

ONCE = ("round-key", "certify", "commit", "beacon-open", "seed", "projections", "include", "answer", "dead")
SCHEDULES: dict = {"count": 0, "ended": {}}


FORGED = {
    "commit": "proposal",
    "beacon-open": "commit",
    "seed": "seed",
    "projections": "seed",
    "include": "include",
    "answer": "include",
}
NAMES = {"commit": "committed", "seed": "seeded", "include": "included"}


class Schedule(RuleBasedStateMachine):
    """One round, and the start of a second."""

    @initialize(
        m=st.sampled_from((5, 6, 6)), evil=st.sampled_from((0, 1, 4, 5)), bad=st.sampled_from((None, None, 4, 5))
    )
    def start(self, m, evil, bad):
        self.bad = bad  # the member that the last client gives another share, if any
        self.patches = patched()
        self.m, self.evil, self.world = m, evil, TEMPLATES(m).fresh()
        self.honest = [k for k in range(1, m + 1) if k != evil]
        self.flying: list[tuple[int, bytes]] = []
        self.said: dict[tuple[int, int, str], set[bytes]] = {}
        self.first_shares: dict[int, bytes] = {}
        self.over = ""
        self.world.begin()
        self.send(self.world.out)

    # The network

    def send(self, out) -> None:
        for one in out:
            if one.to:
                self.flying.append((one.to, one.blob))
                if self.world.server.phase == "held":
                    self.first_shares[one.to] = one.blob
            else:
                for i in range(len(self.world.clients)):
                    reader = messages.Reader(messages.decode_notice(one.blob, 1 << 20, ["invite"]).body)
                    blob = client.contribute(
                        self.world.clients[i],
                        reader.prefixed(),
                        reader.prefixed(),
                        self.world.counts[i],
                        ROOT(),
                        model=rounds.MODEL,
                    )
                    self.flying.append((0, self.with_a_bad_share(blob) if self.bad and i == 4 else blob))

    def with_a_bad_share(self, blob: bytes) -> bytes:
        found = rounds.reread(blob)
        parts = contribution.read_contribution(found, self.world.params)
        listed = [parts.rows, *parts.boxes, *parts.corrections]
        place = 1 + self.m + self.bad - THRESHOLD
        listed[place] = bytes([listed[place][0] ^ 1]) + listed[place][1:]
        hashes = [hashlib.sha256(part).digest() for part in listed]
        body = b"".join([hashes[0], parts.manifest.certificate, *hashes[1:]])
        attached = b"".join(prefixed(part) for part in listed)
        return messages.encode(messages.make(self.world.client_keys[4], found.label, found.terms, body, attached))

    def give(self, to: int, blob: bytes) -> None:
        """Deliver; what comes back flies."""
        try:
            if to == 0:
                self.world.hear(blob)
                return
            last = self.world.members[to - 1].store.last(self.world.run, "round-key")
            seed, beacon = SECRETS(to, last, self.m)
            with (
                mock.patch.object(keys, "new_box_seed", lambda: keys.Hidden(seed)),
                mock.patch.object(bodies, "new_beacon", lambda: keys.Hidden(beacon)),
                mock.patch.object(signs, "new_part", lambda: keys.Hidden(beacon)),
            ):
                reply = self.world.tell(to, blob)
        except RoundRefused:
            return
        self.flying.append((0, reply))
        if to != self.evil:
            self.note(to, rounds.reread(reply))

    def note(self, k: int, message: messages.Message) -> None:
        """What an honest member said, held against all that was said before."""
        number = self.world.states[k - 1].round
        if message.label in ONCE:
            bodies_said = self.said.setdefault((k, number, message.label), set())
            bodies_said.add(message.body)
            assert len(bodies_said) == 1, f"member {k} said {message.label} twice"
        if message.label == "commit":
            assert len(bodies.read_commit(message.body, self.world.server.draft)) >= MINIMUM
        if message.label == "include":
            assert len(bodies.read_include(message.body, self.world.server.draft).clients) >= MINIMUM
        for label, before in (("beacon-open", "commit"), ("projections", "seed"), ("answer", "include")):
            if message.label == label:
                assert self.signers(number, before, message) >= THRESHOLD - bool(self.evil), "without a quorum"
        answers = self.all_said(number, "answer")
        assert len({body[:32] for body in answers}) <= 1, "two sets are answered"
        assert len({body[:64] for body in self.all_said(number, "projections")}) <= 1, "two drawings of functionals"
        dead, included = self.all_said(number, "dead"), self.all_said(number, "include")
        for k_ in self.honest:
            assert not ({(k_, number, "dead"), (k_, number, "include")} <= set(self.said)), "dead and included"
        if len(dead) + bool(self.evil) >= THRESHOLD:
            assert all(included.count(body) + bool(self.evil) < THRESHOLD for body in included)
            assert not answers, "t signed that the round is dead, and it was answered"

    def signers(self, number: int, label: str, message: messages.Message) -> int:
        """Honest members that signed what a message of the next step rests on."""
        signed = self.all_said(number, label)
        if message.label == "beacon-open":
            return max((signed.count(body) for body in signed), default=0)
        if message.label == "answer":
            signed = [hashlib.sha256(body).digest() for body in signed]
        return signed.count(message.body[:32])

    def all_said(self, number: int, label: str) -> list[bytes]:
        return [body for (_, n, name), found in self.said.items() if (n, name) == (number, label) for body in found]

    @rule(data=st.data(), how=st.sampled_from(("once", "once", "twice", "never", "late")))
    def one(self, data, how):
        if not self.flying:
            return
        place = data.draw(st.integers(0, len(self.flying) - 1))
        to, blob = self.flying.pop(place)
        if how == "late":
            self.flying.append((to, blob))
        for _ in range({"once": 1, "twice": 2}.get(how, 0)):
            self.give(to, blob)

    @rule()
    def everything(self):
        """All that flies arrives, and the replies to it."""
        for _ in range(2):
            flying, self.flying = self.flying, []
            for to, blob in flying:
                self.give(to, blob)

    @rule()
    def deliver_and_advance(self):
        self.everything()
        self.advance()

    @rule()
    def advance(self):
        world = self.world
        if world.server.phase == "opened":
            return
        phase, before = world.server.phase, world.server
        try:
            world.server, out = server.advance(world.server)
        except RoundRefused as refusal:
            self.over = type(refusal).__name__
            return
        self.over = ""
        world.out = out
        self.send(out)
        if phase == "projections":
            shown = before.heard[phase]
            if self.m == 6 and sum(k != self.evil for k in shown) >= THRESHOLD + MALICIOUS:
                lost = {key for key, _ in set(world.server.committed) - set(world.include().clients)}
                allowed = 1 if self.bad else 0  # a malicious client can cost itself, or one other (`test_44`)
                assert len(lost) <= allowed, "wrong scalars cost an honest client"
        if phase == "answer":
            assert world.exact() and set(world.server.opened.wrong) <= {self.evil}

    @rule(k=st.integers(1, 6))
    def restart(self, k):
        if k > self.m or self.world.server.phase == "round-key":
            return
        self.world.restart(k)
        if k in self.first_shares:
            self.flying.append((k, self.first_shares[k]))

    @rule()
    def resend(self):
        self.flying += [(one.to, one.blob) for one in self.world.out if one.to]

    # The malicious member, and the server's lies

    @precondition(lambda self: self.evil and self.world.server.phase in messages.MEMBER_LABELS[2:])
    @rule(data=st.data())
    def evil_member_speaks(self, data):
        world, phase = self.world, self.world.server.phase
        params, entries = world.params, world.server.committed
        some = data.draw(st.sets(st.sampled_from(range(5))), label="clients")
        if phase == "held":
            body = bodies.key_list(world.public(i) for i in some)
        elif phase == "projections":
            shape = (len(entries), 15, 1)
            scalars = np.random.default_rng(len(some)).integers(0, params.ring.moduli[0], shape).astype(np.uint32)
            body = bodies.projections_body(world.server.seed, entries, judging.Shown(scalars), params)
        elif phase == "answer":
            share = np.full((1, 1024), len(some), np.uint32)
            body = hashlib.sha256(world.server.included).digest() + residue_bytes(share, params.ring.moduli)
        else:
            body = bytes([len(some)]) * 32
        self.flying.append((0, world.signed(self.evil, phase, body)))

    def signatures(self, label: str) -> dict[bytes, list[messages.Message]]:
        """All that honest members signed under a label, by body, and the malicious member's signature under each."""
        found: dict[bytes, list[messages.Message]] = {}
        for (k, number, name), said in self.said.items():
            if (number, name) == (1, label):
                for body in said:
                    found.setdefault(body, []).append(rounds.reread(self.world.signed(k, label, body)))
        for body, made in found.items():
            if self.evil:
                made.append(rounds.reread(self.world.signed(self.evil, label, body)))
        return found

    @precondition(lambda self: self.world.server.committed)
    @rule(
        data=st.data(),
        kind=st.sampled_from(("propose", "judged", "quorum", "quorum", "abandon", "begin", "terms", "beacons")),
    )
    def server_lies(self, data, kind):
        """Other sets, other quorums of what was signed, the end of the round, another round; to one member or to some."""
        world = self.world
        to = data.draw(st.sets(st.integers(1, self.m), min_size=1), label="to")
        entries = world.server.committed
        chosen = data.draw(st.sets(st.integers(0, 4), min_size=2), label="set")
        some = tuple(entry for i, entry in enumerate(entries) if i in chosen)
        if kind == "propose":
            notice = messages.Notice("propose", bodies.commit_body(some))
        elif kind == "judged":
            shown = [
                made
                for found in self.signatures("projections").values()
                for made in found
                if made.sender != world.pinned.members[self.evil - 1] or not self.evil
            ]
            numbers = tuple(sorted(world.pinned.members.index(made.sender) + 1 for made in shown))
            body = bodies.include_body(Include(some, numbers, ()))
            notice = messages.Notice("judged", prefixed(body) + bodies.many(messages.encode(made) for made in shown))
        elif kind == "quorum":
            label = data.draw(st.sampled_from(("commit", "seed", "include")))
            found = list(self.signatures(label).items())
            if not found:
                return
            body, made = found[data.draw(st.integers(0, len(found) - 1))]
            quorum = messages.encode_quorum(messages.quorum_of(made, body))
            notice = messages.Notice(NAMES[label], prefixed(quorum) if label == "seed" else quorum)
        elif kind == "beacons":
            opened = [made for found in self.signatures("beacon-open").values() for made in found[:1]]
            shown = data.draw(st.sets(st.integers(0, 5)), label="shown")
            notice = messages.Notice(
                "beacons", bodies.many(messages.encode(made) for i, made in enumerate(opened) if i in shown)
            )
        elif kind == "abandon":
            notice = messages.Notice("abandon", u64(1))
        elif kind == "begin":
            notice = messages.Notice("begin", world.run + u64(data.draw(st.sampled_from((0, 1, 1, 2)))))
        else:
            notice = messages.Notice("terms", rounds.terms_module.encode_terms(world.server.draft)[:-1] + b"x")
        for k in to:
            self.give(k, messages.encode_notice(notice))

    @precondition(lambda self: self.world.server.phase in FORGED)
    @rule(left_out=st.integers(0, 4))
    def server_forges(self, left_out):
        """A body of the server's choice, under the signature of the malicious member alone, to everybody."""
        world = self.world
        label = FORGED[world.server.phase]
        some = tuple(entry for i, entry in enumerate(world.server.committed) if i != left_out)
        body = {
            "proposal": lambda: bodies.commit_body(some),
            "commit": lambda: bodies.commit_body(some),
            "seed": lambda: bytes([left_out]) * 32,
            "include": lambda: bodies.include_body(Include(some, tuple(range(1, self.m + 1)), ())),
        }[label]()
        if label == "proposal":
            notice = messages.Notice("propose", body)
        else:
            made = [rounds.reread(world.signed(self.evil, label, body))] if self.evil else []
            quorum = messages.encode_quorum(messages.quorum_of(made, body))
            notice = messages.Notice(NAMES[label], prefixed(quorum) if label == "seed" else quorum)
        for k in range(1, self.m + 1):
            self.give(k, messages.encode_notice(notice))

    def teardown(self):
        if not hasattr(self, "patches"):
            return
        try:
            for _ in range(2 * len(server.PHASES)):
                if self.world.server.phase == "opened":
                    break
                self.everything()
                self.advance()
                if self.over:
                    break
            outcome = "opened" if self.world.server.phase == "opened" else self.over
            assert outcome, "the round neither opened nor ended with a refusal"
            SCHEDULES["count"] += 1
            SCHEDULES["ended"][outcome] = SCHEDULES["ended"].get(outcome, 0) + 1
        finally:
            self.patches.close()


def settings(count: int, derandomize: bool, shrink: bool) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=count,
        stateful_step_count=40,
        deadline=None,
        derandomize=derandomize,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink) if shrink else (hypothesis.Phase.generate,),
        report_multiple_bugs=False,
    )


def campaign(count: int, derandomize: bool, shrink: bool = True) -> dict[str, int]:
    SCHEDULES.update(count=0, ended={})
    run_state_machine_as_test(Schedule, settings=settings(count, derandomize, shrink))
    return dict(SCHEDULES["ended"])


def test_any_schedule_opens_one_set_or_none():
    ended = campaign(150, True)
    assert ended["opened"] > 20 and len(ended) > 1, ended


def forgetful(who, state, label, body):
    """`member.say` of a member that writes nothing down."""
    return messages.encode(messages.make(who.key, label, state.digest, body))


BROKEN = {
    "no memory": {"said_of": lambda *_: None, "say": forgetful, "decide": lambda *_: None},
    "no quorums": {"check_quorum": lambda *_: None},
}


@pytest.mark.parametrize("how", BROKEN)
def test_twin_members_that_are_broken_are_found_out(how):
    with contextlib.ExitStack() as patches, pytest.raises(AssertionError):
        for name, fn in BROKEN[how].items():
            patches.enter_context(mock.patch.object(member, name, fn))
        campaign(200, True, shrink=False)


@pytest.mark.long
@pytest.mark.slow
def test_many_schedules_open_one_set_or_none():
    begun = time.perf_counter()
    ended = campaign(10_000, False)
    print(f"\n{SCHEDULES['count']} schedules in {time.perf_counter() - begun:.0f} s: {ended}")
