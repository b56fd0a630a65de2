"""Canaries: their coins are found where there is no noise, and never accuse the right mechanism."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

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
    recording,
    run_with_canary_clients,
    run_with_canary_fedavg,
    run_with_canary_records,
)
from tests.attacks.test_one_run import DELTA, ORDERS
from tests.federated.helpers import cohort, mechanism, noise_free, plain_aggregator, seeded


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


def test_bad_input_is_refused():
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
