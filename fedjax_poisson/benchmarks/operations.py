"""How much work a program is, counted in its jaxpr: the least that any device has to compute, whatever its compiler makes of it.

An operation is one value of an elementwise primitive's result; moving, reshaping and converting values are free, as a compiler may fuse them away. Loops count
as often as they run where jax knows it (`scan`), once where it does not; of several branches the dearest counts. Matrix products and convolutions are counted
apart, in multiplications with their additions. Bytes are those of arguments and results, each read or written at least once.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

__all__ = ["Work", "bytes_of", "floor_seconds", "work_of"]

_FREE = frozenset(
    "broadcast_in_dim reshape squeeze transpose slice dynamic_slice dynamic_update_slice concatenate pad rev copy copy_p convert_element_type "
    "bitcast_convert_type iota stop_gradient optimization_barrier platform_index split device_put".split()
)


class Work(NamedTuple):
    """Operations of a program.

    Attributes:
      values: results of elementwise primitives, look-ups and reductions.
      multiply_adds: of matrix products and convolutions.
    """

    values: float
    multiply_adds: float


def _plus(one: Work, other: Work, times: float = 1.0) -> Work:
    return Work(one.values + times * other.values, one.multiply_adds + times * other.multiply_adds)


def _size(variable: Any) -> int:
    return math.prod(getattr(variable.aval, "shape", ()))


def _inside(equation: Any) -> list[Jaxpr]:
    """The jaxprs that an equation carries."""
    found: list[Jaxpr] = []
    for value in equation.params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(one, ClosedJaxpr):
                found.append(one.jaxpr)
            elif isinstance(one, Jaxpr):
                found.append(one)
    return found


def _dot(equation: Any) -> float:
    contracted = equation.params["dimension_numbers"][0][0]
    shape = equation.invars[0].aval.shape
    return float(_size(equation.outvars[0]) * math.prod(shape[axis] for axis in contracted))


def _convolution(equation: Any) -> float:
    kernel = equation.invars[1].aval.shape
    out_features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return float(_size(equation.outvars[0]) * math.prod(kernel) / out_features)


def _one(equation: Any) -> Work:
    name, inside = equation.primitive.name, _inside(equation)
    if name == "dot_general":
        return Work(0.0, _dot(equation))
    if name == "conv_general_dilated":
        return Work(0.0, _convolution(equation))
    if name == "cond":
        return max((work_of(branch) for branch in inside), key=lambda work: work.values + work.multiply_adds)
    if inside and not name.startswith(("reduce", "argm", "scatter", "sort", "custom_lin")):
        total = Work(0.0, 0.0)
        for one in inside:
            total = _plus(total, work_of(one), equation.params.get("length", 1) if name == "scan" else 1)
        return total
    if name in _FREE:
        return Work(0.0, 0.0)
    reads = [equation.invars[0]] if name.startswith(("reduce", "argm", "cum")) else equation.outvars
    return Work(float(sum(_size(one) for one in reads)), 0.0)


def work_of(program: Any) -> Work:
    """The operations of a `ClosedJaxpr` or `Jaxpr`."""
    jaxpr = program.jaxpr if isinstance(program, ClosedJaxpr) else program
    total = Work(0.0, 0.0)
    for equation in jaxpr.eqns:
        total = _plus(total, _one(equation))
    return total


def bytes_of(tree: Any) -> int:
    """Bytes of the arrays of a tree, or of their shapes."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape") and hasattr(leaf, "dtype")]
    return sum(math.prod(leaf.shape) * (np.dtype(leaf.dtype).itemsize if not _is_key(leaf) else 8) for leaf in leaves)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def floor_seconds(
    work: Work, moved: float, *, bytes_per_s: float, integer_per_s: float, multiply_add_per_s: float
) -> float | None:
    """The least time on a device with these peaks: memory, vector units and matrix units all at work at once; None for a device without stated peaks."""
    if not (bytes_per_s and integer_per_s and multiply_add_per_s):
        return None
    return max(moved / bytes_per_s, work.values / integer_per_s, work.multiply_adds / multiply_add_per_s)
