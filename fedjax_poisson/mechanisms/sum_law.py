"""Mechanisms whose sum over n senders can be drawn at once, for simulations that show nobody a single sender's counts.

That is a property of the noise: a sender's must be one of n equal, independent parts of a law that the samplers know (Poisson and Skellam numbers add:
`randomness.sum_tables` has the argument and the distance). The draw has the law of the sum of n senders' counts; that no sender's own counts exist is said by
whoever uses it (`federated.fidelity`). In a deployment it has no place: whoever drew it would know the sum without its noise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Literal, NamedTuple

from jax import Array

from fedjax_poisson.randomness import Stream
from fedjax_poisson.randomness.sum_tables import MODULATION_BELOW, SumTables, sum_tables

_ATTENDANCES = 16  # of which a mechanism keeps the tables: putting together cached ones takes longer than some rounds

NO_SUM_LAW = "it states no law of a sum that could be drawn at once"
"""Why a mechanism has none, unless it says more."""


class SumLaw(NamedTuple):
    """How the sum of n senders' counts is drawn at once.

    Attributes:
      tables: `(senders, most) -> SumTables`: of the sum of so many senders, of most that might be (`sum_tables`); made at first use.
      contribute: `(stream, int32[D]) -> int32[D]`: what a sender does to its clipped grid before noise is added, with numbers as `Mechanism.embed` has them;
        None where that is nothing.
      clip: the `Mechanism.clip` whose grids are summed (`make_mechanism`): |value| <= 2^20, which nothing checks again. A mechanism that was given another one
        has no law of a sum.
      embed: the `Mechanism.embed` whose sums these are; likewise.
    """

    tables: Callable[[int, int], SumTables]
    contribute: Callable[[Stream, Array], Array] | None = None
    clip: Callable[[Array], Array] | None = None
    embed: Callable[[Stream, Array], Array] | None = None


def modulated_sum(
    channels: Literal["both", "one"], *, dark_count: float, modulation: float, draws: int
) -> SumLaw | str:
    """Of counts whose rates carry the grid, one unit a sender; or why it cannot be drawn at once.

    Args:
      channels: of the counts.
      dark_count: mu of one sender.
      modulation: r.
      draws: that one sender's count is the sum of.
    """
    exact = Fraction(float(modulation))
    if exact >= MODULATION_BELOW:
        return f"its modulation of {modulation:g} is 1/2 or more, and the rate of a sum's floor could be negative: lower it"

    @functools.lru_cache(maxsize=_ATTENDANCES)
    def tables(senders: int, most: int) -> SumTables:
        return sum_tables(
            channels, rate=Fraction(float(dark_count)), modulation=exact, senders=senders, most=most, draws=draws
        )

    return SumLaw(tables)


def added_noise(rate: float, contribute: Callable[[Stream, Array], Array]) -> SumLaw:
    """Of integers with Skellam noise of this rate, one sender's, added to what it contributes."""

    @functools.lru_cache(maxsize=_ATTENDANCES)
    def tables(senders: int, most: int) -> SumTables:
        return sum_tables("noise", rate=Fraction(float(rate)), modulation=Fraction(0), senders=senders, most=most)

    return SumLaw(tables, contribute)
