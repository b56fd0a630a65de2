"""Exact integer samplers: Poisson, Skellam, and counts whose rates carry a signal.

Exact means: the law of every draw is within `tables.distance` <= 2^-60 in total variation of the true law for ideal
random bits; the bound is computed while the tables are built, not estimated. A vector of D draws is within D *
distance, to be added to delta times the accountant's usual factor.

Proof. By `tables` the wanted number is a sum of independent numbers, one a level, each from one of finitely many fixed
laws. A level picks a column with exact uniform bits and compares a 64-bit uniform integer with an integer threshold, so
it samples precisely the law that `laws.alias_table` built, whose distance to the true one was computed exactly in
integers (rounding, tails, and the defect of the probabilities). Total variation of a sum of independent numbers is at
most the sum of the levels' distances. Lower halves of the uniform integers are shared; `layout` bounds what that
changes. ChaCha20 supplies the bits. No float occurs on the device, so all devices give the same integers.

One call reads one stream; draws lie in tiles of lanes (`_tiling`), which fixes the bits for a given number of draws on
every device.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fedjax_poisson.platforms import by_platform
from fedjax_poisson.randomness.chacha import BLOCK_WORDS, MAX_BYTES, TILE, Stream, output_block
from fedjax_poisson.randomness.chacha_block import Words
from fedjax_poisson.randomness.grid_sum import GridSum, digit_of
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
_LONG = 256  # lanes of a draw from which a CPU takes vmapped streams one after the other


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


def _tiling(draws: int, per_group: int) -> tuple[int, int]:
    """(tiles, lanes): draw number (tile * per_group + j) * lanes + i is draw j of lane i of that tile."""
    groups = -(-draws // per_group)
    tiles = -(-groups // TILE)
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
    tiles, lanes = _tiling(count, layout.draws)
    if tiles * lanes * layout.blocks > MAX_BYTES // (4 * BLOCK_WORDS):
        raise ValueError(
            f"{count} draws need more than the 2^38 bytes of one stream; "
            "fold in a label per part and draw each part separately"
        )
    padding = tiles * layout.draws * lanes - count
    grid = jax.tree.map(lambda leaf: jnp.pad(leaf, (0, padding)).reshape(tiles, layout.draws, lanes), grid)

    return _draw_tiles(tiles, lanes, stream.key, tables, grid).reshape(-1)[:count].reshape(shape)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _draw_tiles(tiles: int, lanes: int, key: jax.Array, tables: SamplingTables, grid: Grid) -> jax.Array:
    """All draws, int32[tiles, draws, lanes], in the form that suits the device; the integers are the same in each.

    Under vmap a CPU goes through a batch of long draws one stream after the other, which is a tenth to a fifth faster
    than leaving the cache; short draws are vectorised over the batch, which is twice as fast as starting many loops.
    """
    small = functools.partial(_tile_by_tile, tiles, lanes)
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


def _tile_by_tile(tiles: int, lanes: int, key: jax.Array, tables: SamplingTables, grid: Grid) -> jax.Array:
    """The draws as a scan over tiles, int32[tiles, draws, lanes]: all that a tile touches stays in a CPU's cache."""

    def one_tile(_: None, inputs: tuple[jax.Array, Grid]) -> tuple[None, jax.Array]:
        tile, grid_tile = inputs
        words = _group_words(key, tables, tiles * lanes, tile * jnp.uint32(lanes), lanes)
        return None, _group_draws(tables, words, grid_tile)

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
    # The barrier: words are made once, not again in each draw that reads them.
    words = lax.optimization_barrier(_group_words(key, tables, tiles * lanes, jnp.uint32(0), tiles * lanes, form))
    return _group_draws(tables, tuple(word.reshape(tiles, lanes) for word in words), grid, together=together)


def _group_words(
    key: jax.Array, tables: SamplingTables, groups: int, first: jax.Array, lanes: int, form: str | None = None
) -> Words:
    """All words of the groups first .. first + lanes - 1; block number n of group g has counter n * groups + g."""
    blocks = tables.layout.blocks
    counter = (
        jnp.arange(blocks, dtype=jnp.uint32)[:, None] * jnp.uint32(groups)
        + (jnp.arange(lanes, dtype=jnp.uint32) + first)[None]
    )
    words = output_block(key, counter, form)
    return tuple(words[word][block] for block in range(blocks) for word in range(BLOCK_WORDS))


def _group_draws(tables: SamplingTables, words: Words, grid: Grid, *, together: bool = False) -> jax.Array:
    """The draws of every group, int32[..., draws, lanes] for words [..., lanes]: each the sum of its levels (`together`: see `_levels`)."""
    layout, axis = tables.layout, words[0].ndim - 1

    def planes(arrays: list[jax.Array]) -> jax.Array:
        return jnp.stack(arrays, axis=axis)

    def read(number: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        high = planes([words[layout.high[draw][number]] for draw in range(layout.draws)])
        low = planes(
            [
                functools.reduce(operator.xor, [words[i] for i in layout.low[draw][number]])
                for draw in range(layout.draws)
            ]
        )
        places = [layout.column[draw][number] for draw in range(layout.draws)]
        column = planes([words[word] >> jnp.uint32(shift) for word, shift in places])
        column = column & jnp.uint32((1 << tables.levels[number].column_bits) - 1)
        return high, low, column.astype(jnp.int32)

    top, total = jnp.int32(1 << GRID_BITS), None
    units = jnp.clip(grid, -top, top) + top if isinstance(grid, jax.Array) else grid
    every = range(len(tables.levels))
    for numbers in [every] if together else [[number] for number in every]:
        for value in _levels(tables, numbers, [read(number) for number in numbers], units):
            total = value if total is None else total + value
    assert total is not None
    return total


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
    tables: SamplingTables, numbers: Sequence[int], drawn: list[tuple[jax.Array, jax.Array, jax.Array]], units: Grid
) -> list[jax.Array]:
    """Sample some levels by the alias method (its tables are described at `Level`), with one look-up for all of them in each table.

    A TPU compiles every look-up for a second or two and has no caches to spare, so there all levels look up together. Elsewhere one level at a time keeps
    its table in a CPU's cache and its values in a GPU's registers.
    """
    levels = [tables.levels[number] for number in numbers]
    rows, negates = zip(*(_row(tables, number, units) for number in numbers), strict=True)
    high, low, column = (jnp.stack(words) for words in zip(*drawn, strict=True))

    def of_each(values: list[int]) -> jax.Array:
        return jnp.array(values, jnp.int32).reshape(-1, *(1,) * (high.ndim - 1))

    wide = [
        jnp.broadcast_to(row << jnp.int32(level.column_bits), high.shape[1:])
        for row, level in zip(rows, levels, strict=True)
    ]
    entry = jnp.stack(wide) + column
    place = entry + of_each([level.offset for level in levels])
    threshold = _gather(tables.high, place)
    tie = high == threshold
    # The lower halves are needed once in 2^32 draws; every other lane reads entry 0, which is always in the cache.
    low_threshold = _gather(tables.low, jnp.where(tie, place, jnp.int32(0)))
    own = (high < threshold) | (tie & (low < low_threshold))
    outcome_place = entry + of_each([level.outcome_offset for level in levels])
    if not all(level.packed for level in levels):
        other = of_each([0 if level.packed else level.rows << level.column_bits for level in levels])
        outcome_place = outcome_place + jnp.where(own, jnp.int32(0), other)
    outcome = _gather(tables.outcomes, outcome_place)
    found = []
    for place_of, (number, level) in enumerate(zip(numbers, levels, strict=True)):
        value = outcome[place_of]
        if level.packed:
            value = jnp.where(own[place_of], value & jnp.uint32(0xFFFF), value >> jnp.uint32(16))
        signed = value.astype(jnp.int32) + tables.origins[number].astype(jnp.int32)
        negate = negates[place_of]
        found.append(signed if negate is None else jnp.where(negate, -signed, signed))
    return found


def _gather(table: jax.Array, index: jax.Array) -> jax.Array:
    return table.at[index].get(mode="promise_in_bounds")
