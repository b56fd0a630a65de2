"""Renyi curves of the mechanisms, their composition, and the conversion to (epsilon, delta).

Host NumPy float64 only. A *curve* is an array ``rdp`` aligned with an array ``orders``: ``rdp[i]`` bounds the Renyi
divergence of order ``orders[i]`` between the releases on any two neighbouring inputs, in both directions. Curves add
over releases.

Everything about the embedding rests on one function. Two independent channels carry Poisson counts with rates ``M (1
+ s)`` and ``M (1 - s)``, ``|s| <= r``; a neighbour moves s by at most h on a coordinate. With ``D_a(Poi(x) || Poi(y))
= (x^a y^(1-a) - a x - (1-a) y) / (a-1)`` (Liese-Vajda; Gil et al. 2013) the worst position is s = -r and

    g_a(r, h) = [ (1-r) ((1 + h/(1-r))^a - 1) + (1+r) ((1 - h/(1+r))^a - 1) ] / (a-1)
              = a h^2 int_0^1 (1-u) [ (1 + u h/(1-r))^(a-2) / (1-r) + (1 - u h/(1+r))^(a-2) / (1+r) ] du.

*One coordinate.* The divergence M G(s, eta) is a sum of perspective functions, so jointly convex; at fixed eta its
maximum over s is at an end of [-r, r-eta], and by the symmetry s -> -s the two ends are the two directions of one
pair. "Inward" (from -r) is the larger: for the rates x > y of one channel and x' < y' of the other the difference is
2 sqrt(xy) sinh((2a-1)L) - 2 sqrt(x'y') sinh((2a-1)L') with L = log(x/y)/2 >= L' = log(y'/x')/2 and equal values at
the argument L and L' (both are x - y), and sinh(cL)/sinh(L) grows in L for c >= 1.

*Many coordinates, real a >= 2.* Write f = (a-1) g_a(r, .). f'''(t) = a(a-1)(a-2)[ (1 + t/(1-r))^(a-3)/(1-r)^2 - (1 -
t/(1+r))^(a-3)/(1+r)^2 ]. For a >= 3 the first power is >= 1 >= the second. For 2 <= a < 3 the quotient of the powers
is q^(3-a) with q = (1-r)(1+r-t) / ((1+r)(1-r+t)), which for t <= 2r is at least ((1-r)/(1+r))^2, and 3-a <= 1. So
f''' >= 0 on all reachable steps, f' is convex with f'(0) = 0, f'(t)/t increases, and f is convex in w = t^2. A vector
with |v_j| <= 1 and sum v_j^2 <= (C/c_inf)^2 therefore costs at most K g_a(r, h), K = min(d, (C/c_inf)^2):
concentrating is worst, and it is attained when K is an integer.

*1 < a < 2.* Now f''' <= 0 for t <= r (the same quotient, 3-a <= 2, t <= r), so f is concave in w and spreading is
worst: the bound is the limit a K h^2 / (1-r^2). For a larger step (replace-one with one honest sender) the value at
order 2 is used, RDP being nondecreasing in the order. Because the worst vector differs with the order there is no
single dominating pair in d > 1; a privacy loss distribution of "the worst vector" is not a valid accountant.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from fedjax_poisson.accounting.checks import (
    FloatArray,
    check_adjacency,
    check_curve,
    check_delta,
    check_orders,
    positive,
    whole,
)

_MOST_ORDERS = 10**6
_LARGEST_LOG = 700.0  # exp beyond this is reported as an infinite divergence
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2


def integer_orders(largest: int) -> FloatArray:
    """Every integer order 2..largest, float64, read-only: what amplification by sampling needs."""
    largest = whole("the largest order", largest, ": Renyi orders here begin at 2", least=2)
    if largest > _MOST_ORDERS:
        raise ValueError(f"the largest order is {largest}; ask for at most {_MOST_ORDERS}, 512 is plenty")
    orders = np.arange(2, largest + 1, dtype=np.float64)
    orders.setflags(write=False)
    return orders


DEFAULT_ORDERS: FloatArray = integer_orders(512)
"""Integers 2..512: contiguous, so that sampling may use them, and best for 0.05 <= epsilon <= 20 at usual deltas."""


def _channel(
    modulation: float, honest_senders: int, norm_ratio: float, dimension: int, step_ratio: float, adjacency: str
) -> tuple[float, float, float]:
    """Validate the facts of a release; return (r, h, K): modulation, worst step and worst number of coordinates."""
    check_adjacency(adjacency)
    if not 0 < modulation < 1:
        raise ValueError(
            f"modulation is {modulation}; it must lie in (0, 1): at 1 a rate can fall to 0 and every Renyi "
            "divergence is infinite"
        )
    honest_senders = whole(
        "honest_senders",
        honest_senders,
        " (the target's own noise): count the senders whose noise nobody colludes to remove",
    )
    dimension = whole("dimension", dimension, ", the number of coordinates sent")
    if not (math.isfinite(norm_ratio) and norm_ratio >= 1):
        raise ValueError(
            f"norm_ratio = clip_norm / coordinate_bound is {norm_ratio}; a coordinate bound above the clip norm "
            "never binds: "
            "set coordinate_bound <= clip_norm (equal if there is no coordinate clip)"
        )
    if not 0 < step_ratio <= 1:
        raise ValueError(
            f"step_ratio = coordinate_bound / total_bound is {step_ratio}; it must lie in (0, 1]: "
            "total_bound clamps a sender's whole sum and cannot be below what one unit moves it by"
        )
    step = modulation * step_ratio / honest_senders * (2.0 if adjacency == "replace_one" else 1.0)
    positive("modulation * step_ratio / honest_senders, the step of one unit,", step)
    return float(modulation), step, min(float(dimension), float(norm_ratio) * float(norm_ratio))


def _poisson_pair(orders: FloatArray, base: float, step: float) -> FloatArray:
    """(a-1) D_a(Poi(base + step) || Poi(base)) for base > 0 and base + step > 0, float64[n].

    Closed form: base ((1 + x)^a - 1 - a x), x = step / base. Its two parts are about ``a step`` while the value is
    about ``a (a-1) step^2 / (2 base)``; below (a-1)|x| = 1 (and |x| = 1/2) the integral a (a-1) step^2/base int
    (1-u)(1+ux)^(a-2) du is used, whose integrand is positive and smooth (48 Gauss-Legendre nodes reach float64
    accuracy there, checked against mpmath).
    """
    x = step / base
    value = np.full(orders.shape, np.inf)
    exponent = orders * math.log1p(x)
    fits = exponent < _LARGEST_LOG
    value[fits] = base * (np.expm1(exponent[fits]) - orders[fits] * x)
    smooth = ((orders - 1) * abs(x) < 1) & (abs(x) < 0.5)
    if np.any(smooth):
        a = orders[smooth]
        kernel = np.exp((a[:, None] - 2) * np.log1p(_NODES * x)[None, :])
        value[smooth] = a * (a - 1) * step * x * (kernel @ (_WEIGHTS * (1 - _NODES)))
    return value


def embedding_divergence(orders: ArrayLike, modulation: float, step: float) -> FloatArray:
    """g_a(r, h) of the module docstring: worst one-coordinate divergence per unit of total dark rate, both channels.

    Args:
      orders: real orders a > 1, float64[n].
      modulation: r in (0, 1).
      step: h in (0, 2r], the move of s that one unit can cause.

    Returns:
      float64[n], exact at every real order (one coordinate); +inf where it exceeds exp(700).

    Raises:
      ValueError: the modulation or the step is out of range.
    """
    if not 0 < modulation < 1:
        raise ValueError(f"modulation is {modulation}; it must lie in (0, 1)")
    if positive("step", step) > 2 * modulation:
        raise ValueError(f"step is {step}; positions lie in [-r, r], so it is at most 2 r = {2 * modulation}")
    return unchecked_divergence(check_orders(orders), modulation, step)


def unchecked_divergence(orders: FloatArray, modulation: float, step: float) -> FloatArray:
    """`embedding_divergence` for orders in any arrangement, which the caller has checked to be above 1."""
    return (_poisson_pair(orders, 1 - modulation, step) + _poisson_pair(orders, 1 + modulation, -step)) / (orders - 1)


def poisson_embedding_rdp(
    orders: ArrayLike,
    *,
    dark_count: float,
    modulation: float,
    honest_senders: int,
    norm_ratio: float,
    dimension: int,
    step_ratio: float = 1.0,
    adjacency: str = "zero_out",
) -> FloatArray:
    """Renyi curve of the sum of stochastic Poisson embeddings, the primary mechanism.

    Sender i sends ``Poisson(mu (1 + r v)) - Poisson(mu (1 - r v))`` per coordinate, ``v = u / total_bound``, and only
    the sum is opened. ``RDP(a) = K n_h mu g_a(r, h)``, h = r step_ratio / n_h (twice that for replace-one): an exact
    supremum when K is an integer; theorem and proof in the module docstring (data processing drops the common law of
    everyone else's noise, coordinates are independent).

    Args:
      orders: real orders a > 1, float64[n].
      dark_count: mu > 0, expected events per channel, coordinate and sender.
      modulation: r in (0, 1).
      honest_senders: n_h >= 1, senders whose noise is in the sum and known to no colluder, the target included.
      norm_ratio: C / c_inf >= 1, the L2 bound of one unit over its bound per coordinate.
      dimension: d >= 1, coordinates sent.
      step_ratio: c_inf / total_bound in (0, 1]; 1 at client level, smaller where one record moves a clamped sum
        (record level).
      adjacency: "zero_out" or "replace_one".

    Returns:
      float64[n], in nats. Linear in dark_count.

    Raises:
      ValueError: a fact is out of range; literal add/remove is refused with the reason.
    """
    orders = check_orders(orders)
    r, h, k = _channel(modulation, honest_senders, norm_ratio, dimension, step_ratio, adjacency)
    events = k * honest_senders * positive("dark_count", dark_count)
    curve = embedding_divergence(orders, r, h)
    below_two = orders < 2
    if np.any(below_two):
        order_two = 2 * h * h / (1 - r * r)
        curve[below_two] = orders[below_two] * order_two / 2 if h <= r else order_two
    return events * curve


def single_channel_rdp(
    orders: ArrayLike,
    *,
    dark_count: float,
    modulation: float,
    honest_senders: int,
    norm_ratio: float,
    dimension: int,
    step_ratio: float = 1.0,
    adjacency: str = "zero_out",
) -> FloatArray:
    """Renyi curve of the one-channel embedding ``Poisson(mu (1 + r v))``: counts that are never negative.

    ``RDP(a) = K D_a(Poi(n_h mu (1 - r + h)) || Poi(n_h mu (1 - r)))``: the worst rest of the sum has everybody at
    -c_inf. One channel of the proof in the module docstring: inward >= outward because sinh(cL) >= c sinh(L), f'''
    has the sign of a - 2, so K concentrated coordinates are worst for a >= 2 and the limit ``a K n_h mu h^2 / (2
    (1-r))`` holds for a < 2. First order in r: about 1/(1-r) times the Gaussian's variance; the push-pull embedding
    pays only 1/(1-r^2). Arguments, result and errors as in `poisson_embedding_rdp`; dark_count is lam b.
    """
    orders = check_orders(orders)
    r, h, k = _channel(modulation, honest_senders, norm_ratio, dimension, step_ratio, adjacency)
    events = k * honest_senders * positive("dark_count", dark_count)
    curve = _poisson_pair(orders, 1 - r, h) / (orders - 1)
    below_two = orders < 2
    curve[below_two] = orders[below_two] * h * h / (2 * (1 - r))
    return events * curve


def gaussian_rdp(orders: ArrayLike, *, noise_multiplier: float, adjacency: str = "zero_out") -> FloatArray:
    """Renyi curve of the Gaussian mechanism: ``a / (2 z^2)``, four times that under replace-one.

    Mironov 2017, Proposition 7.

    Args:
      orders: real orders a > 1, float64[n].
      noise_multiplier: z > 0, standard deviation of the noise in the sum over the L2 clip norm C.
      adjacency: "zero_out" (sensitivity C) or "replace_one" (sensitivity 2C).

    Returns:
      float64[n], in nats.
    """
    check_adjacency(adjacency)
    z = positive("noise_multiplier", noise_multiplier) / (2.0 if adjacency == "replace_one" else 1.0)
    return check_orders(orders) / (2 * z * z)


def compose(*curves: ArrayLike) -> FloatArray:
    """Sum of Renyi curves on the same orders: the curve of all the releases together (Mironov 2017, Prop. 1).

    The functions released may be chosen from earlier releases; the curves may not (use a `PrivacyFilter` then).
    """
    if not curves:
        raise ValueError("nothing to compose: pass at least one curve")
    values = [np.asarray(curve, np.float64) for curve in curves]
    shapes = {value.shape for value in values}
    if len(shapes) != 1:
        raise ValueError(f"curves of shapes {sorted(shapes)} do not compose: compute all of them on the same orders")
    total = values[0].copy()
    for value in values[1:]:
        total += value
    return total


def _converted(orders: FloatArray, rdp: FloatArray, delta: float) -> FloatArray:
    return rdp + np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)


def epsilon_per_order(orders: ArrayLike, rdp: ArrayLike, delta: float) -> FloatArray:
    """The epsilon that each single order certifies at this delta, float64[n], clipped at 0.

    ``eps = RDP(a) + log(1 - 1/a) - (log delta + log a) / (a - 1)`` (Canonne, Kamath, Steinke 2020, Prop. 12), and 0
    where the order bounds the total variation below delta already: ``TV^2 <= 1 - exp(-KL)`` (Bretagnolle-Huber) and
    KL <= RDP(a).
    """
    orders, values = check_curve(orders, rdp)
    delta = check_delta(delta)
    certified = _converted(orders, values, delta)
    certified[delta * delta + np.expm1(-values) > 0] = 0.0
    return np.maximum(certified, 0.0)


def epsilon(orders: ArrayLike, rdp: ArrayLike, delta: float) -> float:
    """Smallest epsilon that the composed Renyi curve certifies at this delta (Canonne-Kamath-Steinke).

    Compose first and convert once: epsilons of single releases must not be added. The best order is chosen after
    composition, which is sound when the curves were fixed in advance; for curves chosen from past releases use a
    `PrivacyFilter`.

    Args:
      orders: orders a > 1, float64[n].
      rdp: curve on these orders, nats, float64[n]; may hold +inf.
      delta: in (0, 1).

    Returns:
      epsilon in nats, +inf if no order is finite.
    """
    return float(np.min(epsilon_per_order(orders, rdp, delta)))


def best_order(orders: ArrayLike, rdp: ArrayLike, delta: float) -> float:
    """The order at which `epsilon` is attained; reports show it, and a planned ledger fixes it in advance."""
    orders, values = check_curve(orders, rdp)
    return float(orders[int(np.argmin(_converted(orders, values, check_delta(delta))))])


def rdp_budget(order: float, epsilon: float, delta: float) -> float:
    """Largest divergence of this one order that still certifies (epsilon, delta); negative if none does."""
    delta = check_delta(delta)
    if not (math.isfinite(order) and order > 1) or math.isnan(epsilon):
        raise ValueError(f"order {order}, epsilon {epsilon}: a finite order above 1 and an epsilon are needed")
    return epsilon - math.log1p(-1 / order) + (math.log(delta) + math.log(order)) / (order - 1)
