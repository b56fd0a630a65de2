"""Per-layer groups: a separate mechanism for each block of coordinates, released together.

The blocks are disjoint and their noises independent, and one unit may move all of them, so the Renyi curves add (composition of the blocks
given the data). Each block is clipped separately, so the whole vector's L2 bound is the root of the sum of the squared block bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.accounting import Adjacency
from fedjax_poisson.mechanisms.types import Bounds, Facts, Mechanism, make_mechanism
from fedjax_poisson.randomness import Stream, fold_in


def grouped(groups: Sequence[tuple[int, Mechanism]]) -> Mechanism:
    """Concatenate mechanisms over consecutive blocks of the flat vector.

    Args:
      groups: (size, mechanism) of each block, in the order of the flat vector; sizes add up to D.

    Raises:
      ValueError: no groups, an empty block, or integer and real mechanisms mixed.
    """
    if not groups:
        raise ValueError("grouped needs at least one (size, mechanism).")
    for size, _ in groups:
        if size < 1:
            raise ValueError(f"A group has size {size}; each block needs at least one coordinate.")
    mechanisms = [mechanism for _, mechanism in groups]
    if len({mechanism.facts.integer for mechanism in mechanisms}) != 1:
        raise ValueError(
            "Integer and real-valued mechanisms cannot share one sum; use integer mechanisms for every group."
        )
    edges = np.cumsum([0, *(size for size, _ in groups)])

    def split(vector: Array) -> list[Array]:
        if vector.shape[-1] != edges[-1]:
            raise ValueError(f"The vector has {vector.shape[-1]} coordinates, the groups {int(edges[-1])}.")
        return [vector[..., edges[i] : edges[i + 1]] for i in range(len(groups))]

    def over(apply: Callable[[int, Mechanism, Array], Array], vector: Array) -> Array:
        return jnp.concatenate(
            [apply(i, m, part) for i, (m, part) in enumerate(zip(mechanisms, split(vector), strict=True))], axis=-1
        )

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
        clip=lambda update: over(lambda _, m, part: m.clip(part), update),
        embed=lambda stream, grid: over(lambda i, m, part: m.embed(_own(stream, i), part), grid),
        estimate=lambda total, senders: over(lambda _, m, part: m.estimate(part, senders), total),
        rdp=rdp,
        variance=variance,
        count_bound=count_bound,
    )


def _own(stream: Stream, group: int) -> Stream:
    return fold_in(stream, "group", group)
