"""The push-pull draws of `samplers` in NumPy, for a few values: the same integers, without a program.

A run on a small table draws some hundred counts a round: their program takes far longer to compile than it runs in all rounds. The law and its
proof are those of `samplers` and `tables`: the same words of the same blocks decide the same draws, so that every count is the one that the program gives
(tests compare them bit by bit, ties of the compared words too).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedjax_poisson.randomness import host_cipher
from fedjax_poisson.randomness.chacha import BLOCK_WORDS, OUTPUT, Stream, is_on_host
from fedjax_poisson.randomness.table_plan import GRID_BITS, Level, digit_units
from fedjax_poisson.randomness.tables import SamplingTables

__all__ = ["MOST_DRAWS", "can_draw", "push_pull_rows"]

MOST_DRAWS = 1 << 13
"""Of one call: more are drawn sooner by a program."""


def can_draw(streams: Sequence[Stream], draws: int) -> bool:
    """Whether so many draws from these streams are made here: few of them, and keys that are numbers and not yet part of a program."""
    return draws <= MOST_DRAWS and all(is_on_host(stream.key) for stream in streams)


def push_pull_rows(streams: Sequence[Stream], grids: np.ndarray, tables: SamplingTables) -> np.ndarray:
    """`samplers.push_pull` of each row with a stream of its own.

    Args:
      streams: n of them, each consumed.
      grids: int32 `[n, D]`, values outside `[-2^20, 2^20]` are clamped to it.
      tables: from `push_pull_tables`.

    Returns:
      int32 `[n, D]`.

    Raises:
      TypeError: the grids are not int32.
      ValueError: the tables belong to another sampler, or there are more draws than `MOST_DRAWS`.
    """
    if tables.kind != "push_pull":
        raise ValueError(f"these are {tables.kind} tables, this sampler needs push_pull tables")
    if grids.dtype != np.int32:
        raise TypeError(f"grids are int32 multiples of 2^-{GRID_BITS}, got {grids.dtype}")
    if grids.size > MOST_DRAWS:
        raise ValueError(f"{grids.size} draws on the host, at most {MOST_DRAWS}: draw them by `samplers.push_pull`")
    rows, count = grids.shape
    if not grids.size:
        return np.zeros(grids.shape, np.int32)
    # Draw j of group g is number j * groups + g, and its k-th word is word j of the group's block k, whose counter is k * groups + g: `samplers` with one tile.
    groups = -(-count // BLOCK_WORDS)
    blocks = (tables.layout.blocks + tables.layout.low_blocks) * groups
    made = [host_cipher.cipher_words(np.asarray(one.key), 0, (OUTPUT, 0, 0), blocks) for one in streams]
    words = np.stack(made).reshape(rows, -1, groups, BLOCK_WORDS).transpose(1, 0, 3, 2)  # [blocks, n, 16, groups]
    top = 1 << GRID_BITS
    units = np.full((rows, BLOCK_WORDS * groups), top, np.int64)
    units[:, :count] = np.clip(grids, -top, top) + top
    units = units.reshape(rows, BLOCK_WORDS, groups)
    total = np.zeros(units.shape, np.int64)
    for number in range(len(tables.levels)):
        total += _level(tables, number, words, units)
    # A sum of levels is taken modulo 2^32 there; no count comes near that.
    return total.astype(np.int32).reshape(rows, -1)[:, :count]


def _level(tables: SamplingTables, number: int, words: np.ndarray, units: np.ndarray) -> np.ndarray:
    """The outcomes of one level, int64 `[n, 16, groups]` (`samplers._levels`)."""
    level, layout = tables.levels[number], tables.layout
    entries, mask = np.asarray(tables.entries), np.uint32((1 << level.column_bits) - 1)
    row, negated = _row(level, units)
    first = words[layout.word[number]]
    column = (first if level.packed else words[layout.word[number] + 1]) & mask
    place = (row << level.column_bits) + column
    entry = entries[place + level.entry_offset]
    if level.packed:
        behind = np.uint32(level.column_bits)
        alias, upper, threshold = entry & mask, first >> behind, entry >> behind
    else:
        further = level.rows << level.column_bits
        alias, upper, threshold = entries[place + level.entry_offset + further] & mask, first, entry
    own = upper < threshold
    for at in zip(*np.nonzero(upper == threshold), strict=True):
        known = place[at] + level.offset
        middle, lowest = int(np.asarray(tables.middle)[known]), int(np.asarray(tables.low)[known])
        own[at] = _low_words(tables, number, words, at) < (middle, lowest)
    start = np.full(row.shape, np.asarray(tables.origins)[number].astype(np.int32), np.int64)
    if level.bits:
        # The product of the program is of 32 bits.
        start += (row * int(np.asarray(tables.slopes)[number]) & 0xFFFFFFFF) >> level.slope_shift
    value = np.where(own, column, alias) + start
    return np.where(negated, -value, value)


def _row(level: Level, units: np.ndarray) -> tuple[np.ndarray, np.ndarray | bool]:
    """The row of the level's tables that the units read, int64, and whether its outcome is negated."""
    if not level.bits:
        return np.zeros_like(units), False
    full = (2 << GRID_BITS) - 1
    digit = (np.minimum(units, full) >> level.shift) & ((1 << level.bits) - 1)
    if level.last:
        digit = digit + (units > full)
    if not level.mirrored:
        return digit, False
    largest = digit_units(level.shift, level.bits)
    return np.minimum(digit, largest - digit), digit > largest - digit


def _low_words(tables: SamplingTables, number: int, words: np.ndarray, at: tuple[np.ndarray, ...]) -> tuple[int, int]:
    """Both halves of what decides the tie of one draw: the XOR of the words of its set."""
    layout, (row, draw, group) = tables.layout, at
    low = words[layout.blocks :, row, :, group].ravel()  # a group's word number `block * 16 + place`
    chosen = [i for i in range(low.size) if layout.low[int(draw)][number] >> i & 1]
    halves = (np.bitwise_xor.reduce(low[np.array(chosen) + further]) for further in (0, layout.second))
    upper, lower = (int(half) for half in halves)
    return upper, lower
