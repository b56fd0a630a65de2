"""The two laws of a ledger by value: what is left, what is read, what is packed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedjax_poisson import accounting as acc
from fedjax_poisson.accounting import law

ORDERS = acc.integer_orders(16)
FILTER = law.RenyiLaw(orders=ORDERS, order=6.0, planned=False, epsilon=2.0, delta=1e-5)
METER = law.RenyiLaw(orders=ORDERS, order=6.0, planned=False, epsilon=math.inf, delta=1e-5)
TIGHT = law.TightLaw(budget=acc.variance_budget(2.0, 1e-5))


def test_what_is_left_of_a_budget():
    assert law.share_left(METER, 123.0) == 1.0, "a meter has no budget that could shrink"
    assert law.share_left(FILTER, 0.0) == 1.0 and law.share_left(FILTER, 2 * FILTER.budget) == 0.0
    assert law.share_left(FILTER, 0.25 * FILTER.budget) == pytest.approx(0.75, rel=1e-12)
    assert law.share_left(TIGHT, law.first_meter(TIGHT)) == 1.0 and law.share_left(TIGHT, 0.0) == 0.0
    assert law.share_left(TIGHT, 0.25 * TIGHT.budget.total) == pytest.approx(0.25, rel=1e-12)


def test_a_filter_reads_its_meter_at_its_order_and_nothing_before_the_first_release():
    assert law.reading(FILTER, [], 0.0) == 0.0
    for meter in (0.25, 1.0):
        wanted = meter + math.log1p(-1 / 6) - (math.log(1e-5) + math.log(6)) / 5  # Canonne, Kamath, Steinke
        assert law.reading(FILTER, [], meter) == pytest.approx(wanted, rel=1e-12)
    curve = acc.gaussian_rdp(ORDERS, noise_multiplier=5.0)
    for one in (METER, law.RenyiLaw(orders=ORDERS, order=6.0, planned=True, epsilon=2.0, delta=1e-5)):
        assert law.reading(one, [(curve, 3)], 0.36) == acc.epsilon(ORDERS, 3 * curve, 1e-5), "the best order of all"


def test_a_schedule_counts_every_release_as_often_as_it_was_made():
    normal, embedded = acc.Normal(0.01), acc.Embedded(2.0, 30.0, 0.1, 0.05)
    wanted = acc.fixed_plan_epsilon([normal] * 3 + [embedded] * 2, 1e-5)
    assert law.scheduled_epsilon(TIGHT, [(normal, 3), (embedded, 2), (normal, 0)], 1e-5) == pytest.approx(wanted)
    assert law.scheduled_epsilon(TIGHT, [(normal, 0)], 1e-5) == 0.0


def test_charges_survive_their_bytes():
    curve = law.unpack(FILTER, law.pack(acc.gaussian_rdp(ORDERS, noise_multiplier=5.0)))
    np.testing.assert_array_equal(curve, acc.gaussian_rdp(ORDERS, noise_multiplier=5.0))
    with pytest.raises(ValueError, match="read-only"):
        curve[0] = 0.0
    for cost in (acc.Normal(1 / 3), acc.Embedded(2.0, 30.0, 0.1, 0.05)):
        assert law.unpack(TIGHT, law.pack(cost)) == cost


def test_a_sum_is_rounded_against_the_budget():
    assert law.add_upward(0.1, 0.2) == math.nextafter(0.1 + 0.2, math.inf)
    assert law.add_upward(0.1, 0.0) == 0.1
