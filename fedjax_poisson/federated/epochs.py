"""Which rounds of fixed cohorts are paid for: one charge covers the rounds of an epoch, in which every cohort trains once (`banded` has the proof)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fedjax_poisson import accounting
from fedjax_poisson.accounting.law import TightLaw
from fedjax_poisson.federated.charging import Paying


class Coverage(NamedTuple):
    """Which rounds were paid for and not opened since (`banded`); `number` is the rounds done before one.

    What the algorithm's ledger paid for and what a gate paid for are kept apart; a round that is released unaccounted covers nothing, nor does a charge to a
    tight ledger after something else was charged to it.

    Attributes:
      due: `(paying, number) -> bool`: a charge is due before this round is opened.
      charged: `(paying, number)`: a charge was made, for this round and the later ones of its epoch.
      opened: `(paying, number)`: the round is opened now.
    """

    due: Callable[[Paying, int], bool]
    charged: Callable[[Paying, int], None]
    opened: Callable[[Paying, int], None]


def last_of_epoch(number: int, cohorts: int) -> int:
    """The last round (1, 2, ...) of the epoch that the round after `number` rounds belongs to."""
    return (number // cohorts + 1) * cohorts


def coverage(cohorts: int, ledger: accounting.Ledger | None = None) -> Coverage:
    """No round is covered yet."""
    covered: set[tuple[bool, int]] = set()
    pins: list[accounting.Pin] = []

    def due(paying: Paying, number: int) -> bool:
        if paying is None and ledger is not None and isinstance(ledger.law, TightLaw) and pins != [ledger.pin()]:
            return True
        return (callable(paying), number) not in covered

    def charged(paying: Paying, number: int) -> None:
        if paying != "unaccounted":
            covered.update((callable(paying), each) for each in range(number, last_of_epoch(number, cohorts)))
        if paying is None and ledger is not None:
            pins[:] = [ledger.pin()]

    return Coverage(
        due=due,
        charged=charged,
        opened=lambda paying, number: covered.discard((callable(paying), number)),
    )
