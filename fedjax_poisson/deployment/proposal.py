"""What a run would do at this site, worked out by the site itself from the run's terms and its own table: what its policy judges."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from fedjax_poisson.deployment.log_entries import Entry
from fedjax_poisson.deployment.policy import Policy, Proposal
from fedjax_poisson.deployment.roster import Roster
from fedjax_poisson.federated.algorithm import dimension_of
from fedjax_poisson.runs.algorithm_registry import algorithm_entry
from fedjax_poisson.runs.build import Prepared
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.named_models import model_for
from fedjax_poisson.runs.shared_ledger import shared_standing

__all__ = ["before_reading", "proposal_of", "sums_today"]


def proposal_of(prepared: Prepared, roster: Roster, *, approved: bool, opened_today: int) -> Proposal:
    """The facts of a run.

    Args:
      prepared: the run on this site's own records (`runs.build.prepare`).
      roster: the consortium.
      approved: whether a person at this site said yes to the terms.
      opened_today: sums opened at this site today.
    """
    config, plan, sites = prepared.config, prepared.plan, prepared.sites
    shape = (prepared.sizes.features,) if sites is None else sites.features.shape[1:]
    remaining, fits = shared_standing(prepared)
    if prepared.opened is not None:
        columns = tuple(column.name for column in prepared.opened.schema.columns)
        uncovered = tuple(fact for fact, _ in prepared.opened.uncovered)
    else:
        assert sites is not None
        columns = () if sites.encoder is None else tuple(column.name for column in sites.encoder.schema.columns)
        uncovered = tuple(fact for fact, _ in sites.uncovered)
    return Proposal(
        unit=prepared.unit,
        adjacency=config.adjacency,
        epsilon=plan.epsilon,
        delta=plan.delta,
        honest_senders=plan.honest_senders,
        minimum=roster.minimum,
        dimension=dimension_of(model_for(config, prepared.target, shape), shape),
        algorithm=config.algorithm,
        evaluation=config.evaluation,
        columns=columns,
        labels=_labels(config),
        rounds=len(plan.charges),
        rounds_today=opened_today,
        remaining=remaining,
        fits=fits,
        uncovered=uncovered,
        approved=approved,
    )


def before_reading(config: Config, roster: Roster, policy: Policy, *, approved: bool) -> Proposal:
    """The facts of a run that follow from its terms alone; all others are such that no policy refuses them.

    Whether a table can be read as the terms ask says something about its records, so what can be refused without it is refused first (`site.Worker`).
    """
    named = {
        column
        for each in (config.bounds, config.categorical, config.fill)
        if isinstance(each, Mapping)
        for column in each
    }
    labels = _labels(config)
    whole = algorithm_entry(config.algorithm).entry.unit == "client"
    unit = "client" if whole else "patient" if config.patient is not None else "record"
    return Proposal(
        unit=unit if config.csv is not None else policy.privacy.unit,
        adjacency=config.adjacency,
        epsilon=0.0,
        delta=0.0,
        honest_senders=len(roster.sites) - 1 if config.honest_senders is None else config.honest_senders,
        minimum=roster.minimum,
        dimension=1,
        algorithm=config.algorithm,
        evaluation=config.evaluation,
        columns=tuple(sorted(named - set(labels))),
        labels=labels,
        rounds=0,
        rounds_today=0,
        remaining=policy.privacy.epsilon,
        fits=True,
        approved=approved,
    )


def sums_today(entries: tuple[Entry, ...], now: datetime) -> int:
    """Rounds of the day of `now` (UTC) that the site's log names: its counts left in them, or it took their sum in.

    A sum that was opened and never shown to this site counts too, since its counts left for it.
    """
    day = now.astimezone(UTC).date().isoformat()
    kinds = ("contribution", "opened")
    return len({(e.facts["run"], e.facts["round"]) for e in entries if e.kind in kinds and e.time.startswith(day)})


def _labels(config: Config) -> tuple[str, ...]:
    names = config.label or ()
    return tuple(name.strip() for name in names.split(",")) if isinstance(names, str) else tuple(names)
