"""Other runs on the same data: without a shared ledger each run has a separate budget, and only their sum is what was spent."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedjax_poisson import accounting
from fedjax_poisson.runs.run_ledger import LEDGER, Books


class EarlierRuns(NamedTuple):
    """Runs in neighbouring folders whose ledgers name the same data set.

    Attributes:
      folders: their names.
      epsilon: all of them and this run together, at this run's delta; None where their curves cannot be added.
    """

    folders: tuple[str, ...]
    epsilon: float | None


def earlier_runs(books: Books, out: Path) -> EarlierRuns:
    """Runs on the same data set according to the ledgers in neighbouring folders; none for a run on a shared ledger, which does the counting.

    Curves of the same orders add up (sequential composition of Renyi divergences), each run's releases given those of the runs before it. Samplers'
    distances and different deltas add up to at most twice the delta of this run, which the statement leaves out: it is for orientation only; the
    guarantee comes from the shared ledger.
    """
    if books.shared:
        return EarlierRuns((), None)
    names, total = [], books.ledger.rdp()
    addable = True
    for path in sorted(out.resolve().parent.glob(f"*/{LEDGER}")):
        if path.parent == out.resolve():
            continue
        with (
            contextlib.suppress(accounting.LedgerCorrupt, OSError),
            contextlib.closing(accounting.read_ledger(path)) as other,
        ):
            if not _of(other, books.prepared.identity):
                continue
            names.append(path.parent.name)
            if (other.unit, other.adjacency) == (books.ledger.unit, books.ledger.adjacency) and np.array_equal(
                other.orders, books.ledger.orders
            ):
                total = total + other.rdp()
            else:
                addable = False
    if not names:
        return EarlierRuns((), None)
    return EarlierRuns(
        tuple(names),
        accounting.epsilon(books.ledger.orders, total, books.prepared.plan.accounted_delta) if addable else None,
    )


def _of(ledger: accounting.Ledger, identity: str) -> bool:
    found: Any = ledger.connection.execute("SELECT 1 FROM releases WHERE data = ? LIMIT 1", (identity,)).fetchone()
    return found is not None
