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

    Charges of one law add up (sequential composition), each run's releases given those of the runs before it. Samplers'
    distances and different deltas add up to at most twice the delta of this run, which the statement leaves out: it is for orientation only; the
    guarantee comes from the shared ledger.
    """
    if books.shared:
        return EarlierRuns((), None)
    names, ledgers = [], [books.ledger]
    with contextlib.ExitStack() as stack:
        for path in sorted(out.resolve().parent.glob(f"*/{LEDGER}")):
            if path.parent == out.resolve():
                continue
            with contextlib.suppress(accounting.LedgerCorrupt, OSError):
                other = stack.enter_context(contextlib.closing(accounting.read_ledger(path)))
                if _of(other, books.prepared.identity):
                    names.append(path.parent.name)
                    ledgers.append(other)
        if not names:
            return EarlierRuns((), None)
        return EarlierRuns(tuple(names), _together(ledgers, books.prepared.plan.accounted_delta))


def _together(ledgers: list[accounting.Ledger], delta: float) -> float | None:
    """Epsilon of everything on the ledgers, the first of which is this run's; None where their charges cannot be added."""
    first = ledgers[0]
    facts = {(each.unit, each.adjacency, type(each.law)) for each in ledgers}
    if len(facts) > 1 or any(
        isinstance(each.law, accounting.RenyiLaw) and not np.array_equal(each.orders, first.orders) for each in ledgers
    ):
        return None
    return accounting.scheduled_epsilon(first.law, [each for ledger in ledgers for each in ledger.charges()], delta)


def _of(ledger: accounting.Ledger, identity: str) -> bool:
    found: Any = ledger.connection.execute("SELECT 1 FROM releases WHERE data = ? LIMIT 1", (identity,)).fetchone()
    return found is not None
