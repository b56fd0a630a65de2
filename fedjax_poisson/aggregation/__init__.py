"""One encrypted sum per round: roles, keys, messages and backends over the ring of `fedjax_poisson.ckks`.

A sender seals its counts, the server adds ciphertexts it cannot read, and the key holders open the exact integer sum, or refuse with a reason. With a
threshold key no party, and no object on the server, ever holds the key.

What is not protected. Parties and senders are honest-but-curious: a wrong decryption share is noticed, not attributed. Nothing hides who sends, when and
how much.

    agg = aggregator("device", count_bound=..., senders=4, size=14)      # or "tenseal" (SEAL), "plain" (no encryption)
    total = functools.reduce(agg.add, [agg.encrypt(counts, stream) for counts, stream in ...])
    opened = agg.open(total, size)
"""

from fedjax_poisson.aggregation.aggregator import Aggregator, aggregator
from fedjax_poisson.aggregation.backend import AggregatorInfo
from fedjax_poisson.aggregation.roles import Opened, Sealed
from fedjax_poisson.ckks.errors import RoundRefused, WireError

__all__ = ["Aggregator", "AggregatorInfo", "Opened", "RoundRefused", "Sealed", "WireError", "aggregator"]
