"""Where one fault of a run strikes: the n-th time that a party comes to a step, and what is found when it does.

A trap knows nothing of faults; it counts steps, and calls what it was given when its own comes. Without a fault it lists all steps of a run: the plan of a
campaign is made from that list.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Place", "Trap"]


class Place(NamedTuple):
    """A step of a run.

    Attributes:
      party: a site's name, or "coordinator".
      transition: the step.
      time: 1 for the first time that the party comes to it.
    """

    party: str
    transition: str
    time: int


class Trap:
    """Counts the steps of all parties; safe to call from several threads."""

    def __init__(self, place: Place | None, spring: Callable[[], object]) -> None:
        """Set a trap.

        Args:
          place: where; None only lists.
          spring: called once, in the thread that comes there. What it returns `step` returns.
        """
        self._place, self._spring = place, spring
        self._lock = threading.Lock()
        self._times: collections.Counter[tuple[str, str]] = collections.Counter()
        self.struck = False

    def step(self, party: str, transition: str) -> object:
        """A party comes to a step."""
        with self._lock:
            self._times[party, transition] += 1
            here = Place(party, transition, self._times[party, transition])
            mine = here == self._place and not self.struck
            self.struck = self.struck or mine
        return self._spring() if mine else None

    def places(self) -> list[Place]:
        """All steps so far, each as often as it came."""
        with self._lock:
            counts = list(self._times.items())
        return [Place(party, transition, k) for (party, transition), count in counts for k in range(1, count + 1)]
