"""Attacks by the server and by members, numbered as in `docs/explanation/attacks_that_fail.md`; a twin has the one check off."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools

import numpy as np
import pytest

from fedjax_poisson.aggregation import (
    bodies,
    contribution,
    keys,
    member,
    member_shares,
    messages,
    opening,
    server,
    server_state,
    sharing,
)
from fedjax_poisson.aggregation import refusals as r
from fedjax_poisson.aggregation.bodies import Include
from fedjax_poisson.aggregation.judging import Shown
from fedjax_poisson.aggregation.wire import prefixed, read_residues, residue_bytes
from tests.aggregation import rounds
from tests.aggregation.rounds import World
from tests.aggregation.test_attacks import Anything, at, quorum, with_client

ALL = (1, 2, 3, 4, 5, 6)


def include_quorum(world: World, entries, signers=ALL, members=ALL) -> bytes:
    return quorum(world, "include", bodies.include_body(Include(tuple(entries), members, ())), signers)


def share_in(world: World, reply: bytes) -> np.ndarray:
    ring = world.params.ring
    return read_residues(rounds.reread(reply).body[32:], (), ring.degree, ring.moduli)


def opened_from(world: World, replies, entries) -> np.ndarray:
    """What anyone computes of the answers for a set."""
    include = Include(tuple(entries), ALL, ())
    found = opening.open_sum(
        world.params,
        world.digest,
        server_state.sum_of_rows(world.server, include),
        {k: share_in(world, reply) for k, reply in replies.items()},
        server_state.expected_of(world.server.draft, len(entries)),
    )
    return found.counts


def test_04_a_member_answers_for_one_set():
    world = at("answer")
    entries = world.include().clients
    world.say(1, "included", include_quorum(world, entries))
    for restart in (False, True):
        if restart:
            world.restart(1)
        with pytest.raises(r.AlreadyDone):
            world.say(1, "included", include_quorum(world, entries[:-1]))
    assert not world.states[0].shares


def forgetful(who, state, label, body):
    """`member.say` of a member that writes nothing down."""
    return messages.encode(messages.make(who.key, label, state.digest, body))


def test_04_twin_without_its_memory_two_sets_are_opened_and_their_difference_is_one_client(monkeypatch):
    world = at("answer")
    monkeypatch.setattr(member, "said_of", lambda *_: None)
    monkeypatch.setattr(member, "say", forgetful)
    entries = world.include().clients
    kept = list(world.states)
    sums = []
    for some in (entries, entries[:-1]):
        world.states = list(kept)
        replies = {k: world.say(k, "included", include_quorum(world, some)) for k in ALL}
        sums.append(opened_from(world, replies, some))
    victim = next(i for i in range(5) if world.public(i) == entries[-1][0])
    assert (sums[0] - sums[1] == world.counts[victim]).all()


def lying(world: World, k: int, change):
    """Member k's projections for client 0 are changed; the rest is honest."""

    def tamper(blob: bytes) -> bytes:
        message = rounds.reread(blob)
        params, entries = world.params, world.server.committed
        (found,) = bodies.read_scalars(
            [blob], world.server.draft, world.digest, params, world.server.seed, entries
        ).values()
        place = [key for key, _ in entries].index(world.public(0))
        (q,) = params.ring.moduli
        scalars = found.scalars.copy()
        scalars[place] = (scalars[place].astype(np.int64) + change) % q
        lie = Shown(scalars, found.proofs)
        return world.signed(k, "projections", bodies.projections_body(message.body[:32], entries, lie, params))

    world.tamper("projections", tamper, k)
    return world


@pytest.mark.parametrize(("m", "kept"), [(6, True), (5, False)])
def test_18_a_wrong_scalar_costs_no_client_where_m_is_at_least_t_plus_2f(m, kept):
    world = World(m)
    world.begin()
    lying(world, 2, 1).go()
    assert (0 in world.inside()) is kept and world.exact() and len(world.inside()) == 4 + kept
    assert not world.server.opened.wrong  # nobody is blamed for what a client may have done


def test_18_three_clients_with_a_bad_share_each_do_not_stop_a_round():
    world = at("contribution", clients=6)
    for i in range(6):
        made = rounds.parts(world, i)
        if i < 3:
            made.corrections = made.corrections.copy()
            made.corrections[i, 0, 5] ^= 1
            made.corrections[i, 0, 5] %= world.params.ring.moduli[0]
        world.hear(rounds.seal(world, i, made))
    world.server, world.out = server.advance(world.server)
    world.go()
    assert {3, 4, 5} <= set(world.inside()) and len(world.inside()) == 4 and world.exact()


def test_44_a_lie_that_fits_one_false_set_costs_no_client():
    world = World()
    world.begin()
    world.go("projections")
    # the liar, 6, fits its scalar to members 1..3: with these alone the secret's functionals would be those of s + 1 at 0
    points = sharing.points(world.digest, 6, world.params.ring.moduli)
    weights = sharing.lagrange([points[k - 1] for k in (1, 2, 3, 6)], (0,), world.params.ring.moduli)
    (q,) = world.params.ring.moduli
    lying(world, 6, pow(int(weights[3, 0]), -1, q)).go()
    assert 0 in world.inside() and world.exact() and 6 not in world.include().members


def test_44_twin_where_t_members_decide_the_lie_leaves_it_out(monkeypatch):
    # the server proposes M of the false set: refused, since more members showed scalars than t; accepted where t + f is not asked for
    world = World()
    world.begin()
    lying(world, 6, 7).go("include")
    shown = [rounds.reread(blob) for blob in world.heard if rounds.reread(blob).label == "projections"]
    clients = tuple(e for e in world.server.committed if e[0] != world.public(0))
    body = bodies.include_body(Include(clients, (1, 2, 3, 6), ((world.public(0), 2),)))
    notice = prefixed(body) + bodies.many(messages.encode(m) for m in shown)
    with pytest.raises(r.NoQuorum):
        world.say(1, "judged", notice)
    world.states[0] = dataclasses.replace(
        world.states[0], terms=dataclasses.replace(world.states[0].terms, malicious=0)
    )
    assert rounds.reread(world.say(1, "judged", notice)).body == body


def test_18_documents_the_limit_a_server_that_hides_scalars_lets_an_accomplice_pass():
    """M may be all members that are shown: with t of them, a liar among these, nothing is left to contradict it (the protocol's section 1)."""
    world = at("contribution")
    shift = 100_000 * (np.arange(1024) == 3)
    made = rounds.parts(world, 4, shift=shift)
    with_client(world, rounds.seal(world, 4, made))
    world.go("include")
    assert world.inside() == [0, 1, 2, 3]
    params, entries, (q,) = world.params, world.server.committed, world.params.ring.moduli
    shown = {rounds.reread(b).sender: b for b in world.heard if rounds.reread(b).label == "projections"}
    shown = {k: shown[world.pinned.members[k - 1]] for k in (1, 2, 3, 4)}
    found = bodies.read_scalars(shown.values(), world.server.draft, world.digest, params, world.server.seed, entries)
    # member 4 is the accomplice: it answers as for a secret of zero, whatever the others' scalars are
    points = sharing.points(world.digest, 6, params.ring.moduli)
    weights = sharing.lagrange([points[k - 1] for k in (1, 2, 3, 4)], (0,), params.ring.moduli)[:, 0].astype(object)
    place = [key for key, _ in entries].index(world.public(4))
    rest = sum(int(weights[k - 1]) * found[k].scalars[place].astype(object) for k in (1, 2, 3)) % q
    lie = found[4].scalars.copy()
    lie[place] = (-rest * pow(int(weights[3]), -1, q) % q).astype(np.uint32)
    forged_ = world.signed(4, "projections", bodies.projections_body(world.server.seed, entries, Shown(lie), params))
    body = bodies.include_body(Include(entries, (1, 2, 3, 4), ()))
    some = prefixed(body) + bodies.many([shown[1], shown[2], shown[3], forged_])
    assert rounds.reread(world.say(1, "judged", some)).label == "include"
    everything = prefixed(body) + bodies.many([b for b in world.heard if rounds.reread(b).label == "projections"])
    with pytest.raises(r.NoQuorum):
        world.say(2, "judged", everything)


def test_44_documents_the_limit_malicious_clients_lend_a_lie_their_weight():
    """Who lies, a member about a client or clients to a member, nobody can tell: one honest client may be lost for each malicious one."""
    world = World(clients=6)
    world.begin()
    lying(world, 2, 1).go("contribution")
    world.contributions(range(4))
    for i in (4, 5):
        made = rounds.parts(world, i)
        (q,) = world.params.ring.moduli
        made.corrections = made.corrections.copy()
        made.corrections[1, 0, 5] = (made.corrections[1, 0, 5] + 1) % q  # member 5's
        world.hear(rounds.seal(world, i, made))
    world.server, world.out = server.advance(world.server)
    world.go()
    assert world.inside() == [1, 2, 3, 4, 5] and world.exact() and 5 not in world.include().members


def forged(world: World, k: int, how: str, subset) -> bytes:
    """Member k's answer, shifted so that the sum shifts by x where `subset` is what is combined."""
    params = world.params
    (q,) = params.ring.moduli
    x = np.zeros(1024, np.int64)
    x[:40] = params.ring.step * 11
    shift = rounds.form(world, x)
    if how == "off by one":
        shift = np.zeros_like(shift)
        shift[0, 9] = 1
    elif how == "a^-1 encode(x)":
        inverse = np.vectorize(lambda v: pow(int(v), -1, q) if v else 0)(rounds.common(world)[0])
        points = sharing.points(world.digest, 6, params.ring.moduli)
        weights = sharing.lagrange([points[j - 1] for j in subset], (0,), params.ring.moduli)
        scale = pow(int(weights[subset.index(k), 0]), -1, q) * (q - 1) % q
        shift = rounds.product(
            world, rounds.product(world, shift, inverse.astype(np.uint32)), np.full_like(shift, scale)
        )

    def tamper(blob: bytes) -> bytes:
        body = rounds.reread(blob).body
        share = rounds.plus(world, share_in(world, blob), shift)
        return world.signed(k, "answer", body[:32] + residue_bytes(share, params.ring.moduli))

    world.tamper("answer", tamper, k)
    return tamper


@pytest.mark.parametrize("how", ["off by one", "encode(x)", "a^-1 encode(x)"])
def test_19_a_wrong_answer_is_named(how):
    world = at("answer")
    assert world.params.rows == 1
    forged(world, 2, how, (1, 2, 3, 4))
    world.go()
    assert world.exact() and world.server.opened.wrong == (2,)


@pytest.mark.parametrize("how", ["off by one", "encode(x)", "a^-1 encode(x)"])
def test_19_with_t_answers_only_a_wrong_one_opens_nothing(how):
    world = at("answer")
    forged(world, 2, how, (1, 2, 3, 4))
    for k in (5, 6):
        world.tamper("answer", lambda blob: None, k)
    with pytest.raises(r.OpeningRefused):
        world.go()


def test_19_twin_without_the_look_at_the_secret_sum_a_shift_passes_with_one_row(monkeypatch):
    monkeypatch.setattr(opening, "small_secret", lambda *_: None)
    world = at("answer")
    forged(world, 2, "a^-1 encode(x)", (1, 2, 3, 4))
    for k in (5, 6):
        world.tamper("answer", lambda blob: None, k)
    world.go()
    assert (np.abs(world.server.opened.counts - world.counts.sum(0)) == 11).all()


def test_20_21_stale_or_split_sets_have_no_quorum():
    world = at("answer")
    entries = world.include().clients
    with pytest.raises(r.NoQuorum):  # three signatures, and three of them once more
        world.say(1, "included", include_quorum(world, entries[:-1], signers=(1, 2, 3)))
    stale = world.signed(4, "include", bodies.include_body(Include(entries[:-1], ALL, ())), digest=bytes(32))
    three = messages.decode_quorum(include_quorum(world, entries[:-1], signers=(1, 2, 3)))
    four = messages.quorum_of([rounds.reread(stale)], three.body)
    joined = three._replace(signatures=tuple(sorted((*three.signatures, *four.signatures))))
    with pytest.raises(r.NoQuorum):
        world.say(1, "included", messages.encode_quorum(joined))

    world = at("commit")
    halves = world.server.committed[:-1], world.server.committed[1:]
    signers = {0: [], 1: []}
    for k in ALL:
        signers[k % 2].append(rounds.reread(world.say(k, "propose", bodies.commit_body(halves[k % 2]))))
    for side in (0, 1):
        found = messages.encode_quorum(messages.quorum_of(signers[side], bodies.commit_body(halves[side])))
        with pytest.raises(r.NoQuorum):
            world.say(2 - side, "committed", found)


def test_20_21_twin_without_quorums_a_member_answers_what_the_server_says(monkeypatch):
    monkeypatch.setattr(member, "check_quorum", lambda *_: None)
    world = at("answer")
    entries = world.include().clients[:-1]
    world.say(1, "included", include_quorum(world, entries, signers=()))


def test_21_one_malicious_member_cannot_give_two_halves_a_quorum():
    for honest in itertools.combinations((2, 3, 4, 5, 6), 3):
        assert len({1, *honest}) >= 4 and len({1, *(set(ALL) - set(honest))}) < 4


def swapped(world: World, what: str):
    def tamper(blob: bytes) -> bytes:
        notice = messages.decode_notice(blob, 1 << 24, ["shares"])
        handed = bodies.read_handed(notice.body, world.server.draft)
        handed[0] = handed[0]._replace(**{what: getattr(handed[1], what)})
        return messages.encode_notice(notice._replace(body=bodies.handed_body(handed)))

    return tamper


@pytest.mark.parametrize("what", ["box", "correction"])
def test_22_43_a_swapped_box_or_correction_is_not_taken_and_no_kappa_leaves(what, monkeypatch):
    secret = []
    monkeypatch.setattr(keys, "box_opener", lambda seed: noting(REAL_OPENER(seed), secret))
    world = at("held")
    world.tamper("shares", swapped(world, what), 5)
    world.go("commit")
    reply = next(
        rounds.reread(b)
        for b in world.heard
        if rounds.reread(b).label == "held" and rounds.reread(b).sender == world.pinned.members[4]
    )
    first = world.server.committed  # without member 5, who cannot have them all, or without the client
    assert bodies.read_key_list(reply.body, 6) == (sorted(world.server.clients)[0],)
    assert len(first) == 5 and world.server.deciding == (1, 2, 3, 4, 6)
    assert secret and not any(kappa.value in blob for kappa in secret for blob in world.heard)
    world.go()
    assert world.exact()


REAL_OPENER = keys.box_opener


def noting(opener, found):
    return lambda *a: found.append(opener(*a)) or found[-1]


def test_22_twin_without_the_hashes_the_member_holds_another_share(monkeypatch):
    world = at("held")
    monkeypatch.setattr(
        member_shares,
        "read_manifest",
        lambda body, params: contribution.Manifest(b"", b"", (Anything(),) * 6, (Anything(),) * 3),
    )
    world.tamper("shares", swapped(world, "correction"), 5)
    world.go("commit")
    assert world.server.deciding == ALL


def test_22_a_swapped_row_does_not_open():
    world = at("answer")
    a, b = list(world.server.clients)[:2]
    taken = world.server.clients
    world.server = dataclasses.replace(
        world.server, clients={**taken, a: taken[a]._replace(attached=taken[b].attached)}
    )
    with pytest.raises(r.OpeningRefused):
        world.go()


def test_29_functionals_are_drawn_after_the_set_and_for_one_set():
    world = at("commit")
    with pytest.raises(r.OutOfOrder):
        world.say(1, "seeded", prefixed(quorum(world, "seed", bytes(32), ALL)))
    world.go("include")
    with pytest.raises(r.AlreadyDone):
        world.say(1, "seeded", prefixed(quorum(world, "seed", bytes(32), ALL)))
    with pytest.raises(r.AlreadyDone):
        world.say(1, "propose", bodies.commit_body(world.server.committed[:-1]))
    world.restart(1)
    with pytest.raises(r.AlreadyDone):
        world.say(1, "seeded", prefixed(quorum(world, "seed", bytes(32), ALL)))


def test_29_twin_without_its_memory_a_member_opens_functionals_of_the_servers_choice(monkeypatch):
    world = at("include")
    monkeypatch.setattr(member, "said_of", lambda *_: None)
    monkeypatch.setattr(member, "say", lambda who, state, label, body: body)
    assert world.say(1, "seeded", prefixed(quorum(world, "seed", bytes(32), ALL)))[:32] == bytes(32)


def test_32_a_set_below_the_minimum_is_not_opened():
    world = at("contribution", clients=3)
    world.contributions([0, 1])
    world.hear(rounds.seal(world, 2, rounds.parts(world, 2, shift=100_000 * (np.arange(1024) == 3))))
    world.server, world.out = server.advance(world.server)
    with pytest.raises(r.TinySet):
        world.go()
    assert not any(rounds.reread(blob).label in ("include", "answer") for blob in world.heard)
    assert small_set_refused(world) == r.TinySet


def small_set_refused(world: World):
    two = tuple(e for e in world.server.committed if e[0] != world.public(2))
    shown = [blob for blob in world.heard if rounds.reread(blob).label == "projections"]
    body = bodies.include_body(Include(two, ALL, ()))
    try:
        world.say(1, "judged", prefixed(body) + bodies.many(shown))
    except r.RoundRefused as refusal:
        return type(refusal)
    return None


def test_32_twin_a_member_without_a_minimum_signs_it(monkeypatch):
    monkeypatch.setattr(bodies, "_check_left_out", lambda *_: None)  # it also asks why the third client is left out
    world = at("contribution", clients=3)
    world.contributions([0, 1, 2])
    world.server, world.out = server.advance(world.server)
    world.go("include")
    state = world.states[0]
    world.states[0] = dataclasses.replace(state, terms=dataclasses.replace(state.terms, minimum=1))
    assert small_set_refused(world) is None


def test_36_documents_the_limit_two_malicious_members_open_two_sets():
    world = at("answer")
    entries, rest = world.include().clients, world.include().clients[:-1]
    evil, states = (5, 6), list(world.states)
    replies = {}
    for some, honest in ((entries, (1, 2)), (rest, (3, 4))):
        # what 2 t - m = 2 malicious members sign and answer twice, each half of the honest ones signs and answers once
        found = include_quorum(world, some, signers=(*honest, *evil))
        replies[len(some)] = {k: world.say(k, "included", found) for k in honest}
        for k in evil:
            shares = [states[k - 1].shares[key].share.value for key, _ in some]
            total = member.sum_of_shares(shares, world.params)
            replies[len(some)][k] = world.signed(
                k, "answer", bytes(32) + residue_bytes(total, world.params.ring.moduli)
            )
    one = opened_from(world, replies[5], entries) - opened_from(world, replies[4], rest)
    victim = next(i for i in range(5) if world.public(i) == entries[-1][0])
    assert (one == world.counts[victim]).all()
    # one of them, f = 1, has three signatures for the second set
    with pytest.raises(r.NoQuorum):
        messages.check_quorum(
            messages.decode_quorum(include_quorum(world, rest, signers=(3, 4, 6))),
            "include",
            world.digest,
            world.pinned.members,
            4,
        )


def test_45_a_member_that_showed_no_scalars_does_not_answer_and_is_not_blamed():
    world = World()
    world.begin()
    world.tamper("projections", lambda blob: None, 3)
    world.go("answer")
    assert world.include().members == (1, 2, 4, 5, 6)
    with pytest.raises(r.NoQuorum):
        world.say(3, "included", messages.decode_notice(world.out[0].blob, 1 << 20, ["included"]).body)
    world.hear(world.signed(3, "answer", answer_of_zeros(world)))
    world.go()
    assert world.exact() and world.server.opened.wrong == ()


def answer_of_zeros(world: World) -> bytes:
    zeros = np.zeros((1, 1024), np.uint32)
    return hashlib.sha256(world.server.included).digest() + residue_bytes(zeros, world.params.ring.moduli)


def test_45_twin_where_m_names_it_the_answer_is_used_and_blamed():
    world = at("answer")
    world.tamper("answer", lambda blob: world.signed(3, "answer", answer_of_zeros(world)), 3)
    world.go()
    assert world.server.opened.wrong == (3,)
