"""A privacy ledger in memory, which an algorithm charges if it was not given a ledger file.

It has the same rows, chain and checks as a ledger on disk, on SQLite's `:memory:`. It is lost when the process ends, so it keeps one program from overlooking
what it spent, but does not protect a data set from two programs. There are two kinds:

* with an `epsilon` it is a budget like any other (`ledger`: the guarantee is the budget, at an order fixed in advance);
* without one it is a *meter*: nothing is refused, and `Ledger.epsilon` reads what was spent at the best order. Proved for a schedule of curves that was
  fixed in advance, such as any number of rounds of one algorithm (the curves compose at all orders at once: `renyi.epsilon`); for curves or a moment of
  stopping that were chosen from earlier releases the reading is only a reading: set a budget.
"""

from __future__ import annotations

import math
import weakref

from numpy.typing import ArrayLike

from fedjax_poisson.accounting.chain import MEMORY
from fedjax_poisson.accounting.ledger import Ledger
from fedjax_poisson.accounting.opening import open_ledger
from fedjax_poisson.accounting.renyi import DEFAULT_ORDERS


def memory_ledger(
    *,
    delta: float,
    unit: str,
    adjacency: str,
    orders: ArrayLike | None = None,
    epsilon: float | None = None,
    reserve: float = 0.0,
) -> Ledger:
    """A new ledger in memory.

    Args:
      delta: in (0, 1).
      unit: "record", "patient" or "client".
      adjacency: "zero_out" or "replace_one".
      orders: Renyi orders of every curve that will be spent, float64[n]; None for `DEFAULT_ORDERS`.
      epsilon: budget in nats, > 0; None for a meter.
      reserve: part of delta for samplers and screening (`accounting.reserve`).

    Returns:
      `Ledger`; its database is closed when the last reference to it is gone.

    Raises:
      ValueError: a fact is out of range.
    """
    orders = DEFAULT_ORDERS if orders is None else orders
    ledger = open_ledger(
        MEMORY,
        epsilon=math.inf if epsilon is None else epsilon,
        delta=delta,
        unit=unit,
        adjacency=adjacency,
        orders=orders,
        reserve=reserve,
    )
    weakref.finalize(ledger, ledger.connection.close)
    return ledger
