"""A tighter route from the embedding to (epsilon, delta) in any dimension: domination by a slightly wider Gaussian.

The conversion from a Renyi curve costs 9-18 % of variance against a privacy loss distribution, but in d > 1 there is
no worst vector whose loss distribution could be used. Here the hockey-stick itself is bounded, for all vectors at
once and for adaptively chosen ones.

**Theorem.** Let every round be a stochastic Poisson embedding with modulation r and step h (`renyi`), K as there, and
let M bound the sum over rounds of n_h mu almost surely (rounds, vectors and dark counts may depend on earlier
releases). Put kappa = log(1 + h/(1-r)), tau in (0, 1),

    A(w) = max(2, 1 + [kappa + sqrt(kappa^2 + 2 w (log(1/tau) - kappa))] / w),     w_0 > 0,
    W    the solution of  int_{w_0}^{W} A(w) / (2 K g_{A(w)}(r, h)) dw = M.

Then for every epsilon and both directions delta(epsilon) <= delta_Gauss(epsilon; z = W^(-1/2)) + tau sqrt(W / (2 pi)).

(A Gaussian has RDP(a) = a w / 2: the integral asks at each moment for the Gaussian variance that matches the
embedding at order A(w). Since g_a / a is h^2/(1-r^2) up to the factor 1 + (2/3)(a-2) r h + ..., W is within a
fraction of a per cent of the variance 2 K M h^2/(1-r^2) of the small-step limit as soon as there are ten senders.)

*Proof.* Let the counts of a round arrive as Poisson processes (counts are sufficient, so nothing is gained or lost).
The likelihood ratio S = dP/dQ is a Q-martingale from S = 1 that an event multiplies by 1 + xi: on the two channels of
coordinate j with rates m(1 +- s_j) under Q and m(1 +- (s_j + eta_j)) under P, xi = +-eta_j / (1 +- s_j). The
hockey-stick is the price of a call on S: E_Q (S_end - e^epsilon)_+. Take the Black-Scholes function u(w, S) = S
Phi(d1) - e^epsilon Phi(d1 - sqrt w), d1 = (log S - epsilon)/sqrt w + sqrt w / 2. It is convex in S, at least the
payoff for w > 0, equal to delta_Gauss(epsilon; w^(-1/2)) at S = 1, and S^2 u_SS = 2 u_w = S phi(d1)/sqrt w. Let w run
down from W to w_0 while the events are spent, -dw/dM = 2 K g_A / A (a function of what is left of the budget). By
Dynkin's formula E_Q u(w_end, S_end) - u(W, 1) is the expected integral of the drift, which per unit of m is

    sum_j sum_+- (1 +- s_j) [u(S(1+xi)) - u(S) - S xi u_S] - u_w 2 K g_A / A.

Taylor's formula and u_SS(S(1 + t xi)) = (S phi(d1) / sqrt w) (1 + t xi)^(a-2) e^{-log(1 + t xi)^2/(2w)} / S^2 with
**a = 1 - d1/sqrt w** give the sum the bound (S phi(d1)/sqrt w) sum_j H_a(s_j, eta_j), H_a = sum_+- (1 +- s) xi^2
int_0^1 (1-t)(1 + t xi)^(a-2) dt: the power divergence of order a between the rates, at any real a. (1) H_a is convex
in a (each integrand is an exponential in a) and H_a of a pair is H_{1-a} of the swapped pair, which is also feasible.
So for 1-A <= a <= A, A >= 2, it is at most its supremum at A, and the theorem of `renyi` says sum_j H_A <= K g_A / A.
There the drift is <= 0. (2) For a > A (d1 = -(a-1) sqrt w) bound H_a <= e^{(a-2) kappa} and sum_j by K h^2/(1-r^2):
the drift is at most (K h^2/(1-r^2)) S / sqrt(2 pi w) times exp((a-2) kappa - (a-1)^2 w/2), which decreases in a
beyond 1 + kappa/w and is tau at A(w) or smaller. For a < 1-A take the swapped pair at order a' = 1-a > A, where d1^2
= a'^2 w is larger still. As E_Q[S X] = E_P[X], and dM <= dw (1-r^2) / (2 K h^2) because g_A/A >= h^2/(1-r^2), the
integral of this part is at most tau int_0^W dw / (2 sqrt(2 pi w)) = tau sqrt(W/(2 pi)). At the end u >= the payoff.
Nothing was assumed about how vectors, positions of the others or dark counts were chosen from the past, and the
swapped direction is the same statement. QED

*Sampling.* The theorem for one round says that its pair is dominated by (1-v) Gauss + v (disjoint), v = sigma / (1 -
TV), sigma the slack and TV the Gaussian's total variation at epsilon = 0 (for epsilon < 0 use delta_PQ(eps) = 1 -
e^eps + e^eps delta_QP(-eps)). Dominating pairs survive Poisson sampling under constant noise and adaptive composition
(Zhu, Dong, Wang 2022, arXiv:2106.08567); revealing which rounds took the disjoint branch, with
the same probability in both worlds, costs at most T v by joint convexity. So delta <= delta of the T-fold sampled
Gaussian + T v.

*What cannot work.* Any conversion that knows upper bounds on the curve only. Give P a mass p at the loss x and the
rest at the loss y = log((1-p)/(1 - p e^-x)) < 0. The pair meets every bound E_P e^{tL} <= e^{t rdp(t+1)}, in both
directions and at all real orders, as soon as p <= inf_t e^{-tx} (e^{t rdp(t+1)} - 1), and its delta is
p (1 - e^{epsilon-x}). For a Gaussian curve and delta = 1e-5 it reaches 0.44, 0.95 and 0.98 of what
Canonne-Kamath-Steinke report at epsilon = 1, 3 and 8, where the Gaussian itself has 0.24, 0.21 and 0.19 of it: from
epsilon = 3 on a conversion from the curve can gain almost nothing (tests/accounting/test_tight.py). A Berry-Esseen
bound loses too: its absolute error is far above delta. And no single vector's loss distribution is an accountant in
d > 1 (`renyi`). What the curve does not know is that the loss is spread by every later event of the run; the argument
above does.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from fedjax_poisson.accounting import renyi
from fedjax_poisson.accounting.calibration import calibrate_dark_count, largest_scale
from fedjax_poisson.accounting.checks import check_delta, check_rate, check_target, positive, whole
from fedjax_poisson.accounting.gaussian import calibrate_gaussian_pld, gaussian_delta, gaussian_pld_epsilon
from fedjax_poisson.accounting.renyi import DEFAULT_ORDERS, _channel, poisson_embedding_rdp, unchecked_divergence
from fedjax_poisson.accounting.sampling import subsampled_rdp

_GRID = 3000
_LARGEST_EPSILON = 1e6  # an epsilon above it is reported as the conversion has it


class Domination(NamedTuple):
    """A Gaussian that dominates: delta(epsilon) <= gaussian_delta(epsilon, noise_multiplier) + slack for every epsilon.

    Attributes:
      noise_multiplier: W^(-1/2).
      slack: tau sqrt(W / (2 pi)).
      inflation: W over the variance 2 K M h^2/(1-r^2) of the small-step limit; what the proof costs.
    """

    noise_multiplier: float
    slack: float
    inflation: float


def dominating_gaussian(
    *,
    total_dark_count: float,
    modulation: float,
    honest_senders: int,
    norm_ratio: float,
    dimension: int,
    step_ratio: float = 1.0,
    adjacency: str = "zero_out",
    tau: float = 1e-9,
) -> Domination:
    """The Gaussian that dominates all rounds of an embedding together (theorem in the module docstring).

    Args:
      total_dark_count: sum over rounds of mu, > 0; an almost-sure bound where mu is chosen adaptively.
      modulation: r in (0, 1).
      honest_senders: n_h >= 1.
      norm_ratio: C / c_inf >= 1.
      dimension: d >= 1.
      step_ratio: c_inf / total_bound in (0, 1].
      adjacency: "zero_out" or "replace_one".
      tau: in (0, 1), trades the slack against the width; 1e-4 times the target delta is near the best.

    Returns:
      `Domination`; W is an upper bound of the integral equation's solution (lower Riemann sums of an increasing
      integrand).
    """
    r, h, k = _channel(modulation, honest_senders, norm_ratio, dimension, step_ratio, adjacency)
    if not 0 < tau < 1:
        raise ValueError(f"tau is {tau}; it must lie in (0, 1), a small fraction of the target delta")
    events = honest_senders * positive("total_dark_count", total_dark_count)
    kappa, log_tau = math.log1p(h / (1 - r)), -math.log(tau)
    limit = 2 * k * events * h * h / (1 - r * r)
    if not 1e-150 < limit < 1e150:
        raise ValueError(
            f"total_dark_count {total_dark_count:g} gives the variance {limit:g}: nothing is hidden or nothing is sent; "
            "check the facts"
        )
    # The first grid point is w_0; below kappa^2 the orders are so high that hardly any budget fits.
    low = min(limit, kappa * kappa) * 1e-3
    high = 2.0 * limit + 100.0 * kappa * kappa * max(log_tau, 1.0)
    while True:
        grid = np.geomspace(low, high, _GRID)
        orders = 1 + (kappa + np.sqrt(np.maximum(kappa * kappa + 2 * grid * (log_tau - kappa), 0.0))) / grid
        orders = np.maximum(orders, 2.0)
        costs = unchecked_divergence(orders, r, h)
        # orders fall and the integrand a / g_a grows with w: the left end of each cell is a lower bound on it.
        spent = np.concatenate([[0.0], np.cumsum((orders / (2 * k * costs))[:-1] * np.diff(grid))])
        if spent[-1] >= events:
            break
        high *= 2.0
    cell = int(np.searchsorted(spent, events)) - 1
    width = float(grid[cell] + (events - spent[cell]) * 2 * k * costs[cell] / orders[cell])
    return Domination(1 / math.sqrt(width), tau * math.sqrt(width / (2 * math.pi)), width / limit)


_TAUS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def _sampled_tau(delta: float, rounds: int) -> float:
    """A tail that leaves all rounds together about a thousandth of delta as slack."""
    return 1e-3 * delta / rounds


def disjoint_mass(bound: Domination) -> float:
    """Mass v = slack / (1 - TV) of one round's disjoint pair beside its Gaussian (*Sampling* in the module docstring).

    TV = 1 - 2 Phi(-1/(2z)) is the Gaussian's total variation; +inf or above 1 where the round is not dominated at all.
    """
    apart = 2 * float(special.ndtr(-0.5 / bound.noise_multiplier))
    return bound.slack / apart if apart > 0 else math.inf


def tight_delta(epsilon: float, *, tau: float = 1e-9, **facts: Any) -> float:
    """Delta of all rounds together at this epsilon, without sampling; facts as in `dominating_gaussian`."""
    bound = dominating_gaussian(tau=tau, **facts)
    return min(gaussian_delta(epsilon, bound.noise_multiplier) + bound.slack, 1.0)


def tight_epsilon(
    *,
    delta: float,
    rounds: int,
    dark_count: float,
    modulation: float,
    honest_senders: int,
    norm_ratio: float,
    dimension: int,
    step_ratio: float = 1.0,
    adjacency: str = "zero_out",
    sampling_rate: float = 1.0,
    orders: ArrayLike | None = None,
) -> float:
    """Epsilon of T rounds of the embedding: the domination bound, or the Renyi conversion where that is smaller.

    Arguments as in `poisson_embedding_rdp`, plus rounds T and sampling_rate q (then zero_out only, seconds of PLD
    arithmetic). Without sampling the bound holds for adaptively chosen dark counts whose total is at most ``rounds *
    dark_count``.

    Args:
      delta: in (0, 1).
      rounds: T >= 1.
      dark_count: mu > 0 per round.
      modulation: r.
      honest_senders: n_h.
      norm_ratio: C / c_inf.
      dimension: d.
      step_ratio: c_inf / total_bound.
      adjacency: "zero_out" or "replace_one".
      sampling_rate: q in (0, 1].
      orders: Renyi orders of the conversion it is compared with; None for `DEFAULT_ORDERS`.

    Returns:
      epsilon in nats, never above the Renyi-accounted one.

    Raises:
      ComparisonMissing: sampling_rate is below 1 and dp_accounting is not installed.
      ValueError: a fact is out of range, or amplification may not be claimed.
    """
    orders = DEFAULT_ORDERS if orders is None else orders
    facts: dict[str, Any] = {
        "modulation": modulation,
        "honest_senders": honest_senders,
        "norm_ratio": norm_ratio,
        "dimension": dimension,
        "step_ratio": step_ratio,
        "adjacency": adjacency,
    }
    delta, rounds, rate = check_delta(delta), whole("rounds", rounds), check_rate(sampling_rate)
    curve = poisson_embedding_rdp(orders, dark_count=dark_count, **facts)
    if rate < 1:
        curve = subsampled_rdp(orders, curve, rate, adjacency=adjacency)
    best = renyi.epsilon(orders, rounds * curve, delta)
    if not 0 < best <= _LARGEST_EPSILON:
        return best
    if rate == 1:
        for share in _TAUS:
            bound = dominating_gaussian(total_dark_count=rounds * dark_count, tau=share * delta, **facts)
            if bound.slack < delta:
                best = min(best, gaussian_pld_epsilon(bound.noise_multiplier, delta - bound.slack, 1))
        return best
    bound = dominating_gaussian(total_dark_count=dark_count, tau=_sampled_tau(delta, rounds), **facts)
    disjoint = rounds * disjoint_mass(bound)
    if disjoint < delta:
        best = min(best, gaussian_pld_epsilon(bound.noise_multiplier, delta - disjoint, rounds, rate))
    return best


def calibrate_dark_count_tight(
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    sampling_rate: float = 1.0,
    orders: ArrayLike | None = None,
    **facts: Any,
) -> float:
    """Largest dark count that the domination bound or the Renyi conversion certifies: the larger of the two.

    With many honest senders domination allows 10-20 % more; where a step is coarse (one honest sender, a large
    modulation) the conversion does, by up to a factor of several.

    Args:
      epsilon: target in nats, > 0.
      delta: target in (0, 1).
      rounds: T >= 1.
      sampling_rate: q in (0, 1]; below 1 a minute of PLD arithmetic, and within 1e-4 of the largest.
      orders: Renyi orders of the conversion, as in `tight_epsilon`; None for `DEFAULT_ORDERS`.
      **facts: modulation, honest_senders, norm_ratio, dimension, step_ratio, adjacency as in `dominating_gaussian`.

    Returns:
      mu > 0, never below `calibrate_dark_count`'s; `tight_epsilon` accounts it.

    Raises:
      ComparisonMissing: sampling_rate is below 1 and dp_accounting is not installed.
      ValueError: the target is out of range, or any dark count meets it.
    """
    orders = DEFAULT_ORDERS if orders is None else orders
    epsilon, delta, rounds = check_target(epsilon, delta, rounds)
    converted = calibrate_dark_count(
        epsilon=epsilon, delta=delta, rounds=rounds, sampling_rate=sampling_rate, orders=orders, **facts
    )
    if sampling_rate == 1:

        def calibrated(tau: float) -> float:
            def cost(mu: float) -> float:
                return tight_delta(epsilon, tau=tau, total_dark_count=rounds * mu, **facts)

            allowed = delta * (1 - 1e-10)
            return largest_scale(cost, allowed, converted) if cost(converted) <= allowed else converted

        return max(calibrated(share * delta) for share in _TAUS)

    def width(mu: float) -> float:
        return dominating_gaussian(total_dark_count=mu, tau=_sampled_tau(delta, rounds), **facts).noise_multiplier ** -2

    z = calibrate_gaussian_pld(epsilon=epsilon, delta=0.99 * delta, rounds=rounds, sampling_rate=sampling_rate)
    for _ in range(20):
        if width(converted) > z**-2:
            break
        mu = largest_scale(width, z**-2, converted)
        if (
            tight_epsilon(
                delta=delta, rounds=rounds, dark_count=mu, sampling_rate=sampling_rate, orders=orders, **facts
            )
            <= epsilon
        ):
            return mu
        z *= 1 + 2e-5
    return converted
