"""What a run needs to know about an algorithm, in one record; `algorithm_registry` has those that there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from fedjax_poisson.accounting import Participation
from fedjax_poisson.aggregation import Aggregator
from fedjax_poisson.data import Sites
from fedjax_poisson.data.placement import Placement
from fedjax_poisson.federated import Algorithm, Records
from fedjax_poisson.federated.control import Controller
from fedjax_poisson.federated.server import AverageFrom, ServerOptimizer
from fedjax_poisson.mechanisms import Mechanism
from fedjax_poisson.models import Model
from fedjax_poisson.randomness import Stream
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.training_recipe import PublicSizes, TrainingRecipe, recipe_of


class Parts(NamedTuple):
    """What an algorithm of a run is made of.

    Attributes:
      config: the settings, those that only this algorithm reads among them.
      recipe: the settings of the training, none of them left open.
      model: the part of the model that is trained.
      cohort: training records `[S, n]`, standardised, as that part sees them.
      records: number of training units of all sites, released or public; it may only scale a step.
      mechanism: of the training sums, calibrated for the recipe's rounds; None for the same training without privacy.
      controller: decides the noise of each round and when to stop; None for all of the noise in every round.
      aggregator: how the sums are encrypted; None where nothing is encrypted because nothing is private.
      server_optimizer: the recipe's.
      participation: all sites, in every round.
      unit: "record", "patient" or "client".
      largest_unit: records of the largest privacy unit (1 where a record is one).
      average_from: round after which parameters are averaged; None for no averaging.
    """

    config: Config
    recipe: TrainingRecipe
    model: Model
    cohort: Records
    records: float
    mechanism: Mechanism | None
    controller: Controller | None
    aggregator: Aggregator | None
    server_optimizer: ServerOptimizer
    participation: Participation
    unit: Literal["record", "patient", "client"]
    largest_unit: int
    average_from: AverageFrom


class Training(NamedTuple):
    """An algorithm and its data.

    Attributes:
      algorithm: whose state has `round` (rounds done, int32 `[]`), and whose info has `sum` (`federated.SumInfo`). Rounds are paid through the gate that
        `apply` is given; it is asked once for each round, before the sum is opened.
      cohort: `(number) -> cohort`, what `algorithm.apply` takes in round 1, 2, ...
    """

    algorithm: Algorithm
    cohort: Callable[[int], Any]


def _nothing_to_check(config: Config, data: Placement | Sites) -> None:
    del config, data


class AlgorithmEntry(NamedTuple):
    """An algorithm by name.

    Attributes:
      make: from its parts.
      unit: "record" where the data's own unit is protected (a record, or a patient where patients are known) and a site sums contributions of many units;
        "client" where a whole site is.
      recipe: the settings of the training that the user left open.
      check: refuses settings and data that it does not fit, before anything is released, with what to do instead.
      steered: whether it takes a controller, and so a schedule of noise.
      signed: whether every sender's message passes through the parties of a round; if not, sums are made in one program and their outputs say that nothing
        was signed, boxed or screened.
      without_privacy: `(parts, rounds, sampling_rate, stream) -> parameters`: the same training without mechanism and encryption, as a yardstick; None
        where there is none.
    """

    make: Callable[[Parts], Training]
    unit: Literal["record", "client"]
    recipe: Callable[[Config, PublicSizes], TrainingRecipe] = recipe_of
    check: Callable[[Config, Placement | Sites], None] = _nothing_to_check
    steered: bool = False
    signed: bool = True
    without_privacy: Callable[[Parts, int, float, Stream], Any] | None = None
