"""A ledger in memory: a meter without an epsilon, a budget with one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedjax_poisson import accounting as acc

FACTS = {"delta": 1e-5, "unit": "record", "adjacency": "zero_out"}
ORDERS = acc.integer_orders(16)


def test_a_meter_reads_nothing_before_the_first_release_and_refuses_nothing_after_it():
    meter = acc.memory_ledger(**FACTS, orders=ORDERS)
    assert (meter.budget_epsilon, meter.epsilon()) == (math.inf, 0.0)
    curve = acc.gaussian_rdp(ORDERS, noise_multiplier=0.1)
    for count in (1, 2):
        meter.spend("update", f"round {count}", "gaussian", {}, curve, 1, 1)
        assert meter.epsilon() == pytest.approx(acc.epsilon(ORDERS, count * curve, 1e-5), rel=1e-12)
    assert (meter.delta, meter.unit, meter.adjacency) == (1e-5, "record", "zero_out")


def test_with_an_epsilon_it_is_a_budget():
    ledger = acc.memory_ledger(**FACTS, orders=ORDERS, epsilon=1.0)
    assert ledger.budget_epsilon == 1.0
    with pytest.raises(acc.BudgetExhausted):
        ledger.spend("update", "round", "gaussian", {}, acc.gaussian_rdp(ORDERS, noise_multiplier=0.1), 1, 1)


def test_its_orders_are_the_usual_ones_unless_given():
    np.testing.assert_array_equal(acc.memory_ledger(**FACTS).orders, acc.DEFAULT_ORDERS)
    np.testing.assert_array_equal(acc.memory_ledger(**FACTS, orders=ORDERS).orders, ORDERS)


def test_its_database_is_closed_with_the_last_reference():
    ledger = acc.memory_ledger(**FACTS, orders=ORDERS)
    connection = ledger.connection
    del ledger
    with pytest.raises(Exception, match="closed"):
        connection.execute("SELECT 1")
