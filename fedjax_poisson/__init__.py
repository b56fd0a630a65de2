"""Private, encrypted federated learning as pure JAX functions.

Every clipped update becomes Poisson counts whose privacy is proved, the counts are encrypted, only their sum is opened, and every release is
on a privacy ledger. The command line is `fedjax-poisson run`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fedjax_poisson import accounting, aggregation, ckks, data, federated, mechanisms, models, randomness
from fedjax_poisson.aggregation import aggregator
from fedjax_poisson.federated import (
    calibrate,
    evaluator,
    fedavg,
    fedsgd,
    fit,
    load_model,
    local_sgd,
    predict,
    save_model,
)
from fedjax_poisson.mechanisms import gaussian, poisson_embedding, skellam

if TYPE_CHECKING:
    from fedjax_poisson import attacks
    from fedjax_poisson.runs.config import Config
    from fedjax_poisson.runs.run import run

_LATER = {"run": "fedjax_poisson.runs.run", "Config": "fedjax_poisson.runs.config"}
"""Public names that are loaded when first used: they bring what only whole runs need."""

__all__ = [
    "Config",
    "accounting",
    "aggregation",
    "aggregator",
    "attacks",
    "calibrate",
    "ckks",
    "data",
    "evaluator",
    "fedavg",
    "federated",
    "fedsgd",
    "fit",
    "gaussian",
    "load_model",
    "local_sgd",
    "mechanisms",
    "models",
    "poisson_embedding",
    "predict",
    "randomness",
    "run",
    "save_model",
    "skellam",
]


def __getattr__(name: str) -> Any:
    if name == "attacks":
        return importlib.import_module("fedjax_poisson.attacks")
    if name == "__version__":
        from importlib import metadata

        return metadata.version("fedjax_poisson")
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'fedjax_poisson' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
