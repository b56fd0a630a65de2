"""The Gaussian mechanism: the plain baseline with which everything is compared. Its output is float32, not integer.

No exact encrypted sum of its output exists, so `private_sum` adds it in the clear or not at all. The noise is drawn in float32 from the
normal quantile of 23-bit uniforms, so the textbook guarantee holds for the ideal real-valued law only (Mironov 2012 shows what floating
point can leak); use it to compare accuracy, not to protect people.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson import accounting
from fedjax_poisson.accounting import Adjacency
from fedjax_poisson.mechanisms import clipping
from fedjax_poisson.mechanisms.types import (
    Bounds,
    Facts,
    Mechanism,
    WithNumbers,
    check_bounds,
    check_positive,
    make_mechanism,
)
from fedjax_poisson.randomness import GRID_BITS, Stream, bits

if TYPE_CHECKING:
    from fedjax_poisson.mechanisms.dark_counts import Shape, Terms


def gaussian(
    *, clip_norm: float, noise_std: float, coordinate_bound: float | None = None, total_bound: float | None = None
) -> Mechanism:
    """Gaussian noise on the clipped update, or on a sender's sum of clipped contributions.

    Args:
      clip_norm: L2 bound C of one unit's contribution.
      noise_std: standard deviation of ONE sender's noise per coordinate, in the update's unit; n senders give `sqrt(n) * noise_std`.
      coordinate_bound: bound on each coordinate of a contribution; None for C. The price depends on C alone.
      total_bound: clamp on each coordinate of a sender's sum, which also sets the clip's grid; None for a client's single contribution.

    Returns:
      A `Mechanism` with `facts.integer == False`; `privatize` returns float32 `[D]`.
    """
    coordinate = clip_norm if coordinate_bound is None else coordinate_bound
    bound = coordinate if total_bound is None else total_bound
    check_positive(clip_norm=clip_norm, noise_std=noise_std, coordinate_bound=coordinate, total_bound=bound)
    check_bounds(clip_norm, coordinate)
    if bound < coordinate:
        raise ValueError(
            f"total_bound={bound} is below coordinate_bound={coordinate}: a single contribution would be clamped; raise total_bound."
        )
    limits = clipping.clip_limits(clip_norm=clip_norm, coordinate_bound=coordinate, total_bound=bound)

    top = np.int32(2**31 - 1 if total_bound is None else 2**GRID_BITS)  # one contribution of a client needs no clamp

    def scaled_rdp(
        factor: float, orders: np.ndarray, honest_senders: int, dimension: int, adjacency: Adjacency
    ) -> np.ndarray:
        del dimension
        multiplier = noise_std * honest_senders**0.5 / (factor * clip_norm)
        return accounting.gaussian_rdp(orders, noise_multiplier=multiplier, adjacency=adjacency)

    def cost(honest_senders: int, dimension: int, adjacency: Adjacency) -> accounting.Normal:
        del dimension
        sensitivity = clip_norm * (2.0 if adjacency == "replace_one" else 1.0)
        return accounting.Normal(sensitivity**2 / (honest_senders * noise_std**2))

    def variance(senders: int) -> float:
        return senders * noise_std**2

    def count_bound(senders: int, dimension: int, failure: float = 2.0**-64) -> NoReturn:
        raise ValueError(
            "The Gaussian mechanism sends real numbers: it has no counts and no count bound. Use an integer mechanism."
        )

    def tight_delta(epsilon: float, rounds: int, honest_senders: int, dimension: int) -> float:
        del dimension
        single = noise_std * math.sqrt(honest_senders) / clip_norm
        return accounting.gaussian_delta(epsilon, single / math.sqrt(rounds))

    return make_mechanism(
        facts=Facts(
            name="gaussian",
            parameters=(
                ("clip_norm", clip_norm),
                ("noise_std", noise_std),
                ("coordinate_bound", coordinate_bound),
                ("total_bound", total_bound),
            ),
            integer=False,
            status="baseline",
            guarantee="Renyi divergence a C**2 / (2 sigma**2) of the ideal real-valued law (Mironov 2017, Proposition 7).",
            sampler_distance=1.0,
        ),
        bounds=Bounds(clip_norm, coordinate, total_bound, limits.grid_step),
        clip=WithNumbers(lambda dimension: Partial(clipping.clip_with, clipping.clip_numbers(limits, dimension))),
        embed=WithNumbers(
            lambda dimension: Partial(_embed, np.float32(limits.grid_step), np.float32(noise_std), top), vector=1
        ),
        estimate=_estimate,
        rdp=functools.partial(scaled_rdp, 1.0),
        variance=variance,
        count_bound=count_bound,
        tight_delta=tight_delta,
        scaled_rdp=scaled_rdp,
        cost=cost,
    )


def normal_quantiles(words: Array) -> Array:
    """Standard normal float32 of uint32 words, same shape, all finite: the quantile of an odd multiple of 2**-24 in (0, 1).

    Odd multiples of 2**-25 would need 25 bits: float32 rounds the largest to 1, whose quantile is infinite, once in 2**24 words.
    """
    odd = (words >> jnp.uint32(9)) * jnp.uint32(2) + jnp.uint32(1)
    return jax.scipy.special.ndtri(odd.astype(jnp.float32) * jnp.float32(2**-24))


def _embed(step: Array, noise_std: Array, top: Array, stream: Stream, grid: Array) -> Array:
    noise = normal_quantiles(bits(stream, grid.shape[-1]))
    return jnp.clip(grid, -top, top).astype(jnp.float32) * step + noise * noise_std


def _estimate(total: Array, senders: int | Array) -> Array:
    del senders
    return jnp.asarray(total).astype(jnp.float32)


def at_noise(shape: Shape, noise_std: float, terms: Terms) -> Mechanism:
    """The mechanism with this standard deviation of one sender's noise (`registry`).

    Args:
      shape: bounds and length of the release.
      noise_std: per coordinate, in the update's unit.
      terms: not used.
    """
    del terms
    return gaussian(
        clip_norm=shape.clip_norm,
        noise_std=noise_std,
        coordinate_bound=shape.coordinate_bound,
        total_bound=shape.total_bound,
    )
