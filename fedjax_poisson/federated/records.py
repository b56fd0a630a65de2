"""Records of several sites on the device, a secret sample of them, and their clipped, summed contributions.

The privacy unit is a record, or a patient with several records. A unit's contribution (a gradient, or moments of features) is clipped on the
mechanism's integer grid (`mechanism.clip`); a site adds the contributions of its sampled units as integers; what leaves the site is decided
elsewhere (`private_sum`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson import trees
from fedjax_poisson.mechanisms.types import Mechanism
from fedjax_poisson.randomness import Stream, bits


class Records(NamedTuple):
    """Records of S sites, padded to rectangles.

    Attributes:
      features: float32 `[S, n, F]`.
      labels: float32 or int32 `[S, n]`.
      mask: bool `[S, n]`, False for padding.
      unit: int32 `[S, n]`: which privacy unit of its site a record belongs to, 0..U-1; -1 for padding. `arange(n)` when every record is
        its own unit.
    """

    features: Array
    labels: Array
    mask: Array
    unit: Array


def sample_units(stream: Stream, units: int, rate: float) -> Array:
    """Secret Poisson sample: bool `[units]`, each True independently with probability `floor(rate * 2**32) / 2**32` <= rate.

    Rounding the rate down keeps the accountant's amplification (which is monotone in the rate) an upper bound.
    """
    threshold = int(rate * 2.0**32)
    if threshold >= 2**32:
        return jnp.ones(units, bool)
    return bits(stream, units) < jnp.uint32(threshold)


def summed_contributions(
    contribution: Callable[[Any, Array], Array],
    mechanism: Mechanism,
    x: Array,
    y: Array,
    unit: Array,
    sampled: Array,
    *,
    largest_unit: int,
    chunk: int = 256,
    average: bool = False,
) -> Array:
    """One site's sum of clipped contributions of its sampled units, on the mechanism's grid.

    Args:
      contribution: `(x_i [F], y_i [])` to float32 `[D]`, one record's contribution.
      mechanism: gives the clip.
      x: float32 `[n, F]`.
      y: `[n]`.
      unit: int32 `[n]`, unit of each record, -1 for padding.
      sampled: bool `[U]`, which units take part.
      largest_unit: records of the largest unit; 1 means that every record is its own unit (unit i is record i).
      chunk: how many records are vmapped at once; memory is `chunk * D`. A unit of several records is summed before it is clipped, so
        then all `[U, D]` sums are held.
      average: a unit contributes the mean of its records' contributions instead of their sum.

    Returns:
      int32 `[D]`, not yet clamped to the mechanism's total bound (`mechanism.embed` does that).
    """
    count = x.shape[0]
    if not _fits_int32(mechanism, count):
        raise ValueError(
            f"{count} records of one site could overflow the int32 sum of contributions; raise total_bound so that "
            "records * coordinate_bound / total_bound < 2048."
        )
    per_record = jax.vmap(contribution)
    if largest_unit == 1:
        keep = (unit >= 0) & sampled[jnp.maximum(unit, 0)]

        def chunk_sum(total: Array, part: tuple[Array, Array, Array]) -> tuple[Array, None]:
            xs, ys, kept = part
            clipped = jax.vmap(mechanism.clip)(per_record(xs, ys))
            return total + jnp.sum(jnp.where(kept[:, None], clipped, jnp.int32(0)), axis=0, dtype=jnp.int32), None

        parts = -(-count // chunk)
        size = -(-count // parts)
        xs, ys, kept = (_blocks(a, parts, size) for a in (x, y, keep))
        dimension = jax.eval_shape(contribution, x[0], y[0]).shape[0]
        return jax.lax.scan(chunk_sum, jnp.zeros(dimension, jnp.int32), (xs, ys, kept))[0]
    units = sampled.shape[0]
    contributions = jnp.where((unit >= 0)[:, None], per_record(x, y), jnp.float32(0))
    summed = jax.ops.segment_sum(contributions, jnp.maximum(unit, 0), num_segments=units)
    if average:
        present = (unit >= 0).astype(jnp.float32)
        sizes = jax.ops.segment_sum(present, jnp.maximum(unit, 0), num_segments=units)
        summed = summed / jnp.maximum(sizes, jnp.float32(1))[:, None]
    clipped = jax.vmap(mechanism.clip)(summed)
    return jnp.sum(jnp.where(sampled[:, None], clipped, jnp.int32(0)), axis=0, dtype=jnp.int32)


def gradient_contribution(loss: Callable[..., Array], params: Any) -> Callable[[Array, Array], Array]:
    """`(x_i, y_i)` to the flat float32 `[D]` gradient of `loss(params, x [1, F], y [1]) -> [1]`."""

    def contribution(x: Array, y: Array) -> Array:
        return trees.flatten(jax.grad(lambda p: loss(p, x[None], y[None])[0])(params))

    return contribution


def _fits_int32(mechanism: Mechanism, count: int) -> bool:
    if count < 2048:  # a contribution is at most 2**20 grid steps
        return True
    facts = dict(mechanism.facts.parameters)
    bound, total = facts.get("coordinate_bound"), facts.get("total_bound")
    return bound is not None and count * (bound / (total or bound)) < 2047


def _blocks(a: Array, parts: int, size: int) -> Array:
    pad = [(0, parts * size - a.shape[0])] + [(0, 0)] * (a.ndim - 1)
    return jnp.pad(a, pad).reshape(parts, size, *a.shape[1:])


def largest_unit(unit: np.ndarray) -> int:
    """Records of the largest unit in int `[S, n]` unit numbers (-1 is padding); decides on the host how contributions are summed."""
    sizes = [np.bincount(row[row >= 0]).max(initial=0) for row in np.asarray(unit)]
    return int(max(sizes, default=0))
