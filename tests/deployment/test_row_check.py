"""A coordinator that moves a sum: every site opens it alike, and only all sites' rows together show it."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedjax_poisson.aggregation import server, server_state, transcript
from fedjax_poisson.aggregation.refusals import OpeningRefused
from fedjax_poisson.aggregation.store import sqlite_store
from fedjax_poisson.aggregation.terms import Pinned
from fedjax_poisson.aggregation.transcript import check_transcript
from fedjax_poisson.ckks import device_layout, packing
from fedjax_poisson.deployment import row_check
from fedjax_poisson.deployment.log_findings import Findings
from fedjax_poisson.deployment.row_check import MissingRows, check_rows, contributions_in, with_rows
from tests.deployment.test_exchange import RUN, SIZE, Group, group, held, wanted

__all__ = ["group"]


def pinned(group: Group) -> Pinned:
    return group.sites["north"].exchange.party.sender.pinned


def sent(group: Group) -> list[bytes]:
    """What every site sent in round 1, as its store has it."""
    found = [site.exchange.party.sender.store.get(RUN, 1, "contribution") for site in group.sites.values()]
    assert all(found)
    return [blob for blob in found if blob is not None]


def check(group: Group, blob: bytes, rows: list[bytes]) -> dict[str, str]:
    """The files that are named, of files 0, 1, ..."""
    return check_rows(blob, {str(k): one for k, one in enumerate(rows)}, pinned(group), group.keys.values())


def kinds(group: Group, monkeypatch: pytest.MonkeyPatch, blob: bytes, rows: list[bytes]) -> list[tuple[str, bool, str]]:
    """What `with_rows` finds in files north, east, ..., and more."""
    monkeypatch.setattr(row_check, "pinned_of", lambda roster: pinned(group))
    monkeypatch.setattr(row_check, "roster_keys", lambda roster: list(group.keys.values()))
    sent = {f"file{k}.sqlite": {(RUN.hex(), 1): one} for k, one in enumerate(rows)}
    found = with_rows(Findings(True, (), 1, {}, (), 1), None, {"a.round": blob}, sent)  # type: ignore[arg-type]
    assert found.sound == (not any(one.grave for one in found.findings))
    return [(one.kind, one.grave, one.words) for one in found.findings]


def moving(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server adds an encoding of ones to the rows that it sums."""
    real = server_state.sum_of_rows

    def moved(state: Any, include: Any) -> np.ndarray:
        params = state.params
        ones = np.pad(np.ones(SIZE, np.int32), (0, params.padded - SIZE))
        nothing = np.zeros((1, params.ring.degree, params.rows), np.int32)
        (rows,) = device_layout.transformed(
            params.ring, None, packing.pack_words(params.ring, ones), nothing, carrier=0
        )
        total = real(state, include).astype(np.uint64) + np.asarray(rows)
        return (total % np.asarray(params.ring.moduli, np.uint64)[:, None]).astype(np.uint32)

    monkeypatch.setattr(server, "sum_of_rows", moved)
    monkeypatch.setattr(transcript, "sum_of_rows", moved)


def test_a_moved_sum_passes_every_check_of_its_transcript_and_not_that_of_all_rows(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving(monkeypatch)
    blob = held(group, wanted(group), seconds=200)
    np.testing.assert_array_equal(check_transcript(blob, pinned(group)).counts, 6 * np.arange(SIZE) + 1)
    for site in group.sites.values():
        site.exchange.opened(0, blob)  # no site sees it
        assert site.got().counts[0] == 1
    with pytest.raises(OpeningRefused, match="moved the result"):
        check(group, blob, sent(group))


def test_an_honest_sum_passes_and_what_is_missing_or_another_is_named(group: Group) -> None:
    blob = held(group, wanted(group), seconds=200)
    rows = sent(group)
    assert check(group, blob, rows) == check(group, blob, rows[::-1]) == check(group, blob, [*rows, rows[0]]) == {}
    with pytest.raises(MissingRows, match="1 of the sum's contributions"):
        check(group, blob, rows[:2])


def test_a_file_that_is_not_what_its_site_signed_is_named_and_nobody_is_accused(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = held(group, wanted(group), seconds=200)
    rows = sent(group)
    assert [one[:2] for one in kinds(group, monkeypatch, blob, [*rows, rows[0]])] == [("rows", False)]  # a copy
    flipped = bytearray(rows[0])
    flipped[-5] ^= 1
    for bad in (bytes(flipped), rows[0][:-3], b"xx", b""):
        found = kinds(group, monkeypatch, blob, [bad, *rows[1:]])
        assert [one[:2] for one in found] == [("rows-missing", False), ("rows-unreadable", False)]
        assert "file0.sqlite" in found[1][2]
        found = kinds(group, monkeypatch, blob, [bad, *rows])  # the good one is there too
        assert [one[:2] for one in found] == [("rows", False), ("rows-unreadable", False)]


def test_a_moved_sum_is_the_one_thing_that_accuses(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    moving(monkeypatch)
    blob = held(group, wanted(group), seconds=200)
    found = kinds(group, monkeypatch, blob, sent(group))
    assert [one[:2] for one in found] == [("rows-moved", True)]


def test_contributions_are_read_from_a_sites_store_while_it_is_open(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path / "client.sqlite")
    store.put(RUN, 1, "terms", b"t")
    store.put(RUN, 1, "contribution", b"one")
    store.put(RUN, 4, "contribution", b"four")
    before = hashlib.sha256((tmp_path / "client.sqlite").read_bytes()).digest()
    assert contributions_in(tmp_path / "client.sqlite") == {(RUN.hex(), 1): b"one", (RUN.hex(), 4): b"four"}
    assert hashlib.sha256((tmp_path / "client.sqlite").read_bytes()).digest() == before
    store.close()
    for name, value in (("number", 10**15), ("nothing", None), ("text", "text"), ("bytes", b"one")):
        with contextlib.closing(sqlite3.connect(tmp_path / name)) as connection, connection:
            connection.execute("CREATE TABLE taken (run, round, step, bytes)")
            connection.execute("INSERT INTO taken VALUES (x'00', 1, 'contribution', ?)", (value,))
        if name == "bytes":  # the twin
            assert contributions_in(tmp_path / name) == {("00", 1): b"one"}
            continue
        with pytest.raises(ValueError, match=r"a contribution in it is no bytes"):
            contributions_in(tmp_path / name)
    (tmp_path / "other").write_bytes(b"no database")
    for name in ("other", "none"):
        with pytest.raises(ValueError, match=r"client\.sqlite of a site"):
            contributions_in(tmp_path / name)
