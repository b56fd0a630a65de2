"""Layout of the random bits of a draw: which word of which ChaCha20 block decides what.

A group is sixteen draws, one for each word of a block: the k-th word that a draw needs is its own word of the group's block k. A level of a sampler takes a
column number of c bits and compares uniform bits with the column's threshold. In a *packed* level the c bits share a word with the 32 - c highest of the
bits that are compared; a level of more than 13 bits has a word for each. The 64 bits behind those are needed only if the highest tie with the threshold's,
once in 2^19 draws or less often. They come from further blocks, which a CPU makes only when a tie is there.

**Distance.** The group's lower halves are XORs of odd-sized subsets of a few words. Any three different such subsets are linearly independent over GF(2) (a
sum of one or two has the wrong size, of three an odd one), so the lower halves are independent and uniform three by three. Given the first words, draws
without a tie are decided, so the joint law of a group is the ideal one unless four of its levels tie; `Layout.distance` charges every draw with all
quadruples that touch it, so the distances of any set of draws add up to a bound of their joint law's distance. Levels are packed, the smallest first, while
that stays below 2^-64.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from fractions import Fraction

WORDS = 16
WORD_BITS, LOW_BITS = 32, 64
MOST_PACKED = 13
"""Bits of a column number that may share a word with the compared bits."""
_MAX_DISTANCE = Fraction(1, 1 << 64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a group's random numbers lie: sixteen draws, the j-th of which reads word j of the first blocks.

    Attributes:
        blocks: blocks of first words.
        low_blocks: blocks of what decides ties, behind them.
        packed: for each level whether its column shares a word with the bits that are compared at first.
        word: for each level the block of its first word; a level that is not packed has its column in the next one.
        low: for each draw and level the set of low words, as bits of a number, whose XOR is the upper half of what decides a tie.
        second: the lower half is the XOR of the words so many places further on.
        distance: total variation a draw is charged for shared words.
    """

    blocks: int
    low_blocks: int
    packed: tuple[bool, ...]
    word: tuple[int, ...]
    low: tuple[tuple[int, ...], ...]
    second: int
    distance: Fraction


def threshold_bits(column_bits: int, packed: bool) -> int:
    """Bits that a level compares with its thresholds."""
    return WORD_BITS - (column_bits if packed else 0) + LOW_BITS


def choose_layout(column_bits: tuple[int, ...]) -> Layout:
    """The layout for levels with these numbers of column bits, each at most 32."""
    packed = [bits <= MOST_PACKED for bits in column_bits]
    while (distance := _charge(_tie_bits(column_bits, packed))) > _MAX_DISTANCE and any(packed):
        packed[max((bits, i) for i, bits in enumerate(column_bits) if packed[i])[1]] = False
    sizes = [1 if of else 2 for of in packed]
    places = list(itertools.accumulate(sizes, initial=0))
    levels = len(column_bits)
    shared = (WORDS * levels - 1).bit_length() + 1  # 2^(s - 1) subsets of s words have an odd size
    subsets = _odd_subsets(WORDS * levels)
    return Layout(
        blocks=places.pop(),
        low_blocks=-(-2 * shared // WORDS),
        packed=tuple(packed),
        word=tuple(places),
        low=tuple(tuple(subsets[i : i + levels]) for i in range(0, WORDS * levels, levels)),
        second=shared,
        distance=distance,
    )


def _tie_bits(column_bits: Sequence[int], packed: Sequence[bool]) -> list[int]:
    """Bits that each level compares at first."""
    return [threshold_bits(bits, of) - LOW_BITS for bits, of in zip(column_bits, packed, strict=True)]


def _odd_subsets(count: int) -> list[int]:
    """The first so many numbers with an odd number of set bits."""
    found: list[int] = []
    number = 1
    while len(found) < count:
        if number.bit_count() % 2:
            found.append(number)
        number += 1
    return found


def _charge(tie_bits: Sequence[int]) -> Fraction:
    """The sum over all sets of four levels of a group that touch one draw of the chance that all four tie: 2^-t each, for the t bits compared at first."""
    own = [Fraction(1, 1 << bits) for bits in tie_bits]
    return _quadruples(own * WORDS) - _quadruples(own * (WORDS - 1))


def _quadruples(chances: list[Fraction]) -> Fraction:
    """The fourth elementary symmetric polynomial."""
    sums = [Fraction(1), *[Fraction(0)] * 4]
    for chance in chances:
        for size in range(4, 0, -1):
            sums[size] += sums[size - 1] * chance
    return sums[4]
