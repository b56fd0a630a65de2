"""One draw has the law of the sum: rates add up exactly, samples fit with edges from the law, and slightly wrong laws are rejected."""

from __future__ import annotations

import warnings
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson import randomness
from fedjax_poisson.randomness import laws
from fedjax_poisson.randomness.grid_sum import GridSum
from fedjax_poisson.randomness.sum_tables import MOST_MODULATED, SumTables, binomial_tables, draw_sum, sum_tables
from fedjax_poisson.randomness.table_plan import MIRRORED, digit_units, level_rates, range_of
from fedjax_poisson.randomness.tables import MAX_DISTANCE
from tests.helpers.stat import assert_moments, chi_square_pvalue
from tests.randomness.reference import difference_pmf

ONE = 1 << 20
MANY = 300_000
LEAST_P, TWIN_P = 1e-6, 1e-9  # seeds are fixed: a right law that passes once always passes
SETTINGS = [
    ("both", 7, 50.0, 0.05),
    ("both", 8, 30.0, 0.45),
    ("both", 20, 50.0, 0.05),
    ("both", 2000, 160.0, 0.05),
    ("one", 20, 40.0, 0.3),
]


@pytest.fixture(scope="module")
def seeded() -> randomness.Stream:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", randomness.ReproducibleStreamWarning)
        return randomness.stream(seed=17)


def tables_for(channels, senders: int, rate: float, modulation: float, most: int | None = None) -> SumTables:
    return sum_tables(
        channels, rate=Fraction(rate), modulation=Fraction(modulation), senders=senders, most=most or senders
    )


def filled(total: int, count: int = MANY) -> GridSum:
    return GridSum(jnp.full(count, total >> 20, jnp.int32), jnp.full(count, total & (ONE - 1), jnp.int32))


def law_of(channels, senders: int, rate: float, modulation: float, total: int) -> tuple[int, np.ndarray]:
    moved = modulation * total / ONE
    return difference_pmf(rate * (senders + moved), rate * (senders - moved) * (channels == "both"))


def fit(samples: np.ndarray, law: tuple[int, np.ndarray]) -> float:
    """Chi-square p-value in at most 80 cells whose integer edges come from the law alone."""
    low, pmf = law
    pmf = pmf / pmf.sum()
    cell = np.minimum((np.cumsum(pmf) * 80).astype(int), 79)
    counts = np.bincount(cell[np.clip(samples - low, 0, pmf.size - 1)], minlength=80)
    return chi_square_pvalue(counts, np.bincount(cell, pmf, minlength=80))


@pytest.mark.parametrize(("channels", "senders", "rate", "modulation"), SETTINGS)
def test_rates_of_all_levels_add_up_exactly_to_those_of_the_sum(channels, senders, rate, modulation) -> None:
    tables, mu, r = tables_for(channels, senders, rate, modulation), Fraction(rate), Fraction(modulation)
    assert tables.digits is not None
    span = max(level.shift + level.bits for level in tables.digits.levels)
    padded, kind = 1 << (span - 21), tables.digits.kind
    floor = mu * (senders - r * padded)
    assert padded >= senders and floor > 0
    for total in (0, senders * ONE, -senders * ONE, 12345 * senders, -7):
        w, plus, minus = total + padded * ONE, floor, floor
        for level in tables.digits.levels:
            rows = level_rates(kind, mu * r, Fraction(1), level.shift, level.bits)
            digit = (min(w, (1 << span) - 1) >> level.shift) & ((1 << level.bits) - 1)
            digit += level.shift == 0 and w == 1 << span
            units = digit_units(level.shift, level.bits)
            negate = kind in MIRRORED and digit > units - digit
            a, b = rows[units - digit if negate else digit]
            plus, minus = plus + (b if negate else a), minus + (a if negate else b)
        assert plus == mu * (senders + r * Fraction(total, ONE))
        if channels == "both":
            assert minus == mu * (senders - r * Fraction(total, ONE))


@pytest.mark.statistical
@pytest.mark.parametrize(("channels", "senders", "rate", "modulation"), SETTINGS)
def test_draws_have_the_law_of_the_sum(seeded, channels, senders, rate, modulation) -> None:
    tables, draw = tables_for(channels, senders, rate, modulation), jax.jit(draw_sum)
    for share in (1.0, -1.0, 0.0, 0.37):
        total = round(share * senders * ONE)
        stream = randomness.fold_in(seeded, channels, senders, round(100 * (1 + share)))
        samples = np.asarray(draw(stream, filled(total), tables))
        assert fit(samples, law_of(channels, senders, rate, modulation, total)) > LEAST_P
        # Twins: a law with one noise share more or less, and with another modulation.
        if senders <= 20:
            assert fit(samples, law_of(channels, senders + 1, rate, modulation, total)) < TWIN_P
            if share:
                assert fit(samples, law_of(channels, senders, rate, 1.05 * modulation, total)) < TWIN_P


@pytest.mark.statistical
def test_draws_with_one_share_missing_are_rejected(seeded) -> None:
    """The sampler itself made for one sender fewer, as if a client's noise had been forgotten."""
    fewer = tables_for("both", 19, 50.0, 0.05, most=20)
    samples = np.asarray(draw_sum(seeded, filled(5 * ONE), fewer))
    assert fit(samples, law_of("both", 19, 50.0, 0.05, 5 * ONE)) > LEAST_P
    assert fit(samples, law_of("both", 20, 50.0, 0.05, 5 * ONE)) < TWIN_P


@pytest.mark.statistical
def test_a_sum_that_passes_32_bits_keeps_its_moments(seeded) -> None:
    senders, rate, r, total = 100_000, 5000.0, 0.05, 81_234 * ONE + 77
    tables = tables_for("both", senders, rate, r)
    assert int(tables.parts) > 1 and tables.distance < senders * MAX_DISTANCE / 1000
    samples = np.asarray(jax.jit(draw_sum)(seeded, filled(total, 200_000), tables))
    mean, variance = 2 * rate * r * total / ONE, 2 * rate * senders
    assert_moments(samples, mean, variance, 0.0)
    with pytest.raises(AssertionError):
        assert_moments(samples, mean, 1.02 * variance, 0.0)


@pytest.mark.statistical
def test_noise_that_does_not_depend_on_data_is_added_to_the_sum(seeded) -> None:
    tables = sum_tables("noise", rate=Fraction(30), modulation=Fraction(0), senders=12, most=12)
    assert tables.digits is None
    samples = np.asarray(draw_sum(seeded, filled(-345_678), tables)) + 345_678
    assert fit(samples, difference_pmf(360.0, 360.0)) > LEAST_P
    assert fit(samples, difference_pmf(330.0, 330.0)) < TWIN_P


def test_attendance_and_noise_levels_of_a_range_share_one_program(seeded) -> None:
    traced = []

    @jax.jit
    def draw(stream, total, tables):
        traced.append(1)
        return draw_sum(stream, total, tables)

    found = [
        np.asarray(draw(seeded, filled(0, 64), tables_for("both", senders, rate, 0.05, most=100)))
        for senders, rate in ((100, 800.0), (99, 800.0), (71, 800.0), (100, 900.0), (100, 1000.0))
    ]
    assert len(traced) == 1 and len({each.tobytes() for each in found}) == 5


@pytest.mark.parametrize(
    ("senders", "rate", "modulation"), [(2, 0.01, 0.49), (3, 5e7, 0.05), (8, 4e7, 0.3), (50, 1e6, 0.1)]
)
def test_the_distance_is_below_what_senders_own_draws_are_charged(senders, rate, modulation) -> None:
    tables = tables_for("both", senders, rate, modulation)
    assert 0 < tables.distance <= senders * MAX_DISTANCE


def test_plans_reach_as_far_as_32_bits_do() -> None:
    """A plan for every mu r up to the largest one; its tables take half a minute, so only the range is asked for."""
    for rate in (Fraction(1, 100), Fraction(1 << 26) + 1, MOST_MODULATED):
        top, _ = range_of("digits_of_both", rate, Fraction(1))
        assert rate <= top <= MOST_MODULATED


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"modulation": Fraction(3, 5), "senders": 9}, r"modulations in \(0, 1/2\) only"),
        ({"modulation": Fraction(0)}, r"modulations in \(0, 1/2\) only"),
        ({"rate": Fraction(1 << 33), "modulation": Fraction(1, 4)}, "beyond 32 bits"),
        ({"senders": 21}, "between 1 and most=20"),
        ({"senders": 0}, "between 1 and most=20"),
    ],
)
def test_what_has_no_law_is_refused(given, message) -> None:
    usual = {"rate": Fraction(50), "modulation": Fraction(1, 20), "senders": 20, "most": 20}
    with pytest.raises(ValueError, match=message):
        sum_tables("both", **(usual | given))


def test_digits_want_their_own_tables(seeded) -> None:
    with pytest.raises(ValueError, match="need those of `sum_tables`"):
        randomness.samplers.of_sum(seeded, filled(0, 3), randomness.skellam_tables(3.0))


def test_centred_binomials_are_exact_and_wide_ones_near() -> None:
    """Against binomial coefficients in Python integers."""
    import math

    for half in (1, 7, 42, 420, 4200):
        pmf = laws.centred_binomial_pmf(half)
        exact = [Fraction(math.comb(2 * half, half + pmf.low + i), 1 << (2 * half)) for i in range(len(pmf.weights))]
        kept = Fraction(sum(pmf.weights))
        total_variation = sum(abs(Fraction(w) / kept - p) for w, p in zip(pmf.weights, exact, strict=True)) / 2
        assert total_variation + (1 - sum(exact)) / 2 <= pmf.defect < Fraction(1, 1 << 66)


@pytest.mark.statistical
@pytest.mark.parametrize("senders", [3, 20, 500])
def test_sums_of_secrets_are_binomial(seeded, senders) -> None:
    from scipy import stats

    half = 42 * senders
    samples = np.asarray(randomness.samplers.binomial(randomness.fold_in(seeded, senders), MANY, binomial_tables(half)))
    for count, right in ((senders, True), (senders + 1, False)):
        reach = min(42 * count, int(12 * np.sqrt(21 * count)) + 5)
        outcomes = np.arange(-reach, reach + 1)
        law = (-reach, stats.binom.pmf(outcomes + 42 * count, 84 * count, 0.5))
        if right:
            assert fit(samples, law) > LEAST_P
        elif senders <= 20:
            assert fit(samples, law) < TWIN_P
    assert_moments(samples, 0.0, 21.0 * senders, -1.0 / (42 * senders))


def test_binomials_share_a_program_over_attendance_and_bad_numbers_are_refused() -> None:
    assert len({jax.tree.structure(binomial_tables(42 * senders)) for senders in (60, 75, 90)}) == 1
    for half in (0, (1 << 32) + 1):
        with pytest.raises(ValueError, match="must lie between 1 and 2"):
            binomial_tables(half)
