"""Controllers by name, for `fedjax-poisson run --controller NAME`: one file and one line here. From Python a controller is passed as it is."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from fedjax_poisson.federated.control import Controller
from fedjax_poisson.federated.noise_schedule import tail_average_portions
from fedjax_poisson.mechanisms.dark_counts import NOISE_PORTIONS


class Plan(NamedTuple):
    """What a run knows when it makes its controller; public or released.

    Attributes:
      rounds: T, the most rounds.
      portions: the most portions of the noise that each round uses, which the budget was planned for; None for all of it in one piece.
      records: units that the mean gradient is taken over.
    """

    rounds: int
    portions: tuple[int, ...] | None
    records: float


class Registered(NamedTuple):
    """A controller with a name.

    Attributes:
      about: one line for users.
      module: where `of_plan(plan) -> Controller` is.
      portions: `(rounds, average_from)` to the most portions of `NOISE_PORTIONS` that each round may use: what the budget is planned for. None
        for all of the noise, in one piece.
      growing: whether parameters are averaged over the last half of the rounds that were done, since nobody knows the last one beforehand; else over the rounds
        that `average_share` names.
    """

    about: str
    module: str
    portions: Callable[[int, int | None], tuple[int, ...] | None] = lambda rounds, average_from: None
    growing: bool = False


def _tail(rounds: int, average_from: int | None) -> tuple[int, ...] | None:
    return None if average_from is None else tail_average_portions(rounds, average_from)


CONTROLLERS: Mapping[str, Registered] = MappingProxyType(
    {
        "schedule": Registered(
            "less noise in rounds that weigh more in the averaged parameters, fixed beforehand", "schedule", _tail
        ),
        "constant": Registered("the same noise in every round", "schedule"),
        "settle": Registered(
            "stops when half of the rounds gained less than fitting noise would", "settle", growing=True
        ),
        "risk": Registered(
            "cheaper rounds where the opened sums show no signal, and a stop",
            "risk",
            lambda rounds, average_from: (NOISE_PORTIONS,) * rounds,
            growing=True,
        ),
    }
)


def registered(name: str) -> Registered:
    """The entry of a name.

    Raises:
      ValueError: there is none; the message lists the known ones.
    """
    if name not in CONTROLLERS:
        known = "; ".join(f"{each} ({found.about})" for each, found in CONTROLLERS.items())
        raise ValueError(f"no controller is called {name!r}; there are: {known}.")
    return CONTROLLERS[name]


def controller_of(name: str, plan: Plan) -> Controller:
    """The controller of a run.

    Raises:
      ValueError: the name is unknown.
    """
    made: Controller = importlib.import_module(f"{__package__}.{registered(name).module}").of_plan(plan)
    return made
