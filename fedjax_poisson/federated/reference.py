"""The same recipe without privacy and without encryption, as the yardstick: nobody's records are protected by this function."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from fedjax_poisson import trees
from fedjax_poisson.federated import records as records_lib
from fedjax_poisson.federated import server, standardize
from fedjax_poisson.federated.records import Records
from fedjax_poisson.models import Model
from fedjax_poisson.randomness import Stream, fold_in


def exact_scaler(cohort: Records, bounds: np.ndarray, binary: np.ndarray) -> standardize.Scaler:
    """Global standardisation from exact moments over units (a patient's records weigh one in all): what the private release estimates."""
    bounds32, flags = jnp.asarray(bounds, jnp.float32), np.asarray(binary, bool)
    vectors = jax.vmap(jax.vmap(lambda x: standardize.moments(x, bounds32, flags)))(cohort.features)
    units, mask = np.asarray(cohort.unit), np.asarray(cohort.mask)
    weights = np.zeros(units.shape, np.float32)
    for site, present in enumerate(mask):
        own = units[site, present]
        weights[site, present] = 1 / np.bincount(own)[own]
    weighted = jnp.where(cohort.mask[..., None], vectors, jnp.float32(0)) * jnp.asarray(weights)[..., None]
    total = jnp.sum(weighted, axis=(0, 1))
    return standardize.scaler_from_moments(total, bounds32, flags)


def train_without_privacy(
    model: Model,
    cohort: Records,
    *,
    rounds: int,
    sampling_rate: float,
    server_optimizer: optax.GradientTransformation,
    stream: Stream,
    average_from: int | None = None,
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
    sites, units, width = cohort.features.shape
    x, y = cohort.features.reshape(sites * units, width), cohort.labels.reshape(sites * units)
    mask = cohort.mask.reshape(-1)
    count = jnp.sum(mask).astype(jnp.float32)
    params = model.init(jax.random.key(0), x[:1])

    def step(state: server.State, number: Array) -> tuple[server.State, None]:
        keep = mask & records_lib.sample_units(fold_in(stream, number, "reference"), sites * units, sampling_rate)

        def objective(p: Any) -> Array:
            losses = model.loss(p, x, y)
            return jnp.sum(jnp.where(keep, losses, jnp.float32(0))) / (jnp.float32(sampling_rate) * count)

        gradient = jax.grad(objective)(state.params)
        return server.server_step(state, trees.flatten(gradient), server_optimizer, average_from), None

    state = server.init_state(params, server_optimizer)
    state, _ = jax.lax.scan(step, state, jnp.arange(rounds, dtype=jnp.uint32))
    return server.final_parameters(state, average_from)
