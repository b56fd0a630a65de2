"""What a site's log knows and a file that was lost, or set back to a backup, has forgotten.

A ledger, and the stores of what was said in rounds, are each whole by themselves after an old copy was put back. The log is written after them (a charge, then
its entry; a contribution, then its entry), so what it names must be in them: where it is not, the site would pay into an account that has forgotten what was
spent, or say a second time what it has said. A backup of the whole folder, the log with it, is not noticed here; other sites' logs show it (`log_check`).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedjax_poisson import accounting
from fedjax_poisson.aggregation.store import Store, StoreDamaged
from fedjax_poisson.deployment.log_entries import Entry
from fedjax_poisson.deployment.site_log import ledger_pin

__all__ = ["check_ledger", "check_stores", "check_transcripts", "opened_in"]


def check_ledger(path: Path, entries: Sequence[Entry]) -> None:
    """Refuse a ledger that does not hold every charge that the log names; one that was never charged may be missing.

    Raises:
      LedgerCorrupt: it is missing, shorter, older or another one.
    """
    pin = ledger_pin(entries)
    if pin is None:
        return
    if not path.is_file() or accounting.never_made(path):
        raise accounting.LedgerCorrupt(
            f"the ledger {path} is missing, and the site's log names {pin.rows} releases that were charged to it: what was spent is unknown. Put back its "
            "newest copy; without it no run may be made on this data."
        )
    with contextlib.closing(accounting.read_ledger(path)) as ledger:
        try:
            ledger.check_pin(pin)
        except accounting.LedgerCorrupt as error:
            raise accounting.LedgerCorrupt(
                f"{error}. Put back its newest copy; without it no run may be made on this data."
            ) from None


def check_transcripts(entries: Sequence[Entry], run: bytes, folder: Path) -> None:
    """Hold the transcripts that a site keeps of a run against its log.

    A transcript is written down before the log says so, so the last one may be there alone after a crash. Fewer than the log names are no harm: the
    coordinator hands them out again, and each must be the one that the log names (`Exchange`).

    Args:
      entries: of the site's log.
      run: 16 bytes.
      folder: of the transcripts.

    Raises:
      StoreDamaged: one is another than the log names at its position, or several are there that it does not name.
    """
    named = opened_in(entries, run)
    kept = sorted(folder.glob("*.round"))
    for path, digest in zip(kept, named, strict=False):
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise StoreDamaged(
                f"{path} is another transcript than the site's log names at its place: it was damaged, or replaced. Put back the one of the coordinator or of "
                "another site, or move the folder's transcripts away: they are handed out again."
            )
    if len(kept) > len(named) + 1:
        raise StoreDamaged(
            f"{folder} holds {len(kept)} transcripts and the site's log names {len(named)} opened sums of this run: the log is an older copy. Put back its "
            "newest one."
        )


def opened_in(entries: Sequence[Entry], run: bytes) -> list[str]:
    """SHA-256 of the transcripts of a run that a log names, in order, each once."""
    found = [entry.facts for entry in entries if entry.kind == "opened" and entry.facts["run"] == run.hex()]
    return list(dict.fromkeys(facts["transcript"] for facts in found))


def check_stores(entries: Sequence[Entry], run: bytes, stores: Mapping[str, Store]) -> None:
    """Refuse stores of a run that do not hold the rounds in which this party spoke.

    Args:
      entries: of the party's log.
      run: 16 bytes.
      stores: by the step that each holds: "contribution", what a site sent as a client; "answer", what a member said.

    Raises:
      StoreDamaged: a store is lost or older than the log.
    """
    for kind, store in stores.items():
        rounds = [entry.facts["round"] for entry in entries if entry.kind == kind and entry.facts["run"] == run.hex()]
        if rounds and store.last(run, kind) < max(rounds):
            raise StoreDamaged(
                f"the log names a {kind} in round {max(rounds)} of the run {run.hex()[:8]}, and the store of what was said in rounds does not have it: it was "
                "lost, or set back to an older copy. Nothing may be said in this run again under this key: enrol under a new one."
            )
