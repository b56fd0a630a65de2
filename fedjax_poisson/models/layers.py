"""Flax layers whose float32 parameters may be computed with in bfloat16, and a flax module as a `Model`.

Names and shapes of the parameters are flax's own (`kernel`, `bias`, `scale`; a convolution's kernel is `[kh, kw, C, O]`, a dense one
`[in, out]`), so weights of `flax.linen.Conv`, `Dense` and `GroupNorm` can be put in. There is no batch normalisation: its statistics mix the
records of a batch, so one record would move every other record's gradient and clipping each gradient would bound nothing.

A layer declares a kernel by its standard deviation alone; `image_model` draws all kernels at once. Drawing each by itself, as flax does,
compiles one random generator a kernel: seconds for a network of this size.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from .convolution import Padding, check_images, convolve, product
from .model import Model, Params, with_loss


class Convolution(nn.Module):
    """Convolution by patches (`convolution.convolve`).

    Attributes:
      features: O, number of output channels.
      window: side of the square kernel.
      strides: step in both directions.
      padding: "SAME" or "VALID".
      use_bias: whether there is a bias (not before a normalisation, which would take it out again).
      dtype: float32 or bfloat16, type of the factors and of the result; sums and the bias are float32.
    """

    features: int
    window: int = 3
    strides: int = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Float `[B, H, W, C]` to dtype `[B, H', W', features]`."""
        shape = (self.window, self.window, x.shape[-1], self.features)
        kernel = self.param("kernel", _spread(2.0), shape, jnp.float32)
        x = convolve(x, kernel, self.strides, self.padding, self.dtype)
        if self.use_bias:
            x = x + _channels(self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32), x)
        return x.astype(self.dtype)


class Dense(nn.Module):
    """Affine map of the last axis.

    Attributes:
      features: number of outputs.
      last: the layer gives logits: variance 1 / fan_in at the start instead of the 2 / fan_in before a ReLU.
      dtype: float32 or bfloat16, type of the factors; sums, bias and result are float32.
    """

    features: int
    last: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Float `[..., in]` to float32 `[..., features]`."""
        spread = _spread(1.0 if self.last else 2.0)
        kernel = self.param("kernel", spread, (x.shape[-1], self.features), jnp.float32)
        x = product(x, kernel, self.dtype)
        return x + _channels(self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32), x)


def group_norm(x: Array, groups: int, *, name: str, zero: bool = False, dtype: Any = jnp.float32) -> Array:
    """Group normalisation: each record's channels, in groups, are brought to mean 0 and variance 1 over the image.

    Wu and He, Group Normalization, ECCV 2018. Nothing is shared between records, so a record's gradient is its own. To be called within a
    flax module, whose layer it becomes.

    Args:
      x: float `[B, H, W, C]`.
      groups: number of groups, a divisor of C.
      name: of the layer among the parameters.
      zero: the scale starts at 0 instead of 1.
      dtype: type of the result; statistics, scale and bias are float32.

    Returns:
      dtype `[B, H, W, C]`.
    """
    layer = nn.GroupNorm(
        groups,
        epsilon=1e-5,
        dtype=jnp.float32,
        scale_init=nn.initializers.zeros if zero else nn.initializers.ones,
        use_fast_variance=False,  # a difference of moments loses its digits where the mean is large, and saves little
        name=name,
    )
    return layer(x.astype(jnp.float32)).astype(dtype)


def image_model(module: nn.Module, *, binary: bool, smallest: int) -> Model:
    """A flax module of images as a `Model`.

    Args:
      module: float `[B, H, W, C]` to float32 logits `[B, 1]` if binary, else `[B, classes]`.
      binary: one 0/1 label; the logits are then `[B]`.
      smallest: side in pixels below which the strides leave nothing.

    Returns:
      Model with the module's parameters as a plain dict of float32 arrays.
    """

    @functools.partial(jax.jit, static_argnames="shape")
    def draw(key: Array, shape: tuple[int, ...]) -> Params:
        declared = module.lazy_init(key, jax.ShapeDtypeStruct(shape, jnp.float32))["params"]  # no layer is computed
        return _times_normal(declared, key)

    def init(key: Array, features: Array) -> Params:
        check_images(features, smallest)
        return draw(key, shape=(1, *features.shape[1:]))

    @jax.jit  # a network called outside jit would compile hundreds of operations one by one
    def apply(params: Params, x: Array) -> Array:
        check_images(x, smallest)
        logits: Any = module.apply({"params": params}, x)
        return logits[:, 0] if binary else logits

    return with_loss(init, apply, loss="binary" if binary else "softmax")


def outputs(classes: int, binary: bool) -> int:
    """Number of logits of the last layer: 1 for one 0/1 label, else one a class."""
    if binary and classes != 2:
        raise ValueError(
            f"binary=True is one label with two classes, but classes={classes}; set classes=2 or binary=False."
        )
    if classes < 2:
        raise ValueError(f"classes={classes}; expected at least 2.")
    return 1 if binary else classes


def _channels(values: Array, x: Array) -> Array:
    return jnp.expand_dims(values, range(x.ndim - 1))


def _spread(gain: float) -> Callable[..., Array]:
    """A kernel filled with its standard deviation `sqrt(gain / fan_in)` (He et al., Delving Deep into Rectifiers, equation 10: gain 2)."""

    def fill(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        del key
        return jnp.full(shape, math.sqrt(gain / math.prod(shape[:-1])), dtype)

    return fill


def _times_normal(declared: Params, key: Array) -> Params:
    """Kernels times standard normals, all from one draw; biases and scales as declared."""
    leaves, tree = jax.tree.flatten_with_path(declared)
    sizes = [leaf.size if path[-1].key == "kernel" else 0 for path, leaf in leaves]
    ends = np.cumsum(sizes)
    normals = jax.random.normal(key, (int(ends[-1]),), jnp.float32)
    drawn = [
        leaf * normals[end - size : end].reshape(leaf.shape) if size else leaf
        for (_, leaf), size, end in zip(leaves, sizes, ends, strict=True)
    ]
    return jax.tree.unflatten(tree, drawn)
