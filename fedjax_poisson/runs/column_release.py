"""Private ranges and levels as part of a run: the cost of the two histograms, fixed in advance, and their release in order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np

from fedjax_poisson import accounting
from fedjax_poisson.aggregation import Aggregator
from fedjax_poisson.data.tables.bins import BUCKETS, LINEAR, OCTAVES
from fedjax_poisson.data.tables.open_table import Binned, OpenTable, first_bins, refined_bins
from fedjax_poisson.data.tables.schema import Released
from fedjax_poisson.federated.histogram import private_histogram
from fedjax_poisson.federated.private_columns import refine, released_from_counts
from fedjax_poisson.federated.private_sum import Gate, SumInfo
from fedjax_poisson.mechanisms import Mechanism
from fedjax_poisson.mechanisms.dark_counts import Terms, once
from fedjax_poisson.randomness import Stream
from fedjax_poisson.runs.planned import Planned, planned_of

RANGES_SHARE, REFINE_SHARE = 0.06, 0.03
"""Shares of the budget's Renyi curve spent on the two histograms (`experiments/private_columns.py` explains how they were chosen and what they cost)."""

ChargeRelease = Callable[[str, int, Planned], tuple[Gate, Stream]]
"""`(purpose, number, planned)` to the gate of a release, which puts it on the ledger, and its stream."""

MakeAggregator = Callable[[Mechanism, int, str], Aggregator]
"""`(mechanism, size, purpose)` to the encryption of that release, with keys of its own."""


class Histogram(NamedTuple):
    """One of the two releases.

    Attributes:
      purpose: its name on the ledger.
      planned: its release.
    """

    purpose: str
    planned: Planned

    @property
    def size(self) -> int:
        """D, its length."""
        return self.planned.dimension


class ColumnPlan(NamedTuple):
    """The releases about open columns, fixed before any record is read.

    Attributes:
      first: octaves and buckets; None where no column is open.
      second: equal bins of the ranges; None where no number is open.
    """

    first: Histogram | None
    second: Histogram | None

    @property
    def releases(self) -> tuple[Histogram, ...]:
        """The releases that take place."""
        return tuple(each for each in (self.first, self.second) if each is not None)

    @property
    def charges(self) -> list[accounting.Charge]:
        """What the ledger is charged with."""
        return [each.planned.charge for each in self.releases]


def column_coordinates(numbers: int, texts: int) -> int:
    """Total coordinates that a sender embeds, over which the samplers' distance from their law is counted."""
    return numbers * (OCTAVES + LINEAR) + texts * BUCKETS


def plan_columns(
    terms: Terms, *, numbers: int, texts: int, ranges_share: float = RANGES_SHARE, refine_share: float = REFINE_SHARE
) -> ColumnPlan:
    """Mechanisms of the two histograms, from public numbers only.

    Each histogram gets its share of the budget (`dark_counts.once`). Its cost depends on the number m of columns, through K = min(D, m) = m, and not on
    that of bins. A person at several sites is a unit at each, and charged for it.

    Args:
      terms: of the run.
      numbers: open numeric columns.
      texts: open text columns.
      ranges_share: share of the first histogram, in (0, 1).
      refine_share: share of the second; 0 leaves it out.

    Raises:
      ValueError: a share is not a share, or the budget cannot be met.
    """
    if not (0 < ranges_share < 1 and 0 <= refine_share < 1 and ranges_share + refine_share < 1):
        raise ValueError(
            f"ranges_share={ranges_share} and refine_share={refine_share} must be shares of one budget: above 0 (the second may be 0), "
            "together below 1."
        )
    left = 0.0 if terms.variance is None else terms.variance.total

    def histogram(purpose: str, share: float, columns: int, size: int) -> Histogram:
        priced = once(terms, share, math.sqrt(columns), size, left)
        distance = accounting.release_distance(
            senders=terms.participation.senders, dimension=size, draw=priced.mechanism.facts.sampler_distance
        )
        return Histogram(purpose, planned_of(terms, priced, size, distance))

    first = second = None
    if numbers + texts:
        first = histogram("columns", ranges_share, numbers + texts, numbers * OCTAVES + texts * BUCKETS)
        if terms.variance is not None:
            after = accounting.spend_variance(terms.variance, left, cast(accounting.Cost, first.planned.charge))
            assert after is not None  # it was calibrated to fit
            left = after
    if numbers and refine_share:
        second = histogram("ranges", refine_share, numbers, numbers * LINEAR)
    return ColumnPlan(first, second)


def release_columns(
    opened: OpenTable,
    plan: ColumnPlan,
    *,
    charge: ChargeRelease,
    aggregator: MakeAggregator,
    saved: Released | None = None,
    keep: Callable[[Released, str, SumInfo], None] = lambda released, purpose, info: None,
) -> Released:
    """Release the open columns, one histogram after the other; nothing else about the records affects what is returned.

    Args:
      opened: the table.
      plan: from `plan_columns`, for this number of open columns.
      charge: puts a release on the ledger; its gate is asked before the sum is opened.
      aggregator: makes the encryption of a release.
      saved: what an earlier process released and saved; it is not released again.
      keep: called with the facts after each opened sum, its purpose and its cost; the place to write a checkpoint.

    Returns:
      The facts, for `data.open_table.encode_sites`.
    """
    sites, schema, released = len(opened.placement.site_names), opened.schema, saved

    def count(own: Histogram, binned: Binned) -> tuple[np.ndarray, float, SumInfo]:
        if binned.size != own.size:
            raise ValueError(
                f"the plan has a histogram of {own.size} bins, the table one of {binned.size}: plan with its open columns."
            )
        mechanism = own.planned.mechanism
        gate, stream = charge(own.purpose, 0, own.planned)
        counts, info = private_histogram(
            binned.bins,
            binned.site,
            binned.group,
            sites=sites,
            size=own.size,
            mechanism=mechanism,
            aggregator=aggregator(mechanism, own.size, own.purpose),
            stream=stream,
            gate=gate,
        )
        return counts, mechanism.variance(sites), info

    if released is None:
        released = Released({}, {}, {}, refined=False)
        if plan.first is not None:
            counts, variance, info = count(plan.first, first_bins(opened))
            released = released_from_counts(schema, counts, variance)
            keep(released, plan.first.purpose, info)
    if plan.second is not None and not released.refined:
        counts, variance, info = count(plan.second, refined_bins(opened, released))
        released = refine(schema, released, counts, variance)
        keep(released, plan.second.purpose, info)
    return released
