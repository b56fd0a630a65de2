"""Creating a privacy ledger with its budget, and opening an existing one; the guarantee is documented in `ledger`."""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from fedjax_poisson.accounting import renyi
from fedjax_poisson.accounting.chain import (
    FORMAT,
    MEMORY,
    SCHEMA,
    LedgerCorrupt,
    canonical,
    connect,
    connect_to_read,
    digest,
    reading_from,
    tables,
    unwritable,
)
from fedjax_poisson.accounting.checks import check_adjacency, check_budget, check_curve, check_delta, check_orders
from fedjax_poisson.accounting.filter import default_filter_order
from fedjax_poisson.accounting.law import Law, RenyiLaw, TightLaw
from fedjax_poisson.accounting.ledger import Ledger
from fedjax_poisson.accounting.remaining_variance import VarianceBudget, variance_budget
from fedjax_poisson.accounting.renyi import DEFAULT_ORDERS, best_order, rdp_budget

_UNITS = ("record", "patient", "client")


def _load(path: Path, connection: sqlite3.Connection) -> Ledger:
    try:
        with reading_from(path):
            if "settings" not in tables(connection):
                raise LedgerCorrupt(f"{path} is a database without a privacy ledger")
            body, genesis = connection.execute("SELECT body, hash FROM settings").fetchone()
        settings = json.loads(body)
        if settings["format"] != FORMAT:
            raise LedgerCorrupt(f"{path} has the format {settings['format']!r}; this version reads {FORMAT!r}")
        return Ledger(
            path=path,
            budget_epsilon=math.inf if settings["epsilon"] is None else settings["epsilon"],
            delta=settings["delta"],
            reserve=settings["reserve"],
            unit=settings["unit"],
            adjacency=settings["adjacency"],
            law=_law(settings),
            genesis=genesis,
            connection=connection,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LedgerCorrupt(f"the settings of the ledger at {path} cannot be read: {error!r}") from error


def _law(settings: dict[str, Any]) -> Law:
    facts = settings["law"]
    if facts["name"] == "tight":
        return TightLaw(budget=VarianceBudget(*(facts[field] for field in VarianceBudget._fields)))
    return RenyiLaw(
        orders=check_orders(facts["orders"]),
        order=facts["order"],
        planned=facts["planned_rdp"] is not None,
        epsilon=math.inf if settings["epsilon"] is None else settings["epsilon"],
        delta=settings["delta"] - settings["reserve"],
    )


def never_made(path: str | Path) -> bool:
    """Whether a file is what a process left that was killed while it made a ledger there: a database without a single table, or an empty file.

    Raises:
      LedgerCorrupt: the file is not an SQLite database.
    """
    with contextlib.closing(connect_to_read(Path(path))) as connection:
        return not tables(connection)


def read_ledger(path: str | Path, *, writable: bool = False) -> Ledger:
    """Open an existing ledger with the budget it was created with.

    Args:
      path: SQLite file.
      writable: whether releases will be charged; else nothing is written, not even next to the file, so a read-only copy is enough.

    Raises:
      FileNotFoundError: there is no such file.
      LedgerCorrupt: the file is not a ledger.
      LedgerUnwritable: the file cannot be written although it should be writable.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no ledger at {path}; open_ledger creates one with a budget")
    connection = connect(path) if writable else connect_to_read(path)
    try:
        return _load(path, connection)
    except BaseException:
        connection.close()
        raise


def open_ledger(
    path: str | Path,
    *,
    epsilon: float,
    delta: float,
    unit: str,
    adjacency: str,
    reserve: float = 0.0,
    law: Literal["renyi", "tight"] = "renyi",
    orders: ArrayLike | None = None,
    planned_rdp: ArrayLike | None = None,
    filter_order: float | None = None,
) -> Ledger:
    """Create the ledger of a run, or open it again under the same budget.

    Args:
      path: SQLite file.
      epsilon: budget in nats, > 0.
      delta: budget in (0, 1), all of it.
      unit: "record", "patient" or "client".
      adjacency: "zero_out" or "replace_one".
      reserve: part of delta, in [0, delta), that is set aside for the distance of samplers from their laws (`ledger`).
      law: "tight" admits by remaining variance (`remaining_variance`): 11-15 % more of the Poisson embedding, whatever is chosen from earlier releases, but
        neither secret sampling nor other mechanisms than the embedding and the Gaussian; "renyi" by a Renyi filter. It cannot be changed later.
      orders: of a Renyi ledger: orders of every curve that will be spent, float64[n]; None for `DEFAULT_ORDERS`, the integers 2 to 512.
      planned_rdp: composed curve of all planned releases, float64[n]; its best order becomes a* (see `ledger`). None: filter.
      filter_order: a* for an unplanned ledger, one of `orders`; None: `filter.default_filter_order`.

    Returns:
      `Ledger`; close it when done.

    Raises:
      ValueError: a fact is out of range, the plan is above the budget, or the file was created with another budget,
        unit, adjacency, orders or plan.
      LedgerCorrupt: the file exists and is not a ledger.
    """
    path = Path(path)
    check_adjacency(adjacency)
    if unit not in _UNITS:
        raise ValueError(f"unit is {unit!r}; name who is protected: one of {', '.join(_UNITS)}")
    metered = epsilon == math.inf and str(path) == MEMORY  # without a budget: only in memory, see `memory`
    if metered:
        check_delta(delta)
    else:
        check_budget(epsilon, delta)
    if not 0 <= reserve < delta:
        raise ValueError(
            f"reserve is {reserve}; it is the part of delta = {delta} that pays for samplers: 0 <= reserve < delta"
        )
    if law == "tight":
        if metered or orders is not None or planned_rdp is not None or filter_order is not None:
            raise ValueError(
                'law="tight" has no orders and no plan, and needs a budget: leave orders, planned_rdp and filter_order out.'
            )
        facts: dict[str, Any] = {"name": "tight", **variance_budget(epsilon, delta - reserve)._asdict()}
    elif law == "renyi":
        facts = _renyi_facts(epsilon, delta, reserve, orders, planned_rdp, filter_order)
    else:
        raise ValueError(f'law is {law!r}; a ledger accounts by "tight" (remaining variance) or by "renyi".')
    settings = {
        "format": FORMAT,
        "epsilon": None if metered else float(epsilon),
        "delta": float(delta),
        "reserve": float(reserve),
        "unit": unit,
        "adjacency": adjacency,
        "law": facts,
    }
    body = canonical(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = connect(path, create=True)
    try:
        connection.execute("BEGIN IMMEDIATE")
        if not (found := tables(connection)):
            for statement in SCHEMA:
                connection.execute(statement)
            connection.execute("INSERT INTO settings VALUES (0, ?, ?)", (body, digest(body)))
        elif "settings" not in found:
            raise LedgerCorrupt(f"{path} is a database of something else; pass a separate path for the ledger")
        connection.execute("COMMIT")
        ledger = _load(path, connection)
    except sqlite3.OperationalError as error:
        connection.close()
        raise unwritable(path, error) from error
    except BaseException:
        connection.close()
        raise
    if ledger.genesis != digest(body):
        stored = json.loads(connection.execute("SELECT body FROM settings").fetchone()[0])
        connection.close()
        differ = ", ".join(
            f"{k} {stored.get(k)!r} -> {v!r}" for k, v in settings.items() if stored.get(k) != v and k != "law"
        )
        raise ValueError(
            f"the ledger at {path} was opened with other settings ({differ or 'the law, its orders or its plan'}); a budget cannot be changed "
            "after the fact: use the stored settings (read_ledger) or a new run folder"
        )
    return ledger


def _renyi_facts(
    epsilon: float,
    delta: float,
    reserve: float,
    orders: ArrayLike | None,
    planned_rdp: ArrayLike | None,
    filter_order: float | None,
) -> dict[str, Any]:
    """The settings of a Renyi law; arguments as in `open_ledger`, an infinite epsilon for a meter."""
    own, accounted, plan_hash = check_orders(DEFAULT_ORDERS if orders is None else orders), delta - reserve, None
    if planned_rdp is not None:
        if filter_order is not None:
            raise ValueError(
                "a planned ledger takes the best order of its plan: pass planned_rdp or filter_order, not both"
            )
        _, plan = check_curve(own, planned_rdp)
        order, plan_hash = best_order(own, plan, accounted), digest(plan.astype("<f8").tobytes())
        if plan[np.searchsorted(own, order)] > rdp_budget(order, epsilon, accounted):
            raise ValueError(
                f"the plan costs epsilon {renyi.epsilon(own, plan, accounted):.10g}, above the budget {epsilon:.10g}: "
                "calibrate it for this budget"
            )
    elif filter_order is not None:
        order = float(filter_order)
    elif math.isinf(
        epsilon
    ):  # a curve that is finite at any order is finite at the lowest one: all that a meter asks of it
        order = float(own[0])
    else:
        order = default_filter_order(epsilon=epsilon, delta=accounted, orders=own)
    if order not in own:
        raise ValueError(f"filter_order {order:g} is not one of the ledger's orders {own[0]:g}..{own[-1]:g}")
    if rdp_budget(order, epsilon, accounted) <= 0:
        raise ValueError(
            f"order {order:g} cannot certify epsilon {epsilon:g} at delta {delta:g} at all; use a larger order"
        )
    return {"name": "renyi", "orders": own.tolist(), "order": order, "planned_rdp": plan_hash}
