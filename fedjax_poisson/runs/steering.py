"""What steers a run: its controller, held to what the budget was planned for, and how a run that it stopped ends."""

from __future__ import annotations

from typing import Any

from fedjax_poisson import accounting
from fedjax_poisson.federated import control
from fedjax_poisson.federated.control import Controller, Plan, Steering
from fedjax_poisson.federated.controllers import registered
from fedjax_poisson.runs.budget_plan import BudgetPlan
from fedjax_poisson.runs.planned import Planned
from fedjax_poisson.runs.training_recipe import TrainingRecipe


def controller_for(recipe: TrainingRecipe, plan: BudgetPlan, records: float) -> Controller:
    """The controller of a run.

    Args:
      recipe: names it.
      plan: the most rounds, and the most that each may cost.
      records: training units, released or public.
    """
    return registered(recipe.controller).make(Plan(plan.rounds, plan.portions, records))


def steering_of(recipe: TrainingRecipe, plan: BudgetPlan, dimension: int) -> Steering:
    """The controller as far as it is known before the number of units: what it begins with, and whether it adapts."""
    return control.checked(controller_for(recipe, plan, 1.0), dimension, plan.train.mechanism)


def release_of(plan: BudgetPlan, number: int, portions: int) -> Planned:
    """The training sum of round 1, 2, ... as the controller decided it.

    Raises:
      ValueError: it would cost more than was planned for this round.
    """
    most = 1 if plan.portions is None else plan.portions[number - 1]
    if portions > most:
        raise ValueError(
            f"the controller decided for {portions} portions of the noise in round {number}, where at most {most} were planned: nothing was released. What a "
            "run states for itself rests on its plan; let the controller's entry in the registry announce the most that it may use."
        )
    return plan.train.used(portions)


def ending(
    controller: Controller, stop: bool, rounds: int, planned: int, left: accounting.Remaining
) -> dict[str, Any] | None:
    """How a run ended that its controller stopped, for the summary; None for any other end.

    Args:
      controller: of the run.
      stop: whether it stopped.
      rounds: done.
      planned: at most.
      left: of the ledger.
    """
    if not stop or rounds >= planned:
        return None
    return {"controller": controller.name, "how": controller.stopped, "share_left": left.share}
