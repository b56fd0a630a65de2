"""Clean counts from clients, noise from a committee: the mechanism of norm rounds (client level).

A client scales its clipped update by s and rounds it stochastically to integers x with |x|_2 <= Delta (`rounding`); it adds no noise, so that a proof can
bound the norm of what it sends. Each of l noise senders adds the difference of two Poissons, of variance v / h in each coordinate; all l are in the sum, or
nothing is opened. h of them are assumed honest and closed, so the sum carries Skellam noise of variance at least v that nobody else knows, *whoever the
clients are*: corrupt or invented clients cost no privacy, and the number of clients has no part in the price.

*Privacy.* Given everything but that noise, one client moves the sum by an integer vector of length at most Delta, and Agarwal, Kairouz and Liu (2021,
arXiv:2110.04995; published) bound the Renyi divergence: a Delta^2 / (2 v) + min(((2a - 1) Delta^2 + 6 D1) / (4 v^2), 3 D1 / (2 v)) with
D1 = min(sqrt(D) Delta, Delta^2); both doubled under replace-one (*proved*, given that bound and the h honest noise senders, who are *assumed*). That an honest
client may be refused adds to delta: `accounting.SCREENING`.

*Price.* The variance that is paid is l v / h, where a trusted adder of Gaussian noise would pay v: l / h times the 6.4 % of rounding at s C = 2 sqrt(D)
(1.6 % at 4 sqrt(D), for one bit more in each count). Rounding itself adds at most 1/4 a client.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson import accounting, randomness
from fedjax_poisson.accounting import Adjacency
from fedjax_poisson.mechanisms.estimates import bernstein_deviation, scaled_sum
from fedjax_poisson.mechanisms.poisson import parts_of
from fedjax_poisson.mechanisms.rounding import Rounding, conditional_rounding, rounding
from fedjax_poisson.mechanisms.types import (
    Bounds,
    Facts,
    Mechanism,
    NoiseSenders,
    WithNumbers,
    check_bounds,
    check_positive,
    make_mechanism,
)
from fedjax_poisson.randomness import SamplingTables, Stream, fold_in

if TYPE_CHECKING:
    from fedjax_poisson.mechanisms.dark_counts import Shape, Terms

BETA = math.exp(-0.5)
LEAST_STEPS = 2.0
"""Steps of the clip norm, in units of sqrt(D): the least that a plan takes."""
_MOST_STEPS = 2.0**16  # of the clip norm, so that the grid keeps four places behind the integer
_ROUNDING = 1.07  # price of rounding, in variance, that a plan accepts where a finer scale is to be had
_LEAST_RATE, _MOST_PARTS = 0.01, 64  # of a sampler; and draws that one count of noise may be the sum of
_MOST_SUM = 2.0**30  # of clean counts; with the noise the sum stays below 2^31


def committee_noise(
    *,
    clip_norm: float,
    scale: float,
    noise_variance: float,
    noise_senders: int,
    honest_noise: int,
    coordinate_bound: float | None = None,
    beta: float = BETA,
) -> Mechanism:
    """Clean, conditionally rounded integers; Skellam noise from noise senders (module docstring).

    Args:
      clip_norm: L2 bound C of one client's update.
      scale: s, integer steps per unit of the update; `scale * clip_norm <= 2**16`.
      noise_variance: v / h, variance of ONE noise sender's noise per coordinate, in squared integer steps (twice the rate of each Poisson). Above
        1e8 it is the sum of several draws (`poisson.parts_of`).
      noise_senders: l, parties that send noise.
      honest_noise: h, those of them that are assumed honest and closed.
      coordinate_bound: bound c_inf on each coordinate of an update, 0 < c_inf <= C; None for C. It shortens counts, not their noise.
      beta: bound on the probability that a rounding is redrawn.

    Returns:
      A client-level `Mechanism` whose `noise` is one noise sender's vector. Its `rdp` takes the number of honest NOISE senders, at most h: the clients of a
      round cannot be counted (`mechanisms.noise_source` says what to count).

    Raises:
      ValueError: a parameter is outside its range.
    """
    check_positive(clip_norm=clip_norm, scale=scale, noise_variance=noise_variance)
    if coordinate_bound is not None:
        check_positive(coordinate_bound=coordinate_bound)
        check_bounds(clip_norm, coordinate_bound)
    whole = int(noise_senders) == noise_senders and int(honest_noise) == honest_noise
    if not whole or not 1 <= honest_noise <= noise_senders:
        raise ValueError(
            f"honest_noise={honest_noise} of noise_senders={noise_senders}: give whole numbers with 1 <= honest_noise <= noise_senders."
        )
    rounded = rounding(clip_norm=clip_norm, scale=scale, beta=beta, coordinate_bound=coordinate_bound)
    coordinate = clip_norm if coordinate_bound is None else coordinate_bound
    parts = parts_of(noise_variance / 2.0)
    if not _LEAST_RATE <= noise_variance / 2.0 or parts > _MOST_PARTS:
        raise ValueError(
            f"noise_variance={noise_variance:g} of one noise sender is outside the {2 * _LEAST_RATE:g} to {_MOST_PARTS * 1e8:g} that the samplers serve: "
            "change scale."
        )
    tables = functools.cache(lambda: randomness.skellam_tables(noise_variance / (2.0 * parts)))
    paid = noise_senders * noise_variance

    def rdp(orders: np.ndarray, honest: int, dimension: int, adjacency: Adjacency) -> np.ndarray:
        if honest > honest_noise:
            raise ValueError(
                f"honest_senders={honest}, but only {honest_noise} of {noise_senders} noise senders are assumed honest, and clients of committee_noise "
                "bring no noise: their number cannot be counted (mechanisms.noise_source has the number that can)."
            )
        moved = rounded.sensitivity(dimension, adjacency)
        return accounting.skellam_rdp(orders, variance=honest * noise_variance, l1=moved.l1, l2=moved.l2)

    def count_bound(senders: int, dimension: int, failure: float = 2.0**-64) -> int:
        most = min(rounded.largest, math.isqrt(rounded.squared_norm(dimension)))
        return math.ceil(senders * most + bernstein_deviation(paid, dimension, failure))

    return make_mechanism(
        facts=Facts(
            name="committee_noise",
            parameters=(
                ("clip_norm", clip_norm),
                ("scale", scale),
                ("noise_variance", noise_variance),
                ("noise_senders", noise_senders),
                ("honest_noise", honest_noise),
                ("coordinate_bound", coordinate_bound),
                ("beta", beta),
            ),
            integer=True,
            status="published",
            guarantee=(
                f"Renyi bound of Agarwal-Kairouz-Liu 2021 with the conditional rounding of Kairouz-Liu-Steinke 2021, for the noise of {honest_noise} of "
                f"{noise_senders} noise senders that are assumed honest; whoever the clients are."
            ),
            sampler_distance=parts * randomness.MAX_DISTANCE,
            noise_by="committee",
        ),
        bounds=Bounds(clip_norm, coordinate, coordinate, rounded.limits.grid_step),  # a client sends one update
        clip=rounded.clip,
        embed=WithNumbers(lambda dimension: Partial(_round, *rounded.numbers(dimension)), vector=1),
        estimate=WithNumbers(lambda dimension: Partial(scaled_sum, np.float32(1.0 / scale))),
        rdp=rdp,
        variance=lambda senders: (paid + senders * 0.25) / scale**2,
        count_bound=count_bound,
        noise=WithNumbers(lambda dimension: Partial(_noise, tables(), np.int32(parts)), vector=1),
        noise_senders=NoiseSenders(
            noise_senders, honest_noise, rounded.squared_norm, functools.partial(_count_rms, rounded, paid)
        ),
    )


def _round(fraction_bits: Array, squared_limit: Array, stream: Stream, grid: Array) -> Array:
    return conditional_rounding(fold_in(stream, "rounding"), grid, fraction_bits, squared_limit)


def _noise(tables: SamplingTables, parts: Array, stream: Stream, dimension: int) -> Array:
    def one_more(i: Array, total: Array) -> Array:
        return total + randomness.skellam(fold_in(stream, i), dimension, tables)

    return jax.lax.fori_loop(0, parts, one_more, jnp.zeros(dimension, jnp.int32))


def _count_rms(rounded: Rounding, paid: float, senders: int, dimension: int) -> float:
    """Of a sum of honest clients and all noise: root of the mean square of the noise, ten standard deviations above its mean, and of n clients at Delta.

    The square of a Skellam number of variance V has mean V and variance 2 V^2 + V. The term in 1/D is for short vectors, whose squares are far from normal
    (*checked numerically*, `tests/mechanisms/test_committee_noise.py`).
    """
    above = 10 * math.sqrt((2 + 1 / paid) / dimension) + 100 / dimension
    return math.sqrt(paid * (1 + above)) + senders * math.sqrt(rounded.squared_norm(dimension) / dimension)


def steps_for(dimension: int, beta: float = BETA) -> float:
    """s C, the integer steps of the clip norm: 2 sqrt(D), doubled while rounding costs more than 7 % of variance, as it does for short vectors.

    A doubling takes one more bit of every count. At 2 sqrt(D) that is about 6 % of a message's bytes against 4.7 % of variance.
    """
    steps = LEAST_STEPS * math.sqrt(dimension)
    while 2 * steps <= _MOST_STEPS:
        moved = accounting.rounded_sensitivity(scaled_norm=steps, dimension=dimension, beta=beta)
        if moved.l2**2 <= _ROUNDING * steps**2:
            break
        steps *= 2
    return min(steps, _MOST_STEPS)


def at_noise(shape: Shape, noise_std: float, terms: Terms) -> Mechanism:
    """The mechanism with this standard deviation of one noise sender's noise (`noise_levels.AtNoise`).

    Args:
      shape: bounds and length of the release; a client sends one update, so the total bound is the coordinate bound.
      noise_std: per coordinate, in the update's unit.
      terms: who takes part, noise senders among them.

    Raises:
      ValueError: the terms name no noise senders, or so many clean counts do not fit 32 bits.
    """
    if terms.noise_senders is None:
        raise ValueError("committee_noise needs noise senders, and the terms of this plan name none.")
    steps = steps_for(shape.dimension)
    largest = terms.participation.senders * steps * shape.coordinate_bound / shape.clip_norm
    if largest > _MOST_SUM:
        raise ValueError(
            f"{terms.participation.senders} clients with counts up to {steps * shape.coordinate_bound / shape.clip_norm:.4g} could add up to {largest:.3g}, "
            f"above 2^30: lower coordinate_bound={shape.coordinate_bound:g} (it bounds a coordinate of an update)."
        )
    scale = steps / shape.clip_norm
    senders, honest = terms.noise_senders
    return committee_noise(
        clip_norm=shape.clip_norm,
        scale=scale,
        noise_variance=(noise_std * scale) ** 2,
        noise_senders=senders,
        honest_noise=honest,
        coordinate_bound=shape.coordinate_bound,
    )
