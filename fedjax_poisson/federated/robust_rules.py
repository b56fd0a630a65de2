"""Robust aggregation rules of the literature, FOR COMPARISON ONLY: every one of them needs single updates in the clear.

An encrypted round opens the sum and nothing else, so none of these can run in it: whoever applies them reads every client's update, and with it much of
the client's records. They are what an experiment compares with, labelled so wherever it shows them. Pure functions from updates float32 `[n, D]` to one
float32 `[D]`, each the counterpart of the *mean* update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

IN_THE_CLEAR = "needs every single update in the clear: not encrypted, not private"
"""How outputs label every rule."""


class RobustRule(NamedTuple):
    """A rule made for a number of corrupt clients and a norm.

    Attributes:
      words: what it does.
      source: where it was published.
      apply: `(updates [n, D], corrupt, bound) -> float32 [D]`; `corrupt` is the number it shall withstand, a Python int, `bound` a norm.
    """

    words: str
    source: str
    apply: Callable[[Array, int, float], Array]


def mean(updates: Array) -> Array:
    """The mean: one client moves it anywhere."""
    return jnp.mean(updates, axis=0)


def median(updates: Array) -> Array:
    """The median of each coordinate (Yin et al. 2018, arXiv:1803.01498, definition 1)."""
    return jnp.median(updates, axis=0)


def trimmed_mean(updates: Array, trim: int) -> Array:
    """The mean of each coordinate without its `trim` smallest and largest values (Yin et al. 2018, definition 2).

    Raises:
      ValueError: nothing would be left.
    """
    count = updates.shape[0]
    if not 0 <= 2 * trim < count:
        raise ValueError(f"trim={trim} at either end of {count} updates leaves none: trim fewer than half.")
    return jnp.mean(jnp.sort(updates, axis=0)[trim : count - trim], axis=0)


def krum_scores(updates: Array, corrupt: int) -> Array:
    """Each update's sum of squared distances to its n - c - 2 nearest others, float32 `[n]` (Blanchard et al. 2017, arXiv:1703.02757, section 4).

    Raises:
      ValueError: no neighbour would be left.
    """
    count = updates.shape[0]
    near = count - corrupt - 2
    if corrupt < 0 or near < 1:
        raise ValueError(
            f"Krum with corrupt={corrupt} of {count} updates: at least corrupt + 3 updates (2 corrupt + 3 for its proof)."
        )
    squares = jnp.sum(updates * updates, axis=1)
    distances = squares[:, None] + squares[None] - 2 * updates @ updates.T
    own = jnp.where(jnp.eye(count, dtype=bool), jnp.inf, jnp.maximum(distances, 0))
    return jnp.sum(jnp.sort(own, axis=1)[:, :near], axis=1)


def multi_krum(updates: Array, corrupt: int, kept: int | None = None) -> Array:
    """The mean of the `kept` updates of smallest Krum score; 1 is Krum itself, None takes n - c.

    Raises:
      ValueError: as `krum_scores`, or kept is not 1 to n.
    """
    count = updates.shape[0]
    keep = count - corrupt if kept is None else kept
    if not 1 <= keep <= count:
        raise ValueError(f"kept={keep} of {count} updates: keep 1 to all of them.")
    best = jnp.argsort(krum_scores(updates, corrupt))[:keep]
    return jnp.mean(updates[best], axis=0)


def centred_clipping(updates: Array, radius: float, steps: int = 3, centre: Array | None = None) -> Array:
    """From a centre v, a few times v + mean of (u - v) cut at a radius (Karimireddy, He and Jaggi 2021, arXiv:2012.10333, equation CC).

    Args:
      updates: float32 `[n, D]`.
      radius: norm at which each difference is cut.
      steps: repetitions.
      centre: float32 `[D]`, such as the last round's result; None for zero.
    """
    first = jnp.zeros(updates.shape[1], updates.dtype) if centre is None else centre

    def step(_: Array, v: Array) -> Array:
        return v + mean(_cut(updates - v[None], radius))

    found: Array = jax.lax.fori_loop(0, steps, step, first)
    return found


def norm_bound(updates: Array, bound: float) -> Array:
    """The mean of updates scaled to at most a norm (Sun et al. 2019, arXiv:1911.07963, section 3): what an honest client's clip does, enforced."""
    return mean(_cut(updates, bound))


def _cut(vectors: Array, bound: float) -> Array:
    lengths = jnp.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors * jnp.minimum(jnp.float32(1), jnp.float32(bound) / jnp.maximum(lengths, jnp.float32(1e-30)))


RULES: Mapping[str, RobustRule] = MappingProxyType(
    {
        "mean": RobustRule("no defence", "McMahan et al. 2017", lambda u, corrupt, bound: mean(u)),
        "norm_bound": RobustRule("every update cut at the bound", "Sun et al. 2019", lambda u, c, b: norm_bound(u, b)),
        "median": RobustRule("coordinate median", "Yin et al. 2018", lambda u, corrupt, bound: median(u)),
        "trimmed_mean": RobustRule("coordinate mean, trimmed", "Yin et al. 2018", lambda u, c, b: trimmed_mean(u, c)),
        "krum": RobustRule("one update", "Blanchard et al. 2017", lambda u, c, b: multi_krum(u, c, 1)),
        "multi_krum": RobustRule("mean of n - c updates", "Blanchard et al. 2017", lambda u, c, b: multi_krum(u, c)),
        "centred_clipping": RobustRule(
            "differences from a centre cut", "Karimireddy et al. 2021", lambda u, corrupt, bound: centred_clipping(u, bound)
        ),
    }
)  # fmt: skip
"""By name."""
