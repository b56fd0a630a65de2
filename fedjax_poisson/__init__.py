"""Private, encrypted federated learning as pure JAX functions.

Every clipped update becomes Poisson counts whose privacy is proved, the counts are encrypted, only their sum is opened, and every release is
on a privacy ledger. The command line is `fedjax-poisson run`.

A name is loaded when it is first used, so that importing the package costs nothing beside jax.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedjax_poisson import (
        accounting,
        aggregation,
        attacks,
        ckks,
        data,
        federated,
        mechanisms,
        models,
        randomness,
        reports,
    )
    from fedjax_poisson.aggregation.aggregator import aggregator
    from fedjax_poisson.federated.algorithm import fedsgd
    from fedjax_poisson.federated.budget import calibrate
    from fedjax_poisson.federated.client import local_sgd
    from fedjax_poisson.federated.evaluator import evaluator
    from fedjax_poisson.federated.fedavg import fedavg
    from fedjax_poisson.federated.fit import fit
    from fedjax_poisson.federated.saved_model import load_model, predict, save_model
    from fedjax_poisson.leakage.measure import attack_run
    from fedjax_poisson.leakage.registry import RunAttack
    from fedjax_poisson.leakage.words import Said
    from fedjax_poisson.mechanisms.gaussian import gaussian
    from fedjax_poisson.mechanisms.poisson import poisson_embedding
    from fedjax_poisson.mechanisms.registry import MechanismEntry
    from fedjax_poisson.mechanisms.skellam import skellam
    from fedjax_poisson.reports.notebook import show_report
    from fedjax_poisson.runs.algorithm_entry import AlgorithmEntry, Training
    from fedjax_poisson.runs.config import Config
    from fedjax_poisson.runs.run import run

    __version__: str

__all__ = [
    "AlgorithmEntry",
    "Config",
    "MechanismEntry",
    "RunAttack",
    "Said",
    "Training",
    "accounting",
    "aggregation",
    "aggregator",
    "attack_run",
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
    "reports",
    "run",
    "save_model",
    "show_report",
    "skellam",
]

_HOMES = {
    "AlgorithmEntry": "runs.algorithm_entry",
    "Config": "runs.config",
    "MechanismEntry": "mechanisms",
    "RunAttack": "leakage.registry",
    "Said": "leakage.words",
    "Training": "runs.algorithm_entry",
    "aggregator": "aggregation",
    "attack_run": "leakage.measure",
    "calibrate": "federated",
    "evaluator": "federated",
    "fedavg": "federated",
    "fedsgd": "federated",
    "fit": "federated",
    "gaussian": "mechanisms",
    "load_model": "federated",
    "local_sgd": "federated",
    "poisson_embedding": "mechanisms",
    "predict": "federated",
    "run": "runs.run",
    "save_model": "federated",
    "show_report": "reports.notebook",
    "skellam": "mechanisms",
}  # the modules that public functions live in; every other public name is a package itself


def __getattr__(name: str) -> Any:
    value: Any
    if name == "__version__":
        value = _version()
    elif name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    elif name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    else:
        value = importlib.import_module(f"{__name__}.{name}")
    globals()[name] = value  # the next use is an ordinary look-up
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("fedjax-poisson")
    except metadata.PackageNotFoundError:
        return "0+source"  # a source tree on the path that was never installed
