"""What of delta covers the samplers, by value."""

from __future__ import annotations

import math

import pytest

from fedjax_poisson import accounting as acc


def test_the_reserve_by_value():
    assert acc.reserve_for(2.0, 1e-9) == pytest.approx((1 + math.exp(2.0)) * 1e-9, rel=1e-14)
    assert acc.reserve_for(0.5, 0.0) == 0.0
    assert math.isfinite(acc.reserve_for(700.0, 1e-9)) and acc.reserve_for(700.1, 1e-9) == math.inf


def test_the_distance_of_a_release_counts_every_draw_of_every_sender():
    assert acc.DRAW_DISTANCE == 2.0**-60
    assert acc.release_distance(senders=3, dimension=50) == pytest.approx(150 * 2.0**-60, rel=1e-14)
    assert acc.release_distance(senders=3, dimension=50, overflow=1e-12, draw=1e-15) == pytest.approx(1.15e-12)


def test_a_plan_may_draw_every_release_twice_and_keeps_some_of_delta():
    assert acc.ATTEMPTS == 2
    assert acc.plan_reserve(2.0, 1e-5, 1e-9) == pytest.approx((1 + math.exp(2.0)) * 2e-9, rel=1e-14)
    full = 1e-5 / (2 * (1 + math.exp(2.0)))
    assert acc.plan_reserve(2.0, 1e-5, full * (1 - 1e-12)) < 1e-5
    whole = acc.reserve_for(2.0, 2 * full)
    with pytest.raises(ValueError, match="too large for delta"):
        acc.plan_reserve(2.0, whole, full)
