"""Residual networks with group normalisation: ResNet-18, ResNet-50 and small ones for small images on a CPU.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016; the stride of a bottleneck is in its 3x3 convolution, as in torchvision.
Group normalisation (Wu and He, ECCV 2018) stands where batch normalisation stood: batch statistics would mix the records of a batch, which
leaks between records and breaks per-record gradients; it has as many parameters, a scale and a bias a channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from .convolution import check_dtype, max_pool
from .layers import Convolution, Dense, group_norm, image_model, outputs
from .model import Model, recorded


class Block(nn.Module):
    """Two 3x3 convolutions, or a bottleneck 1x1, 3x3, 1x1 to four times the width, added to a shortcut.

    Attributes:
      width: channels of the inner convolutions.
      strides: step of the (first) 3x3 convolution and of the shortcut.
      bottleneck: the second form.
      groups: groups of every normalisation.
      zero_init: the last normalisation's scale starts at 0.
      dtype: computation type.
    """

    width: int
    strides: int
    bottleneck: bool
    groups: int
    zero_init: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Dtype `[B, H, W, C]` to dtype `[B, H / strides, W / strides, width or 4 width]`."""
        if self.bottleneck:
            plan = [(1, 1, self.width), (3, self.strides, self.width), (1, 1, 4 * self.width)]
        else:
            plan = [(3, self.strides, self.width), (3, 1, self.width)]
        y, last = x, len(plan) - 1
        for index, (window, strides, width) in enumerate(plan):
            y = Convolution(width, window, strides, use_bias=False, dtype=self.dtype, name=f"conv{index}")(y)
            zero = self.zero_init and index == last
            y = group_norm(y, self.groups, zero=zero, dtype=self.dtype, name=f"norm{index}")
            y = y if index == last else jax.nn.relu(y)
        if x.shape != y.shape:
            x = Convolution(plan[last][2], 1, self.strides, use_bias=False, dtype=self.dtype, name="shortcut")(x)
            x = group_norm(x, self.groups, dtype=self.dtype, name="shortcut_norm")
        return jax.nn.relu(x + y)


class ResNet(nn.Module):
    """Stem, stages of blocks (each stage after the first halves the image and doubles the width), mean over the image, logits."""

    outputs: int
    stages: tuple[int, ...]
    width: int
    bottleneck: bool
    small_images: bool
    groups: int
    zero_init: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Float `[B, H, W, C]` to float32 `[B, outputs]`."""
        window, strides = (3, 1) if self.small_images else (7, 2)
        x = Convolution(self.width, window, strides, use_bias=False, dtype=self.dtype, name="stem")(x)
        x = jax.nn.relu(group_norm(x, self.groups, dtype=self.dtype, name="stem_norm"))
        if not self.small_images:
            x = max_pool(x, 3, 2, "SAME")
        for stage, count in enumerate(self.stages):
            for index in range(count):
                x = Block(
                    width=self.width * 2**stage,
                    strides=2 if stage > 0 and index == 0 else 1,
                    bottleneck=self.bottleneck,
                    groups=self.groups,
                    zero_init=self.zero_init,
                    dtype=self.dtype,
                    name=f"stage{stage}_block{index}",
                )(x)
        x = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return Dense(self.outputs, last=True, name="logits")(x)


@recorded
def resnet(
    classes: int,
    *,
    stages: Sequence[int],
    width: int = 64,
    bottleneck: bool = False,
    small_images: bool = False,
    groups: int | None = None,
    zero_init: bool = True,
    binary: bool = False,
    dtype: Any = jnp.float32,
) -> Model:
    """Residual network of any size.

    Args:
      classes: number of classes.
      stages: blocks of each stage, such as (2, 2, 2, 2).
      width: channels of the stem and the first stage; every further stage has twice as many (times four in a bottleneck's output).
      bottleneck: blocks of 1x1, 3x3 and 1x1 convolutions instead of two 3x3.
      small_images: a 3x3 stem that keeps the size, for 28 to 64 pixels, instead of a 7x7 one with stride 2 and 3x3 max pooling.
      groups: groups of every normalisation, a divisor of width; None means the largest divisor up to 32 and up to width / 2: Wu and
        He's 32 at the usual width of 64, and in narrow networks at least two channels a group.
      zero_init: every block starts as its shortcut: the scale of its last normalisation is 0 (Goyal et al., Accurate, Large Minibatch SGD,
        2017, section 5.1; He, T. et al., Bag of Tricks, CVPR 2019). The branch's other weights have no gradient in the very first step.
      binary: one 0/1 label (classes = 2): logits are `[B]` and the loss is binary cross entropy.
      dtype: float32 or bfloat16, type of activations and factors; parameters, sums, statistics and logits are float32.

    Returns:
      Model; parameters are a dict of float32 arrays, `{"stem": {"kernel"}, "stem_norm": {"scale", "bias"}, "stage0_block0": {"conv0": ...},
      ..., "logits": {"kernel", "bias"}}`. Kernels start He-normal.

    Raises:
      ValueError: an impossible size, or groups that do not divide the width; when used, images that are no `[B, H, W, C]` floats or smaller
        than the product of the strides.
    """
    counts = tuple(stages)
    if not counts or min(counts) < 1 or width < 1:
        raise ValueError(
            f"stages={counts}, width={width}; expected at least one stage, each of at least one block, and a width of at least 1."
        )
    if groups is None:
        groups = max(d for d in range(1, 33) if width % d == 0 and (d == 1 or 2 * d <= width))
    if groups < 1 or width % groups:
        raise ValueError(f"groups={groups} does not divide width={width}; choose a divisor of {width}.")
    check_dtype(dtype)
    module = ResNet(outputs(classes, binary), counts, width, bottleneck, small_images, groups, zero_init, dtype)
    return image_model(module, binary=binary, smallest=(1 if small_images else 4) * 2 ** (len(counts) - 1))


@recorded
def resnet18(classes: int = 1000, *, width: int = 64, **options: Any) -> Model:
    """ResNet-18: 11,689,512 parameters with 1000 classes and images of three channels. Options as in `resnet`."""
    return resnet(classes, stages=(2, 2, 2, 2), width=width, **options)


@recorded
def resnet50(classes: int = 1000, *, width: int = 64, **options: Any) -> Model:
    """ResNet-50: 25,557,032 parameters with 1000 classes and images of three channels. Options as in `resnet`.

    That is the count of torchvision's model, whose batch normalisation has the same scale and bias a channel: 9,408 in the stem,
    23,445,504 in the blocks' convolutions, 53,120 in the 53 normalisations, 2,049,000 in the logits.
    """
    return resnet(classes, stages=(3, 4, 6, 3), width=width, bottleneck=True, **options)


@recorded
def small_resnet(classes: int = 10, *, width: int = 16, blocks: int = 1, **options: Any) -> Model:
    """Residual network for images of about 28x28 that a CPU can train with per-record gradients.

    The network of 6 blocks + 2 layers of He et al. 2016, section 4.2 (three stages, three by three stem) with 1x1 shortcuts. Parameters with
    one block a stage, 10 classes and one channel: about 20 thousand at width 8, 78 thousand at 16, 308 thousand at 32. Narrow is often
    better under privacy, where the noise grows with the number of parameters.

    Args:
      classes: number of classes.
      width: channels of the first stage; the last has four times as many.
      blocks: blocks of each stage.
      **options: as in `resnet`.
    """
    return resnet(classes, stages=(blocks, blocks, blocks), width=width, small_images=True, **options)
