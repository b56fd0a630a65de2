"""Epsilon of a schedule that was fixed beforehand, by the theorem of `remaining_variance`: what a ledger shows as spent.

If costs do not depend on what was released, W may be chosen to fit them: the smallest W from which all of them can be
spent. It is found backwards. From w_0 near 0 the last release reaches up to the w_1 with int_{w_0}^{w_1} dv / rate(v) =
M, the one before from w_1 to w_2, and so on; W is the last of them. Then epsilon is the smallest e with delta_Gauss(e;
W^(-1/2)) + tau sqrt(W / (2 pi)) <= delta.

*Numerics.* On a cell of a grid the integral is bounded from below, so that W is an upper bound. The rate is convex in v
if kappa <= log(1/tau): 2 K H_a(-r, h) is convex in the order a and grows from a = 2 on (`remaining_variance`), and A(v)
is convex as the maximum of 2 and 1 + kappa/v + sqrt(kappa^2 + 2 c v)/v, c >= 0, whose last term is log-convex (second
derivative of its logarithm: 1/v^2 - 2 c^2/(kappa^2 + 2 c v)^2 >= 1/(2 v^2)). So on a cell the rate is at most its chord,
and int dv/rate is at least the chord's, a logarithm. If kappa > log(1/tau), the rate at the lower end is taken instead
of the chord. Where it overflows, a cell counts nothing.

For a schedule that was chosen on the way this is a reading, not a guarantee: the guarantee is the budget's epsilon.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fedjax_poisson.accounting.checks import FloatArray, check_delta
from fedjax_poisson.accounting.gaussian import gaussian_pld_epsilon
from fedjax_poisson.accounting.variance_cost import TAIL, Cost, Embedded, Normal, check_cost, rates, skew, slack

_POINTS = 96  # of the grid below the small-step limit of W, and above it
_LARGEST = 1e150  # of W, whose epsilon is reported as infinite above it; and its reciprocal is the least
_UP = 1 + 1e-12  # after every release, against the rounding of a cumulative sum over the grid


class _Cells(NamedTuple):
    """One shape of release on the cells of a grid, where its rate is at most the line from `lower` to `upper`.

    Attributes:
      lower: float64[n], at the lower ends; inf where a cell counts nothing.
      upper: float64[n], at the upper ends, or `lower` again.
      events: float64[n + 1], lower bounds of the integral up to each grid point.
    """

    lower: FloatArray
    upper: FloatArray
    events: FloatArray


def _cells(grid: FloatArray, cost: Embedded, tau: float) -> _Cells:
    values = rates(grid, cost, tau)
    values[~np.isfinite(values)] = math.inf
    lower = values[:-1]
    upper = np.minimum(values[1:], lower) if skew(cost) <= -math.log(tau) else lower
    spent, counted = np.zeros_like(lower), np.isfinite(lower)
    spent[counted] = _below_chord(np.diff(grid)[counted], lower[counted], upper[counted])
    return _Cells(lower, upper, np.concatenate([[0.0], np.cumsum(spent)]))


def _below_chord(width: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """int dv / rate over a width on which the rate falls linearly: width log(lower/upper) / (lower - upper)."""
    fall = (lower - upper) / lower
    near = np.minimum(fall, 0.5)
    logarithm = np.where(fall > 0.5, np.log(lower) - np.log(upper), -np.log1p(-near))
    # below 1e-7 the rate at the lower end is as good
    return width / lower * np.where(fall > 1e-7, logarithm / np.maximum(fall, 1e-7), 1.0)


def merged(costs: Sequence[Cost]) -> Iterator[Cost]:
    """The same releases with neighbours of one kind (all Gaussian, or of the same K, r and h) as one of them."""
    kind: object = None
    sizes: list[float] = []
    last: Cost = Normal(1.0)

    def together() -> Cost:
        total = math.fsum(sizes)
        return Normal(total) if isinstance(last, Normal) else last._replace(events=total)

    for cost in costs:
        check_cost(cost)
        own = "normal" if isinstance(cost, Normal) else (cost.coordinates, cost.modulation, cost.step)
        if sizes and own != kind:
            yield together()
            sizes = []
        kind, last = own, cost
        sizes.append(cost.variance if isinstance(cost, Normal) else cost.events)
    if sizes:
        yield together()


def _climb(costs: Sequence[Cost], grid: FloatArray, tau: float) -> float | None:
    """W on this grid, or None if it lies above its last point."""
    shapes = {cost._replace(events=1.0) for cost in costs if isinstance(cost, Embedded)}
    cells: dict[Cost, _Cells] = {shape: _cells(grid, shape, tau) for shape in shapes}
    reached = float(grid[0])
    for cost in reversed(costs):
        if isinstance(cost, Normal):
            reached = (reached + cost.variance) * _UP
            continue
        lower, upper, events = cells[cost._replace(events=1.0)]
        k = int(np.searchsorted(grid, reached, side="right")) - 1
        if k >= len(lower):
            return None
        goal = cost.events + float(events[k])
        if reached > grid[k] and lower[k] < math.inf:
            width = grid[k + 1] - grid[k]
            here = (lower[k] * (grid[k + 1] - reached) + upper[k] * (reached - grid[k])) / width
            goal += float(_below_chord(reached - grid[k], lower[k], here))
        k = int(np.searchsorted(events, goal, side="right")) - 1
        if k >= len(lower):
            return None
        left, first = goal - float(events[k]), float(lower[k])
        bend = (first - float(upper[k])) / float(grid[k + 1] - grid[k]) * left
        up = first * left * (-math.expm1(-bend) / bend if bend > 1e-7 else 1.0)
        reached = max(reached, float(grid[k]) + up) * _UP
    return reached


@functools.lru_cache(maxsize=1024)
def fixed_plan_width(costs: tuple[Cost, ...], tau: float) -> float:
    """W of these releases in this order, rounded up by 1e-4 of it (1 % if kappa > log(1/tau)); one at least, all checked."""
    if all(isinstance(cost, Normal) for cost in costs):
        return max(math.fsum(cost.variance for cost in costs if isinstance(cost, Normal)) * _UP, 1 / _LARGEST)
    limit, kappa = 0.0, 0.0  # the variance of the small-step limit, below W
    for cost in costs:
        if isinstance(cost, Normal):
            limit += cost.variance
        else:
            limit += 2 * cost.coordinates * cost.events * cost.step**2 / (1 - cost.modulation**2)
            kappa = max(kappa, skew(cost))
    if not limit < _LARGEST:
        return math.inf
    limit = max(limit, 1 / _LARGEST)
    parts = np.arange(1.0, _POINTS + 1) / _POINTS
    high = 2 * limit + 100 * kappa**2 * max(-math.log(tau), 1.0)
    while True:
        grid = np.concatenate([limit * parts**3, np.geomspace(limit, high, _POINTS + 1)[1:]])
        if (width := _climb(costs, grid, tau)) is not None:
            break
        high *= 64
    if high > 20 * limit:  # the steps are so large that W may be far above the limit, where the cells are wide
        while (finer := _climb(costs, 1.01 * width * parts**3, tau)) is not None and finer < 0.9 * width:
            width = finer
        width = width if finer is None else min(width, finer)
    return width


def fixed_plan_epsilon(costs: Sequence[Cost], delta: float, tau: float | None = None) -> float:
    """Epsilon of releases whose costs were fixed beforehand, in this order (theorem in the module docstring).

    Args:
      costs: of all releases; neighbours with the same K, r and h are added up first.
      delta: in (0, 1).
      tau: in (0, 1), the tail; None for that of `variance_budget`.

    Returns:
      epsilon in nats, rounded up; 0 for no releases, +inf where the slack alone is delta.

    Raises:
      ValueError: delta, tau or a field of a cost is out of range.
    """
    delta = check_delta(delta)
    tau = TAIL * delta if tau is None else tau
    if not 0 < tau < 1:
        raise ValueError(f"tau is {tau}; it must lie in (0, 1), a small fraction of delta")
    groups = tuple(merged(costs))
    if not groups:
        return 0.0
    width = fixed_plan_width(groups, tau)
    allowed = (delta - slack(tau, width)) * (1 - 1e-12)
    return gaussian_pld_epsilon(1 / math.sqrt(width), allowed, 1) if allowed > 0 else math.inf
