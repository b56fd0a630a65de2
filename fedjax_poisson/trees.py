"""Pytrees as flat vectors: a mechanism sees float32 `[D]`, a model sees its own tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

Tree = Any


class VectorLayout(NamedTuple):
    """How a tree lies in a flat vector: `size` (D) and the function that rebuilds the tree from float32 `[D]`."""

    size: int
    unflatten: Callable[[Array], Tree]


def layout(tree: Tree) -> VectorLayout:
    """The layout of a tree of float arrays; leaves lie in tree order, each in C order."""
    vector, unflatten = ravel_pytree(tree)
    return VectorLayout(vector.size, unflatten)


def flatten(tree: Tree) -> Array:
    """All leaves as one float32 `[D]` vector, in the order that `layout(tree).unflatten` expects."""
    return ravel_pytree(tree)[0].astype(jnp.float32)
