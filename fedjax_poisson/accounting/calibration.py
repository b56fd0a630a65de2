"""Parameters from a privacy target: dark count, rounds, noise multiplier or Skellam variance.

Each function returns a value whose epsilon, accounted again with the functions of this package, is at most the target
and never above: the search aims at ``target (1 - 1e-10)``, which leaves room for composing ten thousand curves one by
one in float64, and the value found is accounted once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from fedjax_poisson.accounting import renyi
from fedjax_poisson.accounting.renyi import (
    DEFAULT_ORDERS,
    FloatArray,
    check_curve,
    check_orders,
    gaussian_rdp,
    poisson_embedding_rdp,
)
from fedjax_poisson.accounting.sampling import amplify, binomial_log_weights, subsampled_rdp
from fedjax_poisson.accounting.skellam import skellam_rdp

_ROUNDING_ROOM = 1e-10
_STEPS = 60


def _check_target(epsilon: float, delta: float, rounds: int) -> None:
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"the target epsilon is {epsilon}; it must be a finite number above 0")
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}; it must lie in (0, 1), usually below 1 / number of units")
    if int(rounds) != rounds or rounds < 1:
        raise ValueError(f"rounds is {rounds}; it must be an integer of at least 1")


def _other_curve(orders: FloatArray, other_rdp: ArrayLike | None, epsilon: float, delta: float) -> FloatArray:
    """The curve of the other releases, refused where it alone is above the target."""
    if other_rdp is None:
        return np.zeros_like(orders)
    _, other = check_curve(orders, other_rdp)
    if (floor := renyi.epsilon(orders, other, delta)) > epsilon * (1 - _ROUNDING_ROOM):
        raise ValueError(
            f"the target epsilon {epsilon:g} cannot be met: {floor:g} is spent before the first round; "
            "spend less on the other releases or raise epsilon"
        )
    return other


def _sampled(
    orders: FloatArray, curve_of: Callable[[float], FloatArray], rate: float, adjacency: str
) -> Callable[[float], FloatArray]:
    """curve_of after Poisson sampling, with the binomial weights computed once."""
    if rate == 1.0:
        return curve_of
    subsampled_rdp(orders, np.zeros_like(orders), rate, adjacency=adjacency)  # refuses what may not be claimed
    if rate == 0.0:
        raise ValueError("the sampling rate is 0: nobody ever takes part, there is nothing to calibrate")
    weights = binomial_log_weights(orders, rate)
    return lambda x: amplify(orders, curve_of(x), weights)


def largest_scale(cost: Callable[[float], float], target: float, start: float) -> float:
    """Largest x > 0 with cost(x) <= target, to 1e-13 relative.

    Brackets by powers of 4, then bisects in log x.

    Args:
      cost: nondecreasing function of x > 0; may return inf. It is evaluated at the returned value.
      target: the bound on the cost, above the limit of cost at 0.
      start: a first guess of any quality, > 0.

    Returns:
      x with cost(x) <= target.
    """
    low = high = start
    while cost(low) > target:
        low /= 4.0
        if low < 1e-250:
            raise ValueError("no positive value meets the target; raise epsilon, delta or the largest order")
    while cost(high) <= target:
        low, high = high, high * 4.0
        if high > 1e250:
            raise ValueError("every value meets the target: the release does not depend on what is calibrated")
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        if high / low < 1 + 1e-13 or not low < middle < high:
            break
        low, high = (middle, high) if cost(middle) <= target else (low, middle)
    return low


def _calibrate(
    orders: FloatArray,
    per_round: Callable[[float], FloatArray],
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    other: FloatArray,
    start: float,
) -> float:
    target = epsilon * (1 - _ROUNDING_ROOM)
    return largest_scale(lambda x: renyi.epsilon(orders, rounds * per_round(x) + other, delta), target, start)


def calibrate_dark_count(
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    sampling_rate: float = 1.0,
    modulation: float,
    honest_senders: int,
    norm_ratio: float,
    dimension: int,
    step_ratio: float = 1.0,
    adjacency: str = "zero_out",
    other_rdp: ArrayLike | None = None,
    orders: ArrayLike = DEFAULT_ORDERS,
) -> float:
    """Largest dark count whose rounds, with everything else released, cost at most epsilon: least noise for the target.

    Args:
      epsilon: target in nats, > 0.
      delta: target in (0, 1).
      rounds: T >= 1, releases of the sum.
      sampling_rate: q in (0, 1] of secret Poisson sampling in every round, every sender always sending its dark noise.
      modulation: r in (0, 1).
      honest_senders: n_h >= 1.
      norm_ratio: C / c_inf >= 1.
      dimension: d >= 1.
      step_ratio: c_inf / total_bound in (0, 1].
      adjacency: "zero_out" or "replace_one" (then sampling_rate must be 1).
      other_rdp: curve on `orders` of all other releases (private standardisation, screening, clip bits), or None.
      orders: real orders; every integer 2..max if sampling_rate < 1.

    Returns:
      mu > 0 as used by `poisson_embedding_rdp`; at ``rounds`` times its curve plus other_rdp, epsilon is at most the
      target.

    Raises:
      ValueError: the target cannot be met, or a fact is out of range.
    """
    _check_target(epsilon, delta, rounds)
    orders = check_orders(orders)
    unit = poisson_embedding_rdp(
        orders,
        dark_count=1.0,
        modulation=modulation,
        honest_senders=honest_senders,
        norm_ratio=norm_ratio,
        dimension=dimension,
        step_ratio=step_ratio,
        adjacency=adjacency,
    )
    return _calibrate(
        orders,
        _sampled(orders, lambda mu: mu * unit, sampling_rate, adjacency),
        epsilon=epsilon,
        delta=delta,
        rounds=rounds,
        other=_other_curve(orders, other_rdp, epsilon, delta),
        start=epsilon / (rounds * float(unit[0])),
    )


def calibrate_noise_multiplier(
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    sampling_rate: float = 1.0,
    adjacency: str = "zero_out",
    other_rdp: ArrayLike | None = None,
    orders: ArrayLike = DEFAULT_ORDERS,
) -> float:
    """Smallest Gaussian noise multiplier (std over clip norm); arguments as in `calibrate_dark_count`."""
    _check_target(epsilon, delta, rounds)
    orders = check_orders(orders)
    unit = gaussian_rdp(orders, noise_multiplier=1.0, adjacency=adjacency)
    precision = _calibrate(
        orders,
        _sampled(orders, lambda x: x * unit, sampling_rate, adjacency),
        epsilon=epsilon,
        delta=delta,
        rounds=rounds,
        other=_other_curve(orders, other_rdp, epsilon, delta),
        start=epsilon / (rounds * float(unit[0])),
    )
    return 1 / math.sqrt(precision)


def calibrate_skellam_variance(
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    l1: float,
    l2: float,
    sampling_rate: float = 1.0,
    adjacency: str = "zero_out",
    other_rdp: ArrayLike | None = None,
    orders: ArrayLike = DEFAULT_ORDERS,
) -> float:
    """Smallest variance of the honest Skellam noise in the sum for the target.

    l1 and l2 as in `skellam_rdp`, under this adjacency; the rest as in `calibrate_dark_count`.
    """
    _check_target(epsilon, delta, rounds)
    orders = check_orders(orders)
    precision = _calibrate(
        orders,
        _sampled(orders, lambda x: skellam_rdp(orders, variance=1 / x, l1=l1, l2=l2), sampling_rate, adjacency),
        epsilon=epsilon,
        delta=delta,
        rounds=rounds,
        other=_other_curve(orders, other_rdp, epsilon, delta),
        start=epsilon / (rounds * l2 * l2),
    )
    return 1 / precision


def calibrate_rounds(
    orders: ArrayLike, per_round_rdp: ArrayLike, *, epsilon: float, delta: float, other_rdp: ArrayLike | None = None
) -> int:
    """Largest number of rounds of one curve within the target; 0 if not even one is.

    per_round_rdp is the curve of one round on `orders`, after sampling if there is any.
    """
    _check_target(epsilon, delta, 1)
    orders, per_round = check_curve(orders, per_round_rdp)
    other = _other_curve(orders, other_rdp, epsilon, delta)
    target = epsilon * (1 - _ROUNDING_ROOM)

    def cost(rounds: int) -> float:
        return renyi.epsilon(orders, rounds * per_round + other, delta)

    if cost(1) > target:
        return 0
    low, high = 1, 2
    while cost(high) <= target:
        low, high = high, 2 * high
        if high > 2**60:
            raise ValueError("more than 2^60 rounds meet the target: the curve is zero, there is nothing to calibrate")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= target else (low, middle)
    return low
