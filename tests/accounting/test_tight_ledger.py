"""A ledger that accounts by remaining variance: what it admits, reads, refuses and verifies."""

from __future__ import annotations

import sqlite3

import pytest

from fedjax_poisson import accounting as acc

BUDGET = {"epsilon": 1.0, "delta": 1e-4, "unit": "record", "adjacency": "zero_out", "law": "tight"}
FACTS = {"modulation": 0.05, "honest_senders": 3, "norm_ratio": 1 / 0.6, "dimension": 14, "step_ratio": 0.6 / 77}
COST = acc.embedded_cost(dark_count=5e3, **FACTS)


def _spend(ledger, cost=COST, label="round"):
    return ledger.spend("train", label, "poisson_embedding", {"dark_count": 5e3}, cost, 3, 4)


def _fill(ledger):
    count = 0
    while True:
        try:
            _spend(ledger)
        except acc.BudgetExhausted:
            return count
        count += 1


def test_it_admits_what_the_filter_admits_and_more_than_renyi(tmp_path):
    with acc.open_ledger(tmp_path / "tight.sqlite", **BUDGET) as ledger:
        admitted = _fill(ledger)
        budget = acc.variance_budget(1.0, 1e-4)
        assert acc.spend_all(budget, budget.total, [COST] * admitted) == ledger.rows()[-1].meter
        assert acc.spend_all(budget, budget.total, [COST] * (admitted + 1)) is None
    curve = acc.poisson_embedding_rdp(acc.DEFAULT_ORDERS, dark_count=5e3, **FACTS)
    renyi = BUDGET | {"law": "renyi"}
    with acc.open_ledger(tmp_path / "renyi.sqlite", **renyi) as ledger:
        fewer = 0
        while True:
            try:
                ledger.spend("train", "round", "poisson_embedding", {}, curve, 3, 4)
            except acc.BudgetExhausted:
                break
            fewer += 1
    assert fewer > 10 and admitted > 1.15 * fewer


def test_the_budget_is_the_best_reading_of_a_fixed_schedule(tmp_path):
    with acc.open_ledger(tmp_path / "l.sqlite", **BUDGET) as ledger:
        assert ledger.epsilon() == 0.0 and ledger.remaining() == (1.0, 1.0)
        admitted = _fill(ledger)
        assert 0.99 < ledger.epsilon() <= 1.0
        readings = ledger.readings()
        assert readings == sorted(readings) and len(readings) == admitted and readings[-1] == ledger.epsilon()
        half = acc.tight_epsilon(delta=1e-4, rounds=admitted // 2, dark_count=5e3, **FACTS)
        assert readings[admitted // 2 - 1] == pytest.approx(half, rel=2e-3)
        assert ledger.remaining().share < 1 / admitted


def test_it_is_read_back_and_verified(tmp_path):
    path = tmp_path / "l.sqlite"
    with acc.open_ledger(path, **BUDGET) as ledger:
        first, second = _spend(ledger), _spend(ledger, acc.Normal(0.01))
    with acc.read_ledger(path) as again:
        assert isinstance(again.law, acc.TightLaw) and again.law.budget == acc.variance_budget(1.0, 1e-4)
        assert again.rows() == [first, second] and again.verify(second.hash) == 2
        assert again.charges() == [(COST, 1), (acc.Normal(0.01), 1)]
        with pytest.raises(ValueError, match="no Renyi orders"):
            _ = again.orders


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE releases SET meter = '0x1.0p-4' WHERE id = 2",
        "UPDATE charges SET body = replace(CAST(body AS TEXT), '0.05', '0.04')",
        "DELETE FROM charges",
        "DELETE FROM releases WHERE id = 1",
    ],
)
def test_rows_changed_by_hand_are_found(tmp_path, statement):
    path = tmp_path / "l.sqlite"
    with acc.open_ledger(path, **BUDGET) as ledger:
        for _ in range(3):
            _spend(ledger)
    with sqlite3.connect(path) as raw:
        raw.execute("DROP TRIGGER releases_are_final")
        raw.execute("DROP TRIGGER releases_stay")
        raw.execute(statement)
    raw.close()
    with acc.read_ledger(path) as again, pytest.raises(acc.LedgerCorrupt):
        again.verify()


def test_a_refused_release_leaves_everything_as_it_was(tmp_path):
    with acc.open_ledger(tmp_path / "l.sqlite", **BUDGET) as ledger:
        _spend(ledger)
        before = (ledger.pin(), ledger.remaining())
        with pytest.raises(acc.BudgetExhausted, match="of the variance that the budget allows"):
            _spend(ledger, acc.Normal(1.0))
        assert (ledger.pin(), ledger.remaining()) == before
        assert ledger.fits([COST, COST]) and not ledger.fits([COST, acc.Normal(1.0)])
        assert (ledger.pin(), ledger.remaining()) == before


def test_charges_of_the_other_law_are_refused(tmp_path):
    curve = acc.gaussian_rdp(acc.DEFAULT_ORDERS, noise_multiplier=30.0)
    with acc.open_ledger(tmp_path / "tight.sqlite", **BUDGET) as ledger:
        for wrong in (curve, None, 3.0):
            with pytest.raises(ValueError, match='law="renyi"'):
                _spend(ledger, wrong)
    with acc.open_ledger(tmp_path / "renyi.sqlite", **BUDGET | {"law": "renyi"}) as ledger:
        with pytest.raises(ValueError, match="accounts by Renyi curves"):
            _spend(ledger)


def test_what_a_tight_ledger_cannot_be(tmp_path):
    path = tmp_path / "l.sqlite"
    for settings in ({"orders": acc.integer_orders(9)}, {"filter_order": 4.0}, {"planned_rdp": acc.DEFAULT_ORDERS}):
        with pytest.raises(ValueError, match="no orders and no plan"):
            acc.open_ledger(path, **BUDGET, **settings)
    with pytest.raises(ValueError, match="law is 'pld'"):
        acc.open_ledger(path, **BUDGET | {"law": "pld"})
    acc.open_ledger(path, **BUDGET).close()
    with pytest.raises(ValueError, match="the law"):
        acc.open_ledger(path, **BUDGET | {"law": "renyi"})
    with pytest.raises(ValueError, match="epsilon"):
        acc.open_ledger(path, **BUDGET | {"epsilon": 2.0})


def test_the_reserve_of_the_samplers_is_kept_from_the_variance(tmp_path):
    with acc.open_ledger(tmp_path / "l.sqlite", reserve=5e-5, **BUDGET) as ledger:
        assert ledger.law.budget == acc.variance_budget(1.0, 5e-5)
        with pytest.raises(acc.BudgetExhausted, match="samplers"):
            ledger.spend("train", "x", "poisson_embedding", {}, COST, 3, 4, distance=1e-4)
