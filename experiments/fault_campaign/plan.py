"""Which faults strike where: every transition at least once, then by chance."""

from __future__ import annotations

import random
from collections.abc import Sequence

__all__ = ["chosen"]


def chosen(transitions: Sequence[str], kinds: Sequence[str], rng: random.Random, count: int) -> list[tuple[int, str]]:
    """Places in a list of events, each with a kind of fault, all different.

    Args:
      transitions: the name of every event of a clean run, in order; may repeat.
      kinds: of faults.
      rng: the choice.
      count: how many; fewer only where there are no more pairs, more only where there are more names.

    Returns:
      First one event of every name, then every event as far as the count goes, then further kinds, all under kinds by chance.
    """
    places = list(range(len(transitions)))
    rng.shuffle(places)
    first = list({transitions[at]: at for at in places}.values())
    order = [*first, *(at for at in places if at not in set(first))]
    plan = [(at, rng.choice(list(kinds))) for at in order]
    rest = [(at, kind) for at in order for kind in kinds if (at, kind) not in set(plan)]
    rng.shuffle(rest)
    return [*plan, *rest][: max(count, len(first))]
