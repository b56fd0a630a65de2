"""Federated algorithms as pure functions over sites: private sums, standardisation, DP-SGD with the record or patient as the unit."""

from fedjax_poisson.federated.algorithm import Algorithm, Info, fedsgd
from fedjax_poisson.federated.private_sum import SumInfo, private_sum
from fedjax_poisson.federated.records import Records
from fedjax_poisson.federated.server import State

__all__ = ["Algorithm", "Info", "Records", "State", "SumInfo", "fedsgd", "private_sum"]
