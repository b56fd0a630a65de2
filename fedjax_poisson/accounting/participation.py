"""Who takes part in a round, to the extent that its privacy cost depends on it."""

from __future__ import annotations

import dataclasses

from fedjax_poisson.accounting.checks import Adjacency


@dataclasses.dataclass(frozen=True, kw_only=True)
class Participation:
    """Senders of a round, whose noise counts, and between which inputs an observer shall not tell.

    Plain facts: who makes one checks them against what it makes it for.

    Attributes:
      senders: n, contributions in a full sum.
      minimum_senders: fewest whose sum is opened, 1 <= minimum_senders <= senders.
      honest_senders: n_h, senders whose noise the price counts, of the fewest that may be opened; the target is one of them.
      sampling_rate: q in (0, 1], a unit's secret probability of being in a round; even below 1 every sender sends in every round.
      adjacency: "zero_out" or "replace_one".
    """

    senders: int
    minimum_senders: int
    honest_senders: int
    sampling_rate: float = 1.0
    adjacency: Adjacency = "zero_out"

    @property
    def everybody(self) -> bool:
        """Whether all senders must send: who does must not depend on a secret sample."""
        return self.sampling_rate < 1
