"""Public bins that a private histogram counts in: octaves that cover any scale, equal bins of a released range, buckets of hashed text.

Bins are fixed before any record is read, so the bin of a value is a function of that value alone, and a count over the bins is a
sum over records, which a private, encrypted sum can release.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from fedjax_poisson.data.tables.csv_table import canonical

_LOWEST, _HIGHEST = -20, 50  # powers of two: a millionth to 1e15

OCTAVES = 2 * (_HIGHEST - _LOWEST) + 1
"""Bins of `octave_bins`: powers of two from 2**-20 to 2**50 on both sides of zero, and one around it."""

LINEAR = 32
"""Bins of `linear_bins`. Few, because every bin gets the same noise, however few records it holds."""

BUCKETS = 4096
"""Buckets of `text_buckets`: ten levels of a column fall into different ones with probability 0.989, and fifty with 0.74."""


def octave_edges() -> np.ndarray:
    """Edges of the octaves, float64 `[OCTAVES + 1]`, increasing: -2**50, ..., -2**-20, 2**-20, ..., 2**50."""
    powers = 2.0 ** np.arange(_LOWEST, _HIGHEST + 1)
    return np.concatenate([-powers[::-1], powers])


def linear_edges(lower: float, upper: float) -> np.ndarray:
    """Edges of `LINEAR` equal bins, float64 `[LINEAR + 1]`."""
    return np.linspace(lower, upper, LINEAR + 1)


def octave_bins(values: np.ndarray) -> np.ndarray:
    """Octave of each number, int32 `[n]` in 0..OCTAVES-1; -1 where it is missing (NaN); numbers beyond the last octave are in it."""
    return _bins(values, octave_edges())


def linear_bins(values: np.ndarray, lower: float, upper: float) -> np.ndarray:
    """Equal bin of each number, int32 `[n]` in 0..LINEAR-1; -1 where it is missing; numbers outside the range are in its first or last bin."""
    return _bins(values, linear_edges(lower, upper))


def text_buckets(column: str, texts: Sequence[str]) -> np.ndarray:
    """Bucket of each text, int32 `[n]` in 0..BUCKETS-1: SHA-256 of the column's name and the text, first eight bytes, modulo BUCKETS.

    The hash is public and the same everywhere, so a site can tell which of its own levels a bucket stands for; it hides nothing and need not.
    Texts are taken in their canonical spelling ("1.0" is "1"), a missing one as the level "missing".
    """
    found: dict[str, int] = {}
    for text in set(texts):
        level = canonical(text) if text else "missing"
        digest = hashlib.sha256(f"fedjax_poisson level\0{column}\0{level}".encode()).digest()
        found[text] = int.from_bytes(digest[:8], "big") % BUCKETS
    return np.array([found[text] for text in texts], np.int32)


def _bins(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return np.where(np.isnan(values), -1, place).astype(np.int32)
