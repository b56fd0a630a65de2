"""The distributed Skellam mechanism, the best-known integer baseline (client level).

A client scales its clipped update by s, rounds it stochastically to integers, redrawing until the norm is at most the bound of Kairouz, Liu
and Steinke (2021, arXiv:2102.06387, "conditional rounding"), and adds the difference of two Poissons. Accounted with Agarwal, Kairouz and
Liu (2021, arXiv:2110.04995). Rounding costs: unless `scale * clip_norm` is well above sqrt(dimension), the sensitivity of the *rounded*
vector exceeds the clip norm (factor 2 in variance at sqrt(d) / 2, 1.25 at sqrt(d)); the Poisson embedding has no such floor.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson import accounting, randomness
from fedjax_poisson.accounting import Adjacency
from fedjax_poisson.mechanisms import clipping
from fedjax_poisson.mechanisms.types import (
    Bounds,
    Facts,
    Mechanism,
    WithNumbers,
    bernstein_deviation,
    check_positive,
    make_mechanism,
)
from fedjax_poisson.randomness import SamplingTables, Stream, bits, fold_in

_REDRAWS = 64  # each is accepted with probability >= 1 - beta; then rounding toward zero, whose norm always fits


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
    if not 0 < beta < 1:
        raise ValueError(f"beta={beta} must lie in (0, 1); exp(-1/2) is usual.")
    limits, fraction_bits = clipping.integer_steps(clip_norm=clip_norm, scale=scale)
    # The proved norm of the scaled vector, from the integer limit itself (rounded up).
    scaled_norm = math.sqrt(limits.squared_norm_limit) / 2.0**fraction_bits * (1 + 2.0**-50)
    tables = randomness.skellam_tables(noise_variance / 2.0)

    def sensitivity(dimension: int, adjacency: Adjacency = "zero_out") -> accounting.Sensitivity:
        return accounting.rounded_sensitivity(
            scaled_norm=scaled_norm, dimension=dimension, beta=beta, adjacency=adjacency
        )

    def embed(dimension: int) -> Partial:
        squared_limit = clipping.limit_limbs(int(sensitivity(dimension).l2 ** 2))
        return Partial(_embed, np.uint32(fraction_bits), squared_limit, tables)

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
            sampler_distance=tables.distance,
        ),
        bounds=Bounds(clip_norm, clip_norm, None, limits.grid_step),
        clip=WithNumbers(lambda dimension: Partial(clipping.clip_with, clipping.clip_numbers(limits, dimension))),
        embed=WithNumbers(embed, vector=1),
        estimate=WithNumbers(lambda dimension: Partial(_estimate, np.float32(scale))),
        rdp=rdp,
        variance=variance,
        count_bound=count_bound,
    )


def _embed(fraction_bits: Array, squared_limit: Array, tables: SamplingTables, stream: Stream, grid: Array) -> Array:
    rounded = _conditional_rounding(fold_in(stream, "rounding"), grid, fraction_bits, squared_limit)
    return rounded + randomness.skellam(fold_in(stream, "noise"), grid.shape, tables)


def _estimate(scale: Array, total: Array, senders: int | Array) -> Array:
    del senders
    return jnp.asarray(total).astype(jnp.float32) / scale


def _conditional_rounding(stream: Stream, grid: Array, fraction_bits: Array, squared_limit: Array) -> Array:
    """Round int32 `[D]` with `fraction_bits` binary places to integers, unbiased given acceptance, until `sum x**2 <= squared_limit` (limbs).

    The guarantee needs only the norm of what is returned; that holds in every branch, also for the last resort (toward zero).
    """
    places = jnp.asarray(fraction_bits).astype(jnp.int32)
    floor = grid >> places
    fraction = (grid - (floor << places)).astype(jnp.uint32)
    mask = (jnp.uint32(1) << jnp.asarray(fraction_bits)) - jnp.uint32(1)

    def draw(attempt: Array) -> Array:
        words = bits(fold_in(stream, attempt), grid.shape[-1])
        return floor + ((words & mask) < fraction).astype(jnp.int32)

    def fits(x: Array) -> Array:
        return clipping.norm_at_most_limbs(clipping.squared_norm(x), squared_limit)

    def again(carry: tuple[Array, Array]) -> Array:
        attempt, x = carry
        return (~fits(x)) & (attempt < jnp.uint32(_REDRAWS))

    def step(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        attempt, _ = carry
        return attempt + jnp.uint32(1), draw(attempt)

    _, x = jax.lax.while_loop(again, step, (jnp.uint32(1), draw(jnp.uint32(0))))
    toward_zero = jnp.sign(grid) * (jnp.abs(grid) >> places)
    return jnp.where(fits(x), x, toward_zero)
