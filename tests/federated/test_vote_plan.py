"""The law of a vote: the reference table, the exact tail, the rates in simulation with the real embedding, and twins with a wrong noise."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fedjax_poisson.federated.vote_plan import (
    VotePlan,
    exact_noise_tail,
    planned,
    vote_epsilon,
    vote_mechanism,
    vote_power,
    vote_spread,
    vote_threshold,
)
from fedjax_poisson.randomness import fold_in
from tests.federated.helpers import seeded

CLIENTS = VotePlan(senders=1000, records=10, noise=10.0, unit="client")


def _sites(senders, records, **more):
    return VotePlan(senders=senders, records=records, noise=5.0, **more)


@pytest.mark.parametrize(
    ("plan", "power"),
    [
        (_sites(5, 50), (0.17, 0.52, 0.96)),
        (_sites(20, 50), (0.51, 0.99, 1.0)),
        (_sites(5, 500), (0.87, 1.0, 1.0)),
        (_sites(20, 500), (1.0, 1.0, 1.0)),
        (CLIENTS, (0.60, 1.0, 1.0)),
    ],
)
def test_the_table_of_the_protocol(plan, power):
    found = [vote_power(plan, loss) for loss in (0.02, 0.05, 0.1)]
    np.testing.assert_allclose(found, power, atol=0.006)


def test_the_price_of_the_protocol_and_that_a_colluder_raises_it():
    assert round(vote_epsilon(_sites(5, 50), honest_senders=5), 2) == 0.73
    assert round(vote_epsilon(CLIENTS, honest_senders=1000), 2) == 0.34
    assert vote_epsilon(_sites(5, 50)) > 0.8 > vote_epsilon(_sites(5, 50), honest_senders=5)
    assert vote_epsilon(_sites(5, 50), votes=10) > 2 * vote_epsilon(_sites(5, 50))


@pytest.mark.parametrize("plan", [_sites(5, 50), _sites(20, 500), CLIENTS])
def test_the_normal_tail_is_the_exact_one_within_a_fiftieth(plan):
    for rate in (0.05, 0.01):
        assert abs(exact_noise_tail(plan, plan.noise * stats.norm.ppf(rate)) / rate - 1) < 0.02
        assert abs(exact_noise_tail(plan, 0.9 * plan.noise * stats.norm.ppf(rate)) / rate - 1) > 0.15  # a wrong noise


def test_the_mechanism_has_the_noise_of_the_plan():
    for plan in (_sites(5, 50), _sites(20, 500), CLIENTS):
        assert vote_mechanism(plan).variance(plan.senders) == pytest.approx(plan.noise**2, rel=1e-9)
        assert vote_threshold(plan) == pytest.approx(-1.6448536 * vote_spread(plan))


def _rollbacks(plan, loss, votes=20_000, cut=True):
    """How many of many votes roll back, with the real embedding: each coordinate of a vector is a vote of its own."""
    rng, mechanism, root = np.random.default_rng(3), vote_mechanism(plan), seeded(9)
    total = np.zeros(votes, np.int64)
    one = int(mechanism.clip(jnp.ones(1, jnp.float32))[0])
    for sender in range(plan.senders):
        up, down = (plan.changing - loss) / 2, (plan.changing + loss) / 2
        counts = rng.multinomial(plan.records, [up, down, 1 - up - down], size=votes)
        grid = jnp.asarray((counts[:, 0] - counts[:, 1]) * one, jnp.int32)
        total += np.asarray(mechanism.embed(fold_in(root, sender), grid))
    scores = np.asarray(mechanism.estimate(jnp.asarray(total, jnp.int32), plan.senders))
    return scores


@pytest.mark.statistical
@pytest.mark.parametrize("loss", [0.0, 0.02, 0.05])
def test_rates_in_simulation_are_those_of_the_formula_and_a_wrong_noise_is_noticed(loss):
    """Error of the test: 1e-6, a binomial test of 20,000 votes. The twin takes the noise for 4 records instead of 5."""
    plan = _sites(5, 50, cut=1.0)
    scores = _rollbacks(plan, loss)
    for believed, right in ((plan, True), (dataclasses.replace(plan, noise=4.0), False)):
        rolled = int((scores < vote_threshold(believed)).sum())
        rate = vote_power(plan, loss) if loss else plan.false_alarms
        assert (stats.binomtest(rolled, scores.size, rate).pvalue > 1e-6) == right


@pytest.mark.statistical
def test_cutting_a_sites_mean_does_not_raise_false_alarms():
    """Error of the test: 1e-6, one-sided. The twin states half of the rate."""
    plan = _sites(5, 50)
    scores = _rollbacks(plan, 0.0)
    rolled = int((scores < vote_threshold(plan)).sum())
    assert stats.binomtest(rolled, scores.size, plan.false_alarms, alternative="greater").pvalue > 1e-6
    assert stats.binomtest(rolled, scores.size, plan.false_alarms / 2, alternative="greater").pvalue < 1e-6


@pytest.mark.parametrize(
    ("wrong", "right", "words"),
    [
        ({"senders": 1}, {"senders": 2}, "at least two senders"),
        ({"records": 0}, {"records": 1}, "at least one record"),
        ({"noise": 0.0}, {"noise": 0.5}, "without noise"),
        ({"cut": 0.0}, {"cut": 1.0}, "cut"),
        ({"false_alarms": 0.5}, {"false_alarms": 0.49}, "false_alarms"),
        ({"changing": 1.1}, {"changing": 1.0}, "share of records"),
        ({"unit": "site"}, {"unit": "client"}, "protects a"),
    ],
)
def test_plans_that_mean_nothing_are_refused_and_the_nearest_are_not(wrong, right, words):
    usual = {"senders": 5, "records": 50, "noise": 5.0}
    VotePlan(**usual | right)
    with pytest.raises(ValueError, match=words):
        VotePlan(**usual | wrong)


def test_a_loss_is_a_share():
    with pytest.raises(ValueError, match=r"five points are 0\.05"):
        vote_power(_sites(5, 50), 5)
    assert vote_power(_sites(5, 50), 0.0) == pytest.approx(0.05)


def test_the_printed_line_says_what_is_proved_checked_and_assumed():
    said = planned(_sites(5, 50))
    for words in ("proved", "checked numerically", "assumed", "5 points 0.52", "epsilon 0.82"):
        assert words in said
