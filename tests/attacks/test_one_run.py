"""One-run auditing: the bound against simulation and the slow formula, and canaries through the encrypted pipeline."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import fedjax_poisson as fp
from fedjax_poisson import accounting, trees
from fedjax_poisson.attacks import (
    AttackedTraining,
    CanaryRecords,
    canary_population,
    canary_updates,
    choose_guesses,
    coins,
    craft_records,
    one_run_audit,
    one_run_epsilon,
    one_run_p_value,
    recording,
    run_with_canary_clients,
    run_with_canary_fedavg,
    run_with_canary_records,
)
from tests.federated.helpers import cohort, mechanism, noise_free, plain_aggregator, seeded

ORDERS, DELTA = accounting.integer_orders(512), 1e-5


@pytest.mark.parametrize(
    ("m", "r", "v", "epsilon", "delta"), [(20, 10, 9, 1.0, 0.0), (100, 30, 30, 2.0, 1e-3), (500, 80, 60, 0.5, 1e-5)]
)
def test_p_value_is_theorem_5_2(m, r, v, epsilon, delta):
    law = stats.binom(r, np.exp(epsilon) / (1 + np.exp(epsilon)))
    tail = law.sf(v - 1)
    slope = max((law.sf(v - i - 1) - tail) / i for i in range(1, m + 1))
    assert one_run_p_value(m, r, v, epsilon, delta) == pytest.approx(min(1, tail + 2 * m * delta * slope), rel=1e-9)


def test_bound_is_the_epsilon_at_the_significance():
    bound = one_run_epsilon(1000, 100, 90, 1e-5)
    assert one_run_p_value(1000, 100, 90, bound, 1e-5) <= 0.05
    assert one_run_p_value(1000, 100, 90, bound + 1e-3, 1e-5) > 0.05
    assert one_run_epsilon(100, 50, 25, 0.0) == 0.0 and one_run_epsilon(100, 10, 10, 0.2) == 0.0
    assert one_run_epsilon(100, 100, 100, 0.0) == pytest.approx(np.log(0.05**0.01 / (1 - 0.05**0.01)), abs=1e-3)


def _accusations(truth: float, claimed: float) -> float:
    """How often randomised response with this true epsilon is shown to exceed the claimed one."""
    rng = np.random.default_rng(4)
    right = rng.binomial(400, np.exp(truth) / (1 + np.exp(truth)), size=300)
    bounds = {v: one_run_epsilon(400, 400, int(v), 0.0) for v in np.unique(right)}
    return float(np.mean([bounds[v] > claimed for v in right]))


def test_bound_holds_where_it_is_tight_and_finds_a_larger_epsilon():
    assert _accusations(1.0, 1.0) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    assert _accusations(1.6, 1.0) > 0.9


def test_guesses_are_chosen_for_the_bound_and_without_outcomes():
    weak, strong = choose_guesses(200, 1.5, DELTA), choose_guesses(200, 8.0, DELTA)
    assert weak % 2 == 0 and 2 <= weak < strong <= 200 and strong >= 120


@pytest.fixture(scope="module")
def clients():
    """Thirty-two canary clients behind the device backend, calibrated to epsilon 8."""
    canaries, dimension = 32, 64
    dark = accounting.calibrate_dark_count(
        epsilon=8.0,
        delta=DELTA,
        rounds=1,
        modulation=0.05,
        honest_senders=canaries,
        norm_ratio=1.0,
        dimension=dimension,
    )
    facts = {"clip_norm": 1.0, "coordinate_bound": 1.0, "modulation": 0.05}
    mechanism = fp.poisson_embedding(dark_count=dark, **facts)
    aggregator = fp.aggregator(
        "round",
        count_bound=mechanism.count_bound(canaries, dimension),
        senders=canaries,
        size=dimension,
        stream=seeded(1),
    )
    claimed = accounting.epsilon(ORDERS, mechanism.rdp(ORDERS, canaries, dimension), DELTA)
    return mechanism, aggregator, claimed


def test_encrypted_canary_clients_never_accuse_the_right_mechanism(clients):
    mechanism, aggregator, claimed = clients
    updates, guesses, bounds = canary_updates(mechanism, 32, 64), choose_guesses(32, 1.57, DELTA), []
    for seed in range(3):
        run = run_with_canary_clients(mechanism, aggregator, updates, coins(32, seed), seeded(seed))
        audit = one_run_audit(
            run.white_box, run.included, epsilon_claimed=claimed, delta=DELTA, guesses=guesses, attack="x", needs="y"
        )
        assert not audit.violated and audit.epsilon_lower <= claimed
        bounds.append(audit.epsilon_lower)
    assert np.mean(bounds) > 0.3  # the attack works: 32 canaries and one round show part of epsilon 8


def test_encrypted_canary_clients_accuse_a_mechanism_without_noise(clients):
    mechanism, aggregator, _ = clients
    silent = mechanism._replace(embed=lambda stream, grid: grid >> jnp.int32(14))
    run = run_with_canary_clients(silent, aggregator, canary_updates(mechanism, 32, 64), coins(32, 0), seeded(0))
    audit = one_run_audit(
        run.white_box, run.included, epsilon_claimed=1.0, delta=DELTA, guesses=20, attack="x", needs="y"
    )
    assert audit.violated and audit.correct == 20 and "no bound above" in audit.try_next


@pytest.mark.long
def test_canary_records_are_found_in_the_sums_of_fedsgd():
    model = fp.models.mlp((16,))
    params = model.init(jax.random.key(0), jnp.zeros((1, 6)))
    x, y = craft_records(model, params, (6,), 24, jax.random.key(1))
    included = coins(24, 3)
    exact = noise_free(mechanism(total_bound=24.0))._replace(variance=lambda senders: 1e-4)
    algorithm = fp.fedsgd(
        model,
        features=6,
        records=22.0,
        sampling_rate=1.0,
        mechanism=exact,
        aggregator=plain_aggregator(exact, 2, trees.layout(params).size),
        server_optimizer=recording(optax.sgd(1.0)),
        senders=2,
    )

    def run(rounds):
        return run_with_canary_records(
            algorithm,
            AttackedTraining(
                model=model, mechanism=exact, rounds=rounds, records=22.0, server_optimizer=optax.sgd(1.0)
            ),
            cohort((12, 10), 6),
            CanaryRecords(x, y, included),
            jax.random.key(0),
            seeded(0),
        )

    # Without noise the estimate of the coins is the coins.
    silent = run(1)
    assert silent.white_box[included].min() > silent.white_box[~included].max()
    longer = run(6)
    assert longer.black_box[included].mean() > longer.black_box[~included].mean()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="correct <= guesses"):
        one_run_p_value(10, 5, 6, 1.0, 0.0)
    with pytest.raises(ValueError, match="even number"):
        one_run_audit(np.zeros(4), np.zeros(4, bool), epsilon_claimed=1.0, delta=0.0, guesses=3, attack="x", needs="y")
    with pytest.raises(ValueError, match="separate coordinates"):
        canary_updates(mechanism(), 10, 5)
    model = fp.models.logistic()
    algorithm = fp.fedsgd(
        model,
        features=3,
        records=4.0,
        sampling_rate=1.0,
        mechanism=mechanism(),
        aggregator=plain_aggregator(mechanism(), 2, 4),
        server_optimizer=optax.sgd(1.0),
        senders=2,
    )
    with pytest.raises(ValueError, match="recording"):
        run_with_canary_records(
            algorithm,
            AttackedTraining(
                model=model, mechanism=mechanism(), rounds=1, records=4.0, server_optimizer=optax.sgd(1.0)
            ),
            cohort((3, 3), 3),
            CanaryRecords(jnp.zeros((2, 3)), jnp.zeros(2), np.ones(2, bool)),
            jax.random.key(0),
            seeded(0),
        )


def test_canary_clients_through_fedavg_release_the_sum_of_the_updates():
    """Without noise the mean update is arithmetic: every canary that is in scores its own squared length, every other zero."""
    silent = noise_free(mechanism(total_bound=None))
    exact = silent._replace(privatize=lambda stream, update: silent.embed(stream, silent.clip(update)))
    updates, included = canary_updates(exact, 6, 12), coins(6, 1)
    model, client, population = canary_population(updates, included)
    algorithm = fp.fedavg(
        model,
        client=client,
        population=population,
        senders=6,
        mechanism=exact,
        aggregator=plain_aggregator(exact, 6, 12),
        server_optimizer=optax.sgd(1.0),
    )
    run = run_with_canary_fedavg(algorithm, updates, included, jax.random.key(0), seeded(0), rounds=2)
    np.testing.assert_allclose(run.white_box, 2 * included * (updates**2).sum(axis=1), atol=1e-4)
