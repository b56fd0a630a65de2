"""A plan is made again for the distance that its samplers turned out to have, and refused if that does not settle."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from fedjax_poisson import accounting
from fedjax_poisson.mechanisms import dark_counts, poisson_embedding
from fedjax_poisson.mechanisms.dark_counts import Terms, embedding, once, settle_distance


def _within(distance: float):
    mechanism = poisson_embedding(clip_norm=1.0, coordinate_bound=0.5, dark_count=8.0, modulation=0.1)
    return mechanism._replace(facts=dataclasses.replace(mechanism.facts, sampler_distance=distance))


def test_it_is_charged_what_the_samplers_are_away() -> None:
    asked: list[float] = []

    def plan(draw: float):
        asked.append(draw)
        return (_within(3 * accounting.DRAW_DISTANCE),)

    (found,) = settle_distance(plan, lambda planned: planned)
    assert len(asked) == 2 and asked[0] == accounting.DRAW_DISTANCE
    assert found.facts.sampler_distance <= asked[1] <= 1.02 * found.facts.sampler_distance


def test_a_distance_that_grows_with_what_is_charged_is_refused() -> None:
    with pytest.raises(ValueError, match="that delta was charged for"):
        settle_distance(lambda draw: (_within(2 * draw),), lambda planned: planned)


def test_a_distance_that_settles_at_the_third_plan_is_taken() -> None:
    asked: list[float] = []

    def plan(draw: float):
        asked.append(draw)
        return (_within(4 * accounting.DRAW_DISTANCE if len(asked) > 1 else 2 * accounting.DRAW_DISTANCE),)

    (found,) = settle_distance(plan, lambda planned: (*planned, _within(0.5 * accounting.DRAW_DISTANCE)))
    assert len(asked) == 3 and found.facts.sampler_distance == 4 * accounting.DRAW_DISTANCE


SENDERS = 4
TERMS = Terms(
    epsilon=1.0,
    delta=1e-5,
    participation=accounting.Participation(senders=SENDERS, minimum_senders=SENDERS, honest_senders=3),
    largest_site=10,
    sites_per_unit=1,
    modulation=None,
    orders=accounting.DEFAULT_ORDERS,
)
LARGEST = (2**31 - 1) / 2  # of the mean counts: the other half is for the random part


@pytest.fixture
def made(monkeypatch):
    """What would have been made: the tables of large dark counts take seconds."""
    calls: list[dict[str, float]] = []

    def make(**settings: float):
        calls.append(settings)
        return SimpleNamespace(count_bound=lambda senders, dimension: 2**31 - 1, settings=settings)

    monkeypatch.setattr(dark_counts, "poisson_embedding", make)
    return calls


def _embedded(terms: Terms, dark_at_5_percent: float, dimension: int = 7):
    return embedding(terms, lambda r: dark_at_5_percent * (0.05 / r) ** 2, 1.0, 0.5, 10.0, dimension)


@pytest.mark.parametrize(
    "dark, modulation", [(1.0, 0.05), (5e7, 0.05), (5.001e7, 0.06), (2e8, 0.1), (1.7e9, 0.3), (1e10, 0.3)]
)
def test_the_modulation_is_raised_until_one_draw_serves_the_dark_count(made, dark, modulation) -> None:
    _embedded(TERMS, dark, dimension=4096)
    assert made[0]["modulation"] == pytest.approx(modulation, rel=1e-12)
    assert made[0]["dark_count"] == pytest.approx(dark * (0.05 / modulation) ** 2)
    assert made[0]["dark_count"] <= 5e7 * (1 + 1e-9) or modulation == 0.3
    made.clear()
    _embedded(TERMS._replace(modulation=0.07), 3e8)
    assert made[0]["modulation"] == 0.07, "a modulation that was set is kept"


@pytest.mark.parametrize("dimension, draws", [(7, 16), (1000, 4), (2048, 2), (4096, 1), (10**6, 1)])
def test_short_vectors_take_several_draws_before_the_modulation_is_raised(made, dimension, draws) -> None:
    for dark, modulation in ((draws * 5e7, 0.05), (draws * 5.001e7, 0.06)):
        made.clear()
        _embedded(TERMS, dark, dimension)
        assert made[0]["modulation"] == pytest.approx(modulation, rel=1e-12)


@pytest.mark.parametrize("modulation", [0.2, None])
def test_counts_that_could_pass_32_bits_are_refused(made, modulation) -> None:
    terms, used = TERMS._replace(modulation=modulation), 0.3 if modulation is None else modulation
    dark = LARGEST / (2 * SENDERS * used) * (used / 0.05) ** 2  # at 5 per cent
    _embedded(terms, dark * (1 - 1e-9))
    with pytest.raises(ValueError, match="would not fit 32-bit") as told:
        _embedded(terms, dark * (1 + 1e-9))
    assert ("raise modulation" in str(told.value)) == (modulation is not None)


def test_next_to_no_events_are_refused(made) -> None:
    _embedded(TERMS, 0.01)
    with pytest.raises(ValueError, match=r"below the 0\.01 that the samplers serve"):
        _embedded(TERMS, 0.0099)


def test_a_unit_with_records_at_several_sites_is_charged_for_all_of_them(made) -> None:
    one = _embedded(TERMS, 1.0)
    assert one.mechanism is one.charged and len(made) == 1
    several = _embedded(TERMS._replace(sites_per_unit=3), 1.0)
    used, charged = several.mechanism.settings, several.charged.settings
    assert (used["clip_norm"], used["coordinate_bound"], used["total_bound"]) == (1.0, 0.5, 10.0)
    assert (charged["clip_norm"], charged["coordinate_bound"], charged["total_bound"]) == (3.0, 1.5, 10.0)
    assert used["dark_count"] == charged["dark_count"] == 1.0


@pytest.mark.parametrize("norm, sites", [(3.0, 1), (0.5, 1), (2.0, 20)])
def test_what_is_released_once_costs_its_share_of_the_budget(norm, sites) -> None:
    terms = TERMS._replace(sites_per_unit=sites)
    priced = once(terms, 0.25, norm, 7)
    coordinate = min(1.0, norm)
    bounds = priced.mechanism.bounds
    assert (bounds.clip_norm, bounds.coordinate_bound) == (norm, coordinate)
    assert bounds.total_bound == coordinate * max(10, sites)
    curve = priced.rdp(terms, 7)
    assert accounting.epsilon(terms.orders, curve / 0.25, 1e-5) == pytest.approx(1.0, rel=1e-8)
    np.testing.assert_array_equal(curve, priced.charged.rdp(terms.orders, 3, 7))
    assert np.all(priced.rdp(terms, 7, honest_senders=1) > curve)
