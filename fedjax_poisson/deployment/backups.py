"""What a site's log knows and a file that was lost, or set back to a backup, has forgotten.

A ledger, and the stores of what was said in rounds, are each whole by themselves after an old copy was put back. The log is written after them (a charge, then
its entry; a contribution, then its entry), so what it names must be in them: where it is not, the site would pay into an account that has forgotten what was
spent, or say a second time what it has said. A backup of the whole folder, the log with it, is not noticed here; other sites' logs show it (`log_check`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedjax_poisson import accounting
from fedjax_poisson.aggregation.store import Store, StoreDamaged
from fedjax_poisson.deployment.log_entries import Entry
from fedjax_poisson.deployment.site_log import ledger_pin

__all__ = ["check_ledger", "check_stores"]


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
