"""Norm rounds whose parties are honest, late, away or restarted: exact sums with all of the noise, or nothing."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from fedjax_poisson import aggregation
from fedjax_poisson.aggregation import bare, committee, messages, round_keys, server, signs, transcript
from fedjax_poisson.aggregation import refusals as r
from fedjax_poisson.aggregation.norm_bound import NormScreening
from fedjax_poisson.aggregation.round_setting import RoundSetting, noise_sent, parameters_for
from fedjax_poisson.aggregation.terms import Pinned, encode_terms
from fedjax_poisson.randomness import bits, fold_in, skellam, skellam_tables, stream
from tests.aggregation import rounds
from tests.aggregation.rounds import World
from tests.helpers import stat


@pytest.fixture(scope="module")
def world() -> World:
    return rounds.opened(norm=True)


def test_an_honest_round_opens_the_sum_with_all_noise(world):
    assert world.exact() and world.inside() == [0, 1, 2, 3, 4] and not world.refused
    assert set(np.unique(world.signs())) == {-1, 1}


def test_three_primes_of_31_bits_where_four_would_be_shorter():
    """The whole round: rows, shares, proofs, functionals and opening in a ring that only norm rounds choose."""
    size = 30_000
    delta = int(2 * math.sqrt(size))
    setting = RoundSetting(
        bytes(16), 512_000, 2_500.0, 100, 3, 1, 5, 4, 1, "{}", size, NormScreening(delta**2, 5, 2),
        lambda own, count: np.asarray(bits(own, count) % 9, np.int32) - 4,
    )  # fmt: skip
    moduli = parameters_for(setting, size).ring.moduli
    assert len(moduli) == 3 and min(moduli) > 1 << 30
    root, rng, people = stream(), np.random.default_rng(0), committee.Committee(setting)
    under = committee.open_round(people, setting, 1, size, root)
    counts = rng.integers(-2, 3, (3, size)).astype(np.int32)
    counts[2] = 0
    assert (counts.astype(np.int64) ** 2).sum(axis=1).max() <= delta**2
    names = []
    for i, own in enumerate(counts):
        under, name = committee.add_contribution(people, under, own, fold_in(root, "client", i))
        names.append(name)
    under = committee.to_include(people, under, frozenset(names))
    state, _ = server.advance(committee.answered(people, under))
    shown = signs.read_certificate(
        under.certificate, state.draft, state.digest, round_keys.check_round_keys(state.draft)
    )
    noise = sum(noise_sent(setting, k, size, root)[0].astype(np.int64) for k in range(5))
    turned = signs.signs_of(size, state.draft, state.digest, shown) * noise
    assert (state.opened.counts == counts.astype(np.int64).sum(axis=0) + turned).all()


def test_a_light_round_has_no_noise_and_no_proofs():
    light = rounds.opened()
    assert light.exact() and light.params.proof is None
    assert {"noise", "proof"}.isdisjoint(rounds.reread(blob).label for blob in light.heard)


@pytest.mark.parametrize("m", [5, 6])
def test_members_and_clients_that_are_away(m):
    away = World(m, 5, norm=True)
    away.tamper("included", lambda blob: None, m)
    away.begin()
    away.go(senders=range(4))
    assert away.exact() and away.inside() == [0, 1, 2, 3]


def test_a_client_that_gives_no_proof_is_out_and_said_to_be(world):
    quiet = world.fresh()
    quiet.tamper("proof", lambda blob: None, 2)
    quiet.begin()
    quiet.go()
    assert quiet.exact() and quiet.inside() == [0, 1, 3, 4]
    assert quiet.include().left_out == ((quiet.public(2), 3),)


def test_parties_say_the_same_bytes_again(world):
    again = world.fresh()
    again.begin()
    again.go("noise")
    notice = again.out[0].blob
    body = messages.decode_notice(notice, 1 << 20, ["send noise"]).body
    again.go("proof")
    prove = again.out[0].blob
    first = again.proof_of(0, prove)
    assert again.proof_of(0, prove) == first
    from fedjax_poisson.aggregation import noise

    said = noise.contribute_noise(again.noise_senders[0], body, again.noise[1], stream())
    own = next(blob for blob in again.heard if blob == said)
    assert rounds.reread(own).label == "noise"
    again.go()
    assert again.exact()


@pytest.mark.parametrize("phase", ["contribution", "commit", "beacon-open", "seed", "proof", "include", "answer"])
def test_a_member_that_restarts_goes_on_or_stays_out(world, phase):
    some = world.fresh()
    some.begin()
    some.go(phase)
    some.restart(3)
    some.go()
    assert some.exact()


def test_what_a_proof_is_made_of_is_gone_when_it_was_given(world):
    for one in world.clients:
        assert one.store.get(world.run, 1, "secrets") == b""


def test_a_noise_sender_that_is_away_ends_the_round(world):
    away = world.fresh()
    away.tamper("noise", lambda blob: None, 4)
    away.begin()
    with pytest.raises(r.MissingNoise, match="5 of 6"):
        away.go()


def test_everything_is_there_in_its_phase(world):
    some = world.fresh()
    some.begin()
    for phase, count in (("noise", 6), ("proof", 5)):
        some.go(phase)
        assert not server.complete(some.server)
        (some.send_noise if phase == "noise" else some.prove)(some.out[0].blob)
        assert server.complete(some.server)
        assert len(some.server.clients if phase == "noise" else some.server.proofs) == count
        some.server, some.out = server.advance(some.server)
    some.go()
    assert some.exact()


def test_a_transcript_of_a_norm_round_is_checked_again(world):
    blob = transcript.write_transcript(world.server)
    found = transcript.check_transcript(blob, world.pinned)
    assert (found.counts == world.server.opened.counts).all() and len(found.clients) == 5
    assert transcript.check_transcript(blob).counts is not None
    other = world.pinned._replace(honest_noise=world.pinned.honest_noise - 1)
    with pytest.raises(r.BadTerms, match="honest noise senders"):
        transcript.check_transcript(blob, other)
    light = Pinned(*world.pinned[:6])
    with pytest.raises(r.BadTerms, match="noise senders, which are not"):
        transcript.check_transcript(blob, light)


def test_a_round_that_is_given_up_is_dead_for_its_clients(world):
    from fedjax_poisson.aggregation import client
    from fedjax_poisson.aggregation.wire import Reader

    some = world.fresh()
    some.begin()
    some.go("proof")
    some.server, some.out = server.abandon(some.server)
    for one in some.out:
        some.hear(some.tell(one.to, one.blob))
    some.server, (dead,) = server.advance(some.server)
    reader = Reader(messages.decode_notice(dead.blob, 1 << 20, ["dead"]).body)
    assert client.taken_back(some.clients[0], reader.prefixed(), reader.prefixed()).round == 1
    with pytest.raises(r.OutOfOrder):
        some.tell(1, messages.encode_notice(messages.Notice("seeded", b"")))


SIZE, SENDERS, HONEST = 3_000, 4, 2


@functools.cache
def tables(variance: float):
    return skellam_tables(variance / 2)


def local(*, authenticate: bool, noise_variance: float, members: int = 5):
    delta = 2 * math.sqrt(SIZE)
    total = members * noise_variance
    return aggregation.aggregator(
        "round",
        count_bound=math.ceil(SENDERS * delta + 12 * math.sqrt(total)),
        senders=SENDERS,
        size=SIZE,
        members=members,
        count_rms=math.sqrt(total) * 1.3 + SENDERS * delta / math.sqrt(SIZE),
        norm=NormScreening(int(delta**2), members, HONEST),
        noise=lambda root, size: np.asarray(skellam(root, (size,), tables(noise_variance))),
        authenticate=authenticate,
    )


def vectors() -> np.ndarray:
    drawn = np.random.default_rng(5).normal(size=(SENDERS, SIZE))
    return np.trunc(drawn / np.linalg.norm(drawn, axis=1, keepdims=True) * 2 * math.sqrt(SIZE)).astype(np.int32)


@pytest.mark.statistical
@pytest.mark.parametrize("authenticate", [True, False])
def test_the_noise_of_all_senders_is_in_the_sum_once(authenticate):
    """Twin: the variance of one sender less, or of twice as many, is refused by the same interval."""
    agg, found = local(authenticate=authenticate, noise_variance=900.0), []
    x = vectors()
    for number in range(3):
        root = fold_in(stream(), number)
        sealed = [agg.encrypt(one, fold_in(root, i)) for i, one in enumerate(x)]
        total = functools.reduce(agg.add, sealed)
        found.append(agg.open(total, SIZE).counts - x.sum(0))
    noise = np.concatenate(found).astype(np.float64)
    stat.assert_moments(noise, 0.0, 5 * 900.0)
    for wrong in (4 * 900.0, 10 * 900.0):
        with pytest.raises(AssertionError):
            stat.assert_moments(noise, 0.0, wrong)


def test_a_bare_sum_without_its_noise_is_not_opened():
    """The first contribution since the last sum carries the noise: a sum of the others would open clean counts."""
    agg, x, root = local(authenticate=False, noise_variance=900.0), vectors(), stream()
    sealed = [agg.encrypt(one, fold_in(root, i)) for i, one in enumerate(x)]
    again = agg.encrypt(x[0], fold_in(root, 9))
    clean = functools.reduce(agg.add, [*sealed[1:], again])
    with pytest.raises(r.RoundRefused, match="noise of 0 noise senders"):
        agg.open(clean, SIZE)
    assert agg.open(functools.reduce(agg.add, sealed), SIZE).senders == SENDERS


def test_a_sum_of_a_program_without_noise_is_not_opened_whatever_its_senders():
    """More clients than the minimum and the noise senders together are no noise: a sum says how many of its senders are noise senders."""
    agg, x, root = local(authenticate=False, noise_variance=900.0), vectors(), stream()
    key = agg.device.key
    clean = functools.reduce(agg.device.add, [agg.device.encrypt(key, x[i % 4], fold_in(root, i)) for i in range(9)])
    with pytest.raises(r.RoundRefused, match="noise of 0 noise senders, not of 5"):
        agg.open(agg.wrap(clean, SIZE)._replace(senders=SENDERS), SIZE)
    few = functools.reduce(agg.device.add, [agg.device.encrypt(key, x[i], fold_in(root, i)) for i in range(4)])
    for number in range(5):
        noise = skellam(fold_in(root, "noise", number), (SIZE,), tables(900.0))
        few = agg.device.add(few, bare.as_noise(agg.device.encrypt(key, noise, fold_in(root, 10 + number))))
    assert agg.open(agg.wrap(few, SIZE), SIZE).senders == SENDERS


def test_the_aggregator_says_what_it_holds_and_what_it_needs():
    agg = local(authenticate=True, noise_variance=900.0)
    assert agg.info.norm is not None and "5 parties send it (2 of them are counted on)" in agg.info.protects
    assert "light rounds" not in agg.info.protects
    light = aggregation.aggregator("round", count_bound=10, senders=4)
    assert light.info.norm is None and "light rounds" in light.info.protects
    for missing in ({"noise": None}, {"size": None}, {"count_rms": None}):
        facts = {
            "count_bound": 5_000,
            "senders": 4,
            "size": SIZE,
            "count_rms": 90.0,
            "norm": NormScreening(100, 5, 2),
            "noise": lambda root, size: np.zeros(size, np.int32),
        }
        with pytest.raises(ValueError, match="norm rounds need"):
            aggregation.aggregator("round", **{**facts, **missing})


def test_the_bytes_of_a_client_are_those_of_its_messages(world):
    from fedjax_poisson.aggregation.round_setting import message_bytes

    own = [blob for blob in world.heard if rounds.reread(blob).sender == world.public(0)]
    assert [rounds.reread(blob).label for blob in own] == ["contribution", "proof"]
    assert sum(map(len, own)) == message_bytes(world.params)
    assert len(encode_terms(world.server.draft)) < 1 << 17
