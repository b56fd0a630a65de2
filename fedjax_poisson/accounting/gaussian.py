"""The Gaussian mechanism beyond its Renyi curve: exact delta, loss-distribution epsilon and calibration.

It is the baseline for the embedding, and the mechanism that dominates it (`tight`).
"""

from __future__ import annotations

import functools
import math
from typing import Any

from scipy import special

from fedjax_poisson.accounting import renyi
from fedjax_poisson.accounting.calibration import calibrate_noise_multiplier
from fedjax_poisson.accounting.checks import check_adjacency, check_delta, check_rate, check_target, positive, whole
from fedjax_poisson.accounting.renyi import DEFAULT_ORDERS
from fedjax_poisson.accounting.sampling import subsampled_rdp

COMPARE = "pip install 'fedjax-poisson[compare]'"
_ROUNDING = 8 * 2.0**-52  # of a logarithm of the normal law and of the few operations on it, relative
_FINEST = 1e-4  # bins of a loss distribution in nats, and how many there may be in the range that matters
_MOST_BINS = 1 << 17
_MOST_COMPOSED = 10**6  # rounds: beyond them dp_accounting takes minutes


class ComparisonMissing(ModuleNotFoundError):
    """dp_accounting, which sampled comparisons with the Gaussian need, is not installed."""


def gaussian_delta(epsilon: float, noise_multiplier: float) -> float:
    """Exact delta of the Gaussian mechanism at this epsilon (Balle and Wang 2018, arXiv:1805.06530, Theorem 8).

    ``Phi(1/(2z) - eps z) - e^eps Phi(-1/(2z) - eps z)``, z = standard deviation over sensitivity. Where the two terms
    cancel, their rounding is counted upward: the value is never below the true one by more than a few units in the last
    place, and never above ``Phi(1/(2z) - eps z)``.
    """
    z = positive("noise_multiplier", noise_multiplier)
    if not math.isfinite(epsilon):
        raise ValueError(f"epsilon is {epsilon}; it must be a finite number")
    first, second = 0.5 / z - epsilon * z, -0.5 / z - epsilon * z
    log_first, log_ndtr = float(special.log_ndtr(first)), float(special.log_ndtr(second))
    if not math.isfinite(log_first):
        return 0.0
    if not math.isfinite(log_ndtr):  # e^eps Phi(second) is not known: leave it out
        return math.exp(log_first)
    doubt = _ROUNDING * (abs(epsilon) + abs(log_ndtr) + abs(log_first))
    return math.exp(log_first) * -math.expm1(min(epsilon + log_ndtr - log_first - doubt, 0.0))


def gaussian_pld_epsilon(noise_multiplier: float, delta: float, rounds: int, sampling_rate: float = 1.0) -> float:
    """Tightest known epsilon of the (sampled) Gaussian mechanism, by its privacy loss distribution.

    Without sampling the composition is one Gaussian of multiplier z / sqrt(T), whose delta is known exactly; with
    sampling it is dp_accounting's discretised distribution (seconds), whose bins of 1e-4 nats grow where the losses are
    so large that there would be millions of them: rounding is pessimistic at any width.

    Returns:
      epsilon in nats, rounded up; never above the Renyi conversion, which is all there is above 10^6 sampled rounds.

    Raises:
      ComparisonMissing: sampling_rate is below 1 and dp_accounting is not installed.
      ValueError: a fact is out of range.
    """
    z, delta, rounds = positive("noise_multiplier", noise_multiplier), check_delta(delta), whole("rounds", rounds)
    if check_rate(sampling_rate) == 1.0:
        z /= math.sqrt(rounds)
        high = renyi.epsilon(DEFAULT_ORDERS, renyi.gaussian_rdp(DEFAULT_ORDERS, noise_multiplier=z), delta)
        if gaussian_delta(0.0, z) <= delta or high == 0:
            return 0.0
        return _least_epsilon(z, delta, float(high))
    curve = subsampled_rdp(DEFAULT_ORDERS, renyi.gaussian_rdp(DEFAULT_ORDERS, noise_multiplier=z), sampling_rate)
    converted = renyi.epsilon(DEFAULT_ORDERS, rounds * curve, delta)
    if converted == 0 or ever_sampled(rounds, sampling_rate) <= delta:
        return 0.0
    span = converted + 0.5 / z / z + 9 / z  # of the sum and of one round
    if span > _MOST_BINS or rounds > _MOST_COMPOSED:
        return converted
    dp_accounting, pld = _dp_accounting()
    accountant = pld.PLDAccountant(value_discretization_interval=max(_FINEST, span / _MOST_BINS))
    event = dp_accounting.PoissonSampledDpEvent(sampling_rate, dp_accounting.GaussianDpEvent(z))
    return min(float(accountant.compose(event, rounds).get_epsilon(delta)), converted)


def _dp_accounting() -> tuple[Any, Any]:
    """dp_accounting and its `pld`. Imported here: two seconds of start-up that only this comparison needs."""
    try:
        import dp_accounting
        from dp_accounting import pld
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "dp_accounting":
            raise
        raise ComparisonMissing(
            "the privacy loss distribution of a sampled Gaussian is computed by dp-accounting, which is not installed; "
            f"{COMPARE}, or account by Renyi divergence (epsilon, calibrate_dark_count)",
            name=error.name,
        ) from error
    return dp_accounting, pld


def _least_epsilon(z: float, delta: float, high: float) -> float:
    """The epsilon at which a Gaussian of multiplier z has this delta, within 1e-12 (relative above 1) and never below: a bisection's upper end.

    (A root finder of SciPy would need fewer steps, and a quarter of a second of start-up.)
    """
    low = 0.0
    while high - low > 1e-12 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (low, middle) if gaussian_delta(middle, z) <= delta else (middle, high)
    return high


def ever_sampled(rounds: int, sampling_rate: float) -> float:
    """Probability that a unit takes part in any round at all: at this delta epsilon is 0 without any noise."""
    return 1.0 if sampling_rate >= 1 else -math.expm1(rounds * math.log1p(-sampling_rate))


def calibrate_gaussian_pld(
    *, epsilon: float, delta: float, rounds: int, sampling_rate: float = 1.0, adjacency: str = "zero_out"
) -> float:
    """Noise multiplier (to 1e-5 relative) at which the PLD-accounted Gaussian has this epsilon.

    Raises:
      ComparisonMissing: sampling_rate is below 1 and dp_accounting is not installed.
      ValueError: the target or the rate is out of range, or any noise at all meets the target.
    """
    from scipy import optimize

    check_adjacency(adjacency)
    epsilon, delta, rounds = check_target(epsilon, delta, rounds)
    if check_rate(sampling_rate) < 1 and adjacency == "replace_one":
        raise ValueError("the sampled comparison is made under zero_out only; set sampling_rate to 1 for replace_one")
    if (most := ever_sampled(rounds, sampling_rate)) <= delta:
        raise ValueError(
            f"any noise meets the target: a unit is ever sampled with probability {most:.3g}, at most delta {delta:g}; "
            "choose a smaller delta or a larger sampling rate"
        )
    start = math.log(
        calibrate_noise_multiplier(epsilon=epsilon, delta=delta, rounds=rounds, sampling_rate=sampling_rate)
    )

    @functools.cache
    def excess(log_z: float) -> float:
        reached = gaussian_pld_epsilon(math.exp(log_z), delta, rounds, sampling_rate)
        return math.log(min(max(reached / epsilon, 1e-12), 1e12))

    low, high = start - 0.05, start + 0.01
    while excess(low) <= 0:
        low, high = low - 0.2, low
        if low < start - 20:
            raise ValueError(
                f"any noise meets epsilon {epsilon:g} at delta {delta:g}: choose a smaller delta or a larger epsilon"
            )
    log_z = optimize.brentq(excess, low, high, xtol=1e-5, rtol=1e-8)
    return math.exp(log_z) * (2.0 if adjacency == "replace_one" else 1.0)
