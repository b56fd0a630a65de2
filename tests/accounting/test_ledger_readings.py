"""What a ledger reads after none, one and several releases: the accountant's numbers, at the right order."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fedjax_poisson import accounting as acc
from fedjax_poisson.accounting import chain
from fedjax_poisson.accounting.price import Price

ORDERS = acc.integer_orders(64)
BUDGET = {"epsilon": 2.0, "delta": 1e-5, "unit": "record", "adjacency": "zero_out", "orders": ORDERS}
CURVE = acc.gaussian_rdp(ORDERS, noise_multiplier=8.0)


@pytest.mark.parametrize("planned", [False, True])
def test_every_release_is_in_the_reading_the_first_one_too(tmp_path, planned):
    how = {"planned_rdp": 6 * CURVE} if planned else {"filter_order": 20.0}
    ledger = acc.open_ledger(tmp_path / "ledger.sqlite", **BUDGET, **how)
    index = int(np.searchsorted(ORDERS, ledger.law.order))
    budget = acc.rdp_budget(ledger.law.order, 2.0, 1e-5)
    assert ledger.epsilon() == 0.0
    assert ledger.remaining().share == 1 and ledger.remaining().epsilon == 2.0
    for count in (1, 2, 3):
        ledger.spend("update", f"round {count}", "gaussian", {}, CURVE, 9, 10)
        each = acc.epsilon_per_order(ORDERS, count * CURVE, 1e-5)
        wanted = float(each.min()) if planned else float(each[index])
        assert ledger.epsilon() == pytest.approx(wanted, rel=1e-12) and ledger.epsilon() > 0
        left = ledger.remaining()
        assert left.share == pytest.approx(1 - count * CURVE[index] / budget, rel=1e-9)
        assert left.epsilon == pytest.approx(2.0 - wanted, rel=1e-9)
    ledger.close()


def test_nothing_remains_of_a_spent_budget_and_never_less_than_nothing(tmp_path):
    ledger = acc.open_ledger(tmp_path / "ledger.sqlite", **BUDGET, filter_order=20.0)
    budget = acc.rdp_budget(20.0, 2.0, 1e-5)
    whole = np.where(ORDERS == 20.0, budget * (1 - 1e-15), 5.0)
    ledger.spend("update", "all of it", "gaussian", {}, whole, 1, 1)
    assert 0.0 <= ledger.remaining().share < 1e-12 and 0.0 <= ledger.remaining().epsilon < 1e-9
    with pytest.raises(acc.BudgetExhausted):
        ledger.spend("update", "more", "gaussian", {}, 1e-6 * CURVE, 1, 1)
    ledger.close()


def test_a_small_budget_is_a_budget(tmp_path):
    """Less than one nat at a*, down to the least that certifies anything."""
    for epsilon in (0.5, 0.31):
        assert 0 < acc.rdp_budget(40.0, epsilon, 1e-5) < 0.4
        ledger = acc.open_ledger(tmp_path / f"{epsilon}.sqlite", **{**BUDGET, "epsilon": epsilon}, filter_order=40.0)
        assert ledger.remaining().share == 1 and ledger.law.budget == pytest.approx(acc.rdp_budget(40.0, epsilon, 1e-5))
        ledger.close()
    with pytest.raises(ValueError, match="cannot certify"):
        acc.open_ledger(tmp_path / "none.sqlite", **{**BUDGET, "epsilon": 0.1}, filter_order=40.0)


def test_the_text_that_is_hashed_is_one_text():
    """Keys sorted, no spaces, ASCII, no NaN: two programs hash the same row to the same link."""
    assert chain.canonical({"b": [1, 0.5], "a": "Zürich"}) == '{"a":"Z\\u00fcrich","b":[1,0.5]}'
    with pytest.raises(ValueError):
        chain.canonical({"a": float("nan")})


@pytest.mark.parametrize("reserve", [0.0, 1e-6, None])
def test_a_gate_charges_the_price_and_the_distance_where_there_is_a_reserve_for_it(tmp_path, reserve):
    """None: a meter, which reads the distance into its epsilon. Nothing is written before the gate is called."""
    price = Price("gaussian", {"noise_std": 2.0}, lambda orders: orders / 128, 9, 10, 1e-9)
    if reserve is None:
        ledger = acc.memory_ledger(delta=1e-5, unit="record", adjacency="zero_out", orders=ORDERS)
    else:
        ledger = acc.open_ledger(tmp_path / "ledger.sqlite", **BUDGET, reserve=reserve)
    pays = ledger.gate(SimpleNamespace(price=price), "round 7"), ledger.gate(SimpleNamespace(price=price), "8", "clip")
    assert ledger.rows() == []
    for pay in pays:
        pay()
    first, second = ledger.rows()
    assert (first.purpose, first.label, second.purpose, second.label) == ("train", "round 7", "clip", "8")
    assert (first.mechanism, first.parameters, first.honest_senders, first.senders) == (*price[:2], 9, 10)
    np.testing.assert_array_equal(first.charge, ORDERS / 128)
    assert first.distance == (0.0 if reserve == 0 else pytest.approx(1e-9, rel=1e-12))
    with pytest.raises(ValueError, match="no mechanism"):
        ledger.gate(SimpleNamespace(price=None), "round 9")
    ledger.close()
