"""Controllers: what decides the noise of the next round and when to stop (`federated.control` is the seam, `registry` lists those that have a name)."""

from fedjax_poisson.federated.control import Control, Controller, Decision, Plan, Released, Start, decision
from fedjax_poisson.federated.controllers.registry import CONTROLLERS, Registered, registered
from fedjax_poisson.federated.controllers.risk import risk
from fedjax_poisson.federated.controllers.schedule import constant, schedule
from fedjax_poisson.federated.controllers.settle import settle

__all__ = [
    "CONTROLLERS",
    "Control",
    "Controller",
    "Decision",
    "Plan",
    "Registered",
    "Released",
    "Start",
    "constant",
    "decision",
    "registered",
    "risk",
    "schedule",
    "settle",
]
