"""How close a reconstruction is to the image: PSNR, SSIM, a distance of edges, the best match in a batch, and the chance level.

No pretrained network is used: the feature distance compares gradient magnitudes (edges), which is what makes an image recognisable where
brightness and contrast differ.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_WINDOW, _SIGMA = 11, 1.5
_EDGE_CONSTANT = 170.0 / 255.0**2  # Xue et al. give 170 for images of 0..255


class ImageScores(NamedTuple):
    """Scores of reconstructions against their originals, one entry each.

    Attributes:
      psnr: peak signal-to-noise ratio, dB, `[T]`; at most 100.
      ssim: structural similarity, at most 1, `[T]`.
      edge_distance: 1 - gradient magnitude similarity, 0 where equal, `[T]`.
    """

    psnr: np.ndarray
    ssim: np.ndarray
    edge_distance: np.ndarray


def psnr(image: Array, reference: Array, peak: float = 1.0) -> Array:
    """`10 log10(peak**2 / mean squared error)` in dB, at most 100 dB, float32 `[]`, of two float32 `[H, W, C]`."""
    error = jnp.mean(jnp.square(image - reference)) / jnp.float32(peak**2)
    return jnp.float32(-10) * jnp.log10(jnp.maximum(error, jnp.float32(1e-10)))


def ssim(image: Array, reference: Array, peak: float = 1.0) -> Array:
    """Mean structural similarity of two float32 `[H, W, C]`: Wang, Bovik, Sheikh and Simoncelli 2004, equation 13.

    Gaussian window of 11 x 11 and deviation 1.5, K1 = 0.01, K2 = 0.03, windows wholly inside the image, mean over windows and channels.

    Raises:
      ValueError: the image is smaller than the window.
    """
    if min(image.shape[:2]) < _WINDOW:
        raise ValueError(f"an image of {image.shape} is smaller than the {_WINDOW} x {_WINDOW} window of SSIM")
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    kernel = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    taps = jnp.asarray(kernel / kernel.sum(), jnp.float32)

    def blurred(x: Array) -> Array:
        rows: Any = jax.vmap(lambda a: jnp.convolve(a, taps, mode="valid"), in_axes=1, out_axes=1)
        return rows(rows(x).T).T

    def one_channel(x: Array, y: Array) -> Array:
        mean_x, mean_y = blurred(x), blurred(y)
        var_x = blurred(x * x) - mean_x * mean_x
        var_y = blurred(y * y) - mean_y * mean_y
        covariance = blurred(x * y) - mean_x * mean_y
        c1, c2 = jnp.float32((0.01 * peak) ** 2), jnp.float32((0.03 * peak) ** 2)
        two = jnp.float32(2)
        top = (two * mean_x * mean_y + c1) * (two * covariance + c2)
        return jnp.mean(top / ((mean_x * mean_x + mean_y * mean_y + c1) * (var_x + var_y + c2)))

    return jnp.mean(jax.vmap(one_channel, in_axes=-1)(image, reference))


def edge_distance(image: Array, reference: Array, peak: float = 1.0) -> Array:
    """One minus the mean gradient magnitude similarity of two float32 `[H, W, C]`.

    Xue, Zhang, Mou and Bovik 2014, equations 3 to 5 (Prewitt gradients, the mean pooling they call GMSM), without their halving of the
    image, which would leave little of one of 28 pixels.
    """

    def magnitude(x: Array) -> Array:
        x = jnp.pad(x / jnp.float32(peak), 1, mode="edge")
        across, third = x[:, 2:] - x[:, :-2], jnp.float32(1 / 3)
        horizontal = (across[:-2] + across[1:-1] + across[2:]) * third
        down = x[2:] - x[:-2]
        vertical = (down[:, :-2] + down[:, 1:-1] + down[:, 2:]) * third
        return jnp.sqrt(horizontal * horizontal + vertical * vertical)

    def one_channel(x: Array, y: Array) -> Array:
        a, b, c = magnitude(x), magnitude(y), jnp.float32(_EDGE_CONSTANT)
        return jnp.mean((jnp.float32(2) * a * b + c) / (a * a + b * b + c))

    return jnp.float32(1) - jnp.mean(jax.vmap(one_channel, in_axes=-1)(image, reference))


@jax.jit
def _score_pairs(images: Array, references: Array, peak: Array) -> tuple[Array, Array, Array]:
    # The measures take a Python peak for their constants; a range of one is the same measure of the scaled images.
    images, references = images / peak, references / peak
    return (
        jax.vmap(psnr)(images, references),
        jax.vmap(ssim)(images, references),
        jax.vmap(edge_distance)(images, references),
    )


def score_images(images: Array, references: Array, peak: float = 1.0) -> ImageScores:
    """Every score of each reconstruction.

    Args:
      images: float32 `[T, H, W, C]`.
      references: float32 `[T, H, W, C]`, the originals in the same order (`best_match` orders them).
      peak: the range of the values.
    """
    scored = _score_pairs(jnp.asarray(images), jnp.asarray(references), jnp.float32(peak))
    return ImageScores(*(np.asarray(s) for s in scored))


def best_match(images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """For each original the index of its reconstruction: the assignment with the largest sum of PSNRs (Hungarian method).

    PSNRs count up to 60 dB, so an exact reconstruction is never given away to make two bad ones a little better.

    Args:
      images: `[n, ...]` reconstructions, n >= m, values around 0..1.
      references: `[m, ...]` originals.

    Returns:
      int64 `[m]`: a batch is a set, so the attack is not blamed for its order. Each reconstruction is used once at most.
    """
    from scipy import optimize  # a quarter of a second of start-up

    a = np.asarray(images, np.float64).reshape(len(images), -1)
    b = np.asarray(references, np.float64).reshape(len(references), -1)
    if len(a) < len(b):
        raise ValueError(f"{len(a)} reconstructions for {len(b)} originals: at least as many are needed.")
    error = np.stack([((a - one) ** 2).mean(axis=1) for one in b])
    return optimize.linear_sum_assignment(np.log(error + 1e-6))[1]


def random_baseline(
    references: np.ndarray, pool: np.ndarray, count: int, key: Array, peak: float = 1.0
) -> tuple[np.ndarray, ImageScores]:
    """The best of `count` random training images for each original: the result of an attacker who has not seen any update.

    A defended reconstruction that scores no better than this is no reconstruction: X-rays of one view resemble each other.

    Args:
      references: float32 `[T, H, W, C]`, the originals.
      pool: float32 `[P, H, W, C]`, training images without the originals.
      count: images drawn for each original: as many as the attack made for it.
      key: draws them.
      peak: the range of the values.

    Returns:
      (float32 `[T, H, W, C]`, the drawn image of highest SSIM for each original; `ImageScores`, each the best over the drawn images).
    """
    if not 1 <= count <= len(pool):
        raise ValueError(f"count={count} images from a pool of {len(pool)}: give 1 <= count <= {len(pool)}.")
    keys = jax.random.split(key, len(references))
    drawn = np.asarray(jax.vmap(lambda k: jax.random.choice(k, len(pool), (count,), replace=False))(keys))
    scores = [score_images(jnp.asarray(pool[column]), jnp.asarray(references), peak) for column in drawn.T]
    quality, similarity, edges = (np.stack([s[i] for s in scores]) for i in range(3))
    best = drawn[np.arange(len(references)), similarity.argmax(axis=0)]
    return pool[best], ImageScores(quality.max(axis=0), similarity.max(axis=0), edges.min(axis=0))
