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
from fedjax_poisson.accounting.checks import (
    FloatArray,
    check_curve,
    check_orders,
    check_rate,
    check_target,
    positive,
)
from fedjax_poisson.accounting.renyi import DEFAULT_ORDERS, gaussian_rdp, poisson_embedding_rdp
from fedjax_poisson.accounting.sampling import amplify, binomial_log_weights, subsampled_rdp
from fedjax_poisson.accounting.skellam import skellam_rdp

_ROUNDING_ROOM = 1e-10
_STEPS = 60
_LEAST, _LARGEST = 1e-100, 1e100


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
    if check_rate(rate) == 1.0:
        return curve_of
    subsampled_rdp(orders, np.zeros_like(orders), rate, adjacency=adjacency)  # refuses what may not be claimed
    weights = binomial_log_weights(orders, rate)
    return lambda x: amplify(orders, curve_of(x), weights)


def largest_scale(cost: Callable[[float], float], target: float, start: float) -> float:
    """Largest x > 0 with cost(x) <= target, to 1e-13 relative.

    Brackets by powers of 4 that grow with every step, then bisects in log x: at most some seventy evaluations.

    Args:
      cost: nondecreasing function of x > 0; may return inf. It is evaluated at the returned value.
      target: the bound on the cost, above the limit of cost at 0.
      start: a first guess of any quality; taken into [1e-90, 1e90].

    Returns:
      x with cost(x) <= target.

    Raises:
      ValueError: no x in [1e-100, 1e100] meets the target, or all do.
    """
    low = high = min(max(start, 1e-90), 1e90)
    factor = 4.0
    while cost(low) > target:
        low, high, factor = low / factor, low, min(factor * factor, 2.0**64)
        if low < _LEAST:
            raise ValueError("no positive value meets the target; raise epsilon, delta or the largest order")
    while cost(high) <= target:
        low, high, factor = high, high * factor, min(factor * factor, 2.0**64)
        if high > _LARGEST:
            raise ValueError(
                "every value meets the target: what is calibrated changes nothing. Check the sampling rate "
                "(almost nobody ever takes part?), delta (a probability of anything at all?) and the other facts"
            )
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        if high / low < 1 + 1e-13 or not low < middle < high:
            break
        low, high = (middle, high) if cost(middle) <= target else (low, middle)
    return low


def _guess(epsilon: float, cost: float) -> float:
    """Where the search begins: epsilon over the cost of one unit, which may have overflowed or vanished."""
    return epsilon / cost if cost > 0 else _LARGEST


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
    orders: ArrayLike | None = None,
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
      orders: real orders; every integer 2..max if sampling_rate < 1; None for `DEFAULT_ORDERS`, the integers 2 to 512.

    Returns:
      mu > 0 as used by `poisson_embedding_rdp`; at ``rounds`` times its curve plus other_rdp, epsilon is at most the
      target.

    Raises:
      ValueError: the target cannot be met, or a fact is out of range.
    """
    orders = DEFAULT_ORDERS if orders is None else orders
    check_target(epsilon, delta, rounds)
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
        start=_guess(epsilon, rounds * float(unit[0])),
    )


def calibrate_noise_multiplier(
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    sampling_rate: float = 1.0,
    adjacency: str = "zero_out",
    other_rdp: ArrayLike | None = None,
    orders: ArrayLike | None = None,
) -> float:
    """Smallest Gaussian noise multiplier (std over clip norm); arguments as in `calibrate_dark_count`."""
    orders = DEFAULT_ORDERS if orders is None else orders
    check_target(epsilon, delta, rounds)
    orders = check_orders(orders)
    unit = gaussian_rdp(orders, noise_multiplier=1.0, adjacency=adjacency)
    precision = _calibrate(
        orders,
        _sampled(orders, lambda x: x * unit, sampling_rate, adjacency),
        epsilon=epsilon,
        delta=delta,
        rounds=rounds,
        other=_other_curve(orders, other_rdp, epsilon, delta),
        start=_guess(epsilon, rounds * float(unit[0])),
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
    orders: ArrayLike | None = None,
) -> float:
    """Smallest variance of the honest Skellam noise in the sum for the target.

    l1 and l2 as in `skellam_rdp`, under this adjacency; the rest as in `calibrate_dark_count`.
    """
    orders = DEFAULT_ORDERS if orders is None else orders
    check_target(epsilon, delta, rounds)
    orders = check_orders(orders)
    l1, l2 = positive("l1", l1), positive("l2", l2)
    precision = _calibrate(
        orders,
        _sampled(orders, lambda x: skellam_rdp(orders, variance=1 / x, l1=l1, l2=l2), sampling_rate, adjacency),
        epsilon=epsilon,
        delta=delta,
        rounds=rounds,
        other=_other_curve(orders, other_rdp, epsilon, delta),
        start=_guess(epsilon, rounds * l2 * l2),
    )
    return 1 / precision


def calibrate_rounds(
    orders: ArrayLike, per_round_rdp: ArrayLike, *, epsilon: float, delta: float, other_rdp: ArrayLike | None = None
) -> int:
    """Largest number of rounds of one curve within the target; 0 if not even one is.

    per_round_rdp is the curve of one round on `orders`, after sampling if there is any.
    """
    check_target(epsilon, delta, 1)
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
