"""Fixed cohorts: a public partition of the clients, whose parts take turns at training.

Cohort `(t - 1) mod b` trains in round t = 1, 2, ..., so a client takes part in every b-th round and never earlier: in any b consecutive rounds exactly
once. The partition is drawn from a public seed and does not depend on any data. It is public who trains when, so nothing is amplified by it; what it
bounds is how often a client takes part, k = ceil(T / b) times in T rounds.

With a band (`banding`) a client sends in the `band` rounds that begin with its turn: in round t the cohorts whose turns were t, t - 1, ..., t - band + 1,
and before the first turn of a cohort its clients send their dark noise alone. So the number of noise shares in a sum is that of `band` cohorts in every
round, the first ones included.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np


class Turn(NamedTuple):
    """The senders of one round.

    Attributes:
      trains: uint32 `[m]`, the clients of the cohort that trains.
      sends: uint32 `[n]`, all that send: first those that train, then the cohorts whose turn was one round ago, two rounds ago, ...
      ago: int `[n]`, how many rounds ago the turn of each was, 0 to band - 1.
      place: int `[n]`, the place of each within its cohort.
    """

    trains: np.ndarray
    sends: np.ndarray
    ago: np.ndarray
    place: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FixedCohorts:
    """A partition of clients 0 .. N-1 into b cohorts; make one with `fixed_cohorts`, or from cohorts of your own that depend on no data.

    Attributes:
      members: uint32 arrays, one for each cohort, in the order of their turns.

    Raises:
      ValueError: a client is in no cohort or in two, or a cohort is empty.
    """

    members: tuple[np.ndarray, ...]

    def __post_init__(self) -> None:
        members = tuple(np.asarray(each) for each in self.members)
        if not members or any(each.ndim != 1 or not each.size for each in members):
            raise ValueError("every cohort is a vector of at least one client number.")
        together = np.concatenate(members)
        if not np.issubdtype(together.dtype, np.integer) or not np.array_equal(
            np.sort(together), np.arange(together.size)
        ):
            raise ValueError(
                f"{together.size} places in {len(members)} cohorts do not hold every client 0 .. {together.size - 1} exactly once: a client in two cohorts "
                "would take part twice in a participation that is charged once."
            )
        object.__setattr__(self, "members", tuple(each.astype(np.uint32) for each in members))

    def __repr__(self) -> str:
        return f"FixedCohorts(clients={self.clients}, cohorts={self.cohorts})"

    @property
    def clients(self) -> int:
        """N."""
        return sum(each.size for each in self.members)

    @property
    def cohorts(self) -> int:
        """b, rounds from one turn of a client to its next."""
        return len(self.members)

    @property
    def largest(self) -> int:
        """Clients of the largest cohort."""
        return max(each.size for each in self.members)

    def participations(self, rounds: int) -> int:
        """k = ceil(T / b): how often a client takes part in T rounds at most."""
        return -(-rounds // self.cohorts)

    def senders(self, band: int) -> tuple[int, int]:
        """The fewest and the most clients that send in a round."""
        check_band(band, self.cohorts)
        sizes = np.array([each.size for each in self.members])
        sums = [int(np.roll(sizes, -first)[:band].sum()) for first in range(self.cohorts)]
        return min(sums), max(sums)

    def turn(self, number: int, band: int) -> Turn:
        """Who trains and who sends in a round; `number` is the rounds done before it."""
        own = [self.members[(number - ago) % self.cohorts] for ago in range(band)]
        return Turn(
            trains=own[0],
            sends=np.concatenate(own),
            ago=np.concatenate([np.full(each.size, ago) for ago, each in enumerate(own)]),
            place=np.concatenate([np.arange(each.size) for each in own]),
        )


def fixed_cohorts(clients: int, cohorts: int, seed: int = 0) -> FixedCohorts:
    """A random partition of clients into cohorts of equal size (up to one client), the same for the same public seed.

    Args:
      clients: N.
      cohorts: b, 1 <= b <= N.
      seed: public.

    Raises:
      ValueError: there are more cohorts than clients, or none.
    """
    if not 1 <= cohorts <= clients:
        raise ValueError(f"cohorts={cohorts}: {clients} clients can be divided into 1 to {clients} cohorts.")
    return FixedCohorts(members=tuple(np.array_split(np.random.default_rng(seed).permutation(clients), cohorts)))


def check_band(band: int, cohorts: int) -> None:
    """A band no wider than the turns are apart: then at most one of the rounds that a message mixes is one of a client's own.

    Raises:
      ValueError: it is wider, or below 1.
    """
    if int(band) != band or not 1 <= band <= cohorts:
        raise ValueError(
            f"band={band} with {cohorts} cohorts: it must be a whole number from 1 to {cohorts}. A wider one would put two participations of a client into one "
            "message, whose bounds would no longer be those of one update."
        )
