"""The same recipe without privacy and encryption, as a yardstick: this function protects nobody's records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson import trees
from fedjax_poisson.federated import records as records_lib
from fedjax_poisson.federated import server, standardize
from fedjax_poisson.federated.features import Features, flatten_leading, floats_in, spec_of, take
from fedjax_poisson.federated.records import Records
from fedjax_poisson.federated.sharing_programs import built_once
from fedjax_poisson.models import Model
from fedjax_poisson.randomness import Stream, fold_in
from fedjax_poisson.traced_programs import traced_once


def exact_scaler(
    cohort: Records,
    bounds: np.ndarray,
    binary: np.ndarray,
    *,
    by_site: bool = False,
    label_bounds: tuple[float, float] | None = None,
) -> standardize.Scaler:
    """Standardisation, global or of each site, from exact moments over units (a patient's records weigh one in all)."""
    bounds32, flags = standardize.with_label(bounds, binary, label_bounds)
    cohort = standardize.label_as_column(cohort, label_bounds)
    units, mask = np.asarray(cohort.unit), np.asarray(cohort.mask)
    weights = np.zeros(units.shape, np.float32)
    for site, present in enumerate(mask):
        own = units[site, present]
        weights[site, present] = 1 / np.bincount(own)[own]
    rows = np.asarray(cohort.features, np.float32).reshape(mask.size, -1)
    vectors = standardize.moments_of_rows(rows, bounds32, flags).reshape(*mask.shape, -1)
    weighted = np.where(mask[..., None], vectors, np.float32(0)) * weights[..., None]
    of_sites = weighted.sum(axis=1, dtype=np.float64)
    pooled = standardize.scaler_from_moments(of_sites.sum(axis=0), bounds32, flags)
    found = standardize.scaler_of_sites(of_sites, bounds32, flags) if by_site else pooled
    return found if label_bounds is None else standardize.without_label(found, pooled)


def train_without_privacy(
    model: Model,
    cohort: Records,
    *,
    rounds: int,
    sampling_rate: float,
    server_optimizer: server.ServerOptimizer,
    stream: Stream,
    average_from: server.AverageFrom = None,
) -> Any:
    """Sampled SGD on the exact mean gradient of the (standardised) records of all sites; no clip, no noise, no encryption.

    Args:
      model: as in `fedsgd`.
      cohort: standardised training records.
      rounds: number of steps.
      sampling_rate: each unit's chance to be in a step.
      server_optimizer: optax transformation.
      stream: draws the samples.
      average_from: as in `fedsgd`.

    Returns:
      The final parameters.
    """
    sites, units = cohort.mask.shape
    x = flatten_leading(cohort.features)
    y = cohort.labels.reshape(sites * units, *cohort.labels.shape[2:])
    real = np.flatnonzero(np.asarray(cohort.mask))
    params = model.init(jax.random.key(0), take(x, slice(1)))
    dimension = sum(leaf.size for leaf in jax.tree.leaves(params))
    slots = records_lib.slots_for(len(real), sampling_rate)
    parts = max(-(-slots // (8 * records_lib.chunk_for(dimension, floats_in(spec_of(x, 1))))), 1)
    size = -(-slots // parts)

    rule, factor = server.factor_apart(server_optimizer)
    train = _trainer(model.loss, rule, average_from, sampling_rate, rounds, slots, parts, size)
    last = train(params, x, y, jnp.asarray(real, jnp.int32), stream, np.float32(sampling_rate * len(real)), factor)
    return server.final_parameters(last, average_from)


@built_once
def _trainer(
    loss: Callable[..., Array],
    rule: server.ServerOptimizer,
    average_from: server.AverageFrom,
    sampling_rate: float,
    rounds: int,
    slots: int,
    parts: int,
    size: int,
) -> Callable[..., server.State]:
    """`(params, x, y, real, stream, records, factor) -> state`: one program for all trainings of one structure."""

    @traced_once()
    def train(
        params: Any, x: Features, y: Array, real: Array, stream: Stream, records: Array, factor: Array | None
    ) -> server.State:
        optimizer, count = server.with_factor(rule, factor), real.shape[0]

        def step(state: server.State, number: Array) -> tuple[server.State, None]:
            coins = records_lib.sample_units(fold_in(stream, number, "reference"), y.shape[0], sampling_rate)
            (chosen,) = jnp.nonzero(coins[real], size=slots, fill_value=count)
            chosen = jnp.pad(chosen.astype(jnp.int32), (0, parts * size - slots), constant_values=count)

            def add_part(total: Array, own: Array) -> tuple[Array, None]:
                place = real[jnp.minimum(own, count - 1)]

                def objective(p: Any) -> Array:
                    return jnp.sum(jnp.where(own < count, loss(p, take(x, place), y[place]), jnp.float32(0)))

                return total + trees.flatten(jax.grad(objective)(state.params)), None

            zero = jnp.zeros_like(trees.flatten(state.params))
            total, _ = jax.lax.scan(add_part, zero, chosen.reshape(parts, size))
            return server.server_step(state, total / records, optimizer, average_from), None

        state = server.init_state(params, optimizer)
        return jax.lax.scan(step, state, jnp.arange(rounds, dtype=jnp.uint32))[0]

    return train
