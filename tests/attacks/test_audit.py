"""The direct audit: reaches the claim's neighbourhood, never accuses the right mechanism, finds each weakened one."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

import fedjax_poisson as fp
from fedjax_poisson import accounting
from fedjax_poisson.accounting.gaussian import gaussian_delta
from fedjax_poisson.attacks import AuditedSystem, PrivacyClaim, audit_mechanism, claimed_delta, worst_pair
from fedjax_poisson.attacks.audit import unit_sampler
from fedjax_poisson.attacks.worst_pair import draw_statistics
from tests.federated.helpers import seeded
from tests.helpers.stat import assert_moments

SENDERS, DELTA, DIMENSION, DRAWS = 4, 1e-5, 64, 40_000


def calibrated(epsilon: float, rounds: int = 2):
    dark = accounting.calibrate_dark_count(
        epsilon=epsilon,
        delta=DELTA,
        rounds=rounds,
        modulation=0.05,
        honest_senders=SENDERS,
        norm_ratio=1.0,
        dimension=DIMENSION,
    )
    return fp.poisson_embedding(clip_norm=1.0, coordinate_bound=1.0, dark_count=dark, modulation=0.05)


def announced(mechanism, **factors):
    """What would be announced if `mechanism` were the weakened one: its parameters times these factors."""
    facts = {name: value * factors.get(name, 1.0) for name, value in mechanism.facts.parameters if value is not None}
    return fp.poisson_embedding(**facts)


RIGHT = calibrated(3.0)


def run(mechanism, seed, claim, **settings):
    senders = settings.pop("senders", SENDERS)
    system = {name: settings.pop(name) for name in ("sampler", "round_stream") if name in settings}
    announced = {"dimension": DIMENSION, "honest_senders": settings.pop("claimed_senders", senders)} | settings
    return audit_mechanism(
        AuditedSystem(mechanism, senders, **system), PrivacyClaim(claim, **announced), seeded(seed), draws=DRAWS
    )


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
def test_the_right_mechanism_is_never_accused_and_a_third_of_its_epsilon_is_shown(epsilon):
    mechanism = RIGHT if epsilon == 3.0 else calibrated(epsilon)
    audits = [run(mechanism, seed, mechanism) for seed in range(20 if epsilon == 3.0 else 5)]
    assert not any(audit.violated for audit in audits)
    assert all(0.3 * epsilon <= audit.epsilon_lower <= audit.epsilon_claimed for audit in audits)
    assert audits[0].epsilon_claimed == pytest.approx(epsilon, rel=1e-6)
    # Power: what is measured at epsilon 0 is nearly what is claimed.
    assert all(audit.curve[0].measured_delta > 0.75 * audit.curve[0].claimed_delta for audit in audits)


def _same_stream(stream, number):
    return stream


def test_weakened_mechanisms_are_found():
    for seed in range(3):
        # What runs is RIGHT; what was announced has noise 1 / 0.8 times as large, or rates that move 1 / 1.25 times as far.
        assert run(RIGHT, seed, announced(RIGHT, dark_count=0.8**2)).violated
        assert run(RIGHT, seed, announced(RIGHT, modulation=1 / 1.25)).violated
        assert run(RIGHT, seed, RIGHT, senders=3, claimed_senders=4).violated  # n instead of honest senders
        reused = run(RIGHT, seed, RIGHT, round_stream=_same_stream)
        assert reused.violated and reused.epsilon_lower > reused.epsilon_claimed


def test_reused_noise_cancels_between_rounds_of_opposite_sign():
    pair = worst_pair(RIGHT, DIMENSION)
    draw = functools.partial(draw_statistics, RIGHT, pair, seeded(0), 5000, present=False, senders=SENDERS)
    assert not draw(rounds=2, round_stream=_same_stream).any()
    events = (
        2 * SENDERS * dict(RIGHT.facts.parameters)["dark_count"]
    )  # variance of a sum of counts, without the target's move
    fresh = draw(rounds=2)
    assert_moments(fresh, 0.0, 2 * events)
    with pytest.raises(AssertionError):
        assert_moments(fresh, 0.0, 2 * events * 0.8)


def test_a_biased_sample_of_records_is_found_and_the_right_one_is_not():
    assert not run(RIGHT, 0, RIGHT, rounds=1, sampling_rate=0.45).violated
    biased = run(RIGHT, 0, RIGHT, rounds=1, sampling_rate=0.3, sampler=unit_sampler(0.45))
    assert biased.violated


def test_the_worst_pair_moves_the_target_by_its_whole_clip():
    spread = fp.poisson_embedding(
        clip_norm=1.0, coordinate_bound=0.6, dark_count=100.0, modulation=0.1, total_bound=6.0
    )
    pair = worst_pair(spread, 10)
    step = 6.0 / 2**20
    np.testing.assert_allclose(pair.move * step, [-0.6, -0.6, -math.sqrt(1 - 2 * 0.36)], atol=3 * step)
    assert (pair.others == -(2**20)).all() and (pair.without + pair.move == pair.others).all()
    assert len(worst_pair(spread, 2).move) == 2
    single = worst_pair(fp.gaussian(clip_norm=2.0, noise_std=1.0), 10)
    assert len(single.move) == 1 and single.others[0] == 0 and single.without[0] == 0
    with pytest.raises(ValueError, match="audit its parts"):
        worst_pair(fp.mechanisms.grouped([(8, spread), (8, spread)]), 16)


def test_the_claimed_curve_is_the_better_of_both_accountants():
    z = math.sqrt(RIGHT.variance(SENDERS) / 2)
    tight = claimed_delta(RIGHT, 0.0, honest_senders=SENDERS, dimension=DIMENSION, rounds=2)
    assert gaussian_delta(0.0, z) <= tight <= 1.02 * gaussian_delta(0.0, z)
    assert claimed_delta(RIGHT, 3.0, honest_senders=SENDERS, dimension=DIMENSION, rounds=2) <= DELTA * (1 + 1e-9)
    gauss = fp.gaussian(clip_norm=1.0, noise_std=0.5)
    assert claimed_delta(gauss, 1.0, honest_senders=4, dimension=1) == pytest.approx(gaussian_delta(1.0, 1.0))
    skellam = fp.skellam(clip_norm=1.0, scale=20.0, noise_variance=400.0)
    assert 0 < claimed_delta(skellam, 1.0, honest_senders=4, dimension=4) < 1


@pytest.mark.long
def test_other_mechanisms_are_drawn_release_by_release():
    """Skellam rounds under a bound on the whole vector: each draw is its own vector. A claim of twice its noise is found out."""
    actual, twice = (fp.skellam(clip_norm=1.0, scale=20.0, noise_variance=v) for v in (50.0, 100.0))
    settings = {"dimension": 1, "rounds": 1, "draws": 30_000}
    assert not run(actual, 0, actual, **settings).violated
    found = run(actual, 0, twice, **settings)
    assert found.violated and found.mechanism.startswith("skellam")
