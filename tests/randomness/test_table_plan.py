"""One plan for the rates of a range: it holds every law of the range, and columns that a law does not need have no mass."""

from __future__ import annotations

from fractions import Fraction

import jax
import mpmath
import numpy as np
import pytest

from fedjax_poisson import randomness
from fedjax_poisson.randomness import laws, table_plan
from tests.randomness.reference import row_law, scale_of, skellam_probability

RATES = [0.01, 8.0, 16.0, 65.0, 700.0, 2117.3, 4096.0, 4097.0, 30_000.0, 262_144.0]
ENDS = [float(top) for top in table_plan._TOPS[:5]]


@pytest.mark.parametrize("kind", ["push_pull", "single_channel"])
@pytest.mark.parametrize("modulation", [1e-4, 0.05, 0.0625, 0.25, 0.9])
def test_every_law_of_a_range_fits_the_columns_of_its_plan(kind: str, modulation: float) -> None:
    for mean in RATES + ENDS:
        first, second = Fraction(mean), Fraction(modulation)
        plan = table_plan.table_plan(kind, *table_plan.range_of(kind, first, second))
        for level in plan.levels:
            rates = table_plan.level_rates(kind, first, second, level.shift, level.bits)
            assert len(rates) == level.rows
            found = [laws.skellam_pmf(*rates[i]) for i in sorted({0, len(rates) // 2, len(rates) - 1})]
            assert max(len(each.weights) for each in found) <= 1 << level.column_bits


def test_rates_of_a_range_have_one_structure_and_rates_of_two_have_two() -> None:
    def structure(mean: float, modulation: float = 0.05):
        return jax.tree.structure(randomness.push_pull_tables(dark_count=mean, modulation=modulation))

    assert structure(70.0) == structure(900.0, 0.06) == structure(4096.0)
    assert structure(4096.0) != structure(4097.0) and structure(70.0) != structure(70.0, 0.07)
    skellam = [jax.tree.structure(randomness.skellam_tables(rate)) for rate in (70.0, 4000.0)]
    assert skellam[0] == skellam[1]


@pytest.mark.parametrize("mean", [66.0, 500.0, 3000.0])
def test_rows_on_more_columns_than_they_need_sum_exactly_to_their_law(mean: float) -> None:
    """Three noise levels of one range; every column is read, so one that should have no mass and had some would show."""
    built = randomness.push_pull_tables(dark_count=mean, modulation=0.05)
    level = built.levels[0]
    rates = table_plan.level_rates("push_pull", Fraction(mean), Fraction(0.05), level.shift, level.bits)
    law, scale = row_law(built, 0, 1), scale_of(built, 0)
    needed = len(laws.skellam_pmf(*rates[1]).weights)
    assert sum(law.values()) == scale and len(law) <= needed <= 1 << level.column_bits
    assert mean > 1000 or needed < 1 << (level.column_bits - 1), "half of the columns are spare"
    with mpmath.workprec(300):
        true = {k: skellam_probability(k, *rates[1]) for k in law}
        inside = mpmath.fsum(abs(true[k] - mpmath.mpf(m) / scale) for k, m in law.items())
        assert (inside + 1 - mpmath.fsum(true.values())) / 2 <= built.distance <= 2.0**-60
        other = {k: skellam_probability(k, *(rate * Fraction(1001, 1000) for rate in rates[1])) for k in law}
        assert mpmath.fsum(abs(other[k] - mpmath.mpf(m) / scale) for k, m in law.items()) / 2 > 1e-5


def test_the_bound_on_the_distance_is_for_the_host_and_infinite_inside_a_program() -> None:
    built = randomness.push_pull_tables(dark_count=66.0, modulation=0.05)
    assert 0 < built.distance <= 2.0**-60
    assert np.isinf(jax.tree.map(lambda leaf: leaf, built).distance)
