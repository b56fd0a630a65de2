"""Client-level settings from public numbers: how they scale, what bounds them, and that they train."""

from __future__ import annotations

import math

import jax
import numpy as np
import optax
import pytest

from fedjax_poisson import accounting, federated, models, randomness

SIZES = {"clients": 200, "features": 20, "epsilon": 1.0, "delta": 1e-3}


def test_the_distance_follows_from_the_noise_that_an_output_bears():
    found = federated.client_recipe(**SIZES)
    mu = math.sqrt(accounting.variance_budget(1.0, 1e-3).total)
    length, spread = math.sqrt(1 + 0.35 * 20), math.sqrt(200 / 199)
    noise = found.rounds * found.clip_norm * spread / (200 * mu)  # of a parameter after all rounds: all of them add up
    assert length * noise == pytest.approx(0.64)
    assert found.learning_rate == pytest.approx(4 / length**2) and found.average_from == 15
    assert found.signal == pytest.approx(200 * mu / (21 * spread))


def test_the_noise_of_all_rounds_is_that_of_one_release_whatever_their_number():
    """What the rule assumes, held against `calibrate`: sqrt(T) times a round's deviation, over the clip, does not depend on T."""
    found = []
    for rounds in (20, 60):
        recipe = federated.client_recipe(**SIZES, rounds=rounds)
        mechanism, _ = federated.calibrate(
            epsilon=1.0, delta=1e-3, rounds=rounds, senders=200, dimension=21, unit="client", clip_norm=recipe.clip_norm
        )
        found.append(math.sqrt(rounds * mechanism.variance(200)))  # of the sum of all rounds' summed updates
        mu = math.sqrt(accounting.variance_budget(1.0, 1e-3).total)
        assert found[-1] * mu / (rounds * recipe.clip_norm) == pytest.approx(math.sqrt(200 / 199), rel=0.02)
    assert found[0] == pytest.approx(found[1], rel=0.02)


def test_more_privacy_or_fewer_clients_shorten_the_way_and_a_clip_has_an_end():
    clips = [federated.client_recipe(**SIZES | {"epsilon": epsilon}).clip_norm for epsilon in (0.5, 1.0, 2.0)]
    assert clips[0] < clips[1] < clips[2]
    assert federated.client_recipe(**SIZES | {"clients": 100}).clip_norm < clips[1]
    most = federated.client_recipe(**SIZES | {"clients": 10**6})
    assert (
        most.clip_norm
        == pytest.approx(3.5 / math.sqrt(8))
        == pytest.approx(federated.client_recipe(**SIZES | {"epsilon": 50.0}).clip_norm)
    )
    hostile = federated.client_recipe(**SIZES, honest_senders=50)
    assert hostile.clip_norm == pytest.approx(clips[1] * math.sqrt(200 / 199) / 2, rel=1e-6)


def test_what_to_expect_is_said():
    weak = federated.client_recipe(**SIZES | {"clients": 20, "features": 60})
    assert "too few clients" in weak.reasons[1] and len(weak.reasons) == 2
    assert "about 30 records" in federated.client_recipe(**SIZES, records=30).reasons[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clients": 0}, "clients=0"),
        ({"features": 0}, "features=0"),
        ({"rounds": 0}, "rounds=0"),
        ({"length": 0.0}, "length=0"),
        ({"honest_senders": 300}, "300"),
        ({"epsilon": -1.0}, "epsilon"),
    ],
)
def test_what_is_no_number_of_the_kind_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        federated.client_recipe(**SIZES | changes)


def test_it_trains_a_model_within_its_budget():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=5)
    x = rng.uniform(-1, 1, size=(120, 8, 5)).astype(np.float32)
    y = (x @ truth + 0.5 * rng.normal(size=(120, 8)) > 0).astype(np.float32)
    population = federated.make_population(x, y)
    recipe = federated.client_recipe(clients=120, features=5, epsilon=8.0, delta=1e-3, rounds=6)
    mechanism, ledger = federated.calibrate(
        epsilon=8.0,
        delta=1e-3,
        rounds=recipe.rounds,
        senders=120,
        dimension=6,
        unit="client",
        clip_norm=recipe.clip_norm,
    )
    algorithm = federated.fedavg(
        models.logistic(),
        client=federated.local_sgd(recipe.learning_rate, epochs=recipe.epochs),
        population=population,
        senders=120,
        server_optimizer=optax.sgd(1.0),
        mechanism=mechanism,
        average_from=recipe.average_from,
        ledger=ledger,
        encryption="off",
    )
    state, root = algorithm.init(jax.random.key(0)), randomness.stream()
    for _ in range(recipe.rounds):
        state, info = algorithm.apply(state, np.arange(120), root)
    assert info.epsilon <= 8.0
    weights = np.asarray(algorithm.parameters(state)["weight"])
    assert float(weights @ truth / np.linalg.norm(weights) / np.linalg.norm(truth)) > 0.9
