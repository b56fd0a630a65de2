"""Traced programs that are kept on disk: what one run has traced, the next one reads.

Most of a short run's time is not compilation, which jax keeps, but what comes before it in every process: Python walks through a program's operations and
writes them down for the compiler. `traced_once` is `jax.jit` that keeps what was written down (`jax.export`), where the command has named a folder for it
(`start`); elsewhere it is `jax.jit` and nothing else. The compiler gets the same operations either way.

A program's name is a hash of all that its operations follow from: the source of this package, the versions of Python and of the libraries that operations
come from, jax's settings, the platform, the function with what it encloses, the static arguments, and the structure, shapes and dtypes of the others. What
cannot be named for sure (a function of somebody else's, an array that a function encloses) is traced in every process. So a kept program holds no record and
no key: they are arguments. A file that is not what was written is traced again and replaced (`kept_files`). As with compiled programs, who may write to the
folder decides what is executed.

What is in no name: a function or a constant of this package that other code in the process has replaced. So only the command keeps programs, and no longer
once it imports a part of the user's own (`extensions.find`). Whoever sets the variable in a process of their own answers for that.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import platform
import sys
import threading
import types
from collections.abc import Callable, Hashable
from fractions import Fraction
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from jax import export

from fedjax_poisson import kept_files
from fedjax_poisson.platforms import for_only

__all__ = ["FOLDER", "TracedOnce", "is_traced", "traced_once"]

FOLDER = kept_files.TRACES
"""The variable that names the folder; `start` sets it."""
_PACKAGE = Path(__file__).parent
_OWN = __name__.partition(".")[0]
_PLAIN = (types.NoneType, bool, int, float, complex, str, bytes, Fraction)
_PARTIAL = (functools.partial, jax.tree_util.Partial)  # a subclass may do anything
_UNMADE: Any = object()
_TRACING = (
    "jax_enable_x64",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
)
"""Settings that change what is traced; they may differ from call to call."""


class _Unnamed(Exception):
    """Something that a name cannot be given to."""


def is_traced(arguments: Any) -> bool:
    """Whether a tree holds values that are being traced: then a function is part of another program."""
    return any(_traces(leaf) for leaf in jax.tree.leaves(arguments))


def _traces(leaf: Any) -> bool:
    return _is_tracer(cast("Hashable", type(leaf)))


@functools.cache
def _is_tracer(kind: Any) -> bool:
    return issubclass(kind, jax.core.Tracer)  # that class asks its subclasses in Python, which a round would notice


class TracedOnce:
    """A compiled function that is called like one of `jax.jit`'s, with positional arguments.

    Attributes:
      jitted: the function of `jax.jit`, for programs that are part of others and where nothing is kept.
    """

    def __init__(self, function: Callable[..., Any], static: tuple[int, ...], settings: dict[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.jitted = jax.jit(function, static_argnums=static, **settings)
        self._function, self._static, self._settings = function, static, settings
        self._ready: dict[Any, Callable[[list[Any]], Any] | None] = {}
        self._making: dict[Any, threading.Lock] = {}

    def __call__(self, *arguments: Any) -> Any:
        """What the function gives."""
        folder = os.environ.get(FOLDER)
        if not folder or jax.default_backend() != "cpu":  # checked on CPUs only
            return self.jitted(*arguments)
        fixed = tuple(arguments[i] for i in self._static)
        leaves, tree = jax.tree.flatten([one for i, one in enumerate(arguments) if i not in self._static])
        if not all(hasattr(leaf, "dtype") and not _elsewhere(leaf) for leaf in leaves):
            return self.jitted(*arguments)
        shapes = tuple((leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False)) for leaf in leaves)
        # 2, 2.0 and True are equal, and make programs of different dtypes.
        key = folder, fixed, _kinds(fixed), tree, shapes, tuple(getattr(jax.config, name) for name in _TRACING)
        ready = self._ready.get(key, _UNMADE)
        if ready is _UNMADE:
            # Whoever needs a program that another thread is making waits for it: making it twice would take both as long.
            with self._making.setdefault(key, threading.Lock()):
                if key not in self._ready:
                    made = self._program(Path(folder), fixed, tree, leaves)
                    result = self.jitted(*arguments) if made is None else made(leaves)  # compiles it
                    self._ready[key] = made
                    return result
                ready = self._ready[key]
        return self.jitted(*arguments) if ready is None else ready(leaves)

    def _program(self, folder: Path, fixed: tuple[Any, ...], tree: Any, leaves: list[Any]) -> Any:
        """The kept program of such arguments, traced now if there is none; None for what cannot be named."""
        shapes = [(leaf.shape, str(leaf.dtype), getattr(leaf, "weak_type", False)) for leaf in leaves]
        try:
            name = [_named(self._function), _named(fixed), self._static, _named_tree(tree), shapes, self._settings]
            surroundings = _surroundings()
        except _Unnamed:
            return None
        path = kept_files.named(folder, [surroundings, name])
        kept = _read(path)
        if kept is None:
            made = self._traced(fixed, tree, leaves)
            if made is None:
                return None
            kept_files.write(path, b"\n".join(made), "a traced program")
            kept = _parsed(*made)  # as later processes read it: the compiler sees the same in all of them
        exported, out = kept

        def program(*values: Any) -> Any:
            return exported.call(*values)

        program.__name__ = self._function.__name__
        call = jax.jit(program, **self._settings)
        return lambda values: jax.tree.unflatten(out, call(*values))

    def _traced(self, fixed: tuple[Any, ...], tree: Any, leaves: list[Any]) -> tuple[bytes, bytes] | None:
        """The structure of the results and the program, as they are written; None for results that are not plain."""
        found: list[Any] = []

        def flat(*values: Any) -> Any:
            given = jax.tree.unflatten(tree, values)
            for place, one in sorted(zip(self._static, fixed, strict=True)):
                given.insert(place, one)
            results, out = jax.tree.flatten(self._function(*given))
            found.append(out)
            return results

        shapes = jax.eval_shape(lambda *each: each, *leaves)
        with for_only("cpu"):
            exported = export.export(jax.jit(flat), platforms=["cpu"])(*shapes)
        try:
            return json.dumps(_structure(found[-1])).encode(), bytes(exported.serialize())
        except _Unnamed:
            return None


def traced_once(
    static_argnums: int | tuple[int, ...] = (), **settings: Any
) -> Callable[[Callable[..., Any]], TracedOnce]:
    """A decorator like `jax.jit` for a function of positional arguments whose traced program is kept.

    Args:
      static_argnums: as of `jax.jit`.
      settings: others of `jax.jit` that say how to compile, not what (`compiler_options`).
    """
    static = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums)
    return lambda function: TracedOnce(function, static, settings)


def _elsewhere(leaf: Any) -> bool:
    """Traced, or on several devices: of another program, or another program."""
    return _traces(leaf) or (_devices() > 1 and isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1)


@functools.cache
def _devices() -> int:
    return jax.device_count()


def _read(path: Path) -> tuple[Any, Any] | None:
    body = kept_files.read(path)
    if body is None:
        return None
    head, _, blob = body.partition(b"\n")
    return _parsed(head, blob)


def _parsed(head: bytes, blob: bytes) -> tuple[Any, Any]:
    return export.deserialize(bytearray(blob)), jax.tree.structure(_example(json.loads(head)))


_VERSIONS = tuple(metadata.version(name) for name in ("jax", "jaxlib", "numpy", "chex", "flax", "optax"))


def _surroundings() -> str:
    if kept_files.SOURCE is None:
        raise _Unnamed
    settings = {name: value for name, value in jax.config.values.items() if "cache" not in name}
    return repr(
        [kept_files.SOURCE, sys.version, _VERSIONS, platform.machine(), jax.default_backend(), sorted(settings.items())]
    )


def _kinds(value: Any) -> Any:
    """The types in a tuple of static arguments."""
    return (type(value), *map(_kinds, value)) if isinstance(value, tuple) else type(value)


def _named(value: Any) -> Any:
    """What a static value is, as text that is the same in every process.

    Raises:
      _Unnamed: for what is not made of numbers, texts and functions of this package.
    """
    kind = type(value)
    if kind in _PLAIN or isinstance(value, np.dtype) or (isinstance(value, np.generic) and kind.__module__ == "numpy"):
        return repr(value)
    if isinstance(value, type):
        return _of_package(value)
    if isinstance(value, tuple | list):
        return [_kind(kind), [_named(one) for one in value]]
    if isinstance(value, dict):
        return [_kind(kind), [(_named(name), _named(one)) for name, one in value.items()]]
    if isinstance(value, types.FunctionType):
        enclosed = [_named(cell.cell_contents) for cell in value.__closure__ or ()]
        defaults = [_named(value.__defaults__), _named(value.__kwdefaults__)]
        return [_of_package(value), _place(value.__code__), enclosed, defaults]
    if kind in _PARTIAL:
        return [kind.__name__, _named(value.func), _named(value.args), _named(value.keywords)]
    if kind is TracedOnce:
        return _named(value._function)
    if dataclasses.is_dataclass(value):
        return [_of_package(kind), [_named(getattr(value, field.name)) for field in dataclasses.fields(value)]]
    raise _Unnamed


def _place(code: types.CodeType) -> Any:
    """Where a function of a module stands; a line may hold several lambdas, whose columns tell them apart.

    Raises:
      _Unnamed: a lambda of an interpreter that keeps no columns (`-X no_debug_ranges`).
    """
    if code.co_name != "<lambda>":
        return code.co_firstlineno
    places = list(code.co_positions())
    if not places or any(column is None for _, _, column, _ in places):
        raise _Unnamed
    return places


def _kind(kind: type) -> str:
    return kind.__name__ if kind.__module__ == "builtins" else _of_package(kind)


def _of_package(value: Any) -> str:
    """Module and name of a function or class of this package, whose source the name of every program holds."""
    code = getattr(value, "__code__", None)
    own = value.__module__.partition(".")[0] == _OWN
    if not own or (code is not None and not Path(code.co_filename).is_relative_to(_PACKAGE)):
        raise _Unnamed
    return f"{value.__module__}:{value.__qualname__}"


def _named_tree(tree: Any) -> Any:
    """The structure of arguments, likewise."""
    if (node := tree.node_data()) is None:
        return "leaf"
    kind, facts = node
    name = "Partial" if kind is jax.tree_util.Partial else _kind(kind)
    return [name, _named(facts), [_named_tree(child) for child in tree.children()]]


def _structure(tree: Any) -> Any:
    """The structure of results as JSON: tuples, lists, dicts and NamedTuples of this package."""
    if (node := tree.node_data()) is None:
        return "leaf"
    kind, facts = node
    if kind is types.NoneType:
        return None
    if not (kind in (tuple, list, dict) or (issubclass(kind, tuple) and "<locals>" not in kind.__qualname__)):
        raise _Unnamed
    return [_kind(kind), facts, [_structure(child) for child in tree.children()]]


def _example(structure: Any) -> Any:
    """Something of a structure."""
    if structure is None or structure == "leaf":
        return structure
    kind, names, parts = structure
    values = [_example(part) for part in parts]
    if kind == "dict":
        return dict(zip(names, values, strict=True))
    if kind in ("tuple", "list"):
        return tuple(values) if kind == "tuple" else values
    module, _, name = kind.partition(":")
    if module.partition(".")[0] != _OWN:
        raise ValueError(f"{kind} is no class of this package")
    made: Any = functools.reduce(getattr, name.split("."), cast("Any", import_module(module)))
    return made(*values)
