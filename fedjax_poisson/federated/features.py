"""Features of records as pytrees: one array, or a dict (of dicts) of arrays, such as `{"image": [H, W, C], "age": [1]}` for each record.

Every leaf has the same leading axes (sites and records, clients and records, or a batch). Floating-point leaves are float32; leaves of integers, such as
codes for an embedding, stay integers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Features: TypeAlias = Any
"""An array, or a pytree of arrays with the same leading axes."""

RecordShape: TypeAlias = Any
"""What one record's features look like: F, a shape, a `jax.ShapeDtypeStruct`, or a dict of those."""


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(each, int | np.integer) for each in value)


def record_spec(features: RecordShape) -> Any:
    """The features of one record as a tree of `jax.ShapeDtypeStruct`; float32 where no dtype is given.

    Raises:
      ValueError: a leaf is no shape.
    """

    def leaf(value: Any) -> jax.ShapeDtypeStruct:
        if isinstance(value, int | np.integer):
            return jax.ShapeDtypeStruct((int(value),), jnp.float32)
        if _is_shape(value):
            return jax.ShapeDtypeStruct(tuple(int(each) for each in value), jnp.float32)
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            return jax.ShapeDtypeStruct(tuple(value.shape), kept_dtype(value.dtype))
        raise ValueError(
            f"features={value!r}: give F, a shape such as (28, 28, 1), a jax.ShapeDtypeStruct, or a dict of those, of one record."
        )

    return jax.tree.map(leaf, features, is_leaf=lambda value: _is_shape(value) or hasattr(value, "shape"))


def kept_dtype(dtype: Any) -> Any:
    """The dtype that a leaf has on the device: integers stay, everything else is float32."""
    return jax.dtypes.canonicalize_dtype(dtype) if jnp.issubdtype(dtype, jnp.integer) else jnp.dtype(jnp.float32)


def spec_of(features: Features, leading: int = 2) -> Any:
    """`record_spec` of arrays that have so many leading axes."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(tuple(leaf.shape[leading:]), kept_dtype(leaf.dtype)), features
    )


def batch_spec(spec: Any, count: int) -> Any:
    """The features of `count` records, a tree of `jax.ShapeDtypeStruct`."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), spec)


def blank_batch(spec: Any, *leading: int) -> Features:
    """Zeros with these leading axes."""
    return jax.tree.map(lambda leaf: jnp.zeros((*leading, *leaf.shape), leaf.dtype), spec)


def floats_in(spec: Any) -> int:
    """Numbers in the features of one record."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(spec))


def take(features: Features, index: Any) -> Features:
    """`leaf[index]` of every leaf."""
    return jax.tree.map(lambda leaf: leaf[index], features)


def flatten_leading(features: Features) -> Features:
    """`[S, n, ...]` to `[S * n, ...]`."""
    return jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:]), features)


def leading_of(features: Features, axes: int) -> tuple[int, ...]:
    """The leading axes that all leaves share.

    Raises:
      ValueError: there is no leaf, or the leaves differ in them.
    """
    leaves = jax.tree_util.tree_leaves_with_path(features)
    found = {tuple(leaf.shape[:axes]) for _, leaf in leaves}
    if len(found) != 1 or len(next(iter(found))) < axes:
        seen = ", ".join(f"{jax.tree_util.keystr(path) or 'features'} {tuple(leaf.shape)}" for path, leaf in leaves)
        raise ValueError(
            f"the features have the shapes {seen or 'of nothing'}: every array starts with the same {axes} axes, one for each site or client and record."
            if axes == 2
            else f"the features have the shapes {seen or 'of nothing'}: every array starts with the same axis of records."
        )
    return next(iter(found))


def in_words(spec: Any) -> str:
    """Shapes for a message."""
    if isinstance(spec, jax.ShapeDtypeStruct):
        return str(spec.shape)
    return ", ".join(
        f"{jax.tree_util.keystr(path)} {leaf.shape}" for path, leaf in jax.tree_util.tree_leaves_with_path(spec)
    )


def same_records(one: Any, other: Any) -> bool:
    """Whether two records have the same structure and shapes."""
    structures: list[Any] = [jax.tree.structure(one), jax.tree.structure(other)]
    if structures[0] != structures[1]:
        return False
    return all(a.shape == b.shape for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def on_host(features: Features) -> Features:
    """Every leaf as a NumPy array; memory-mapped ones are not read."""
    return jax.tree.map(lambda leaf: leaf if isinstance(leaf, np.ndarray) else np.asarray(leaf), features)


def is_sequence_of_clients(x: Any) -> bool:
    """Whether features are given client by client, not as arrays with an axis of clients."""
    return isinstance(x, Sequence) and not isinstance(x, np.ndarray)
