"""Insiders whose counts stand at the edge of what a message can hold.

An opened sum beyond the announced bound on counts is refused, so such a message stops its round: nothing false is released, and nobody learns who it was
in a light round. A count at half of what its place holds turns round into a small one, or into its neighbour's place: the opening's checks decide. What
an attacker gains without stopping the round is the room between the honest total and the bound, which `federated.liar_bound` states. Source: folklore of
modular aggregation; Bonawitz et al. 2017 (arXiv:1611.04482), section 4, leave it open.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson.federated.insiders import Attack, Sight


def constant_count(count: int, name: str) -> Attack:
    """Every coordinate is one count. Needs the round's public bound.

    Raises:
      ValueError: the count does not fit int32.
    """
    if not 0 < abs(count) < 2**31:
        raise ValueError(f"count={count}: messages hold whole numbers other than 0 of less than 31 bits.")
    return Attack(name, act=Partial(_constant, jnp.int32(count)))


def _constant(count: Array, sight: Sight) -> Array:
    return jnp.full_like(sight.counts, count)
