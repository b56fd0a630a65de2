"""CKKS-style encryption of integer sums on the device that trains."""

from fedjax_poisson.ckks.aggregation import Aggregator, aggregator
from fedjax_poisson.ckks.encryption import (
    Ciphertext,
    PublicKey,
    SecretKey,
    add,
    decrypt,
    decrypt_with_margin,
    encrypt,
    expand,
    generate_keys,
)
from fedjax_poisson.ckks.errors import RoundRefused, WireError
from fedjax_poisson.ckks.parameters import MARGIN, CkksParameters, choose_parameters, sum_bound

__all__ = [
    "MARGIN",
    "Aggregator",
    "Ciphertext",
    "CkksParameters",
    "PublicKey",
    "RoundRefused",
    "SecretKey",
    "WireError",
    "add",
    "aggregator",
    "choose_parameters",
    "decrypt",
    "decrypt_with_margin",
    "encrypt",
    "expand",
    "generate_keys",
    "sum_bound",
]
