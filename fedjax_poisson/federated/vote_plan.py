"""Planning a validation vote: what it costs, how often it rolls back an honest candidate, and how likely it is to see a loss of accuracy.

A vote is one number. Each sender embeds, for the records that it holds back, how many the candidate model decides rightly and the current model wrongly,
minus the reverse. At record level a record weighs at most 1 (zero-out), and a site's sum is cut at `cut` times its records; at client level the unit is
the client, which sends the mean over its records, in [-1, 1]. The opened sum is that total plus noise of standard deviation z_v, which is public.

The candidate is rolled back where the sum falls below minus the normal quantile of the false-alarm rate times the spread

    sqrt(z_v^2 + c N)          N records in all, of which a share c changes sides (record level)
    sqrt(z_v^2 + c n / m)      n clients of m records each (client level)

*proved*: the price (the embedding's curve: `accounting.renyi`, `accounting.tight`). *checked numerically*: the normal tail against the exact Skellam tail of
the noise (`exact_noise_tail`; tests). *assumed*: that a candidate no better and no worse moves a share c of the records at random, half of them
either way; the false-alarm rate and the power are those of this law.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from scipy import special

from fedjax_poisson import accounting
from fedjax_poisson.mechanisms import Mechanism, poisson_embedding
from fedjax_poisson.mechanisms.types import check_honest


@dataclasses.dataclass(frozen=True, kw_only=True)
class VotePlan:
    """The public numbers of a vote.

    Attributes:
      senders: n, sites or clients that vote.
      records: m, held-back records of a sender, of the largest where they differ; declared, not measured.
      noise: z_v, standard deviation of the noise on the opened sum, in records (or clients).
      unit: "record" or "client".
      cut: bound on a site's mean, in (0, 1]: a site that keeps to the software moves the mean over the sites by at most cut / n. At client level 1.
      false_alarms: probability that a candidate which is no worse is rolled back.
      changing: c, assumed share of records whose decision changes between two models of equal accuracy.
      modulation: r of the embedding.
      fewest_records: held-back records of the smallest client, at client level: its mean varies most. None where all hold back `records`.
    """

    senders: int
    records: int
    noise: float
    unit: Literal["record", "client"] = "record"
    cut: float = 0.1
    false_alarms: float = 0.05
    changing: float = 0.12
    modulation: float = 0.05
    fewest_records: int | None = None

    def __post_init__(self) -> None:
        if self.unit not in ("record", "client"):
            raise ValueError(f"unit={self.unit!r}: a vote protects a 'record' or a 'client'.")
        if self.senders < 2 or self.records < 1:
            raise ValueError(
                f"senders={self.senders}, records={self.records}: at least two senders with at least one record."
            )
        if self.fewest_records is not None and not 1 <= self.fewest_records <= self.records:
            raise ValueError(f"fewest_records={self.fewest_records} must be between 1 and records={self.records}.")
        if not (math.isfinite(self.noise) and self.noise > 0):
            raise ValueError(
                f"noise={self.noise} must be a positive finite number: without noise a vote shows single records."
            )
        if not 0 < self.cut <= 1:
            raise ValueError(f"cut={self.cut} must be in (0, 1].")
        if not 0 < self.false_alarms < 0.5:
            raise ValueError(f"false_alarms={self.false_alarms} must be in (0, 0.5).")
        if not 0 <= self.changing <= 1:
            raise ValueError(f"changing={self.changing} is a share of records, 0 to 1.")

    @property
    def fewest(self) -> int:
        """Records of the smallest sender."""
        return self.records if self.fewest_records is None else self.fewest_records

    @property
    def largest(self) -> float:
        """A, the most that one sender's software sends: cut * records, at least one record; 1 at client level."""
        return 1.0 if self.unit == "client" else max(1.0, self.cut * self.records)

    @property
    def weight(self) -> float:
        """What the sum loses where accuracy falls by 1: all records, or all clients."""
        return float(self.senders * (self.records if self.unit == "record" else 1))


def vote_mechanism(plan: VotePlan) -> Mechanism:
    """The embedding whose sum over all senders has the plan's noise: mu = n A^2 / (2 r^2 z_v^2) (`Mechanism.variance` of `poisson_embedding`)."""
    dark = plan.senders * plan.largest**2 / (2 * plan.modulation**2 * plan.noise**2)
    return poisson_embedding(
        clip_norm=1.0,
        coordinate_bound=1.0,
        dark_count=dark,
        modulation=plan.modulation,
        total_bound=plan.largest,
    )


def vote_spread(plan: VotePlan) -> float:
    """Standard deviation of the opened sum where the candidate is no better and no worse (module docstring)."""
    if plan.unit == "record":
        return math.sqrt(plan.noise**2 + plan.changing * plan.weight)
    return math.sqrt(plan.noise**2 + plan.changing * plan.senders / plan.fewest)


def vote_threshold(plan: VotePlan) -> float:
    """The sum below which the candidate is rolled back, negative; from public numbers alone."""
    return float(special.ndtri(plan.false_alarms)) * vote_spread(plan)


def vote_power(plan: VotePlan, loss: float) -> float:
    """Probability that a candidate is rolled back whose accuracy is lower by `loss` (0.05: five points), before any site's mean is cut.

    A loss near or above `cut` is seen less often than this says, as it is cut at every site.

    Raises:
      ValueError: the loss is not a share of records.
    """
    if not 0 <= loss <= 1:
        raise ValueError(f"loss={loss} is a share of records, 0 to 1: five points are 0.05.")
    return float(special.ndtr(loss * plan.weight / vote_spread(plan) + special.ndtri(plan.false_alarms)))


def vote_epsilon(plan: VotePlan, *, delta: float = 1e-5, honest_senders: int | None = None, votes: int = 1) -> float:
    """Epsilon of some votes alone, in nats, under zero-out (proved: `accounting.tight`).

    Args:
      plan: the vote.
      delta: in (0, 1).
      honest_senders: senders whose noise counts; None for all but one.
      votes: how many.
    """
    honest = plan.senders - 1 if honest_senders is None else honest_senders
    check_honest(honest, plan.senders)
    return accounting.tight_epsilon(
        delta=delta,
        rounds=votes,
        dark_count=plan.senders * plan.largest**2 / (2 * plan.modulation**2 * plan.noise**2),
        modulation=plan.modulation,
        honest_senders=honest,
        norm_ratio=1.0,
        dimension=1,
        step_ratio=1.0 / plan.largest,
    )


def exact_noise_tail(plan: VotePlan, below: float) -> float:
    """Exact probability that the noise of a vote without any signal lies at or below a number (a Skellam tail), to hold against the normal one.

    The estimate is A / (2 mu r) times a difference of two Poisson counts of mean n mu each.
    """
    from scipy import stats

    dark = plan.senders * plan.largest**2 / (2 * plan.modulation**2 * plan.noise**2)
    one = plan.largest / (2 * dark * plan.modulation)
    return float(stats.skellam.cdf(math.floor(below / one), plan.senders * dark, plan.senders * dark))


def planned(plan: VotePlan, *, delta: float = 1e-5, losses: tuple[float, ...] = (0.02, 0.05, 0.1)) -> str:
    """One line: who votes, what it costs, what it sees."""
    seen = ", ".join(f"{100 * loss:g} points {vote_power(plan, loss):.2f}" for loss in losses)
    return (
        f"vote of {plan.senders} senders with up to {plan.records} records each, noise {plan.noise:g} {plan.unit}s: epsilon "
        f"{vote_epsilon(plan, delta=delta):.2f} alone at delta {delta:g} (proved; one sender may collude); rolls back an honest candidate with "
        f"probability {plan.false_alarms:g}, a loss of {seen} (assumed: {100 * plan.changing:g} % of records change sides at random; "
        "normal tail checked numerically)."
    )
