"""Skellam noise on sums of contributions that already lie on an integer grid: for clients, and for sites that add up many records.

A contribution is clipped on a grid of step g, rounded to nearest, its bounds checked after the rounding (`clipping`): an integer vector m with
`|m|_2^2 <= B` and `|m_j| <= b`, exactly. A sender adds the contributions of its units as integers, clamps each coordinate to A / g and adds Skellam noise of
variance v. One unit moves the clamped sum by an integer vector no longer in any coordinate than m (a clamp is 1-Lipschitz), so its L2 norm is at most
sqrt(B) and its L1 norm at most `min(sqrt(D B), B, D b)`: the second since integers satisfy `|k| <= k^2` (proved). The Renyi bound for such a move is that of
Agarwal, Kairouz and Liu (2021, arXiv:2110.04995; published). Nothing is rounded at random, so the sensitivity has no floor at sqrt(D) / 2 steps, which
`skellam` has; the price is a rounding error of at most half a step a contribution and coordinate, far below the noise where the grid is fine (`at_noise`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson import accounting, randomness
from fedjax_poisson.accounting import Adjacency
from fedjax_poisson.mechanisms import clipping
from fedjax_poisson.mechanisms.estimates import bernstein_deviation, scaled_sum
from fedjax_poisson.mechanisms.sum_law import added_noise
from fedjax_poisson.mechanisms.types import (
    Bounds,
    Facts,
    Mechanism,
    WithNumbers,
    check_bounds,
    check_positive,
    make_mechanism,
)
from fedjax_poisson.randomness import SamplingTables, Stream

if TYPE_CHECKING:
    from fedjax_poisson.mechanisms.dark_counts import Shape, Terms

_NOISE_STEPS = (
    2.0**12
)  # standard deviation of one sender's noise in grid steps: records' contributions then span many steps
_MOST_SUM = 2.0**29  # of all senders' clamped sums, in grid steps: with the noise it stays below 2**31


def summed_skellam(
    *, clip_norm: float, coordinate_bound: float, total_bound: float, grid_step: float, noise_variance: float
) -> Mechanism:
    """Skellam noise on a clamped sum of clipped contributions (module docstring).

    Args:
      clip_norm: L2 bound C of one unit's contribution, in the update's unit.
      coordinate_bound: bound c_inf on each of its coordinates, 0 < c_inf <= C.
      total_bound: A >= c_inf, the clamp on each coordinate of a sender's sum; c_inf at client level.
      grid_step: g, the value of one integer step; at least c_inf / 2**20.
      noise_variance: v of ONE sender's noise per coordinate, in squared grid steps (twice the rate of each Poisson).

    Raises:
      ValueError: a parameter is outside its range, with the remedy.
    """
    check_positive(
        clip_norm=clip_norm,
        coordinate_bound=coordinate_bound,
        total_bound=total_bound,
        grid_step=grid_step,
        noise_variance=noise_variance,
    )
    check_bounds(clip_norm, coordinate_bound)
    if total_bound < coordinate_bound:
        raise ValueError(
            f"total_bound={total_bound} is below coordinate_bound={coordinate_bound}: a single contribution would be clamped; raise total_bound."
        )
    if coordinate_bound > grid_step * 2.0**randomness.GRID_BITS:
        raise ValueError(
            f"grid_step={grid_step} is below coordinate_bound / 2**{randomness.GRID_BITS}: clipping is exact up to so many steps; raise grid_step."
        )
    limits = clipping.clip_limits(
        clip_norm=clip_norm,
        coordinate_bound=coordinate_bound,
        total_bound=grid_step * 2.0**randomness.GRID_BITS,
    )
    top = math.floor(total_bound / grid_step)
    l2 = math.sqrt(limits.squared_norm_limit) * (1 + 2.0**-50)
    tables = randomness.skellam_tables(noise_variance / 2.0)

    def rdp(orders: np.ndarray, honest_senders: int, dimension: int, adjacency: Adjacency) -> np.ndarray:
        l1 = min(math.sqrt(dimension) * l2, l2 * l2, float(dimension * limits.coordinate_limit))
        twice = 2.0 if adjacency == "replace_one" else 1.0
        return accounting.skellam_rdp(orders, variance=honest_senders * noise_variance, l1=twice * l1, l2=twice * l2)

    def count_bound(senders: int, dimension: int, failure: float = 2.0**-64) -> int:
        return math.ceil(senders * top + bernstein_deviation(senders * noise_variance, dimension, failure))

    return make_mechanism(
        facts=Facts(
            name="summed_skellam",
            parameters=(
                ("clip_norm", clip_norm),
                ("coordinate_bound", coordinate_bound),
                ("total_bound", total_bound),
                ("grid_step", grid_step),
                ("noise_variance", noise_variance),
            ),
            integer=True,
            status="published",
            guarantee="Renyi bound of Agarwal-Kairouz-Liu 2021 for an integer move whose norms are proved (mechanisms.summed_skellam).",
            sampler_distance=randomness.MAX_DISTANCE,
        ),
        bounds=Bounds(clip_norm, coordinate_bound, total_bound, limits.grid_step),
        clip=WithNumbers(lambda dimension: Partial(clipping.clip_with, clipping.clip_numbers(limits, dimension))),
        embed=WithNumbers(lambda dimension: Partial(_add_noise, tables, np.int32(min(top, 2**31 - 1))), vector=1),
        estimate=WithNumbers(lambda dimension: Partial(scaled_sum, np.float32(grid_step))),
        rdp=rdp,
        variance=lambda senders: senders * noise_variance * grid_step**2,
        count_bound=count_bound,
        sum_law=added_noise(
            noise_variance / 2.0,
            WithNumbers(lambda dimension: Partial(_clamped, np.int32(min(top, 2**31 - 1))), vector=1),
        ),
    )


def _clamped(top: Array, stream: Stream, grid: Array) -> Array:
    del stream
    return jnp.clip(grid, -top, top)


def _add_noise(tables: SamplingTables, top: Array, stream: Stream, grid: Array) -> Array:
    return jnp.clip(grid, -top, top) + randomness.skellam(stream, grid.shape, tables)


def at_noise(shape: Shape, noise_std: float, terms: Terms) -> Mechanism:
    """The mechanism with this standard deviation of one sender's noise, on the finest grid that the integers hold (`registry`).

    Args:
      shape: bounds and length of the release.
      noise_std: per coordinate, in the update's unit.
      terms: who takes part.
    """
    senders = terms.participation.senders
    step = max(
        noise_std / _NOISE_STEPS,
        shape.coordinate_bound * (1 + 2.0**-20) / 2.0**randomness.GRID_BITS,
        senders * shape.total_bound / _MOST_SUM,
    )
    return summed_skellam(
        clip_norm=shape.clip_norm,
        coordinate_bound=shape.coordinate_bound,
        total_bound=shape.total_bound,
        grid_step=step,
        noise_variance=(noise_std / step) ** 2,
    )
