"""A user's flax module, linen or nnx, as a `Model`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx
from jax import Array

from fedjax_poisson.models.model import LossName, Model, Params, with_loss


def from_flax(
    module: linen.Module | Callable[[nnx.Rngs], nnx.Module],
    loss: LossName | Callable[[Array, Array], Array],
) -> Model:
    """A flax module as a `Model`.

    Modules that keep state of a batch (BatchNorm) are refused: one record would then move the gradients of others, and clipping each record's gradient
    would bound nothing. GroupNorm and LayerNorm look at one record only. Dropout is off.

    Args:
        module: A linen module, `x [B, ...]` (or a dict of arrays, as records' features may be) to outputs `[B, ...]`; or for nnx the function that makes
            one, `lambda rngs: Net(rngs=rngs)`.
        loss: What its outputs are (`with_loss`): "binary" (`[B]` or `[B, 1]`), "softmax" `[B, classes]`, "sigmoid" `[B, labels]`, "squared" `[B]`, `[B, 1]`
            or `[B, outputs]`; or a custom `(outputs, y) -> losses [B]`.

    Returns:
        Model whose parameters are the module's, a plain dict of float32 arrays.

    Raises:
        TypeError: The module is neither; or an nnx module that was made already, whose parameters could not be drawn anew.
        ValueError: When first used: it keeps state beside its parameters, or they are not float32.
    """
    if isinstance(module, linen.Module):
        init, apply = _linen(module)
    elif isinstance(module, nnx.Module):
        raise TypeError(
            "the nnx module was made already, so its parameters cannot be drawn from a key; give the function that makes it: "
            f"from_flax(lambda rngs: {type(module).__name__}(..., rngs=rngs), ...)."
        )
    elif callable(module):
        init, apply = _nnx(module)
    else:
        raise TypeError(
            f"module is a {type(module).__name__}; give a flax.linen module, or a function from nnx.Rngs to an nnx module."
        )

    def outputs(params: Params, x: Array) -> Array:
        found = apply(params, x)
        one = loss in ("binary", "squared") and found.ndim == 2 and found.shape[1] == 1
        return found[:, 0] if one else found

    return with_loss(init, outputs, loss=loss)


def _linen(module: linen.Module) -> tuple[Callable[[Array, Array], Params], Callable[[Params, Array], Array]]:
    def init(key: Array, x: Array) -> Params:
        variables = module.lazy_init(key, jax.tree.map(_one_record, x))
        _refuse_state([name for name in variables if name != "params"], type(module).__name__)
        return _checked(variables.get("params", {}), type(module).__name__)

    def apply(params: Params, x: Array) -> Array:
        found: Any = module.apply({"params": params}, x)
        return found

    return init, apply


def _one_record(leaf: Array) -> jax.ShapeDtypeStruct:
    """One record of an array of features: integers, such as codes for an embedding, stay integers."""
    dtype = leaf.dtype if jnp.issubdtype(leaf.dtype, jnp.integer) else jnp.float32
    return jax.ShapeDtypeStruct((1, *leaf.shape[1:]), dtype)


def _nnx(
    make: Callable[[nnx.Rngs], nnx.Module],
) -> tuple[Callable[[Array, Array], Params], Callable[[Params, Array], Array]]:
    @functools.cache
    def structure() -> tuple[Any, Any]:
        parts: Any = nnx.split(_silent(make(nnx.Rngs(0))), nnx.Param, nnx.RngState, ...)
        graph, params, randomness, rest = parts
        kinds = {
            type(leaf).__name__ for leaf in jax.tree.leaves(rest, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
        }
        _refuse_state(sorted(kinds), "the nnx module")
        return graph, (params, randomness)

    def init(key: Array, x: Array) -> Params:
        del x  # an nnx module knows its shapes
        structure()  # refuses what keeps state
        params = nnx.state(make(nnx.Rngs(key)), nnx.Param)
        return _checked(nnx.to_pure_dict(params), "the nnx module")

    def apply(params: Params, x: Array) -> Array:
        graph, (state, randomness) = structure()
        state = jax.tree.map(lambda leaf: leaf, state)  # a copy: the values are replaced in place
        nnx.replace_by_pure_dict(state, params)
        found: Any = nnx.merge(graph, state, randomness)(x)
        return found

    return init, apply


def _silent(module: nnx.Module) -> nnx.Module:
    module.eval()  # no dropout
    return module


def _refuse_state(kinds: list[str], name: str) -> None:
    if kinds:
        raise ValueError(
            f"{name} keeps state beside its parameters ({', '.join(kinds)}): with BatchNorm one record moves the gradients of all others, so a clip of each "
            "record's gradient bounds nothing. Use GroupNorm or LayerNorm."
        )


def _checked(params: Any, name: str) -> Params:
    wrong = [
        f"{jax.tree_util.keystr(path)} {leaf.dtype}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if leaf.dtype != jnp.float32
    ]
    if wrong:
        raise ValueError(f"parameters of {name} are not float32: {', '.join(wrong[:3])}; set param_dtype=jnp.float32.")
    return params
