"""Banded encoding: what senders do to their updates so that noise of later rounds cancels noise of earlier ones, and how the server undoes it.

A sender does not embed its update g_t but x_t = sum_{j < band} c_j g_{t-j}, with fresh noise in every round, and the server applies C**-1 to the released
sums, C being the lower-triangular Toeplitz matrix of the c_j:

    decoded_t = released_t - sum_{0 < j < band} c_j decoded_{t-j}.

This is the banded matrix factorisation mechanism (Choquette-Choo et al. 2023, arXiv:2306.08153) with the noise at the senders. Where a client's turns are
at least `band` rounds apart (`turns`), at most one of the g_{t-j} in its message is not zero, so the message is c_j g for one update g: no sender adds
anything up, and no clip beyond that of the update is needed.

**Coefficients.** c_j = c_{j-1} (p + j - 1) / j, c_0 = 1: the series of (1 - x)**-p, which falls like j**(p-1). p = 1/2, the default, is the square root of
the prefix sum and good for every iterate of a run without momentum. Where iterates are smoothed, flatter ones are better: with momentum 0.9, 200 rounds and
50 cohorts p = 3/4 lowers the noise of tail-averaged parameters by 8 % (band 4) to 21 % (band 50) and that of the last iterate by 8 to 17 %; without momentum
it raises the mean over the iterates at band 50 by a third (`experiments/banded_clients.py`, coefficients). `cohort_plan` takes the better one for the
parameters that count. Privacy is priced for the coefficients in use, whatever they are.

**Bounds.** The c_j in use are fractions n_j / 2**30 with whole n_j, n_0 = 2**30 and none larger. A client's clipped update is an integer vector m
(`mechanisms.clipping`) with |m_i| <= L and sum m_i**2 <= B; it sends the embedding of s_i = sign(m_i) floor(|m_i| n_j / 2**30). As |s_i| <= c_j |m_i|,
every coordinate is within c_j L, and sum s_i**2 <= c_j**2 B: exactly, because it is rounded toward zero, by at most 2**-20 of the coordinate bound.

**Stability.** With positive coefficients that fall, the zeros of sum c_j z**j lie outside the unit circle (Enestrom-Kakeya), so C**-1 forgets, and so does
the rounding of its float32 arithmetic.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.randomness.wide import upper_product

_POINT = 30


class Banding(NamedTuple):
    """The coefficients of an encoding.

    Attributes:
      numerators: whole n_j with c_j = n_j / 2**30.
    """

    numerators: tuple[int, ...]

    @property
    def band(self) -> int:
        """How many rounds a client sends in after its turn began."""
        return len(self.numerators)

    @property
    def factors(self) -> tuple[float, ...]:
        """The c_j, exact in float64."""
        return tuple(n / 2**_POINT for n in self.numerators)

    @property
    def energy(self) -> float:
        """The sum of c_j**2: what a participation costs, in units of what its first message costs, in the limit of small steps."""
        return float(sum(c * c for c in self.factors))


def banding(band: int, power: float = 0.5) -> Banding:
    """The coefficients of (1 - x)**-power, cut off after `band`.

    Args:
      band: at least 1; 1 sends every update once, as it is.
      power: p in (0, 1]; 1/2 is the square root of the prefix sum, 1 makes all coefficients 1 (then C**-1 forgets nothing).

    Raises:
      ValueError: a number is out of range.
    """
    if int(band) != band or band < 1:
        raise ValueError(f"band={band} must be a whole number of at least 1.")
    if not 0 < power <= 1:
        raise ValueError(f"power={power} must be in (0, 1]: coefficients above 1 would break the bounds of an update.")
    steps = np.arange(1, band)
    values = np.cumprod(np.concatenate([[1.0], (power + steps - 1) / steps]))
    return Banding(tuple(max(int(value * 2**_POINT), 1) for value in values))


def scale_grid(grid: Array, numerator: Array) -> Array:
    """c m, rounded toward zero: int32 `[..., D]` with |m| <= 2**20, times numerator / 2**30, uint32 `[...]` up to 2**30; exact in integers."""
    magnitude, factor = jnp.abs(grid).astype(jnp.uint32), numerator[..., None].astype(jnp.uint32)
    low, high = magnitude * factor, upper_product(magnitude, factor)
    value = (low >> jnp.uint32(_POINT)) | (high << jnp.uint32(32 - _POINT))  # high <= 2**18
    return jnp.sign(grid) * value.astype(jnp.int32)


def first_history(encoding: Banding, dimension: int) -> Array:
    """What decoding remembers before the first round: float32 `[band - 1, D]`, newest first."""
    return jnp.zeros((encoding.band - 1, dimension), jnp.float32)


def decode(encoding: Banding, history: Array, released: Array) -> tuple[Array, Array]:
    """One row of C**-1: `(history, released) -> (history, decoded)`, a step of `jax.lax.scan`. A function of releases only: it costs no privacy.

    Args:
      encoding: the coefficients.
      history: float32 `[band - 1, D]`, the sums decoded before, newest first.
      released: float32 `[D]`, the estimate of sum_j c_j g_{t-j}.

    Returns:
      The next history, and float32 `[D]`, the estimate of g_t.
    """
    factors = jnp.asarray(encoding.factors[1:], jnp.float32)
    decoded = released - jnp.sum(factors[:, None] * history, axis=0)
    return jnp.concatenate([decoded[None], history])[: encoding.band - 1], decoded


def decoded_weights(encoding: Banding, weights: np.ndarray) -> np.ndarray:
    """a C**-1 for the weights a of the rounds in an output sum_t a_t g_t, float64 `[T]`: independent released noises enter the output with these weights."""
    factors, rounds = encoding.factors, len(weights)
    found = np.zeros(rounds)
    for t in range(rounds - 1, -1, -1):
        later = min(encoding.band, rounds - t)
        found[t] = weights[t] - np.dot(factors[1:later], found[t + 1 : t + later])
    return found


@functools.partial(jax.jit, static_argnums=0)
def pick(band: int, new: Array, kept: Array, rows: Array, numerators: Array) -> tuple[Array, Array]:
    """What each sender of a round embeds, and the updates that are kept for the next rounds.

    Args:
      band: rounds that a client sends in.
      new: int32 `[m, D]`, clipped updates of the cohort that trained.
      kept: int32 `[band - 1, m, D]`, those of the cohorts that still send.
      rows: int32 `[n]`, each sender's row in `[band * m, D]`, newest cohort first.
      numerators: uint32 `[n]`, of each sender's coefficient.

    Returns:
      int32 `[n, D]` and int32 `[band - 1, m, D]`.
    """
    together = jnp.concatenate([new[None], kept])
    scaled = scale_grid(together.reshape(-1, together.shape[-1])[rows], numerators)
    return scaled, together[: band - 1]
