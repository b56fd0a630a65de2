"""Honest guarantees of the experimental mechanisms: infinite where they are infinite.

None of them belongs in a private training run; they are here so that the experiments that show why can state true
numbers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from fedjax_poisson.accounting.checks import FloatArray, check_orders, positive, whole
from fedjax_poisson.accounting.gaussian import gaussian_delta
from fedjax_poisson.accounting.renyi import _poisson_pair

_MOST_EVENTS = 1e6  # outcomes that are summed one by one


def _last_count(rate: float) -> int:
    """A count above which a Poisson of this rate has mass below 1e-17 (Bernstein); callers add the rest as lost."""
    if rate > _MOST_EVENTS:
        raise ValueError(f"{rate:g} expected events are too many to sum over; at most {_MOST_EVENTS:g}")
    return int(rate + 9 * math.sqrt(rate) + 30) + 1


def _odds(epsilon: float) -> float:
    """e^epsilon; of e^700 beyond it, where the delta of the smaller epsilon is still an upper bound."""
    if math.isnan(epsilon):
        raise ValueError(f"epsilon is {epsilon}; it must be a number")
    return math.exp(min(epsilon, 700.0))


def centred_poisson_rdp(orders: ArrayLike) -> FloatArray:
    """Renyi curve of ``x + Poisson(mu) - mu``, x integer: +inf at every order, float64[n].

    A world with the larger x never produces the smallest outcomes of the other one: P(N < shift) has no counterpart
    in the downward direction.
    """
    return np.full(check_orders(orders).shape, np.inf)


def centred_poisson_infinity_mass(*, total_dark_count: float, shift: int, coordinates: int = 1) -> float:
    """Mass without counterpart, ``1 - P(N >= shift)^d``, N ~ Poisson(M): a floor of delta at every epsilon.

    Args:
      total_dark_count: M = n_h mu > 0, honest events per coordinate in the sum.
      shift: integer >= 1 by which one unit moves each changed coordinate.
      coordinates: d >= 1, changed coordinates.

    Returns:
      The mass, in [0, 1]; below 1e-5 for a million coordinates it needs M of about 26.
    """
    from scipy import stats  # here and below: half a second of start-up that only these experiments need

    m, shift, coordinates = (
        positive("total_dark_count", total_dark_count),
        whole("shift", shift),
        whole("coordinates", coordinates),
    )
    return float(-math.expm1(coordinates * stats.poisson.logsf(shift - 1, m)))


def centred_poisson_delta(epsilon: float, *, total_dark_count: float, shift: int) -> float:
    """Exact delta at this epsilon in one dimension, the larger of the two directions, infinity mass included.

    Outcomes past the summed range count as lost, so that the value is an upper bound.
    """
    from scipy import stats

    m, shift, odds = positive("total_dark_count", total_dark_count), whole("shift", shift), _odds(epsilon)
    if shift > _MOST_EVENTS:
        raise ValueError(f"shift is {shift}, too many outcomes to sum over; at most {_MOST_EVENTS:g}")
    last = _last_count(m) + shift
    k = np.arange(0, last + 1)
    here, moved = stats.poisson.pmf(k, m), stats.poisson.pmf(k - shift, m)
    up = float(np.sum(np.maximum(moved - odds * here, 0.0)) + stats.poisson.sf(last - shift, m))
    down = float(np.sum(np.maximum(here - odds * moved, 0.0)) + stats.poisson.sf(last, m))
    return min(max(up, down), 1.0)


def compound_poisson_rdp(orders: ArrayLike) -> FloatArray:
    """Renyi curve of ``x + sum_{k<=N} J_k``, N ~ Poisson, J normal: +inf at every order, float64[n].

    With probability e^-events no jump occurs and the true value is released.
    """
    return np.full(check_orders(orders).shape, np.inf)


def compound_poisson_infinity_mass(*, events: float, coordinates: int = 1) -> float:
    """Mass released bare, ``1 - (1 - e^-events)^d`` for d changed coordinates: a floor of delta at every epsilon."""
    coordinates = whole("coordinates", coordinates)
    bare = math.exp(-positive("events", events))
    return 1.0 if bare == 1.0 else float(-math.expm1(coordinates * math.log1p(-bare)))


def compound_poisson_delta(
    epsilon: float, *, events: float, jump_std: float, shift: float, visible: bool = True
) -> float:
    """Delta at this epsilon of one compound Poisson coordinate.

    Visible event counts (or one count shared by several coordinates, shift then the L2 distance): the exact
    ``e^-L + sum_{k>=1} Poi(k; L) delta_Gauss(eps; z = s sqrt(k) / shift)``; by data processing an upper bound when
    the count is hidden. Hidden count: ``e^-L + int max(0, f(x - shift) - e^eps f(x)) dx`` by quadrature, f =
    sum_{k>=1} Poi(k; L) Normal(0, k s^2): a number to look at, not a certified bound.

    Args:
      epsilon: nats.
      events: L > 0, expected honest jumps.
      jump_std: s > 0.
      shift: distance between the two true values, > 0.
      visible: whether the number of jumps is known.

    Returns:
      delta in [0, 1].
    """
    from scipy import integrate, stats

    lam, s, d = positive("events", events), positive("jump_std", jump_std), positive("shift", shift)
    last, odds = _last_count(lam), _odds(epsilon)
    k = np.arange(1, last + 1)
    weight = stats.poisson.pmf(k, lam)
    bare = math.exp(-lam)
    if visible:
        parts = [gaussian_delta(epsilon, s * math.sqrt(j) / d) for j in k]
        return min(float(bare + weight @ np.array(parts) + stats.poisson.sf(last, lam)), 1.0)
    scale = s * np.sqrt(k)

    def density(x: float) -> float:
        return float(weight @ stats.norm.pdf(x, scale=scale))

    reach = 12 * float(scale[-1]) + d
    value, _ = integrate.quad(
        lambda x: max(density(x - d) - odds * density(x), 0.0), -reach, reach, points=[0.0, d], limit=400
    )
    return min(bare + value, 1.0)


def data_embedding_rdp(orders: ArrayLike, *, gain: float, offset: float, pixels: int) -> FloatArray:
    """Renyi curve of one record embedded as counts, ``Poisson(gain (x + offset)) / gain - offset``, replace-one.

    The record x lies in [0, 1]^p.

    ``p gain [ (1+b)^a b^(1-a) - a (1+b) - (1-a) b ] / (a-1)``: the pair x = 1 against x' = 0 is worst (joint
    convexity, then the inward direction, as in `renyi`). Real images need an epsilon of hundreds: obfuscation, never
    a saving of the client-level budget.

    Args:
      orders: a > 1, float64[n].
      gain: lam > 0, events per unit of intensity.
      offset: b >= 0, dark intensity; 0 gives +inf.
      pixels: p >= 1.

    Returns:
      float64[n], in nats.
    """
    orders = check_orders(orders)
    lam = positive("gain", gain)
    if not (math.isfinite(offset) and offset >= 0):
        raise ValueError(
            f"offset is {offset}; a rate cannot be negative, use a dark intensity >= 0 (above 0 for any guarantee)"
        )
    pixels = whole("pixels", pixels)
    if offset == 0:
        return np.full(orders.shape, np.inf)
    return pixels * lam * _poisson_pair(orders, offset, 1.0) / (orders - 1)
