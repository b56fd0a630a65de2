"""How tests compile: quickly, and as users do where the result may depend on it.

More than half of the suite's time was XLA's. Without optimisation of the code behind its own and without emitters of fused
loops (`fedjax_poisson.small_programs` says what these are) a program takes a quarter to a half of the time to compile. Integers
have the same bits either way, floating-point numbers may differ in their last digit; so tests that compare bits of floats over
programs (encryption, chunks, devices, fused rounds: `@pytest.mark.as_shipped`) and the rooms of the samplers, the mechanisms, the
ring's arithmetic and the models (`AS_SHIPPED`) are compiled as users compile them. With COMPILE_AS_SHIPPED=1 everything is.
"""

from __future__ import annotations

import functools
import os
from pathlib import PurePath
from typing import Any

OPTIONS: dict[str, bool | int | str] = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,  # one piece in place of up to 32: workers share the cores anyway
}
ALL_AS_SHIPPED = os.environ.get("COMPILE_AS_SHIPPED") == "1"
AS_SHIPPED = (
    "ckks/test_ciphertext_bytes.py",
    "ckks/test_device_layout.py",
    "ckks/test_host_residues.py",
    "ckks/test_host_ring.py",
    "ckks/test_modular.py",
    "ckks/test_noise_bound.py",
    "ckks/test_ntt.py",
    "ckks/test_packing.py",
    "ckks/test_parameters.py",
    "ckks/test_rlwe_samplers.py",
    "ckks/test_rolled_ntt.py",
    "ckks/test_slots.py",
    "mechanisms",
    "models",
    "randomness",
    "aggregation/test_opening.py",  # many sums of few programs
    "aggregation/test_round_exact.py",
    "aggregation/test_round_lowering.py",
    "deployment/test_conduct.py",
    "federated/test_private_columns.py",  # float bounds of what one record moves
    "federated/test_private_scores.py",
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
_as_shipped = True


@functools.cache
def is_quick_possible() -> bool:
    """Whether quick compilation is wanted and this XLA knows the options."""
    from fedjax_poisson.small_programs import is_known

    return not ALL_AS_SHIPPED and is_known(OPTIONS)


def is_as_shipped(path: PurePath, tests: PurePath, marked: bool = False) -> bool:
    """Whether a test of this file, with this mark or without, is compiled as users compile."""
    if marked or not path.is_relative_to(tests):
        return marked
    own = path.relative_to(tests).as_posix()
    return any(own == each or own.startswith(f"{each}/") for each in AS_SHIPPED)


def compile_as_shipped(wanted: bool) -> None:
    """From now on, in this process and those that it starts."""
    import jax

    global _as_shipped
    wanted = wanted or not is_quick_possible()
    if wanted != _as_shipped:
        _as_shipped = wanted
        os.environ["XLA_FLAGS"] = _without_options(os.environ["XLA_FLAGS"]) + ("" if wanted else f" {flags()}")
        jax.clear_caches()  # compiled the other way


def flags() -> str:
    """Of subprocesses, for XLA_FLAGS: those of the test that starts them."""
    if _as_shipped:
        return ""
    return " ".join(f"--{name}={str(value).lower()}" for name, value in OPTIONS.items())


def _without_options(text: str) -> str:
    return " ".join(each for each in text.split() if each.removeprefix("--").split("=")[0] not in OPTIONS)


def install() -> None:
    """Let JAX ask, at every compilation, what `compile_as_shipped` said last; what a caller asks for itself holds."""
    from jax._src import compiler

    usual = compiler.get_compile_options

    def chosen(*arguments: Any, env_options_overrides: dict[str, Any] | None = None, **others: Any) -> Any:
        own = {} if _as_shipped else OPTIONS
        return usual(*arguments, env_options_overrides={**own, **(env_options_overrides or {})}, **others)

    compiler.get_compile_options = chosen
