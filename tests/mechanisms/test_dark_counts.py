"""A plan is made again for the distance that its samplers turned out to have, and refused if that does not settle."""

from __future__ import annotations

import dataclasses

import pytest

from fedjax_poisson import accounting
from fedjax_poisson.mechanisms import poisson_embedding
from fedjax_poisson.mechanisms.dark_counts import settle_distance


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
