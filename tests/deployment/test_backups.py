"""Ledgers and stores held against the log: every one that has forgotten something is refused, and one that went on is not."""

from __future__ import annotations

import contextlib
from hashlib import sha256
from pathlib import Path

import pytest

from fedjax_poisson import accounting
from fedjax_poisson.aggregation.store import StoreDamaged, memory_store
from fedjax_poisson.deployment.backups import check_ledger, check_stores, check_transcripts, opened_in
from fedjax_poisson.deployment.log_entries import Entry, genesis, make_entry
from tests.deployment.identities import person

WHO, TIME, RUN = person(), "2026-01-02T03:04:05+00:00", bytes(range(16))


def entries(*steps: tuple[str, dict[str, object]]) -> list[Entry]:
    previous, found = genesis(WHO.public), []
    for number, (kind, facts) in enumerate(steps, 1):
        found.append(make_entry(WHO, number, TIME, kind, {"run": RUN.hex(), **facts}, previous))
        previous = found[-1].hash
    return found


def ledger(path: Path, releases: int, first: str = "train") -> accounting.Pin:
    with contextlib.closing(
        accounting.open_ledger(
            path,
            epsilon=4.0,
            delta=1e-4,
            reserve=0.0,
            unit="record",
            adjacency="zero_out",
            law="renyi",
            orders=(2, 3, 4),
        )
    ) as made:
        for number in range(releases):
            made.spend("train", f"{first} {number}", "none", {}, [1e-3, 1e-3, 1e-3], 1, 2)
        return made.pin()


def charged(pin: accounting.Pin) -> list[Entry]:
    return entries(("charge", {"round": 1, "label": "train 1", "epsilon": 0.1, "rows": pin.rows, "ledger": pin.head}))


def test_a_ledger_that_holds_what_the_log_names_is_taken_also_when_it_went_on(tmp_path: Path) -> None:
    pin = ledger(tmp_path / "a", 2)
    check_ledger(tmp_path / "a", charged(pin))
    with accounting.read_ledger(tmp_path / "a", writable=True) as more:
        more.spend("train", "further", "none", {}, [1e-3, 1e-3, 1e-3], 1, 2)
    check_ledger(tmp_path / "a", charged(pin))
    check_ledger(tmp_path / "none", [])  # nothing was charged yet


def test_a_ledger_that_is_missing_shorter_or_another_one_is_refused(tmp_path: Path) -> None:
    pin = ledger(tmp_path / "a", 2)
    ledger(tmp_path / "short", 1)
    ledger(tmp_path / "other", 3, first="other")
    for name in ("none", "short", "other"):
        with pytest.raises(accounting.LedgerCorrupt, match="Put back its newest copy"):
            check_ledger(tmp_path / name, charged(pin))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("kind", "facts"),
    [("contribution", {"terms": "aa" * 32, "digest": "bb" * 32}), ("answer", {"included": "cc" * 32})],
)
def test_a_store_that_lacks_a_round_of_the_log_is_refused(kind: str, facts: dict[str, object]) -> None:
    log = entries(*((kind, {"round": number, "bytes": 1, **facts}) for number in (3, 7)))
    sent, said = memory_store(), memory_store()
    own = sent if kind == "contribution" else said
    stores = {"contribution": sent, "answer": said}
    own.put(RUN, 3, kind, b"x")
    with pytest.raises(StoreDamaged, match=f"{kind} in round 7"):
        check_stores(log, RUN, stores)
    check_stores(log, bytes(16), stores)  # another run's store has nothing to hold
    own.put(RUN, 7, kind, b"y")
    own.erase(RUN, 7, kind)
    check_stores(log, RUN, stores)


def opened(folder: Path, blobs: list[bytes], logged: int) -> list[Entry]:
    """Transcripts in a folder, and a log that names the first ones."""
    folder.mkdir(exist_ok=True)
    for number, blob in enumerate(blobs):
        (folder / f"{number:05d}-train-{number + 1}.round").write_bytes(blob)
    facts = {"terms": "aa" * 32, "counts": "bb" * 32, "clients": [], "epsilon": 0.5}
    return entries(
        *(
            ("opened", {"round": k, "label": f"train {k + 1}", "transcript": sha256(blob).hexdigest(), **facts})
            for k, blob in enumerate(blobs[:logged])
        )
    )


def test_transcripts_that_are_kept_are_those_that_the_log_names(tmp_path: Path) -> None:
    blobs = [b"one", b"two", b"three"]
    log = opened(tmp_path, blobs, 3)
    check_transcripts(log, RUN, tmp_path)
    assert opened_in(log, RUN) == [sha256(blob).hexdigest() for blob in blobs]
    check_transcripts(log[:2], RUN, tmp_path)  # a crash between the file and the log
    with pytest.raises(StoreDamaged, match="the log is an older copy"):
        check_transcripts(log[:1], RUN, tmp_path)
    last = tmp_path / "00002-train-3.round"
    last.unlink()
    check_transcripts(log, RUN, tmp_path)  # it is handed out again
    last.write_bytes(b"another")
    with pytest.raises(StoreDamaged, match="another transcript"):
        check_transcripts(log, RUN, tmp_path)
    last.write_bytes(b"three")
    (tmp_path / "00000-train-1.round").write_bytes(b"two")  # of this run, and in another's place
    with pytest.raises(StoreDamaged, match="00000-train-1"):
        check_transcripts(log, RUN, tmp_path)
