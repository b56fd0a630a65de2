"""Convolution as patches times a matrix, and pooling, in forms that stay fast when every client or record has its own weights.

`vmap` over kernels turns XLA's convolution into a grouped one, which is several times slower on a GPU and more so on a CPU, where every
convolution inside a loop is slow besides. A matrix product under `vmap` is a batched matrix product and stays fast. Patches are made of
shifted slices, first along the width, then along the height: kh + kw copies instead of kh * kw, whose gradient is as many shifted additions
(the gradient of `lax.conv_general_dilated_patches` would be a grouped convolution again). Pooling avoids `reduce_window` for its gradient.

Images are `[B, H, W, C]`, kernels `[kh, kw, C, O]`. SAME pads with zeros as XLA does: `ceil(n / stride)` outputs, the odd row of padding at
the end.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Padding = Literal["SAME", "VALID"]
Size = int | Sequence[int]


def product(x: Array, matrix: Array, dtype: Any = jnp.float32) -> Array:
    """`x @ matrix` with factors rounded to `dtype` and sums in float32, in the gradient too.

    With bfloat16, jax's own gradient would multiply float32 by bfloat16 (slow) and round the sums of the weights' gradient; so the rule is
    written out: the cotangent is rounded like any factor, its products are summed and given back in float32.

    Args:
      x: float `[..., K]`.
      matrix: float `[K, O]`.
      dtype: float32 or bfloat16, type of the factors.

    Returns:
      float32 `[..., O]`.
    """
    x, matrix = x.astype(jnp.float32), matrix.astype(jnp.float32)
    if check_dtype(dtype) == jnp.float32:  # jax's own rule is right, and keeps forward-mode derivatives
        return _dot(x, matrix, (x.ndim - 1,), (0,))
    return _rounded_product(x, matrix, dtype)


def patches(x: Array, window: tuple[int, int], strides: Size = 1, padding: Padding = "SAME") -> Array:
    """Every window of an image as one row, in the order of a kernel `[kh, kw, C]`.

    Args:
      x: `[B, H, W, C]`.
      window: (kh, kw).
      strides: one number or (vertical, horizontal).
      padding: "SAME" (zeros) or "VALID".

    Returns:
      `[B, H', W', kh * kw * C]` of x's type.

    Raises:
      ValueError: x is not a batch of images, or a VALID window is larger than the image.
    """
    check_images(x)
    vertical, horizontal = _pair(strides, "strides")
    side_by_side = functools.partial(jnp.concatenate, axis=-1)
    x = _shifted(x, 2, window[1], horizontal, padding, 0, side_by_side)
    return _shifted(x, 1, window[0], vertical, padding, 0, side_by_side)


def convolve(x: Array, kernel: Array, strides: Size = 1, padding: Padding = "SAME", dtype: Any = jnp.float32) -> Array:
    """Convolution (correlation, as everywhere in deep learning) of a batch of images.

    Equals `lax.conv_general_dilated` with ("NHWC", "HWIO", "NHWC"). The patches hold `kh * kw` times the image's memory.

    Args:
      x: float `[B, H, W, C]`.
      kernel: float `[kh, kw, C, O]`.
      strides: one number or (vertical, horizontal).
      padding: "SAME" or "VALID".
      dtype: float32 or bfloat16, type of the factors; sums are float32 (see `product`).

    Returns:
      float32 `[B, H', W', O]`.

    Raises:
      ValueError: wrong rank, channels that do not fit, a VALID window larger than the image.
    """
    check_images(x)
    if kernel.ndim != 4 or kernel.shape[2] != x.shape[3]:
        raise ValueError(
            f"the kernel has shape {kernel.shape}; images of {x.shape[3]} channels need [kh, kw, {x.shape[3]}, O]."
        )
    # In float32, because the gradient of the patches is a sum over the windows; the rounding is fused into the copies.
    rows = patches(x.astype(jnp.float32), (kernel.shape[0], kernel.shape[1]), strides, padding)
    return product(rows, kernel.reshape(-1, kernel.shape[3]), dtype)


def max_pool(x: Array, window: Size = 2, strides: Size | None = None, padding: Padding = "VALID") -> Array:
    """Largest entry of each window and channel; where several entries tie, the gradient is shared among them.

    Args:
      x: float `[B, H, W, C]`.
      window: one number or (kh, kw).
      strides: the same; None means the window, so that windows tile the image.
      padding: "VALID" leaves out what does not fill a window, "SAME" lets windows reach over the border.

    Returns:
      `[B, H', W', C]` of x's type.

    Raises:
      ValueError: x is not a batch of images, or a VALID window is larger than the image.
    """
    size, steps = _pool_sizes(x, window, strides)
    if size == steps:
        for axis in (2, 1):
            x = _tiled(x, axis, size[axis - 1], padding, -np.inf)
        return jnp.max(x, axis=(2, 4))
    for axis in (2, 1):  # the largest of a row, then of the column of these
        x = _shifted(x, axis, size[axis - 1], steps[axis - 1], padding, -np.inf, _all(jnp.maximum))
    return x


def average_pool(x: Array, window: Size = 2, strides: Size | None = None, padding: Padding = "VALID") -> Array:
    """Mean of each window and channel over the entries that lie inside the image.

    Args:
      x: float `[B, H, W, C]`.
      window: one number or (kh, kw).
      strides: the same; None means the window.
      padding: "VALID" or "SAME".

    Returns:
      `[B, H', W', C]` of x's type; sums are float32.

    Raises:
      ValueError: x is not a batch of images, or a VALID window is larger than the image.
    """
    size, steps = _pool_sizes(x, window, strides)
    total = x.astype(jnp.float32)
    for axis in (2, 1):
        inside = np.ones(x.shape[axis], np.float32)
        low, high, count = _padding(inside.size, size[axis - 1], steps[axis - 1], padding)
        padded = np.pad(inside, (low, max(high, 0)))
        weights = [padded[i * steps[axis - 1] : i * steps[axis - 1] + size[axis - 1]].sum() for i in range(count)]
        total = _shifted(total, axis, size[axis - 1], steps[axis - 1], padding, 0, _all(jnp.add))
        total = total / jnp.expand_dims(jnp.asarray(weights, jnp.float32), [k for k in range(4) if k != axis])
    return total.astype(x.dtype)


def check_images(x: Array, smallest: int = 1) -> None:
    """Refuse anything that is not a batch `[B, H, W, C]` of float images with sides of at least `smallest` pixels."""
    if x.ndim != 4:
        hint = "; add the channels with x[..., None]" if x.ndim == 3 else ""
        raise ValueError(f"images have shape {x.shape}; expected a batch [B, H, W, C]{hint}.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"images are {x.dtype}; expected floats, for example x.astype(float32) / 255.")
    if min(x.shape[1:3]) < smallest:
        raise ValueError(
            f"images of {x.shape[1]}x{x.shape[2]} pixels are too small: the strides divide each side by {smallest}; "
            f"use images of at least {smallest}x{smallest}, or fewer strides (fewer stages or widths, small_images=True)."
        )


def check_dtype(dtype: Any) -> np.dtype:
    """The computation type; refuses all but float32 and bfloat16 (float16 loses small gradients without a loss scale)."""
    kind = jnp.dtype(dtype)
    if kind not in (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)):
        raise ValueError(f"dtype is {kind}; computation is in float32 or bfloat16.")
    return kind


def _dot(a: Array, b: Array, left: Sequence[int], right: Sequence[int]) -> Array:
    return lax.dot_general(a, b, ((tuple(left), tuple(right)), ((), ())), preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _rounded_product(x: Array, matrix: Array, dtype: Any) -> Array:
    return _dot(x.astype(dtype), matrix.astype(dtype), (x.ndim - 1,), (0,))


def _rounded_forward(x: Array, matrix: Array, dtype: Any) -> tuple[Array, tuple[Array, Array]]:
    factors = x.astype(dtype), matrix.astype(dtype)
    return _dot(*factors, (x.ndim - 1,), (0,)), factors


def _rounded_backward(dtype: Any, factors: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, matrix = factors
    g, rows = cotangent.astype(dtype), range(x.ndim - 1)
    return _dot(g, matrix, (x.ndim - 1,), (1,)), _dot(x, g, rows, rows)


_rounded_product.defvjp(_rounded_forward, _rounded_backward)


def _pair(size: Size, name: str) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"{name} is {size}; expected one number or two, each at least 1.")
    return pair[0], pair[1]


def _pool_sizes(x: Array, window: Size, strides: Size | None) -> tuple[tuple[int, int], tuple[int, int]]:
    check_images(x)
    size = _pair(window, "window")
    return size, size if strides is None else _pair(strides, "strides")


def _padding(length: int, window: int, stride: int, padding: str) -> tuple[int, int, int]:
    """(before, after, outputs) along one axis; after is negative where the last entries are in no window."""
    if padding == "SAME":
        count = -(-length // stride)
        total = (count - 1) * stride + window - length
        return max(total, 0) // 2, total - max(total, 0) // 2, count
    if padding != "VALID":
        raise ValueError(f"padding is {padding!r}; expected 'SAME' or 'VALID'.")
    if length < window:
        raise ValueError(f"a VALID window of {window} does not fit into {length} pixels; use SAME or larger images.")
    count = (length - window) // stride + 1
    return 0, (count - 1) * stride + window - length, count


def _padded(x: Array, axis: int, low: int, high: int, fill: float) -> Array:
    if low == high == 0:
        return x
    widths = [(low, high, 0) if k == axis else (0, 0, 0) for k in range(x.ndim)]
    return lax.pad(x, jnp.asarray(fill, x.dtype), widths)  # a negative width crops


def _shifted(
    x: Array, axis: int, window: int, stride: int, padding: str, fill: float, join: Callable[[list[Array]], Array]
) -> Array:
    """Join the `window` shifted copies of x along one axis."""
    low, high, count = _padding(x.shape[axis], window, stride, padding)
    if window == 1 and stride == 1:
        return x
    x = _padded(x, axis, low, high, fill)
    return join([lax.slice_in_dim(x, i, i + (count - 1) * stride + 1, stride, axis) for i in range(window)])


def _all(operation: Callable[[Array, Array], Array]) -> Callable[[list[Array]], Array]:
    return lambda parts: functools.reduce(operation, parts)


def _tiled(x: Array, axis: int, window: int, padding: str, fill: float) -> Array:
    """Split one axis into (windows, window)."""
    low, high, count = _padding(x.shape[axis], window, window, padding)
    x = _padded(x, axis, low, high, fill)
    return x.reshape(*x.shape[:axis], count, window, *x.shape[axis + 1 :])
