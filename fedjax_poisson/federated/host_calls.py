"""Whether a compiled program shows numbers to somebody while it runs: `jax.debug.print`, `jax.debug.callback`, `pure_callback`, `io_callback`.

A round in one program opens its sum on the device before it is paid for. A user's optimiser that calls the host in between would see it unpaid, so such rounds
are made step by step (`round_programs.straight_round`), and a controller that does is refused (`control`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

__all__ = ["calls_host", "is_host_call", "programs_of"]


def calls_host(program: Any, arguments: tuple[Any, ...]) -> bool:
    """Whether a jitted function, traced with these arguments, calls the host.

    The trace is the one that a call with these arguments uses. The answer is kept with the function: whether its code calls the host does not depend on shapes.
    """
    found = _known(program)
    if not found:
        inside = programs_of(program.trace(*arguments).jaxpr)
        found.append(any(is_host_call(name) for _, names in inside for name in names))
    return found[0]


@functools.lru_cache(maxsize=256)
def _known(_: Any) -> list[bool]:
    return []


def is_host_call(primitive: str) -> bool:
    """Whether a primitive of this name runs Python on the host."""
    return "callback" in primitive or "debug_print" in primitive


def programs_of(traced: Any) -> Iterator[tuple[list[Any], list[str]]]:
    """Constants and names of the primitives of a traced function and of those inside it."""
    jaxpr = getattr(traced, "jaxpr", traced)
    yield list(getattr(traced, "consts", ())), [equation.primitive.name for equation in jaxpr.eqns]
    for equation in jaxpr.eqns:
        for parameter in equation.params.values():
            for inner in parameter if isinstance(parameter, list | tuple) else (parameter,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from programs_of(inner)
