"""A sweep compiles once: noise, bounds and step sizes are arguments of the programs, and algorithms of one structure share them."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_poisson as fp
from fedjax_poisson import federated
from fedjax_poisson.federated import Records
from fedjax_poisson.federated.server import Paced
from fedjax_poisson.mechanisms import Mechanism
from tests.federated.helpers import seeded

LEVELS = np.geomspace(100.0, 4000.0, 10)
SENDERS, COUNT, FEATURES = 4, 6, 3
COMPILED: list[str] = []
RNG = np.random.default_rng(5)
X = RNG.standard_normal((SENDERS, COUNT, FEATURES)).astype(np.float32)
Y = (X[..., 0] > 0).astype(np.float32)


def _note(event: str, _: float, **__: object) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILED.append(event)


@pytest.fixture(autouse=True, scope="module")
def counted() -> Iterator[None]:
    cache = jax.config.jax_enable_compilation_cache
    jax.config.update(
        "jax_enable_compilation_cache", False
    )  # what is read from it is compiled as far as a sweep is concerned
    jax.monitoring.register_event_duration_secs_listener(_note)
    yield
    jax.config.update("jax_enable_compilation_cache", cache)


def _mechanism(level: float, place: int) -> Mechanism:
    """Every number differs, and the ratio of clip and coordinate bound, on which the shift of a clip depends."""
    return fp.poisson_embedding(
        clip_norm=1.0 + 0.3 * place, coordinate_bound=0.5 / (1 + place), dark_count=level, modulation=0.05 + 0.001 * place,
        total_bound=4.0 + place,
    )  # fmt: skip


def _records() -> Records:
    unit = np.tile(np.arange(COUNT, dtype=np.int32), (SENDERS, 1))
    return Records(jnp.asarray(X), jnp.asarray(Y), jnp.ones((SENDERS, COUNT), bool), jnp.asarray(unit))


def _fedsgd(mechanism: Mechanism, rate: float) -> np.ndarray:
    algorithm = fp.fedsgd(
        fp.models.logistic(), features=FEATURES, records=24.0 * rate, sampling_rate=1.0, mechanism=mechanism, aggregator=PLAIN,
        server_optimizer=Paced(UNIT, rate), senders=SENDERS,
    )  # fmt: skip
    state, _ = algorithm.apply(algorithm.init(jax.random.key(0)), _records(), seeded(1))
    return np.asarray(state.params["weight"])


def _fedavg(mechanism: Mechanism, rate: float) -> np.ndarray:
    algorithm = fp.fedavg(
        fp.models.logistic(), client=CLIENT, population=POPULATION, senders=SENDERS, server_optimizer=Paced(UNIT, rate),
        mechanism=mechanism, encryption="off",
    )  # fmt: skip
    state, _ = algorithm.apply(algorithm.init(jax.random.key(0)), np.arange(SENDERS), seeded(1))
    return np.asarray(state.server.params["weight"])


PLAIN = fp.aggregator("plain", count_bound=1 << 20, senders=SENDERS)
UNIT, CLIENT = optax.sgd(1.0, momentum=0.5), fp.local_sgd(0.5)
POPULATION = federated.make_population(X, Y)


@pytest.mark.parametrize("once", [_fedsgd, _fedavg])
def test_ten_noise_levels_with_other_bounds_and_steps_compile_once(once) -> None:
    found, compiled = [], []
    for place, level in enumerate(LEVELS):
        COMPILED.clear()
        found.append(once(_mechanism(float(level), place), 0.1 * (1 + place)))
        compiled.append(len(COMPILED))
    assert compiled[0] > 0 and compiled[1:] == [0] * 9
    assert len({each.tobytes() for each in found}) == 10, "they differ in what they compute"


def test_the_count_sees_a_mechanism_with_a_structure_of_its_own() -> None:
    mechanism = _mechanism(300.0, 1)
    _fedsgd(mechanism, 0.1)
    COMPILED.clear()
    _fedsgd(mechanism._replace(clip=lambda update: mechanism.clip(update)), 0.1)
    assert COMPILED


def test_a_factor_beside_a_transformation_is_the_transformation_with_that_step() -> None:
    params, gradient = {"w": jnp.float32([1.0, -2.0, 0.3])}, {"w": jnp.float32([0.7, 1e-3, -5.0])}
    for make in (lambda rate: optax.sgd(rate, momentum=0.8), optax.adam):
        whole, paced = make(0.37), Paced(make(1.0), 0.37)
        mine, theirs = paced.init(params), whole.init(params)
        with jax.numpy_dtype_promotion("standard"):  # optax promotes
            for _ in range(3):
                moved, mine = paced.update(gradient, mine, params)
                wanted, theirs = whole.update(gradient, theirs, params)
                np.testing.assert_array_equal(moved["w"], wanted["w"])
