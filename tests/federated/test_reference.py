"""The yardstick without privacy is plain sampled gradient descent."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax

from fedjax_poisson.federated import reference
from fedjax_poisson.federated.records import sample_units
from fedjax_poisson.models import logistic
from fedjax_poisson.randomness import fold_in
from tests.federated import helpers

SIZES = (12, 5)
COHORT = helpers.cohort(SIZES, 3)


def _descent(rounds: int, rate: float, learning_rate: float, keep_of: list[np.ndarray]) -> np.ndarray:
    mask = np.asarray(COHORT.mask).ravel()
    x, y = np.asarray(COHORT.features).reshape(-1, 3), np.asarray(COHORT.labels).ravel()
    flat, found = np.zeros(4), []
    for keep in keep_of[:rounds]:
        chosen = keep & mask
        gradient = helpers.logistic_gradients(flat[1:], flat[0], x[chosen], y[chosen]).sum(axis=0)
        flat = flat - learning_rate * gradient / (rate * mask.sum())
        found.append(flat)
    return np.stack(found)


def _train(rounds: int, rate: float, average_from: int | None = None, cohort=COHORT) -> np.ndarray:
    params = reference.train_without_privacy(
        logistic(),
        cohort,
        rounds=rounds,
        sampling_rate=rate,
        server_optimizer=optax.sgd(0.7),
        stream=helpers.seeded(6),
        average_from=average_from,
    )
    return np.concatenate([np.ravel(params["bias"]), params["weight"]])


def test_full_batches_are_gradient_descent_and_the_tail_is_averaged() -> None:
    everyone = [np.ones(24, bool)] * 6
    iterates = _descent(6, 1.0, 0.7, everyone)
    np.testing.assert_allclose(_train(6, 1.0), iterates[-1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(_train(6, 1.0, average_from=3), iterates[3:].mean(axis=0), rtol=1e-4, atol=1e-6)


def test_sampled_batches_are_divided_by_the_expected_size() -> None:
    own = helpers.seeded(6)
    keeps = [np.asarray(sample_units(fold_in(own, t, "reference"), 24, 0.5)) for t in range(5)]
    np.testing.assert_allclose(_train(5, 0.5), _descent(5, 0.5, 0.7, keeps)[-1], rtol=1e-4, atol=1e-6)
    shifted = _descent(5, 0.5, 0.7, keeps[1:] + keeps[:1])[-1]
    assert np.abs(_train(5, 0.5) - shifted).max() > 1e-3  # another sample is another model


def test_padding_changes_nothing() -> None:
    mask = np.asarray(COHORT.mask)[..., None]
    spoiled = COHORT._replace(features=jnp.where(jnp.asarray(mask), COHORT.features, jnp.float32(1e3)))
    np.testing.assert_array_equal(_train(3, 1.0, cohort=spoiled), _train(3, 1.0))
