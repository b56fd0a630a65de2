"""What a run would do at this site, worked out by the site itself from the run's terms and its own table: what its policy judges."""

from __future__ import annotations

from datetime import UTC, datetime

from fedjax_poisson.deployment.log_entries import Entry
from fedjax_poisson.deployment.policy import Proposal
from fedjax_poisson.deployment.roster import Roster
from fedjax_poisson.federated.algorithm import dimension_of
from fedjax_poisson.runs.build import Prepared
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.named_models import model_for
from fedjax_poisson.runs.shared_ledger import shared_standing

__all__ = ["proposal_of", "sums_today"]


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


def sums_today(entries: tuple[Entry, ...], now: datetime) -> int:
    """Sums that the site's log says were opened on the day of `now` (UTC)."""
    day = now.astimezone(UTC).date().isoformat()
    return sum(entry.kind == "opened" and entry.time.startswith(day) for entry in entries)


def _labels(config: Config) -> tuple[str, ...]:
    names = config.label or ()
    return tuple(name.strip() for name in names.split(",")) if isinstance(names, str) else tuple(names)
