"""The worst pair of neighbouring worlds of a mechanism, draws of its release in both, and what the accountants claim about it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson import accounting
from fedjax_poisson.mechanisms.noise_source import check_own_noise
from fedjax_poisson.mechanisms.types import Mechanism
from fedjax_poisson.randomness import GRID_BITS, Stream, fold_in

_COORDINATEWISE = ("poisson_embedding", "single_channel", "gaussian")
_CHUNK = 1 << 15  # coordinates drawn at once; one size, so one program


class Pair(NamedTuple):
    """The two worlds of the worst case on the mechanism's grid, int32 `[K]` each.

    Attributes:
      others: what every other honest sender embeds.
      without: the target's sender without the target.
      move: what the target adds to that; its negative in the rounds of the other sign.
      weights: float64 `[K]`, of the coordinates in the statistic.
    """

    others: np.ndarray
    without: np.ndarray
    move: np.ndarray
    weights: np.ndarray


def worst_pair(mechanism: Mechanism, dimension: int) -> Pair:
    """The pair at which the accountant's supremum is attained, zero-out relation (`accounting.renyi`).

    For the Poisson embeddings everybody is at the lower end of the range and the target moves K coordinates by c_inf from there; for
    mechanisms whose noise does not depend on the data the target moves one coordinate by C.

    Raises:
      ValueError: the mechanism has no single clip norm (`grouped`), or its senders send clean counts.
    """
    check_own_noise(mechanism, "an audit")
    norm, bound = mechanism.bounds.clip_norm, mechanism.bounds.coordinate_bound
    if norm is None or bound is None:
        raise ValueError(
            f"{mechanism.facts.name} states no clip_norm, so its worst pair is not known; audit its parts."
        )
    whole = max(int((norm / bound) ** 2 + 1e-9), 1)
    sizes = [bound] * min(whole, dimension)
    rest = norm**2 - whole * bound**2
    if whole < dimension and rest > 1e-6 * norm**2:
        sizes.append(math.sqrt(rest))
    move = np.asarray(jax.jit(mechanism.clip)(-jnp.asarray(sizes, jnp.float32)))
    base = np.full_like(move, -(2**GRID_BITS) if mechanism.facts.data_dependent_noise else 0)
    # With the target in, its sender is at the end of the range like everybody else.
    return Pair(
        base,
        base - move if mechanism.facts.data_dependent_noise else base,
        move,
        np.asarray(move, np.float64) / float(np.abs(move).max()),
    )


def claimed_delta(
    mechanism: Mechanism,
    epsilon: float,
    *,
    honest_senders: int,
    dimension: int,
    rounds: int = 1,
    sampling_rate: float = 1.0,
) -> float:
    """Delta that the accountants claim at this epsilon: the Renyi conversion, or the mechanism's tighter bound where it has a smaller one."""
    orders = accounting.integer_orders(512)
    curve = mechanism.rdp(orders, honest_senders, dimension)
    if sampling_rate < 1:
        curve = accounting.subsampled_rdp(orders, curve, sampling_rate)
    exponent = (orders - 1) * (rounds * curve + np.log1p(-1 / orders) - epsilon) - np.log(orders)
    best = float(np.exp(min(exponent.min(), 0.0)))
    tight = mechanism.tight_delta
    if tight is None:
        return best
    if sampling_rate == 1:
        return min(best, tight(epsilon, rounds, honest_senders, dimension))
    # A sampled round is at most q times the total variation of a full one; rounds couple independently (epsilon >= 0 only lowers it).
    variation = tight(0.0, 1, honest_senders, dimension)
    return min(best, -math.expm1(rounds * math.log1p(-sampling_rate * variation)))


def draw_statistics(
    mechanism: Mechanism,
    pair: Pair,
    stream: Stream,
    draws: int,
    *,
    present: bool,
    senders: int,
    rounds: int = 1,
    sample: Callable[[Stream, int], Array] | None = None,
    round_stream: Callable[[Stream, int], Stream] = fold_in,
) -> np.ndarray:
    """Float64 `[draws]`: in each draw the weighted sum over coordinates, alternately added and subtracted over the rounds.

    Larger means that the target is there. Rounds, senders and chunks have their own streams.

    Args:
      mechanism: drawn from through `embed`.
      pair: from `worst_pair`.
      stream: of this world; used for nothing else.
      draws: N.
      present: whether the target is in.
      senders: senders whose noise is in the sum and unknown to the adversary, the target's included.
      rounds: T; the target moves up in even and down in odd rounds.
      sample: `(stream, n) -> bool [n]`, the sampling of the target; None if it is always in.
      round_stream: `(stream, round) -> stream`: how a round's stream is derived.
    """
    total, size = np.zeros(draws), max(_CHUNK // len(pair.move), 1)
    for start in range(0, draws, size):
        for number in range(rounds):
            sign = 1 if number % 2 == 0 else -1
            here = round_stream(fold_in(stream, start // size), number)
            counts = _opened(
                mechanism, size, sample, pair[:3], jnp.int32(sign * int(present)), jnp.int32(senders), here
            )
            kept = np.asarray(counts).astype(np.float64)[: draws - start]
            total[start : start + size] += sign * (kept @ pair.weights)
    return total


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _opened(
    mechanism: Mechanism,
    size: int,
    sample: Callable[[Stream, int], Array] | None,
    pair: tuple[Array, Array, Array],
    sign: Array,
    senders: Array,
    stream: Stream,
) -> Array:
    """Opened sums of `size` independent releases, `[size, K]`."""
    others, without, move = (jnp.asarray(a) for a in pair)
    inside = jnp.ones(size, bool) if sample is None else sample(fold_in(stream, "sample"), size)
    target = without[None] + jnp.where(inside, sign, jnp.int32(0))[:, None] * move[None]
    each = jnp.broadcast_to(others[None], target.shape)

    def embedded(own: Stream, grid: Array) -> Array:
        if mechanism.facts.name in _COORDINATEWISE:  # independent coordinates: all releases from one stream
            return mechanism.embed(own, grid.reshape(-1)).reshape(grid.shape)
        return jax.vmap(lambda i, row: mechanism.embed(fold_in(own, i), row))(jnp.arange(size, dtype=jnp.uint32), grid)

    def add(index: Array, total: Array) -> Array:
        grid = jnp.where(index == 0, target, each)
        return total + embedded(fold_in(fold_in(stream, index), "embed"), grid)

    kind = jax.eval_shape(mechanism.embed, stream, others).dtype
    return jax.lax.fori_loop(jnp.int32(0), senders, add, jnp.zeros(target.shape, kind))
