"""Draws on the host are the integers of the program, for every plan of tables, ties and the ends of the grid included."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson import randomness
from fedjax_poisson.randomness import SamplingTables, Stream, host_cipher, host_draws, samplers

# One or more levels, packed or with a word of their own for the column, of every part of the range.
RATES = [(0.02, 0.5), (8.0, 0.05), (2117.3, 0.05), (3e4, 0.5), (208901.7, 0.05), (1e6, 0.5)]
_program = jax.jit(jax.vmap(samplers.push_pull, (0, 0, None)))


def tables_of(rate: tuple[float, float]) -> SamplingTables:
    return randomness.push_pull_tables(dark_count=rate[0], modulation=rate[1])


def by_program(streams: list[Stream], grids: np.ndarray, tables: SamplingTables) -> np.ndarray:
    keys = np.stack([np.asarray(one.key) for one in streams])
    together = Stream(keys, np.zeros(len(streams), np.uint32))
    return np.asarray(_program(together, grids, tables))


def some(rows: int, count: int) -> tuple[list[Stream], np.ndarray]:
    rng = np.random.default_rng(rows * 10_000 + count)
    grids = rng.integers(-(2**20) - 9, 2**20 + 10, (rows, count), dtype=np.int32)
    grids.reshape(-1)[::3] = rng.choice([-(2**20), 2**20, 0, 1, -1], grids.reshape(-1)[::3].size)
    return [randomness.stream() for _ in range(rows)], grids


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("rows", "count"), [(1, 1), (3, 14), (2, 16), (2, 17), (1, 5000)])
def test_the_counts_are_those_of_the_program(rate: tuple[float, float], rows: int, count: int) -> None:
    (streams, grids), tables = some(rows, count), tables_of(rate)
    found = host_draws.push_pull_rows(streams, grids, tables)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, by_program(streams, grids, tables))


def _with_ties(tables: SamplingTables, streams: list[Stream], grids: np.ndarray) -> SamplingTables:
    """Tables, of no law, whose thresholds are the words that these draws are compared with: most draws tie in every level."""
    layout, groups = tables.layout, -(-grids.shape[1] // 16)
    blocks = (layout.blocks + layout.low_blocks) * groups
    entries = np.array(tables.entries)
    for stream, grid in zip(streams, grids, strict=True):
        words = host_cipher.cipher_words(np.asarray(stream.key), 0, (0, 0, 0), blocks)
        words = words.reshape(-1, groups, 16).swapaxes(1, 2).reshape(-1, 16 * groups)[:, : grid.size]
        for number, level in enumerate(tables.levels):
            row, _ = host_draws._row(level, np.clip(grid.astype(np.int64), -(2**20), 2**20) + 2**20)
            first, mask = words[layout.word[number]], np.uint32((1 << level.column_bits) - 1)
            column = (first if level.packed else words[layout.word[number] + 1]) & mask
            at = (row << level.column_bits) + column + level.entry_offset
            entries[at] = (first & ~mask) | (entries[at] & mask) if level.packed else first
    return dataclasses.replace(tables, entries=jnp.asarray(entries))


@pytest.mark.parametrize("twin", [False, True])
@pytest.mark.parametrize("rate", [RATES[2], RATES[4]])
def test_ties_are_decided_as_the_program_does(
    rate: tuple[float, float], twin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin decides them the other way."""
    streams, grids = some(2, 50)
    tables, decide = _with_ties(tables_of(rate), streams, grids), host_draws._low_words
    ties = []

    def noted(*given: Any) -> tuple[int, int]:
        ties.append(given[1])
        upper, lower = decide(*given)
        return (upper ^ 0xFFFFFFFF, lower) if twin else (upper, lower)

    monkeypatch.setattr(host_draws, "_low_words", noted)
    found = host_draws.push_pull_rows(streams, grids, tables)
    assert all(ties.count(number) > 10 for number in range(len(tables.levels)))
    different = (found != by_program(streams, grids, tables)).sum()
    assert (different > 10) if twin else (different == 0)


def test_what_decides_ties_are_the_words_of_the_program() -> None:
    """Each draw's set of words, both halves, by the sampler's own masked sum."""
    tables = tables_of((208901.7, 0.05))
    layout, rng = tables.layout, np.random.default_rng(0)
    words = rng.integers(0, 2**32, (layout.blocks + layout.low_blocks, 2, 16, 3), dtype=np.uint32)
    for number in range(len(tables.levels)):
        both = [
            np.asarray(samplers._low_words(layout, words[layout.blocks :], number, further))
            for further in (0, layout.second)
        ]
        for at in np.ndindex(2, 16, 3):
            assert host_draws._low_words(tables, number, words, at) == tuple(int(half[at]) for half in both)


def test_a_level_that_forgets_to_negate_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin of the comparison above."""
    row = host_draws._row
    monkeypatch.setattr(host_draws, "_row", lambda *given: (row(*given)[0], False))
    (streams, grids), tables = some(3, 14), tables_of(RATES[1])
    assert (host_draws.push_pull_rows(streams, grids, tables) != by_program(streams, grids, tables)).any()


def test_nothing_is_drawn_for_nothing() -> None:
    assert host_draws.push_pull_rows([], np.zeros((0, 5), np.int32), tables_of(RATES[0])).shape == (0, 5)


def test_other_tables_numbers_and_sizes_are_refused() -> None:
    streams, grids = some(1, 4)
    with pytest.raises(ValueError, match="skellam tables"):
        host_draws.push_pull_rows(streams, grids, randomness.skellam_tables(3.0))
    with pytest.raises(TypeError, match="int32"):
        host_draws.push_pull_rows(streams, grids.astype(np.float32), tables_of(RATES[0]))
    with pytest.raises(ValueError, match="at most"):
        host_draws.push_pull_rows(streams, np.zeros((1, host_draws.MOST_DRAWS + 1), np.int32), tables_of(RATES[0]))


def test_many_draws_traced_streams_and_a_host_without_the_cipher_are_left_to_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = randomness.stream()
    assert host_draws.can_draw([one], host_draws.MOST_DRAWS)
    assert not host_draws.can_draw([one], host_draws.MOST_DRAWS + 1)
    inside = []
    jax.jit(lambda stream: inside.append(host_draws.can_draw([stream], 1)))(one)
    assert inside == [False]
    monkeypatch.setattr(host_cipher, "available", lambda: False)
    assert not host_draws.can_draw([one], 1)
