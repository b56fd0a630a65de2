"""A round's noise belongs to its stream and its number: never the same in two rounds, and never under two different sums."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_poisson import federated, models
from fedjax_poisson.aggregation import RoundRefused
from fedjax_poisson.federated.algorithm import dimension_of
from fedjax_poisson.federated.reuse import fingerprint
from tests.federated import helpers

CLIENTS, FEATURES = 6, 40
ROOT = helpers.seeded(21)
MECHANISM = helpers.mechanism(total_bound=None)
X = np.random.default_rng(3).normal(size=(CLIENTS, 3, FEATURES)).astype(np.float32)
Y = (X[..., 0] > 0).astype(np.float32)


def _fedavg(backend: str | None = None):
    """The model keeps still (the step is zero), so that what moves an average is noise alone."""
    return federated.fedavg(
        models.logistic(),
        client=federated.local_sgd(0.5),
        population=federated.make_population(X, Y),
        senders=CLIENTS,
        server_optimizer=optax.sgd(1.0),
        mechanism=MECHANISM,
        aggregator=None if backend is None else helpers.plain_aggregator(MECHANISM, CLIENTS, FEATURES + 1),
    )


def _fedsgd():
    mechanism = helpers.mechanism()
    return federated.fedsgd(
        models.logistic(),
        features=FEATURES,
        records=1.0,
        sampling_rate=1.0,
        mechanism=mechanism,
        aggregator=helpers.plain_aggregator(mechanism, 3, dimension_of(models.logistic(), (FEATURES,))),
        server_optimizer=optax.sgd(1.0),
        senders=3,
    )


def _cohort(kind: str, other: bool = False):
    if kind == "fedsgd":
        return helpers.cohort((5, 2, 4), FEATURES, seed=int(other))
    ids = np.arange(CLIENTS)
    return ids if not other else federated.make_cohort(federated.make_population(X + 1, Y), ids)


MADE = {"fedavg": _fedavg, "fedavg on the host": functools.partial(_fedavg, "plain"), "fedsgd": _fedsgd}


def _moves(kind: str, algorithm, rounds: int) -> np.ndarray:
    """What each round added to the parameters: data at almost the same parameters, and noise that is ten times as large."""
    state, cohort = algorithm.init(jax.random.key(0)), _cohort(kind)
    found = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(algorithm.parameters(state))])]
    for _ in range(rounds):
        state, _ = algorithm.apply(state, cohort, ROOT)
        found.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(algorithm.parameters(state))]))
    return np.diff(found, axis=0)


@pytest.mark.parametrize("kind", MADE)
def test_one_stream_passed_to_every_round_gives_other_noise_in_every_round(kind):
    moves = _moves(kind, MADE[kind](), 3)
    likeness = np.corrcoef(moves)[np.triu_indices(3, 1)]
    assert np.abs(likeness).max() < 0.75, "one stream gave one noise to two rounds (correlation 1)"
    again = _moves(kind, MADE[kind](), 1)
    np.testing.assert_array_equal(again[0], moves[0])  # the same (stream, round) is the same noise


def test_rounds_in_one_program_number_themselves_on_from_the_state():
    one_by_one, fused = _fedavg(), _fedavg()
    state, other = one_by_one.init(jax.random.key(0)), fused.init(jax.random.key(0))
    ids = np.arange(CLIENTS)
    for _ in range(4):
        state, _ = one_by_one.apply(state, ids, ROOT)
    for _ in range(2):  # each call goes on with the noise of the next rounds, although the stream is the same
        other, _ = fused.apply_rounds(other, np.stack([ids, ids]), ROOT)
    assert int(other.server.round) == 4
    for a, b in zip(jax.tree.leaves(state.server.params), jax.tree.leaves(other.server.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("kind", MADE)
def test_another_sum_under_the_same_noise_is_refused_before_it_is_charged(kind):
    algorithm = MADE[kind]()
    start = algorithm.init(jax.random.key(0))
    state, info = algorithm.apply(start, _cohort(kind), ROOT)
    with pytest.raises(RoundRefused, match=r"round 0 under this stream.*Nothing was released"):
        algorithm.apply(start, _cohort(kind, other=True), ROOT)
    assert len(algorithm.ledger.rows()) == 1
    same, _ = algorithm.apply(start, _cohort(kind), ROOT)  # nothing new is shown, and it is charged all the same
    assert len(algorithm.ledger.rows()) == 2 and info.epsilon > 0
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(a, b)
    algorithm.apply(start, _cohort(kind, other=True), helpers.seeded(22))
    algorithm.apply(state, _cohort(kind, other=True), ROOT)  # the next round has noise of its own


def test_fused_rounds_and_single_rounds_share_the_memory_of_what_was_opened():
    algorithm, ids = _fedavg(), np.arange(CLIENTS)
    start = algorithm.init(jax.random.key(0))
    state, _ = algorithm.apply_rounds(start, ids[None], ROOT)
    again, _ = algorithm.apply(start, ids, ROOT)
    for a, b in zip(jax.tree.leaves(state.server.params), jax.tree.leaves(again.server.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    with pytest.raises(RoundRefused, match="round 0"):
        algorithm.apply(start, _cohort("fedavg", other=True), ROOT)
    moved = start._replace(server=start.server._replace(params=jax.tree.map(lambda p: p + 1, start.server.params)))
    with pytest.raises(RoundRefused, match="another state"):
        algorithm.apply_rounds(moved, ids[None], ROOT)


def test_a_refused_release_may_be_tried_again_with_another_cohort():
    algorithm = _fedavg()
    start = algorithm.init(jax.random.key(0))

    def refuse() -> None:
        raise PermissionError("not today")

    with pytest.raises(PermissionError):
        algorithm.apply(start, _cohort("fedavg"), ROOT, refuse)
    algorithm.apply(start, _cohort("fedavg", other=True), ROOT)  # nothing was opened under this noise yet


def test_fingerprints_tell_small_changes_and_exchanged_places_apart():
    rng = np.random.default_rng(0)
    values = rng.integers(-(2**31), 2**31, (7, 50)).astype(np.int32)
    marks = {np.asarray(fingerprint(jnp.asarray(values))).tobytes()}
    for i in range(7):
        changed, exchanged = values.copy(), values.copy()
        changed[i, i] += 1
        exchanged[i, [0, 1]] = exchanged[i, [1, 0]]
        marks |= {np.asarray(fingerprint(jnp.asarray(one))).tobytes() for one in (changed, exchanged)}
    assert len(marks) == 15
    assert np.asarray(jax.jit(fingerprint)(values)).tobytes() in marks


@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (3, 50)])
@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
def test_the_host_and_the_device_have_one_fingerprint(shape: tuple[int, ...], dtype: type) -> None:
    """A round may be computed by either; a word that differs (the twin) has another."""
    values = np.random.default_rng(0).integers(-(2**31), 2**31, shape).astype(dtype)
    here = fingerprint(values)
    assert isinstance(here, np.ndarray) and here.dtype == np.uint32
    np.testing.assert_array_equal(here, fingerprint(jnp.asarray(values)))
    if values.size:
        values.reshape(-1)[-1] ^= dtype(1)
        assert (here != fingerprint(values)).all()
