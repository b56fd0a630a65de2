"""Records of several sites on the device, a secret sample of them, and their clipped, summed contributions.

The privacy unit is a record, or a patient with several records. A unit's contribution (a gradient, or moments of features) is clipped on the
mechanism's integer grid (`mechanism.clip`). A site adds the contributions of its sampled units as integers; `private_sum` determines what leaves the
site.

Gradients are computed for sampled units only. The records of a round's secret sample are moved into a fixed number of slots, which they exceed with
probability at most 2**-64 (`record_slots`), so that shapes, and with them the running time, reveal nothing about the size of the sample. Records beyond
the last slot are left out. The released law then differs from the analysed one, so `OVERFLOW` is added to delta for each round, like a sampler's
distance from its law.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import special

from fedjax_poisson import trees
from fedjax_poisson.federated.features import Features, flatten_leading, take
from fedjax_poisson.mechanisms.types import Mechanism
from fedjax_poisson.randomness import Stream, bits, fold_in

OVERFLOW = 2.0**-64
"""Largest probability that a round's sample does not fit its slots."""

_CHUNK_FLOATS = (
    2**21
)  # floats of gradients and inputs that are held at once: 8 MB, a few times that with the clip's integers


_ROWS = 16
"""What the size of a chunk is a multiple of.

A record stands where those sampled before it leave room, so its gradient must have the same bits in every place: else leaving one unit out would
round the contributions of others differently, which no clip accounts for. XLA's matrix products on CPUs add the last rows of a batch in another order
where their number does not divide by the vector width; with whole vectors no record moves, which a test checks for every kind of model
(`test_the_bits_of_a_unit_do_not_depend_on_who_else_was_sampled`; it fails with 1 here)."""


class Records(NamedTuple):
    """Records of S sites, padded to rectangles.

    Attributes:
      features: float32 `[S, n, F]`, images `[S, n, height, width, channels]`, or a dict of such arrays (`features`). What standardises features here
        (`standardize`) takes one float array `[S, n, F]`; apply your own functions to the leaves of a dict before they come here.
      labels: float32 or int32 `[S, n]`; `[S, n, K]` for K labels or targets a record.
      mask: bool `[S, n]`, False for padding.
      unit: int32 `[S, n]`: which privacy unit of its site a record belongs to, 0..U-1; -1 for padding. `arange(n)` when every record is
        its own unit.
    """

    features: Features
    labels: Array
    mask: Array
    unit: Array


def sample_units(stream: Stream, units: int, rate: float) -> Array:
    """Secret Poisson sample: bool `[units]`, each True independently with probability `floor(rate * 2**32) / 2**32` <= rate.

    Rounding the rate down keeps the accountant's amplification (which is monotone in the rate) an upper bound.
    """
    threshold = int(rate * 2.0**32)
    if threshold >= 2**32:
        return jnp.ones(units, bool)
    return bits(stream, units) < jnp.uint32(threshold)


class Units(NamedTuple):
    """The V privacy units of a cohort, without padding; made on the host by `units_of`.

    Attributes:
      members: int32 `[V, L]`, a unit's records as positions in the flattened `[S * n]`; S * n where it has fewer than L.
      site: int32 `[V]`, whose unit it is.
      coin: int32 `[V]`, position of the unit's coin in the flattened `[S * n]` coins of `sample_units`.
      sizes: int32 `[V]`, how many records a unit has.
    """

    members: np.ndarray
    site: np.ndarray
    coin: np.ndarray
    sizes: np.ndarray


def units_of(unit: np.ndarray, by: str = "patient") -> Units:
    """The units of a cohort.

    Args:
      unit: int32 `[S, n]` as in `Records`.
      by: "patient" groups records by their number in `unit`; "record" takes every record for itself, whatever its number.

    Raises:
      ValueError: a patient's number is not below n: it would be another site's.
    """
    numbers = np.asarray(unit)
    sites, room = numbers.shape
    if by == "record":
        numbers = np.where(numbers >= 0, np.arange(room), -1)
    elif numbers.max(initial=-1) >= room:
        raise ValueError(
            f"a unit's number is above the {room} places of a site: number each site's units from 0 on, without gaps."
        )
    site, row = np.nonzero(numbers >= 0)
    coin = site * room + numbers[site, row]
    order = np.argsort(coin, kind="stable")
    coins, first, sizes = np.unique(coin[order], return_index=True, return_counts=True)
    members = np.full((len(coins), int(sizes.max(initial=1))), sites * room, np.int32)
    place = np.arange(len(order)) - np.repeat(first, sizes)
    members[np.repeat(np.arange(len(coins)), sizes), place] = (site * room + row)[order]
    return Units(members, (coins // room).astype(np.int32), coins.astype(np.int32), sizes.astype(np.int32))


def slots_for(units: int, rate: float, overflow: float = OVERFLOW) -> int:
    """The smallest M with `P(Binomial(units, rate) > M) <= overflow`: slots that a Poisson sample fits into.

    The binomial tail is exact up to the rounding of the incomplete beta function (tests hold it against rationals).
    """
    if rate >= 1:
        return units
    low, high = 0, units  # the tail above `units` is 0
    while low < high:
        middle = (low + high) // 2
        if special.bdtrc(middle, units, rate) <= overflow:
            high = middle
        else:
            low = middle + 1
    return low


def record_slots(units: Units, rate: float) -> int:
    """Slots that the records of a Poisson sample of units fit into, but for a probability of at most `OVERFLOW`.

    Where every unit is one record, the exact binomial tail (`slots_for`). Else Chernoff's bound: the sum X of the sizes n_i of the sampled units
    has `P(X > M) <= exp(K(t) - t (M + 1))` for every t > 0, with `K(t) = sum_i log(1 + rate (exp(t n_i) - 1))`; M is the smallest that one of many
    t allows.
    """
    sizes = units.sizes
    if sizes.max(initial=1) == 1 or rate >= 1:
        return slots_for(int(sizes.sum()), rate)
    size, count = np.unique(sizes, return_counts=True)
    # Steps below the reciprocal of the largest size, where the bound is flat, and far above that of the smallest, where it is useless.
    t = np.geomspace(1e-3 / size[-1], 64.0, 2000)[:, None]
    tilted = np.logaddexp(np.log1p(-rate), math.log(rate) + t * size)
    least = ((tilted * count).sum(axis=1) - math.log(OVERFLOW)) / t[:, 0]
    return min(int(np.ceil(least.min() * (1 + 1e-12))), int(sizes.sum()))


def chunk_for(dimension: int, record: int) -> int:
    """Records vmapped at once, by the size of a gradient and of a record (floats): 16 for large models, 256 for small ones.

    Measured on 2 cores: beyond this the temporaries of a convolutional network leave the caches and a record gets slower, not faster.
    """
    return int(np.clip(_CHUNK_FLOATS // (dimension + 64 * record), 16, 256))


def chunks_of(slots: int, chunk: int) -> tuple[int, int]:
    """(chunks, records of a chunk) for so many slots: equal ones of about `chunk` records, a multiple of `_ROWS`."""
    parts = max(-(-slots // (-(-chunk // _ROWS) * _ROWS)), 1)
    return parts, -(-slots // (parts * _ROWS)) * _ROWS


def sampled_sums(
    contribution: Callable[[Any, Array], Array],
    clip: Callable[[Array], Array],
    x: Features,
    y: Array,
    units: Units,
    sampled: Array,
    *,
    slots: int,
    chunk: int,
) -> Array:
    """Every site's sum of clipped contributions of its sampled units, computed for the sampled units only.

    Args:
      contribution: `(x_i, y_i)` to float32 `[D]`, one record's contribution; those of a unit's records are added before the clip.
      clip: the mechanism's, whose sums of so many records fit (`check_sums_fit`).
      x: features `[S, n, ...]`.
      y: `[S, n]` or `[S, n, K]`.
      units: the units (`units_of`).
      sampled: bool `[S, n]`, the coins of each site's units.
      slots: how many sampled records of all sites have room (`record_slots`); those beyond are left out. Empty slots contribute zero.
      chunk: records vmapped at once, rounded up to a multiple of 16; memory is a few times `chunk * D`, whatever the size of a unit.

    Returns:
      int32 `[S, D]` on the mechanism's grid, not yet clamped to its total bound (`mechanism.embed` does that).
    """
    sites, room = y.shape[:2]
    x, y = flatten_leading(x), y.reshape(sites * room, *y.shape[2:])
    count, largest = units.members.shape
    members, home, coin = (jnp.asarray(each) for each in units[:3])
    wanted = (sampled.reshape(-1)[coin][:, None] & (members < sites * room)).reshape(-1)
    parts, size = chunks_of(slots, chunk)
    chosen = jnp.nonzero(wanted, size=slots, fill_value=count * largest)[0].astype(jnp.int32)
    chosen = jnp.pad(chosen, (0, parts * size - slots), constant_values=count * largest)

    def one_record(slot: Array) -> Array:
        place = members.reshape(-1)[jnp.minimum(slot, count * largest - 1)]
        return contribution(take(x, place), y[place])

    def add_clipped(total: Array, contributions: Array, unit: Array) -> Array:
        clipped = jax.vmap(clip)(contributions)
        kept = jnp.where((unit < count)[:, None], clipped, jnp.int32(0))
        return total.at[home[jnp.minimum(unit, count - 1)]].add(kept)

    def add_records(total: Array, slot: Array) -> tuple[Array, None]:
        return add_clipped(total, jax.vmap(one_record)(slot), slot), None

    def add_record(unit_sum: Array, record: tuple[Array, Array]) -> tuple[Array, Array]:
        contribution, starts = record
        unit_sum = jnp.where(starts, jnp.float32(0), unit_sum) + contribution
        return unit_sum, unit_sum

    def add_units(carry: tuple[Array, Array], rows: tuple[Array, ...]) -> tuple[tuple[Array, Array], None]:
        total, unit_sum = carry
        slot, unit, starts, ends = rows
        # One after another, over the edges of chunks: the bits of a unit's sum must not depend on who else was sampled, or more than one unit's
        # contribution would change with one unit.
        unit_sum, sums = jax.lax.scan(add_record, unit_sum, (jax.vmap(one_record)(slot), starts))
        return (add_clipped(total, sums, jnp.where(ends, unit, count)), unit_sum), None

    dimension = jax.eval_shape(contribution, take(x, 0), y[0]).shape[0]
    zero = jnp.zeros((sites, dimension), jnp.int32)
    if not count or not slots:
        return zero
    if largest == 1:
        return jax.lax.scan(add_records, zero, chosen.reshape(parts, size))[0]
    unit = chosen // largest  # records of a unit stand side by side
    edge = jnp.concatenate([jnp.ones(1, bool), unit[1:] != unit[:-1], jnp.ones(1, bool)])
    rows = tuple(each.reshape(parts, size) for each in (chosen, unit, edge[:-1], edge[1:]))
    return jax.lax.scan(add_units, (zero, jnp.zeros(dimension, jnp.float32)), rows)[0][0]


def summed_contributions(
    contribution: Callable[[Any, Array], Array],
    clip: Callable[[Array], Array],
    x: Features,
    y: Array,
    unit: Array,
    sampled: Array,
    *,
    largest_unit: int,
    chunk: int = 256,
    average: bool = False,
) -> Array:
    """One site's sum of clipped contributions of its sampled units, on the mechanism's grid.

    Args:
      contribution: `(x_i [F], y_i [])` to float32 `[D]`, one record's contribution.
      clip: the mechanism's, whose sums of so many records fit (`check_sums_fit`).
      x: features `[n, ...]`.
      y: `[n]`.
      unit: int32 `[n]`, unit of each record, -1 for padding.
      sampled: bool `[U]`, which units take part.
      largest_unit: records of the largest unit; 1 means that every record is its own unit (unit i is record i).
      chunk: how many records are vmapped at once; memory is `chunk * D`. A unit of several records is summed before it is clipped, so
        then all `[U, D]` sums are held.
      average: a unit contributes the mean of its records' contributions instead of their sum.

    Returns:
      int32 `[D]`, not yet clamped to the mechanism's total bound (`mechanism.embed` does that).
    """
    count = y.shape[0]
    per_record = jax.vmap(contribution)
    if largest_unit == 1:
        keep = (unit >= 0) & sampled[jnp.maximum(unit, 0)]

        def chunk_sum(total: Array, part: tuple[Features, Array, Array]) -> tuple[Array, None]:
            xs, ys, kept = part
            clipped = jax.vmap(clip)(per_record(xs, ys))
            return total + jnp.sum(jnp.where(kept[:, None], clipped, jnp.int32(0)), axis=0, dtype=jnp.int32), None

        parts = -(-count // chunk)
        size = -(-count // parts)
        xs, ys, kept = jax.tree.map(lambda a: blocks_of(a, parts, size), (x, y, keep))
        dimension = jax.eval_shape(contribution, take(x, 0), y[0]).shape[0]
        return jax.lax.scan(chunk_sum, jnp.zeros(dimension, jnp.int32), (xs, ys, kept))[0]
    units = sampled.shape[0]
    contributions = jnp.where((unit >= 0)[:, None], per_record(x, y), jnp.float32(0))
    summed = jax.ops.segment_sum(contributions, jnp.maximum(unit, 0), num_segments=units)
    if average:
        present = (unit >= 0).astype(jnp.float32)
        sizes = jax.ops.segment_sum(present, jnp.maximum(unit, 0), num_segments=units)
        summed = summed / jnp.maximum(sizes, jnp.float32(1))[:, None]
    clipped = jax.vmap(clip)(summed)
    return jnp.sum(jnp.where(sampled[:, None], clipped, jnp.int32(0)), axis=0, dtype=jnp.int32)


class Sampling(NamedTuple):
    """How a round takes its secret sample.

    Attributes:
      units: the cohort's units (`units_of`).
      rate: q, each unit's probability of being in a round.
      slots: sampled records that have room (`record_slots`).
      chunk: records vmapped at once.
    """

    units: Units
    rate: float
    slots: int
    chunk: int


def sampled_gradients(
    loss: Callable[..., Array],
    params: Any,
    clip: Callable[[Array], Array],
    cohort: Records,
    sampling: Sampling,
    stream: Stream,
    *,
    among: Array | None = None,
) -> Array:
    """Every site's sum of the clipped gradients of its secret sample, which a round of `fedsgd` embeds.

    Args:
      loss: `(params, x [1, ...], y [1]) -> [1]`.
      params: where gradients are taken.
      clip: the mechanism's, whose sums of a site's records fit (`check_sums_fit`).
      cohort: records `[S, n]`.
      sampling: of the units.
      stream: of the round.
      among: bool `[S, n]` over the units' coins: those that there are (`attacks.shadow`); None for all.

    Returns:
      int32 `[S, D]`, as `sampled_sums`.
    """
    sites, room = cohort.labels.shape[:2]

    def coins(site: Array) -> Array:
        return sample_units(fold_in(stream, site, "sample"), room, sampling.rate)

    sampled = jax.vmap(coins)(jnp.arange(sites, dtype=jnp.uint32))
    return sampled_sums(
        gradient_contribution(loss, params),
        clip,
        cohort.features,
        cohort.labels,
        sampling.units,
        sampled if among is None else sampled & among,
        slots=sampling.slots,
        chunk=sampling.chunk,
    )


def gradient_contribution(loss: Callable[..., Array], params: Any) -> Callable[[Features, Array], Array]:
    """`(x_i, y_i)` to the flat float32 `[D]` gradient of `loss(params, x [1, ...], y [1]) -> [1]`."""

    def contribution(x: Features, y: Array) -> Array:
        return trees.flatten(jax.grad(lambda p: loss(p, take(x, None), y[None])[0])(params))

    return contribution


def check_sums_fit(mechanism: Mechanism, count: int) -> None:
    """Refuse sums of clipped contributions of so many records of one site that could overflow int32.

    Raises:
      ValueError: they could; with the remedy.
    """
    bound, step = mechanism.bounds.coordinate_bound, mechanism.bounds.grid_step
    if count < 2048:  # a contribution is at most 2**20 grid steps
        return
    if bound is None or step is None or count * (bound / step) >= 2047 * 2**20:
        raise ValueError(
            f"{count} records of one site could overflow the int32 sum of contributions; raise total_bound so that "
            "records * coordinate_bound / total_bound < 2048."
        )


def blocks_of(a: Array, parts: int, size: int) -> Array:
    """`[n, ...]` to `[parts, size, ...]`, padded with zeros."""
    pad = [(0, parts * size - a.shape[0])] + [(0, 0)] * (a.ndim - 1)
    return jnp.pad(a, pad).reshape(parts, size, *a.shape[1:])


def largest_unit(unit: np.ndarray) -> int:
    """Records of the largest unit in int `[S, n]` unit numbers (-1 is padding); decides on the host how contributions are summed."""
    sizes = [np.bincount(row[row >= 0]).max(initial=0) for row in np.asarray(unit)]
    return int(max(sizes, default=0))
