"""Ranges and levels of a table's open columns, from two private histograms instead of being read from the records.

The first histogram counts all columns at once: octaves of numbers, hash buckets of text. It gives every number a range from zero to the octave its
mass ends in, and every text column its frequent levels. The second counts numbers in equal bins of that range, which finds columns that sit at an
offset (years, temperatures, blood pH). The standardisation that follows releases means and deviations inside these ranges, so
a factor of two in a range costs little.

The guarantee is that of the two sums (proved, see `histogram`); what is done with them here is post-processing and a function of the opened counts and
public facts alone. How well it finds ranges is no privacy claim; it is checked numerically.

A numeric column whose bins are all below the noise gets the range (-1, 1) and 0 for its missing values, whatever its records are: its feature then reveals
little more than its sign.
"""

from __future__ import annotations

import math

import numpy as np

from fedjax_poisson.data.tables.bins import BUCKETS, LINEAR, OCTAVES, linear_edges, octave_edges
from fedjax_poisson.data.tables.schema import MOST_LEVELS, Released, Schema
from fedjax_poisson.federated.noisy_histogram import Interval, find_interval, find_levels, runs_of, significance

_LOST = 0.1
"""What a narrower range may leave outside, its noise included, as a share of what it holds."""

_UNSEEN_RANGE, _UNSEEN_FILL = (-1.0, 1.0), 0.0


def released_from_counts(schema: Schema, counts: np.ndarray, variance: float) -> Released:
    """Ranges and levels from the first histogram.

    Args:
      schema: names the open columns, numbers first.
      counts: float64 `[numbers * OCTAVES + texts * BUCKETS]`, opened and estimated.
      variance: of the noise of one count.

    Returns:
      The facts, not refined.
    """
    numbers, texts = schema.named("open_number"), schema.named("open_text")
    deviation = math.sqrt(variance)
    cut = len(numbers) * OCTAVES
    ranges, fills, levels = {}, {}, {}
    threshold = significance(max(len(numbers), 1) * runs_of(OCTAVES))
    for name, own in zip(numbers, counts[:cut].reshape(-1, OCTAVES), strict=True):
        found = find_interval(own, deviation, threshold)
        ranges[name] = _UNSEEN_RANGE if found is None else _reaching_zero(found)
        fills[name] = _UNSEEN_FILL if found is None else _median(octave_edges(), found)
    threshold = significance(max(len(texts), 1) * BUCKETS)
    for name, own in zip(texts, counts[cut:].reshape(-1, BUCKETS), strict=True):
        levels[name] = find_levels(own, deviation, threshold, MOST_LEVELS)
    return Released(ranges, fills, levels, refined=False)


def refine(schema: Schema, released: Released, counts: np.ndarray, variance: float) -> Released:
    """Narrower ranges of columns at an offset, and medians where they are known more closely, from the second histogram.

    A column is at an offset if its mass is further from zero than it is wide (years, temperatures, blood pH). All others keep their range: what noise hides
    in their tails is worth more than a closer range (a low hormone tells more than a normal one). A range keeps one bin more on either side than
    its mass was seen in.

    Args:
      schema: names the open columns.
      released: from the first histogram.
      counts: float64 `[numbers * LINEAR]`.
      variance: of the noise of one count.
    """
    numbers, deviation = schema.named("open_number"), math.sqrt(variance)
    threshold = significance(len(numbers) * runs_of(LINEAR))
    ranges, fills = dict(released.ranges), dict(released.fills)
    for name, own in zip(numbers, counts.reshape(-1, LINEAR), strict=True):
        edges = linear_edges(*released.ranges[name])
        found = find_interval(own, deviation, threshold)
        if found is None:
            continue
        low, high = max(found.first - 1, 0), min(found.last + 2, LINEAR)
        inside, cut = own[low:high].sum(), LINEAR - (high - low)
        hidden = own.sum() - inside + deviation * math.sqrt(cut)
        lower, upper = float(edges[low]), float(edges[high])
        if upper - lower <= max(lower, -upper) and hidden <= _LOST * inside:
            ranges[name] = (lower, upper)
        if edges[1] - edges[0] < _octave_width(fills[name]):
            fills[name] = _median(edges, found)
        fills[name] = float(np.clip(fills[name], *ranges[name]))
    return Released(ranges, fills, released.levels, refined=True)


def _reaching_zero(found: Interval) -> tuple[float, float]:
    """The octaves found, and on to zero: small values are few and hidden by noise, and reaching for them at most doubles the range."""
    edges, zero = octave_edges(), OCTAVES // 2
    low = 0.0 if found.first > zero else float(edges[found.first])
    high = 0.0 if found.last < zero else float(edges[found.last + 1])
    return low, high


def _median(edges: np.ndarray, found: Interval) -> float:
    left, right = edges[found.middle], edges[found.middle + 1]
    return float(left + found.fraction * (right - left))


def _octave_width(value: float) -> float:
    edges = octave_edges()
    place = int(np.clip(np.searchsorted(edges, value, side="right") - 1, 0, OCTAVES - 1))
    return float(edges[place + 1] - edges[place])
