"""A log as a file: durable lines, one writer, a torn end mended, everything else refused."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from pathlib import Path

import pytest

from fedjax_poisson import accounting
from fedjax_poisson.deployment import identity, site_log
from fedjax_poisson.deployment.identity import Identity
from fedjax_poisson.deployment.log_entries import LogDamaged, check_chain
from fedjax_poisson.deployment.site_log import LogBusy, LogUnwritable, open_log, read_log

RUN, HASH = "ab" * 16, "cd" * 32


@pytest.fixture
def who(tmp_path: Path) -> Identity:
    return identity.create(tmp_path / "state")


def test_what_was_appended_is_there_after_opening_again(tmp_path: Path, who: Identity) -> None:
    path = tmp_path / "site.log"
    log = open_log(path, who)
    first = log.append("terms", run=RUN, terms=HASH, roster=HASH)
    on_disk = read_log(path)  # while it is open: durable when append returns
    second = log.append("refused", reasons=["privacy.epsilon", "BadTerms"])
    assert on_disk == [first] and log.entries() == (first, second) and log.repaired == 0
    assert path.stat().st_mode & 0o777 == 0o600
    log.close()
    again = open_log(path, who)
    third = again.append("dead", run=RUN, round=3, terms=HASH)
    again.close()
    entries = read_log(path)
    assert entries == [first, second, third]
    check_chain(entries, who.public)


def test_every_line_is_synchronised_before_append_returns(tmp_path: Path, who: Identity, monkeypatch) -> None:
    log = open_log(tmp_path / "site.log", who)
    synced: list[int] = []
    monkeypatch.setattr(site_log.os, "fsync", lambda descriptor: synced.append((tmp_path / "site.log").stat().st_size))
    log.append("ended", run=RUN, model=HASH)
    assert synced == [(tmp_path / "site.log").stat().st_size] and synced[0] > 0


def test_a_torn_last_line_is_cut_off_and_said(tmp_path: Path, who: Identity) -> None:
    path = tmp_path / "site.log"
    log = open_log(path, who)
    log.append("ended", run=RUN, model=HASH)
    log.append("dead", run=RUN, round=1, terms=HASH)
    log.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])  # all of the line but its newline: it was never acknowledged
    assert len(read_log(path)) == 1
    log = open_log(path, who)
    assert log.repaired > 0 and [entry.kind for entry in log.entries()] == ["ended", "repaired"]
    assert log.entries()[1].facts["bytes"] == log.repaired
    log.append("dead", run=RUN, round=1, terms=HASH)
    log.close()
    check_chain(read_log(path), who.public)
    clean = open_log(path, who)  # twin: nothing to mend
    assert clean.repaired == 0 and len(clean.entries()) == 3


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda lines: [lines[0].replace(b'"round":1', b'"round":2'), *lines[1:]], "entry 1 was changed"),
        (lambda lines: lines[1:], "entry 1 has the number 2"),
        (lambda lines: [lines[0], lines[2]], "entry 2 has the number 3"),
        (lambda lines: [lines[1], lines[0], lines[2]], "entry 1 has the number 2"),
        (lambda lines: [lines[0], b"{}", lines[2]], "line 2 is no entry"),
        (lambda lines: [lines[0], b"\xff", lines[2]], "line 2 is no entry"),
        (lambda lines: [b"[" * 100_000, *lines[1:]], "line 1 is no entry"),
    ],
)
def test_any_other_damage_is_refused_by_its_place(tmp_path: Path, who: Identity, damage, words: str) -> None:
    path = tmp_path / "site.log"
    log = open_log(path, who)
    for number in (1, 2, 3):
        log.append("dead", run=RUN, round=number, terms=HASH)
    log.close()
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join(damage(lines)) + b"\n")
    with pytest.raises(LogDamaged, match=words):
        open_log(path, who)
    path.write_bytes(b"\n".join(lines) + b"\n")
    open_log(path, who)


def test_the_log_of_another_key_is_refused(tmp_path: Path, who: Identity) -> None:
    other = identity.create(tmp_path / "other")
    log = open_log(tmp_path / "site.log", who)
    log.append("ended", run=RUN, model=HASH)
    log.close()
    with pytest.raises(LogDamaged, match="log of another key"):
        open_log(tmp_path / "site.log", other)


def test_one_process_writes_and_threads_take_turns(tmp_path: Path, who: Identity) -> None:
    path = tmp_path / "site.log"
    log = open_log(path, who)
    with pytest.raises(LogBusy, match="one worker at a time"):
        open_log(path, who)
    threads = [threading.Thread(target=lambda k=k: log.append("dead", run=RUN, round=k, terms=HASH)) for k in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    entries = read_log(path)
    check_chain(entries, who.public)
    assert sorted(entry.facts["round"] for entry in entries) == list(range(20))
    open_log(path, who).close()


def test_what_cannot_be_written_must_not_happen(tmp_path: Path, who: Identity, monkeypatch) -> None:
    path = tmp_path / "site.log"
    log = open_log(path, who)
    with monkeypatch.context() as patch:
        patch.setattr(site_log.os, "fsync", _full)
        with pytest.raises(LogUnwritable, match="disk's space"):
            log.append("ended", run=RUN, model=HASH)
    with pytest.raises(LogUnwritable, match="start the worker again"):  # what is on disk is unknown: nothing follows it
        log.append("ended", run=RUN, model=HASH)
    assert log.entries() == ()
    with pytest.raises(LogUnwritable, match="check its folder"):
        open_log(tmp_path / "nowhere" / "site.log", who)


def _full(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_line_is_json_that_anyone_reads(tmp_path: Path, who: Identity) -> None:
    log = open_log(tmp_path / "site.log", who)
    log.append("charge", run=RUN, round=4, label="train 3", epsilon=0.5, rows=1, ledger=HASH)
    (line,) = (tmp_path / "site.log").read_text().splitlines()
    value = json.loads(line)
    assert value["kind"] == "charge" and value["facts"]["epsilon"] == 0.5 and value["time"].endswith("+00:00")


def test_the_log_knows_how_far_the_ledger_reached(tmp_path: Path, who: Identity) -> None:
    """A ledger that was set back to a copy from before the last charge is refused; the newest one is not (the twin)."""
    log = open_log(tmp_path / "site.log", who)
    assert site_log.ledger_pin(log.entries()) is None
    facts = {"epsilon": 2.0, "delta": 1e-5, "unit": "record", "adjacency": "zero_out"}
    orders = [2.0, 16.0]
    with accounting.open_ledger(tmp_path / "ledger.sqlite", **facts, orders=orders, filter_order=16.0) as ledger:
        for number in (1, 2):
            ledger.spend("train", f"train {number}", "poisson", {}, [0.001, 0.008], 3, 4)
            rows, head = ledger.pin()
            log.append(
                "charge",
                run=RUN,
                round=number,
                label=f"train {number}",
                epsilon=ledger.epsilon(),
                rows=rows,
                ledger=head,
            )
            if number == 1:
                with contextlib.closing(sqlite3.connect(tmp_path / "backup.sqlite")) as copy:
                    ledger.connection.backup(copy)
    pin = site_log.ledger_pin(log.entries())
    with contextlib.closing(accounting.read_ledger(tmp_path / "ledger.sqlite")) as newest:
        newest.check_pin(pin)
    with contextlib.closing(accounting.read_ledger(tmp_path / "backup.sqlite")) as older:
        assert older.verify() == 1  # by itself it is whole
        with pytest.raises(accounting.LedgerCorrupt):
            older.check_pin(pin)
