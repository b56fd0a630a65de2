"""The Gaussian mechanism: the plain baseline with which everything is compared. Its output is float32, not integer.

No exact encrypted sum of its output exists, so `private_sum` refuses it. The noise is drawn in float32 from the
normal quantile of 24-bit uniforms, so the textbook guarantee holds for the ideal real-valued law only (Mironov 2012 shows what floating
point can leak); use it to compare accuracy, not to protect people.
"""

from __future__ import annotations

import functools
import math
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson import accounting
from fedjax_poisson.accounting import Adjacency
from fedjax_poisson.mechanisms import clipping
from fedjax_poisson.mechanisms.types import Bounds, Facts, Mechanism, WithNumbers, check_positive, make_mechanism
from fedjax_poisson.randomness import Stream, bits


def gaussian(*, clip_norm: float, noise_std: float) -> Mechanism:
    """Gaussian noise on the clipped update.

    Args:
      clip_norm: L2 bound C of one client's update.
      noise_std: standard deviation of ONE sender's noise per coordinate, in the update's unit; n senders give `sqrt(n) * noise_std`.

    Returns:
      A `Mechanism` with `facts.integer == False`; `privatize` returns float32 `[D]`.
    """
    check_positive(clip_norm=clip_norm, noise_std=noise_std)
    limits = clipping.clip_limits(clip_norm=clip_norm, coordinate_bound=clip_norm, total_bound=clip_norm)

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
            parameters=(("clip_norm", clip_norm), ("noise_std", noise_std)),
            integer=False,
            status="baseline",
            guarantee="Renyi divergence a C**2 / (2 sigma**2) of the ideal real-valued law (Mironov 2017, Proposition 7).",
            sampler_distance=1.0,
        ),
        bounds=Bounds(clip_norm, clip_norm, None, limits.grid_step),
        clip=WithNumbers(lambda dimension: Partial(clipping.clip_with, clipping.clip_numbers(limits, dimension))),
        embed=WithNumbers(
            lambda dimension: Partial(_embed, np.float32(limits.grid_step), np.float32(noise_std)), vector=1
        ),
        estimate=_estimate,
        rdp=functools.partial(scaled_rdp, 1.0),
        variance=variance,
        count_bound=count_bound,
        tight_delta=tight_delta,
        scaled_rdp=scaled_rdp,
        cost=cost,
    )


def _embed(step: Array, noise_std: Array, stream: Stream, grid: Array) -> Array:
    # Odd multiples of 2**-25 are never 0 or 1, so the normal quantile is finite.
    uniform = (bits(stream, grid.shape[-1]) >> jnp.uint32(8)).astype(jnp.float32) * jnp.float32(2**-24)
    noise = jax.scipy.special.ndtri(uniform + jnp.float32(2**-25))
    return grid.astype(jnp.float32) * step + noise * noise_std


def _estimate(total: Array, senders: int | Array) -> Array:
    del senders
    return jnp.asarray(total).astype(jnp.float32)
