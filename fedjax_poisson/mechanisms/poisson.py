"""The stochastic Poisson embedding: an update enters the rates of two Poisson counts whose difference is sent.

With the clipped vector u, v = u / A in [-1, 1], dark count mu > 0 and modulation 0 < r < 1 a sender sends

    Y_j = Poisson(mu (1 + r v_j)) - Poisson(mu (1 - r v_j)).

The sum over n senders is of the same family (Poisson is infinitely divisible), `A S_j / (2 mu r)` is an unbiased estimate of the sum of
the u_j, and its variance n A**2 / (2 mu r**2) does not depend on the data. The Renyi divergence of the opened sum between neighbouring
inputs is an exact supremum with a closed form, proved in `fedjax_poisson.accounting.renyi`.

A is `total_bound`. At client level A = c_inf: the coordinate bound of one client's update. At record (or patient) level a sender adds the
clipped contributions of many records first and A bounds that sum: `embed` clamps it to [-A, A], which is 1-Lipschitz per coordinate, so one
record still moves the embedded vector by at most c_inf per coordinate and C in L2.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson import accounting, randomness
from fedjax_poisson.accounting import Adjacency
from fedjax_poisson.mechanisms import clipping, host_clip
from fedjax_poisson.mechanisms.estimates import bernstein_deviation, scaled_on_host, scaled_sum
from fedjax_poisson.mechanisms.sum_law import modulated_sum
from fedjax_poisson.mechanisms.types import (
    Bounds,
    Facts,
    Mechanism,
    Portions,
    WithNumbers,
    check_bounds,
    check_positive,
    make_mechanism,
)
from fedjax_poisson.randomness import SamplingTables, Stream, host_draws

_TAILS = (1e-4, 1e-7, 1e-10)  # every one gives a valid bound (`accounting.tight_delta`); the smallest is taken
_LARGEST_TABLE = 5e7  # a sampler's tables grow with the square root of its rate


def parts_of(dark_count: float) -> int:
    """How many draws one count is the sum of: Poisson numbers add, so Poisson(mu) is the sum of k of Poisson(mu / k), exactly.

    A power of two, so that mu / k and the sum's rate are exact in binary.
    """
    return 1 << max(0, math.ceil(math.log2(dark_count / _LARGEST_TABLE)))


def in_portions(dark_count: float, portions: int) -> float:
    """The largest dark count up to the given one that is `portions` times a number of 40 bits: every multiple of the portion is then exact."""
    mantissa, exponent = math.frexp(dark_count / portions)
    one = math.ldexp(math.floor(math.ldexp(mantissa, 40)), exponent - 40)
    while one * portions > dark_count:
        one = math.ldexp(math.ldexp(one, 40 - exponent) - 1, exponent - 40)
    return one * portions


def _checked_portions(portions: int, dark_count: float) -> int:
    if portions < 1 or int(portions) != portions or portions > 2**12:
        raise ValueError(f"portions={portions} must be a whole number from 1 to {2**12}.")
    if Fraction(dark_count / portions) * portions != Fraction(dark_count):
        raise ValueError(
            f"dark_count={dark_count!r} is not {portions} times a float: the law of a sum of {portions} draws would not be the accounted one. "
            "Take in_portions(dark_count, portions)."
        )
    return int(portions)


def _check_modulation(modulation: float) -> None:
    if modulation >= 1:
        raise ValueError(
            f"modulation={modulation} must be below 1: at 1 a rate can reach zero, where the Renyi divergence is infinite. 0.05 costs 0.25 %."
        )


def _check_total_bound(total_bound: float, coordinate_bound: float) -> None:
    check_positive(total_bound=total_bound)
    if total_bound < coordinate_bound:
        raise ValueError(
            f"total_bound={total_bound} is below coordinate_bound={coordinate_bound}: a single contribution would be clamped; raise total_bound."
        )


def poisson_embedding(
    *,
    clip_norm: float,
    coordinate_bound: float,
    dark_count: float,
    modulation: float,
    total_bound: float | None = None,
    portions: int | None = None,
) -> Mechanism:
    """Push-pull Poisson embedding of clipped updates (module docstring).

    Args:
      clip_norm: L2 bound C of one unit's contribution, in the update's unit.
      coordinate_bound: bound c_inf on each coordinate of one unit's contribution, 0 < c_inf <= C.
      dark_count: mu, mean events per channel, coordinate and sender at v = 0; privacy spent is linear in it. Above 5e7 a count is the sum
        of several draws (`parts_of`).
      modulation: r in (0, 1), the largest relative change of a rate; variance exceeds the Gaussian's by about r**2.
      total_bound: A >= c_inf, the clamp on a sender's summed contributions; None means client level, A = c_inf.
      portions: if given, a count is the sum of so many draws of dark count mu / portions, of which a round may use fewer (`Mechanism.portions`); the
        quotient must be exact in binary, so take mu as a multiple of it (`in_portions`).

    Returns:
      A `Mechanism` whose counts are int32 and whose sum is exact.

    Raises:
      ValueError: a parameter is outside its range, with the remedy.
    """
    check_positive(clip_norm=clip_norm, coordinate_bound=coordinate_bound, dark_count=dark_count, modulation=modulation)
    check_bounds(clip_norm, coordinate_bound)
    _check_modulation(modulation)
    bound = coordinate_bound if total_bound is None else total_bound
    _check_total_bound(bound, coordinate_bound)
    limits = clipping.clip_limits(clip_norm=clip_norm, coordinate_bound=coordinate_bound, total_bound=bound)
    pieces = 1 if portions is None else _checked_portions(portions, dark_count)
    each = parts_of(dark_count / pieces)  # draws of one portion
    parts = pieces * each
    randomness.check_push_pull(dark_count=dark_count / parts, modulation=modulation)
    scale = bound / (2.0 * dark_count * modulation)

    def tables() -> SamplingTables:
        return randomness.push_pull_tables(dark_count=dark_count / parts, modulation=modulation)

    def embed(dimension: int) -> Partial:
        del dimension
        if portions is None and parts == 1:
            return Partial(_embed_once, tables())
        return Partial(_embed_sum, tables(), np.int32(parts))

    def embed_rows(streams: Sequence[Stream], grids: np.ndarray) -> np.ndarray | None:
        if not host_draws.can_draw(streams, parts * grids.size):
            return None
        if portions is None and parts == 1:
            return host_draws.push_pull_rows(streams, grids, tables())
        own = [randomness.fold_in(stream, part, "part") for stream in streams for part in range(parts)]
        drawn = host_draws.push_pull_rows(own, np.repeat(grids, parts, axis=0), tables())
        return drawn.reshape(len(streams), parts, -1).sum(axis=1, dtype=np.int32)

    # The dark counts of the two channels cancel in the mean.
    estimate = WithNumbers(
        lambda dimension: Partial(scaled_sum, np.float32(scale)), on_host=functools.partial(scaled_on_host, scale)
    )

    channel: dict[str, Any] = {
        "modulation": modulation,
        "norm_ratio": clip_norm / coordinate_bound,
        "step_ratio": coordinate_bound / bound,
    }

    def scaled_rdp(
        factor: float, orders: np.ndarray, honest_senders: int, dimension: int, adjacency: Adjacency
    ) -> np.ndarray:
        facts: dict[str, Any] = {"honest_senders": honest_senders, "dimension": dimension, "adjacency": adjacency}
        scaled = channel | {"step_ratio": factor * channel["step_ratio"]}  # both bounds shrink: their ratio stays
        return accounting.poisson_embedding_rdp(orders, dark_count=dark_count, **scaled, **facts)

    def cost(honest_senders: int, dimension: int, adjacency: Adjacency) -> accounting.Embedded:
        facts: dict[str, Any] = {"honest_senders": honest_senders, "dimension": dimension, "adjacency": adjacency}
        return accounting.embedded_cost(dark_count=dark_count, **channel, **facts)

    def variance(senders: int) -> float:
        return senders * bound**2 / (2.0 * dark_count * modulation**2)

    def count_bound(senders: int, dimension: int, failure: float = 2.0**-64) -> int:
        events = 2.0 * senders * dark_count
        return math.ceil(events * modulation + bernstein_deviation(events, dimension, failure))

    def tight_delta(epsilon: float, rounds: int, honest_senders: int, dimension: int) -> float:
        facts: dict[str, Any] = {"honest_senders": honest_senders, "dimension": dimension} | channel
        spent = rounds * dark_count
        return min(accounting.tight_delta(epsilon, tau=tau, total_dark_count=spent, **facts) for tau in _TAILS)

    def with_portions(used: int) -> Mechanism:
        return poisson_embedding(
            clip_norm=clip_norm,
            coordinate_bound=coordinate_bound,
            dark_count=used * (dark_count / pieces),
            modulation=modulation,
            total_bound=total_bound,
            portions=used,
        )

    def embed_some(stream: Stream, grid: Array, used: int | Array) -> Array:
        return _embed_sum(tables(), jnp.asarray(used, jnp.int32) * jnp.int32(each), stream, grid)

    def estimate_some(total: Array, senders: int | Array, used: int | Array) -> Array:
        return estimate(total, senders) * (jnp.float32(pieces) / jnp.asarray(used).astype(jnp.float32))

    return make_mechanism(
        facts=Facts(
            name="poisson_embedding",
            parameters=(
                ("clip_norm", clip_norm),
                ("coordinate_bound", coordinate_bound),
                ("dark_count", dark_count),
                ("modulation", modulation),
                ("total_bound", total_bound),
                *((("portions", portions),) if portions is not None else ()),
            ),
            integer=True,
            status="proved",
            guarantee="Renyi divergence of the opened sum is at most K h mu g(r, step), an exact supremum (proof: accounting.renyi).",
            sampler_distance=parts * randomness.MAX_DISTANCE,
            data_dependent_noise=True,
        ),
        bounds=Bounds(clip_norm, coordinate_bound, bound, limits.grid_step),
        clip=WithNumbers(
            lambda dimension: Partial(clipping.clip_with, clipping.clip_numbers(limits, dimension)),
            on_host=functools.partial(host_clip.clip_rows, limits),
        ),
        embed=WithNumbers(embed, vector=1, on_host=embed_rows),
        estimate=estimate,
        rdp=functools.partial(scaled_rdp, 1.0),
        variance=variance,
        count_bound=count_bound,
        tight_delta=tight_delta,
        scaled_rdp=scaled_rdp,
        cost=cost,
        portions=None
        if portions is None
        else Portions(pieces, embed_some, estimate_some, functools.cache(with_portions)),
        sum_law=modulated_sum("both", dark_count=dark_count, modulation=modulation, draws=parts),
    )


def _embed_once(tables: SamplingTables, stream: Stream, grid: Array) -> Array:
    top = jnp.int32(2**randomness.GRID_BITS)
    return randomness.push_pull(stream, jnp.clip(grid, -top, top), tables)


def _embed_sum(tables: SamplingTables, draws: Array, stream: Stream, grid: Array) -> Array:
    """The sum of so many independent draws, each with its own stream."""
    top = jnp.int32(2**randomness.GRID_BITS)
    clamped = jnp.clip(grid, -top, top)

    def add(part: Array, total: Array) -> Array:
        own = randomness.fold_in(stream, part.astype(jnp.uint32), "part")
        return total + randomness.push_pull(own, clamped, tables)

    return jax.lax.fori_loop(jnp.int32(0), draws, add, jnp.zeros(clamped.shape, jnp.int32))
