"""Insiders that split one large vector among them, with or without a mask that cancels.

With a mask each of a pair sends +-R and half of the vector: each message alone looks like noise, their sum is the vector. That hides a direction from
whoever looks at single updates; a bound on the norm of single messages sees R, so an attacker that is bound leaves the mask out and c colluders weigh c
bounds. Source: folklore of secure aggregation; distributed parts of one attack in Xie et al. 2020 (DBA, ICLR).
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson.federated.insiders import Attack, Sight, counts_of, signs


def split(length: float, corrupt: int, mask: float = 0.0) -> Attack:
    """c insiders together move the sum by `length` against the mean update; pairs add +-R of norm `mask`, and one without a partner adds none.

    Needs the mean of honest updates, estimated from the insiders' own, and a common secret for R.

    Raises:
      ValueError: fewer than two insiders.
    """
    if corrupt < 2:
        raise ValueError(f"a vector is split among at least two insiders, there is {corrupt}.")
    numbers = (jnp.float32(length / corrupt), jnp.float32(mask), jnp.int32(corrupt))
    return Attack("colluding_pair", act=Partial(_part, *numbers), learn=Partial(_direction))


def _direction(updates: Array, weights: Array) -> Array:
    del weights
    mean = -jnp.mean(updates, axis=0)
    return mean / jnp.maximum(jnp.linalg.norm(mean), jnp.float32(1e-12))


def _part(length: Array, mask: Array, corrupt: Array, sight: Sight) -> Array:
    size = sight.update.size
    hidden = signs(sight.common, size) * (mask / jnp.sqrt(jnp.float32(size)))
    even = sight.rank % 2 == 0
    paired = ~(even & (sight.rank == corrupt - 1))
    side = jnp.where(paired, jnp.where(even, jnp.float32(1), jnp.float32(-1)), jnp.float32(0))
    return counts_of(sight, sight.knowledge * length + side * hidden)
