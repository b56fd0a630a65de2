"""The server's step against NumPy: momentum, Adam's bias correction left to optax, and the average of the parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_poisson import trees
from fedjax_poisson.federated.server import Server, final_parameters, init_state, server_step

PARAMS = {"bias": jnp.float32(0.5), "weight": jnp.asarray([[1.0, -2.0], [0.0, 3.0]], jnp.float32)}


def _gradients(rounds: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rounds, 5)).astype(np.float32)


def _iterates(rounds: int, learning_rate: float, momentum: float) -> np.ndarray:
    """Heavy-ball SGD in float64: `[rounds + 1, D]`."""
    x, velocity = np.asarray(trees.flatten(PARAMS), np.float64), np.zeros(5)
    found = [x]
    for gradient in _gradients(rounds):
        velocity = momentum * velocity + gradient
        x = x - learning_rate * velocity
        found.append(x)
    return np.stack(found)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("average_from", [None, 0, 4, 6, 9])
def test_momentum_and_averaging_equal_numpy(momentum: float, average_from: int | None) -> None:
    optimizer = optax.sgd(0.3, momentum=momentum or None)
    state = init_state(PARAMS, optimizer)
    iterates = _iterates(7, 0.3, momentum)
    for done, gradient in enumerate(_gradients(7), 1):
        state = server_step(state, jnp.asarray(gradient), optimizer, average_from)
        assert int(state.round) == done
        np.testing.assert_allclose(trees.flatten(state.params), iterates[done], rtol=1e-5, atol=1e-6)
        # Once rounds beyond average_from exist they are averaged with equal weights; until then the last iterate counts.
        begun = average_from is not None and done > average_from
        wanted = iterates[average_from + 1 : done + 1].mean(axis=0) if begun else iterates[done]
        final = trees.flatten(final_parameters(state, average_from))
        np.testing.assert_allclose(final, wanted, rtol=1e-5, atol=1e-6)


def test_the_average_is_not_the_last_iterate_nor_the_average_of_all() -> None:
    optimizer = optax.sgd(0.3)
    state = init_state(PARAMS, optimizer)
    for gradient in _gradients(7):
        state = server_step(state, jnp.asarray(gradient), optimizer, 4)
    final, iterates = np.asarray(trees.flatten(final_parameters(state, 4))), _iterates(7, 0.3, 0.0)
    assert np.abs(final - iterates[-1]).max() > 1e-3
    assert np.abs(final - iterates[1:].mean(axis=0)).max() > 1e-3
    assert np.abs(final - iterates[4:].mean(axis=0)).max() > 1e-3  # one round too many


def test_any_optax_transformation_sees_the_tree_in_its_own_shape() -> None:
    optimizer = optax.adam(0.1)
    with jax.numpy_dtype_promotion("standard"):  # optax's own bias correction mixes an integer count with floats
        state = server_step(init_state(PARAMS, optimizer), jnp.ones(5, jnp.float32), optimizer, None)
    assert state.params["weight"].shape == (2, 2)
    np.testing.assert_allclose(trees.flatten(state.params), trees.flatten(PARAMS) - jnp.float32(0.1), atol=1e-5)


def test_a_rule_of_ones_own_sees_and_sets_the_parameters() -> None:
    """FedDyn's server on full participation: h <- h - alpha * update, params <- params + update - h / alpha, against NumPy."""
    alpha = 0.5

    def feddyn(params, gradient, drift):
        drift = jax.tree.map(
            lambda h, g: h + jnp.float32(alpha) * g, drift, gradient
        )  # the gradient is minus the update
        moved = jax.tree.map(lambda p, g, h: p - g - h / jnp.float32(alpha), params, gradient, drift)
        return moved, drift

    rule = Server(lambda params: jax.tree.map(jnp.zeros_like, params), feddyn)
    state = init_state(PARAMS, rule)
    x, drift = np.asarray(trees.flatten(PARAMS), np.float64), np.zeros(5)
    for gradient in _gradients(4):
        state = jax.jit(lambda state, g: server_step(state, g, rule, 1))(state, jnp.asarray(gradient))
        drift = drift + alpha * gradient
        x = x - gradient - drift / alpha
        np.testing.assert_allclose(trees.flatten(state.params), x, rtol=1e-5, atol=1e-5)
    assert int(state.round) == 4 and np.any(
        np.asarray(trees.flatten(state.average)) != np.asarray(trees.flatten(PARAMS))
    )


def test_sgd_written_as_a_rule_is_sgd() -> None:
    rule = Server(
        lambda params: (),
        lambda params, g, memory: (jax.tree.map(lambda p, d: p - jnp.float32(0.3) * d, params, g), memory),
    )
    mine, theirs = init_state(PARAMS, rule), init_state(PARAMS, optax.sgd(0.3))
    for gradient in _gradients(3):
        mine = server_step(mine, jnp.asarray(gradient), rule, None)
        theirs = server_step(theirs, jnp.asarray(gradient), optax.sgd(0.3), None)
    np.testing.assert_allclose(trees.flatten(mine.params), trees.flatten(theirs.params), rtol=1e-6)
