"""The sum of rows that clients make each by itself, inside a compiled program: what a deployment does, for measuring and comparing."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fedjax_poisson.aggregation.bare import DeviceFunctions, RoundSum, as_noise
from fedjax_poisson.randomness import Stream


def add_each(
    device: DeviceFunctions,
    key: Any,
    total: RoundSum,
    sent: Array,
    streams: Stream,
    present: Array,
    *,
    noise: bool = False,
) -> RoundSum:
    """The contributions of a chunk's clients, or of noise senders, each made by itself and added."""

    def one(total: RoundSum, xs: tuple[Array, Stream, Array]) -> tuple[RoundSum, None]:
        counts, stream, here = xs
        made = device.encrypt(key, counts, stream)
        added = device.add(total, as_noise(made) if noise else made)
        return jax.tree.map(lambda new, old: jnp.where(here, new, old), added, total), None

    return jax.lax.scan(one, total, (sent, streams, present))[0]
