"""The ledger of a data set that several runs share: made by the first, refused to a run that does not fit into what is left."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_poisson import accounting
from fedjax_poisson.runs.budget_plan import BudgetPlan
from fedjax_poisson.runs.build import Prepared
from fedjax_poisson.runs.config import Config

__all__ = ["check_budget", "law_facts", "open_shared", "shared_standing"]

_SHARED_RESERVE = 0.05  # of delta, for the samplers of all runs that share a ledger


def law_facts(plan: BudgetPlan) -> dict[str, Any]:
    """What a ledger is opened with so that it accounts as the plan does."""
    return {"law": "tight"} if plan.law == "tight" else {"law": "renyi", "orders": plan.terms.orders}


def open_shared(prepared: Prepared) -> accounting.Ledger:
    """The ledger of the data set, made where there is none; refused where this run's plan does not fit into what is left."""
    config, plan = prepared.config, prepared.plan
    assert config.ledger is not None
    path = Path(config.ledger)
    if not path.exists() or accounting.never_made(path):
        if config.ledger_epsilon is None:
            raise ValueError(
                f"there is no ledger at {path} yet: say what all runs on this data set may spend together, --ledger-epsilon E (and --delta), and it is made."
            )
        ledger = _new_shared(path, prepared, config.ledger_epsilon)
    else:
        ledger = accounting.read_ledger(path, writable=True)
    try:
        ledger.verify()
        check_budget(ledger, prepared)
        if config.ledger_epsilon is not None and config.ledger_epsilon != ledger.budget_epsilon:
            raise ValueError(
                f"the ledger {path} was made for epsilon {ledger.budget_epsilon:g}; --ledger-epsilon {config.ledger_epsilon:g} cannot change it."
            )
        if not ledger.fits([], plan.distance):
            raise ValueError(
                f"the ledger {path} has set {ledger.reserve:.2g} of delta aside for what samplers and screening add, and this run's rounds do not fit into "
                "what is left of it: it would end midway. Plan fewer rounds, or keep a ledger with a smaller epsilon or a larger delta."
            )
        if not ledger.fits(plan.charges):
            left = ledger.remaining()
            raise ValueError(
                f"this run would spend more than is left on {path}: epsilon {ledger.epsilon():.3g} of {ledger.budget_epsilon:g} is spent, {left.share:.3g} of "
                f"the budget remain. Ask for a smaller --epsilon; about {_affordable(ledger, config):.2g} would fit."
            )
    except BaseException:
        ledger.close()
        raise
    return ledger


def shared_standing(prepared: Prepared) -> tuple[float, bool]:
    """Epsilon that is left on the shared ledger, and whether this run's releases fit there; of a ledger that is still to be made, as it would be.

    Raises:
      ValueError: the run shares no ledger.
      LedgerCorrupt: it is damaged.
    """
    config, plan = prepared.config, prepared.plan
    if config.ledger is None or config.ledger_epsilon is None:
        raise ValueError("the run charges a ledger of its own")
    path = Path(config.ledger)
    with contextlib.ExitStack() as stack:
        if path.exists() and not accounting.never_made(path):
            ledger = stack.enter_context(contextlib.closing(accounting.read_ledger(path)))
            ledger.verify()
        else:
            ledger = stack.enter_context(
                contextlib.closing(_new_shared(accounting.MEMORY, prepared, config.ledger_epsilon))
            )
        fits = ledger.fits(plan.charges) and ledger.fits([], plan.distance)
        return max(ledger.budget_epsilon - ledger.epsilon(), 0.0), fits


def _new_shared(path: str | Path, prepared: Prepared, epsilon: float) -> accounting.Ledger:
    config = prepared.config
    return accounting.open_ledger(
        path,
        epsilon=epsilon,
        delta=config.delta,
        reserve=_SHARED_RESERVE * config.delta,
        unit=prepared.unit,
        adjacency=config.adjacency,
        **law_facts(prepared.plan),
    )


def check_budget(ledger: accounting.Ledger, prepared: Prepared) -> None:
    """A ledger's facts must be those of the run's claims."""
    config, plan = prepared.config, prepared.plan
    wanted = {"unit": prepared.unit, "adjacency": config.adjacency, "delta": config.delta}
    if config.ledger is None:
        wanted["epsilon"] = config.epsilon
    found = {
        "unit": ledger.unit,
        "adjacency": ledger.adjacency,
        "delta": ledger.delta,
        "epsilon": ledger.budget_epsilon,
    }
    differ = [f"{name} {found[name]} (this run: {value})" for name, value in wanted.items() if found[name] != value]
    own = ledger.law
    if isinstance(own, accounting.TightLaw) != (plan.law == "tight"):
        differ.append(
            f"it accounts by {'remaining variance' if plan.law != 'tight' else 'Renyi curves'} (this run: {plan.law})"
        )
    elif isinstance(own, accounting.RenyiLaw) and not np.array_equal(own.orders, plan.terms.orders):
        differ.append("other Renyi orders")
    if differ:
        raise ValueError(f"the ledger {ledger.path} was made for other facts: {', '.join(differ)}.")


def _affordable(ledger: accounting.Ledger, config: Config) -> float:
    """About which epsilon of a run, a tenth at a time, what is left of a shared ledger allows."""
    share = ledger.remaining().share
    if isinstance(ledger.law, accounting.TightLaw):
        left = share * ledger.law.budget.total
        found = config.epsilon
        while found > 0.01 and accounting.variance_budget(found, config.delta).total > left:
            found *= 0.9
        return found
    return config.epsilon * min(share, 1.0) ** 0.5
