"""Independent high-precision values: direct sums over outcomes in mpmath, and exact hockey-sticks of attainable
pairs."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
from scipy import optimize, stats

DIGITS = 60


def _sum(term, centre: float, width: float):
    """Sum of term(k) over k around `centre`, widened until both edges no longer matter."""
    low, high = max(0, int(centre - width)), int(centre + width) + 1
    total = mp.fsum(term(k) for k in range(low, high + 1))
    while True:
        step = int(width) + 10
        more = mp.fsum(term(k) for k in range(high + 1, high + step))
        less = mp.fsum(term(k) for k in range(max(0, low - step), low)) if low else mp.mpf(0)
        total += more + less
        high, low = high + step - 1, max(0, low - step)
        if abs(more) + abs(less) <= abs(total) * mp.mpf(10) ** (-DIGITS + 15):
            return total


def poisson_pmf(rate, k: int):
    return mp.exp(-rate + k * mp.log(rate) - mp.loggamma(k + 1))


def poisson_moment(x, y, a):
    """E_y[(P_x / P_y)^a] by summing pmf^a pmf^(1-a) over the outcomes."""
    tilted = float(mp.mpf(x) ** a * mp.mpf(y) ** (1 - a))
    return _sum(lambda k: poisson_pmf(x, k) ** a * poisson_pmf(y, k) ** (1 - a), tilted, 14 * math.sqrt(tilted) + 40)


def renyi_of_moment(moment, a):
    return mp.log(moment) / (a - 1)


def embedding_worlds(total_rate, modulation, step):
    """Rates (P, Q) of both channels of the worst pair: s = -r in world Q, -r + step in world P."""
    m, r, h = mp.mpf(total_rate), mp.mpf(modulation), mp.mpf(step)
    return (m * (1 - r + h), m * (1 + r - h)), (m * (1 - r), m * (1 + r))


def embedding_rdp(
    a, *, dark_count, modulation, honest_senders, coordinates=1, adjacency="zero_out", step_ratio=1.0, channels=2
):
    """Direct sum of the worst pair's divergence; a real or integer > 1."""
    with mp.workdps(DIGITS):
        a = mp.mpf(a)
        step = mp.mpf(modulation) * mp.mpf(step_ratio) / honest_senders * (2 if adjacency == "replace_one" else 1)
        p, q = embedding_worlds(mp.mpf(dark_count) * honest_senders, modulation, step)
        moment = mp.mpf(1)
        for x, y in zip(p[:channels], q[:channels], strict=True):
            moment *= poisson_moment(x, y, a)
        return coordinates * renyi_of_moment(moment, a)


def skellam_rdp(a, variance, shift):
    """Direct sum over Bessel functions."""
    with mp.workdps(40):
        v = mp.mpf(variance)
        centre = int(a * shift)
        reach = centre + int(14 * math.sqrt(variance + centre)) + 80
        pmf = {k: mp.exp(-v) * mp.besseli(k, v) for k in range(reach + shift + 1)}
        total = mp.fsum(pmf[abs(k - shift)] ** a * pmf[abs(k)] ** (1 - a) for k in range(-reach, reach + 1))
        return mp.log(total) / (a - 1)


def subsampled_moment_by_outcomes(a: int, q, p_rates, q_rates, *, removal: bool):
    """E[(mixture / Q)^a] (addition) or E[(Q / mixture)^a] under the mixture (removal), over outcomes of two
    channels."""
    with mp.workdps(30):
        pairs = []
        for x, y in zip(p_rates, q_rates, strict=True):
            top = int(max(x, y) * a + 14 * math.sqrt(float(max(x, y)) * a) + 40)
            pairs.append([(poisson_pmf(x, k), poisson_pmf(y, k)) for k in range(top)])
        total = mp.mpf(0)
        for px, py in pairs[0]:
            for ux, uy in pairs[1]:
                with_target, without = px * ux, py * uy
                mixture = (1 - q) * without + q * with_target
                total += without**a * mixture ** (1 - a) if removal else mixture**a * without ** (1 - a)
        return mp.log(total) / (a - 1)


def channel_laws(p, q):
    """Outcome laws (float64 matrices) of two independent Poisson channels in worlds P and Q."""
    laws = []
    for x, y in zip(p, q, strict=True):
        reach = int(max(x, y) + 12 * math.sqrt(max(x, y)) + 40)
        low = max(0, int(min(x, y) - 12 * math.sqrt(min(x, y)) - 40))
        k = np.arange(low, reach + 1)
        laws.append((stats.poisson.pmf(k, x), stats.poisson.pmf(k, y)))
    (px, qx), (py, qy) = laws
    return np.outer(px, py), np.outer(qx, qy)


def hockey_stick(first: np.ndarray, second: np.ndarray, epsilon: float) -> float:
    """sum max(0, first - e^eps second): the exact delta of one direction (up to the 1e-30 tails cut off, a lower
    bound)."""
    return float(np.sum(np.maximum(first - math.exp(epsilon) * second, 0.0)))


def exact_delta(epsilon: float, *, events: float, modulation: float, step: float, rate: float = 1.0) -> float:
    """Larger direction of an attainable pair with `events` = rounds * K * n_h * mu on the worst coordinates (sums are
    sufficient)."""
    m, r, h = events, modulation, step
    p, q = channel_laws((m * (1 - r + h), m * (1 + r - h)), (m * (1 - r), m * (1 + r)))
    if rate < 1:
        q = (1 - rate) * p + rate * q
    return max(hockey_stick(p, q, epsilon), hockey_stick(q, p, epsilon))


def domination_width(events: float, modulation: float, step: float, tau: float) -> float:
    """W of the domination theorem (`accounting.tight`) for K = 1: int_0^W A(w) / (2 g_A(r, h)) dw = events.

    Written down again from the theorem: closed form of g in 80-bit floats, Gauss-Legendre panels in log w.
    """
    r, h = np.longdouble(modulation), np.longdouble(step)
    kappa, room = float(np.log1p(h / (1 - r))), -math.log(tau)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    edges = np.linspace(-30.0, 0.0, 601)
    t = ((edges[:-1, None] + edges[1:, None]) / 2 + (edges[1] - edges[0]) / 2 * nodes).ravel()
    weights = np.tile(weights * (edges[1] - edges[0]) / 2, 600)

    def integral(width: float) -> float:
        w = width * np.exp(t)
        a = np.maximum(2.0, 1 + (kappa + np.sqrt(np.maximum(kappa**2 + 2 * w * (room - kappa), 0))) / w).astype(
            np.longdouble
        )
        with np.errstate(over="ignore"):
            inward = (1 - r) * ((1 + h / (1 - r)) ** a - 1) + (1 + r) * ((1 - h / (1 + r)) ** a - 1)
            return float(np.sum(weights * w * a / (2 * inward) * (a - 1)))

    limit = 2 * events * step**2 / (1 - modulation**2)
    solution = optimize.brentq(lambda x: integral(limit * math.exp(x)) - events, -5.0, 5.0, xtol=1e-11)
    return limit * math.exp(solution)


def gaussian_delta(epsilon: float, variance: float) -> float:
    """Delta of a Gaussian whose squared sensitivity over variance is `variance`, by mpmath."""
    with mp.workdps(40):
        root = mp.sqrt(mp.mpf(variance))
        return float(mp.ncdf(root / 2 - epsilon / root) - mp.exp(mp.mpf(epsilon)) * mp.ncdf(-root / 2 - epsilon / root))
