"""Functions that are written in one form for each kind of device: which form a program gets. And how many cores there are.

A program is traced before jax knows what it is lowered for, so `lax.platform_dependent` traces all forms, and lowering drops all but one. Where a program is
for one platform only and whoever traces it says so (`for_only`), the others are not traced at all: half of the tracing of a small round.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import jax
from jax import lax

__all__ = ["by_platform", "for_only", "one_platform", "usable_cores"]

# Part of the key of everything that jax keeps of a trace, so that a program for one platform is never taken for one for all. A jax without it traces all forms.
_ONLY: Any = jax.make_user_context(None) if hasattr(jax, "make_user_context") else None


def for_only(platform: str) -> contextlib.AbstractContextManager[Any]:
    """While it is entered, programs are traced for this platform ("cpu"): they have its forms, whatever they are lowered for."""
    return contextlib.nullcontext() if _ONLY is None else _ONLY(platform)


def one_platform() -> bool:
    """Whether programs are traced for one platform only now."""
    return _ONLY is not None and _ONLY.value is not None


def by_platform(*arguments: Any, default: Callable[..., Any], **forms: Callable[..., Any]) -> Any:
    """What the form of the platform gives for the arguments; all forms give the same.

    Args:
      arguments: of each form.
      default: for platforms that are not named.
      forms: platform ("cpu", "tpu") to its form.
    """
    if one_platform():
        return forms.get(_ONLY.value, default)(*arguments)
    return lax.platform_dependent(*arguments, default=default, **forms)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
