import functools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from fedjax_poisson.randomness import laws
from tests.randomness.reference import skellam_probability

RATES = [
    (8.0, 7.9),
    (7.6, 8.4),
    (0.01, 0.0),
    (0.0, 3.5),
    (4e-4, 3e-4),
    (1e-11, 0.0),
    (0.3, 1e-9),
    (100.0, 5.0),
    (300.0, 290.0),
    pytest.param(2000.0, 1990.0, marks=pytest.mark.slow),
    (10_000.0, 0.0),
    (0.5, 1e-30),  # of outcomes below 0 only -1 is within Chernoff's reach
    pytest.param(40_000.0, 40_000.0, marks=pytest.mark.slow),
]


@functools.cache
def exact_law(plus: Fraction, minus: Fraction, low: int, count: int) -> list[mpmath.mpf]:
    """The Skellam probabilities of low, low + 1, ...: most of these tests' time, so made once for each law."""
    with mpmath.workprec(300):
        return [skellam_probability(low + i, plus, minus) for i in range(count)]


def exact_distance(plus: Fraction, minus: Fraction, low: int, shares: list[mpmath.mpf]) -> mpmath.mpf:
    """Total variation between shares on low, low + 1, ... and the Skellam law, from Bessel's function."""
    with mpmath.workprec(300):
        true = exact_law(plus, minus, low, len(shares))
        inside = mpmath.fsum(abs(a - b) for a, b in zip(true, shares, strict=True))
        return (inside + 1 - mpmath.fsum(true)) / 2


@pytest.mark.parametrize(("plus", "minus"), RATES)
def test_pmf_is_within_its_defect_of_bessels_function(plus, minus):
    plus, minus = Fraction(plus), Fraction(minus)
    pmf = laws.skellam_pmf(plus, minus)
    with mpmath.workprec(300):
        total = sum(pmf.weights)
        distance = exact_distance(plus, minus, pmf.low, [mpmath.mpf(w) / total for w in pmf.weights])
        assert distance <= mpmath.mpf(pmf.defect.numerator) / pmf.defect.denominator
        assert pmf.defect < Fraction(1, 1 << 66)
        larger = max(plus, minus)  # the twin: the larger rate two per cent wrong
        wrong = (larger * Fraction(51, 50), minus) if plus == larger else (plus, larger * Fraction(51, 50))
        assert exact_distance(*wrong, pmf.low, [mpmath.mpf(w) / total for w in pmf.weights]) > 1e-14


@pytest.mark.parametrize(("plus", "minus"), RATES[:8])
def test_weights_are_right_far_beyond_eight_standard_deviations(plus, minus):
    plus, minus = Fraction(plus), Fraction(minus)
    pmf = laws.skellam_pmf(plus, minus, tail_bits=80)
    for i in {0, 1, len(pmf.weights) // 2, len(pmf.weights) - 1}:
        with mpmath.workprec(300):
            share = mpmath.mpf(pmf.weights[i]) / pmf.total
            true = skellam_probability(pmf.low + i, plus, minus)
            assert abs(share / true - 1) < mpmath.mpf(2) ** -85


@pytest.mark.parametrize(("a", "b"), [(8.0, 8.0), (0.01, 0.0), (2.0, 40.0), (0.0, 5000.0), (1e6, 1e6)])
@pytest.mark.parametrize("bits", [20.0, 90.0])
def test_chernoff_reach_bounds_the_tail_and_is_not_wasteful(a, b, bits):
    reach = laws.chernoff_reach(a, b, bits)
    pmf = laws.skellam_pmf(Fraction(a), Fraction(b), tail_bits=85)
    tail = sum(w for i, w in enumerate(pmf.weights) if pmf.low + i >= reach)
    assert tail <= pmf.total * 2.0**-bits
    nearer = reach - 2 - int(0.2 * abs(reach - (a - b)))
    assert (
        bits > 80
        or a == 0
        or sum(w for i, w in enumerate(pmf.weights) if pmf.low + i >= nearer) > pmf.total * 2.0 ** -(bits + 12)
    )


@pytest.mark.parametrize(("a", "b"), [(8.0, 8.0), (2.0, 400.0), (400.0, 2.0), (0.01, 30.0), (1e6, 1e6)])
@pytest.mark.parametrize("bits", [20.0, 90.0])
def test_chernoff_reach_is_the_least_that_the_best_tilt_allows(a, b, bits):
    """The best of a fine grid of tilts in the place of the formula, on both sides of 0."""
    tilts = np.geomspace(1e-7, 12.0, 100_000)

    def exponent(k: float) -> float:
        return float(np.max(tilts * k - a * np.expm1(tilts) - b * np.expm1(-tilts)))

    reach, nats = laws.chernoff_reach(a, b, bits), bits * math.log(2)
    assert exponent(reach - 2) < nats < exponent(reach) + 1e-3


@pytest.mark.parametrize(("plus", "minus"), [(8.0, 7.9), (300.0, 290.0), (40_000.0, 40_000.0), (1e8, 1e8)])
def test_ratios_are_as_exact_as_the_defect_assumes_in_the_far_tail(plus, minus):
    """There the enclosure begins; a ratio nearer to the mean is the more exact the farther it was carried."""
    plus, minus = Fraction(plus), Fraction(minus)
    high = laws.chernoff_reach(float(plus), float(minus), laws._FAR_TAIL_BITS)
    found = laws._ratios(laws._fixed(plus), laws._fixed(minus), high, high - 9)
    assert len(found) == 10
    with mpmath.workprec(400):
        argument, root = 2 * mpmath.sqrt(mpmath.mpf(plus) * mpmath.mpf(minus)), mpmath.sqrt(mpmath.mpf(plus) / minus)
        for k, ratio in ((high, found[-1]), (high - 9, found[0])):
            true = root * mpmath.besseli(k, argument) / mpmath.besseli(k - 1, argument)
            assert abs(mpmath.mpf(ratio) / (true * (1 << laws._FRACTION_BITS)) - 1) < mpmath.mpf(2) ** -119


@pytest.mark.parametrize(("plus", "minus"), RATES)
def test_alias_table_adds_up_to_the_law_within_its_distance(plus, minus):
    plus, minus = Fraction(plus), Fraction(minus)
    pmf = laws.skellam_pmf(plus, minus)
    bits = (len(pmf.weights) - 1).bit_length()
    table = laws.alias_table(pmf, bits, 96 - bits)
    masses = [0] * (1 << bits)
    for column, (threshold, alias) in enumerate(zip(table.thresholds, table.aliases, strict=True)):
        assert 0 <= threshold < 1 << (96 - bits)
        masses[column] += threshold
        masses[alias] += (1 << (96 - bits)) - threshold
    scale = 1 << 96
    assert sum(masses) == scale and not any(masses[len(pmf.weights) :])
    with mpmath.workprec(300):
        distance = exact_distance(plus, minus, pmf.low, [mpmath.mpf(m) / scale for m in masses[: len(pmf.weights)]])
        assert distance <= mpmath.mpf(table.distance.numerator) / table.distance.denominator
        assert table.distance < Fraction(1, 1 << 65)
        masses[0] += scale >> 50
        masses[1] -= scale >> 50
        moved = exact_distance(plus, minus, pmf.low, [mpmath.mpf(m) / scale for m in masses[: len(pmf.weights)]])
        assert moved > mpmath.mpf(2) ** -51, "the check sees a mass of 2^-50 in the wrong place"


def test_more_outcomes_than_columns_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        laws.alias_table(laws.skellam_pmf(Fraction(8), Fraction(8)), 4, 64)
    few = laws.skellam_pmf(Fraction(1, 10), Fraction(0))
    bits = (len(few.weights) - 1).bit_length()
    assert laws.alias_table(few, bits, 64, few.low).distance < Fraction(1, 1 << 60)
    for low in (few.low - (1 << bits), few.low + 1):
        with pytest.raises(ValueError, match="do not fit"):
            laws.alias_table(few, bits, 64, low)
