"""One planned release: its mechanism, what the ledger is charged with, and how far its samplers are from their laws."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedjax_poisson import accounting
from fedjax_poisson.mechanisms import Mechanism
from fedjax_poisson.mechanisms.dark_counts import Priced, Terms


class Planned(NamedTuple):
    """One release of a run, fixed before any record is read.

    Attributes:
      priced: the mechanism that every site uses, and the one whose cost is charged.
      charge: what the ledger is charged with.
      distance: bound on the total variation between the release's law and that of its charge.
      dimension: D, coordinates of the release.
      sampling_rate: probability that a unit is in it.
      terms: what all releases of the run have in common.
    """

    priced: Priced
    charge: accounting.Charge
    distance: float
    dimension: int
    sampling_rate: float
    terms: Terms

    @property
    def mechanism(self) -> Mechanism:
        """What every site uses."""
        return self.priced.mechanism

    def rdp(self, terms: Terms, honest_senders: int | None = None) -> np.ndarray:
        """float64 `[orders]`, the Renyi curve, sampling included; with other honest senders than the terms count on, if given."""
        full = self.priced.rdp(terms, self.dimension, honest_senders)
        return full if self.sampling_rate == 1 else accounting.subsampled_rdp(terms.orders, full, self.sampling_rate)

    def used(self, portions: int) -> Planned:
        """The release with so many portions of its noise."""
        if self.mechanism.portions is None and portions == 1:
            return self
        return planned_of(self.terms, self.priced.used(portions), self.dimension, self.distance, self.sampling_rate)


def planned_of(terms: Terms, priced: Priced, dimension: int, distance: float, sampling_rate: float = 1.0) -> Planned:
    """A release with its charge under the law of the terms."""
    release = Planned(priced, 0.0, distance, dimension, sampling_rate, terms)  # type: ignore[arg-type]
    charge = release.rdp(terms) if terms.variance is None else priced.cost(terms, dimension)
    return release._replace(charge=charge)
