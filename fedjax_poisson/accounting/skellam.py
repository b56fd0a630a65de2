"""Renyi curves of Skellam noise: published bound, exact value for d = 1, and sensitivities after rounding.

Skellam(v) here is the difference of two Poissons of rate v/2 each: v is the VARIANCE of the noise in the sum (2 n_h
mu when each honest sender adds Poisson(mu) - Poisson(mu)), not a rate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from fedjax_poisson.accounting.checks import FloatArray, check_adjacency, check_orders, positive, whole

_MOST_OUTCOMES = 10**7


def _integer_orders_only(orders: ArrayLike) -> FloatArray:
    values = check_orders(orders)
    if np.any(values != np.round(values)):
        raise ValueError("the Skellam bound is a theorem about integer orders; pass accounting.DEFAULT_ORDERS")
    return values


def skellam_rdp(orders: ArrayLike, *, variance: float, l1: float, l2: float) -> FloatArray:
    """Published bound on the Renyi curve of integer vectors with Skellam noise.

    ``a l2^2/(2v) + min( ((2a-1) l2^2 + 6 l1)/(4 v^2), 3 l1/(2v) )`` (Agarwal, Kairouz, Liu 2021, arXiv:2110.04995).

    Args:
      orders: integer orders a >= 2, float64[n].
      variance: v > 0, variance per coordinate of the honest noise in the sum, in squared integer units.
      l1: L1 sensitivity of the ROUNDED integer vector; twice as large under replace-one.
      l2: L2 sensitivity of the ROUNDED integer vector; see `rounded_sensitivity`.

    Returns:
      float64[n], in nats.
    """
    orders = _integer_orders_only(orders)
    v, l1, l2 = positive("variance", variance), positive("l1", l1), positive("l2", l2)
    with np.errstate(over="ignore"):  # +inf says it
        correction = np.minimum(((2 * orders - 1) * l2**2 + 6 * l1) / (4 * v * v), 3 * l1 / (2 * v))
        return orders * l2**2 / (2 * v) + correction


class Sensitivity(NamedTuple):
    """How far one unit moves an integer vector: ``l1`` and ``l2`` in integer units."""

    l1: float
    l2: float


def rounded_sensitivity(
    *, scaled_norm: float, dimension: int, beta: float = math.exp(-0.5), adjacency: str = "zero_out"
) -> Sensitivity:
    """Sensitivities after conditional stochastic rounding (Kairouz, Liu, Steinke 2021, arXiv:2102.06387).

    Rounding is redrawn until the norm is at most ``l2 = min( t + sqrt(d), sqrt(t^2 + d/4 + sqrt(2 log(1/beta)) (t +
    sqrt(d)/2)) )``, t = scaled_norm; then ``l1 <= min(sqrt(d) l2, l2^2)`` because the vector is integer. Ignoring the
    rounding would under-report by up to d/4 in l2^2.

    Args:
      scaled_norm: t > 0, scale times the clip norm, in integer units.
      dimension: d >= 1.
      beta: in (0, 1), each redraw is accepted with probability at least 1 - beta.
      adjacency: "zero_out", or "replace_one" which doubles both.

    Returns:
      `Sensitivity` of one unit.
    """
    check_adjacency(adjacency)
    t, d = positive("scaled_norm", scaled_norm), whole("dimension", dimension)
    if not 0 < beta < 1:
        raise ValueError(f"beta is {beta}; it is a probability of redrawing and must lie in (0, 1)")
    root = math.sqrt(d)
    l2 = min(t + root, math.sqrt(t * t + d / 4 + math.sqrt(2 * math.log(1 / beta)) * (t + root / 2)))
    l1 = min(root * l2, l2 * l2)
    factor = 2.0 if adjacency == "replace_one" else 1.0
    return Sensitivity(l1=factor * l1, l2=factor * l2)


def skellam_log_pmf(variance: float, largest: int) -> FloatArray:
    """Log P(X = k), k = 0..largest, of Skellam noise of this variance: exp(-v) I_k(v), float64[largest + 1].

    The ratios I_{k+1}/I_k = 1 / (2(k+1)/v + I_{k+2}/I_{k+1}) run backward from far above (stable, no underflow at any
    k).
    """
    v = positive("variance", variance)
    start = largest + 64 + int(8 * math.sqrt(largest + v))
    ratio, log_ratios = v / (2.0 * (start + 1)), np.empty(largest)
    for k in range(start, -1, -1):
        ratio = 1.0 / (2.0 * (k + 1) / v + ratio)
        if k < largest:
            log_ratios[k] = math.log(ratio)
    return math.log(special.ive(0, v)) + np.concatenate([[0.0], np.cumsum(log_ratios)])


def skellam_exact_rdp(orders: ArrayLike, *, variance: float, shift: int = 1) -> FloatArray:
    """Exact Renyi divergence of one-dimensional Skellam noise against its shift; both directions are equal.

    ``sum_k p(k) [ e^{a L} - 1 - a (e^L - 1) ]``, L(k) = log p(k - shift) - log p(k): the terms are non-negative, so
    that even 1e-12 keeps its digits. A value for d = 1 only; in d > 1 the worst direction is not known in closed
    form, use `skellam_rdp`.

    Args:
      orders: orders a > 1, float64[n].
      variance: v > 0.
      shift: integer >= 1.

    Returns:
      float64[n], in nats.
    """
    orders = check_orders(orders)
    v = positive("variance", variance)
    shift = whole("shift", shift, ": Skellam noise hides integer moves")
    # The tilted law of order a sits where p(k-D)^a p(k)^(1-a) peaks, at most near a*D (Gaussian regime) and never
    # further than that.
    centre = float(orders[-1]) * shift
    if centre + v > _MOST_OUTCOMES:
        raise ValueError(
            f"the largest order times shift, {centre:g}, and variance {v:g} are together above {_MOST_OUTCOMES:g}: too "
            "many outcomes to sum; use skellam_rdp or smaller orders"
        )
    reach = int(centre + 12 * math.sqrt(v + centre) + 60)
    log_pmf = skellam_log_pmf(v, reach + shift)
    k = np.arange(-reach, reach + 1)
    log_p, loss = log_pmf[np.abs(k)], log_pmf[np.abs(k - shift)] - log_pmf[np.abs(k)]
    curve = np.empty(orders.size)
    for i, a in enumerate(orders):
        log_terms = log_p + _log_generator(a, loss)
        curve[i] = float(np.logaddexp(0.0, special.logsumexp(log_terms))) / (a - 1)
    return curve


def _log_generator(a: float, loss: FloatArray) -> FloatArray:
    """log( e^{aL} - 1 - a (e^L - 1) ), elementwise: no cancellation at small L, no overflow, -inf at 0."""
    exponent = a * loss
    series = a * (a - 1) / 2 * loss**2 * (1 + (a + 1) * loss / 3 + (a * a + a + 1) * loss**2 / 12)
    top = np.maximum(exponent, 0.0)
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        middle = np.expm1(exponent) - a * np.expm1(loss)
        far = np.exp(exponent - top) - np.exp(-top) - a * (np.exp(loss - top) - np.exp(-top))
        return np.select(
            [np.abs(exponent) < 1e-4, np.abs(exponent) < 1.0],
            [np.log(series), np.log(np.maximum(middle, 0.0))],
            top + np.log(np.maximum(far, 0.0)),
        )
