"""Layout of the random bits of a draw: several draws share a group of ChaCha20 blocks without wasting words.

A level of a sampler takes a column number, compares 64 uniform bits with a threshold, and needs the lower 32 of them
only when the upper 32 tie with the threshold's, with probability 2^-32. So each (draw, level) of a group owns a whole
word for the upper half and its own column bits, while the lower halves are XORs of distinct non-empty subsets of a few
shared words.

Distance. XORs of distinct subsets of independent uniform words are pairwise independent. Compared with private lower
halves the joint law of a group can therefore differ only if two ties use the same subset (2^-64 for each such pair) or
three levels tie at all (2^-96 for each triple). `Layout.distance` charges every draw with all pairs and triples that
touch it, so the distances of any set of draws add up to a bound of their joint law's distance.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

WORDS = 16
_MAX_DRAWS, _MAX_BLOCKS = 12, 4
_MAX_DISTANCE = Fraction(1, 1 << 61)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Word numbers inside a group of `blocks` ChaCha20 blocks (16 words each) that serves `draws` draws.

    Attributes:
        draws: draws of a group.
        blocks: blocks of a group.
        high: for each draw and level the word of the upper half.
        column: for each draw and level (word, right shift) of its column bits.
        low: for each draw and level the words whose XOR is the lower half.
        distance: total variation a draw is charged for the shared lower halves.
    """

    draws: int
    blocks: int
    high: tuple[tuple[int, ...], ...]
    column: tuple[tuple[tuple[int, int], ...], ...]
    low: tuple[tuple[tuple[int, ...], ...], ...]
    distance: Fraction


def choose_layout(column_bits: tuple[int, ...]) -> Layout:
    """The layout with the fewest blocks a draw for levels with these numbers of column bits (each at most 32).

    Raises:
        ValueError: if no layout of at most four blocks holds one draw.
    """
    candidates = [
        found
        for blocks in range(1, _MAX_BLOCKS + 1)
        for draws in range(1, _MAX_DRAWS + 1)
        if (found := _try_layout(column_bits, draws, blocks)) is not None
    ]
    if not candidates:
        raise ValueError(f"{len(column_bits)} levels do not fit {_MAX_BLOCKS} blocks; use fewer, larger digits")
    return min(candidates, key=lambda c: (Fraction(c.blocks, c.draws), c.blocks))


def _try_layout(column_bits: tuple[int, ...], draws: int, blocks: int) -> Layout | None:
    levels = len(column_bits)
    used = draws * levels
    column: list[tuple[int, int]] = []
    room = 0
    for _ in range(draws * levels):
        bits = column_bits[len(column) % levels]
        if bits > room:
            used, room = used + 1, 32
        column.append((used - 1, 32 - room))
        room -= bits
    for shared in range(1, WORDS * blocks - used + 1):
        subsets = [s for s in range(1, min(1 << shared, draws * levels + 1))]
        chosen = [subsets[i % len(subsets)] for i in range(draws * levels)]
        distance = max(_charge(chosen, draw, levels) for draw in range(draws))
        if distance <= _MAX_DISTANCE:
            low = [tuple(used + i for i in range(shared) if subset >> i & 1) for subset in chosen]
            return Layout(
                draws=draws,
                blocks=blocks,
                high=tuple(tuple(range(d * levels, (d + 1) * levels)) for d in range(draws)),
                column=tuple(tuple(column[d * levels : (d + 1) * levels]) for d in range(draws)),
                low=tuple(tuple(low[d * levels : (d + 1) * levels]) for d in range(draws)),
                distance=distance,
            )
    return None


def _charge(chosen: list[int], draw: int, levels: int) -> Fraction:
    own = range(draw * levels, (draw + 1) * levels)
    pairs = sum(chosen[i] == chosen[j] for i in own for j in range(len(chosen)) if j != i)
    triples = math.comb(len(chosen), 3) - math.comb(len(chosen) - levels, 3)
    return Fraction(pairs, 1 << 64) + Fraction(triples, 1 << 96)
