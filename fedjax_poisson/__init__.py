"""Private, encrypted federated learning as pure JAX functions.

Every clipped update becomes Poisson counts whose privacy is proved, the counts are encrypted, only their sum is opened, and every release is
on a privacy ledger. The command line is `fedjax-poisson run`.
"""

from fedjax_poisson import accounting, aggregation, ckks, data, federated, mechanisms, models, randomness
from fedjax_poisson.aggregation import aggregator
from fedjax_poisson.federated import fedavg, fedsgd, local_sgd
from fedjax_poisson.mechanisms import gaussian, poisson_embedding, skellam

__all__ = [
    "accounting",
    "aggregation",
    "aggregator",
    "ckks",
    "data",
    "fedavg",
    "federated",
    "fedsgd",
    "gaussian",
    "local_sgd",
    "mechanisms",
    "models",
    "poisson_embedding",
    "randomness",
    "skellam",
]
