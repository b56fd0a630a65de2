"""The privacy ledger: every release is charged, and recorded, before it happens.

A `Ledger` is one SQLite file (rollback journal, ``synchronous=FULL``). `Ledger.spend` opens an IMMEDIATE transaction,
checks the budget, appends one row and commits; only then may the caller open the sum. A crash between the write and
the release therefore counts as spent, and two processes that race for the last budget are serialised by the database:
the second one sees the first one's row.

**What is guaranteed**: that all admitted releases together are (epsilon, delta)-private, by the ledger's law (`law`, `remaining_variance`).

**Samplers** whose law is not quite that of a charge cost delta, which the budget's ``reserve`` sets aside (`reserve`).

**What verification finds.** Each row's hash covers its canonical JSON, the hash of its curve and the hash before it;
the first link covers budget, unit, adjacency, orders and a*. `Ledger.verify` finds a row that was changed, removed
from the middle, inserted or reordered, a changed curve, and a total that does not follow. It cannot know by itself
that rows were cut from the end, that somebody rewrote the whole chain, or that an older copy was put back: store
`Ledger.pin` elsewhere (every checkpoint and the run's summary do) and hold the ledger against it with `check_pin`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import operator
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike

from fedjax_poisson.accounting.chain import (
    COLUMNS,
    PLACE,
    LedgerCorrupt,
    Pin,
    Release,
    as_release,
    canonical,
    check_pinned,
    digest,
    link_hash,
    read_charges,
    reading_from,
    unwritable,
    verify_chain,
)
from fedjax_poisson.accounting.checks import FloatArray
from fedjax_poisson.accounting.law import (
    Charge,
    Law,
    TightLaw,
    add_upward,
    charged,
    checked,
    first_meter,
    pack,
    reading,
    share_left,
    what_is_missing,
)
from fedjax_poisson.accounting.price import HasPrice, Price
from fedjax_poisson.accounting.reserve import metered_epsilon, reserve_for
from fedjax_poisson.accounting.variance_cost import Cost


class BudgetExhausted(RuntimeError):
    """A release would overspend; nothing was written and nothing may be opened."""


class Remaining(NamedTuple):
    """What is left: a share of the budget in the law's own number (nats at its order, or variance), and the budget's epsilon minus the epsilon read now."""

    share: float
    epsilon: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ledger:
    """An open ledger; make one with `opening.open_ledger` or `opening.read_ledger`.

    Attributes:
      path: the SQLite file.
      law: how releases are charged, fixed when the ledger was made.
      budget_epsilon: the budget's epsilon, nats; infinite for a meter in memory.
      delta: the budget's delta, all of it.
      reserve: the part of delta that covers the distance of samplers from their laws.
      unit: "record", "patient" or "client".
      adjacency: "zero_out" or "replace_one".
    """

    path: Path
    law: Law
    budget_epsilon: float
    delta: float
    reserve: float
    unit: str
    adjacency: str
    genesis: str
    connection: sqlite3.Connection = dataclasses.field(repr=False)

    @property
    def accounted_delta(self) -> float:
        """Delta available to the curves after subtracting the reserve."""
        return self.delta - self.reserve

    @property
    def orders(self) -> FloatArray:
        """Renyi orders of every curve, float64[n].

        Raises:
          ValueError: the ledger is charged in remaining variance.
        """
        if isinstance(self.law, TightLaw):
            raise ValueError(f"the ledger {self.path} accounts by remaining variance: there are no Renyi orders.")
        return self.law.orders

    @contextlib.contextmanager
    def _immediate(self) -> Iterator[None]:
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            yield
            self.connection.execute("COMMIT")
        except BaseException as error:
            if self.connection.in_transaction:  # SQLite has rolled back by itself where the disk was full
                self.connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError):
                raise unwritable(self.path, error) from error
            if isinstance(error, sqlite3.DatabaseError):
                raise LedgerCorrupt(
                    f"the ledger {self.path} is damaged ({error}); nothing was opened: restore its newest copy"
                ) from error
            raise

    def _last(self) -> tuple[int, float, float, str]:
        with reading_from(self.path):
            row = self.connection.execute(
                "SELECT id, meter, distance, hash FROM releases ORDER BY id DESC LIMIT 1"
            ).fetchone()
        if row is None:
            return 0, first_meter(self.law), 0.0, self.genesis
        return row[0], float.fromhex(row[1]), float.fromhex(row[2]), row[3]

    def spend(
        self,
        purpose: str,
        label: str,
        mechanism: str,
        parameters: Mapping[str, Any],
        charge: ArrayLike | Cost,
        honest_senders: int,
        senders: int,
        *,
        data: str = "",
        origin: Mapping[str, Any] | None = None,
        distance: float = 0.0,
        noise_senders: int | None = None,
    ) -> Release:
        """Pay for one release and write it down; call it BEFORE anything is opened.

        Args:
          purpose: what the release is for.
          label: the caller's name for it; may repeat.
          mechanism: name of the mechanism.
          parameters: JSON values (no NaN or infinity).
          charge: what the ledger's law is charged with, for its unit and adjacency: under "renyi" the curve of this release on the ledger's orders,
            float64[n]; under "tight" its cost (`Mechanism.cost`).
          honest_senders: senders whose noise was counted: of the sum, or of `noise_senders` where these send it.
          senders: senders in the sum.
          data: what names the data set (`Release`).
          origin: where the release was made, JSON values (`Release`).
          distance: total variation between this release's law and the one its curve is of (all draws together).
          noise_senders: parties that send the noise where those of the sum send none (norm rounds), however few these are; None where senders bring theirs.

        Returns:
          The `Release` as written.

        Raises:
          BudgetExhausted: the budget does not allow it; nothing was written.
          LedgerUnwritable: it could not be written down (full disk, read-only file); nothing may be opened.
          ValueError: the charge is not one of the ledger's law, a curve does not fit its orders or is infinite at a*, or the counts are impossible.
        """
        own = checked(self.law, charge, mechanism)
        bring, who = (senders, "senders") if noise_senders is None else (noise_senders, "noise senders")
        if not 1 <= honest_senders <= bring or senders < 1:
            raise ValueError(
                f"honest_senders {honest_senders} of {bring} {who}, {senders} in the sum: 1 <= honest_senders <= {who} is needed, and a sum of at least one"
            )
        if not 0 <= distance < 1:
            raise ValueError(f"distance is {distance}; a total variation lies in [0, 1)")
        blob, body, place = pack(own), canonical(dict(parameters)), canonical(dict(origin or {}))
        charge_hash = digest(blob)
        with self._immediate():
            self._check_data(data)
            last, meter, apart, previous = self._last()
            far = add_upward(apart, distance)
            if not self._has_room(far):
                raise BudgetExhausted(
                    f"release {label!r} ({purpose}) brings what samplers may add to delta to {reserve_for(self.budget_epsilon, far):.3g}; "
                    f"{self.reserve:.3g} of delta was set aside for that; nothing was written: plan for a smaller epsilon or fewer releases"
                )
            after = charged(self.law, meter, own)
            if after is None:
                raise BudgetExhausted(
                    f"release {label!r} ({purpose}) {what_is_missing(self.law, meter, own)} (epsilon budget {self.budget_epsilon:g} at "
                    f"delta {self.delta:g}); nothing was written: stop here, or plan the run for a larger epsilon or "
                    "fewer releases"
                )
            time = datetime.now(UTC).isoformat(timespec="microseconds")
            row: tuple[Any, ...] = (
                *(last + 1, time, str(purpose), str(label), self.unit, self.adjacency, str(mechanism), body),
                *(
                    int(honest_senders),
                    int(senders),
                    str(data),
                    place,
                    charge_hash,
                    after.hex(),
                    far.hex(),
                    previous,
                    "",
                ),
            )
            row = (*row[:-1], link_hash(row))
            self.connection.execute("INSERT OR IGNORE INTO charges VALUES (?, ?)", (charge_hash, blob))
            self.connection.execute(f"INSERT INTO releases ({COLUMNS}) VALUES ({','.join('?' * len(row))})", row)
        return as_release(row, own)

    def _check_data(self, data: str) -> None:
        other = self.connection.execute(
            "SELECT data FROM releases WHERE data NOT IN ('', ?) LIMIT 1", (data,)
        ).fetchone()
        if data and other is not None:
            raise ValueError(
                f"the ledger {self.path} is of the data set {other[0]!r}, this release is of {data!r}: a ledger belongs to one data set; "
                "use another file"
            )

    def rows(self) -> list[Release]:
        """All releases in the order of spending."""
        with reading_from(self.path):
            charges = read_charges(self.connection, self.law, self.path)
            found = self.connection.execute(f"SELECT {COLUMNS} FROM releases ORDER BY id").fetchall()
        if missing := [row[0] for row in found if row[PLACE["charge"]] not in charges]:
            raise LedgerCorrupt(f"the charge of row {missing[0]} of the ledger {self.path} was removed")
        return [as_release(row, charges[row[PLACE["charge"]]]) for row in found]

    def charges(self) -> list[tuple[Charge, int]]:
        """`(charge, times)` in the order of spending, equal neighbours counted together."""
        with reading_from(self.path):
            charges = read_charges(self.connection, self.law, self.path)
            found = self.connection.execute("SELECT charge FROM releases ORDER BY id").fetchall()
        return [(charges[key], len(list(same))) for key, same in itertools.groupby(found, key=operator.itemgetter(0))]

    def rdp(self) -> FloatArray:
        """Composed curve of everything spent on a Renyi ledger, float64[n]."""
        curves = [times * cast(FloatArray, charge) for charge, times in self.charges()]
        return cast(FloatArray, np.sum([np.zeros_like(self.orders), *curves], axis=0))

    def epsilon(self) -> float:
        """Epsilon of everything spent so far, 0 if nothing was, for a schedule that was fixed beforehand (`law.reading`); never above the budget.

        At the best order if the schedule was planned or there is no budget (`memory`), at the ledger's order a* of a Renyi filter. Where releases were
        chosen from earlier ones the guarantee to publish is the budget (module docstring).
        """
        if self.budget_epsilon == math.inf:
            rows, _, apart, _ = self._last()
            return 0.0 if rows == 0 else metered_epsilon(self.orders, self.rdp(), self.delta, apart)
        return min(reading(self.law, self.charges(), self._last()[1]), self.budget_epsilon)

    def readings(self) -> list[float]:
        """`epsilon` after each release."""
        rows = self.rows()
        spent = [(row.charge, 1) for row in rows]
        found = (reading(self.law, spent[: i + 1], row.meter) for i, row in enumerate(rows))
        return [min(each, self.budget_epsilon) for each in found]

    def remaining(self) -> Remaining:
        """What is left of the budget."""
        return Remaining(share_left(self.law, self._last()[1]), max(self.budget_epsilon - self.epsilon(), 0.0))

    def _has_room(self, distance: float) -> bool:
        """Whether the reserve covers so much total variation. A meter reads it into its epsilon instead of refusing."""
        if not distance or self.budget_epsilon == math.inf:
            return True
        return reserve_for(self.budget_epsilon, distance) <= self.reserve

    def distance_of(self, price: Price) -> float:
        """A price's distance where the ledger has a reserve for it or is a meter, else 0: it then comes on top of the stated delta.

        That of screening (norm rounds) is charged always, so that a ledger without a reserve refuses it.
        """
        counted = price.screened or self.reserve > 0 or math.isinf(self.budget_epsilon)
        return price.distance if counted else 0.0

    def fits(self, charges: Iterable[Charge], distance: float = 0.0) -> bool:
        """Whether the budget allows these releases, one after the other; nothing is written.

        Args:
          charges: one a release.
          distance: total variation of all of them together (`distance_of`), for which the reserve must have room.
        """
        _, meter, apart, _ = self._last()
        if not self._has_room(add_upward(apart, distance)):
            return False
        for charge in charges:
            after = charged(self.law, meter, charge)
            if after is None:
                return False
            meter = after
        return True

    def head(self) -> str:
        """Hash of the newest link: keep it elsewhere, it pins the whole ledger up to here."""
        return self._last()[3]

    def gate(self, algorithm: HasPrice, label: str, purpose: str = "train") -> Callable[[], None]:
        """A gate that charges this ledger with one round of an algorithm: `algorithm.apply(state, cohort, stream, ledger.gate(algorithm, "train 7"))`.

        Args:
          algorithm: anything with a `price`: `fedsgd(...)`, `fedavg(...)`, or a custom algorithm.
          label: the caller's name for the round.
          purpose: what the release is for.

        Raises:
          ValueError: the algorithm releases nothing private, so there is no price.
        """
        price = algorithm.price
        if price is None:
            raise ValueError(
                "the algorithm has no mechanism, so a round of it has no price that a ledger could be charged with."
            )
        charge = price.charge(self.law)

        def pay() -> None:
            self.spend(
                purpose,
                label,
                price.mechanism,
                price.parameters,
                charge,
                price.honest_senders,
                price.senders,
                distance=self.distance_of(price),
                noise_senders=price.noise_senders,
            )

        return pay

    def pin(self) -> Pin:
        """How far the ledger reaches now: keep it elsewhere, and hold the ledger against it later (`check_pin`)."""
        rows, _, _, head = self._last()
        return Pin(rows, head)

    def check_pin(self, pin: Pin) -> None:
        """Refuse a ledger that does not hold everything it held when the pin was taken; later rows may follow.

        Raises:
          LedgerCorrupt: rows are missing, or the chain is another one.
        """
        with reading_from(self.path):
            check_pinned(self.connection, pin, genesis=self.genesis, path=self.path)

    def verify(self, expected_head: str | None = None) -> int:
        """Recompute the whole chain; return the number of releases.

        Args:
          expected_head: the head that was stored elsewhere; finds rows cut from the end and a chain rewritten as a
            whole.

        Raises:
          LedgerCorrupt: naming the first bad row.
        """
        with reading_from(self.path):
            return verify_chain(
                self.connection,
                genesis=self.genesis,
                law=self.law,
                unit=self.unit,
                adjacency=self.adjacency,
                expected_head=expected_head,
            )

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database and leave one file; the ledger cannot be used afterwards."""
        with contextlib.suppress(
            sqlite3.Error
        ):  # a ledger that was opened to be read, or a full disk: the journal stays
            self.connection.execute("PRAGMA journal_mode=DELETE")
        self.connection.close()
