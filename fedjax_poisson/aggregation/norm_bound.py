"""How long a client's vector may be in a norm round: the bound that its proof is held to, and what passes it.

After the set D of clients is signed, a common seed draws G = 16 functionals Z_g of all R N coefficients of a client's rows, weights 0, 0, +1 and -1. Let
d_gb = Z_g x over the fields b of the coefficients, and T = sum d_gb^2. A client proves T <= B^2 without showing anything else (`proof`).

*Honest clients* (|x|_2 <= Delta). Each weight is strictly sub-Gaussian with variance 1/2, so E exp(l T) <= (1 - l |x|^2)^(-G/2) for 0 <= l |x|^2 < 1: write
exp(l d^2) as the mean of exp(sqrt(2 l) d z) over a standard normal z, swap the means, and use independence over the functionals; the blocks of one functional
are independent, and a product of (1 - l_b |x_b|^2)^(-1/2) with the same sum of l |x_b|^2 is largest where one block has it all (log-convexity). Markov gives

    P(T > B^2) <= min_l exp(-l B^2) (1 - l Delta^2)^(-G/2) = exp(-(u - G/2)) (2 u / G)^(G/2),  u = B^2 / Delta^2 >= G/2      (*proved*)

and B^2 is the smallest integer for which that is at most 10^-12 2^-(m - t + f): who withholds parts of the seed chooses among 2^(m - t + f) drawings.

*Others*. For a dense vector in one block T / |x|^2 is chi^2 with 16 degrees over 2 (*checked numerically*, `tests/aggregation/test_norm_bound.py`), and a
vector with a single coordinate gives |x|^2 times a binomial of 16 trials of chance 1/2 (*exact*).
Spread over blocks, T is nearer to its mean 8 |x|^2, so less passes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy import special

__all__ = [
    "FUNCTIONALS_OF_COUNTS",
    "HONEST_FAILURE",
    "NormScreening",
    "dense_passes",
    "largest_mean_shift",
    "refusal_bound",
    "spike_passes",
    "squared_bound",
]

FUNCTIONALS_OF_COUNTS = 16
"""G, functionals of a client's rows that its proof speaks of."""
HONEST_FAILURE = 1e-12
"""Chance that an honest client is refused, whatever a server and f members withhold."""


class NormScreening(NamedTuple):
    """What makes a round a norm round.

    Attributes:
      squared_norm: Delta^2, bound on the squared L2 norm of an honest client's counts, an integer.
      noise_senders: l, parties that send the noise; all of them must be in the sum.
      honest_noise: h of l that are assumed honest and closed: the privacy cost is that of their noise alone.
    """

    squared_norm: int
    noise_senders: int
    honest_noise: int


def refusal_bound(ratio: float, functionals: int = FUNCTIONALS_OF_COUNTS) -> float:
    """The proved bound on P(T > ratio Delta^2) of an honest client (module docstring); 1 below the mean, G / 2."""
    half = functionals / 2
    if ratio <= half:
        return 1.0
    return math.exp(-(ratio - half) + half * math.log(ratio / half))


def squared_bound(squared_norm: int, members: int, threshold: int, malicious: int) -> int:
    """B^2, the integer that the proof compares T with: the smallest at which an honest client is refused with at most `HONEST_FAILURE`.

    Args:
      squared_norm: Delta^2, at least 1.
      members: m.
      threshold: t.
      malicious: f.
    """
    failure = HONEST_FAILURE / 2.0 ** (members - threshold + malicious)
    low, high = squared_norm * FUNCTIONALS_OF_COUNTS // 2, squared_norm * 1024
    while low < high:  # the bound falls in B^2
        middle = (low + high) // 2
        if refusal_bound(middle / squared_norm) <= failure:
            high = middle
        else:
            low = middle + 1
    return low


def dense_passes(shift: float, bound_ratio: float) -> float:
    """Chance that a dense vector in one block passes.

    Args:
      shift: its length in Delta.
      bound_ratio: B^2 / Delta^2.
    """
    return float(special.chdtr(FUNCTIONALS_OF_COUNTS, 2 * bound_ratio / shift**2))


def spike_passes(shift: float, bound_ratio: float) -> float:
    """Chance that a vector with one coordinate that is not 0 passes: at most so many functionals may see it; arguments as in `dense_passes`."""
    seen = min(FUNCTIONALS_OF_COUNTS, math.floor(bound_ratio / shift**2))
    return float(special.bdtr(seen, FUNCTIONALS_OF_COUNTS, 0.5))


def largest_mean_shift(bound_ratio: float) -> tuple[float, float]:
    """(length in Delta, length times chance to pass) of the dense vector in one block that moves a round most in the mean."""
    lengths = [0.5 + 0.01 * i for i in range(1000)]
    best = max(lengths, key=lambda length: length * dense_passes(length, bound_ratio))
    return best, best * dense_passes(best, bound_ratio)
