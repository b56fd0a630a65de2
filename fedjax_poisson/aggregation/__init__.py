"""One round, one key: an exact sum of counts that only a committee opens, once, and that anyone can check.

Each sender hides its counts under a fresh secret of its own, shared to m members; the members agree on one set of senders, give one answer each, and t answers
open the one sum. It holds against malicious parties: the server, any senders and up to f members together.
`docs/explanation/one_round_one_key.md` has the model, the
messages, the theorem with its assumptions, and what is not proved.

    agg = aggregator("round", count_bound=..., senders=4, size=14, members=5)      # all roles in one process; or "tenseal" (SEAL), "plain" (no encryption)
    total = functools.reduce(agg.add, [agg.encrypt(counts, stream) for counts, stream in ...])
    opened = agg.open(total, size)

The parties as they run apart: `terms`, `client`, `member`, `server`, `opening`, `store`; pure state machines (state, message) -> (state, replies).
"""

from fedjax_poisson.aggregation.aggregator import Aggregator, aggregator, with_key_holder
from fedjax_poisson.aggregation.backend import AggregatorInfo, HolderPart, Parts, SenderPart, ServerPart
from fedjax_poisson.aggregation.roles import Opened, Sealed
from fedjax_poisson.ckks.errors import RoundRefused, WireError

__all__ = [
    "Aggregator",
    "AggregatorInfo",
    "HolderPart",
    "Opened",
    "Parts",
    "RoundRefused",
    "Sealed",
    "SenderPart",
    "ServerPart",
    "WireError",
    "aggregator",
    "with_key_holder",
]
