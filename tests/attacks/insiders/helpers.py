"""A small population, one round of its messages with and without an attack, and a sight of one insider."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson import federated, models
from fedjax_poisson.federated.client import Examples
from fedjax_poisson.federated.cohort import cohort_sum
from fedjax_poisson.federated.insiders import Attack, Insiders, insider_numbers
from fedjax_poisson.federated.sharing_programs import Numbers
from fedjax_poisson.mechanisms import poisson_embedding
from fedjax_poisson.mechanisms.types import functions_of
from tests.federated.helpers import seeded

CLIENTS, RECORDS, FEATURES = 10, 8, 4
SIZE = FEATURES + 1
RNG = np.random.default_rng(7)
X = RNG.normal(size=(CLIENTS, RECORDS, FEATURES)).astype(np.float32)
Y = (X[..., 0] + 0.3 * RNG.normal(size=(CLIENTS, RECORDS)) > 0).astype(np.float32)
ROOT = seeded(3)
MECHANISM = poisson_embedding(clip_norm=0.3, coordinate_bound=0.3, dark_count=200000.0, modulation=0.2)  # little noise
NOISE = MECHANISM.variance(1) ** 0.5
CLIENT = federated.local_sgd(1.0)


def start() -> Any:
    """First weights."""
    return models.logistic().init(jax.random.key(0), jnp.asarray(X[0, :1]))


@functools.cache
def updates() -> np.ndarray:
    """Every client's honest update before the clip, float32 `[K, D]`."""
    from fedjax_poisson.federated.client import run_client

    client = CLIENT(models.logistic())
    found = [
        run_client(client, start(), (), (), Examples(jnp.asarray(x), jnp.asarray(y)), ROOT)[0]
        for x, y in zip(X, Y, strict=True)
    ]
    return np.asarray(found)


@functools.cache
def _functions() -> Any:
    return functions_of(MECHANISM, SIZE)


@functools.cache
def _program() -> Any:
    return jax.jit(cohort_sum(CLIENT(models.logistic()), start(), "counts", clients=CLIENTS).counts)


def sent(attack: Attack | None, who: tuple[int, ...] = (0,)) -> np.ndarray:
    """What every client's message is estimated as by itself, float32 `[K, D]`."""
    population = federated.make_population(X, Y)
    cohort = federated.make_cohort(population, np.arange(CLIENTS))._replace(numbers=())
    corrupt = None if attack is None else insider_numbers(Insiders(who=who, attack=attack), CLIENTS, Examples(X, Y))
    numbers = Numbers(None, _functions(), insiders=corrupt)
    counts, _, _ = _program()(start(), (), (), cohort, ROOT, numbers)
    return np.asarray(jax.vmap(lambda row: MECHANISM.estimate(row, 1))(counts))
