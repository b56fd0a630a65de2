"""The inequality on which the remaining-variance filter rests, state by state: the drift of u is within its slack.

While an embedded release is spent, E_Q u(w, S) grows by the drift per event, and the proof (`remaining_variance`) allows S
tau rate(w) / (2 sqrt(2 pi w)) of it. Here the drift is computed, not bounded, at every likelihood ratio S of a grid, for one
coordinate at its worst position in both directions.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from fedjax_poisson.accounting import Embedded
from fedjax_poisson.accounting.variance_cost import rates

SHAPES = [(0.05, 0.0125), (0.05, 0.05), (0.3, 0.1), (0.3, 0.6), (0.6, 0.6), (0.6, 1.2), (0.9, 0.9), (0.9, 1.8)]
LEFT = (0.01, 0.1, 0.5, 2.0, 8.0, 30.0, 100.0)
TAUS = (0.5, 0.1, 1e-2, 1e-5, 1e-9)


def price(x: np.ndarray, w: float, put: np.ndarray) -> np.ndarray:
    """u at log S = x, epsilon = 0: the call, or the put, which differs by a linear function and is exact where it is small."""
    d = x / math.sqrt(w) + math.sqrt(w) / 2
    call = np.exp(x + special.log_ndtr(d)) - special.ndtr(d - math.sqrt(w))
    return np.where(put, special.ndtr(math.sqrt(w) - d) - np.exp(x + special.log_ndtr(-d)), call)


def drift(x: np.ndarray, w: float, r: float, h: float, rate: float) -> np.ndarray:
    """Largest drift per event, over S, at log S - epsilon = x."""
    d, put = x / math.sqrt(w) + math.sqrt(w) / 2, x > 0
    slope = np.where(put, -special.ndtr(-d), special.ndtr(d))
    worst = np.full(x.shape, -np.inf)
    for s, eta in ((-r, h), (r, -h), (r - h, h), (h - r, -h), (-h / 2, h)):
        total = np.zeros_like(x)
        for sign in (1, -1):
            xi = sign * eta / (1 + sign * s)
            jump = price(x + math.log1p(xi), w, put) - price(x, w, put)
            total += (1 + sign * s) * (jump * np.exp(-x) - xi * slope)
        worst = np.maximum(worst, total)
    return worst - rate * np.exp(-d * d / 2) / math.sqrt(2 * math.pi) / (2 * math.sqrt(w))


def excess(w: float, r: float, h: float, tau: float, rate_tau: float | None = None) -> tuple[float, float]:
    """Largest drift over S on a grid of orders beyond [1-A, A], and what the proof allows; `rate_tau`: a wrong tail."""
    rate = float(rates(np.array([w]), Embedded(1.0, 1.0, r, h), rate_tau or tau)[0])
    kappa = math.log1p(h / (1 - r))
    top = max(2.0, 1 + (kappa + math.sqrt(max(kappa**2 + 2 * w * (-math.log(tau) - kappa), 0))) / w)
    a = np.linspace(-2 * top - 4, 2 * top + 4, 4001)
    x = w * (1 - a) - w / 2
    if not rate < 1e200:
        return -math.inf, math.inf
    with np.errstate(over="ignore", invalid="ignore"):
        found = drift(x, w, r, h, rate)
    return float(np.nanmax(found)), tau * rate / (2 * math.sqrt(2 * math.pi * w))


@pytest.mark.parametrize(("r", "h"), SHAPES)
def test_drift_is_within_the_slack(r, h):
    for w in LEFT:
        for tau in TAUS:
            found, allowed = excess(w, r, h, tau)
            assert found <= 0.05 * allowed + 1e-12, (w, tau)


def test_the_price_alone_is_no_supermartingale():
    """Without the slack the inequality fails: a positive drift, far above rounding."""
    found, allowed = excess(8.0, 0.9, 0.9, 0.01)
    assert 1e-6 < found < allowed


@pytest.mark.parametrize("wrong", [lambda tau: tau**0.1, lambda tau: 0.999], ids=["a tenth of the tail", "no tail"])
def test_smaller_orders_break_the_inequality(wrong):
    """Twins: the logarithm of the tail by a tenth, and none."""
    broken = 0
    for r, h in SHAPES[1::2]:
        for w in LEFT:
            found, allowed = excess(w, r, h, 1e-5, wrong(1e-5))
            broken += found > 2 * allowed + 1e-12
    assert broken >= 5
