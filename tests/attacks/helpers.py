"""Small images and models that the attack suites share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.models import Model, binary_cross_entropy


def images(count: int, side: int = 16, seed: int = 0) -> np.ndarray:
    """Smooth grey pictures of a few blobs: float32 `[count, side, side, 1]` in [0, 1]."""
    rng = np.random.default_rng(seed)
    grid = np.arange(side) / side
    out = np.zeros((count, side, side))
    for picture in out:
        for _ in range(4):
            row, column, width, light = [*rng.uniform(0, 1, 2).tolist(), rng.uniform(0.1, 0.3), rng.uniform(-0.5, 0.5)]
            picture += light * np.exp(-((grid[:, None] - row) ** 2 + (grid - column) ** 2) / (2 * width**2))
    return np.clip(out + 0.5, 0, 1)[..., None].astype(np.float32)


def conv_model(channels: int = 24) -> Model:
    """A convolution with a 4 x 4 kernel and stride 4 (as a matrix product, which compiles fast), tanh, a dense layer to one logit."""

    def init(key, x):
        first, second = jax.random.split(key)
        size = channels * (x.shape[1] // 4) * (x.shape[2] // 4)
        return {
            "conv": jax.random.normal(first, (16, channels), jnp.float32) * jnp.float32(0.3),
            "out": {
                "weight": jax.random.normal(second, (size, 1), jnp.float32) * jnp.float32(size**-0.5),
                "bias": jnp.zeros(1, jnp.float32),
            },
        }

    def apply(params, x):
        batch, height, width, _ = x.shape
        x = x.reshape(batch, height // 4, 4, width // 4, 4).transpose(0, 1, 3, 2, 4).reshape(batch, -1, 16)
        x = jnp.tanh(x @ params["conv"]).reshape(batch, -1)
        return (x @ params["out"]["weight"])[:, 0] + params["out"]["bias"][0]

    return Model(init, apply, lambda params, x, y: binary_cross_entropy(apply(params, x), y))
