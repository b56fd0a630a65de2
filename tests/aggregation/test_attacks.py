"""Attacks on a round by clients and on its terms, numbered as in `docs/explanation/attacks_that_fail.md`; a twin has the one check off."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedjax_poisson.aggregation import (
    bodies,
    contribution,
    keys,
    member_shares,
    messages,
    opening,
    screening,
    server,
    sharing,
)
from fedjax_poisson.aggregation import refusals as r
from fedjax_poisson.aggregation import terms as terms_module
from fedjax_poisson.aggregation.parameters import HINTS, choose
from fedjax_poisson.aggregation.terms import encode_terms
from fedjax_poisson.aggregation.wire import Reader, prefixed, u32, u64
from tests.aggregation import rounds
from tests.aggregation.rounds import World


def at(phase: str, m: int = 6, clients: int = 5, **changes) -> World:
    """A world whose server waits for `phase`."""
    world = World(m, clients)
    world.begin(**changes)
    return world.go(phase)


def with_client(world: World, blob: bytes, i: int = 4) -> World:
    """All clients but i contribute honestly, i by `blob`; the server ends the phase."""
    world.contributions([k for k in range(len(world.clients)) if k != i])
    world.hear(blob)
    world.server, world.out = server.advance(world.server)
    return world


def unchecked(blob, terms, digest, senders, labels):
    """`messages.decode` without a check."""
    return rounds.reread(blob)


def everything_passes(params, signs, values):
    return np.ones(len(values), bool)


def everything_agrees(params, digest, numbers, scalars):
    return np.ones(scalars.shape[1], bool), REAL_AGREEING(params, digest, numbers, scalars)[1]


REAL_AGREEING = screening.agreeing
LARGE = np.zeros(1024, np.int64)
LARGE[:40] = 488 * np.arange(1, 41)  # encode(1, 2, .., 40): whole steps


class Anything:
    """Equal to whatever it is compared with."""

    __hash__ = None

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False


def zero_rows(world: World, shift) -> bytes:
    made = rounds.parts(world, 4, shift=shift)
    return rounds.seal(world, 4, dataclasses.replace(made, rows=np.zeros_like(made.rows)))


def test_01_rows_of_zero_and_an_encoded_secret_are_left_out():
    world = at("contribution")
    with_client(world, zero_rows(world, LARGE)).go()
    assert world.inside() == [0, 1, 2, 3] and world.exact()
    assert dict(world.include().left_out) == {world.public(4): 2}


def test_01_twin_without_the_verdict_it_is_in_the_sum_and_the_round_stops(monkeypatch):
    monkeypatch.setattr(screening, "judge", everything_passes)
    world = at("contribution")
    with_client(world, zero_rows(world, LARGE)).go("answer")
    assert world.inside() == [0, 1, 2, 3, 4]
    with pytest.raises(r.OpeningRefused):
        world.go()


def of_other_terms(world: World) -> bytes:
    """A member's list with a contribution that an enrolled client signed for other terms, its box made for these."""
    made = rounds.reread(rounds.seal(world, 4, rounds.parts(world, 4)))
    parts = contribution.read_contribution(made, world.params)
    other = messages.make(world.client_keys[4], "contribution", bytes(32), made.body)
    return bodies.handed_body([bodies.Handed(messages.encode(other), parts.boxes[0], b"")])


def test_02_a_crafted_sum_for_a_member_is_of_wrong_terms():
    world = at("contribution")
    with pytest.raises(r.WrongTerms):
        world.say(1, "shares", of_other_terms(world))
    with pytest.raises(r.UnknownMessage):
        world.say(1, "decrypt", bytes(100))
    assert not world.states[0].shares


def test_02_twin_without_the_comparison_the_member_holds_it(monkeypatch):
    world = at("contribution")
    monkeypatch.setattr(messages, "decode", unchecked)
    world.say(1, "shares", of_other_terms(world))
    assert len(world.states[0].shares) == 1


def test_03_one_client_is_no_sum():
    world = at("commit")
    one = bodies.commit_body(world.server.committed[:1])
    with pytest.raises(r.TinySet):
        world.say(1, "propose", one)
    world.go("include")
    include = bodies.Include(world.server.committed[:1], (1, 2, 3, 4, 5, 6), ())
    with pytest.raises(r.TinySet):
        world.say(1, "judged", prefixed(bodies.include_body(include)) + bodies.many([]))
    body = bodies.include_body(include)
    with pytest.raises(r.TinySet):
        world.say(1, "included", quorum(world, "include", body, range(1, 7)))


def test_03_twin_a_member_whose_floor_is_one_opens_one_client():
    world = World(clients=1, least_honest=1)
    world.begin(minimum=1, corrupt=0)
    world.go()
    assert (world.server.opened.counts == world.counts[0]).all()
    other = World(clients=1)  # pinned: two honest senders
    other.begin(minimum=1, corrupt=0)
    with pytest.raises(r.NoQuorum):
        other.go()
    assert set(other.names()) == {"BadTerms"}


def quorum(world: World, label: str, body: bytes, signers) -> bytes:
    """The signatures of some members under a body, whatever these members would say."""
    made = [rounds.reread(world.signed(k, label, body)) for k in signers]
    return messages.encode_quorum(messages.quorum_of(made, body))


@pytest.mark.parametrize(("threshold", "number"), [(3, 5), (1, 6)])
def test_05_06_thresholds_that_allow_two_sets_are_refused(threshold, number):
    world = World()
    pinned = world.pinned._replace(threshold=threshold)
    with pytest.raises(r.BadTerms, match="two sets"):
        terms_module.check_terms(keyed(world, threshold=threshold), pinned)


def test_05_06_twin_two_disjoint_committees_certify(monkeypatch):
    world = at("certify")
    monkeypatch.setattr(terms_module, "least_threshold", lambda m, f: 1)
    terms_module.check_terms(keyed(world, threshold=3), world.pinned._replace(threshold=3))
    for body, signers in ((b"D", (1, 2, 3)), (b"other D", (4, 5, 6))):
        found = messages.decode_quorum(quorum(world, "commit", body, signers))
        messages.check_quorum(found, "commit", world.digest, world.pinned.members, 3)


def keyed(world: World, **changes):
    """Terms with the members' round keys."""
    if world.server is None:
        world.begin()
        world.go("certify")
    return dataclasses.replace(world.server.draft, **changes)


def test_07_a_copy_under_another_key_does_not_hold():
    world = at("contribution", clients=6)
    (invite,) = world.out
    honest = rounds.reread(world.contribute(0, invite.blob))
    with pytest.raises(r.BadSignature):
        world.hear(messages.encode(honest._replace(sender=world.public(5))))
    # signed again by the thief, it reaches the members, and no box opens: they are bound to the client's key
    world.hear(
        messages.encode(messages.make(world.client_keys[5], "contribution", world.digest, honest.body, honest.attached))
    )
    world.contributions(range(5))
    world.server, world.out = server.advance(world.server)
    world.go()
    assert world.inside() == [0, 1, 2, 3, 4] and world.exact()


def test_07_twin_where_boxes_are_not_bound_the_copy_counts_twice(monkeypatch):
    for module in (contribution, member_shares):
        monkeypatch.setattr(module, "box_info", lambda terms, public, number: b"")
    world = at("contribution", clients=6)
    (invite,) = world.out
    honest = rounds.reread(world.contribute(0, invite.blob))
    world.hear(
        messages.encode(messages.make(world.client_keys[5], "contribution", world.digest, honest.body, honest.attached))
    )
    world.contributions(range(5))
    world.server, world.out = server.advance(world.server)
    world.go()
    assert (world.server.opened.counts == world.counts[:5].sum(0) + world.counts[0]).all()


def twice(world: World) -> bytes:
    first = world.server.committed[0]
    return u32(len(world.server.committed) + 1) + b"".join(a + b for a, b in sorted((first, *world.server.committed)))


def test_08_a_client_counts_once():
    world = at("contribution")
    world.contributions(range(5))
    with pytest.raises(r.DuplicateClient):
        world.hear(rounds.seal(world, 4, rounds.parts(world, 4)))
    world.server, world.out = server.advance(world.server)
    world.go("commit")
    with pytest.raises(r.DuplicateClient):
        world.say(1, "propose", twice(world))


def test_08_twin_without_the_comparison_a_member_signs_a_client_twice(monkeypatch):
    world = at("commit")
    monkeypatch.setattr(Reader, "increasing", lambda self, n, w: [self.take(w) for _ in range(n)])
    reply = rounds.reread(world.say(1, "propose", twice(world)))
    assert reply.label == "commit" and reply.body == twice(world)


def test_09_10_what_is_of_another_round_is_refused_and_changes_nothing():
    world = at("contribution")
    (invite,) = world.out
    old = world.contribute(0, invite.blob)
    world.begin(2)
    world.go("contribution")
    before = world.server
    with pytest.raises(r.WrongTerms):
        world.hear(old)
    handed = bodies.handed_body([bodies.Handed(messages.encode(rounds.reread(old)._replace(attached=b"")), b"", b"")])
    with pytest.raises(r.WrongTerms):
        world.say(1, "shares", handed)
    for run, number, name in ((bytes(16), 3, r.WrongTerms), (world.run, 1, r.RoundUsed)):
        with pytest.raises(name):
            world.say(1, "begin", run + u64(number))
    with pytest.raises(r.AlreadyDone):
        world.say(1, "terms", encode_terms(dataclasses.replace(world.server.draft, round=7)))
    world.say(1, "begin", world.run + u64(3))
    with pytest.raises(r.RoundUsed):  # the first terms do not set the round either
        world.say(1, "terms", encode_terms(world.server.draft))
    assert world.server is before and world.states[0].round == 3


def test_10_twin_without_the_comparison_the_server_counts_the_replay(monkeypatch):
    world = at("contribution")
    (invite,) = world.out
    old = world.contribute(0, invite.blob)
    world.begin(2)
    world.go("contribution")
    monkeypatch.setattr(messages, "decode", unchecked)
    monkeypatch.setattr(
        contribution,
        "read_manifest",
        lambda body, params: REAL_MANIFEST(body, params)._replace(certificate=Anything()),
    )
    world.hear(old)
    assert world.public(0) in world.server.clients


REAL_MANIFEST = contribution.read_manifest


def test_11_a_sender_counts_once_whatever_it_claims():
    world = at("contribution")
    blob = rounds.seal(world, 4, rounds.parts(world, 4, counts=5 * world.counts[4]))
    for claim in (prefixed(b"five"), u32(5)):
        with pytest.raises(r.Malformed):
            world.hear(blob + claim)
    with_client(world, blob).go()
    assert len(world.include().clients) == 5


def test_11_twin_five_keys_on_the_roster_are_five():
    assert len(rounds.opened(clients=6).include().clients) == 6


def test_12_rows_of_zero_under_a_secret_of_zero_count_as_zero():
    world = at("contribution")
    made = without_secret(world, rounds.parts(world, 4))
    with_client(world, rounds.seal(world, 4, dataclasses.replace(made, rows=np.zeros_like(made.rows)))).go()
    assert world.inside() == [0, 1, 2, 3, 4]
    assert (world.server.opened.counts == world.counts[:4].sum(0)).all()


def without_secret(world: World, made: rounds.Parts) -> rounds.Parts:
    """The shares of s + (-s): a polynomial through 0."""
    params = world.params
    weights = sharing.dealing_weights(world.digest, params.members, params.threshold, params.ring.moduli)
    moved = rounds.form(world, -made.secret)
    weight = np.broadcast_to(np.asarray(weights)[:, 0, :, None], made.corrections.shape)
    moved = rounds.plus(world, made.corrections, rounds.product(world, weight, moved[None]))
    return dataclasses.replace(made, secret=0 * made.secret, corrections=moved)


def test_12_twin_rows_of_zero_under_another_secret_stop_the_round():
    world = at("contribution")
    with_client(world, zero_rows(world, None)).go("answer")
    with pytest.raises(r.OpeningRefused):
        world.go()


def near_half(world: World) -> bytes:
    made = rounds.parts(world, 4)
    shift = np.zeros(1024, np.int64)
    shift[::2] = 243 * (-1) ** np.arange(512)
    return rounds.seal(
        world, 4, dataclasses.replace(made, rows=rounds.plus(world, made.rows, rounds.form(world, shift)[None]))
    )


def test_16_a_large_secret_is_left_out_and_large_errors_stop_the_round():
    world = at("contribution")
    with_client(world, rounds.seal(world, 4, rounds.parts(world, 4, shift=100_000 * (np.arange(1024) == 3)))).go()
    assert world.inside() == [0, 1, 2, 3] and world.exact()
    world = at("contribution")
    with_client(world, near_half(world)).go("answer")
    with pytest.raises(r.OpeningRefused) as refused:
        world.go()
    assert not any(key.hex()[:8] in str(refused.value) for key, _ in world.include().clients)


def test_16_twin_with_a_margin_of_a_whole_step_it_opens(monkeypatch):
    monkeypatch.setattr(opening, "MARGIN", 1.0)
    monkeypatch.setattr(opening, "allowed_rms", lambda clients, corrupt=0: 1e9)
    monkeypatch.setattr(opening, "checked", lenient)
    world = at("contribution")
    with_client(world, near_half(world)).go()
    assert not world.exact()


def lenient(params, form, counts, largest, rms, expected):
    """`opening.checked` that looks at no residue and at nothing behind the vector."""
    return np.asarray(counts)[: params.size], ""


@pytest.mark.parametrize("how", ["degree t", "one residue"])
def test_17_shares_off_a_polynomial_are_left_out(how):
    world = at("contribution")
    with_client(world, off_polynomial(world, how)).go()
    assert world.inside() == [0, 1, 2, 3] and world.exact()
    assert dict(world.include().left_out) == {world.public(4): 1}


def off_polynomial(world: World, how: str) -> bytes:
    made, (q,) = rounds.parts(world, 4), world.params.ring.moduli
    corrections = made.corrections.copy()
    if how == "one residue":
        corrections[1:, 0, 17] = (
            corrections[1:, 0, 17] + 1
        ) % q  # for two members: with one wrong share only, five of six agree
    else:
        at_ = sharing.points(world.digest, 6, (q,))
        for place in range(3):
            x = at_[3 + place][0]
            term = x * np.prod([x - at_[j][0] for j in range(3)], dtype=object) % q
            corrections[place] = (corrections[place] + term) % q
    return rounds.seal(world, 4, dataclasses.replace(made, corrections=corrections.astype(np.uint32)))


def test_17_twin_without_the_consistency_it_is_in_the_sum(monkeypatch):
    monkeypatch.setattr(screening, "agreeing", everything_agrees)
    world = at("contribution")
    with_client(world, off_polynomial(world, "one residue")).go("answer")
    assert world.inside() == [0, 1, 2, 3, 4]


def test_17_another_secret_in_one_prime_is_not_small():
    params = choose(100_000, 200, 10, 6, 4)
    assert params.ring.limbs > 1
    signs = np.ones((12, params.ring.degree), np.int32)
    signs[np.arange(12), np.arange(12)] = -1
    values = np.full((2, HINTS, params.ring.limbs), 5, np.uint64)
    values[1, 3, -1] = 6
    assert screening.judge(params, signs, values).tolist() == [True, False]


def test_23_signatures_labels_terms_and_rosters():
    world = at("contribution")
    (invite,) = world.out
    honest = rounds.reread(world.contribute(0, invite.blob))
    stranger = keys.new_signing_key()
    cases = [
        (honest._replace(signature=bytes(64)), r.BadSignature),
        (honest._replace(label="commit"), r.UnknownMessage),
        (honest._replace(terms=bytes(32)), r.WrongTerms),
        (messages.make(stranger, "contribution", world.digest, honest.body, honest.attached), r.UnknownSender),
        (
            messages.make(world.member_keys[0], "contribution", world.digest, honest.body, honest.attached),
            r.UnknownSender,
        ),
        (honest._replace(signature=keys.sign(world.client_keys[0], "held", world.digest, honest.body)), r.BadSignature),
    ]
    for changed, name in cases:
        with pytest.raises(name):
            world.hear(messages.encode(changed))
    assert not world.server.clients
    world.hear(messages.encode(honest))


def test_23_twin_where_signatures_are_not_verified_a_stripped_one_counts(monkeypatch):
    world = at("contribution")
    (invite,) = world.out
    honest = rounds.reread(world.contribute(0, invite.blob))
    monkeypatch.setattr(keys, "verify", lambda *_: None)
    world.hear(messages.encode(honest._replace(signature=bytes(64))))
    assert len(world.server.clients) == 1
