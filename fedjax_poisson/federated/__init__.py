"""Federated algorithms as pure functions: many clients in one program, sites with record- or patient-level privacy, private sums."""

from fedjax_poisson.federated.algorithm import Algorithm, Info, fedsgd
from fedjax_poisson.federated.client import (
    Client,
    Examples,
    Schedule,
    Shared,
    local_optimizer,
    local_sgd,
    mean_loss,
    scaffold,
)
from fedjax_poisson.federated.cohort import Chunking
from fedjax_poisson.federated.fedavg import RoundInfo, fedavg
from fedjax_poisson.federated.federation import FedState
from fedjax_poisson.federated.population import Cohort, Population, cohort_blocks, make_cohort, make_population
from fedjax_poisson.federated.private_sum import SumInfo, private_sum
from fedjax_poisson.federated.records import Records
from fedjax_poisson.federated.server import State
from fedjax_poisson.federated.spread import RoundLost, client_mesh, first_process_gate, shared_stream

__all__ = [
    "Algorithm",
    "Chunking",
    "Client",
    "Cohort",
    "Examples",
    "FedState",
    "Info",
    "Population",
    "Records",
    "RoundInfo",
    "RoundLost",
    "Schedule",
    "Shared",
    "State",
    "SumInfo",
    "client_mesh",
    "cohort_blocks",
    "fedavg",
    "fedsgd",
    "first_process_gate",
    "local_optimizer",
    "local_sgd",
    "make_cohort",
    "make_population",
    "mean_loss",
    "private_sum",
    "scaffold",
    "shared_stream",
]
