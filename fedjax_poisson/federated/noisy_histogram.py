"""Estimates from noisy counts: where a column's mass lies, its middle, and which levels are frequent. This is post-processing, so it costs no privacy.

Every count carries noise with the same known standard deviation. Counts not clearly above it are treated as noise, so that an empty outlying bin does not
stretch a range. The quantile that a range cuts off therefore grows with the noise, because bins with few records are lost in it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

_TAIL = 0.005
"""The share of the counted mass that a range leaves out on each side, as where ranges are read from the records: typing errors."""

_LIKELY = 2.0
"""Deviations above which a bin between those seen counts for the median."""

_FAILURE = 0.01
"""How often anything empty may be taken for filled in one release: a far bin that is would stretch a range to uselessness."""


class Interval(NamedTuple):
    """Where the mass of a column lies.

    Attributes:
      first: its first bin.
      last: its last bin.
      middle: the bin of the median.
      fraction: how far into that bin the median is, 0..1.
    """

    first: int
    last: int
    middle: int
    fraction: float


def significance(sums: int) -> float:
    """Standard deviations that none of so many sums over empty bins exceeds, except with probability 0.01.

    A union bound over normal tails; that the noise's tail is no heavier is checked numerically (it decides no privacy claim).
    """
    return float(-special.ndtri(_FAILURE / sums))


def runs_of(bins: int) -> int:
    """How many runs of neighbouring bins there are: the sums that `find_interval` compares with the noise."""
    return bins * (bins + 1) // 2


def find_interval(counts: np.ndarray, deviation: float, threshold: float) -> Interval | None:
    """The bins that hold a column's mass, as far as the noise lets them be seen.

    A run of neighbouring bins is seen if its sum is above `threshold` deviations of that sum, so that a column is found that is spread over bins none of
    which is seen alone; of nested runs only the shortest counts, so that a large bin does not lend its weight to empty neighbours. The interval goes from
    the first to the last bin of the runs seen, less 0.5 % of the mass in it on each side.

    Args:
      counts: float64 `[B]`, noisy counts of bins in their order.
      deviation: standard deviation of the noise of one count, >= 0.
      threshold: in standard deviations, from `significance` of all runs.

    Returns:
      The interval, or None where nothing is above the noise.
    """
    seen = _seen(counts, deviation, threshold)
    if not seen.any():
        return None
    first, last = np.flatnonzero(seen)[[0, -1]]
    inside = (np.arange(len(counts)) >= first) & (np.arange(len(counts)) <= last)
    mass = np.where(seen | (inside & (counts > _LIKELY * deviation)), np.maximum(counts, 0.0), 0.0)
    upto, total = np.cumsum(mass), mass.sum()
    low, middle = (int(np.searchsorted(upto, share * total, side="right")) for share in (_TAIL, 0.5))
    high = len(counts) - 1 - int(np.searchsorted(np.cumsum(mass[::-1]), _TAIL * total, side="right"))
    into = (0.5 * total - (upto[middle] - mass[middle])) / mass[middle]
    return Interval(low, max(high, low), middle, float(np.clip(into, 0.0, 1.0)))


def _seen(counts: np.ndarray, deviation: float, threshold: float) -> np.ndarray:
    """bool `[B]`: in a shortest run of neighbouring bins whose sum is above the noise of that sum."""
    bins = len(counts)
    seen, cumulative = np.zeros(bins, bool), np.concatenate([[0.0], np.cumsum(counts)])
    holds = np.zeros(bins + 1, bool)  # whether the run of the last length that starts here holds one that is seen
    for length in range(1, bins + 1):
        starts = bins - length + 1
        sums = cumulative[length:] - cumulative[:starts]
        within = holds[:starts] | holds[1 : starts + 1]
        shortest = (sums > threshold * deviation * np.sqrt(length)) & ~within
        for start in np.flatnonzero(shortest):
            seen[start : start + length] = True
        holds = within | shortest
        if holds.all():
            break
    return seen


def find_levels(counts: np.ndarray, deviation: float, threshold: float, most: int) -> tuple[int, ...]:
    """Buckets whose count is above `threshold` standard deviations, the `most` frequent of them, in increasing order."""
    kept = np.flatnonzero(counts > threshold * deviation)
    frequent = kept[np.argsort(-counts[kept], kind="stable")][:most]
    return tuple(sorted(frequent.tolist()))
