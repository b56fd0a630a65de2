"""One private, encrypted histogram over all sites: how many units fall into each public bin of each column.

A record contributes a vector of zeros with a one in its bin of every column; a patient with several records contributes the mean of their vectors. With
m columns such a vector has an L2 norm of at most sqrt(m) and coordinates of at most 1, whatever the number of bins, and the mechanism's clip enforces
both in integers. So all columns together are one release of the Poisson embedding, accounted like any other (proved: `accounting.renyi`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson.aggregation import Aggregator
from fedjax_poisson.federated.private_sum import Gate, SumInfo, private_sum
from fedjax_poisson.mechanisms.types import Mechanism, partial_of
from fedjax_poisson.randomness import GRID_BITS, Stream

_CHUNK = 4096  # units clipped at once


def private_histogram(
    bins: np.ndarray,
    site: np.ndarray,
    group: np.ndarray,
    *,
    sites: int,
    size: int,
    mechanism: Mechanism,
    aggregator: Aggregator,
    stream: Stream,
    gate: Gate | None = None,
) -> tuple[np.ndarray, SumInfo]:
    """Release the histogram.

    Args:
      bins: int32 `[n, columns]`, the coordinate of each record's bin in each column; -1 for none. Training records only.
      site: int32 `[n]`, 0..S-1.
      group: int64 `[n]`, whose record it is; a person at two sites is a unit at each.
      sites: S, all of which send.
      size: D, length of the histogram.
      mechanism: unit-level integer mechanism, coordinate bound 1 and clip norm sqrt(columns).
      aggregator: the encryption of sums of D counts.
      stream: this release's stream.
      gate: asked before the sum is opened.

    Returns:
      Noisy counts float64 `[D]`, unbiased but for the clamp on a site's counts, and what the release cost.
    """
    grids = histogram_grids(mechanism, bins, site, group, sites=sites, size=size)
    total, info = private_sum(mechanism, aggregator, jnp.asarray(grids), stream, gate=gate)
    return np.asarray(total, np.float64), info


def histogram_grids(
    mechanism: Mechanism, bins: np.ndarray, site: np.ndarray, group: np.ndarray, *, sites: int, size: int
) -> np.ndarray:
    """Each site's sum of clipped contributions, int32 `[S, D]` on the mechanism's grid, clamped to its total bound.

    A contribution is clipped without its zeros: the clip is a function of the entries that are not zero (norm, largest entry, rounding of each), so
    this has the bits of clipping the whole vector, which a test checks.
    """
    units, coordinates, weights = _entries(bins, site, group, size)
    clip = partial_of(mechanism.clip, weights.shape[1])
    total = np.zeros((sites, size + 1), np.int64)  # the last coordinate takes the padding
    for start in range(0, len(units), _CHUNK):
        part = slice(start, start + _CHUNK)
        count = len(units[part])
        lacking = (1 << (count - 1).bit_length()) - count  # a power of two: few programs for tables of any size
        clipped = np.asarray(_clip_all(clip, jnp.asarray(np.pad(weights[part], ((0, lacking), (0, 0))))))
        rows = clipped[:count].astype(np.int64)
        np.add.at(total, (units[part][:, None], coordinates[part]), rows)
    top = 2**GRID_BITS
    return np.clip(total[:, :size], -top, top).astype(np.int32)


@jax.jit  # a module's function: one compilation for all mechanisms whose clip has one structure
def _clip_all(clip: Partial, weights: Array) -> Array:
    return jax.vmap(clip)(weights)


def _entries(
    bins: np.ndarray, site: np.ndarray, group: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The U units as sparse vectors: their sites int `[U]`, coordinates int `[U, L]` (`size` for padding) and weights float32 `[U, L]`."""
    columns = bins.shape[1]
    keys, unit = np.unique(np.stack([site.astype(np.int64), group]), axis=1, return_inverse=True)
    unit = unit.reshape(-1)
    records = np.bincount(unit, minlength=keys.shape[1])
    owner, where = np.repeat(unit, columns), bins.reshape(-1).astype(np.int64)
    flat, counts = np.unique((owner * size + where)[where >= 0], return_counts=True)
    owner, where = flat // size, flat % size
    entries = np.bincount(owner, minlength=len(records))
    place = np.arange(len(owner)) - np.repeat(np.cumsum(entries) - entries, entries)
    shape = (len(records), int(entries.max(initial=1)))
    coordinates, weights = np.full(shape, size, np.int64), np.zeros(shape, np.float32)
    coordinates[owner, place], weights[owner, place] = where, counts / records[owner]
    return keys[0], coordinates, weights
