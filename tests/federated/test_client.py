"""One client's work: what FedAvg, FedProx and SCAFFOLD say it is, padding that changes nothing, orders that are permutations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_poisson import federated, models
from fedjax_poisson.federated.client import Examples, run_client
from fedjax_poisson.randomness import stream

pytestmark = pytest.mark.filterwarnings("ignore:stream")
MODEL = models.logistic()
RNG = np.random.default_rng(3)
X = jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
Y = jnp.asarray(RNG.integers(0, 2, size=6), jnp.float32)
PARAMS = {"weight": jnp.asarray([0.1, -0.2, 0.3], jnp.float32), "bias": jnp.float32(0.05)}


def _run(client_of, examples, params=PARAMS, shared=(), own=()):
    return run_client(client_of(MODEL), params, shared, own, examples, stream(1))


def _by_hand(batches, rate, start=None, proximal=0.0, correction=0.0):
    """float64 gradient descent of logistic regression."""
    w = np.append(np.asarray(PARAMS["weight"], np.float64), float(PARAMS["bias"])) if start is None else start
    first = w.copy()
    for x, y in batches:
        a = np.concatenate([np.asarray(x, np.float64), np.ones((len(x), 1))], axis=1)
        gradient = a.T @ (1 / (1 + np.exp(-a @ w)) - np.asarray(y)) / len(x)
        w = w - rate * (gradient + proximal * (w - first) + correction)
    return w - first


def _flat(update):
    """bias comes first in tree order."""
    return np.append(np.asarray(update[1:]), float(update[0]))


def test_fedavg_is_sgd_over_the_batches_in_order():
    update, _ = _run(federated.local_sgd(0.5, batch_size=2, epochs=2), Examples(X, Y))
    batches = [(X[i : i + 2], Y[i : i + 2]) for i in (0, 2, 4)] * 2
    np.testing.assert_allclose(_flat(update), _by_hand(batches, 0.5), atol=1e-6)


def test_fedprox_pulls_towards_the_global_parameters():
    batches = [(X[:3], Y[:3]), (X[3:], Y[3:])]
    update, _ = _run(federated.local_sgd(0.5, batch_size=3, proximal=0.7), Examples(X, Y))
    np.testing.assert_allclose(_flat(update), _by_hand(batches, 0.5, proximal=0.7), atol=1e-6)
    plain, _ = _run(federated.local_sgd(0.5, batch_size=3), Examples(X, Y))
    assert np.abs(np.asarray(plain - update)).max() > 1e-3


@pytest.mark.parametrize("steps_written", [1, 5])
def test_padding_changes_nothing_even_with_momentum(steps_written):
    client = federated.local_sgd(0.3, batch_size=2, momentum=0.9, epochs=2, unrolled=steps_written)
    exact, _ = _run(client, Examples(X[:4], Y[:4]))
    padded, _ = _run(client, Examples(X, Y, jnp.asarray([True] * 4 + [False] * 2)))
    # Two batches of records and one of padding an epoch; the batch of padding moves nothing.
    np.testing.assert_allclose(np.asarray(padded), np.asarray(exact), atol=1e-6)
    half, _ = _run(client, Examples(X, Y, jnp.asarray([True] * 3 + [False] * 3)))
    assert np.abs(np.asarray(half - exact)).max() > 1e-3


def test_shuffling_takes_every_record_once_and_real_ones_first():
    seen: list[np.ndarray] = []

    def of(model):
        inner = federated.local_sgd(1.0, batch_size=2, shuffle=True)(model)

        def step(state, batch):
            jax.debug.callback(lambda x, m: seen.append(np.asarray(x)[np.asarray(m)]), batch.x[:, 0], batch.mask)
            return inner.step(state, batch)

        return inner._replace(step=step)

    mask = jnp.asarray([True, False, True, True, False, True])
    run_client(of(MODEL), PARAMS, (), (), Examples(X, Y, mask), stream(5))
    jax.effects_barrier()
    assert [len(part) for part in seen] == [2, 2, 0]
    assert sorted(np.concatenate(seen).tolist()) == sorted(np.asarray(X[:, 0])[np.asarray(mask)].tolist())


def test_scaffold_corrects_by_the_control_variates_and_the_server_can_follow():
    work = federated.scaffold(0.5, batch_size=3)(MODEL)
    assert work.shared is not None and work.init_client_state is not None
    shared = work.shared.init(PARAMS, 2)
    own = jax.tree.map(lambda leaf: leaf + jnp.float32(0.1), work.init_client_state(PARAMS))
    update, new = run_client(work, PARAMS, shared, own, Examples(X, Y), stream(1))
    batches = [(X[:3], Y[:3]), (X[3:], Y[3:])]
    np.testing.assert_allclose(_flat(update), _by_hand(batches, 0.5, correction=-0.1), atol=1e-6)
    # c_i' = c_i - c + (x - w) / (K h), and the server's change of c follows from the update alone.
    expected = 0.1 - _flat(update) / (2 * 0.5)
    np.testing.assert_allclose(np.append(np.asarray(new["weight"]), float(new["bias"])), expected, atol=1e-6)
    tree = {"weight": update[1:], "bias": update[0]}
    moved, _ = work.shared.advance(shared, tree, jnp.float32(1))
    np.testing.assert_allclose(np.append(np.asarray(moved["weight"]), float(moved["bias"])), expected - 0.1, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: federated.local_sgd(0.0), "learning_rate=0.0"),
        (lambda: federated.scaffold(-1.0), "learning_rate=-1.0"),
        (lambda: federated.local_sgd(0.1, batch_size=0), "batch_size=0"),
        (lambda: federated.local_optimizer(optax.sgd(0.1), proximal=-1.0), "proximal=-1.0"),
    ],
)
def test_settings_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
