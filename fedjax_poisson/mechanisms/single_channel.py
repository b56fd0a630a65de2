"""The one-channel embedding: non-negative counts `Y_j = Poisson(mu (1 + r v_j))`.

Half the randomness of the push-pull embedding and counts that are never negative, at a price: the worst rest of the sum is everybody at
-c_inf, where the rate is lowest, so the variance exceeds the Gaussian's by 1 / (1 - r) (5.3 % at r = 0.05) instead of 1 / (1 - r**2), and it
depends on the data. Prefer `poisson_embedding` unless non-negative counts are required. The accountant uses the worst base rate
h mu (1 - r), never the typical one (`accounting.single_channel_rdp` has the proof).
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson import accounting, randomness
from fedjax_poisson.accounting import Adjacency
from fedjax_poisson.mechanisms import clipping
from fedjax_poisson.mechanisms.estimates import Mean, bernstein_deviation, mean_count, subtract_mean
from fedjax_poisson.mechanisms.sum_law import modulated_sum
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

_MODULATION, _LARGEST_RATE = 0.05, 5e7


def single_channel(*, clip_norm: float, coordinate_bound: float, dark_count: float, modulation: float) -> Mechanism:
    """One-channel Poisson embedding at client level (module docstring).

    Args:
      clip_norm: L2 bound C of one client's update.
      coordinate_bound: bound c_inf on each coordinate, 0 < c_inf <= C.
      dark_count: mu, mean count of a sender with v = 0.
      modulation: r in (0, 1): the offset b = c_inf / r is then above c_inf, so no rate is ever zero.

    Raises:
      ValueError: a parameter is outside its range.
    """
    check_positive(clip_norm=clip_norm, coordinate_bound=coordinate_bound, dark_count=dark_count, modulation=modulation)
    check_bounds(clip_norm, coordinate_bound)
    if modulation >= 1:
        raise ValueError(
            f"modulation={modulation} must be below 1: otherwise a rate can be zero or negative; use 0.05."
        )
    limits = clipping.clip_limits(clip_norm=clip_norm, coordinate_bound=coordinate_bound, total_bound=coordinate_bound)
    randomness.check_push_pull(dark_count=dark_count, modulation=modulation)  # the same ranges
    tables = functools.cache(lambda: randomness.single_channel_tables(dark_count=dark_count, modulation=modulation))
    scale = np.float32(coordinate_bound / (dark_count * modulation))

    def rdp(orders: np.ndarray, honest_senders: int, dimension: int, adjacency: Adjacency) -> np.ndarray:
        return accounting.single_channel_rdp(
            orders,
            dark_count=dark_count,
            modulation=modulation,
            honest_senders=honest_senders,
            norm_ratio=clip_norm / coordinate_bound,
            dimension=dimension,
            adjacency=adjacency,
        )

    def variance(senders: int) -> float:
        return senders * coordinate_bound**2 * (1 + modulation) / (dark_count * modulation**2)

    def count_bound(senders: int, dimension: int, failure: float = 2.0**-64) -> int:
        mean = senders * dark_count * (1 + modulation)
        return math.ceil(mean + bernstein_deviation(mean, dimension, failure))

    return make_mechanism(
        facts=Facts(
            name="single_channel",
            parameters=(
                ("clip_norm", clip_norm),
                ("coordinate_bound", coordinate_bound),
                ("dark_count", dark_count),
                ("modulation", modulation),
            ),
            integer=True,
            status="proved",
            guarantee="K times the divergence of Poisson(h mu (1 - r) + mu r) from Poisson(h mu (1 - r)) (proof: accounting.renyi).",
            sampler_distance=randomness.MAX_DISTANCE,
            data_dependent_noise=True,
        ),
        bounds=Bounds(clip_norm, coordinate_bound, coordinate_bound, limits.grid_step),
        clip=WithNumbers(lambda dimension: Partial(clipping.clip_with, clipping.clip_numbers(limits, dimension))),
        embed=WithNumbers(lambda dimension: Partial(_embed, tables()), vector=1),
        estimate=WithNumbers(lambda dimension: Partial(_estimate, mean_count(dark_count), scale)),
        rdp=rdp,
        variance=variance,
        count_bound=count_bound,
        sum_law=modulated_sum("one", dark_count=dark_count, modulation=modulation, draws=1),
    )


def _embed(tables: SamplingTables, stream: Stream, grid: Array) -> Array:
    top = jnp.int32(2**randomness.GRID_BITS)
    return randomness.single_channel(stream, jnp.clip(grid, -top, top), tables)


def _estimate(mean: Mean, scale: Array, total: Array, senders: int | Array) -> Array:
    return subtract_mean(total, mean, senders) * scale


def at_noise(shape: Shape, noise_std: float, terms: Terms) -> Mechanism:
    """The mechanism whose worst noise has this standard deviation at one sender (`registry`); for clients, whose sum of contributions is their one update.

    The modulation is that of the terms, or 0.05, or what keeps the rate within one draw.

    Args:
      shape: bounds and length of the release.
      noise_std: per coordinate, in the update's unit.
      terms: of the run.
    """
    bound = shape.coordinate_bound
    modulation = terms.modulation or max(_MODULATION, 1.1 * bound / (noise_std * math.sqrt(_LARGEST_RATE)))
    return single_channel(
        clip_norm=shape.clip_norm,
        coordinate_bound=bound,
        dark_count=bound**2 * (1 + modulation) / (modulation * noise_std) ** 2,
        modulation=modulation,
    )
