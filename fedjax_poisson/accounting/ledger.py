"""The privacy ledger: every release is paid for, and written down, before it happens.

A `Ledger` is one SQLite file (WAL journal, ``synchronous=FULL``). `Ledger.spend` opens an IMMEDIATE transaction,
checks the budget, appends one row and commits; only then may the caller open the sum. A crash between the write and
the release therefore counts as spent, and two processes that race for the last budget are serialised by the database:
the second one sees the first one's row.

**What is guaranteed.** Let a* be the order that the ledger fixed when it was created, rho_t(a*) the divergence of
release t given everything released before, and B = epsilon - log(1 - 1/a*) + (log delta + log a*) / (a* - 1). A
release is admitted only while sum_t rho_t(a*) <= B. Then the sequence of all admitted releases is (a*, B)-Renyi
private even if every mechanism, its parameters and the moment of stopping were chosen from earlier releases (Feldman
and Zrnic 2021, arXiv:2008.11193, the Renyi filter: a bound that holds almost surely on the sum of adaptively chosen
divergences of one order), hence (epsilon, delta)-private by the Canonne-Kamath-Steinke conversion at that order. The
order may not be chosen afterwards from what was spent; it is part of the first link of the chain and cannot be
changed. So there are two ways to open a ledger:

* *planned*: pass ``planned_rdp``, the composed curve of the releases that are planned. a* is its best order, which
  makes the admission exactly as generous as the accountant that calibrated the plan. If the schedule of curves really
  was fixed in advance, the curves compose at all orders at once and `Ledger.epsilon` reports the best order for what
  has been spent so far.
* *filter*: no plan. a* is ``filter_order`` or the best order for a Gaussian-like curve
  (`filter.default_filter_order`), and `Ledger.epsilon` reads the meter at a* only. For an adaptively chosen schedule
  the statement to publish is the budget, not the reading.

**What verification finds.** Each row's hash covers its canonical JSON, the hash of its curve and the hash before it;
the first link covers budget, unit, adjacency, orders and a*. `Ledger.verify` finds a row that was changed, removed
from the middle, inserted or reordered, a changed curve, and a total that does not follow. It cannot know by itself
that rows were cut from the end, nor that somebody rewrote the whole chain: store `Ledger.head` elsewhere (the run's
summary) and pass it as ``expected_head``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sqlite3
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fedjax_poisson.accounting import renyi
from fedjax_poisson.accounting.chain import (
    COLUMNS,
    LedgerCorrupt,
    Release,
    as_release,
    canonical,
    digest,
    link_hash,
    pack_curve,
    unpack_curve,
)
from fedjax_poisson.accounting.renyi import (
    FloatArray,
    check_curve,
    epsilon_per_order,
    rdp_budget,
)


class BudgetExhausted(RuntimeError):
    """A release would overspend; nothing was written and nothing may be opened."""


class Remaining(NamedTuple):
    """What is left: ``rdp`` nats at the ledger's ``order``, and the budget's epsilon minus the epsilon read now."""

    order: float
    rdp: float
    epsilon: float


def _add_upward(spent: float, rdp: float) -> float:
    """Spent + rdp, never below the exact sum."""
    total = spent + rdp
    return total if total == spent == 0 or rdp == 0 else math.nextafter(total, math.inf)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ledger:
    """An open ledger; make one with `opening.open_ledger` or `opening.read_ledger`.

    Attributes:
      path: the SQLite file.
      budget_epsilon: the budget's epsilon, nats; infinite for a meter in memory.
      delta: the budget's delta.
      unit: "record", "patient" or "client".
      adjacency: "zero_out" or "replace_one".
      orders: Renyi orders of every curve, float64[n].
      order: a*, the order fixed in advance that admits.
      planned: whether the schedule of curves was announced when the ledger was created.
    """

    path: Path
    budget_epsilon: float
    delta: float
    unit: str
    adjacency: str
    orders: FloatArray
    order: float
    planned: bool
    genesis: str
    connection: sqlite3.Connection = dataclasses.field(repr=False)

    @property
    def _index(self) -> int:
        return int(np.searchsorted(self.orders, self.order))

    @contextlib.contextmanager
    def _immediate(self) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def _last(self) -> tuple[int, float, str]:
        row = self.connection.execute("SELECT id, spent, hash FROM releases ORDER BY id DESC LIMIT 1").fetchone()
        return (0, 0.0, self.genesis) if row is None else (row[0], float.fromhex(row[1]), row[2])

    def spend(
        self,
        purpose: str,
        label: str,
        mechanism: str,
        parameters: Mapping[str, Any],
        rdp: ArrayLike,
        honest_senders: int,
        senders: int,
    ) -> Release:
        """Pay for one release and write it down; call it BEFORE anything is opened.

        Args:
          purpose: what the release is for.
          label: the caller's name for it; may repeat.
          mechanism: name of the mechanism.
          parameters: JSON values (no NaN or infinity).
          rdp: curve of this release on the ledger's orders, float64[n], for the ledger's unit and adjacency.
          honest_senders: senders whose noise was counted, 1 <= honest_senders <= senders.
          senders: senders in the sum.

        Returns:
          The `Release` as written.

        Raises:
          BudgetExhausted: the budget does not allow it; nothing was written.
          ValueError: the curve does not fit the ledger's orders or is infinite at a*, or the counts are impossible.
        """
        _, curve = check_curve(self.orders, rdp)
        if not 1 <= honest_senders <= senders:
            raise ValueError(
                f"honest_senders {honest_senders} of {senders} senders: 1 <= honest_senders <= senders is needed"
            )
        cost = float(curve[self._index])
        if not math.isfinite(cost):
            raise ValueError(
                f"the release of {mechanism!r} is infinite at the ledger's order {self.order:g}: it has no Renyi guarantee "
                "there; use a mechanism with finite divergence or open the ledger at a lower filter_order"
            )
        blob, body = pack_curve(curve), canonical(dict(parameters))
        curve_hash = digest(blob)
        budget = rdp_budget(self.order, self.budget_epsilon, self.delta)
        with self._immediate():
            last, spent, previous = self._last()
            total = _add_upward(spent, cost)
            if total > budget:
                raise BudgetExhausted(
                    f"release {label!r} ({purpose}) costs {cost:.6g} nats at order {self.order:g}, "
                    f"{max(budget - spent, 0):.6g} of {budget:.6g} remain (epsilon budget {self.budget_epsilon:g} at "
                    f"delta {self.delta:g}); nothing was written: stop here, or plan the run for a larger epsilon or "
                    "fewer releases"
                )
            time = datetime.now(UTC).isoformat(timespec="microseconds")
            row: tuple[Any, ...] = (
                *(last + 1, time, str(purpose), str(label), self.unit, self.adjacency, str(mechanism), body),
                *(int(honest_senders), int(senders), curve_hash, total.hex(), previous, ""),
            )
            row = (*row[:-1], link_hash(row))
            self.connection.execute("INSERT OR IGNORE INTO curves VALUES (?, ?)", (curve_hash, blob))
            self.connection.execute(f"INSERT INTO releases ({COLUMNS}) VALUES ({','.join('?' * len(row))})", row)
        return as_release(row, curve)

    def _curves(self) -> dict[str, FloatArray]:
        found = self.connection.execute("SELECT hash, rdp FROM curves").fetchall()
        return {key: unpack_curve(blob) for key, blob in found}

    def rows(self) -> list[Release]:
        """All releases in the order of spending."""
        curves = self._curves()
        found = self.connection.execute(f"SELECT {COLUMNS} FROM releases ORDER BY id").fetchall()
        return [as_release(row, curves[row[10]]) for row in found]

    def rdp(self) -> FloatArray:
        """Composed curve of everything spent, float64[n]."""
        curves, total = self._curves(), np.zeros_like(self.orders)
        for key, count in self.connection.execute(
            "SELECT curve, COUNT(*) FROM releases GROUP BY curve ORDER BY MIN(id)"
        ):
            total += count * curves[key]
        return total

    def epsilon(self) -> float:
        """Epsilon of what has been spent, 0 if nothing was.

        At the best order if the schedule was planned or there is no budget (`memory`), else at the ledger's order a*.

        In filter mode the guarantee to publish is the budget (module docstring).
        """
        if self._last()[0] == 0:
            return 0.0
        if self.planned or self.budget_epsilon == math.inf:
            return renyi.epsilon(self.orders, self.rdp(), self.delta)
        return float(epsilon_per_order([self.order], [self._last()[1]], self.delta)[0])

    def remaining(self) -> Remaining:
        """What is left of the budget."""
        budget = rdp_budget(self.order, self.budget_epsilon, self.delta)
        return Remaining(self.order, max(budget - self._last()[1], 0.0), max(self.budget_epsilon - self.epsilon(), 0.0))

    def head(self) -> str:
        """Hash of the newest link: keep it elsewhere, it pins the whole ledger up to here."""
        return self._last()[2]

    def verify(self, expected_head: str | None = None) -> int:
        """Recompute the whole chain; return the number of releases.

        Args:
          expected_head: the head that was stored elsewhere; finds rows cut from the end and a chain rewritten as a
            whole.

        Raises:
          LedgerCorrupt: naming the first bad row.
        """
        with contextlib.closing(self.connection.execute("SELECT body, hash FROM settings")) as cursor:
            body, genesis = cursor.fetchone()
        if digest(body) != genesis or genesis != self.genesis or canonical(json.loads(body)) != body:
            raise LedgerCorrupt("the settings of the ledger (budget, unit, adjacency, orders) were changed")
        blobs = dict(self.connection.execute("SELECT hash, rdp FROM curves"))
        previous, spent, count = genesis, 0.0, 0
        for row in self.connection.execute(f"SELECT {COLUMNS} FROM releases ORDER BY id"):
            count += 1
            blob = blobs.get(row[10], b"")
            if row[0] != count:
                raise LedgerCorrupt(f"row {count} is missing, the next one is {row[0]}: a release was removed")
            if row[12] != previous or link_hash(row) != row[13]:
                raise LedgerCorrupt(
                    f"row {count} ({row[3]!r}) does not follow from the row before it: it was changed, inserted or "
                    "moved"
                )
            if digest(blob) != row[10] or len(blob) != 8 * self.orders.size:
                raise LedgerCorrupt(f"the curve of row {count} ({row[3]!r}) was changed or removed")
            spent = _add_upward(spent, float(unpack_curve(blob)[self._index]))
            if float.fromhex(row[11]) != spent or (row[4], row[5]) != (self.unit, self.adjacency):
                raise LedgerCorrupt(f"the total, unit or adjacency of row {count} ({row[3]!r}) is not the ledger's")
            previous = row[13]
        if expected_head is not None and previous != expected_head:
            raise LedgerCorrupt(
                f"the chain of {count} rows ends in {previous[:12]}, expected {expected_head[:12]}: rows were cut "
                "from or added at the end"
            )
        return count

    def close(self) -> None:
        """Close the database; the ledger cannot be used afterwards."""
        self.connection.close()
