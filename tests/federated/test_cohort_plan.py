"""The planner against an independent calculation with Gaussians, its budgets on a ledger, the tight cost of a participation, and the choice."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_poisson import accounting, federated, models
from fedjax_poisson.federated.banding import banding, decoded_weights
from fedjax_poisson.federated.cohort_plan import best_banding, open_budget, parameter_weights, plan_cohorts
from fedjax_poisson.federated.turns import fixed_cohorts

ROUNDS, COHORTS, CLIENTS = 200, 50, 6056
FIXED = fixed_cohorts(CLIENTS, COHORTS)
ROOT = (banding(1), banding(4), banding(50))


@functools.cache
def _plan(epsilon, law="renyi", bands=ROOT):
    return plan_cohorts(
        FIXED,
        epsilon=epsilon,
        delta=1e-4,
        rounds=ROUNDS,
        dimension=42,
        clip_norm=2.0,
        coordinate_bound=1.0,
        weights=parameter_weights(ROUNDS, 0.9, 100),
        bands=bands,
        law=law,
    )


@functools.cache
def _gaussian_ratios(epsilon):
    """RMSE over secret sampling with continuous Gaussian noise and the same conversion, by dense matrices: no code of the planner, no embedding."""
    weights = np.zeros(ROUNDS)
    for last in range(100, ROUNDS):  # by the definition of momentum: each velocity is a geometric sum
        velocity = np.array([0.9 ** (last - s) if s <= last else 0.0 for s in range(ROUNDS)])
        weights += velocity * (ROUNDS - np.maximum(100, np.full(ROUNDS, last)))  # it stays in all later iterates
    for last in range(100):
        weights += np.array([0.9 ** (last - s) if s <= last else 0.0 for s in range(ROUNDS)]) * 100
    weights /= 100
    once = accounting.calibrate_noise_multiplier(epsilon=epsilon, delta=1e-4, rounds=1)
    sampled = accounting.calibrate_noise_multiplier(
        epsilon=epsilon, delta=1e-4, rounds=ROUNDS, sampling_rate=1 / COHORTS
    )
    ratios = []
    for band in (1, 4, 50):
        c = [math.comb(2 * j, j) / 4**j for j in range(band)]
        matrix = sum(np.diag(np.full(ROUNDS - j, each), -j) for j, each in enumerate(c))
        sensitivity = math.sqrt(4 * sum(each**2 for each in c))
        ratios.append(
            np.linalg.norm(weights @ np.linalg.inv(matrix)) * sensitivity * once / (np.linalg.norm(weights) * sampled)
        )
    return ratios


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
def test_errors_over_sampling_are_those_of_gaussians(epsilon):
    plan = _plan(epsilon)
    sampled = plan.option("secret sampling")
    got = [each.rmse / sampled.rmse for each in plan.options[:3]]
    # The embedding's noise is within a per cent of the Gaussian's, and one of 121 senders of the cap may collude.
    np.testing.assert_allclose(got, _gaussian_ratios(epsilon), rtol=0.012)


def test_a_wide_band_beats_sampling_where_privacy_is_cheap_and_flatter_coefficients_everywhere():
    roots = {epsilon: _plan(epsilon) for epsilon in (1.0, 8.0)}
    assert roots[8.0].options[2].rmse <= 0.45 * roots[8.0].option("secret sampling").rmse
    assert (
        roots[1.0].option("secret sampling").rmse
        < roots[1.0].options[2].rmse
        <= 1.1 * roots[1.0].option("secret sampling").rmse
    )
    assert roots[1.0].best.kind == "sampled" and roots[8.0].best.name == "band 50"
    flat = _plan(1.0, bands=(4, 50))
    assert (
        flat.options[1].rmse < 0.8 * roots[1.0].options[2].rmse
        and flat.options[0].rmse < 0.93 * roots[1.0].options[1].rmse
    )
    assert flat.best.name == "band 50"


def test_the_table_says_both_and_what_they_cost():
    plan = _plan(8.0)
    text = str(plan)
    assert [each.uploads for each in plan.options] == [4, 16, 200, 200, 200]
    assert [each.trainings for each in plan.options] == pytest.approx([4, 4, 4, 4, 200])
    assert "band 50 (RMSE" in text and "rather than secret sampling" in text and "Were everybody to train" in text
    assert all(each.name in text for each in plan.options) and len(text.splitlines()) == len(plan.options) + 2
    assert "secret sampling (RMSE" in str(_plan(1.0)) and "rather than band 50" in str(_plan(1.0))
    with pytest.raises(ValueError, match="no option 'band 3'; there are: participation cap, band 4"):
        plan.option("band 3")


def test_the_choice_stays_within_the_uploads_allowed():
    given = {"epsilon": 8.0, "delta": 1e-4, "rounds": 40, "dimension": 5, "clip_norm": 1.0, "bands": (1, 2, 10)}
    fixed = fixed_cohorts(400, 10)
    assert plan_cohorts(fixed, **given).best.uploads == 40
    assert plan_cohorts(fixed, most_uploads=20, **given).best.name == "band 2"
    with pytest.raises(ValueError, match="no option needs fewer than 4 messages"):
        plan_cohorts(fixed, most_uploads=3, **given)
    assert [each.encoding.band for each in plan_cohorts(fixed, **(given | {"bands": None})).options[:5]] == [
        1,
        2,
        4,
        8,
        10,
    ]


@pytest.mark.parametrize("law", ["tight", "renyi"])
@pytest.mark.parametrize("name", ["participation cap", "band 4", "secret sampling", "everybody"])
def test_a_budget_pays_for_the_planned_rounds_and_not_for_one_charge_more(name, law):
    fixed = fixed_cohorts(60, 6)
    plan = plan_cohorts(fixed, epsilon=2.0, delta=1e-5, rounds=18, dimension=7, clip_norm=1.0, bands=(1, 4), law=law)
    option = plan.option(name)
    budgeted = open_budget(plan, option)
    x = np.zeros((60, 1, 6), np.float32)
    algorithm = federated.fedavg(
        models.logistic(),
        client=federated.local_sgd(0.1),
        population=federated.make_population(x, x[..., 0]),
        server_optimizer=optax.sgd(0.1),
        ledger=budgeted.ledger,
        **option.arguments(fixed),
    )
    pay = budgeted.ledger.gate(algorithm, "planned")
    for _ in range(option.charges):
        pay()
    assert 0.98 * plan.epsilon < budgeted.ledger.epsilon() <= plan.epsilon
    with pytest.raises(accounting.BudgetExhausted):
        pay()
    assert option.charges == {"participation cap": 3, "band 4": 3}.get(name, 18)


def test_the_options_run():
    """Every option of a plan through `fedavg`, to the end of its budget."""
    fixed = fixed_cohorts(24, 3)
    plan = plan_cohorts(fixed, epsilon=4.0, delta=1e-5, rounds=6, dimension=3, clip_norm=1.0, bands=(2,))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 2, 2)).astype(np.float32)
    for option in plan.options:
        algorithm = federated.fedavg(
            models.logistic(),
            client=federated.local_sgd(0.1),
            population=federated.make_population(x, (x[..., 0] > 0).astype(np.float32)),
            server_optimizer=optax.sgd(0.1),
            ledger=open_budget(plan, option).ledger,
            **option.arguments(fixed),
        )
        cohorts = fixed if option.kind == "fixed" else (lambda number: np.arange(24))
        fitted = federated.fit(algorithm, cohorts, rounds=6, progress=False)
        assert fitted.ended == "rounds" and 3.9 < fitted.epsilon <= 4.0


# --- tight accounting -------------------------------------------------------------------------------------------------


def test_tight_plans_spend_the_budget_and_no_more():
    plan, renyi = _plan(3.0, "tight", (1, 4)), _plan(3.0, bands=(1, 4))
    for option, looser in zip(plan.options, renyi.options, strict=True):
        if option.kind == "sampled":
            assert option.law == "renyi" and option.rmse == looser.rmse
            continue
        assert option.law == "tight" and 0.85 < option.rmse / looser.rmse < 0.98
        whole = option.mechanism.cost(option.participation.honest_senders, 42)
        cost = accounting.scaled_cost(whole, option.encoding.factors)
        budget = accounting.variance_budget(3.0, 1e-4 - option.reserve)
        left = accounting.spend_all(budget, budget.total, [cost] * option.charges)
        assert left is not None and left < 1e-4 * budget.total
        # The other calculation of the same theorem, which rounds W up by 1e-5.
        assert 2.995 < accounting.fixed_plan_epsilon([cost] * option.charges, 1e-4 - option.reserve) <= 3.0001


def test_sampling_by_loss_distributions_is_a_comparison_and_no_budget():
    pytest.importorskip("dp_accounting", reason="pip install 'fedjax-poisson[compare]'")
    given = {"epsilon": 3.0, "delta": 1e-5, "rounds": 20, "dimension": 5, "clip_norm": 1.0, "bands": (1,)}
    fixed = fixed_cohorts(400, 10)
    plan, looser = (plan_cohorts(fixed, sampled_law=law, **given) for law in ("pld", "renyi"))
    sampled = plan.option("secret sampling")
    assert sampled.law == "pld" and 0.8 < sampled.rmse / looser.option("secret sampling").rmse < 0.97
    with pytest.raises(ValueError, match="plan with sampled_law='renyi'"):
        open_budget(plan, sampled)


# --- beside another implementation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("band", [4, 50])
def test_sensitivity_error_and_noise_beside_jax_privacy(band):
    reason = "pip install 'fedjax-poisson[compare]'"
    toeplitz = pytest.importorskip("jax_privacy.matrix_factorization.toeplitz", reason=reason)
    plans = pytest.importorskip("jax_privacy.experimental.execution_plan", reason=reason)
    encoding = banding(band)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = np.asarray(toeplitz.optimal_max_error_strategy_coefs(band))
        np.testing.assert_allclose(encoding.factors, theirs, atol=1e-6)
        squared = float(toeplitz.minsep_sensitivity_squared(jnp.asarray(theirs), min_sep=COHORTS, n=ROUNDS))
        assert squared == pytest.approx(FIXED.participations(ROUNDS) * encoding.energy, rel=1e-5)
        errors = np.asarray(toeplitz.per_query_error(strategy_coef=jnp.asarray(theirs), n=ROUNDS))
        last = float(np.linalg.norm(decoded_weights(encoding, np.ones(ROUNDS))) ** 2)
        assert last == pytest.approx(float(errors[-1]), rel=1e-4)
        # Its noise for the whole budget: with as many groups as bands and nobody left out, participations are those of `band` fixed cohorts.
        config = plans.BandMFExecutionPlanConfig(
            iterations=ROUNDS, strategy=theirs / np.linalg.norm(theirs), epsilon=3.0, delta=1e-4, sampling_prob=1.0
        )
        event = config.plan.dp_event
    while hasattr(event, "event"):
        event = event.event
    fixed = fixed_cohorts(6000, band)
    plan = plan_cohorts(
        fixed, epsilon=3.0, delta=1e-4, rounds=ROUNDS, dimension=9, clip_norm=1.0, weights=np.ones(ROUNDS), bands=[encoding]
    )  # fmt: skip
    ours = math.sqrt(plan.options[0].mechanism.variance(fixed.senders(band)[1])) / math.sqrt(encoding.energy)
    assert 1 <= ours / event.noise_multiplier < 1.01


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("momentum", "average_from"), [(0.0, None), (0.9, None), (0.9, 4), (0.5, 0)])
def test_weights_are_what_the_optimiser_does(momentum, average_from):
    """One unit mean update in one round at a time, through the server's own step."""
    from fedjax_poisson.federated.server import final_parameters, init_state, server_step

    rounds, optimizer = 9, optax.sgd(1.0, momentum=momentum or None)
    found = []
    for number in range(rounds):
        state = init_state({"w": jnp.zeros(1)}, optimizer)
        for t in range(rounds):
            state = server_step(state, -jnp.full(1, float(t == number)), optimizer, average_from)
        found.append(float(jax.device_get(final_parameters(state, average_from)["w"])[0]))
    np.testing.assert_allclose(found, parameter_weights(rounds, momentum, average_from), rtol=1e-5)


def test_the_power_is_the_best_for_the_parameters_that_count():
    smooth, rough = parameter_weights(ROUNDS, 0.9, 100), np.ones(ROUNDS)
    for band in (4, 50):
        assert best_banding(band, smooth) == banding(band, 0.75)
    assert best_banding(50, rough) == banding(50, 0.6)  # the last iterate without momentum
    assert best_banding(1, rough) == banding(1)


def test_impossible_plans_are_refused():
    given = {"epsilon": 1.0, "delta": 1e-5, "rounds": 8, "dimension": 3, "clip_norm": 1.0, "bands": (1,)}
    with pytest.raises(ValueError, match="weights has shape"):
        plan_cohorts(fixed_cohorts(20, 4), weights=np.ones(7), **given)
    with pytest.raises(ValueError, match="two participations"):
        plan_cohorts(fixed_cohorts(20, 4), **(given | {"bands": (5,)}))
    with pytest.raises(ValueError, match="colluding=5 of 5 senders"):
        plan_cohorts(fixed_cohorts(20, 4), colluding=5, **given)
    for wrong in ({"rounds": 0}, {"momentum": 1.0}, {"average_from": 8}):
        with pytest.raises(ValueError, match="before the last round"):
            parameter_weights(**({"rounds": 8} | wrong))
