"""Conversion of `Sites` on the host to the inputs of the algorithms: records of every site for `fedsgd`, a population of clients for `fedavg`."""

from __future__ import annotations

import jax
import numpy as np

from fedjax_poisson import data
from fedjax_poisson.federated.population import Population, make_population
from fedjax_poisson.federated.records import Records
from fedjax_poisson.federated.standardize import Scaler, standardize


def records_of(sites: data.Sites, train: bool = True, scaler: Scaler | None = None) -> Records:
    """A split as padded device arrays.

    Args:
      sites: the data.
      train: the training records, or the test records.
      scaler: standardises the features (`standardize.private_scaler` or `bounds_scaler`); None leaves them raw.

    Returns:
      Features float32 `[S, n, ...]`; labels float32 0/1 `[S, n]` for two classes, int32 class numbers for several, float32 `[S, n, K]` for K labels a
      record, float32 numbers `[S, n]` for regression; mask; privacy units.
    """
    padded = data.padded(sites, train=train)
    features = jax.device_put(np.asarray(padded.features, np.float32))
    return Records(
        features if scaler is None else standardize(scaler, features),
        jax.device_put(np.asarray(padded.labels, np.int32 if sites.task == "multiclass" else np.float32)),
        jax.device_put(padded.mask),
        jax.device_put(np.asarray(data.padded_groups(sites, train=train), np.int32)),
    )


def population_of(
    sites: data.Sites, train: bool = True, scaler: Scaler | None = None, *, on_device: bool = True
) -> Population:
    """Every site as one client of a simulation.

    Args:
      sites: the data, for example cut into many by `data.dirichlet`.
      train: the training records, or the test records.
      scaler: standardises the features; None leaves them raw.
      on_device: keep everything on the device; False streams cohorts from the host.
    """
    found = records_of(sites, train, scaler)
    return make_population(
        np.asarray(found.features), np.asarray(found.labels), np.asarray(found.mask), on_device=on_device
    )
