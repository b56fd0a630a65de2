"""Exact integer samplers: Poisson, Skellam, and counts whose rates carry a signal.

Exact means: the law of every draw is within `tables.distance` <= 2^-60 in total variation of the true law for ideal
random bits; the bound is computed while the tables are built, not estimated. A vector of D draws is within D *
distance, to be added to delta times the accountant's usual factor.

Proof. By `tables` the wanted number is a sum of independent numbers, one a level, each from one of finitely many fixed
laws. A level picks a column with exact uniform bits and compares a uniform integer of more than 80 bits with an integer threshold, so
it samples precisely the law that `laws.alias_table` built, whose distance to the true one was computed exactly in
integers (rounding, tails, and the defect of the probabilities). Total variation of a sum of independent numbers is at
most the sum of the levels' distances. The lower 64 bits of the uniform integers, which decide ties of the upper ones, are made from shared words;
`layout` bounds what that changes. ChaCha20 supplies the bits. No float occurs on the device, so all devices give the same integers.

One call reads one stream; draws lie in tiles of lanes (`_tiling`), which fixes the bits for a given number of draws on
every device.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fedjax_poisson.platforms import by_platform
from fedjax_poisson.randomness.chacha import BLOCK_WORDS, MAX_BYTES, Stream, output_block
from fedjax_poisson.randomness.grid_sum import GridSum, digit_of
from fedjax_poisson.randomness.layout import Layout
from fedjax_poisson.randomness.table_plan import digit_units
from fedjax_poisson.randomness.tables import (
    GRID_BITS,
    SamplingTables,
    poisson_tables,
    push_pull_tables,
    single_channel_tables,
    skellam_tables,
    span_of,
)

__all__ = [
    "GRID_BITS",
    "SamplingTables",
    "binomial",
    "floor",
    "of_sum",
    "poisson",
    "poisson_tables",
    "push_pull",
    "push_pull_tables",
    "single_channel",
    "single_channel_tables",
    "skellam",
    "skellam_tables",
]


Grid = jax.Array | GridSum | None
"""What a draw's rates carry: a grid, a sum of grids as units, or nothing."""
_LONG = 128  # lanes of a draw from which a CPU takes vmapped streams one after the other
_LANES = 1024  # most lanes of a tile: the words of a few levels stay in a CPU's second-level cache


def push_pull(stream: Stream, grid: jax.Array, tables: SamplingTables) -> jax.Array:
    """Draw Poisson(mu (1 + r v)) - Poisson(mu (1 - r v)) at v = grid / 2^20 for every coordinate.

    Args:
        stream: consumed by this call.
        grid: int32[...], in [-2^20, 2^20]; values outside are clamped to it.
        tables: from `push_pull_tables(dark_count=mu, modulation=r)`.

    Returns:
        int32 array of the shape of `grid`, exact within `tables.distance` a draw.

    Raises:
        TypeError: if `grid` is not int32.
        ValueError: if the tables belong to another sampler.
    """
    return _modulated(stream, grid, tables, "push_pull")


def single_channel(stream: Stream, grid: jax.Array, tables: SamplingTables) -> jax.Array:
    """Draw Poisson(mu (1 + r v)) at v = grid / 2^20; as `push_pull`, with tables from `single_channel_tables`."""
    return _modulated(stream, grid, tables, "single_channel")


def poisson(stream: Stream, shape: int | tuple[int, ...], tables: SamplingTables) -> jax.Array:
    """Draw int32 Poisson numbers of the fixed rate of `tables = poisson_tables(rate)`; consumes the stream."""
    return _fixed(stream, shape, tables, "poisson")


def skellam(stream: Stream, shape: int | tuple[int, ...], tables: SamplingTables) -> jax.Array:
    """Draw int32 Poisson(rate) - Poisson(rate) for `tables = skellam_tables(rate)`; consumes the stream."""
    return _fixed(stream, shape, tables, "skellam")


def _modulated(stream: Stream, grid: jax.Array, tables: SamplingTables, kind: str) -> jax.Array:
    _check_kind(tables, kind)
    if grid.dtype != jnp.int32:
        raise TypeError(
            f"grid is int32 multiples of 2^-{GRID_BITS}, got {grid.dtype}; "
            "clip_to_grid or an explicit rounding toward zero makes it"
        )
    return _draw(stream, jnp.ravel(jnp.asarray(grid)), grid.shape, tables)


def _fixed(stream: Stream, shape: int | tuple[int, ...], tables: SamplingTables, kind: str) -> jax.Array:
    _check_kind(tables, kind)
    shape = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    return _draw(stream, None, shape, tables)


def _check_kind(tables: SamplingTables, kind: str) -> None:
    if tables.kind != kind:
        raise ValueError(
            f"these are {tables.kind} tables, this sampler needs {kind} tables; "
            "build them with its own *_tables function"
        )


def _tiling(draws: int) -> tuple[int, int]:
    """(tiles, lanes): draw number (tile * 16 + j) * lanes + i is draw j of lane i of that tile."""
    groups = -(-draws // BLOCK_WORDS)
    tiles = -(-groups // _LANES)
    return tiles, -(-groups // tiles)


def of_sum(stream: Stream, units: GridSum, tables: SamplingTables) -> jax.Array:
    """Draw from the digits of w = units: the part of a sum's law that depends on the data (`sum_tables`).

    Args:
        stream: consumed by this call.
        units: w of every coordinate, in [0, 2^span], normalised.
        tables: of `sum_tables`, "digits_of_both" or "digits_of_one".

    Returns:
        int32 [D].

    Raises:
        ValueError: if the tables belong to another sampler.
    """
    if not tables.kind.startswith("digits"):
        raise ValueError(f"these are {tables.kind} tables, the digits of a sum need those of `sum_tables`")
    return _draw(stream, units, units.low.shape, tables)


def floor(stream: Stream, shape: int | tuple[int, ...], tables: SamplingTables) -> jax.Array:
    """Draw int32 numbers of one part of a sum's floor (`sum_tables`), Poisson or Skellam; consumes the stream."""
    return _fixed(stream, shape, tables, "floor_of_one" if tables.kind == "floor_of_one" else "floor_of_both")


def binomial(stream: Stream, shape: int | tuple[int, ...], tables: SamplingTables) -> jax.Array:
    """Draw int32 centred binomial numbers for `tables = sum_tables.binomial_tables(...)`; consumes the stream."""
    return _fixed(stream, shape, tables, "binomial")


def _draw(stream: Stream, grid: Grid, shape: tuple[int, ...], tables: SamplingTables) -> jax.Array:
    count, layout = math.prod(shape), tables.layout
    if count == 0:
        return jnp.zeros(shape, jnp.int32)
    tiles, lanes = _tiling(count)
    if tiles * lanes * (layout.blocks + layout.low_blocks) > MAX_BYTES // (4 * BLOCK_WORDS):
        raise ValueError(
            f"{count} draws need more than the 2^38 bytes of one stream; "
            "fold in a label per part and draw each part separately"
        )
    padding = tiles * BLOCK_WORDS * lanes - count
    grid = jax.tree.map(lambda leaf: jnp.pad(leaf, (0, padding)).reshape(tiles, BLOCK_WORDS, lanes), grid)

    return _draw_tiles(tiles, lanes, stream.key, tables, grid).reshape(-1)[:count].reshape(shape)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _draw_tiles(tiles: int, lanes: int, key: jax.Array, tables: SamplingTables, grid: Grid) -> jax.Array:
    """All draws, int32[tiles, 16, lanes], in the form that suits the device; the integers are the same in each.

    Under vmap a CPU goes through a batch of long draws one stream after the other, which stays in the cache and makes words that decide ties at need only:
    2,048 draws of a stream cost less than half of what they cost vectorised over the batch, 1,024 as much, and fewer would cost more.
    """
    # Where one stream is drawn by itself a branch saves the words that decide ties; counts of sums leave no bit for a mark.
    alone = lanes >= _LONG and not tables.kind.startswith("digits")
    small = functools.partial(_tile_by_tile, tiles, lanes, at_need=alone)
    whole = functools.partial(_all_at_once, tiles, lanes, together=True)
    return by_platform(
        key,
        tables,
        grid,
        cpu=jax.custom_batching.sequential_vmap(small) if lanes >= _LONG else small,
        # A TPU's compiler takes ten seconds for a batch of a hundred streams and one for a stream; look-ups go one by one there in any case.
        tpu=jax.custom_batching.sequential_vmap(whole) if lanes >= _LONG else whole,
        default=functools.partial(_all_at_once, tiles, lanes),
    )


def _tile_by_tile(
    tiles: int, lanes: int, key: jax.Array, tables: SamplingTables, grid: Grid, *, at_need: bool = False
) -> jax.Array:
    """The draws as a scan over tiles, int32[tiles, 16, lanes]: all that a tile touches stays in a CPU's cache.

    With `at_need` the words that decide ties are made only for tiles with a tie.
    """
    blocks, low_blocks = tables.layout.blocks, tables.layout.low_blocks

    def one_tile(_: None, inputs: tuple[jax.Array, Grid]) -> tuple[None, jax.Array]:
        tile, grid_tile = inputs
        words = functools.partial(_group_words, key, tiles * lanes, tile * jnp.uint32(lanes), lanes)
        if not at_need:
            every = words(0, blocks + low_blocks)
            return None, _group_draws(tables, every[:blocks], every[blocks:], grid_tile)
        first = words(0, blocks)
        marked = _group_draws(tables, first, None, grid_tile)
        drawn = lax.cond(
            jnp.any((marked & jnp.int32(1)) > 0),
            lambda: _group_draws(tables, first, words(blocks, low_blocks), grid_tile),
            lambda: marked >> jnp.int32(1),
        )
        return None, drawn

    return lax.scan(one_tile, None, (jnp.arange(tiles, dtype=jnp.uint32), grid))[1]


def _all_at_once(
    tiles: int,
    lanes: int,
    key: jax.Array,
    tables: SamplingTables,
    grid: Grid,
    *,
    form: str | None = None,
    together: bool = False,
) -> jax.Array:
    """The same draws without a loop, for devices that want every lane at once (`form`: see `chacha20_block`; `together`: see `_levels`)."""
    blocks, low_blocks = tables.layout.blocks, tables.layout.low_blocks
    words = _group_words(key, tiles * lanes, jnp.uint32(0), tiles * lanes, 0, blocks + low_blocks, form)
    # The barrier: words are made once, not again in each draw that reads them.
    words = lax.optimization_barrier(words)
    words = jnp.moveaxis(words.reshape(*words.shape[:-1], tiles, lanes), 1, -2)
    return _group_draws(tables, words[:blocks], words[blocks:], grid, together=together)


def _group_words(
    key: jax.Array, groups: int, first: jax.Array, lanes: int, start: int, blocks: int, form: str | None = None
) -> jax.Array:
    """Words of the groups first .. first + lanes - 1 in so many of their blocks, uint32[blocks, 16, lanes]; block n of group g has counter n * groups + g."""
    counter = (
        jnp.arange(start, start + blocks, dtype=jnp.uint32)[:, None] * jnp.uint32(groups)
        + (jnp.arange(lanes, dtype=jnp.uint32) + first)[None]
    )
    return jnp.stack(output_block(key, counter, form), axis=1)


def _group_draws(
    tables: SamplingTables, first: jax.Array, low: jax.Array | None, grid: Grid, *, together: bool = False
) -> jax.Array:
    """The draws of every group, each the sum of its levels.

    Args:
        tables: of the draws.
        first: uint32[blocks, ..., 16, lanes], first words.
        low: uint32[low_blocks, ..., 16, lanes], what decides ties; or None.
        grid: of every draw.
        together: as in `_levels`.

    Returns:
        int32[..., 16, lanes]; without `low` twice the draw, and one more where a level's tie is undecided.
    """
    layout = tables.layout
    top, total, undecided = jnp.int32(1 << GRID_BITS), None, None
    units = jnp.clip(grid, -top, top) + top if isinstance(grid, jax.Array) else grid
    every = range(len(tables.levels))
    for numbers in [every] if together else [[number] for number in every]:
        halves = (
            None
            if low is None
            else tuple(
                jnp.stack([_low_words(layout, low, number, further) for number in numbers])
                for further in (0, layout.second)
            )
        )
        found, ties = _levels(tables, numbers, first, halves, units)
        for value, tie in zip(found, ties, strict=True):
            total = value if total is None else total + value
            undecided = tie if undecided is None else undecided | tie
    assert total is not None and undecided is not None
    return total * jnp.int32(2) + undecided.astype(jnp.int32) if low is None else total


def _low_words(layout: Layout, low: jax.Array, number: int, further: int) -> jax.Array:
    """One half of what decides the ties of a level, uint32[..., 16, lanes]: the XOR of each draw's words, as one sum of masked words."""
    places = jnp.arange(layout.low_blocks * BLOCK_WORDS, dtype=jnp.uint32)
    subsets = np.array([draw[number] << further for draw in layout.low], np.uint32)
    chosen = jnp.uint32(0) - (
        (jnp.asarray(subsets)[None] >> places[:, None]) & jnp.uint32(1)
    )  # [words, 16], 0 or all bits
    words = jnp.moveaxis(low, -2, 1).reshape(-1, *low.shape[1:-2], 1, low.shape[-1])
    masked = words & chosen.reshape(-1, *(1,) * (low.ndim - 3), BLOCK_WORDS, 1)
    return lax.reduce(masked, jnp.uint32(0), lax.bitwise_xor, (0,))


def _row(tables: SamplingTables, number: int, units: Grid) -> tuple[jax.Array, jax.Array | None]:
    """The row that the units read in a level's tables, and whether its outcome is negated (None: never)."""
    level = tables.levels[number]
    if units is None or not level.bits:
        return jnp.int32(0), None
    largest = digit_units(level.shift, level.bits)
    if isinstance(units, GridSum):
        digit = digit_of(units, level.shift, level.bits, span_of(tables))
    else:
        full = jnp.int32((2 << GRID_BITS) - 1)
        digit = (jnp.minimum(units, full) >> jnp.int32(level.shift)) & jnp.int32((1 << level.bits) - 1)
        if level.last:
            digit = digit + (units > full).astype(jnp.int32)
    if not level.mirrored:
        return digit, None
    return jnp.minimum(digit, largest - digit), digit > largest - digit


def _levels(
    tables: SamplingTables,
    numbers: Sequence[int],
    words: jax.Array,
    low: tuple[jax.Array, ...] | None,
    units: Grid,
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Sample some levels by the alias method (its tables are described at `Level`), with one look-up for all of them in each table.

    A TPU compiles every look-up for a second or two and has no caches to spare, so there all levels look up together. Elsewhere one level at a time keeps
    its table in a CPU's cache and its values in a GPU's registers.

    Args:
        tables: all of them.
        numbers: which levels.
        words: first words, uint32[blocks, ..., 16, lanes].
        low: both halves of what decides ties, uint32[levels, ..., 16, lanes]; None leaves them undecided.
        units: what the digits are of.

    Returns:
        For each level the values, int32, and where what is in `words` ties.
    """
    levels = [tables.levels[number] for number in numbers]
    rows, negates = zip(*(_row(tables, number, units) for number in numbers), strict=True)
    first = jnp.stack([words[tables.layout.word[number]] for number in numbers])

    def of_each(values: list[int], dtype: jax.typing.DTypeLike = jnp.int32) -> jax.Array:
        return jnp.array(values, dtype).reshape(-1, *(1,) * (first.ndim - 1))

    behind = of_each([level.column_bits if level.packed else 0 for level in levels], jnp.uint32)
    mask = of_each([(1 << level.column_bits) - 1 for level in levels], jnp.uint32)
    packed = [level.packed for level in levels]
    columns = first
    if not all(packed):
        columns = jnp.stack([words[tables.layout.word[n] + (not of)] for n, of in zip(numbers, packed, strict=True)])
    column = columns & mask
    wide = [
        jnp.broadcast_to(row << jnp.int32(level.column_bits), first.shape[1:])
        for row, level in zip(rows, levels, strict=True)
    ]
    place = jnp.stack(wide) + column.astype(jnp.int32)
    at = place + of_each([level.entry_offset for level in levels])
    entry = _gather(tables.entries, at)
    alias = entry & mask
    if not all(packed):
        further = of_each([0 if level.packed else level.rows << level.column_bits for level in levels])
        alias = _gather(tables.entries, at + further) & mask
    upper, threshold = first >> behind, entry >> behind
    own, tie = upper < threshold, upper == threshold
    if low is not None:
        # Every other lane reads entry 0, which is always in the cache.
        known = jnp.where(tie, place + of_each([level.offset for level in levels]), jnp.int32(0))
        middle, lowest = _gather(tables.middle, known), _gather(tables.low, known)
        own = own | (tie & ((low[0] < middle) | ((low[0] == middle) & (low[1] < lowest))))
    outcome = jnp.where(own, column, alias)
    found = []
    for place_of, (number, level, row) in enumerate(zip(numbers, levels, rows, strict=True)):
        start = tables.origins[number]
        if level.bits:
            start = start + ((row.astype(jnp.uint32) * tables.slopes[number]) >> jnp.uint32(level.slope_shift))
        value = (outcome[place_of] + start).astype(jnp.int32)
        negate = negates[place_of]
        found.append(value if negate is None else jnp.where(negate, -value, value))
    return found, list(tie)


def _gather(table: jax.Array, index: jax.Array) -> jax.Array:
    return table.at[index].get(mode="promise_in_bounds")
