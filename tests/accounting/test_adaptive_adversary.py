"""The remaining-variance filter against the best adaptive adversary, found by dynamic programming on small cases.

The state is what is left, on a few levels, and the likelihood ratio S. At every state the adversary stops, or picks the
next release with everything known: its shape (r, h), the position of everybody else and the direction of the step, one
coordinate or the same step spread over several, or a Gaussian; and how far down it goes. The filter itself says how many
events fit (`affordable_events`). The largest hockey-stick that can be reached from S = 1 must not exceed delta.

Errors of the computation go upward: V(S), the value under Q, is convex, so the law of the next S is moved onto a grid of
log S cell by cell, with its mass and its mean (E_Q S) kept; V/S <= 1 and grows with S, which covers what leaves the grid.
Adversaries that may do more than these actions can do more than is found here; the twins show that these suffice to
exceed delta where the filter's orders are too small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from scipy import signal, stats

from fedjax_poisson import accounting as acc
from fedjax_poisson.accounting import Embedded, VarianceBudget, remaining_variance
from fedjax_poisson.accounting.renyi import unchecked_divergence
from tests.accounting import reference


class Kernel(NamedTuple):
    """Weights of v = V/S at the grid points from `first` on, relative to where S is; `lost`: mass not in them."""

    first: int
    weights: np.ndarray
    lost: float


def on_grid(cell: np.ndarray, p: np.ndarray, q: np.ndarray, dx: float) -> Kernel:
    """The kernel of a law with P mass and Q mass on cells [cell dx, (cell + 1) dx] of log S'/S: a chord of V on each."""
    first = int(cell.min())
    p, q = np.bincount(cell - first, p), np.bincount(cell - first, q)
    edge = np.exp(dx * (first + np.arange(len(p))))
    upper = (p / edge - q) / math.expm1(dx)  # Q mass at the cell's upper end
    weights = np.append(edge * (q - upper), 0.0)
    weights[1:] += edge * math.exp(dx) * upper
    return Kernel(first, weights, max(1 - float(p.sum()), 0.0))


def poisson_kernel(events: float, position: float, eta: float, spread: int, dx: float) -> Kernel:
    """One embedded release with K = 1: a step eta on one coordinate, or eta / sqrt(spread) on each of `spread`."""
    m, part = events * spread, eta / math.sqrt(spread)
    p, q = [], []
    losses = []
    for sign in (1, -1):
        x, y = m * (1 + sign * (position + part)), m * (1 + sign * position)
        counts = np.arange(
            max(0, int(min(x, y) - 9 * math.sqrt(min(x, y)))), int(max(x, y) + 10 * math.sqrt(max(x, y)) + 16)
        )
        p.append(stats.poisson.pmf(counts, x))
        q.append(stats.poisson.pmf(counts, y))
        losses.append(counts * math.log(x / y))
    loss = np.add.outer(*losses).ravel()
    p, q = np.outer(*p).ravel(), np.outer(*q).ravel()
    keep = p + q > 1e-22
    return on_grid(np.floor(loss[keep] / dx).astype(int), p[keep], q[keep], dx)


def gaussian_kernel(variance: float, dx: float) -> Kernel:
    root = math.sqrt(variance)
    cell = np.arange(math.floor(-9 * root / dx) - 1, math.ceil(9 * root / dx) + 1)
    p, q = (
        np.diff(stats.norm.cdf((np.append(cell, cell[-1] + 1) * dx - mean) / root))
        for mean in (variance / 2, -variance / 2)
    )
    return on_grid(cell, p, q, dx)


def expected(v: np.ndarray, kernel: Kernel) -> np.ndarray:
    """E v(x + .) at every grid point; v is 1 beyond the upper end and no more than v[0] beyond the lower."""
    before, after = max(0, -kernel.first), max(0, kernel.first + len(kernel.weights))
    padded = np.concatenate([np.full(before, v[0]), v, np.ones(after)])
    start = before + kernel.first
    return signal.oaconvolve(padded, kernel.weights[::-1], "valid")[start : start + len(v)] + kernel.lost


def supremum(
    budget: VarianceBudget,
    shapes: Sequence[tuple[float, float]],
    *,
    levels: Sequence[float],
    jumps: Sequence[int],
    dx: float,
    gaussian: bool,
    spreads: Sequence[int] = (1, 4),
) -> float:
    """An upper bound on the largest hockey-stick that an adversary with these actions reaches.

    Args:
      budget: the filter's.
      shapes: pairs (r, h) of a release.
      levels: where a release may start and end, parts of W from 1 down.
      jumps: how many levels a release may go down.
      dx: spacing of log S.
      gaussian: whether there are Gaussian releases too.
      spreads: over how many coordinates a step may be spread.
    """
    reach = 3 * budget.epsilon + 6
    half = math.ceil(reach / dx)
    x = dx * np.arange(-half, half + 1)
    stop = -np.expm1(np.minimum(budget.epsilon - x, 0.0))
    left = [level * budget.total for level in levels]
    values: list[np.ndarray] = [stop] * len(left)
    for k in range(len(left) - 2, -1, -1):
        best = stop
        for end in sorted({min(k + jump, len(left) - 1) for jump in jumps}):
            if gaussian:
                best = np.maximum(best, expected(values[end], gaussian_kernel(left[k] - left[end], dx)))
            for r, h in shapes:
                events = acc.affordable_events(budget, left[k], left[end], Embedded(1.0, 1.0, r, h))
                if events == 0:
                    continue
                for position, eta in ((-r, h), (h - r, -h), (-h / 2, h)):
                    for spread in spreads:
                        kernel = poisson_kernel(events, position, eta, spread, dx)
                        best = np.maximum(best, expected(values[end], kernel))
        values[k] = best
    return float(values[0][half])


def mutated(order_of):
    """The filter's rate with other orders."""

    def rates(left, cost, tau):
        kappa, log_tau = math.log1p(cost.step / (1 - cost.modulation)), -math.log(tau)
        orders = np.asarray(order_of(left, kappa, log_tau), float) + np.zeros_like(left)
        with np.errstate(over="ignore", invalid="ignore"):
            return 2 * cost.coordinates * unchecked_divergence(orders, cost.modulation, cost.step) / orders

    return rates


def orders(left, kappa, log_tau):
    return np.maximum(2.0, 1 + (kappa + np.sqrt(np.maximum(kappa**2 + 2 * left * (log_tau - kappa), 0))) / left)


TWINS = {
    "order 2": mutated(lambda left, kappa, log_tau: 2.0),
    "a tenth of the tail": mutated(lambda left, kappa, log_tau: orders(left, kappa, 0.1 * log_tau)),
    "no skew": mutated(lambda left, kappa, log_tau: orders(left, 0.0, log_tau)),
}


def budget_with(epsilon: float, delta: float, tau: float) -> VarianceBudget:
    """A budget with any tail: W by bisection."""
    low, high = 1e-9, 1e4
    for _ in range(100):
        width = math.sqrt(low * high)
        slack = tau * math.sqrt(width / (2 * math.pi))
        low, high = (width, high) if reference.gaussian_delta(epsilon, width) + slack <= delta else (low, width)
    return VarianceBudget(epsilon, delta, tau, low, 1e-6 * low)


def test_kernels_keep_mass_and_mean():
    """E_P 1 = 1 and E_Q S = 1 exactly, E_Q 1 = 1 (no mass is lost under Q) and the hockey-stick from above, closely."""
    dx = 0.02
    cases = [
        (poisson_kernel(40.0, -0.3, 0.1, 1, dx), (40.0, 0.3, 0.1)),
        (poisson_kernel(3.0, -0.6, 0.6, 1, dx), (3.0, 0.6, 0.6)),
    ]
    for kernel, (events, r, h) in cases:
        loss = dx * (kernel.first + np.arange(len(kernel.weights)))
        assert kernel.weights.sum() + kernel.lost == pytest.approx(1, abs=1e-12)
        assert np.sum(kernel.weights * np.exp(-loss)) == pytest.approx(1, abs=1e-9)
        for epsilon in (0.4, 1.0):
            found = np.sum(kernel.weights * np.maximum(-np.expm1(epsilon - loss), 0))
            p, q = reference.channel_laws(
                (events * (1 - r + h), events * (1 + r - h)), (events * (1 - r), events * (1 + r))
            )
            exact = reference.hockey_stick(p, q, epsilon)
            assert exact * (1 - 1e-9) <= found <= exact * 1.01 + 1e-6
    kernel = gaussian_kernel(0.3, dx)
    loss = dx * (kernel.first + np.arange(len(kernel.weights)))
    found = np.sum(kernel.weights * np.maximum(-np.expm1(1 - loss), 0))
    assert reference.gaussian_delta(1.0, 0.3) * (1 - 1e-9) <= found <= 1.01 * reference.gaussian_delta(1.0, 0.3)


# epsilon, delta, tau, shapes (r, h), with Gaussian releases or without, twins that exceed delta
TOY = [
    (3.0, 1e-4, 1e-8, ((0.3, 0.3), (0.3, 0.1), (0.05, 0.05)), False, ("order 2", "a tenth of the tail")),
    (1.0, 1e-2, 1e-3, ((0.3, 0.1), (0.6, 0.6)), True, ("order 2",)),
]
LEVELS = (1.0, 0.85, 0.7, 0.55, 0.4, 0.25, 0.1, 1e-3)


@pytest.mark.parametrize(("epsilon", "delta", "tau", "shapes", "gaussian", "twins"), TOY)
def test_the_best_adversary_stays_below_delta(epsilon, delta, tau, shapes, gaussian, twins, monkeypatch):
    budget = budget_with(epsilon, delta, tau)
    actions = {"levels": LEVELS, "jumps": (1, 3, 99), "dx": 0.03 if epsilon > 2 else 0.02, "gaussian": gaussian}
    reached = supremum(budget, shapes, **actions)
    assert reached <= delta
    if gaussian:
        assert reached >= 0.95 * reference.gaussian_delta(epsilon, budget.total), "one Gaussian alone does this"
    for name in twins:
        monkeypatch.setattr(remaining_variance, "rates", TWINS[name])
        assert supremum(budget, shapes, **actions) > delta, name


# epsilon, delta, tau, shapes, with Gaussian releases, spacing of the grid
MANY = [
    (1.0, 1e-4, 1e-8, ((0.05, 0.05), (0.05, 0.0125), (0.3, 0.1)), False, 0.01),
    (3.0, 1e-4, 1e-8, ((0.3, 0.3), (0.3, 0.1), (0.05, 0.05)), False, 0.01),
    (8.0, 1e-4, 1e-8, ((0.3, 0.3), (0.6, 0.2), (0.6, 0.6)), False, 0.02),
    (3.0, 1e-4, 1e-8, ((0.9, 1.8), (0.9, 0.9), (0.5, 1.0)), False, 0.02),
    (8.0, 1e-4, 1e-8, ((0.9, 1.8), (0.9, 0.9), (0.9, 0.1)), False, 0.02),
    (1.0, 1e-2, 1e-3, ((0.05, 0.05), (0.3, 0.1), (0.6, 0.6)), True, 0.005),
    (1.0, 1e-2, 1e-3, ((0.9, 0.9), (0.9, 0.3), (0.99, 0.99)), True, 0.005),
    (3.0, 1e-2, 2e-3, ((0.6, 0.6), (0.3, 0.3), (0.6, 1.2)), True, 0.01),
    (1.0, 0.3, 1e-2, ((0.9, 0.9), (0.9, 1.8), (0.9, 0.1)), True, 0.01),
    (0.0, 0.3, 1e-2, ((0.6, 0.6), (0.6, 1.2), (0.3, 0.6)), True, 0.01),
    (0.0, 0.6, 0.3, ((0.9, 0.9), (0.9, 1.8), (0.6, 0.6)), True, 0.01),
]


@pytest.mark.long
@pytest.mark.parametrize(("epsilon", "delta", "tau", "shapes", "gaussian", "dx"), MANY)
def test_the_best_adversary_stays_below_delta_in_many_settings(epsilon, delta, tau, shapes, gaussian, dx):
    """Steps up to 2r, positions up to 0.99, tails up to 0.3, three times as many levels; a minute each."""
    budget = budget_with(epsilon, delta, tau)
    levels = [*np.linspace(1, 0.04, 20).tolist(), 0.01, 1e-3]
    reached = supremum(budget, shapes, levels=levels, jumps=(1, 2, 5, 99), dx=dx, gaussian=gaussian, spreads=(1, 3, 20))
    assert reached <= delta
    if gaussian:
        assert reached >= 0.97 * reference.gaussian_delta(epsilon, budget.total)
