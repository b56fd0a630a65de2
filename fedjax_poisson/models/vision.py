"""A small convolutional network for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from .convolution import check_dtype, max_pool
from .layers import Convolution, Dense, image_model, outputs
from .model import Model, recorded


class CNN(nn.Module):
    """3x3 convolutions, each with ReLU and 2x2 max pooling, then one hidden dense layer; see `cnn`."""

    outputs: int
    widths: tuple[int, ...]
    dense: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Float `[B, H, W, C]` to float32 `[B, outputs]`."""
        for index, width in enumerate(self.widths):
            x = max_pool(jax.nn.relu(Convolution(width, dtype=self.dtype, name=f"conv{index}")(x)))
        x = x.reshape(x.shape[0], -1)  # in the order H, W, C
        x = jax.nn.relu(Dense(self.dense, dtype=self.dtype, name="dense")(x))
        return Dense(self.outputs, last=True, name="logits")(x)


@recorded
def cnn(
    classes: int = 10,
    *,
    widths: Sequence[int] = (32, 64),
    dense: int = 128,
    binary: bool = False,
    dtype: Any = jnp.float32,
) -> Model:
    """Convolutional network: for each width a 3x3 SAME convolution, ReLU and 2x2 max pooling; a hidden dense layer; logits.

    With the defaults and images of 28x28x1 it has 421,642 parameters (320 + 18,496 + 401,536 + 1,290). There is no normalisation, so every
    record's gradient is its own.

    Args:
      classes: number of classes.
      widths: channels of the convolutions; each halves the image, so n of them need images of at least 2**n pixels.
      dense: width of the hidden dense layer.
      binary: one 0/1 label (classes = 2): logits are `[B]` and the loss is binary cross entropy.
      dtype: float32 or bfloat16, type of the factors of every product but the logits' own; parameters, sums and logits are float32.

    Returns:
      Model with parameters `{"conv0": {"kernel": [3, 3, C, 32], "bias": [32]}, "conv1": ..., "dense": {"kernel": [in, 128], "bias"},
      "logits": {"kernel": [128, classes], "bias"}}`, float32. Dense kernels are `[in, out]`, images are flattened in the order H, W, C.
      Kernels start He-normal (the logits' with variance 1 / fan_in), biases at zero.

    Raises:
      ValueError: an impossible size; when used, images that are no `[B, H, W, C]` floats or too small for the poolings.
    """
    sizes = (*widths, dense)
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(
            f"widths={tuple(widths)}, dense={dense}; expected at least one convolution and widths of at least 1."
        )
    check_dtype(dtype)
    module = CNN(outputs(classes, binary), tuple(widths), dense, dtype)
    return image_model(module, binary=binary, smallest=2 ** len(tuple(widths)))
