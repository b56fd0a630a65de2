"""Clipped contributions of few records, summed on the host: no clip has to be traced and compiled, which takes a short run longer than all its rounds do.

What is summed is what `records.sampled_sums` sums where every unit takes part: the records of a unit are added one after another in float32, the unit is
clipped to integers, and those are added exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jax import Array

from fedjax_poisson.federated.records import Units, chunks_of
from fedjax_poisson.mechanisms.host_clip import MOST_VALUES
from fedjax_poisson.mechanisms.types import Mechanism, WithNumbers, on_host

__all__ = ["InOrder", "in_order", "is_summed_on_host", "places_in_chunks", "sums_of_sites"]


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


def places_in_chunks(place: np.ndarray, chunk: int) -> np.ndarray:
    """Places of records int32 `[chunks, size]` (`records.chunks_of`), the last ones repeated: a record's gradient has the same bits in every place."""
    parts, size = chunks_of(place.size, chunk)
    return np.pad(place, (0, parts * size - place.size), mode="edge").reshape(parts, size)


def is_summed_on_host(mechanism: Mechanism, units: Units, dimension: int) -> bool:
    """Whether `sums_of_sites` takes the contributions of so many coordinates of these units: a size decides, and whether the mechanism clips on the host."""
    has_clip = isinstance(mechanism.clip, WithNumbers) and mechanism.clip.on_host is not None
    return has_clip and 0 < int(units.sizes.sum()) * dimension <= MOST_VALUES


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
