"""Labels that keep order and distance."""

from __future__ import annotations

import itertools

import pytest

from fedjax_poisson.reports.plotting import spread


def test_spread_keeps_order_and_distance():
    wanted, heights = [0.1, 0.5, 0.51, 0.52], [0.1] * 4
    places = spread(wanted, heights)
    assert places[0] == pytest.approx(0.1)  # far from the others: stays
    gaps = [b - a for a, b in itertools.pairwise(places[1:])]
    assert gaps == pytest.approx([0.1, 0.1])
    assert sum(places[1:]) == pytest.approx(sum(wanted[1:]))  # a block sits where its members want it on average
