"""How tests compile: quickly, and as users do where the result may depend on it.

More than half of the suite's time was XLA's. Without optimisation of the code behind its own and without emitters of fused
loops (`fedjax_poisson.small_programs` says what these are) a program takes a quarter to a half of the time to compile. Integers
have the same bits either way, floating-point numbers may differ in their last digit; so tests that compare bits of floats over
programs (encryption, chunks, devices, fused rounds: `@pytest.mark.as_shipped`) and the rooms of the samplers, the mechanisms, the
ring's arithmetic and the models (`AS_SHIPPED`) are compiled as users compile them. With COMPILE_AS_SHIPPED=1 everything is.
"""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import Any

OPTIONS: dict[str, bool | int] = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
SHIPPED: dict[str, bool | int] = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}  # XLA's own
ALL_AS_SHIPPED = os.environ.get("COMPILE_AS_SHIPPED") == "1"
AS_SHIPPED = (
    "ckks",
    "mechanisms",
    "models",
    "randomness",
    "aggregation/test_opening.py",  # many sums of few programs
    "aggregation/test_round_exact.py",
    "aggregation/test_round_lowering.py",
    "deployment/test_conduct.py",
    "federated/test_algorithm.py",
    "federated/test_exported_model.py",
    "federated/test_features.py",
    "federated/test_private_sum.py",
    "federated/test_records.py",
    "federated/test_reference.py",
    "federated/test_saved_model.py",
    "federated/test_sweeps.py",
    "helpers/test_compiling.py",
    "runs/test_run.py",
    "test_small_programs.py",
    "test_traced_programs.py",
)
_as_shipped = ALL_AS_SHIPPED


def flags(options: dict[str, bool | int]) -> str:
    """For XLA_FLAGS, which subprocesses read."""
    return " ".join(f"--{name}={str(value).lower()}" for name, value in options.items())


def is_as_shipped(path: PurePath, tests: PurePath, marked: bool = False) -> bool:
    """Whether a test of this file, with this mark or without, is compiled as users compile."""
    if ALL_AS_SHIPPED or not path.is_relative_to(tests):
        return ALL_AS_SHIPPED
    own = path.relative_to(tests).as_posix()
    return marked or any(own == each or own.startswith(f"{each}/") for each in AS_SHIPPED)


def compile_as_shipped(wanted: bool) -> None:
    """From now on, in this process and those that it starts."""
    import jax

    global _as_shipped
    if wanted == _as_shipped:
        return
    _as_shipped = wanted
    os.environ["XLA_FLAGS"] = _with(os.environ["XLA_FLAGS"], SHIPPED if wanted else OPTIONS)
    jax.clear_caches()  # compiled the other way


def _with(text: str, options: dict[str, bool | int]) -> str:
    kept = [each for each in text.split() if each.removeprefix("--").split("=")[0] not in options]
    return " ".join([*kept, flags(options)])


def install() -> None:
    """Let JAX ask, at every compilation, what `compile_as_shipped` said last; what a caller asks for itself holds."""
    from jax._src import compiler

    usual = compiler.get_compile_options

    def chosen(*arguments: Any, env_options_overrides: dict[str, Any] | None = None, **others: Any) -> Any:
        own = env_options_overrides or {}
        return usual(*arguments, env_options_overrides={**(SHIPPED if _as_shipped else OPTIONS), **own}, **others)

    compiler.get_compile_options = chosen
