"""Every part of a stated distance by value: the largest part alone would hide that another is left out."""

from __future__ import annotations

import dataclasses
import itertools
from fractions import Fraction

import pytest

from fedjax_poisson import randomness
from fedjax_poisson.randomness import laws, layout, table_plan, tables


@pytest.mark.parametrize(("plus", "minus", "bits"), [(8.0, 7.5, 7), (0.3, 0.0, 5), (300.0, 2.0, 9)])
def test_rounding_to_thresholds_is_counted_exactly(plus, minus, bits):
    """Half the sum of |sampled - wanted| over all outcomes, in rationals; then the law's own defect on top."""
    pmf = laws.skellam_pmf(Fraction(plus), Fraction(minus))
    table = laws.alias_table(dataclasses.replace(pmf, defect=Fraction(0)), bits)
    masses = [0] * (1 << bits)
    for column, (threshold, alias) in enumerate(zip(table.thresholds, table.aliases, strict=True)):
        masses[column] += threshold
        masses[alias] += (1 << 64) - threshold
    total = sum(pmf.weights)
    rounding = sum(
        abs(Fraction(mass, 1 << (bits + 64)) - Fraction(weight, total))
        for mass, weight in itertools.zip_longest(masses, pmf.weights, fillvalue=0)
    )
    assert table.distance == rounding / 2 > 0
    assert laws.alias_table(pmf, bits).distance == rounding / 2 + pmf.defect


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


def test_shared_lower_halves_are_charged_pair_by_pair_and_triple_by_triple():
    """By enumeration: all pairs with one subset, and all triples, that touch a draw."""
    for chosen, levels in (([1, 2, 3, 1, 2, 3], 3), ([1, 1, 1, 1], 2), ([1, 2, 3, 4, 5, 6, 7, 1], 2), ([1], 1)):
        for draw in range(len(chosen) // levels):
            own = set(range(draw * levels, (draw + 1) * levels))
            pairs = [p for p in itertools.combinations(range(len(chosen)), 2) if own & set(p)]
            same = sum(chosen[i] == chosen[j] for i, j in pairs)
            triples = sum(1 for t in itertools.combinations(range(len(chosen)), 3) if own & set(t))
            charged = layout._charge(chosen, draw, levels)
            assert Fraction(same, 1 << 64) + Fraction(triples, 1 << 96) <= charged
            assert charged <= Fraction(2 * same, 1 << 64) + Fraction(triples, 1 << 96)


def test_a_layout_states_the_charge_of_its_worst_draw():
    for column_bits in ((7, 4), (11, 7, 5), (13, 10, 7, 5), (12,) * 12):
        found = layout.choose_layout(column_bits)
        subsets = [subset for draw in found.low for subset in draw]
        numbers = [sorted(set(subsets)).index(subset) for subset in subsets]
        worst = max(layout._charge(numbers, draw, len(column_bits)) for draw in range(found.draws))
        assert found.distance == worst <= Fraction(1, 1 << 61)


@pytest.mark.parametrize("kind", ["push_pull", "single_channel"])
def test_tables_state_the_sum_of_all_levels_and_of_the_layout(kind):
    mean, modulation = 8.0, 0.05
    build = randomness.push_pull_tables if kind == "push_pull" else randomness.single_channel_tables
    built = build(dark_count=mean, modulation=modulation)
    wanted = built.layout.distance
    for level in built.levels:
        rates = table_plan.level_rates(kind, Fraction(mean), Fraction(modulation), level.shift, level.bits)
        wanted += max(laws.alias_table(laws.skellam_pmf(*pair), level.column_bits).distance for pair in rates)
    assert wanted <= Fraction(built.distance) <= wanted * (1 + Fraction(1, 10**11))


def test_tables_too_far_from_their_law_are_refused(monkeypatch):
    monkeypatch.setattr(tables, "MAX_DISTANCE", 2.0**-80)
    with pytest.raises(ValueError, match="choose another rate"):
        tables._on_device.__wrapped__("poisson", Fraction(3), Fraction(0))
