"""The bound of norm rounds: its published values, honest clients that pass, and the chances of others, by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fedjax_poisson.aggregation.norm_bound import (
    FUNCTIONALS_OF_COUNTS,
    HONEST_FAILURE,
    dense_passes,
    largest_mean_shift,
    refusal_bound,
    spike_passes,
    squared_bound,
)
from tests.helpers.entropy import drawn_once

LONG = 10**8  # Delta^2: so large that the ratio has eight digits


def _ratio(members: int, threshold: int, malicious: int) -> float:
    return squared_bound(LONG, members, threshold, malicious) / LONG


@pytest.mark.parametrize(
    ("members", "threshold", "malicious", "wanted"), [(1, 1, 0, 50.35), (6, 4, 1, 52.8), (20, 14, 6, 60.1)]
)
def test_published_values(members: int, threshold: int, malicious: int, wanted: float) -> None:
    failures = 0 if members == 1 else members - threshold + malicious
    assert _ratio(members, threshold, malicious) == pytest.approx(wanted, abs=0.06)
    least = squared_bound(LONG, members, threshold, malicious)
    assert refusal_bound(least / LONG) <= HONEST_FAILURE / 2**failures < refusal_bound((least - 1) / LONG)


def test_the_bound_is_the_least_integer_for_short_vectors_too() -> None:
    for squared in (1, 2, 7, 1000):
        found = squared_bound(squared, 1, 1, 0)
        assert refusal_bound(found / squared) <= HONEST_FAILURE < refusal_bound((found - 1) / squared)
    assert refusal_bound(8.0) == refusal_bound(3.0) == 1.0 > refusal_bound(8.0 + 1e-3)


def test_the_chernoff_bound_is_that_of_its_definition() -> None:
    """min over l of exp(-l u) (1 - l)^(-8), by a fine grid."""
    rates = np.linspace(0, 1, 1_000_001)[:-1]
    for ratio in (9.0, 20.0, 42.0):
        least = np.exp(-rates * ratio - FUNCTIONALS_OF_COUNTS / 2 * np.log1p(-rates)).min()
        assert refusal_bound(ratio) == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize(
    ("shift", "ratio", "wanted", "within"),
    [
        (2.0, 52.0, 0.946, 0.001),
        (2.5, 52.0, 0.59, 0.01),
        (3.0, 52.0, 0.23, 0.01),
        (5.0, 52.0, 1.4e-3, 1e-4),
        (10.0, 52.0, 8.4e-8, 1e-9),
        (30.0, 52.0, 2.9e-15, 1e-16),
        (3.0, 60.1, 0.353, 0.001),
        (5.0, 60.1, 3.4e-3, 1e-4),
    ],
)
def test_published_chances_of_dense_vectors(shift: float, ratio: float, wanted: float, within: float) -> None:
    assert dense_passes(shift, ratio) == pytest.approx(wanted, abs=within)


def test_published_chances_of_spikes() -> None:
    assert spike_passes(5.0, 52.0) == pytest.approx(2.1e-3, abs=0.1e-3)
    assert spike_passes(7.25, 52.0) == spike_passes(1e6, 52.0) == 2.0**-16
    assert spike_passes(1.0, 52.0) == 1.0


def test_the_length_that_moves_the_mean_most() -> None:
    length, moved = largest_mean_shift(52.0)
    assert moved == pytest.approx(1.9, abs=0.01) and 1.5 < length < 3
    assert moved >= max(2.0 * dense_passes(2.0, 52.0), 3.0 * dense_passes(3.0, 52.0))
    assert largest_mean_shift(104.0)[1] == pytest.approx(math.sqrt(2) * moved, rel=0.01), (
        "it goes with the bound's root"
    )


@drawn_once
def _squares(kind: str, trials: int, functionals: int = FUNCTIONALS_OF_COUNTS) -> np.ndarray:
    """T / |x|^2 of a vector of 3,000 coordinates, float64 [trials]: in one block, in four, or with one coordinate alone."""
    rng, size = np.random.default_rng(8), 3000
    x = np.zeros(size) if kind == "spike" else rng.normal(size=size)
    x[0] += kind == "spike"
    x /= np.linalg.norm(x)
    blocks, found = 4 if kind == "blocks" else 1, np.empty(trials)
    for i in range(0, trials, 100):
        weights = rng.choice(np.float32([0, 0, 1, -1]), size=(100 * functionals, size // blocks))
        digits = weights @ x.reshape(blocks, -1).T.astype(np.float32)
        found[i : i + 100] = (digits.astype(np.float64) ** 2).reshape(100, -1).sum(axis=1)
    return found


@pytest.mark.statistical
def test_dense_vectors_have_half_a_chi_square_law_and_other_numbers_of_functionals_another() -> None:
    """Kolmogorov and Smirnov, 4,000 drawings: fails with 1e-6 by chance."""
    assert stats.kstest(2 * _squares("dense", 4000), stats.chi2(16).cdf).pvalue > 1e-6
    assert stats.kstest(2 * _squares("dense", 4000, 4), stats.chi2(16).cdf).pvalue < 1e-9, "the twin"
    assert stats.kstest(_squares("spike", 2000), stats.binom(16, 0.5).cdf).statistic < 0.2


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["dense", "blocks", "spike"])
def test_honest_vectors_pass_a_bound_as_often_as_is_proved(kind: str) -> None:
    """At looser bounds, where refusals can be counted: the share is below the proved one by more than the 5 standard errors of the count."""
    found, trials = _squares(kind, 4000), 4000
    for chance in (0.1, 0.01):
        ratio = next(u for u in np.arange(8.0, 60.0, 0.01) if refusal_bound(u) <= chance)
        share = np.mean(found > ratio)
        assert share <= chance - 5 * math.sqrt(chance / trials) * (chance > 0.05)
    assert found.mean() == pytest.approx(8.0, abs=6 * 2.9 / math.sqrt(trials))


def test_spread_over_blocks_less_passes() -> None:
    assert _squares("blocks", 4000).std() < 0.6 * _squares("dense", 4000).std()
