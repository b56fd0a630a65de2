"""Every part of a stated distance by value: the largest part alone would hide that another is left out."""

from __future__ import annotations

import dataclasses
import itertools
import math
from fractions import Fraction

import pytest

from fedjax_poisson import randomness
from fedjax_poisson.randomness import laws, layout, table_plan, tables


@pytest.mark.parametrize("compared", [64, 89])
@pytest.mark.parametrize(("plus", "minus", "bits"), [(8.0, 7.5, 7), (0.3, 0.0, 5), (300.0, 2.0, 9)])
def test_rounding_to_thresholds_is_counted_exactly(plus, minus, bits, compared):
    """Half the sum of |sampled - wanted| over all outcomes, in rationals; then the law's own defect on top."""
    pmf = laws.skellam_pmf(Fraction(plus), Fraction(minus))
    table = laws.alias_table(dataclasses.replace(pmf, defect=Fraction(0)), bits, compared, pmf.low - 3)
    masses = [0] * (1 << bits)
    for column, (threshold, alias) in enumerate(zip(table.thresholds, table.aliases, strict=True)):
        masses[column] += threshold
        masses[alias] += (1 << compared) - threshold
    assert masses[:3] == [0, 0, 0] and table.low == pmf.low - 3
    total = sum(pmf.weights)
    rounding = sum(
        abs(Fraction(mass, 1 << (bits + compared)) - Fraction(weight, total))
        for mass, weight in itertools.zip_longest(masses[3:], pmf.weights, fillvalue=0)
    )
    assert table.distance == rounding / 2 > 0
    assert laws.alias_table(pmf, bits, compared).distance == rounding / 2 + pmf.defect


def test_tails_and_the_defect_of_the_ratios_are_both_in_the_defect():
    pmf = laws.skellam_pmf(Fraction(8), Fraction(5))
    kept = Fraction(sum(pmf.weights), pmf.total)
    assert pmf.defect == 1 - kept + laws.PMF_DEFECT
    assert 0 < 1 - kept <= Fraction(1, 1 << laws.TAIL_BITS)
    # Two tails beyond Chernoff's reach at 90 bits, and fewer than 2^20 ratios, each within 2^-119.
    assert Fraction(2, 1 << 90) + Fraction(1 << 20, 1 << 119) <= laws.PMF_DEFECT
    reach = laws.chernoff_reach(1e8, 1e8, laws._FAR_TAIL_BITS)
    assert 2 * reach < 1 << 20
    # Nothing more could be cut: the next weight on either side is above half of the allowance.
    assert min(pmf.weights[0], pmf.weights[-1]) > 0
    wider = laws.skellam_pmf(Fraction(8), Fraction(5), tail_bits=85)
    shift = pmf.low - wider.low
    below = sum(wider.weights[: shift + 1])
    above = sum(wider.weights[shift + len(pmf.weights) - 1 :])
    assert min(below, above) > pmf.total >> (laws.TAIL_BITS + 1)


def test_shared_lower_halves_are_charged_quadruple_by_quadruple():
    """By enumeration: all sets of four levels that touch the first draw of a group, each with the chance that all of it ties."""
    for ties in ([27], [21, 25], [18, 32]):
        chances = [(draw, Fraction(1, 1 << bits)) for draw in range(layout.WORDS) for bits in ties]
        wanted = sum(
            math.prod(chance for _, chance in four)
            for four in itertools.combinations(chances, 4)
            if any(draw == 0 for draw, _ in four)
        )
        assert layout._charge(ties) == wanted > 0


def test_a_layout_charges_the_ties_of_what_it_compares_at_first():
    for column_bits, ties in (
        ((7, 4), [25, 28]),
        ((11, 7, 5), [21, 25, 27]),
        ((14, 13), [32, 19]),
        ((13, 13), [19, 32]),
    ):
        assert layout.choose_layout(column_bits).distance == layout._charge(ties) <= layout._MAX_DISTANCE
    assert layout._charge([19, 19]) > layout._MAX_DISTANCE, "so that one of two levels of 13 bits is not packed"


@pytest.mark.parametrize("kind", ["push_pull", "single_channel"])
def test_tables_state_the_sum_of_all_levels_and_of_the_layout(kind):
    mean, modulation = 8.0, 0.05
    build = randomness.push_pull_tables if kind == "push_pull" else randomness.single_channel_tables
    built = build(dark_count=mean, modulation=modulation)
    wanted = built.layout.distance
    for level in built.levels:
        rates = table_plan.level_rates(kind, Fraction(mean), Fraction(modulation), level.shift, level.bits)
        bits = level.column_bits, layout.threshold_bits(level.column_bits, level.packed)
        wanted += max(laws.alias_table(laws.skellam_pmf(*pair), *bits).distance for pair in rates)
    assert wanted <= Fraction(built.distance) <= wanted * (1 + Fraction(1, 10**11))


def test_tables_too_far_from_their_law_are_refused(monkeypatch):
    monkeypatch.setattr(tables, "MAX_DISTANCE", 2.0**-80)
    with pytest.raises(ValueError, match="choose another rate"):
        tables._on_device.__wrapped__("poisson", Fraction(3), Fraction(0))
