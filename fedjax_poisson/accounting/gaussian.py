"""The Gaussian mechanism beyond its Renyi curve: exact delta, loss-distribution epsilon and calibration.

What the embedding is compared with, and what dominates it (`tight`).
"""

from __future__ import annotations

import math

from scipy import special

from fedjax_poisson.accounting import renyi
from fedjax_poisson.accounting.calibration import calibrate_noise_multiplier
from fedjax_poisson.accounting.renyi import DEFAULT_ORDERS, _positive


def gaussian_delta(epsilon: float, noise_multiplier: float) -> float:
    """Exact delta of the Gaussian mechanism at this epsilon (Balle and Wang 2018, arXiv:1805.06530, Theorem 8).

    ``Phi(1/(2z) - eps z) - e^eps Phi(-1/(2z) - eps z)``, z = standard deviation over sensitivity.
    """
    z = _positive("noise_multiplier", noise_multiplier)
    log_first, log_second = special.log_ndtr(0.5 / z - epsilon * z), epsilon + special.log_ndtr(-0.5 / z - epsilon * z)
    return float(math.exp(log_first) * -math.expm1(min(log_second - log_first, 0.0)))


def gaussian_pld_epsilon(noise_multiplier: float, delta: float, rounds: int, sampling_rate: float = 1.0) -> float:
    """Tightest known epsilon of the (sampled) Gaussian mechanism, by its privacy loss distribution.

    Without sampling the composition is one Gaussian of multiplier z / sqrt(T), whose delta is known exactly; with
    sampling it is dp_accounting's discretised distribution (seconds).
    """
    if sampling_rate == 1.0:
        z = noise_multiplier / math.sqrt(rounds)
        high = renyi.epsilon(DEFAULT_ORDERS, renyi.gaussian_rdp(DEFAULT_ORDERS, noise_multiplier=z), delta)
        if gaussian_delta(0.0, z) <= delta or high == 0:
            return 0.0
        from scipy import optimize  # a quarter of a second of start-up

        root = optimize.brentq(lambda e: gaussian_delta(e, z) - delta, 0.0, high, xtol=1e-12, rtol=1e-12)
        return float(root) * (1 + 2e-12) + 2e-12  # brentq may stop on either side of the root
    # Imported here: two seconds of start-up that only this comparison needs.
    import dp_accounting
    from dp_accounting import pld

    event = dp_accounting.PoissonSampledDpEvent(sampling_rate, dp_accounting.GaussianDpEvent(noise_multiplier))
    return float(pld.PLDAccountant().compose(event, rounds).get_epsilon(delta))


def calibrate_gaussian_pld(
    *, epsilon: float, delta: float, rounds: int, sampling_rate: float = 1.0, adjacency: str = "zero_out"
) -> float:
    """Noise multiplier (to 1e-5 relative) at which the PLD-accounted Gaussian has this epsilon."""
    from scipy import optimize

    renyi.check_adjacency(adjacency)
    if adjacency == "replace_one" and sampling_rate < 1:
        raise ValueError("the sampled comparison is made under zero_out only; set sampling_rate to 1 for replace_one")
    start = calibrate_noise_multiplier(epsilon=epsilon, delta=delta, rounds=rounds, sampling_rate=sampling_rate)

    def excess(log_z: float) -> float:
        return math.log(max(gaussian_pld_epsilon(math.exp(log_z), delta, rounds, sampling_rate), 1e-12) / epsilon)

    low = math.log(start) - 0.05
    while excess(low) <= 0:
        low -= 0.2
    log_z = optimize.brentq(excess, low, math.log(start) + 0.01, xtol=1e-5, rtol=1e-8)
    return math.exp(log_z) * (2.0 if adjacency == "replace_one" else 1.0)
