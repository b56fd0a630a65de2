"""Conditional stochastic rounding: clipped updates become integers whose norm is bounded, whatever is drawn.

A client scales its clipped update by s and rounds it stochastically to integers, redrawing until the norm is at most the bound of Kairouz, Liu and Steinke
(2021, arXiv:2102.06387, "conditional rounding"; published). The bound is above the scaled clip norm t by a factor of about sqrt(1 + D / (4 t^2)), which is the
price of rounding: 6 % of variance at t = 2 sqrt(D), 1.6 % at 4 sqrt(D).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson import accounting
from fedjax_poisson.accounting import Adjacency
from fedjax_poisson.mechanisms import clipping, limbs
from fedjax_poisson.mechanisms.types import WithNumbers
from fedjax_poisson.randomness import Stream, bits, fold_in

_REDRAWS = 64  # each is accepted with probability >= 1 - beta; then rounding toward zero, whose norm always fits


class Rounding(NamedTuple):
    """A clip and the rounding after it.

    Attributes:
      limits: of the grid, which has `places` binary places behind the integer.
      places: binary places.
      scaled_norm: proved bound on the norm of a scaled, clipped update, in integer steps.
      beta: bound on the probability that a rounding is redrawn.
    """

    limits: clipping.ClipLimits
    places: int
    scaled_norm: float
    beta: float

    @property
    def largest(self) -> int:
        """No coordinate of a rounded vector is larger, whatever is drawn: the grid's own limit, rounded up."""
        return -(-self.limits.coordinate_limit >> self.places)

    def sensitivity(self, dimension: int, adjacency: Adjacency = "zero_out") -> accounting.Sensitivity:
        """How far one unit moves the integers."""
        return accounting.rounded_sensitivity(
            scaled_norm=self.scaled_norm, dimension=dimension, beta=self.beta, adjacency=adjacency
        )

    def squared_norm(self, dimension: int) -> int:
        """Delta^2: the squared norm of a rounded vector is at most this integer, in every branch."""
        return int(self.sensitivity(dimension).l2 ** 2)

    @property
    def clip(self) -> WithNumbers:
        """`Mechanism.clip`."""
        return WithNumbers(lambda dimension: Partial(clipping.clip_with, clipping.clip_numbers(self.limits, dimension)))

    def numbers(self, dimension: int) -> tuple[np.uint32, Array]:
        """What `conditional_rounding` is given: binary places, and the limit of the squared norm."""
        return np.uint32(self.places), clipping.limit_limbs(self.squared_norm(dimension))


def rounding(*, clip_norm: float, scale: float, beta: float, coordinate_bound: float | None = None) -> Rounding:
    """The clip and rounding of updates that become integers.

    Args:
      clip_norm: L2 bound C of one client's update.
      scale: s, integer steps per unit of the update; `scale * clip_norm <= 2**16`.
      beta: bound on the probability that a rounding is redrawn.
      coordinate_bound: bound on each coordinate of an update; None for the clip norm.

    Raises:
      ValueError: a parameter is outside its range.
    """
    if not 0 < beta < 1:
        raise ValueError(f"beta={beta} must lie in (0, 1); exp(-1/2) is usual.")
    limits, places = clipping.integer_steps(clip_norm=clip_norm, scale=scale, coordinate_bound=coordinate_bound)
    # The proved norm of the scaled vector, from the integer limit itself (rounded up).
    scaled_norm = math.sqrt(limits.squared_norm_limit) / 2.0**places * (1 + 2.0**-50)
    return Rounding(limits, places, scaled_norm, beta)


def conditional_rounding(stream: Stream, grid: Array, fraction_bits: Array, squared_limit: Array) -> Array:
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
        return limbs.at_most(limbs.squared_norm(x), squared_limit)

    def again(carry: tuple[Array, Array]) -> Array:
        attempt, x = carry
        return (~fits(x)) & (attempt < jnp.uint32(_REDRAWS))

    def step(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        attempt, _ = carry
        return attempt + jnp.uint32(1), draw(attempt)

    _, x = jax.lax.while_loop(again, step, (jnp.uint32(1), draw(jnp.uint32(0))))
    toward_zero = jnp.sign(grid) * (jnp.abs(grid) >> places)
    return jnp.where(fits(x), x, toward_zero)
