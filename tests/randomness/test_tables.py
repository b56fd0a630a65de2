import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from fedjax_poisson import accounting, randomness
from fedjax_poisson.randomness import laws, layout, table_plan, tables
from tests.randomness.reference import row_law, scale_of, skellam_probability

SETTINGS = [(0.01, 0.05), (8.0, 0.05), (8.0, 0.9), (2000.0, 0.05), (40_000.0, 0.1)]
MODULATED = [("push_pull", randomness.push_pull_tables), ("single_channel", randomness.single_channel_tables)]


def digits_of(levels, grid: int) -> list[int]:
    """The digits of a grid value by the definition in the module docstring, in plain integers."""
    units = (1 << 20) + grid
    kept = min(units, (1 << 21) - 1)
    return [(kept >> v.shift) % (1 << v.bits) + (v.last and units == 1 << 21) for v in levels]


@pytest.mark.parametrize("kind", ["push_pull", "single_channel"])
@pytest.mark.parametrize(("mean", "modulation"), SETTINGS)
@pytest.mark.parametrize("grid", [-(1 << 20), -12345, -1, 0, 1, 777_777, (1 << 20) - 1, 1 << 20])
def test_the_rates_of_the_levels_add_up_to_the_exact_rates(kind, mean, modulation, grid):
    built = dict(MODULATED)[kind](dark_count=mean, modulation=modulation)
    mu, r = Fraction(mean), Fraction(modulation)
    plus = minus = Fraction(0)
    for level, digit in zip(built.levels, digits_of(built.levels, grid), strict=True):
        rows = table_plan.level_rates(kind, mu, r, level.shift, level.bits)
        assert len(rows) == level.rows
        largest = table_plan.digit_units(level.shift, level.bits)
        negate = level.mirrored and digit > largest - digit
        a, b = rows[largest - digit if negate else digit]
        plus, minus = (plus + b, minus + a) if negate else (plus + a, minus + b)
    assert plus == mu * (1 + r * Fraction(grid, 1 << 20))
    assert minus == (mu * (1 - r * Fraction(grid, 1 << 20)) if kind == "push_pull" else 0)


@pytest.mark.parametrize(
    ("mean", "modulation"), [*SETTINGS[:3], (100.0, 0.05), pytest.param(2000.0, 0.05, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("kind", "build"), MODULATED)
def test_stored_rows_sum_exactly_to_the_law(kind, build, mean, modulation):
    """Exhausts rows of the device arrays: every column, so also all that lies beyond eight standard deviations."""
    built = build(dark_count=mean, modulation=modulation)
    budget = 0.0
    for number, level in enumerate(built.levels):
        rates = table_plan.level_rates(kind, Fraction(mean), Fraction(modulation), level.shift, level.bits)
        worst = mpmath.mpf(0)
        for row in sorted({0, 1, level.rows // 3, level.rows - 1} & set(range(level.rows))):
            law = row_law(built, number, row)
            scale = scale_of(built, number)
            assert sum(law.values()) == scale
            with mpmath.workprec(300):
                true = {k: skellam_probability(k, *rates[row]) for k in law}
                gap = (
                    mpmath.fsum(abs(true[k] - mpmath.mpf(m) / scale) for k, m in law.items())
                    + 1
                    - mpmath.fsum(true.values())
                )
                worst = max(worst, gap / 2)
                shifted = mpmath.fsum(abs(true[k] - mpmath.mpf(law.get(k + 1, 0)) / scale) for k in law)
                assert shifted > 1e-12, "the check sees a law that is one off"
        budget += float(worst)
    assert budget <= built.distance <= 2.0**-60


def test_the_law_of_a_draw_is_the_push_pull_law_to_the_stated_distance():
    """Convolves the levels' laws exactly, as integers, and compares with Bessel's function outcome by outcome."""
    mean, modulation = 8.0, 0.05
    built = randomness.push_pull_tables(dark_count=mean, modulation=modulation)
    for grid in (-(1 << 20), -7, 0, 345_679, 1 << 20):
        law, scale = {0: 1}, 1
        for number, (level, digit) in enumerate(zip(built.levels, digits_of(built.levels, grid), strict=True)):
            largest = table_plan.digit_units(level.shift, level.bits)
            negate = digit > largest - digit
            sign = -1 if negate else 1
            row = row_law(built, number, largest - digit if negate else digit)
            combined: dict[int, int] = {}
            for x, p in law.items():
                for y, q in row.items():
                    combined[x + sign * y] = combined.get(x + sign * y, 0) + p * q
            law, scale = combined, scale * scale_of(built, number)
        assert sum(law.values()) == scale
        v = Fraction(grid, 1 << 20)
        plus, minus = Fraction(mean) * (1 + Fraction(modulation) * v), Fraction(mean) * (1 - Fraction(modulation) * v)

        def distance(a: Fraction, b: Fraction, law=law, scale=scale) -> mpmath.mpf:
            with mpmath.workprec(300):
                true = {k: skellam_probability(k, a, b) for k in law}
                inside = mpmath.fsum(abs(true[k] - mpmath.mpf(m) / scale) for k, m in law.items())
                return (inside + 1 - mpmath.fsum(true.values())) / 2

        assert distance(plus, minus) <= built.distance
        assert distance(plus * Fraction(51, 50), minus * Fraction(51, 50)) > 1e-3
        one_step = Fraction(mean * modulation) / (1 << 20)
        assert distance(plus + one_step, minus - one_step) > built.distance, "one grid step is told apart"
        beyond = 8 * math.sqrt(2 * mean)
        with mpmath.workprec(300):
            sampled = mpmath.fsum(mpmath.mpf(m) / scale for k, m in law.items() if k > beyond)
            true_tail = mpmath.fsum(skellam_probability(k, plus, minus) for k in range(int(beyond) + 1, 90))
            assert true_tail > 1e-14 and abs(sampled / true_tail - 1) < 1e-3


@pytest.mark.parametrize("modulation", [1e-6, 0.05, 0.999])
@pytest.mark.parametrize("mean", [0.01, 1.0, 100.0, 1e4, 3e6])
def test_any_rate_gets_tables_of_modest_size_within_2_to_minus_60(mean, modulation):
    built = randomness.push_pull_tables(dark_count=mean, modulation=modulation)
    assert built.distance <= 2.0**-60
    assert sum(v.bits for v in built.levels) == 21
    assert built.middle.size <= (
        1 << 18 if mean <= 1e4 or modulation <= 0.05 else 1 << 19
    )  # a plan is for the top of a range


@pytest.mark.slow
@pytest.mark.parametrize("modulation", [0.05, 0.9])
def test_the_largest_rate_gets_tables_too(modulation):
    built = randomness.push_pull_tables(dark_count=1e8, modulation=modulation)
    assert built.distance <= 2.0**-60 and built.middle.size <= 1 << 21


def test_fixed_rates_have_one_level():
    for build, rate in (
        (randomness.poisson_tables, 0.01),
        (randomness.poisson_tables, 1e8),
        (randomness.skellam_tables, 1e6),
    ):
        built = build(rate)
        assert len(built.levels) == 1 and built.distance <= 2.0**-61


@pytest.mark.parametrize(("build", "minus"), [(randomness.poisson_tables, 0.0), (randomness.skellam_tables, 3.5)])
def test_tables_of_a_fixed_rate_hold_its_law(build, minus):
    built = build(3.5)
    law, scale = row_law(built, 0, 0), scale_of(built, 0)
    with mpmath.workprec(300):
        true = {k: skellam_probability(k, Fraction(3.5), Fraction(minus)) for k in law}
        gap = mpmath.fsum(abs(true[k] - mpmath.mpf(m) / scale) for k, m in law.items()) + 1 - mpmath.fsum(true.values())
        assert gap / 2 <= built.distance


def test_the_largest_distance_is_the_one_that_plans_reserve_delta_for():
    assert tables.MAX_DISTANCE == accounting.DRAW_DISTANCE == 2.0**-60


@pytest.mark.parametrize("bad", [0.0, 0.009, 1.1e8, math.nan, math.inf, -3.0, "8"])
def test_rates_outside_the_range_are_refused(bad):
    for build in (randomness.poisson_tables, randomness.skellam_tables):
        with pytest.raises(ValueError, match=r"must lie in \[0.01, 1e\+08\]"):
            build(bad)
    with pytest.raises(ValueError, match="dark_count must lie in"):
        randomness.push_pull_tables(dark_count=bad, modulation=0.05)


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.1, math.nan])
def test_modulation_outside_the_unit_interval_is_refused(bad):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        randomness.push_pull_tables(dark_count=8.0, modulation=bad)


def test_tables_are_a_cached_pytree_of_uint32_even_when_first_built_inside_jit():
    def build(x):
        built = randomness.push_pull_tables(dark_count=3.25, modulation=0.125)
        return x + built.entries[0].astype(jnp.int32)

    jax.jit(build)(jnp.int32(0))
    built = randomness.push_pull_tables(dark_count=3.25, modulation=0.125)
    assert built is randomness.push_pull_tables(dark_count=3.25, modulation=0.125)
    leaves, structure = jax.tree.flatten(built)
    assert all(leaf.dtype == jnp.uint32 and not isinstance(leaf, jax.core.Tracer) for leaf in leaves)
    assert hash(structure) == hash(jax.tree.structure(built))


LEVELS = [(6,), (18,), (7, 4), (11, 7, 5), (13, 10, 7, 5), (18, 15, 15, 14, 13, 11, 9), (12,) * 21]


@pytest.mark.parametrize("column_bits", LEVELS)
def test_a_layout_gives_each_level_words_of_its_own_and_lower_halves_that_are_independent_three_by_three(column_bits):
    found = layout.choose_layout(column_bits)
    taken = np.zeros(found.blocks, int)
    for bits, block, packed in zip(column_bits, found.word, found.packed, strict=True):
        assert not packed or bits <= layout.MOST_PACKED
        taken[block : block + (1 if packed else 2)] += 1
    assert (taken == 1).all(), "a word serves two levels, or none"
    subsets = [subset for draw in found.low for subset in draw]
    assert len(found.low) == layout.WORDS and len(subsets) == layout.WORDS * len(column_bits)
    assert max(subsets) < 1 << found.second and 2 * found.second <= layout.WORDS * found.low_blocks
    # Linearly independent over GF(2), three by three: none is zero, none the same as another, none the sum of two others.
    assert 0 not in subsets and len(set(subsets)) == len(subsets)
    sums = {a ^ b for i, a in enumerate(subsets) for b in subsets[:i]}
    assert not sums & set(subsets)
    assert {1, 2, 3} & {1 ^ 2}, "the check sees 1, 2 and 3"
    assert found.distance <= Fraction(1, 1 << 64)


def test_a_group_of_draws_has_the_first_words_it_needs_and_one_block_for_ties():
    for column_bits, blocks, low_blocks in (((11, 7, 5), 3, 1), ((14, 13), 3, 1), ((9,) * 8, 8, 1), ((9,) * 9, 9, 2)):
        found = layout.choose_layout(column_bits)
        assert (found.blocks, found.low_blocks) == (blocks, low_blocks)
    assert [layout.threshold_bits(*level) for level in ((5, True), (13, True), (13, False))] == [91, 83, 96]


def test_every_row_begins_where_its_law_does_or_before():
    """The slope of the rows' means, in binary places, leaves every outcome of every row on its columns, at the ends of a range and inside."""
    for kind, build in MODULATED:
        for mean, modulation in (*SETTINGS, (4096.0, 0.0625), (1e6, 0.05), (3e6, 0.999)):
            built = build(dark_count=mean, modulation=modulation)
            for number, level in enumerate(built.levels):
                rates = table_plan.level_rates(kind, Fraction(mean), Fraction(modulation), level.shift, level.bits)
                origin = int(np.asarray(built.origins)[number].astype(np.int32))
                for row in sorted({0, 1, level.rows // 2, level.rows - 1} & set(range(level.rows))):
                    law = laws.skellam_pmf(*rates[row])
                    start = origin + (row * int(built.slopes[number]) >> level.slope_shift)
                    assert start <= law.low
                    assert law.low + len(law.weights) <= start + (1 << level.column_bits)


def test_rows_that_do_not_fit_their_columns_are_refused():
    plan = table_plan.table_plan("push_pull", *table_plan.range_of("push_pull", Fraction(8), Fraction(1, 20)))
    rates = [table_plan.level_rates("push_pull", Fraction(8), Fraction(1, 20), v.shift, v.bits) for v in plan.levels]
    rows = [[laws.skellam_pmf(*each) for each in level] for level in rates]
    slopes = [tables.row_slope(level) for level in rates]
    assert tables.tables_of("push_pull", plan, rows, slopes, "these").distance < 2.0**-60
    with pytest.raises(ValueError, match="do not fit"):
        tables.tables_of("push_pull", plan, rows, [-1000 * (1 + slope) for slope in slopes], "these")
