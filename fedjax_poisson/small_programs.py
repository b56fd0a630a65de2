"""Programs that run for a shorter time than they take to compile.

A run on a small table spends most of its first minute in the compiler, on integer programs of some thousand operations on a few thousand numbers. There a CPU's
code generator is asked for little: no optimisation of the code behind the one of XLA, and no emitters of fused loops (they compile through another compiler
first). Compiling takes a quarter of the time; the program, 0.03 to 0.2 ms, takes two to eight times as long. So a size decides,
which the caller states, never a measured time: the same call compiles the same program everywhere.

Integers have the same bits either way (tests compare the programs of embeddings and of norm proofs). Programs of floating-point numbers are left alone, since
another order of operations may change a last digit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_poisson.traced_programs import is_traced, traced_once

__all__ = ["MOST_VALUES", "OPTIONS", "FewValues", "few_values", "is_known"]

OPTIONS: dict[str, bool | int | str] = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
"""Of XLA for CPUs."""
MOST_VALUES = 1 << 13


class FewValues(NamedTuple):
    """A function compiled for one of two uses; called like it. Either is traced once (`traced_programs`).

    Attributes:
      whole: compiled as always: for many values, for accelerators, and inside other programs, whose options hold for all that is in them.
      quick: compiled quickly, for CPUs.
      values: of the same arguments: how many numbers the program works on.
    """

    whole: Callable[..., Any]
    quick: Callable[..., Any]
    values: Callable[..., int]

    def __call__(self, *arguments: Any) -> Any:
        """What the function gives; the same integers from both."""
        if self.values(*arguments) > MOST_VALUES or is_traced(arguments):
            return self.whole(*arguments)
        if jax.default_backend() != "cpu" or not _understood():
            return self.whole(*arguments)
        return self.quick(*arguments)


def few_values(
    values: Callable[..., int], static_argnums: int | tuple[int, ...] = ()
) -> Callable[[Callable[..., Any]], FewValues]:
    """A decorator like `jax.jit` for a function of integers.

    Args:
      values: `(*arguments)` to how many numbers the program works on; up to `MOST_VALUES` of them it is compiled quickly on CPUs.
      static_argnums: as of `jax.jit`.
    """

    def decorate(function: Callable[..., Any]) -> FewValues:
        whole = traced_once(static_argnums)(function)
        quick = traced_once(static_argnums, compiler_options=OPTIONS)(function)
        return FewValues(whole, quick, values)

    return decorate


def is_known(options: dict[str, bool | int | str]) -> bool:
    """Whether this XLA knows the options: they are no stable interface, and one that is gone is an error."""
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(np.uint32(0)).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


@functools.cache
def _understood() -> bool:
    return is_known(OPTIONS)
