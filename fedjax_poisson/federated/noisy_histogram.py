"""What noisy counts say: where a column's mass lies, its middle, and which levels are frequent. Post-processing, so it costs no privacy.

Every count carries noise of one known standard deviation. What is not clearly above it is taken for noise, so that an empty bin far out does not stretch
a range, and the quantile that a range cuts off grows with the noise by itself: bins of few records are lost in it.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from scipy import special

_TAIL = 0.005
"""The share of the counted mass that a range leaves out on each side, as where ranges are read from the records: typing errors."""

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

    The bins from the first to the last of these: every bin whose count is above `threshold` standard deviations, and the run of
    neighbouring bins [i, j] with the largest `sum of counts - threshold * deviation * sqrt(j - i + 1)`, a lower bound on the mass of the run, where
    that is above zero. The run finds a column that is spread over bins none of which is seen alone. Of the mass found, 0.5 % is cut off on each side.

    Args:
      counts: float64 `[B]`, noisy counts of bins in their order.
      deviation: standard deviation of the noise of one count, >= 0.
      threshold: in standard deviations, from `significance`.

    Returns:
      The interval, or None where nothing is above the noise.
    """
    cumulative = np.concatenate([[0.0], np.cumsum(counts)])
    first, last = _runs(len(counts))
    worth = cumulative[last + 1] - cumulative[first] - threshold * deviation * np.sqrt(last - first + 1)
    best = int(np.argmax(worth))
    kept = counts > threshold * deviation
    if worth[best] > 0:
        kept[first[best] : last[best] + 1] = True
    mass = np.where(kept, np.maximum(counts, 0.0), 0.0)
    total = mass.sum()
    if total <= 0:
        return None
    upto = np.cumsum(mass)
    low, high = (int(np.searchsorted(upto, share * total, side="right")) for share in (_TAIL, 0.5))
    top = len(counts) - 1 - int(np.searchsorted(np.cumsum(mass[::-1]), _TAIL * total, side="right"))
    into = (0.5 * total - (upto[high] - mass[high])) / mass[high]
    return Interval(low, max(top, low), high, float(np.clip(into, 0.0, 1.0)))


def find_levels(counts: np.ndarray, deviation: float, threshold: float, most: int) -> tuple[int, ...]:
    """Buckets whose count is above `threshold` standard deviations, the `most` frequent of them, in increasing order."""
    kept = np.flatnonzero(counts > threshold * deviation)
    frequent = kept[np.argsort(-counts[kept], kind="stable")][:most]
    return tuple(sorted(frequent.tolist()))


@functools.lru_cache(maxsize=8)
def _runs(bins: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last bin of every run of neighbouring bins."""
    return np.triu_indices(bins)
