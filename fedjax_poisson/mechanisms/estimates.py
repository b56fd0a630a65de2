"""From sums of counts to estimates of the sums of updates, and how far a sum of counts lies from its mean."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.randomness.wide import upper_product

__all__ = ["Mean", "bernstein_deviation", "mean_count", "scaled_on_host", "scaled_sum", "subtract_mean"]


class Mean(NamedTuple):
    """A mean count >= 0 in units of 2**-32, as arrays: its whole part and its fraction, uint32 `[]` each."""

    whole: Array | np.uint32
    fraction: Array | np.uint32


def mean_count(mean: float) -> Mean:
    """The mean of one sender's count, rounded to 2**-32."""
    whole = math.floor(mean)
    return Mean(np.uint32(whole), np.uint32(min(round((mean - whole) * 2.0**32), 2**32 - 1)))


def subtract_mean(total: Array, mean: Mean, senders: int | Array) -> Array:
    """A sum of counts of some senders less its public mean, `senders * mean`, float32.

    The whole part goes as an integer, as counts above 2**24 are not exact in float32. It is computed in integers, because the number of senders may be
    traced: with f the fraction of the mean in units of 2**-32, `senders * f` has its whole part in the upper and its fraction in the lower word.

    Args:
      total: int `[D]`, sum of counts.
      mean: of one sender's count; times senders it must be below 2**31, as the sum is.
      senders: in the sum, a Python int or a traced integer.
    """
    count = jnp.asarray(senders).astype(jnp.uint32)
    carried = (count * mean.whole + upper_product(count, jnp.asarray(mean.fraction))).astype(jnp.int32)
    rest = ((count * mean.fraction) >> jnp.uint32(8)).astype(jnp.float32) * jnp.float32(2.0**-24)
    return (jnp.asarray(total) - carried).astype(jnp.float32) - rest


def scaled_sum(scale: Array, total: Array, senders: int | Array) -> Array:
    """An estimate that is a sum of counts times a number, float32 `[D]`: where the mean of the noise is zero, whoever sends."""
    del senders
    return jnp.asarray(total).astype(jnp.float32) * scale


def scaled_on_host(scale: float, total: np.ndarray, senders: int) -> np.ndarray:
    """`scaled_sum` of the host's counts."""
    del senders
    return total.astype(np.float32) * np.float32(scale)


def bernstein_deviation(variance: float, dimension: int, failure: float) -> float:
    """t with `P(any of D coordinates of a difference of Poissons deviates by more than t) <= failure`.

    Bernstein's inequality for jumps of +-1 and total rate `variance`: `P(|S - E S| > t) <= 2 exp(-t**2 / (2 (variance + t / 3)))`,
    a union over the coordinates, solved for t.
    """
    log_term = math.log(2.0 * dimension / failure)
    return log_term / 3.0 + math.sqrt(log_term**2 / 9.0 + 2.0 * variance * log_term)
