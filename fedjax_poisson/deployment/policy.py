"""What a site allows: one TOML file of its own, and the reasons why a run, or a round of it, is refused.

The site judges facts that it has worked out itself from the terms (`Proposal`), never numbers that the server states. Every reason begins with the policy's
own key, so that a log can name it without the words.
"""

from __future__ import annotations

import dataclasses
import re
from datetime import datetime, time
from typing import Literal, NamedTuple

__all__ = [
    "ALL",
    "ApprovalPolicy",
    "ConsortiumPolicy",
    "DataPolicy",
    "LimitPolicy",
    "Policy",
    "PrivacyPolicy",
    "Proposal",
    "key_of",
    "refusals",
    "span",
]

ALL = "all"
"""Instead of a list of columns or labels: every one."""
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsortiumPolicy:
    """With whom.

    Attributes:
      roster: path of the signed roster.
      name: this site's name on it.
    """

    roster: str
    name: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataPolicy:
    """On what.

    Attributes:
      csv: path of the site's table; empty for none.
      images: file or folder of images, for runs on them; empty for none.
      labels: columns that may be learned, or "all".
      columns: columns that a run may use beside the label, or "all".
    """

    labels: str | list[str]
    columns: str | list[str]
    csv: str = ""
    images: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrivacyPolicy:
    """At which price, of all runs on this data set together: they share one ledger, `ledger.sqlite` in the site's folder.

    Attributes:
      unit: who is protected. A run must protect just this unit: under zero_out the account of patients is not one of records, since a patient without one of
        its records may be as far away as another patient.
      epsilon: in all.
      delta: in all.
      adjacency: "zero_out" or "replace_one".
      least_honest_others: how many OTHER sites are honest, at least, as this site believes: a run whose account counts on more of them is refused.
      minimum_senders: fewest sites in a sum that is opened.
    """

    unit: Literal["record", "patient", "client"]
    epsilon: float
    delta: float
    least_honest_others: int
    minimum_senders: int
    adjacency: Literal["zero_out", "replace_one"] = "zero_out"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LimitPolicy:
    """How much.

    Attributes:
      largest_model: parameters.
      algorithms: by name; one of another package (`module:name`) must stand here to be loaded.
      evaluation: of "private" and "none".
      hours: "07:00-19:00" in the machine's own time, past midnight if the end is earlier; empty for any.
      rounds_per_day: sums that are opened on one day, of all runs.
      lost_rounds: releases of one run that are paid for a second time because their round was not opened; each costs what the plan has for it.
    """

    largest_model: int = 100_000_000
    algorithms: list[str] = dataclasses.field(default_factory=lambda: ["fedsgd"])
    evaluation: list[str] = dataclasses.field(default_factory=lambda: ["private", "none"])
    hours: str = ""
    rounds_per_day: int = 10_000
    lost_rounds: int = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class ApprovalPolicy:
    """Who says yes to a run: a person at this site (`fedjax-poisson site approve`), or this file alone.

    Attributes:
      mode: "by hand" or "automatic".
    """

    mode: Literal["by hand", "automatic"] = "by hand"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """A site's policy: the tables of its file."""

    consortium: ConsortiumPolicy
    data: DataPolicy
    privacy: PrivacyPolicy
    limits: LimitPolicy
    approval: ApprovalPolicy


class Proposal(NamedTuple):
    """What a run would do, as this site has worked it out from the terms and its own data.

    Attributes:
      unit: that the account is about: "record", "patient" or "client" (the site as a whole).
      adjacency: of the account.
      epsilon: of all that the run plans to release.
      delta: of the account.
      honest_senders: sites whose noise the account counts on, this one among them.
      minimum: fewest sites in a sum that is opened.
      dimension: parameters of the model.
      algorithm: its name.
      evaluation: "private", "none" or "clear".
      columns: of the table that the run uses, without labels; none for images.
      labels: columns that it learns.
      rounds: sums that it opens.
      rounds_today: sums that were opened at this site today already.
      remaining: epsilon that is left on this site's ledger.
      fits: whether the ledger allows all releases of the run.
      uncovered: facts about this site's records that the run would show and no ledger has, in words without values.
      approved: whether a person at this site has approved these terms.
    """

    unit: str
    adjacency: str
    epsilon: float
    delta: float
    honest_senders: int
    minimum: int
    dimension: int
    algorithm: str
    evaluation: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    rounds: int
    rounds_today: int
    remaining: float
    fits: bool
    uncovered: tuple[str, ...] = ()
    approved: bool = False


def refusals(policy: Policy, proposal: Proposal, now: datetime) -> tuple[str, ...]:
    """Every reason against a run, or against its next round; none: it is allowed.

    Args:
      policy: of the site.
      proposal: what it worked out.
      now: of the machine's own clock; clocks play no part in privacy, only in `hours`.

    Returns:
      Reasons, each "table.key = value: what is asked".
    """
    data, privacy, limits = policy.data, policy.privacy, policy.limits
    found: list[str] = []

    def refuse(when: bool, key: str, asked: str) -> None:
        if when:
            table, _, name = key.partition(".")
            found.append(f"{key} = {getattr(getattr(policy, table), name)!r}: {asked}")

    strange = _outside(proposal.labels, data.labels)
    refuse(bool(strange), "data.labels", f"the run would learn {', '.join(map(repr, strange))}")
    strange = _outside(proposal.columns, data.columns)
    refuse(bool(strange), "data.columns", f"the run would use {', '.join(map(repr, strange))}")
    refuse(proposal.unit != privacy.unit, "privacy.unit", f"the run's account is about a {proposal.unit}")
    refuse(
        proposal.adjacency != privacy.adjacency, "privacy.adjacency", f"the run's account is for {proposal.adjacency}"
    )
    # written so that a NaN is refused
    refuse(not proposal.epsilon <= privacy.epsilon, "privacy.epsilon", f"the run would spend {proposal.epsilon:.6g}")
    refuse(not proposal.delta <= privacy.delta, "privacy.delta", f"the run's account has delta {proposal.delta:.6g}")
    refuse(
        not proposal.fits,
        "privacy.epsilon",
        f"the run would spend {proposal.epsilon:.6g}, of which this site's ledger has {proposal.remaining:.6g} left",
    )
    refuse(
        proposal.honest_senders - 1 > privacy.least_honest_others,
        "privacy.least_honest_others",
        f"the run's account counts on {proposal.honest_senders - 1} honest sites beside this one",
    )
    refuse(
        proposal.minimum < privacy.minimum_senders,
        "privacy.minimum_senders",
        f"the run opens sums of {proposal.minimum} sites",
    )
    refuse(
        proposal.dimension > limits.largest_model,
        "limits.largest_model",
        f"the run's model has {proposal.dimension} parameters",
    )
    refuse(proposal.algorithm not in limits.algorithms, "limits.algorithms", f"the run takes {proposal.algorithm!r}")
    refuse(proposal.evaluation not in limits.evaluation, "limits.evaluation", f"the run's is {proposal.evaluation!r}")
    refuse(not _open_at(limits.hours, now.time()), "limits.hours", f"it is {now:%H:%M}")
    refuse(
        proposal.rounds_today + proposal.rounds > limits.rounds_per_day,
        "limits.rounds_per_day",
        f"{proposal.rounds_today} sums were opened today, and the run would open {proposal.rounds} more",
    )
    refuse(
        policy.approval.mode == "by hand" and not proposal.approved,
        "approval.mode",
        "nobody at this site has approved these terms (fedjax-poisson site approve)",
    )
    if proposal.uncovered:
        found.append(f"data.uncovered = none: the run would show {'; '.join(proposal.uncovered)}")
    return tuple(found)


def key_of(reason: str) -> str:
    """The policy's key at the head of a reason, which a log may hold: it has no value of anybody."""
    return reason.partition(" = ")[0]


def _outside(asked: tuple[str, ...], allowed: str | list[str]) -> list[str]:
    return [] if allowed == ALL else [name for name in asked if name not in allowed]


def _open_at(hours: str, now: time) -> bool:
    if not hours:
        return True
    start, end = span(hours)
    return start <= now < end if start < end else now >= start or now < end


def span(hours: str) -> tuple[time, time]:
    """Start and end of "07:00-19:00".

    Raises:
      ValueError: it is not of this form, or no time at all.
    """
    parts = _HOURS.fullmatch(hours)
    if parts is None:
        raise ValueError('it must be like "07:00-19:00", or empty for any time')
    a, b, c, d = (int(part) for part in parts.groups())
    if (a, b) == (c, d):
        raise ValueError("it begins and ends at the same minute; leave it empty for any time")
    return time(a, b), time(c, d)
