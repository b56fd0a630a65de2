"""What four adversaries see of the same training step: the update, the sum, the noisy update, or the noisy sum.

1. **clear**: updates are sent as they are; the server sees each.
2. **summed**: updates are encrypted, only the exact sum over the senders is opened.
3. **noisy**: each update is embedded (clipped, turned into counts) but not encrypted; the server sees each sender's counts.
4. **noisy_sum**: embedded and encrypted, which is what this package does: only the sum of the counts is opened. An exact encrypted sum of
   integers is the sum of the integers, so what a decryption would return is computed here without encrypting.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fedjax_poisson.mechanisms.noise_source import check_own_noise
from fedjax_poisson.mechanisms.types import Mechanism
from fedjax_poisson.randomness import Stream, fold_in

VIEWS = ("clear", "summed", "noisy", "noisy_sum")
"""Names of the four views, in the order of `Views`."""


class Views(NamedTuple):
    """One training step as four adversaries see it, all in the update's unit.

    Attributes:
      clear: float32 `[S, D]`, each sender's unclipped update.
      summed: float32 `[D]`, exact sum of the unclipped updates.
      noisy: float32 `[S, D]`, the unbiased estimate of each sender's clipped update from its own counts.
      noisy_sum: float32 `[D]`, the estimate of the sum from the sum of the same counts.
    """

    clear: Array
    summed: Array
    noisy: Array
    noisy_sum: Array


def four_views(mechanism: Mechanism, updates: Array, stream: Stream, grids: Array | None = None) -> Views:
    """The four views of one step.

    Args:
      mechanism: clips and embeds.
      updates: float32 `[S, D]`, what each sender would send without protection.
      stream: this step's stream; each sender takes its own part of it.
      grids: int32 `[S, D]`, the senders' clipped contributions on the mechanism's grid where they are sums of clipped records
        (`federated.records.summed_contributions`); None clips each update as one unit.

    Returns:
      `Views`. View 3 and view 4 are of the same counts.
    """
    check_own_noise(mechanism, "a view")
    if updates.ndim != 2 or (grids is not None and grids.shape != updates.shape):
        found = updates.shape if grids is None else (updates.shape, grids.shape)
        raise ValueError(f"updates and grids have the shape [senders, D]; got {found}.")
    counts, total = _counts(mechanism, updates, stream, grids)
    return Views(
        clear=updates,
        summed=jnp.sum(updates, axis=0),
        noisy=jax.vmap(lambda c: mechanism.estimate(c, 1))(counts),
        noisy_sum=mechanism.estimate(total, updates.shape[0]),
    )


@functools.partial(jax.jit, static_argnums=0)
def _counts(mechanism: Mechanism, updates: Array, stream: Stream, grids: Array | None) -> tuple[Array, Array]:
    clipped = jax.vmap(mechanism.clip)(updates) if grids is None else grids
    senders = jnp.arange(updates.shape[0], dtype=jnp.uint32)
    counts = jax.vmap(lambda i, grid: mechanism.embed(fold_in(stream, i, "embed"), grid))(senders, clipped)
    return counts, jnp.sum(counts, axis=0, dtype=counts.dtype)
