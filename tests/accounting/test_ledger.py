"""The ledger: budget, crash, race, tampering, and what it cannot find without an outside anchor."""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
import os
import sqlite3
import subprocess
import sys
import textwrap
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_poisson import accounting as acc
from fedjax_poisson.accounting import chain, law

ORDERS = acc.integer_orders(64)
BUDGET = {"epsilon": 2.0, "delta": 1e-5, "unit": "record", "adjacency": "zero_out", "orders": ORDERS}
CURVE = acc.gaussian_rdp(ORDERS, noise_multiplier=8.0)


def _spend(ledger: acc.Ledger, label: str = "round", curve: np.ndarray = CURVE) -> acc.Release:
    return ledger.spend("update", label, "poisson_embedding", {"dark_count": 3.0, "modulation": 0.05}, curve, 9, 10)


def _fill(ledger: acc.Ledger, curve: np.ndarray = CURVE) -> int:
    count = 0
    while True:
        try:
            _spend(ledger, f"round {count}", curve)
        except acc.BudgetExhausted:
            return count
        count += 1


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "ledger.sqlite"


def test_a_release_is_written_as_it_was_paid(path):
    ledger = acc.open_ledger(path, **BUDGET)
    assert ledger.epsilon() == 0.0 and ledger.rows() == [] and ledger.verify() == 0
    first = _spend(ledger, "round 0")
    second = ledger.spend("clip", "round 0", "poisson_embedding", {"bit": True}, 0.1 * CURVE, 4, 5)
    assert (first.id, second.id) == (1, 2)
    assert (second.purpose, second.unit, second.adjacency, second.parameters) == (
        "clip",
        "record",
        "zero_out",
        {"bit": True},
    )
    assert second.previous == first.hash and ledger.head() == second.hash
    ledger.close()
    again = acc.read_ledger(path)
    for written, read in zip((first, second), again.rows(), strict=True):
        np.testing.assert_array_equal(written.charge, read.charge)
        assert written._replace(charge=0) == read._replace(charge=0)
    assert again.verify(expected_head=second.hash) == 2
    np.testing.assert_allclose(again.rdp(), 1.1 * CURVE, rtol=1e-15)
    again.close()


def test_every_commit_is_flushed_and_a_closed_ledger_is_one_file(path):
    ledger = acc.open_ledger(path, **BUDGET)
    assert ledger.connection.execute("PRAGMA journal_mode").fetchone()[0] == "truncate"
    assert ledger.connection.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    _spend(ledger)
    ledger.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def _files(folder):
    return {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}


def test_reading_and_verifying_write_nothing(path):
    """A copy on read-only media must verify: no byte changes, and no file appears beside it, not even for a moment."""
    ledger = acc.open_ledger(path, **BUDGET)
    head = _spend(ledger).hash
    ledger.close()
    before = _files(path.parent)
    book = acc.read_ledger(path)
    assert book.verify(head) == 1 and book.epsilon() > 0
    assert _files(path.parent) == before
    with pytest.raises(acc.LedgerUnwritable, match="readonly"):
        _spend(book)
    book.close()
    assert _files(path.parent) == before


def test_a_journal_left_by_a_crash_is_rolled_back_on_a_copy(path):
    ledger = acc.open_ledger(path, **BUDGET)
    for i in range(3):
        _spend(ledger, f"round {i}")
    ledger.close()
    code = """
        ledger.connection.execute("PRAGMA cache_size = 1")
        ledger.connection.execute("BEGIN IMMEDIATE")
        ledger.connection.execute("UPDATE settings SET body = 'half written'")
        for i in range(200):  # spills into the file before the commit
            ledger.connection.execute("INSERT INTO charges VALUES (?, zeroblob(5000))", (f"x{i}",))
        os._exit(7)
    """
    crashed = _run(code, path)
    crashed.communicate(timeout=120)
    assert crashed.returncode == 7
    journal = path.with_name(path.name + "-journal")
    assert journal.stat().st_size > 0, "no hot journal: the test shows nothing"
    before = _files(path.parent)
    book = acc.read_ledger(path)
    assert book.verify() == 3 and book.connection.execute("SELECT COUNT(*) FROM charges").fetchone()[0] == 1
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(book.verify).result() == 3
    book.close()
    assert _files(path.parent) == before
    again = acc.read_ledger(path, writable=True)
    _spend(again)
    assert again.verify() == 4
    again.close()


def test_a_pin_finds_a_ledger_that_was_lost_cut_or_put_back(path, tmp_path):
    ledger = acc.open_ledger(path, **BUDGET)
    assert ledger.pin().rows == 0
    pins = [ledger.pin()]
    for i in range(3):
        _spend(ledger, f"round {i}")
        pins.append(ledger.pin())
    for pin in pins:
        ledger.check_pin(pin)
    ledger.close()
    other = acc.open_ledger(tmp_path / "other.sqlite", **BUDGET)
    other.check_pin(pins[0])  # the same settings and nothing released: nothing is lost
    with pytest.raises(acc.LedgerCorrupt, match="holds 0 releases, but 3 had been charged"):
        other.check_pin(pins[3])
    for i in range(4):
        _spend(other, f"round {i}")  # other times, so other hashes: a chain that was written anew
    other.verify()
    with pytest.raises(acc.LedgerCorrupt, match=r"row 3 of .* is not the release that was charged"):
        other.check_pin(pins[3])
    other.close()
    _tamper(path, "DELETE FROM releases WHERE id = 3")
    cut = acc.read_ledger(path)
    cut.check_pin(pins[2])
    with pytest.raises(acc.LedgerCorrupt, match="holds 2 releases, but 3"):
        cut.check_pin(pins[3])
    cut.close()


def test_a_ledger_belongs_to_one_data_set(path):
    ledger = acc.open_ledger(path, **BUDGET)
    facts = ("update", "round", "gaussian", {}, CURVE, 1, 1)
    row = ledger.spend(*facts, data="visits", origin={"run": "a1", "aggregator": "device"})
    assert (row.data, row.origin) == ("visits", {"run": "a1", "aggregator": "device"})
    ledger.spend(*facts, data="visits")
    with pytest.raises(ValueError, match="belongs to one data set"):
        ledger.spend(*facts, data="admissions")
    assert ledger.verify() == 2 and ledger.rows()[0].data == "visits"
    ledger.close()


def test_samplers_are_paid_from_the_reserve(path):
    """(1 + e^epsilon) times the summed distances, and no more than was set aside; the curves get the rest of delta."""
    ledger = acc.open_ledger(path, **BUDGET, reserve=1e-6)
    assert ledger.accounted_delta == pytest.approx(9e-6)
    facts = ("update", "round", "gaussian", {}, 1e-6 * CURVE, 1, 1)
    each = 1e-6 / (1 + np.exp(2.0)) / 3.5
    for _ in range(3):
        ledger.spend(*facts, distance=each)
    assert ledger.rows()[-1].distance == pytest.approx(3 * each, rel=1e-12) and ledger.rows()[-1].distance >= 3 * each
    with pytest.raises(acc.BudgetExhausted, match="set aside"):
        ledger.spend(*facts, distance=each)
    ledger.spend(*facts)  # nothing more from the reserve
    assert ledger.verify() == 4
    ledger.close()
    bare = acc.open_ledger(path.parent / "bare.sqlite", **BUDGET)
    with pytest.raises(acc.BudgetExhausted, match="set aside"):
        bare.spend(*facts, distance=1e-18)
    bare.close()


def test_what_fits_counts_the_distances_of_samplers_too(path):
    """The reserve has room for three releases of this distance. Twin: without the distances four would seem to fit, and the run would end midway."""
    each = 1e-7 / acc.reserve_for(1.0, 1.0)
    with acc.open_ledger(
        path, epsilon=1.0, delta=1e-5, reserve=3.5e-7, unit="client", adjacency="zero_out", orders=ORDERS
    ) as ledger:
        small = CURVE * 1e-3
        assert ledger.fits([small] * 3, 3 * each) and not ledger.fits([small] * 4, 4 * each)
        assert ledger.fits([small] * 4), "the twin"
        for i in range(3):
            ledger.spend("train", f"round {i}", "gaussian", {}, small, 1, 1, distance=each)
        assert ledger.fits([small]) and not ledger.fits([small], each)
        with pytest.raises(acc.BudgetExhausted):
            ledger.spend("train", "round 3", "gaussian", {}, small, 1, 1, distance=each)


def test_honest_noise_is_held_against_who_sends_it(path):
    with acc.open_ledger(path, epsilon=100.0, delta=1e-5, unit="client", adjacency="zero_out", orders=ORDERS) as ledger:
        facts = ("train", "round", "committee_noise", {}, CURVE)
        for honest, senders, noise in ((3, 2, None), (3, 2, 2), (0, 2, 5), (1, 0, 5)):
            with pytest.raises(ValueError, match="is needed"):
                ledger.spend(*facts, honest, senders, noise_senders=noise)
        assert ledger.spend(*facts, 3, 2, noise_senders=5).honest_senders == 3 and ledger.verify() == 1


def test_the_reserve_is_one_plus_the_odds_times_the_distance():
    """By value, and infinite where the odds leave float64 rather than an error."""
    assert acc.reserve_for(2.0, 1e-9) == pytest.approx((1 + math.exp(2.0)) * 1e-9, rel=1e-15)
    assert acc.reserve_for(0.0, 1e-9) == 2e-9
    assert acc.reserve_for(700.0, 1e-9) == pytest.approx(math.exp(700.0) * 1e-9)
    assert acc.reserve_for(math.nextafter(700.0, 701), 1e-9) == math.inf


def test_a_full_disk_is_told_and_leaves_no_row(path):
    ledger = acc.open_ledger(path, **BUDGET)
    _spend(ledger)
    pages = ledger.connection.execute("PRAGMA page_count").fetchone()[0]
    ledger.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(acc.LedgerUnwritable, match="nothing was opened"):
        for i in range(200):
            ledger.spend("update", f"round {i}", "gaussian", {"text": "x" * 500}, 1e-9 * CURVE, 1, 1)
    ledger.connection.execute("PRAGMA max_page_count = 100000")
    count = ledger.verify()
    _spend(ledger)
    assert ledger.verify() == count + 1
    ledger.close()


def test_planned_budget_is_spent_to_the_last_round_and_not_further(path):
    z = acc.calibrate_noise_multiplier(epsilon=2.0, delta=1e-5, rounds=50, orders=ORDERS)
    curve = acc.gaussian_rdp(ORDERS, noise_multiplier=z)
    ledger = acc.open_ledger(path, **BUDGET, planned_rdp=50 * curve)
    assert _fill(ledger, curve) == 50
    before = ledger.head()
    assert 2.0 * (1 - 1e-6) < ledger.epsilon() <= 2.0
    assert ledger.remaining().epsilon < 1e-6
    with pytest.raises(acc.BudgetExhausted, match="nothing was written"):
        _spend(ledger, curve=curve)
    assert ledger.head() == before and ledger.verify() == 50
    ledger.close()


def test_filter_mode_reads_its_fixed_order(path):
    ledger = acc.open_ledger(path, **BUDGET, filter_order=20.0)
    _fill(ledger)
    assert ledger.epsilon() <= 2.0
    index = int(np.searchsorted(ORDERS, 20.0))
    assert ledger.epsilon() == pytest.approx(acc.epsilon_per_order(ORDERS, ledger.rdp(), 1e-5)[index], rel=1e-12)
    ledger.close()


@settings(max_examples=15)
@given(sizes=st.lists(st.floats(0, 1.0), min_size=1, max_size=25))
def test_adversarial_sizes_never_overspend(tmp_path_factory, sizes):
    ledger = acc.open_ledger(tmp_path_factory.mktemp("ledger") / "l.sqlite", **BUDGET)
    for size in sizes:
        for _ in range(6):
            try:
                _spend(ledger, curve=size * ORDERS)
                break
            except acc.BudgetExhausted:
                size /= 4
    assert acc.epsilon_per_order(ORDERS, ledger.rdp(), 1e-5)[int(np.searchsorted(ORDERS, ledger.law.order))] <= 2.0
    ledger.verify()
    ledger.close()


def test_reopening_keeps_the_budget(path):
    acc.open_ledger(path, **BUDGET).close()
    acc.open_ledger(path, **BUDGET).close()
    for change, named in (
        ({"epsilon": 3.0}, "epsilon 2.0 -> 3.0"),
        ({"delta": 1e-6}, "delta"),
        ({"unit": "client"}, "unit"),
        ({"adjacency": "replace_one"}, "adjacency"),
        ({"orders": acc.integer_orders(32)}, "orders"),
        ({"filter_order": 30.0}, "order"),
        ({"planned_rdp": CURVE}, "planned_rdp"),
    ):
        with pytest.raises(ValueError, match=f"cannot be changed after the fact|{named}"):
            acc.open_ledger(path, **{**BUDGET, **change})
    stored = acc.read_ledger(path)
    assert (stored.budget_epsilon, stored.delta, stored.unit, stored.adjacency) == (2.0, 1e-5, "record", "zero_out")
    np.testing.assert_array_equal(stored.orders, ORDERS)
    stored.close()


def _run(code: str, *arguments: object) -> subprocess.Popen:
    program = PRELUDE + textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


PRELUDE = """
import os, sys, time
from fedjax_poisson import accounting as acc
from fedjax_poisson.accounting import chain, law
orders = acc.integer_orders(64)
curve = acc.gaussian_rdp(orders, noise_multiplier=8.0)
budget = dict(epsilon=2.0, delta=1e-5, unit="record", adjacency="zero_out", orders=orders)
ledger = acc.open_ledger(sys.argv[1], **budget)
"""
SPENDER = """
print("ready", flush=True)
while not os.path.exists(sys.argv[2]):
    time.sleep(1e-4)
count = 0
try:
    while True:
        ledger.spend("update", f"{os.getpid()} {count}", "gaussian", {}, curve, 1, 1)
        count += 1
except acc.BudgetExhausted:
    print(count, flush=True)
"""


def test_two_processes_cannot_both_spend_the_last_budget(path, tmp_path):
    alone = acc.open_ledger(tmp_path / "alone.sqlite", **BUDGET)
    most = _fill(alone)
    alone.close()
    gate = tmp_path / "gate"
    racers = [_run(SPENDER, path, gate) for _ in range(2)]
    for racer in racers:
        assert racer.stdout.readline().strip() == "ready"
    gate.touch()
    counts = [int(racer.communicate(timeout=120)[0]) for racer in racers]
    assert sum(counts) == most
    ledger = acc.read_ledger(path)
    assert ledger.verify() == most and ledger.epsilon() <= 2.0
    ledger.close()


def test_a_crash_between_write_and_release_counts_as_spent(path):
    code = """
        ledger.spend("update", "round 0", "gaussian", {}, curve, 1, 1)
        os._exit(7)  # the sum was never opened
    """
    crashed = _run(code, path)
    crashed.communicate(timeout=120)
    assert crashed.returncode == 7
    ledger = acc.read_ledger(path)
    assert ledger.verify() == 1 and ledger.epsilon() > 0
    ledger.close()


def test_a_crash_inside_the_transaction_leaves_no_row(path):
    code = """
        ledger.connection.create_function("leave", 0, lambda: os._exit(7))
        ledger.connection.execute("CREATE TEMP TRIGGER stop AFTER INSERT ON releases BEGIN SELECT leave(); END")
        ledger.spend("update", "round 0", "gaussian", {}, curve, 1, 1)
    """
    crashed = _run(code, path)
    crashed.communicate(timeout=120)
    assert crashed.returncode == 7
    ledger = acc.read_ledger(path, writable=True)
    assert ledger.verify() == 0 and ledger.epsilon() == 0.0  # nothing could have been released yet either
    _spend(ledger)
    ledger.close()


def _tamper(path, *statements: str) -> None:
    """Edit the file by hand as somebody with the disk would: triggers dropped, rows changed."""
    with sqlite3.connect(path) as raw:
        raw.execute("DROP TRIGGER releases_are_final")
        raw.execute("DROP TRIGGER releases_stay")
        for statement in statements:
            raw.execute(statement)
    raw.close()


EDITS = {
    "label": ("UPDATE releases SET label = 'nothing' WHERE id = 3", "row 3"),
    "senders": ("UPDATE releases SET honest_senders = 10 WHERE id = 2", "row 2"),
    "parameters": ("UPDATE releases SET parameters = '{}' WHERE id = 1", "row 1"),
    "time": ("UPDATE releases SET time = '2020-01-01T00:00:00+00:00' WHERE id = 5", "row 5"),
    "middle removed": ("DELETE FROM releases WHERE id = 3", "row 3 is missing"),
    "first removed": ("DELETE FROM releases WHERE id = 1", "row 1 is missing"),
    "curve": ("UPDATE charges SET body = zeroblob(length(body))", "charge of row 1"),
    "curve cut": ("UPDATE charges SET body = substr(body, 1, 13)", "charge of row 1"),
    "curve removed": ("DELETE FROM charges", "charge of row 1"),
    "meter": ("UPDATE releases SET meter = '0x0.0p+0' WHERE id = 5", "row 5"),
    "settings": ("UPDATE settings SET body = replace(body, '\"epsilon\":2.0', '\"epsilon\":9.0')", "settings"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_rows_changed_by_hand_are_found(path, edit):
    ledger = acc.open_ledger(path, **BUDGET)
    for i in range(5):
        _spend(ledger, f"round {i}")
    assert ledger.verify() == 5
    ledger.close()
    statement, named = EDITS[edit]
    _tamper(path, statement)
    ledger = acc.read_ledger(path)
    with pytest.raises(acc.LedgerCorrupt, match=named):
        ledger.verify()
    ledger.close()


FORGED = {
    "total": ({"meter": (0.0).hex()}, "the total, unit or adjacency of row 3"),
    "unit": ({"unit": "client"}, "the total, unit or adjacency of row 3"),
    "adjacency": ({"adjacency": "replace_one"}, "the total, unit or adjacency of row 3"),
    "distance": ({"distance": (1e-20).hex()}, "distance falls in row 3"),
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_row_with_a_right_hash_must_still_add_up(path, forged):
    """Somebody who can hash rewrites the last link: what it says must follow from the rows before it."""
    ledger = acc.open_ledger(path, **BUDGET, reserve=1e-6)
    for i in range(3):
        ledger.spend("update", f"round {i}", "gaussian", {}, CURVE, 1, 1, distance=1e-12)
    ledger.close()
    changes, named = FORGED[forged]
    with sqlite3.connect(path) as raw:
        row = dict(
            zip(chain.FIELDS, raw.execute(f"SELECT {chain.COLUMNS} FROM releases WHERE id = 3").fetchone(), strict=True)
        )
    raw.close()
    row |= changes
    row["hash"] = chain.link_hash(tuple(row.values()))
    edits = ", ".join(f"{name} = '{row[name]}'" for name in [*changes, "hash"])
    _tamper(path, f"UPDATE releases SET {edits} WHERE id = 3")
    ledger = acc.read_ledger(path)
    with pytest.raises(acc.LedgerCorrupt, match=named):
        ledger.verify()
    ledger.close()


def test_what_is_added_is_never_less_than_the_exact_sum():
    for spent, amount in ((0.1, 0.2), (1.0, 1e-30), (0.0, 0.3), (1e-300, 1e300), (3.0, 5e-324)):
        total = law.add_upward(spent, amount)
        assert Fraction(spent) + Fraction(amount) < Fraction(total) <= Fraction((spent + amount) * (1 + 2.0**-51))
    assert law.add_upward(0.7, 0.0) == 0.7 and law.add_upward(0.0, 0.0) == 0.0


def test_curves_that_were_read_cannot_be_changed(path):
    ledger = acc.open_ledger(path, **BUDGET)
    _spend(ledger)
    with pytest.raises(ValueError, match="read-only"):
        ledger.rows()[0].charge[0] = 0.0
    ledger.close()


def test_a_ledger_may_be_used_from_another_thread(path):
    """A program may train in a thread of its own; the connection is not tied to the one that opened it."""
    for book in (acc.open_ledger(path, **BUDGET), acc.read_ledger(path)):
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            assert pool.submit(book.verify).result() == 0
        book.close()


def test_reordered_rows_are_found(path):
    ledger = acc.open_ledger(path, **BUDGET)
    for i in range(4):
        _spend(ledger, f"round {i}")
    ledger.close()
    _tamper(
        path,
        "UPDATE releases SET id = 99 WHERE id = 2",
        "UPDATE releases SET id = 2 WHERE id = 3",
        "UPDATE releases SET id = 3 WHERE id = 99",
    )
    ledger = acc.read_ledger(path)
    with pytest.raises(acc.LedgerCorrupt, match="row 2"):
        ledger.verify()
    ledger.close()


def test_cutting_the_tail_needs_the_outside_anchor(path):
    ledger = acc.open_ledger(path, **BUDGET)
    for i in range(4):
        _spend(ledger, f"round {i}")
    head = ledger.head()
    ledger.close()
    _tamper(path, "DELETE FROM releases WHERE id = 4")
    ledger = acc.read_ledger(path)
    assert ledger.verify() == 3  # said in the docstring: the chain alone cannot know
    with pytest.raises(acc.LedgerCorrupt, match="cut from or added at the end"):
        ledger.verify(expected_head=head)
    ledger.close()


def test_the_program_itself_cannot_edit_a_row(path):
    ledger = acc.open_ledger(path, **BUDGET)
    _spend(ledger)
    for statement in ("UPDATE releases SET label = 'x'", "DELETE FROM releases"):
        with pytest.raises(sqlite3.IntegrityError, match="final"):
            ledger.connection.execute(statement)
    assert ledger.verify() == 1
    ledger.close()


def test_ten_thousand_rounds_are_verified_quickly(path):
    """Curves are stored once per distinct curve and the total is carried along: spending stays constant per release."""
    ledger = acc.open_ledger(path, **BUDGET)
    for _ in range(300):
        _spend(ledger, curve=1e-3 * CURVE)
    assert ledger.connection.execute("SELECT COUNT(*) FROM charges").fetchone()[0] == 1
    assert ledger.verify() == 300
    assert os.path.getsize(path) < 10**6
    ledger.close()


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"unit": "hospital"}, "name who is protected"),
        ({"adjacency": "add_remove"}, "dark noise stays"),
        ({"epsilon": 0.0}, "above 0"),
        ({"epsilon": math.inf, "filter_order": 20.0}, "must be finite"),
        ({"epsilon": 2e4, "planned_rdp": CURVE}, "protects nobody"),
        ({"delta": 1.0}, "delta"),
        ({"reserve": 1e-5}, "reserve"),
        ({"reserve": -1e-9}, "reserve"),
        ({"filter_order": 2.5}, "not one of the ledger's orders"),
        ({"filter_order": 2.0}, "cannot certify"),
        ({"planned_rdp": 100 * CURVE}, "calibrate it for this budget"),
        ({"planned_rdp": CURVE[:-1]}, "on these orders"),
        ({"planned_rdp": CURVE, "filter_order": 20.0}, "not both"),
    ],
)
def test_wrong_budgets_are_refused_with_the_remedy(path, change, remedy):
    with pytest.raises(ValueError, match=remedy):
        acc.open_ledger(path, **{**BUDGET, **change})
    assert not path.exists()


def test_wrong_releases_are_refused_and_not_written(path):
    ledger = acc.open_ledger(path, **BUDGET)
    with pytest.raises(ValueError, match="infinite at the ledger's order"):
        _spend(ledger, curve=np.full_like(CURVE, np.inf))
    with pytest.raises(ValueError, match="on these orders"):
        _spend(ledger, curve=CURVE[:-1])
    with pytest.raises(ValueError, match="honest_senders"):
        ledger.spend("update", "x", "m", {}, CURVE, 11, 10)
    with pytest.raises(ValueError, match="not JSON compliant"):
        ledger.spend("update", "x", "m", {"bad": float("nan")}, CURVE, 1, 1)
    assert ledger.verify() == 0
    ledger.close()


def test_foreign_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="open_ledger creates one"):
        acc.read_ledger(tmp_path / "absent.sqlite")
    text = tmp_path / "text.sqlite"
    text.write_text("not a database, but long enough to be read as one " * 40)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as raw:
        raw.execute("CREATE TABLE something (x)")
    raw.close()
    for path in (text, other):
        with pytest.raises(acc.LedgerCorrupt):
            acc.read_ledger(path)
        with pytest.raises(acc.LedgerCorrupt):
            acc.open_ledger(path, **BUDGET)
    with pytest.raises(acc.LedgerUnwritable, match="cannot be written"):
        acc.open_ledger(tmp_path, **BUDGET)  # a folder


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("{}", "cannot be read: KeyError"),
        ("[", "cannot be read: JSONDecodeError"),
        ('{"format":"privacy-ledger-1"}', "has the format 'privacy-ledger-1'"),
        (f'{{"format":"{chain.FORMAT}"}}', "cannot be read: KeyError"),
    ],
)
def test_settings_that_cannot_be_read_are_told(path, body, named):
    acc.open_ledger(path, **BUDGET).close()
    _tamper(path, f"UPDATE settings SET body = '{body}'")
    for how in (lambda: acc.read_ledger(path), lambda: acc.open_ledger(path, **BUDGET)):
        with pytest.raises(acc.LedgerCorrupt, match=named):
            how()


def test_a_meter_reads_what_samplers_may_add_into_its_epsilon():
    facts = ("update", "round", "gaussian", {}, CURVE, 1, 1)
    readings = []
    for distance in (0.0, 1e-7, 1e-6, 2e-5):
        meter = acc.memory_ledger(delta=1e-5, unit="record", adjacency="zero_out", orders=ORDERS)
        meter.spend(*facts, distance=distance)
        readings.append(meter.epsilon())
        if np.isfinite(readings[-1]):
            left = 1e-5 - acc.reserve_for(readings[-1], distance)
            assert acc.epsilon(ORDERS, CURVE, left) <= readings[-1]
    assert readings[0] == acc.epsilon(ORDERS, CURVE, 1e-5)
    assert np.all(np.diff(readings) > 0) and readings[-1] == np.inf  # a distance above delta can never be paid


def test_what_a_killed_start_leaves_is_no_ledger_yet(path):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    assert acc.never_made(path)
    made = acc.open_ledger(path, **BUDGET)
    assert not acc.never_made(path)
    made.close()
    path.write_text("not a database at all, of some length")
    with pytest.raises(acc.LedgerCorrupt):
        acc.never_made(path)


def test_damaged_pages_are_told_by_name_wherever_they_are(path):
    """Zeroed sectors of a ledger, one at a time: reading it says LedgerCorrupt, or reads what was written; never an error of the database itself."""
    ledger = acc.open_ledger(path, **BUDGET)
    for number in range(3):
        _spend(ledger, f"round {number}")
    ledger.close()
    whole, refused = path.read_bytes(), 0
    for place in range(0, len(whole), 128):
        path.write_bytes(whole[:place] + bytes(128) + whole[place + 128 :])
        try:
            with contextlib.closing(acc.read_ledger(path)) as read:
                read.verify()
                assert [row.label for row in read.rows()] == [f"round {number}" for number in range(3)]
        except acc.LedgerCorrupt:
            refused += 1
    assert refused > 20
