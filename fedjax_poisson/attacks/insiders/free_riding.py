"""Insiders that want the model and do no work: they send nothing, noise, or what they sent before.

They do little harm (each takes 1/n of the mean away), and nothing in a message tells them from a client with few records. Source: Lin, Du and Liu 2019
(Free-riders in Federated Learning, arXiv:1911.12560); Fraboni, Vidal and Lorenzi 2021 (arXiv:2006.11901).
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson.federated.insiders import Attack, Sight, counts_of, signs


def zero() -> Attack:
    """Sends the embedding of zero. Needs nothing; honest clients without records send the same."""
    return Attack("free_rider_zero", act=Partial(_zero))


def noise(length: float) -> Attack:
    """Sends a random vector of a given length in the update's unit, to look busy. Bounded by the clip where norms are."""
    return Attack("free_rider_noise", act=Partial(_noise, jnp.float32(length)))


def stale(old: Array) -> Attack:
    """Sends an update of an earlier round again, float32 `[D]`. Needs to have trained once; within the clip as that was."""
    return Attack("free_rider_stale", act=Partial(_stale, jnp.asarray(old, jnp.float32)))


def _zero(sight: Sight) -> Array:
    return counts_of(sight, jnp.zeros_like(sight.update))


def _noise(length: Array, sight: Sight) -> Array:
    size = sight.update.size
    return counts_of(sight, signs(sight.stream, size) * (length / jnp.sqrt(jnp.float32(size))))


def _stale(old: Array, sight: Sight) -> Array:
    return counts_of(sight, old)
