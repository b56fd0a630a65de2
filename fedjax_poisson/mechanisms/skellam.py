"""The distributed Skellam mechanism, the best-known integer baseline (client level).

A client scales its clipped update by s, rounds it stochastically to integers of bounded norm (`rounding`), and adds the difference of two Poissons.
Accounted with Agarwal, Kairouz and Liu (2021, arXiv:2110.04995). Rounding costs: unless `scale * clip_norm` is well above sqrt(dimension), the sensitivity
of the *rounded* vector exceeds the clip norm (factor 2 in variance at sqrt(d) / 2, 1.25 at sqrt(d)); the Poisson embedding has no such floor.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson import accounting, randomness
from fedjax_poisson.accounting import Adjacency
from fedjax_poisson.mechanisms.estimates import bernstein_deviation
from fedjax_poisson.mechanisms.rounding import conditional_rounding, rounding
from fedjax_poisson.mechanisms.sum_law import added_noise
from fedjax_poisson.mechanisms.types import Bounds, Facts, Mechanism, WithNumbers, check_positive, make_mechanism
from fedjax_poisson.randomness import SamplingTables, Stream, fold_in


def skellam(*, clip_norm: float, scale: float, noise_variance: float, beta: float = math.exp(-0.5)) -> Mechanism:
    """Skellam noise on conditionally rounded integers.

    Args:
      clip_norm: L2 bound C of one client's update.
      scale: s, integer steps per unit of the update; `scale * clip_norm <= 2**16`.
      noise_variance: variance v of ONE sender's noise per coordinate, in squared integer steps (twice the rate of each Poisson).
      beta: bound on the probability that a rounding is redrawn.

    Returns:
      A client-level `Mechanism`.

    Raises:
      ValueError: a parameter is outside its range.
    """
    check_positive(clip_norm=clip_norm, scale=scale, noise_variance=noise_variance)
    to_integers = rounding(clip_norm=clip_norm, scale=scale, beta=beta)
    sensitivity = to_integers.sensitivity
    tables = randomness.skellam_tables(noise_variance / 2.0)

    def rdp(orders: np.ndarray, honest_senders: int, dimension: int, adjacency: Adjacency) -> np.ndarray:
        moved = sensitivity(dimension, adjacency)
        return accounting.skellam_rdp(orders, variance=honest_senders * noise_variance, l1=moved.l1, l2=moved.l2)

    def variance(senders: int) -> float:
        return senders * (noise_variance + 0.25) / scale**2

    def count_bound(senders: int, dimension: int, failure: float = 2.0**-64) -> int:
        noise = bernstein_deviation(senders * noise_variance, dimension, failure)
        return math.ceil(senders * sensitivity(dimension).l2 + noise)

    return make_mechanism(
        facts=Facts(
            name="skellam",
            parameters=(("clip_norm", clip_norm), ("scale", scale), ("noise_variance", noise_variance), ("beta", beta)),
            integer=True,
            status="published",
            guarantee="Renyi bound of Agarwal-Kairouz-Liu 2021 with the conditional rounding of Kairouz-Liu-Steinke 2021.",
            sampler_distance=randomness.MAX_DISTANCE,
        ),
        bounds=Bounds(clip_norm, clip_norm, None, to_integers.limits.grid_step),
        clip=to_integers.clip,
        embed=WithNumbers(lambda dimension: Partial(_embed, *to_integers.numbers(dimension), tables), vector=1),
        estimate=WithNumbers(lambda dimension: Partial(_estimate, np.float32(scale))),
        rdp=rdp,
        variance=variance,
        count_bound=count_bound,
        sum_law=added_noise(
            noise_variance / 2.0,
            WithNumbers(lambda dimension: Partial(_rounded, *to_integers.numbers(dimension)), vector=1),
        ),
    )


def _rounded(fraction_bits: Array, squared_limit: Array, stream: Stream, grid: Array) -> Array:
    return conditional_rounding(fold_in(stream, "rounding"), grid, fraction_bits, squared_limit)


def _embed(fraction_bits: Array, squared_limit: Array, tables: SamplingTables, stream: Stream, grid: Array) -> Array:
    rounded = _rounded(fraction_bits, squared_limit, stream, grid)
    return rounded + randomness.skellam(fold_in(stream, "noise"), grid.shape, tables)


def _estimate(scale: Array, total: Array, senders: int | Array) -> Array:
    del senders
    return jnp.asarray(total).astype(jnp.float32) / scale
