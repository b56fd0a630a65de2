"""The direct audit: reaches the claim's neighbourhood, never accuses the right mechanism, finds each weakened one."""

from __future__ import annotations

import pytest

import fedjax_poisson as fp
from fedjax_poisson import accounting
from fedjax_poisson.attacks import AuditedSystem, PrivacyClaim, audit_mechanism
from fedjax_poisson.attacks.audit import unit_sampler
from tests.federated.helpers import seeded

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


def test_a_biased_sample_of_records_is_found_and_the_right_one_is_not():
    assert not run(RIGHT, 0, RIGHT, rounds=1, sampling_rate=0.45).violated
    biased = run(RIGHT, 0, RIGHT, rounds=1, sampling_rate=0.3, sampler=unit_sampler(0.45))
    assert biased.violated


@pytest.mark.long
def test_other_mechanisms_are_drawn_release_by_release():
    """Skellam rounds under a bound on the whole vector: each draw is its own vector. A claim of twice its noise is found out."""
    actual, twice = (fp.skellam(clip_norm=1.0, scale=20.0, noise_variance=v) for v in (50.0, 100.0))
    settings = {"dimension": 1, "rounds": 1, "draws": 30_000}
    assert not run(actual, 0, actual, **settings).violated
    found = run(actual, 0, twice, **settings)
    assert found.violated and found.mechanism.startswith("skellam")
