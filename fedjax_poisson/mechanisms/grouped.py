"""Per-layer groups: a separate mechanism for each block of coordinates, released together.

The blocks are disjoint and their noises independent, and one unit may move all of them, so the Renyi curves add (composition of the blocks
given the data). Each block is clipped separately, so the whole vector's L2 bound is the root of the sum of the squared block bounds.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson.accounting import Adjacency
from fedjax_poisson.mechanisms.noise_source import check_own_noise
from fedjax_poisson.mechanisms.types import Bounds, Facts, Mechanism, WithNumbers, make_mechanism, partial_of
from fedjax_poisson.randomness import Stream, fold_in


def grouped(groups: Sequence[tuple[int, Mechanism]]) -> Mechanism:
    """Concatenate mechanisms over consecutive blocks of the flat vector.

    Args:
      groups: (size, mechanism) of each block, in the order of the flat vector; sizes add up to D.

    Raises:
      ValueError: no groups, an empty block, integer and real mechanisms mixed, or clean counts.
    """
    if not groups:
        raise ValueError("grouped needs at least one (size, mechanism).")
    for size, mechanism in groups:
        check_own_noise(mechanism, "a release by groups")
        if size < 1:
            raise ValueError(f"A group has size {size}; each block needs at least one coordinate.")
    mechanisms = [mechanism for _, mechanism in groups]
    if len({mechanism.facts.integer for mechanism in mechanisms}) != 1:
        raise ValueError(
            "Integer and real-valued mechanisms cannot share one sum; use integer mechanisms for every group."
        )
    edges = np.cumsum([0, *(size for size, _ in groups)])

    sizes = tuple(size for size, _ in groups)

    def blocks(functions: Sequence[Callable[..., Array]], dimension: int) -> tuple[Partial, ...]:
        if dimension != edges[-1]:
            raise ValueError(f"The vector has {dimension} coordinates, the groups {int(edges[-1])}.")
        return tuple(partial_of(function, size) for function, size in zip(functions, sizes, strict=True))

    def rdp(orders: np.ndarray, honest_senders: int, dimension: int, adjacency: Adjacency) -> np.ndarray:
        if dimension != edges[-1]:
            raise ValueError(f"dimension={dimension}, but the groups cover {int(edges[-1])} coordinates.")
        curves = [m.rdp(orders, honest_senders, size, adjacency) for size, m in groups]
        return np.sum(curves, axis=0)

    def variance(senders: int) -> float:
        return max(m.variance(senders) for m in mechanisms)

    def count_bound(senders: int, dimension: int, failure: float = 2.0**-64) -> int:
        del dimension
        return max(m.count_bound(senders, size, failure / len(groups)) for size, m in groups)

    parameters = [(f"group_{i}_{name}", value) for i, m in enumerate(mechanisms) for name, value in m.facts.parameters]
    statuses = {m.facts.status for m in mechanisms}
    return make_mechanism(
        facts=Facts(
            name="grouped",
            parameters=tuple(parameters),
            integer=mechanisms[0].facts.integer,
            status="proved" if statuses == {"proved"} else sorted(statuses - {"proved"})[0],
            guarantee="Sum of the groups' Renyi curves: " + "; ".join(sorted({m.facts.guarantee for m in mechanisms})),
            sampler_distance=max(m.facts.sampler_distance for m in mechanisms),
            data_dependent_noise=any(m.facts.data_dependent_noise for m in mechanisms),
        ),
        bounds=Bounds(),
        clip=WithNumbers(
            lambda dimension: Partial(_clip, blocks([m.clip for m in mechanisms], dimension), Sizes(sizes))
        ),
        embed=WithNumbers(
            lambda dimension: Partial(_embed, blocks([m.embed for m in mechanisms], dimension), Sizes(sizes)), vector=1
        ),
        estimate=WithNumbers(
            lambda dimension: Partial(_estimate, blocks([m.estimate for m in mechanisms], dimension), Sizes(sizes))
        ),
        rdp=rdp,
        variance=variance,
        count_bound=count_bound,
    )


@functools.partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["each"])
@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of the blocks, part of a program's structure."""

    each: tuple[int, ...]

    def cut(self, vector: Array) -> list[Array]:
        """The blocks of `[..., D]`."""
        return jnp.split(vector, np.cumsum(self.each)[:-1].tolist(), axis=-1)


def _clip(functions: Sequence[Partial], sizes: Sizes, update: Array) -> Array:
    return jnp.concatenate([clip(part) for clip, part in zip(functions, sizes.cut(update), strict=True)], axis=-1)


def _embed(functions: Sequence[Partial], sizes: Sizes, stream: Stream, grid: Array) -> Array:
    own = [fold_in(stream, "group", i) for i in range(len(functions))]
    drawn = [embed(each, part) for embed, each, part in zip(functions, own, sizes.cut(grid), strict=True)]
    return jnp.concatenate(drawn, axis=-1)


def _estimate(functions: Sequence[Partial], sizes: Sizes, total: Array, senders: int | Array) -> Array:
    parts = zip(functions, sizes.cut(jnp.asarray(total)), strict=True)
    return jnp.concatenate([estimate(part, senders) for estimate, part in parts], axis=-1)
