"""Whether a compiled program shows numbers to somebody while it runs: `jax.debug.print`, `jax.debug.callback`, `pure_callback`, `io_callback`.

A round in one program opens its sum on the device before it is paid for. A user's optimiser that calls the host in between would see it unpaid, so such rounds
are made step by step (`round_programs.straight_round`).
"""

from __future__ import annotations

import functools
from typing import Any

import jax

__all__ = ["calls_host"]


def calls_host(program: Any, arguments: tuple[Any, ...]) -> bool:
    """Whether a jitted function, traced with these arguments, calls the host.

    The trace is the one that a call with these arguments uses. The answer is kept with the function: whether its code calls the host does not depend on shapes.
    """
    found = _known(program)
    if not found:
        found.append(_has_calls(program.trace(*arguments).jaxpr.jaxpr))
    return found[0]


@functools.lru_cache(maxsize=256)
def _known(_: Any) -> list[bool]:
    return []


def _has_calls(jaxpr: Any) -> bool:
    for equation in jaxpr.eqns:
        if "callback" in equation.primitive.name or "debug_print" in equation.primitive.name:
            return True
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda each: hasattr(each, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns") and _has_calls(inner):
                return True
    return False
