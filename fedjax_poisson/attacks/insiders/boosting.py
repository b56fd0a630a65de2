"""Insiders that send a multiple of their update: the sign flipped, scaled, or large enough to replace the model.

They skip the clip. In light rounds nothing looks at the length of one message: the sum may move by as much as the round's bound on counts admits
(`federated.liar_bound`); in norm rounds a message beyond a few clips is refused. Sources: scaling and model replacement Bagdasaryan et al. 2020 (How To
Backdoor Federated Learning, arXiv:1807.00459, equation 3); sign flipping Li et al. 2019 (RSA, arXiv:1811.03761).
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson.federated.insiders import Attack, Sight, counts_of


def scaled(factor: float, name: str) -> Attack:
    """Sends `factor` times its unclipped update; -1 flips the sign. Needs nothing."""
    return Attack(name, act=Partial(_scaled, jnp.float32(factor)))


def model_replacement(senders: int, corrupt: int, backdoor: Attack) -> Attack:
    """Trains on backdoored records and sends senders / corrupt times the result, so that the mean of all becomes the attacker's update, X - G.

    Needs the number of senders, and a model near convergence, where honest updates cancel. Bounded as scaling.
    """
    return Attack("model_replacement", poison=backdoor.poison, act=Partial(_scaled, jnp.float32(senders / corrupt)))


def spike(size: float) -> Attack:
    """One coordinate of the sum moved by `size`, in the update's unit, the rest zero. Needs nothing.

    A bound on the Euclidean norm sees it as it sees any other vector of that length.
    """
    return Attack("spike", act=Partial(_spike, jnp.float32(size)))


def _scaled(factor: Array, sight: Sight) -> Array:
    return counts_of(sight, factor * sight.update)


def _spike(size: Array, sight: Sight) -> Array:
    return counts_of(sight, jnp.zeros_like(sight.update).at[0].set(size))
