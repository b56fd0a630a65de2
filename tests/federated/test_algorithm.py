"""`fedsgd`: sampled SGD when noise and clip do not bite, the stated noise when they do, and no claim that nobody proved."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from fedjax_poisson import accounting
from fedjax_poisson.federated import Algorithm, Records, fedsgd
from fedjax_poisson.federated.algorithm import dimension_of
from fedjax_poisson.federated.records import sample_units
from fedjax_poisson.mechanisms import Mechanism, gaussian, poisson_embedding
from fedjax_poisson.models import Model, cnn, logistic
from fedjax_poisson.randomness import Stream, fold_in
from tests.federated import helpers
from tests.helpers.stat import assert_moments

SIZES = (14, 6, 9)
FEATURES = 3
DIMENSION = FEATURES + 1
COHORT = helpers.cohort(SIZES, FEATURES)
RATE = 0.5
WIDE = helpers.mechanism(clip_norm=64.0, coordinate_bound=64.0, total_bound=64.0)  # neither clip nor clamp bites


def _algorithm(
    mechanism: Mechanism,
    model: Model | None = None,
    features: int | tuple[int, ...] = FEATURES,
    rate: float = RATE,
    **options: Any,
) -> Algorithm:
    settings = dict(
        features=features,
        records=float(sum(SIZES)),
        sampling_rate=rate,
        mechanism=mechanism,
        aggregator=helpers.plain_aggregator(
            mechanism,
            len(SIZES),
            dimension_of(model or logistic(), (features,) if isinstance(features, int) else features),
        ),
        server_optimizer=optax.sgd(0.5, momentum=0.5),
        senders=len(SIZES),
    )
    return fedsgd(model or logistic(), **{**settings, **options})


def _rounds(algorithm: Algorithm, rounds: int, cohort: Records = COHORT, root: Stream | None = None) -> list[Any]:
    root = helpers.seeded(9) if root is None else root
    state, states = algorithm.init(jax.random.key(0)), []
    for _ in range(rounds):
        state, _ = algorithm.apply(state, cohort, root)
        states.append(state)
    return states


def _flat(params: Any) -> np.ndarray:
    return np.concatenate([np.ravel(params["bias"]), params["weight"]])


def _sampled(own: Stream, rate: float = RATE) -> np.ndarray:
    return np.stack([np.asarray(sample_units(fold_in(own, s, "sample"), max(SIZES), rate)) for s in range(len(SIZES))])


def _sgd(
    rounds: int, clip_norm: float, coordinate_bound: float, unit: np.ndarray | None = None, units: float = sum(SIZES)
) -> np.ndarray:
    """Sampled SGD with momentum in float64 on the samples that `fedsgd` draws; `unit` groups records of a site."""
    unit = np.asarray(COHORT.unit) if unit is None else unit
    flat, velocity, root = np.zeros(DIMENSION), np.zeros(DIMENSION), helpers.seeded(9)
    for number in range(rounds):
        drawn, total = _sampled(fold_in(root, "round", number)), np.zeros(DIMENSION)
        for s in range(len(SIZES)):
            gradients = helpers.logistic_gradients(flat[1:], flat[0], COHORT.features[s], COHORT.labels[s])
            for one in np.flatnonzero(drawn[s]):
                total += helpers.clipped(gradients[unit[s] == one].sum(axis=0), clip_norm, coordinate_bound)
        velocity = 0.5 * velocity + total / (RATE * units)
        flat = flat - 0.5 * velocity
    return flat


# What is computed -----------------------------------------------------------------------------------------------------


def test_without_noise_and_with_a_wide_clip_it_is_sampled_sgd() -> None:
    last = _rounds(_algorithm(helpers.noise_free(WIDE)), 5)[-1]
    np.testing.assert_allclose(_flat(last.params), _sgd(5, 64.0, 64.0), atol=2e-3)
    assert np.abs(_flat(last.params)).max() > 0.1


def test_without_noise_the_clipped_gradients_are_those_of_float64() -> None:
    last = _rounds(_algorithm(helpers.noise_free(helpers.mechanism(clip_norm=0.6, coordinate_bound=0.4))), 5)[-1]
    wanted = _sgd(5, 0.6, 0.4)
    np.testing.assert_allclose(_flat(last.params), wanted, atol=1e-4)
    assert np.abs(_sgd(5, 64.0, 64.0) - wanted).max() > 0.01  # the clip does bite here


def test_with_a_huge_dark_count_the_real_mechanism_gives_nearly_the_same() -> None:
    mechanism = poisson_embedding(
        clip_norm=16.0, coordinate_bound=16.0, dark_count=2e7, modulation=0.3, total_bound=16.0
    )
    last = _rounds(_algorithm(mechanism), 3)[-1]
    noise = 3 * 0.5 * 2 * np.sqrt(mechanism.variance(len(SIZES))) / (RATE * sum(SIZES))
    assert 4 * noise < 0.02
    np.testing.assert_allclose(_flat(last.params), _sgd(3, 16.0, 16.0), atol=4 * noise)


@pytest.mark.as_shipped
def test_patients_are_sampled_and_clipped_as_one_whatever_largest_unit_says() -> None:
    patient = np.where(np.asarray(COHORT.mask), np.asarray(COHORT.unit) // 3, -1)
    cohort = COHORT._replace(unit=jnp.asarray(patient, jnp.int32))
    tight = helpers.noise_free(helpers.mechanism(clip_norm=0.6, coordinate_bound=0.4))
    found = [_flat(_rounds(_algorithm(tight, unit="patient", largest_unit=n), 3, cohort)[-1].params) for n in (1, 3)]
    np.testing.assert_allclose(found[0], _sgd(3, 0.6, 0.4, unit=patient), atol=1e-4)
    np.testing.assert_array_equal(found[0], found[1])
    # At record level the same cohort is clipped record by record, each sampled by itself.
    by_record = _flat(_rounds(_algorithm(tight, unit="record"), 3, cohort)[-1].params)
    np.testing.assert_allclose(by_record, _sgd(3, 0.6, 0.4), atol=1e-4)
    assert np.abs(by_record - found[0]).max() > 0.01


def test_parameters_are_averaged_over_the_last_rounds() -> None:
    algorithm = _algorithm(helpers.noise_free(WIDE), average_from=2)
    states = _rounds(algorithm, 4)
    mean = np.mean([_flat(s.params) for s in states[2:]], axis=0)
    np.testing.assert_allclose(_flat(algorithm.parameters(states[-1])), mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(_flat(algorithm.parameters(states[1])), _flat(states[1].params))


def test_one_compilation_for_all_rounds() -> None:
    traced = {"loss": 0, "embed": 0}
    model, mechanism = logistic(), helpers.noise_free(WIDE)

    def loss(*arguments: Any) -> jax.Array:
        traced["loss"] += 1
        return model.loss(*arguments)

    def embed(stream: Stream, grid: jax.Array) -> jax.Array:
        traced["embed"] += 1
        return mechanism.embed(stream, grid)

    algorithm = _algorithm(mechanism._replace(embed=embed), model._replace(loss=loss))
    state = algorithm.init(jax.random.key(0))
    state, _ = algorithm.apply(state, COHORT, helpers.seeded(0))
    first = dict(traced)
    assert first["loss"] >= 1 and first["embed"] == 1
    for number in (1, 2, 3):
        state, _ = algorithm.apply(state, COHORT, helpers.seeded(number))
    assert traced == first
    wider = helpers.cohort((20, 6, 9), FEATURES)
    algorithm.apply(state, wider, helpers.seeded(0))
    assert traced["loss"] > first["loss"]  # another shape is another program: the counter counts


def test_pictures_of_several_classes_are_trained_at_their_own_shape() -> None:
    rng = np.random.default_rng(2)
    pixels = jnp.asarray(rng.random((3, 5, 4, 4, 1)), jnp.float32)
    mask = np.arange(5) < np.array([[5], [2], [3]])
    unit = jnp.asarray(np.where(mask, np.arange(5), -1), jnp.int32)
    labels = jnp.asarray(rng.integers(0, 3, (3, 5)), jnp.int32)
    cohort = Records(pixels, labels, jnp.asarray(mask), unit)
    model = cnn(3, widths=(2,), dense=3)
    size = dimension_of(model, (4, 4, 1))
    wide = helpers.noise_free(helpers.mechanism(clip_norm=64.0, coordinate_bound=64.0, total_bound=64.0))
    algorithm = _algorithm(
        wide,
        model,
        features=(4, 4, 1),
        rate=1.0,
        records=10.0,
        server_optimizer=optax.sgd(1.0),
    )
    state = algorithm.init(jax.random.key(1))
    after, _ = algorithm.apply(state, cohort, helpers.seeded(1))
    chosen = jnp.asarray(mask)

    def mean_loss(params: Any) -> jax.Array:
        return jnp.sum(model.loss(params, pixels[chosen], labels[chosen])) / jnp.float32(10)

    wanted = ravel_pytree(jax.grad(mean_loss)(state.params))[0]
    moved = ravel_pytree(state.params)[0] - ravel_pytree(after.params)[0]
    assert size == wanted.size
    np.testing.assert_allclose(moved, wanted, atol=1e-4)
    assert np.abs(wanted).max() > 0.01
    with pytest.raises(ValueError, match=r"\(3,\).*\(4, 4, 1\)"):
        algorithm.apply(state, COHORT, helpers.seeded(0))


# The noise ------------------------------------------------------------------------------------------------------------


@pytest.mark.statistical
def test_the_released_mean_gradient_has_the_variance_that_the_mechanism_states() -> None:
    features, rounds = 199, 40
    mechanism = helpers.mechanism()
    nobody = helpers.cohort((0, 0, 0), features, room=4)
    algorithm = _algorithm(mechanism, features=features, server_optimizer=optax.sgd(1.0))
    state, root, noise = algorithm.init(jax.random.key(0)), helpers.seeded(12), []
    for _ in range(rounds):
        before = _flat(state.params)
        state, info = algorithm.apply(state, nobody, root)
        noise.append(before - _flat(state.params))
        assert info.update_norm == pytest.approx(np.linalg.norm(noise[-1]), rel=1e-2)
    wanted = mechanism.variance(len(SIZES)) / (RATE * sum(SIZES)) ** 2
    samples = np.concatenate(noise)
    assert_moments(samples, 0.0, wanted)
    with pytest.raises(AssertionError, match="variance"):
        assert_moments(samples, 0.0, wanted * len(SIZES) / (len(SIZES) - 1))  # the twin: one sender sent no noise
    with pytest.raises(AssertionError, match="mean"):
        assert_moments(samples, 0.1 * np.sqrt(wanted), wanted)


# What is claimed ------------------------------------------------------------------------------------------------------


def test_curve_is_that_of_the_honest_senders_with_sampling() -> None:
    orders = accounting.integer_orders(32)
    mechanism = helpers.mechanism()
    of_two = mechanism.rdp(orders, 2, DIMENSION)
    np.testing.assert_array_equal(_algorithm(mechanism, rate=1.0).rdp(orders), of_two)
    np.testing.assert_array_equal(_algorithm(mechanism).rdp(orders), accounting.subsampled_rdp(orders, of_two, RATE))
    np.testing.assert_array_equal(
        _algorithm(mechanism, rate=1.0, honest_senders=3).rdp(orders), mechanism.rdp(orders, 3, DIMENSION)
    )
    assert np.all(mechanism.rdp(orders, 3, DIMENSION) < of_two)
    replaced = _algorithm(mechanism, rate=1.0, adjacency="replace_one").rdp(orders)
    assert np.all(replaced > of_two)


def test_a_cohort_of_another_size_is_refused_before_anything_is_sent() -> None:
    asked: list[str] = []
    algorithm = _algorithm(helpers.noise_free(WIDE))
    fewer = Records(*(each[:2] for each in COHORT))
    with pytest.raises(ValueError, match=r"2 sites.*senders=3.*every site must send"):
        algorithm.apply(algorithm.init(jax.random.key(0)), fewer, helpers.seeded(0), lambda: asked.append("gate"))
    assert asked == []


def test_state_is_unchanged_when_the_gate_refuses() -> None:
    def gate() -> None:
        raise accounting.BudgetExhausted("spent")

    algorithm = _algorithm(helpers.noise_free(WIDE))
    state = algorithm.init(jax.random.key(0))
    with pytest.raises(accounting.BudgetExhausted):
        algorithm.apply(state, COHORT, helpers.seeded(0), gate)
    np.testing.assert_array_equal(_flat(state.params), np.zeros(DIMENSION))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"adjacency": "add_remove"}, "add_remove.*refused"),
        ({"adjacency": "swap"}, "unknown"),
        ({"adjacency": "replace_one"}, "zero_out' only"),
        ({"rate": 0.0}, "sampling_rate=0"),
        ({"rate": 1.5}, "sampling_rate=1.5"),
        ({"honest_senders": 4}, "exceeds senders=3"),
        ({"honest_senders": 0}, "honest_senders=0"),
        ({"senders": 1}, "honest_senders=0"),
        ({"unit": "client"}, "use fedavg"),
        ({"unit": "record", "largest_unit": 2}, "use unit='patient'"),
    ],
)
def test_unsound_claims_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _algorithm(helpers.noise_free(WIDE), **options)


def test_a_mechanism_without_integers_is_refused_when_the_algorithm_is_made() -> None:
    real = helpers.noise_free(WIDE)._replace(facts=gaussian(clip_norm=1.0, noise_std=1.0).facts)
    with pytest.raises(ValueError, match=r"gaussian does not send integers.*use an integer mechanism"):
        _algorithm(real, aggregator=None)  # a committee's rounds; in the clear (plain) real numbers are added
