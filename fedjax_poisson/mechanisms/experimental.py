"""Poisson ideas that look private but mostly are not, each with its honest guarantee, for experiments that show why.

All are `Mechanism` records, so they can replace a sound mechanism in code, but none belongs in a run on people's data. Where the Renyi divergence is
infinite, `rdp` returns infinity, and no accountant here turns it into a finite epsilon; the available statement is an (epsilon, delta) that
includes a probability mass lost outright (`accounting.experimental.centred_poisson_delta`, `accounting.experimental.compound_poisson_delta`).
"""

from __future__ import annotations

import functools
import math
from typing import NoReturn

import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson import randomness
from fedjax_poisson.accounting import Adjacency
from fedjax_poisson.accounting import experimental as guarantees
from fedjax_poisson.mechanisms import clipping
from fedjax_poisson.mechanisms.estimates import bernstein_deviation, mean_count, subtract_mean
from fedjax_poisson.mechanisms.gaussian import normal_quantiles
from fedjax_poisson.mechanisms.types import Bounds, Facts, Mechanism, check_positive, make_mechanism
from fedjax_poisson.randomness import Stream, fold_in


def centred_poisson(*, clip_norm: float, scale: float, dark_count: float) -> Mechanism:
    """Integer updates plus Poisson noise, the mean subtracted at the decoder: `x + Poisson(mu)`, x = scale * u rounded to nearest.

    Useless wherever a finite Renyi curve is needed: in the downward direction some outcomes have no counterpart, so the divergence is infinite
    at every order and delta never falls below `accounting.experimental.centred_poisson_infinity_mass`. Usable, if at all, in one dimension with
    `honest_senders * dark_count` of 26 or more. Use `poisson_embedding`.

    Args:
      clip_norm: L2 bound C of one client's update.
      scale: integer steps per unit of the update, `scale * clip_norm <= 2**16`.
      dark_count: mu, events per coordinate and sender.
    """
    check_positive(clip_norm=clip_norm, scale=scale, dark_count=dark_count)
    limits, point = clipping.integer_steps(clip_norm=clip_norm, scale=scale)
    tables = randomness.poisson_tables(dark_count)

    def embed(stream: Stream, grid: Array) -> Array:
        half = jnp.int32(1 << (point - 1))  # point >= 4
        steps = jnp.sign(grid) * ((jnp.abs(grid) + half) >> jnp.int32(point))
        return steps + randomness.poisson(stream, grid.shape, tables)

    def estimate(total: Array, senders: int | Array) -> Array:
        return subtract_mean(total, mean_count(dark_count), senders) / jnp.float32(scale)

    def rdp(orders: np.ndarray, honest_senders: int, dimension: int, adjacency: Adjacency) -> np.ndarray:
        del dimension
        return guarantees.centred_poisson_rdp(orders)

    def count_bound(senders: int, dimension: int, failure: float = 2.0**-64) -> int:
        noise = senders * dark_count
        return math.ceil(senders * (scale * clip_norm + 0.5) + noise + bernstein_deviation(noise, dimension, failure))

    return make_mechanism(
        facts=Facts(
            name="centred_poisson",
            parameters=(("clip_norm", clip_norm), ("scale", scale), ("dark_count", dark_count)),
            integer=True,
            status="experimental",
            guarantee="Infinite Renyi divergence at every order; delta at least P(Poisson(h mu) < shift) per changed coordinate.",
            sampler_distance=tables.distance,
        ),
        bounds=Bounds(clip_norm, clip_norm, None, limits.grid_step),
        clip=functools.partial(clipping.clip_to_grid, limits=limits),
        embed=embed,
        estimate=estimate,
        rdp=rdp,
        variance=lambda senders: senders * dark_count / scale**2,
        count_bound=count_bound,
    )


def compound_poisson(*, clip_norm: float, events: float, jump_std: float) -> Mechanism:
    """A compound Poisson process as noise: per coordinate `sum of N normal jumps`, N ~ Poisson(events); real-valued.

    Useless in high dimension: with probability exp(-events) a coordinate gets no jump and its true value is released, so the Renyi
    divergence is infinite and delta is at least `accounting.experimental.compound_poisson_infinity_mass`. Only the integral of an intensity over time
    matters, so an inhomogeneous process is the same mechanism. With +-1 jumps on integer data it is `skellam`, which has no such atom problem.

    Args:
      clip_norm: L2 bound C of one client's update.
      events: expected jumps per coordinate and sender, <= 1e6.
      jump_std: standard deviation of a jump, in the update's unit.
    """
    check_positive(clip_norm=clip_norm, events=events, jump_std=jump_std)
    limits = clipping.clip_limits(clip_norm=clip_norm, coordinate_bound=clip_norm, total_bound=clip_norm)
    tables = randomness.poisson_tables(events)

    def embed(stream: Stream, grid: Array) -> Array:
        jumps = randomness.poisson(fold_in(stream, "jumps"), grid.shape, tables).astype(jnp.float32)
        words = randomness.bits(fold_in(stream, "sizes"), grid.shape)
        # N independent normals of variance s**2 add up to one of variance N s**2.
        noise = jnp.sqrt(jumps) * normal_quantiles(words) * jnp.float32(jump_std)
        return grid.astype(jnp.float32) * jnp.float32(limits.grid_step) + noise

    def rdp(orders: np.ndarray, honest_senders: int, dimension: int, adjacency: Adjacency) -> np.ndarray:
        del dimension
        return guarantees.compound_poisson_rdp(orders)

    def count_bound(senders: int, dimension: int, failure: float = 2.0**-64) -> NoReturn:
        raise ValueError(
            "The compound Poisson mechanism sends real numbers: it has no counts. Use an integer mechanism."
        )

    return make_mechanism(
        facts=Facts(
            name="compound_poisson",
            parameters=(("clip_norm", clip_norm), ("events", events), ("jump_std", jump_std)),
            integer=False,
            status="experimental",
            guarantee="Infinite Renyi divergence; the true value is released with probability exp(-h events) per changed coordinate.",
            sampler_distance=1.0,
        ),
        bounds=Bounds(clip_norm, clip_norm, None, limits.grid_step),
        clip=functools.partial(clipping.clip_to_grid, limits=limits),
        embed=embed,
        estimate=lambda total, senders: jnp.asarray(total).astype(jnp.float32),
        rdp=rdp,
        variance=lambda senders: senders * events * jump_std**2,
        count_bound=count_bound,
    )


def data_embedding(*, gain: float, offset: float) -> Mechanism:
    """A record (an image in [0, 1]^p) replaced by counts `Poisson(gain (x + offset))`: obfuscation or regularisation.

    The guarantee is local and for replacing the whole record: real images cost an epsilon of hundreds (p = 784, gain = offset = 1: about 790),
    and photon noise of a detector is no privacy mechanism (offset near 0, signal-dependent). Never subtract it from another budget. What rows of
    a few columns are worth at an honest epsilon, beside sums and gradients: `experiments/noised_table.py`.

    Args:
      gain: events per unit of intensity, > 0.
      offset: dark intensity b > 0; at 0 a black pixel would be told from a grey one with certainty.
    """
    check_positive(gain=gain, offset=offset)
    # gain (x + b) with x = (1 + v) / 2 is mu (1 + r v).
    tables = randomness.single_channel_tables(dark_count=gain * (offset + 0.5), modulation=0.5 / (offset + 0.5))
    limits = clipping.clip_limits(clip_norm=2.0**20, coordinate_bound=1.0, total_bound=1.0)

    def clip(update: Array) -> Array:
        return clipping.to_grid(jnp.float32(2) * update.astype(jnp.float32) - jnp.float32(1), limits)

    def embed(stream: Stream, grid: Array) -> Array:
        return randomness.single_channel(stream, grid, tables)

    def estimate(total: Array, senders: int | Array) -> Array:
        return subtract_mean(total, mean_count(gain * offset), senders) / jnp.float32(gain)

    def rdp(orders: np.ndarray, honest_senders: int, dimension: int, adjacency: Adjacency) -> np.ndarray:
        return guarantees.data_embedding_rdp(orders, gain=gain, offset=offset, pixels=dimension)

    def count_bound(senders: int, dimension: int, failure: float = 2.0**-64) -> int:
        mean = senders * gain * (1 + offset)
        return math.ceil(mean + bernstein_deviation(mean, dimension, failure))

    return make_mechanism(
        facts=Facts(
            name="data_embedding",
            parameters=(("gain", gain), ("offset", offset)),
            integer=True,
            status="experimental",
            guarantee="Local, replace one record: p gain times the divergence of Poisson(1 + b) from Poisson(b) per unit; other senders do not help.",
            sampler_distance=tables.distance,
            data_dependent_noise=True,
        ),
        bounds=Bounds(grid_step=limits.grid_step),
        clip=clip,
        embed=embed,
        estimate=estimate,
        rdp=rdp,
        variance=lambda senders: senders * (1 + offset) / gain,
        count_bound=count_bound,
    )
