"""Plans: bounds are never lowered to make a dark count fit, reserves are charged, and fewer honest sites cost more."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from fedjax_poisson import accounting
from fedjax_poisson.runs.budget_plan import BudgetPlan, make_plan
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.training_recipe import PublicSizes, recipe_of

WIDE = {"senders": 9, "dimension": 58, "moment_dimension": 100, "largest_site": 4096}
"""support2 by disease group with all its columns: where a clamp used to be lowered from epsilon 1 on."""


def planned(config: Config, **sizes: Any) -> BudgetPlan:
    """The plan of the fixed recipe: secret samples of half of the units, charged with Renyi curves."""
    config = dataclasses.replace(config, recipe="fixed")
    honest = sizes["senders"] - 1 if config.honest_senders is None else config.honest_senders
    public = PublicSizes(sizes["dimension"] - 1, sizes["senders"], honest, sizes["largest_site"], None)
    return make_plan(config, recipe_of(config, public), **sizes)


def _parameters(plan: BudgetPlan) -> tuple[dict[str, float], dict[str, float]]:
    assert plan.standardize is not None
    return dict(plan.standardize.mechanism.facts.parameters), dict(plan.train.mechanism.facts.parameters)  # type: ignore[arg-type]


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_no_clamp_depends_on_the_budget(epsilon: float) -> None:
    plan = planned(Config(epsilon=epsilon), **WIDE)
    moments, gradients = _parameters(plan)
    assert plan.standardize is not None and plan.standardize.mechanism.bounds.total_bound == 4096
    assert plan.train.mechanism.bounds.total_bound == pytest.approx(0.6 * 2048)
    assert 0.05 <= moments["modulation"] <= 0.3 and 0.05 <= gradients["modulation"] <= 0.3


def test_more_budget_never_means_more_noise() -> None:
    noise = [
        [plan.standardize.mechanism.variance(9), plan.train.mechanism.variance(9)]  # type: ignore[union-attr]
        for plan in (planned(Config(epsilon=epsilon), **WIDE) for epsilon in (0.5, 1.0, 3.0, 8.0))
    ]
    assert np.all(np.diff(noise, axis=0) < 0)


def test_the_modulation_is_the_smallest_that_the_samplers_serve() -> None:
    small = {"senders": 4, "dimension": 14, "moment_dimension": 23, "largest_site": 256}
    moments, gradients = _parameters(planned(Config(), **small))
    assert moments["modulation"] == gradients["modulation"] == 0.05  # 0.25 % of variance: the default where it fits
    moments, gradients = _parameters(planned(Config(epsilon=8.0), **WIDE))
    assert gradients["modulation"] >= 0.05 and gradients["dark_count"] <= 16 * 5e7
    fixed = _parameters(planned(Config(epsilon=1.0, modulation=0.2), **WIDE))
    assert fixed[0]["modulation"] == fixed[1]["modulation"] == 0.2  # what is asked for is kept


def test_what_does_not_fit_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"would not fit 32-bit integers\. Lower largest_site .*raise modulation"):
        planned(Config(epsilon=8.0, modulation=0.05), **{**WIDE, "largest_site": 2**16})


def test_counts_above_one_table_are_sums_of_draws() -> None:
    from fedjax_poisson.mechanisms import poisson_embedding
    from fedjax_poisson.mechanisms.poisson import parts_of

    assert [parts_of(mu) for mu in (1.0, 5e7, 5.1e7, 1e8, 1.01e8, 6e8)] == [1, 1, 2, 2, 4, 16]
    one, many = (
        poisson_embedding(clip_norm=1.0, coordinate_bound=1.0, dark_count=mu, modulation=0.3, total_bound=100.0)
        for mu in (5e7, 2e8)
    )
    assert many.facts.sampler_distance == pytest.approx(4 * one.facts.sampler_distance, rel=0.5)
    curves = [m.rdp(accounting.integer_orders(64), 3, 10) for m in (one, many)]
    np.testing.assert_allclose(curves[1], 4 * curves[0], rtol=1e-12)


@pytest.mark.statistical
def test_a_sum_of_draws_has_the_law_of_one() -> None:
    import jax
    import jax.numpy as jnp

    from fedjax_poisson import randomness
    from fedjax_poisson.mechanisms import poisson_embedding

    mu, r, n = 1.2e8, 0.3, 4000
    mech = poisson_embedding(clip_norm=1.0, coordinate_bound=1.0, dark_count=mu, modulation=r)
    grid = jnp.full(n, 2**19, jnp.int32)  # v = 1 / 2
    counts = np.asarray(jax.jit(mech.embed)(randomness.stream(7), grid), np.float64)
    mean, variance = mu * r, 2 * mu  # Poisson(mu (1 + r / 2)) - Poisson(mu (1 - r / 2))
    score = (counts.mean() - mean) / np.sqrt(variance / n)
    spread = counts.var(ddof=1) / variance - 1
    assert abs(score) < 5 and abs(spread) < 5 * np.sqrt(2 / n)
    # twins: parts with the same noise have `parts` times the variance; a lost part has half of the mean
    assert abs(2 * counts.var(ddof=1) / variance - 1) > 5 * np.sqrt(2 / n)
    assert abs((counts / 2).mean() - mean) / np.sqrt(variance / n) > 5


def test_samplers_are_paid_for_every_attempt() -> None:
    plan = planned(Config(), **WIDE)
    assert plan.standardize is not None
    distance = plan.standardize.distance + plan.rounds * plan.train.distance
    assert plan.sampler_delta == accounting.reserve_for(1.0, accounting.ATTEMPTS * distance)
    draw = plan.standardize.mechanism.facts.sampler_distance
    assert draw >= 2.0**-60 and 9 * 100 * draw <= plan.standardize.distance <= 1.02 * 9 * 100 * draw
    with pytest.raises(ValueError, match="too large for delta"):
        planned(Config(epsilon=30.0), **WIDE)
    assert accounting.epsilon(plan.terms.orders, plan.planned_rdp, plan.delta - plan.sampler_delta) <= 1.0


def test_epsilon_against_everybody_else_is_larger() -> None:
    small = {"senders": 4, "dimension": 14, "moment_dimension": 23, "largest_site": 256}
    plan = planned(Config(), **small)
    assert plan.epsilon_one_honest == pytest.approx(1.88, abs=0.01)  # the heart data at a claimed 1
    assert planned(Config(epsilon=8.0), **small).epsilon_one_honest == pytest.approx(17.6, abs=0.05)
    alone = planned(Config(honest_senders=1), **small)
    assert alone.epsilon_one_honest == pytest.approx(alone.epsilon, rel=1e-9)


def test_a_patient_at_two_sites_is_charged_two_steps_and_two_coins() -> None:
    small = {"senders": 4, "dimension": 14, "moment_dimension": 23, "largest_site": 256}
    one, two = planned(Config(), **small), planned(Config(), **small, sites_per_unit=2)
    for plan in (one, two):
        assert 0.99 < plan.epsilon <= 1.0
    assert one.standardize is not None and two.standardize is not None
    # two clipped contributions: twice the step, four times the variance for the same budget
    assert two.standardize.mechanism.variance(4) / one.standardize.mechanism.variance(4) == pytest.approx(4, rel=0.01)
    assert (
        two.train.mechanism.variance(4) / one.train.mechanism.variance(4) > 4
    )  # and more, since the patient is in a round with 1 - (1 - q)**2
    everybody = [
        planned(Config(sampling_rate=1.0), **small, sites_per_unit=k).train.mechanism.variance(4) for k in (1, 2)
    ]
    assert everybody[1] / everybody[0] == pytest.approx(4, rel=0.01)
    parameters, clamp = dict(two.train.mechanism.facts.parameters), two.train.mechanism.bounds.total_bound
    assert clamp is not None
    curve = accounting.poisson_embedding_rdp(
        two.terms.orders,
        dark_count=parameters["dark_count"],
        modulation=parameters["modulation"],
        honest_senders=3,
        norm_ratio=1 / 0.6,
        dimension=14,
        step_ratio=2 * 0.6 / clamp,
    )
    np.testing.assert_allclose(two.train.charge, accounting.subsampled_rdp(two.terms.orders, curve, 0.75), rtol=1e-9)


def test_a_budget_too_small_for_any_signal_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"epsilon=0\.001 leaves a dark count of .* Ask for a larger epsilon"):
        planned(Config(epsilon=0.001, rounds=500), senders=4, dimension=14, moment_dimension=23, largest_site=8)
