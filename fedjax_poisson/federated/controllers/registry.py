"""Controllers by name, for `fedjax-poisson run --controller NAME`: one file and one line here, or `module:name` of a `Registered` of one's own.

From Python a controller is passed as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from fedjax_poisson.extensions import find, is_path
from fedjax_poisson.federated.control import Controller, Plan
from fedjax_poisson.federated.controllers.risk import risk_of
from fedjax_poisson.federated.controllers.schedule import schedule_of
from fedjax_poisson.federated.controllers.settle import settle_of
from fedjax_poisson.federated.noise_schedule import tail_average_portions
from fedjax_poisson.mechanisms.dark_counts import NOISE_PORTIONS


class Registered(NamedTuple):
    """A controller with a name.

    Attributes:
      about: one line for users.
      make: the controller of a run.
      portions: `(rounds, average_from)` to the most portions of `NOISE_PORTIONS` that each round may use: what the budget is planned for. None
        for all of the noise, in one piece.
      growing: whether parameters are averaged over the last half of the rounds that were done, since nobody knows the last one beforehand; else over the rounds
        that `average_share` names.
    """

    about: str
    make: Callable[[Plan], Controller]
    portions: Callable[[int, int | None], tuple[int, ...] | None] = lambda rounds, average_from: None
    growing: bool = False


def _tail(rounds: int, average_from: int | None) -> tuple[int, ...] | None:
    return None if average_from is None else tail_average_portions(rounds, average_from)


def _all_portions(rounds: int, average_from: int | None) -> tuple[int, ...]:
    del average_from
    return (NOISE_PORTIONS,) * rounds


CONTROLLERS: Mapping[str, Registered] = MappingProxyType(
    {
        "schedule": Registered(
            "less noise in rounds that weigh more in the averaged parameters, fixed beforehand", schedule_of, _tail
        ),
        "constant": Registered("the same noise in every round", schedule_of),
        "settle": Registered(
            "stops when half of the rounds gained no more than fitting noise would", settle_of, growing=True
        ),
        "risk": Registered(
            "cheaper rounds where the opened sums show no signal, and a stop", risk_of, _all_portions, growing=True
        ),
    }
)
"""The controllers that `run --controller NAME` knows."""


def registered(name: str) -> Registered:
    """The entry of a name, or of `module:name` of one's own: what a run states for itself holds whatever a controller does (`control`).

    Raises:
      ValueError: there is none; the message lists the known ones.
    """
    if not is_path(name) and name not in CONTROLLERS:
        known = "; ".join(f"{each} ({found.about})" for each, found in CONTROLLERS.items())
        raise ValueError(f"no controller is called {name!r}; there are: {known}; or module:name of a `Registered`.")
    return find(name, CONTROLLERS, "controller", Registered).entry
