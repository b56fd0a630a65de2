"""Slow, independent references: ChaCha20 in Python integers, and pmfs in mpmath and NumPy."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
from scipy import stats

from fedjax_poisson.randomness import SamplingTables

MASK = 0xFFFFFFFF


def chacha20_words(key: list[int], counter: int, nonce: list[int]) -> list[int]:
    """RFC 8439 section 2.3, written from the text."""

    def quarter(s: list[int], a: int, b: int, c: int, d: int) -> None:
        for x, y, z, k in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[x] = (s[x] + s[y]) & MASK
            s[z] ^= s[x]
            s[z] = ((s[z] << k) | (s[z] >> (32 - k))) & MASK

    start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *key, counter, *nonce]
    state = list(start)
    for _ in range(10):
        for i in range(4):
            quarter(state, i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(state, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return [(a + b) & MASK for a, b in zip(state, start, strict=True)]


def skellam_probability(k: int, plus: Fraction, minus: Fraction) -> mpmath.mpf:
    """P(Poisson(plus) - Poisson(minus) = k) by Bessel's function, to 300 bits."""
    with mpmath.workprec(300):
        a, b = (mpmath.mpf(x.numerator) / x.denominator for x in (plus, minus))
        if a == 0 and b == 0:
            return mpmath.mpf(k == 0)
        if b == 0:
            return mpmath.exp(k * mpmath.log(a) - a - mpmath.loggamma(k + 1)) if k >= 0 else mpmath.mpf(0)
        if a == 0:
            return skellam_probability(-k, minus, plus)
        return mpmath.exp(-a - b) * mpmath.sqrt(a / b) ** k * mpmath.besseli(abs(k), 2 * mpmath.sqrt(a * b))


def difference_pmf(plus: float, minus: float) -> tuple[int, np.ndarray]:
    """(lowest outcome, float64 pmf) of Poisson(plus) - Poisson(minus) by convolution, over 12 standard deviations."""

    def one(rate: float) -> tuple[int, np.ndarray]:
        reach = 12 * np.sqrt(rate) + 40
        support = np.arange(max(0, int(rate - reach)), int(rate + reach) + 1)
        return int(support[0]), stats.poisson.pmf(support, rate) if rate > 0 else (support == 0).astype(np.float64)

    (low_a, a), (low_b, b) = one(plus), one(minus)
    return low_a - (low_b + b.size - 1), np.convolve(a, b[::-1])


def scale_of(tables: SamplingTables, level_number: int) -> int:
    """2^(bits that a level draws): the mass of its whole law in `row_law`."""
    level = tables.levels[level_number]
    return 1 << (96 if level.packed else level.column_bits + 96)


def row_law(tables: SamplingTables, level_number: int, row: int) -> dict[int, int]:
    """The law that a row of the device tables samples with ideal bits, as outcome -> mass out of `scale_of`.

    Read back from the device arrays alone, by summing each column's two shares.
    """
    level = tables.levels[level_number]
    entries, middle, low, origins, slopes = (
        np.asarray(x) for x in (tables.entries, tables.middle, tables.low, tables.origins, tables.slopes)
    )
    start = int(origins[level_number].astype(np.int32)) + (row * int(slopes[level_number]) >> level.slope_shift)
    columns = 1 << level.column_bits
    whole = scale_of(tables, level_number) >> level.column_bits
    law: dict[int, int] = {}
    for column in range(columns):
        place = row * columns + column
        entry = int(entries[level.entry_offset + place])
        if level.packed:
            top, alias = entry >> level.column_bits, entry & (columns - 1)
        else:
            top, alias = entry, int(entries[level.entry_offset + (level.rows << level.column_bits) + place])
        threshold = top << 64 | int(middle[level.offset + place]) << 32 | int(low[level.offset + place])
        for outcome, mass in ((column, threshold), (alias, whole - threshold)):
            if mass:
                law[outcome + start] = law.get(outcome + start, 0) + mass
    return law
