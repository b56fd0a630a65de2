"""Adaptive clipping: the clip norm follows a quantile of the clients' update norms, and the bit that reports it is charged for.

Andrew, Thakkar, McMahan and Ramaswamy (2021, arXiv:1905.03871). Each client adds one coordinate to what it embeds: v = +1 if its update was
within the clip norm C, -1 if not (0 in the neighbouring world where it is zeroed), with a separate dark count. The server estimates the
share b of unclipped updates and moves C by `exp(-rate (b - quantile))`.

The Renyi curve does not depend on C, because the embedded vector is u / C, so the next C may be any function of past releases: the curve of a
round is that of the embedding plus that of the bit (K = 1), and both are proportional to their dark counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.accounting import Adjacency
from fedjax_poisson.mechanisms.poisson import poisson_embedding
from fedjax_poisson.mechanisms.types import Mechanism, check_positive
from fedjax_poisson.randomness import Stream, fold_in


class ClipState(NamedTuple):
    """`clip_norm`: float32 `[]`, the L2 bound of the next round, a function of past releases only."""

    clip_norm: Array


class AdaptiveEmbedding(NamedTuple):
    """A Poisson embedding whose clip norm adapts.

    Attributes:
      init: `() -> ClipState`.
      privatize: `(state, stream, update float32[D]) -> int32[D + 1]`: one client's counts, the clip bit last.
      finish: `(state, total int[D + 1], senders) -> (state, float32[D], float32[])`: next state, estimated sum of the clipped
        updates, estimated share of clients that were not clipped (may leave [0, 1]: it is noisy).
      rdp: as `Mechanism.rdp` for a vector of `dimension` = D coordinates; the bit is included.
      count_bound: as `Mechanism.count_bound`, for D coordinates and the bit.
      unit_mechanism: the embedding at clip norm 1.
      bit_mechanism: the embedding of the bit.
    """

    init: Callable[[], ClipState]
    privatize: Callable[[ClipState, Stream, Array], Array]
    finish: Callable[[ClipState, Array, int | Array], tuple[ClipState, Array, Array]]
    rdp: Callable[..., np.ndarray]
    count_bound: Callable[..., int]
    unit_mechanism: Mechanism
    bit_mechanism: Mechanism


def adaptive_embedding(
    *,
    initial_clip_norm: float,
    coordinate_ratio: float,
    dark_count: float,
    modulation: float,
    bit_dark_count: float,
    quantile: float = 0.5,
    rate: float = 0.2,
    least_clip_norm: float = 1e-6,
    largest_clip_norm: float = 1e6,
) -> AdaptiveEmbedding:
    """Poisson embedding with an adaptive clip norm (client level).

    Args:
      initial_clip_norm: C of the first round.
      coordinate_ratio: c_inf / C in (0, 1], kept while C moves.
      dark_count: mu of the update's coordinates.
      modulation: r in (0, 1), of the update and of the bit.
      bit_dark_count: mu of the bit; 0.05 to 0.1 of `dark_count / coordinate_ratio**2` is usual.
      quantile: share of clients that should not be clipped.
      rate: learning rate of log C.
      least_clip_norm: public lower bound on C.
      largest_clip_norm: public upper bound on C.

    Raises:
      ValueError: a parameter is outside its range.
    """
    check_positive(initial_clip_norm=initial_clip_norm, rate=rate, least_clip_norm=least_clip_norm)
    if not 0 < quantile < 1:
        raise ValueError(f"quantile={quantile} must lie in (0, 1): the share of clients that should not be clipped.")
    if not 0 < coordinate_ratio <= 1:
        raise ValueError(f"coordinate_ratio={coordinate_ratio} must lie in (0, 1].")
    if not least_clip_norm <= initial_clip_norm <= largest_clip_norm:
        raise ValueError(
            f"initial_clip_norm={initial_clip_norm} is outside least_clip_norm={least_clip_norm} .. largest_clip_norm={largest_clip_norm}."
        )
    unit = poisson_embedding(
        clip_norm=1.0, coordinate_bound=coordinate_ratio, dark_count=dark_count, modulation=modulation
    )
    bit = poisson_embedding(clip_norm=1.0, coordinate_bound=1.0, dark_count=bit_dark_count, modulation=modulation)

    def init() -> ClipState:
        return ClipState(jnp.float32(initial_clip_norm))

    def privatize(state: ClipState, stream: Stream, update: Array) -> Array:
        # The float norm decides the bit only; what the bit is, is the client's secret, how it is hidden is proved.
        unclipped = jnp.linalg.norm(update) <= state.clip_norm
        sign = jnp.where(unclipped, jnp.float32(1), jnp.float32(-1))[None]
        counts = unit.privatize(fold_in(stream, "update"), update / state.clip_norm)
        return jnp.concatenate([counts, bit.privatize(fold_in(stream, "clip bit"), sign)])

    def finish(state: ClipState, total: Array, senders: int | Array) -> tuple[ClipState, Array, Array]:
        estimate = unit.estimate(total[:-1], senders) * state.clip_norm
        share = jnp.float32(0.5) + bit.estimate(total[-1:], senders)[0] / (
            jnp.float32(2) * jnp.asarray(senders).astype(jnp.float32)
        )
        moved = state.clip_norm * jnp.exp(jnp.float32(-rate) * (share - jnp.float32(quantile)))
        return ClipState(jnp.clip(moved, jnp.float32(least_clip_norm), jnp.float32(largest_clip_norm))), estimate, share

    def rdp(orders: np.ndarray, honest_senders: int, dimension: int, adjacency: Adjacency = "zero_out") -> np.ndarray:
        return unit.rdp(orders, honest_senders, dimension, adjacency) + bit.rdp(orders, honest_senders, 1, adjacency)

    def count_bound(senders: int, dimension: int, failure: float = 2.0**-64) -> int:
        return max(unit.count_bound(senders, dimension, failure / 2), bit.count_bound(senders, 1, failure / 2))

    return AdaptiveEmbedding(init, privatize, finish, rdp, count_bound, unit, bit)
