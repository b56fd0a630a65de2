"""The attacked training, to the extent that an attacker must repeat or read it."""

from __future__ import annotations

import dataclasses
from typing import Literal

from fedjax_poisson.federated.server import AverageFrom, ServerOptimizer
from fedjax_poisson.mechanisms.types import Mechanism
from fedjax_poisson.models import Model


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackedTraining:
    """The recipe of a `fedsgd` training; every field as there.

    Attributes:
      model: the trained model.
      mechanism: the mechanism of a round's release.
      portions: of the mechanism, that each round uses; None for all of it.
      rounds: T.
      records: number of training units that scales the step.
      server_optimizer: fed with the estimated mean gradient.
      sampling_rate: q, each unit's probability of being in a round.
      unit: "record" or "patient".
      average_from: as in `server.server_step`.
    """

    model: Model
    mechanism: Mechanism
    rounds: int
    records: float
    server_optimizer: ServerOptimizer
    sampling_rate: float = 1.0
    unit: Literal["record", "patient"] = "record"
    average_from: AverageFrom = None
    portions: tuple[int, ...] | None = None
