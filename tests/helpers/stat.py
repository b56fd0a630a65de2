"""Statistical assertions with stated error rates, shared by every suite.

Each returns a p-value-like number or raises; a test that uses one must have a twin that feeds it a slightly wrong law and expects
the assertion to fail.
"""

from __future__ import annotations

import numpy as np
from scipy import stats


def assert_moments(
    samples: np.ndarray, mean: float, variance: float, kurtosis: float | None = None, sigmas: float = 6.0
) -> None:
    """Sample mean, variance (and excess kurtosis) agree with the law within `sigmas` of their own standard errors."""
    x = np.asarray(samples, np.float64).ravel()
    n = x.size
    excess = kurtosis if kurtosis is not None else float(stats.kurtosis(x))
    z_mean = (x.mean() - mean) / np.sqrt(variance / n)
    z_variance = (np.mean((x - mean) ** 2) - variance) / (variance * np.sqrt((excess + 2) / n))
    assert abs(z_mean) < sigmas, f"mean {x.mean():.6g} is {z_mean:.1f} standard errors from {mean:.6g}"
    assert abs(z_variance) < sigmas, f"variance is {z_variance:.1f} standard errors from {variance:.6g}"
    if kurtosis is not None:
        z_kurtosis = (np.mean((x - mean) ** 4) / variance**2 - 3 - kurtosis) / np.sqrt(24 / n + 100 * abs(kurtosis) / n)
        assert abs(z_kurtosis) < sigmas, f"kurtosis is {z_kurtosis:.1f} standard errors from {kurtosis:.6g}"


def chi_square_pvalue(counts: np.ndarray, probabilities: np.ndarray, least_expected: float = 10.0) -> float:
    """Pearson chi-square p-value of integer counts against exact cell probabilities, tails pooled to `least_expected`."""
    counts = np.asarray(counts, np.float64)
    expected = counts.sum() * np.asarray(probabilities, np.float64)
    pooled_c, pooled_e, c, e = [], [], 0.0, 0.0
    for ci, ei in zip(counts, expected, strict=True):
        c, e = c + ci, e + ei
        if e >= least_expected:
            pooled_c.append(c)
            pooled_e.append(e)
            c = e = 0.0
    if pooled_e:
        pooled_c[-1] += c
        pooled_e[-1] += e
    observed, wanted = np.array(pooled_c), np.array(pooled_e)
    statistic = float(((observed - wanted) ** 2 / wanted).sum())
    return float(stats.chi2.sf(statistic, max(len(wanted) - 1, 1)))
