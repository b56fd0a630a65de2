"""Amplification by sampling: Poisson sampling under constant noise, and fixed-size cohorts without replacement.

Only two situations may claim amplification. Either every sender always sends its dark noise and embeds zero when it
was not sampled (so the noise says nothing about who took part), or the unit is a record and every site always sends.
If only sampled clients bring noise, or the server sees who took part, there is none: account the largest number of
rounds of any one client instead (a participation cap).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from fedjax_poisson.accounting.checks import FloatArray, check_adjacency, check_curve, whole

_MOST_ORDERS = 4096  # the binomial sum holds their square: 128 MiB


def log_binomial(n: FloatArray, k: FloatArray) -> FloatArray:
    """Log of the binomial coefficient, elementwise, -inf where k > n."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return np.where(k > n, -np.inf, value)


def _contiguous(orders: ArrayLike, rdp: ArrayLike) -> tuple[FloatArray, FloatArray]:
    orders, rdp = check_curve(orders, rdp)
    if orders[0] != 2 or not np.array_equal(orders, np.arange(2, orders.size + 2)):
        raise ValueError(
            "amplification by sampling needs the curve at EVERY integer order 2..max (the binomial sum uses them "
            "all), these orders "
            f"run from {orders[0]:g} to {orders[-1]:g} in {orders.size} values; pass "
            f"accounting.integer_orders({math.ceil(orders[-1])})"
        )
    if orders.size > _MOST_ORDERS:
        raise ValueError(f"{orders.size} orders make a binomial sum too large; pass accounting.integer_orders(512)")
    return orders, rdp


def log_expm1(t: FloatArray) -> FloatArray:
    """log(e^t - 1) for t >= 0 without overflow, -inf at 0, inf at inf."""
    with np.errstate(divide="ignore"):
        return np.where(t > 1, t + np.log1p(-np.exp(-t)), np.log(np.expm1(np.minimum(t, 1.0))))


def binomial_log_weights(orders: FloatArray, rate: float) -> FloatArray:
    """log[ binom(a, k) (1-q)^(a-k) q^k ] for a (rows) and k (columns) in orders, -inf for k > a; float64[n, n].

    A calibration computes it once and hands it to `amplify` for every candidate.
    """
    a, k = orders[:, None], orders[None, :]
    return log_binomial(a, k) + (a - k) * math.log1p(-rate) + k * math.log(rate)


def amplify(orders: FloatArray, rdp: FloatArray, log_weights: FloatArray) -> FloatArray:
    """The Poisson-sampling bound from prepared weights (`binomial_log_weights`); see `subsampled_rdp`."""
    # (1-q)^(a-1) (1 + (a-1) q) is the weight of k = 0 and 1, all weights sum to 1: the sum is 1 + sum_k weight
    # expm1((k-1) rdp_k),
    # which keeps the digits of a divergence of 1e-12.
    with np.errstate(under="ignore", over="ignore", invalid="ignore"):
        terms = log_weights + np.where(np.isneginf(log_weights), 0.0, log_expm1((orders - 1) * rdp)[None, :])
        top = np.max(terms, axis=1)
        safe = np.where(np.isfinite(top), top, 0.0)
        log_sum = top + np.log(
            np.sum(np.exp(terms - safe[:, None]), axis=1), where=np.isfinite(top), out=np.zeros_like(top)
        )
    return np.logaddexp(0.0, log_sum) / (orders - 1)


def subsampled_rdp(
    orders: ArrayLike, rdp: ArrayLike, rate: float, *, adjacency: str = "zero_out", fixed_total_noise: bool = True
) -> FloatArray:
    """Renyi curve after secret Poisson sampling of the units, with the noise always present, whoever is sampled.

    For integer a, ``1/(a-1) log( (1-q)^(a-1) (1 + (a-1) q) + sum_{k=2..a} binom(a,k) (1-q)^(a-k) q^k e^{(k-1) rdp(k)}
    )`` (Zhu and Wang 2019 without the factor 3 of their general theorem; Steinke 2022, arXiv:2210.00597).

    Both directions. With R = P/Q the addition direction E_Q[(1-q+qR)^a] is the binomial sum itself. For the removal
    direction and w = (2a-1)q / (2(a-2)q + 3), the function ``(1-w)(1-q+qR)^a + w R (1-q+q/R)^a - (1-q+qR)^(1-a)`` has
    value 0 at R = 1 and a second derivative >= 0 (arithmetic-geometric mean, then (a-2) q (log y + log y~) + 3 (log y
    - q log R) >= 0 with y = 1-q+qR, y~ = 1-q+q/R); E_Q removes the linear term, so the removal moment is at most a
    mixture of the two binomial sums. Over the other units' coins: quasi-convexity.

    Args:
      orders: every integer 2..max, float64[n].
      rdp: curve of one release on these orders, valid in both directions under zero-out, float64[n].
      rate: q in [0, 1], probability with which each unit is sampled, independently and secretly, in each release.
      adjacency: only "zero_out": the theorem does not speak of replace-one.
      fixed_total_noise: whether the noise in the sum is the same whoever is sampled; False is refused.

    Returns:
      float64[n], in nats; the curve itself at rate 1, zeros at rate 0.

    Raises:
      ValueError: orders have gaps, the rate is no probability, or amplification may not be claimed (with the remedy).
    """
    orders, rdp = _contiguous(orders, rdp)
    check_adjacency(adjacency)
    if adjacency != "zero_out":
        raise ValueError(
            "Poisson sampling is accounted under zero_out only; under replace_one take a fixed-size cohort "
            "(without_replacement_rdp) "
            "or claim no amplification (rate 1)"
        )
    if not 0 <= rate <= 1:
        raise ValueError(f"the sampling rate is {rate}; it is a probability and must lie in [0, 1]")
    if not fixed_total_noise:
        raise ValueError(
            "no amplification may be claimed when only sampled senders bring noise: the noise level and the server's "
            "view tell who took part. "
            "Let every sender send its dark noise, or use rate 1 with a cap on the rounds of one client"
        )
    if rate == 0:
        return np.zeros_like(rdp)
    if rate == 1:
        return rdp.copy()
    return amplify(orders, rdp, binomial_log_weights(orders, rate))


def without_replacement_rdp(
    orders: ArrayLike, rdp: ArrayLike, *, cohort: int, population: int, adjacency: str = "replace_one"
) -> FloatArray:
    """Renyi curve of a release on a secret cohort of fixed size drawn without replacement; replace-one only.

    With g = cohort / population, the smaller of ``1/(a-1) log(1 + g^2 binom(a,2) min(4 (e^{rdp(2)} - 1), 2
    e^{rdp(2)}) + sum_{j=3..a} 2 g^j binom(a,j) e^{(j-1) rdp(j)})`` (Wang, Balle, Kasiviswanathan 2019,
    arXiv:1808.00087, Theorem 9 with an infinite pure epsilon) and ``1/(a-1) log(1 + g (e^{(a-1) rdp(a)} - 1))``. The
    latter holds because e^{(a-1)D_a} is jointly convex: given the other members, both worlds draw the same cohort,
    equal with probability 1-g. Loose next to Poisson sampling with constant noise.

    Args:
      orders: every integer 2..max, float64[n].
      rdp: curve of one release under REPLACE-ONE, float64[n].
      cohort: m, members of the cohort, 1 <= m <= population; public.
      population: N, units the cohort is drawn from.
      adjacency: only "replace_one".

    Returns:
      float64[n], in nats.
    """
    orders, rdp = _contiguous(orders, rdp)
    check_adjacency(adjacency)
    if adjacency != "replace_one":
        raise ValueError(
            "a cohort of fixed size is accounted under replace_one only (Wang-Balle-Kasiviswanathan); the Poisson "
            "formula is not valid for it. "
            "Pass a replace_one curve, or sample each unit independently with subsampled_rdp"
        )
    cohort, population = whole("cohort", cohort), whole("population", population)
    if cohort > population:
        raise ValueError(
            f"cohort {cohort} of population {population}: both are integers with 1 <= cohort <= population"
        )
    if cohort == population:
        return rdp.copy()
    log_g = math.log(cohort / population)
    a, j = orders[:, None], orders[None, :]
    log_moment = (orders - 1) * rdp + math.log(2.0)
    log_moment[0] = min(math.log(4.0) + float(log_expm1(rdp[:1])[0]), math.log(2.0) + rdp[0])
    weights = log_binomial(a, j) + j * log_g
    terms = weights + np.where(np.isneginf(weights), 0.0, log_moment[None, :])
    bound = np.logaddexp(0.0, special.logsumexp(terms, axis=1)) / (orders - 1)
    joint = np.logaddexp(0.0, log_g + log_expm1((orders - 1) * rdp)) / (orders - 1)
    return np.minimum(bound, joint)
