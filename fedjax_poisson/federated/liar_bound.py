"""By how much one lying sender may move a sum, in clips: what each kind of round enforces, and what only honest software keeps to.

Three bounds, from the weakest. *Light rounds* look at no single message: an opened sum is refused only where a coordinate passes the announced bound on
counts (or the whole sum its announced root mean square), so one liar may use all the room up to there. *Norm rounds* prove that every client's
vector is short: what passes half the time is 2.6 clips for one client, c times that for c colluders. *Record level*: a site's honest software sends at most
its number of records times the clip of one; nothing proves that a lying site does, but sizes that are declared once and pinned in the terms at least
say what an honest site of that size may weigh, and let each site's software cut at its own size in place of the largest.

*proved*: the light bound follows from the check of the opened sum, coordinate by coordinate. *proved for the software*: the cut of a site's sum
(`Mechanism.embed` clamps). The number of clips of norm rounds is the caller's (`aggregation` has its proof).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp

from fedjax_poisson.mechanisms.types import Mechanism

NORM_CLIPS = 2.6  # what passes half the time with five members; 2.56 with one, 2.8 with twenty (`aggregation.norm_bound`; a test recomputes them)
"""Clips of one client that pass a norm round half the time (the protocol's sketch with 16 functionals)."""


class LiarBound(NamedTuple):
    """How far liars may move a sum.

    Attributes:
      clips: L2 length of the shift, in clips of one unit.
      share: that over the largest honest total, all senders at their clip.
      coordinate: the shift of one coordinate, in the update's unit; infinite where only the length is bounded.
      enforced: what enforces it.
    """

    clips: float
    share: float
    coordinate: float
    enforced: str


def light_round(
    mechanism: Mechanism,
    senders: int,
    dimension: int,
    *,
    count_bound: int | None = None,
    count_rms: float | None = None,
) -> LiarBound:
    """One liar in a light round of clients: the sum may reach the bound on counts in every coordinate.

    Args:
      mechanism: client level.
      senders: in the sum, the liar included.
      dimension: D.
      count_bound: the aggregator's; None for `mechanism.count_bound(senders, dimension)`.
      count_rms: the aggregator's, if it checks one: the length of the sum is then at most sqrt(D) times this.

    Raises:
      ValueError: the mechanism has no one clip norm, or a number is out of range.
    """
    clip = mechanism.bounds.clip_norm
    if clip is None:
        raise ValueError(f"{mechanism.facts.name} has no one clip norm, so a shift cannot be stated in clips.")
    if senders < 2 or dimension < 1:
        raise ValueError(
            f"senders={senders}, dimension={dimension}: a sum has at least two senders and one coordinate."
        )
    counts = mechanism.count_bound(senders, dimension) if count_bound is None else count_bound
    zero = jnp.zeros(dimension, jnp.int32)
    one = float(jnp.max(jnp.abs(mechanism.estimate(zero + 1, senders) - mechanism.estimate(zero, senders))))
    length = math.sqrt(dimension) * one * (counts if count_rms is None else min(counts, count_rms))
    enforced = "the opening's bound on counts" + ("" if count_rms is None else " and on their root mean square")
    return LiarBound(
        length / clip, length / (senders * clip), counts * one, enforced + " (light round; proved of the opened sum)"
    )


def norm_round(senders: int, *, clips: float = NORM_CLIPS, colluders: int = 1) -> LiarBound:
    """Colluders in a norm round: each passes with so many clips half the time.

    Raises:
      ValueError: a number is out of range.
    """
    if not (clips > 0 and 1 <= colluders < senders):
        raise ValueError(f"clips={clips}, colluders={colluders}, senders={senders}: give 1 to senders - 1 colluders.")
    return LiarBound(
        colluders * clips,
        colluders * clips / senders,
        math.inf,
        "a proof of every client's norm (norm round; what passes half the time)",
    )


def site_of_records(mechanism: Mechanism, sizes: Sequence[int], site: int, *, pinned: bool = True) -> LiarBound:
    """One site whose software is honest and whose records are not (record level): it sends at most its size in clips of a record.

    Args:
      mechanism: record level.
      sizes: declared records of every site, public facts.
      site: which one lies.
      pinned: whether each site's cut is its own declared size; else every site is cut at the largest.

    Raises:
      ValueError: there is no such site, a size is below 1, or the mechanism has no one clip norm.
    """
    if not 0 <= site < len(sizes) or len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(
            f"site={site} of {len(sizes)} sites with sizes {list(sizes)}: at least two, each of 1 or more."
        )
    if mechanism.bounds.clip_norm is None or mechanism.bounds.coordinate_bound is None:
        raise ValueError(f"{mechanism.facts.name} has no one clip, so a shift cannot be stated in clips of a record.")
    weight = float(sizes[site] if pinned else max(sizes))
    how = "its own declared size" if pinned else "the size of the largest site"
    return LiarBound(
        weight,
        weight / float(sum(sizes)),
        weight * mechanism.bounds.coordinate_bound,
        f"honest software, which cuts at {how}; a site with other software is bounded by the light round alone",
    )


def in_words(bound: LiarBound, who: str) -> str:
    """One line for a summary, such as `in_words(light_round(...), "one client of 100")`."""
    return f"{who} can move the sum by up to {bound.clips:.3g} clips, {100 * bound.share:.3g} % of the largest honest total; enforced by {bound.enforced}."
