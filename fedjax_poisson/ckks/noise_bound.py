"""How large the decryption noise of a sum of ciphertexts can be: a proved tail bound, and the variance it comes from.

Setting. s is the secret, e the error inside the public key; sender i draws u_i, e0_i, e1_i. With a public key (pk0 + pk1 s = -e) the sum of n
ciphertexts decrypts to the message plus

    sum e0_i + s sum e1_i - e sum u_i          (ring products; each coefficient is a signed inner product of length N),

with a secret key in seeded mode to the message plus sum e0_i alone. s and u have uniform ternary coefficients, errors are centred binomial (21 pairs, variance
10.5). In rounds of the aggregation protocol ("round") a sum opens to the message plus the sum of the senders' own errors, wide centred binomials (42 pairs,
variance 21).

Bound. A law is *strictly sub-Gaussian* if E exp(tX) <= exp(t^2 Var X / 2). This holds for
  - a difference of two fair bits, cosh(t/2)^2 <= exp(t^2 / 4), hence for centred binomials (sums of those);
  - uniform ternary: (1 + 2 cosh t)/3 = sum (2/3) t^2m / (2m)! + ... <= exp(t^2/3), coefficient by coefficient since (2m)! >= 2 m! 3^(m-1);

Given s and e, every coefficient of the noise is a fixed linear form in independent strictly sub-Gaussian draws, so it is sub-Gaussian with proxy

    V = n 10.5 (1 + |s|^2) + n (2/3) |e|^2,

and P(|noise| >= T) <= 2 exp(-T^2 / 2V). The norms are random: for independent X_i with proxy v, E exp(a X_i^2) <= (1 - 2 a v)^(-1/2)
(insert a Gaussian, swap the expectations), the moment generating function of v chi^2, so Laurent and Massart (2000, Lemma 1) applies:
|.|^2 <= v (N + 2 sqrt(N x) + 2 x) but with probability exp(-x). A union bound over all coefficients and the two norms gives the stated
failure probability.
"""

from __future__ import annotations

import math

__all__ = [
    "ERROR_BOUND",
    "ERROR_PAIRS",
    "ERROR_VARIANCE",
    "TERNARY_VARIANCE",
    "WIDE_PAIRS",
    "WIDE_VARIANCE",
    "noise_bound",
    "noise_variance",
]

ERROR_PAIRS = 21
"""Pairs of fair bits in one centred binomial error, SEAL's choice: standard deviation 3.24, above the guideline's 3.19."""
ERROR_BOUND = ERROR_PAIRS
ERROR_VARIANCE = ERROR_PAIRS / 2
TERNARY_VARIANCE = 2 / 3
WIDE_PAIRS = 42
"""Pairs of fair bits in the errors and secrets of rounds: given the sum of two of them, each still has the variance of one of 21 pairs."""
WIDE_VARIANCE = WIDE_PAIRS / 2


def noise_variance(*, degree: int, senders: int, mode: str) -> float:
    """Mean variance of one coefficient of the decryption noise of a sum of `senders` ciphertexts (units of the ring's integers, squared).

    Args:
        degree: Ring degree N.
        senders: Ciphertexts in the sum, n.
        mode: "seeded" and "round" have no key noise; "public_key" has.

    Returns:
        n 10.5 in seeded mode, n 21 in rounds, else n 10.5 (1 + N 2/3) + n (2/3) N 10.5.
    """
    if mode == "round":
        return senders * WIDE_VARIANCE
    if mode == "seeded":
        return senders * ERROR_VARIANCE
    return senders * ERROR_VARIANCE * (1 + 2 * TERNARY_VARIANCE * degree)


def noise_bound(*, degree: int, senders: int, mode: str, coefficients: int, failure: float) -> float:
    """T such that no coefficient of the noise reaches T except with probability `failure` (proof in the module's docstring).

    Args:
        degree: Ring degree N.
        senders: Ciphertexts in the sum, n.
        mode: "public_key", "seeded" or "round".
        coefficients: How many coefficients are opened in all (rows times N).
        failure: Probability that any of them reaches T, in (0, 1).

    Returns:
        T, in units of the ring's integers.

    Raises:
        ValueError: If failure is not in (0, 1).
    """
    if not 0 < failure < 1:
        raise ValueError(f"failure must be a probability in (0, 1), not {failure}; 2**-128 is the default")
    log_failure = math.log(failure)
    if mode in ("seeded", "round"):
        proxy = senders * (ERROR_VARIANCE if mode == "seeded" else WIDE_VARIANCE)
    else:
        x = math.log(4) - log_failure  # each of the two norms fails with a quarter of the budget
        tail = degree + 2 * math.sqrt(degree * x) + 2 * x
        secret_norm = min(TERNARY_VARIANCE * tail, degree)
        proxy = senders * ERROR_VARIANCE * (1 + secret_norm + TERNARY_VARIANCE * tail)
    # 2 * coefficients * exp(-T^2/2V) = failure / 2
    return math.sqrt(2 * proxy * (math.log(4 * coefficients) - log_failure))
