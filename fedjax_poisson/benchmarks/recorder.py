"""The compiled programs that a command really uses, with the shapes of their arguments: found by watching `jax.jit`, not by a list that would have to be kept.

`recording()` has to come before anything of the package that decorates functions with `jax.jit` is imported; so `bench compile` starts a process of its own
for it (`compile`). Programs that are called while another one is traced are parts of that one and are not recorded by themselves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_poisson.platforms import one_platform

__all__ = ["Program", "abstract", "recording"]


class Program(NamedTuple):
    """One compiled program.

    Attributes:
      name: of the function.
      jitted: jax's compiled function, without options for this machine's compiler.
      arguments: positional arguments of its first call, arrays as `jax.ShapeDtypeStruct`.
      keywords: keyword arguments, likewise.
      one_platform: whether that call traced it for the platform it ran on only (`platforms.for_only`).
    """

    name: str
    jitted: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    one_platform: bool


def abstract(tree: Any, sharding: Any = None) -> Any:
    """A tree with shapes in place of arrays; all else stays."""

    def shape(leaf: Any) -> Any:
        if isinstance(leaf, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        return leaf

    return jax.tree.map(shape, tree)


def _name(function: Any) -> str:
    while hasattr(function, "func"):  # partials
        function = function.func
    return str(getattr(function, "__name__", function))


class _Watched:
    """A compiled function that notes its calls; in all else it is the function."""

    def __init__(self, jitted: Any, elsewhere: Any, name: str, found: dict[Any, Program]) -> None:
        self._jitted, self._elsewhere, self._name, self._found = jitted, elsewhere, name, found

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        leaves = jax.tree.leaves((arguments, keywords))
        if not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            shapes = abstract((arguments, keywords))
            positional, named = shapes
            program = Program(self._name, self._elsewhere, positional, named, one_platform())
            self._found.setdefault((id(self._jitted), str(shapes)), program)
        return self._jitted(*arguments, **keywords)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else self._jitted.__get__(instance, owner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jitted, name)


@contextlib.contextmanager
def recording() -> Iterator[Callable[[], list[Program]]]:
    """Watch every function that is compiled by `jax.jit` from here on; yields a function that gives the programs called so far."""
    real, found = jax.jit, {}  # type: ignore[var-annotated]

    def jit(function: Any = None, **settings: Any) -> Any:
        if function is None:
            return lambda later: jit(later, **settings)
        elsewhere = real(function, **{key: value for key, value in settings.items() if key != "compiler_options"})
        return _Watched(real(function, **settings), elsewhere, _name(function), found)

    jax.jit = jit
    try:
        yield lambda: list(found.values())
    finally:
        jax.jit = real
