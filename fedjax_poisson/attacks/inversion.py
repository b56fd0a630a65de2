"""Gradient inversion: images whose gradient points where the observed update points.

Geiping, Bauermeister, Droege and Moeller 2020 ("Inverting Gradients"), equation 4: minimise over the images of the batch

    1 - <g(x), g*> / (|g(x)| |g*|) + alpha TV(x)

by Adam on the *sign* of the gradient, inside the box of possible pixel values, from random images, several restarts; the restart with
the least objective is the answer (the attacker has no original to choose by). The step is decayed along a half cosine (theirs: three drops by
ten). Targets and restarts run in one vmapped program.

The direction is all that is matched, so L2 clipping does not hinder the attack at all; noise and summing with others do.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson import trees
from fedjax_poisson.models import Model

NEEDS = "the model's parameters and one observed update; the labels (recovered from the update, or taken from the truth: then that too)"
TRY_NEXT = (
    "more restarts and steps; the average of many noisy updates of the same images; a generative prior of X-rays (Jeon et al. 2021); "
    "a malicious server (`first_layer.plant_imprint`)"
)


_MEAN_DECAY, _SQUARE_DECAY = 0.9, 0.999  # Adam's (Kingma and Ba 2015)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InversionConfig:
    """Settings of the optimisation.

    Attributes:
      steps: Adam steps.
      learning_rate: first step in units of pixel values; decays to zero along a half cosine.
      total_variation: alpha, weight of the mean absolute difference of neighbouring pixels.
      restarts: random starts for each target.
      low: least pixel value.
      high: largest pixel value.
      chunk: targets optimised at once; bounds memory.
    """

    steps: int = 1000
    learning_rate: float = 0.1
    total_variation: float = 1e-2
    restarts: int = 1
    low: float = 0.0
    high: float = 1.0
    chunk: int = 32

    def __post_init__(self) -> None:
        if min(self.steps, self.restarts, self.chunk) < 1 or not self.low < self.high or self.learning_rate <= 0:
            raise ValueError(f"{self}: steps, restarts and chunk are at least 1, low < high and learning_rate > 0.")


class Inversion(NamedTuple):
    """Reconstructions of one attack.

    Attributes:
      images: float32 `[T, B, ...]`, the best restart's images for each target.
      objective: float32 `[T]`, its objective; 0 is a perfect match of direction with a constant image.
      spread: float32 `[T]`, objective of the worst restart less the best: large means that more restarts may help.
      needs: what the attacker must have.
      try_next: what a stronger attacker would do.
    """

    images: np.ndarray
    objective: np.ndarray
    spread: np.ndarray
    needs: str
    try_next: str


def total_variation(images: Array) -> Array:
    """Mean absolute difference of vertical and horizontal neighbours of `[B, H, W, C]`; 0 for records that are no images (`[B, F]`)."""
    if images.ndim != 4:
        return jnp.float32(0)
    down, across = images[:, 1:] - images[:, :-1], images[:, :, 1:] - images[:, :, :-1]
    return jnp.mean(jnp.abs(down)) + jnp.mean(jnp.abs(across))


def invert(
    model: Model,
    params: Any,
    gradients: Array,
    labels: Array,
    shape: tuple[int, ...],
    key: Array,
    config: InversionConfig | None = None,
) -> Inversion:
    """Reconstruct the records behind observed gradients.

    Args:
      model: the attacked model; its loss must be twice differentiable almost everywhere (smooth activations invert best).
      params: parameters at which the gradients were taken.
      gradients: float32 `[T, D]`, one observed update for each target, in any scale and of either view.
      labels: `[T, B]`, label of each record of each target's batch (`labels.recover_labels`); B = 1 for single records.
      shape: of one record, `(H, W, C)` or `(F,)`.
      key: random starts.
      config: settings; None for the defaults.

    Returns:
      `Inversion`, records of a batch in arbitrary order (`scores.best_match`).

    Raises:
      ValueError: gradients and labels do not fit each other or the model.
    """
    config = InversionConfig() if config is None else config
    size = trees.layout(params).size
    if gradients.ndim != 2 or gradients.shape[1] != size or labels.ndim != 2 or len(labels) != len(gradients):
        raise ValueError(
            f"gradients {gradients.shape} and labels {labels.shape} of a model with {size} parameters: expected [T, {size}] and [T, B]."
        )
    keys = jax.random.split(key, (len(gradients), config.restarts))
    parts = [
        _invert_chunk(
            model, config, tuple(shape), params, gradients[i : i + config.chunk], labels[i : i + config.chunk], k
        )
        for i in range(0, len(gradients), config.chunk)
        for k in (keys[i : i + config.chunk],)
    ]
    images, objective, spread = (np.concatenate([np.asarray(part[i]) for part in parts]) for i in range(3))
    return Inversion(images, objective, spread, NEEDS, TRY_NEXT)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _invert_chunk(
    model: Model,
    config: InversionConfig,
    shape: tuple[int, ...],
    params: Any,
    gradients: Array,
    labels: Array,
    keys: Array,
) -> tuple[Array, Array, Array]:
    """Best images `[T, B, ...]`, their objective and the spread over restarts."""
    targets = gradients / (jnp.linalg.norm(gradients, axis=1, keepdims=True) + jnp.float32(1e-30))
    alpha, low, high = (jnp.float32(v) for v in (config.total_variation, config.low, config.high))

    def objective(images: Array, target: Array, label: Array) -> Array:
        gradient = trees.flatten(jax.grad(lambda p: jnp.sum(model.loss(p, images, label)))(params))
        # A record that is fitted perfectly has no gradient: the floor keeps the derivative finite there.
        cosine = jnp.sum(gradient * target) * jax.lax.rsqrt(jnp.sum(gradient * gradient) + jnp.float32(1e-24))
        return jnp.float32(1) - cosine + alpha * total_variation(images)

    def one_start(target: Array, label: Array, start_key: Array) -> tuple[Array, Array]:
        middle, width = (high + low) / jnp.float32(2), (high - low) / jnp.float32(4)
        noise = jax.random.normal(start_key, (label.shape[0], *shape), jnp.float32)
        start = jnp.clip(middle + width * noise, low, high)

        def step(carry: tuple[Array, Array, Array], number: Array) -> tuple[tuple[Array, Array, Array], None]:
            images, mean, square = carry
            slope = jnp.sign(jnp.nan_to_num(jax.grad(objective)(images, target, label)))
            mean = _MEAN_DECAY * mean + (1 - _MEAN_DECAY) * slope
            square = _SQUARE_DECAY * square + (1 - _SQUARE_DECAY) * slope * slope
            done = number.astype(jnp.float32) + jnp.float32(1)
            unbiased = mean / (1 - jnp.float32(_MEAN_DECAY) ** done)
            scale = jnp.sqrt(square / (1 - jnp.float32(_SQUARE_DECAY) ** done)) + jnp.float32(1e-8)
            rate = config.learning_rate / 2 * (1 + jnp.cos(jnp.float32(jnp.pi / config.steps) * (done - 1)))
            return (jnp.clip(images - rate * unbiased / scale, low, high), mean, square), None

        still = jnp.zeros_like(start)
        (images, _, _), _ = jax.lax.scan(step, (start, still, still), jnp.arange(config.steps, dtype=jnp.int32))
        return images, objective(images, target, label)

    images, values = jax.vmap(lambda t, y, ks: jax.vmap(lambda k: one_start(t, y, k))(ks))(targets, labels, keys)
    best = jnp.argmin(values, axis=1)
    chosen = jnp.take_along_axis(images, best.reshape(-1, *(1,) * (images.ndim - 1)), axis=1)[:, 0]
    return chosen, jnp.min(values, axis=1), jnp.max(values, axis=1) - jnp.min(values, axis=1)
