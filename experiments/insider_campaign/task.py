"""What a training under attack is: its algorithm, its corrupt clients, what they know, and by how much they may move a round."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_poisson import federated, models
from fedjax_poisson.attacks.insiders import Setting
from fedjax_poisson.federated.insiders import Insiders
from fedjax_poisson.federated.records import Records
from fedjax_poisson.federated.vote_plan import VotePlan
from fedjax_poisson.mechanisms import Mechanism

DELTA = 1e-5
TABLES = (
    *("count_bound", "count_wrap", "scale_50", "scale_10", "model_replacement", "spike"),
    *("sign_flip", "backdoor_rare_value", "label_flip", "little_is_enough", "inner_product", "colluding_pair"),
    *("free_rider_zero", "free_rider_noise", "free_rider_stale", "nan", "faulty_units", "faulty_labels"),
)
"""Attacks on tables, the most telling first."""
_OF_TABLES = ("faulty_units",)
IMAGES = tuple(
    {"model_replacement": "model_replacement_patch", "backdoor_rare_value": "backdoor_patch"}.get(name, name)
    for name in TABLES
    if name not in _OF_TABLES
)
"""Attacks on images."""
TOO_LONG = (
    "count_bound",
    "count_wrap",
    "scale_50",
    "scale_10",
    "model_replacement",
    "model_replacement_patch",
    "spike",
)
"""Attacks whose messages are far longer than an honest one: what a norm round must refuse."""


class Corrupt(NamedTuple):
    """Who is corrupt, and what they know.

    Attributes:
      who: their numbers.
      setting: what insiders of light rounds know.
      norm_setting: likewise, of norm rounds.
    """

    who: tuple[int, ...]
    setting: Setting
    norm_setting: Setting


class Bounds(NamedTuple):
    """By how much insiders may move a sum, in the unit of the update; measured against it in the first round of every run.

    Attributes:
      light: of the whole sum in a light round, as the opening checks it.
      honest: what one corrupt client's honest software may send at most, without its noise.
      noise: variance of one sender's noise, a coordinate.
      size: D.
      passes: length in clips that one client of a norm round gets through with 1e-6; None where there are none.
      clip: one clip.
    """

    light: float
    honest: float
    noise: float
    size: int
    passes: float | None
    clip: float

    def of_light(self, total: float) -> float:
        """The most that any message moves a sum of length `total`: it ends within the bound of light rounds."""
        return self.light + total

    def of_software(self, corrupt: int) -> float:
        """The most that changed records move: another honest message each, and the noise of both, which is 10 standard errors above its mean length."""
        noise = 2 * corrupt * self.size * self.noise * (1 + 10 * math.sqrt(2 / self.size))
        return 2 * corrupt * self.honest + math.sqrt(noise)

    def of_norm(self, corrupt: int) -> float:
        """The most that corrupt clients of a norm round move, but with 1e-6 each: what passes, and what they would have sent."""
        assert self.passes is not None
        return corrupt * (self.passes + 1) * self.clip


class Clients(NamedTuple):
    """Of tasks with many clients: what robust rules read in the clear, and the same training by norm rounds.

    Attributes:
      client: one client's work.
      population: all of them.
      norm: `(insiders) -> Algorithm` whose clients send clean counts and prove their norm; noise as large as in light rounds.
      norm_bound: by how much one may move a round, in words.
    """

    client: federated.client.ClientOf
    population: federated.Population
    norm: Callable[[Insiders | None], federated.Algorithm]
    norm_bound: str


class Task(NamedTuple):
    """A training that can be attacked.

    Attributes:
      name: in words.
      unit: what is protected.
      rounds: of the whole training.
      shares: of clients that are corrupt in turn; one entry for sites, of which one is corrupt.
      corrupt: `(share) -> Corrupt`.
      attacks: names, the most telling first.
      model: what is trained.
      mechanism: of its light rounds.
      make: `(insiders) -> Algorithm` of light rounds.
      cohort: `(round) -> ` what takes part.
      released: `(parameters before, after, senders in the sum) -> float64 [D]`, the released sum of a round, in the unit of the update.
      held: records that voters hold back.
      plan: of the vote.
      every: rounds between votes.
      test: records and labels.
      delta: of the ledger.
      bounds: what insiders may move.
      bound: that of light rounds, in words.
      clients: None for sites.
    """

    name: str
    unit: str
    rounds: int
    shares: tuple[float, ...]
    corrupt: Callable[[float], Corrupt]
    attacks: Sequence[str]
    model: models.Model
    mechanism: Mechanism
    make: Callable[[Insiders | None], federated.Algorithm]
    cohort: Callable[[int], Any]
    released: Callable[[Any, Any, int], np.ndarray]
    held: Records
    plan: VotePlan
    every: int
    test: tuple[np.ndarray, np.ndarray]
    delta: float
    bounds: Bounds
    bound: str
    clients: Clients | None = None


def flat(params: Any) -> np.ndarray:
    """All parameters in one float64 vector."""
    return np.concatenate([np.asarray(leaf, np.float64).reshape(-1) for leaf in jax.tree.leaves(params)])
