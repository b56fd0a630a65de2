"""Clipped contributions of few records, summed on the host: no clip has to be traced and compiled, which takes a short run longer than all its rounds do.

What is summed is what `records.sampled_sums` sums where every unit takes part: the records of a unit are added one after another in float32, the unit is
clipped to integers, and those are added exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from fedjax_poisson.federated.features import Features, flatten_leading
from fedjax_poisson.federated.records import Units, blocks_of, chunks_of
from fedjax_poisson.mechanisms.host_clip import MOST_VALUES
from fedjax_poisson.mechanisms.types import Mechanism, can_on_host, on_host

__all__ = ["InOrder", "in_order", "is_summed_on_host", "of_each_place", "sums_of_sites"]


class InOrder(NamedTuple):
    """The R records of all units, one unit after another.

    Attributes:
      place: int32 `[R]`, positions in the flattened `[S * n]`.
      unit: int `[R]`, whose record it is.
    """

    place: np.ndarray
    unit: np.ndarray


def in_order(units: Units, room: int) -> InOrder:
    """The records of units; `room` is S * n."""
    places = units.members.reshape(-1)
    (slots,) = np.nonzero(places < room)
    return InOrder(places[slots], slots // units.members.shape[1])


def of_each_place(contribution: Callable[[Any, Array], Array], x: Features, y: Array, chunk: int) -> Array:
    """Contributions float32 `[S * n, D]` of every place for a record, padding too: each has its own row of a program whose shape follows from places alone.

    Args:
      contribution: `(x_i, y_i)` to float32 `[D]`.
      x: features `[S, n, ...]`.
      y: `[S, n]` or `[S, n, K]`.
      chunk: records vmapped at once, rounded up to a multiple of 16.
    """
    flat = flatten_leading((x, y))
    places = y.shape[0] * y.shape[1]
    parts, size = chunks_of(places, chunk)
    blocks = jax.tree.map(lambda leaf: blocks_of(leaf, parts, size), flat)
    found = jax.lax.map(lambda own: jax.vmap(contribution)(*own), blocks)
    return found.reshape(parts * size, -1)[:places]


def is_summed_on_host(mechanism: Mechanism, places: int, dimension: int) -> bool:
    """Whether `sums_of_sites` takes contributions of so many coordinates: decided by the places for records, and by whether the mechanism clips on the host.

    Places and not records, as one unit more or less must not change how the others' contributions are computed.
    """
    return can_on_host(mechanism.clip) and 0 < places * dimension <= MOST_VALUES


@np.errstate(all="ignore")  # a unit that is not finite becomes zeros, and nobody shall see that there was one
def sums_of_sites(
    clip: Callable[[Array], Array],
    contributions: np.ndarray,
    records: InOrder,
    units: Units,
    sites: int,
    *,
    average: bool = False,
) -> np.ndarray:
    """Every site's sum of clipped contributions.

    Args:
      clip: of a mechanism that `is_summed_on_host`.
      contributions: float32 `[R, D]`, of the records in their order.
      records: the order.
      units: the units.
      sites: S.
      average: a unit contributes the mean of its records' contributions instead of their sum.

    Returns:
      int32 `[S, D]` on the mechanism's grid, not yet clamped to its total bound (`mechanism.embed` does that).
    """
    of_units = contributions
    if units.members.shape[1] > 1:
        of_units = np.zeros((units.site.size, contributions.shape[1]), np.float32)
        np.add.at(of_units, records.unit, contributions)  # in their order
    if average:
        of_units = of_units / units.sizes.astype(np.float32)[:, None]
    clipped = on_host(clip, of_units)
    assert clipped is not None, "is_summed_on_host was not asked"
    # Units stand site by site.
    ends = np.searchsorted(units.site, np.arange(sites), side="right")
    sums = np.concatenate([np.zeros((1, clipped.shape[1]), np.int64), np.cumsum(clipped, axis=0, dtype=np.int64)])
    return np.diff(sums[np.concatenate([[0], ends])], axis=0).astype(np.int32)
