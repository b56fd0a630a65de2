"""Small cohorts, a noise-free twin of a mechanism, and the clip in float64: what the federated suites share."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.aggregation import Aggregator, aggregator
from fedjax_poisson.federated import Records
from fedjax_poisson.mechanisms import Mechanism, poisson_embedding
from fedjax_poisson.randomness import GRID_BITS, ReproducibleStreamWarning, Stream, stream


def seeded(seed: int) -> Stream:
    """A reproducible stream without its warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReproducibleStreamWarning)
        return stream(seed)


def mechanism(
    clip_norm: float = 1.0, coordinate_bound: float = 0.5, total_bound: float | None = 8.0, dark_count: float = 400.0
) -> Mechanism:
    """A Poisson embedding of one shape, so that suites share compiled programs."""
    return poisson_embedding(
        clip_norm=clip_norm,
        coordinate_bound=coordinate_bound,
        dark_count=dark_count,
        modulation=0.1,
        total_bound=total_bound,
    )


def step_of(mechanism: Mechanism) -> float:
    """Value of one grid step."""
    assert mechanism.bounds.grid_step is not None
    return mechanism.bounds.grid_step


def noise_free(mechanism: Mechanism) -> Mechanism:
    """The same clip and clamp; the grid itself is sent, so that a sum can be compared with arithmetic."""
    top, step = jnp.int32(2**GRID_BITS), jnp.float32(step_of(mechanism))
    return mechanism._replace(
        embed=lambda stream, grid: jnp.clip(grid, -top, top),
        estimate=lambda total, senders: jnp.asarray(total).astype(jnp.float32) * step,
        count_bound=lambda senders, dimension, failure=0.0: senders * 2**GRID_BITS,
        variance=lambda senders: 0.0,
        portions=None,
    )


def hashed(own: Stream, values: jax.Array) -> jax.Array:
    """uint32 of the shape of uint32 `[D]`: each bit of a value and of the stream's key moves it. No random numbers, as a cipher is a large program."""
    places = jnp.arange(values.shape[0], dtype=jnp.uint32)
    mixed = values * jnp.uint32(2654435761)
    for word in range(own.key.shape[0]):
        mixed = (mixed ^ (own.key[word] + places)) * jnp.uint32(2654435769)
        mixed = mixed ^ (mixed >> jnp.uint32(15))
    return mixed


def light(mechanism: Mechanism) -> Mechanism:
    """The same clip, bounds and price without a sampler, most of what a round in the clear compiles: for tests of what rounds share and not of noise.

    Every bit of a client's grid and of its stream moves the hash that the counts show five bits of, so that programs that differ in one of them differ in the
    counts of a few coordinates; a sampler would hide most.
    """

    def embed(own: Stream, grid: jax.Array) -> jax.Array:
        noise = hashed(own, grid.astype(jnp.uint32)) >> jnp.uint32(27)
        return (grid >> jnp.int32(GRID_BITS - 3)) + noise.astype(jnp.int32) - jnp.int32(16)

    return mechanism._replace(embed=embed)


def plain_aggregator(mechanism: Mechanism, senders: int, size: int, minimum: int | None = None) -> Aggregator:
    return aggregator(
        "plain",
        count_bound=mechanism.count_bound(senders, size),
        senders=senders,
        minimum_senders=senders if minimum is None else minimum,
        size=size,
    )


def cohort(sizes: tuple[int, ...], features: int, seed: int = 0, room: int | None = None) -> Records:
    """Standard normal records, labels from a noisy linear rule, padded with zeros to `room` (the largest site)."""
    rng = np.random.default_rng(seed)
    room = max(sizes) if room is None else room
    x = np.zeros((len(sizes), room, features), np.float32)
    y = np.zeros((len(sizes), room), np.float32)
    mask = np.zeros((len(sizes), room), bool)
    for s, n in enumerate(sizes):
        x[s, :n] = rng.normal(size=(n, features))
        y[s, :n] = x[s, :n, 0] + 0.5 * rng.normal(size=n) > 0
        mask[s, :n] = True
    unit = np.where(mask, np.arange(room, dtype=np.int32), np.int32(-1))
    return Records(jnp.asarray(x), jnp.asarray(y), jnp.asarray(mask), jnp.asarray(unit))


def clipped(vectors: np.ndarray, clip_norm: float, coordinate_bound: float) -> np.ndarray:
    """Rows scaled to the L2 bound, then clamped per coordinate, in float64."""
    vectors = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled = vectors * np.minimum(1.0, clip_norm / np.maximum(norms, 1e-300))
    return np.clip(scaled, -coordinate_bound, coordinate_bound)


def logistic_gradients(weights: np.ndarray, bias: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Per-record gradients of the logistic loss `[n, 1 + F]`, in the flat order of `models.logistic`: bias, then weight."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    residual = 1 / (1 + np.exp(-(x @ weights + bias))) - y
    return residual[:, None] * np.concatenate([np.ones((len(x), 1)), x], axis=1)
