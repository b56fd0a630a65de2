"""Insiders that stay where honest updates are: a little is enough, and inner-product manipulation.

Made against rules that look at single updates in the clear (`federated.robust_rules`): they pass those by lying within the spread of the honest. Here,
where only the sum is seen, they are ordinary updates: each weighs at most its clip, if it has one. Both need the mean of the honest updates (and their
spread), which c insiders estimate from what they would honestly send: they pool their records.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from scipy import special

from fedjax_poisson.federated.insiders import Attack, Sight, counts_of


def little_is_enough(senders: int, corrupt: int) -> Attack:
    """Every insider sends mean - z std, coordinate by coordinate (Baruch, Baruch and Goldberg 2019, arXiv:1902.06156, algorithm 3).

    z is the largest for which a majority of the clients is still further from the mean: with s = floor(n/2 + 1) - c, the normal quantile of
    (n - c - s) / (n - c).

    Raises:
      ValueError: fewer than two insiders (a spread needs two), or so many that no supporter is needed.
    """
    needed = senders // 2 + 1 - corrupt
    if corrupt < 2 or needed < 1:
        raise ValueError(
            f"a-little-is-enough needs 2 to {senders // 2} insiders of {senders}: they estimate a spread, and must be a minority; there are {corrupt}."
        )
    z = float(special.ndtri((senders - corrupt - needed) / (senders - corrupt)))
    return Attack("little_is_enough", act=Partial(_known), learn=Partial(_below, jnp.float32(max(z, 0.0))))


def inner_product(strength: float) -> Attack:
    """Every insider sends -strength times the mean update (Xie, Koyejo and Gupta 2020, Fall of Empires, arXiv:1903.03936).

    A small strength passes rules that trust medians and distances, a large one reverses the mean. Needs the mean of the honest updates.
    """
    return Attack("inner_product", act=Partial(_known), learn=Partial(_against, jnp.float32(strength)))


def _below(z: Array, updates: Array, weights: Array) -> Array:
    del weights
    return jnp.mean(updates, axis=0) - z * jnp.std(updates, axis=0)


def _against(strength: Array, updates: Array, weights: Array) -> Array:
    del weights
    return -strength * jnp.mean(updates, axis=0)


def _known(sight: Sight) -> Array:
    return counts_of(sight, sight.knowledge)
