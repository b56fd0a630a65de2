"""Which runs are made, the most telling first, and how a campaign that was interrupted goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fedjax_poisson import randomness
from fedjax_poisson.federated.robust_rules import RULES
from insider_campaign.defences import ABSENT, DEFENCES
from insider_campaign.measuring import NONE, Cell, in_words, measure
from insider_campaign.task import TOO_LONG, Task

_AT_SHARES = ("sign_flip", "backdoor_patch", "backdoor_rare_value")
_BESIDE = ("trimmed_mean", "light")
_IN_THE_CLEAR = ("scale_10", "sign_flip", "backdoor_patch", "backdoor_rare_value", "little_is_enough", "label_flip")


def planned(task: Task) -> list[Cell]:
    """All runs of a task, the most telling first.

    Attacks that must be refused at a fifth of the clients; every attack against light and norm rounds at a tenth; the sign flip and backdoors at every share,
    without a vote and with one; beside each named attack at a fifth one rule in the clear and no defence; then the other rules and combinations.
    """
    usual = task.shares[0]
    found = [Cell(NONE, "light", usual)]
    if (
        task.clients is None
    ):  # a site's honest sum reaches its cap: there is no norm to prove, and no single update to read
        found += [Cell(name, "light", usual) for name in task.attacks]
        found += [Cell(name, "vote", usual) for name in (NONE, *task.attacks)]
        return found
    largest = max(task.shares)
    found += [Cell(NONE, "norm", usual), Cell(ABSENT, "norm", largest)]
    found += [Cell(name, "norm", largest) for name in task.attacks if name in TOO_LONG]
    found += [Cell(name, "light", usual) for name in task.attacks if name in TOO_LONG]
    named = [name for name in task.attacks if name not in TOO_LONG][:6]
    shared = [name for name in named if name in _AT_SHARES]
    found += [Cell(name, each, share) for share in task.shares for name in shared for each in ("light", "norm")]
    found += [Cell(NONE, "vote", usual)]
    found += [Cell(name, "vote", share) for share in task.shares for name in shared]
    found += [Cell(NONE, _BESIDE[0], largest)]
    long = [
        name for name in reversed(task.attacks) if name in TOO_LONG
    ]  # those that are not stopped at once come first
    found += [Cell(name, each, largest) for name in (*shared, *long, "label_flip") for each in _BESIDE]
    found += [Cell(name, defence, usual) for name in named for defence in ("light", "norm")]
    rules = [name for name in task.attacks if name in _IN_THE_CLEAR]
    found += [Cell(name, rule, usual) for rule in RULES for name in (NONE, *rules)]
    found += [Cell(name, defence, usual) for name in (NONE, *task.attacks) for defence in ("vote", "norm_vote")]
    found += [Cell(name, defence, usual) for name in task.attacks for defence in ("light", "norm")]
    found += [Cell(name, rule, usual) for rule in RULES for name in task.attacks]
    return list(dict.fromkeys(found))


def chosen(
    task: Task, attacks: Sequence[str] | None, defences: Sequence[str] | None, shares: Sequence[float] | None, toy: bool
) -> list[Cell]:
    """The planned runs of some attacks, defences and shares; a toy campaign takes few of each kind."""
    found = [
        cell
        for cell in planned(task)
        if (attacks is None or cell.attack in (*attacks, NONE))
        and (defences is None or cell.defence in defences)
        and (shares is None or task.clients is None or cell.attack == NONE or cell.share in shares)
    ]
    if toy and attacks is None:
        few = {NONE, "scale_50", "sign_flip", "backdoor_patch", "backdoor_rare_value"}
        found = [
            cell for cell in found if cell.attack in few and cell.defence in ("light", "norm", "vote", "trimmed_mean")
        ]
        found = [cell for cell in found if cell.share == task.shares[0]]
    return found


def campaign(
    task: Task,
    cells: Sequence[Cell],
    rows: list[dict[str, Any]],
    write: Callable[[list[dict[str, Any]]], None],
    ends: float | None,
) -> list[dict[str, Any]]:
    """Make the runs that have no row yet, writing all rows after each.

    Args:
      task: what is trained.
      cells: the runs, in order; honest ones stand before those that are compared with them.
      rows: of an earlier campaign; theirs are not made again.
      write: writes all rows.
      ends: `time.monotonic` after which no run is begun; None for none.

    Returns:
      All rows.
    """
    done = {Cell(row["attack"], row["defence"], row["share"]) for row in rows}
    left, root, began = [cell for cell in cells if cell not in done], randomness.stream(), time.monotonic()
    print(f"{len(cells)} runs, of which {len(cells) - len(left)} are there", flush=True)
    sums: dict[bool, np.ndarray | None] = {}
    for i, cell in enumerate(left):
        if ends is not None and time.monotonic() > ends:
            print(f"{len(left) - i} runs are left for another time", flush=True)
            break
        norm = DEFENCES[cell.defence].norm
        if cell.attack not in (NONE, ABSENT) and DEFENCES[cell.defence].private and norm not in sums:
            short = task._replace(rounds=1)  # of an earlier campaign: its noise was other noise
            kind = DEFENCES["norm" if norm else "light"]
            sums[norm] = kind.run(short, task.corrupt(cell.share), None, root).total
        row, total = measure(task, cell, root, sums.get(norm), _baseline(rows, cell.defence))
        if cell.attack == NONE and DEFENCES[cell.defence].private and total is not None:
            sums[norm] = total
        rows = [*rows, row]
        write(rows)
        pace = (time.monotonic() - began) / (i + 1)
        print(f"{in_words(row)}  [{i + 1}/{len(left)}, {pace * (len(left) - i - 1) / 60:.0f} min left]", flush=True)
    return rows


def _baseline(rows: Sequence[dict[str, Any]], defence: str) -> dict[str, float] | None:
    found = [row["baseline"] for row in rows if (row["attack"], row["defence"]) == (NONE, defence)]
    return found[0] if found else None


def left_out(cells: Sequence[Cell], rows: Sequence[dict[str, Any]]) -> list[str]:
    """Planned runs that have no row, in words."""
    done = {Cell(row["attack"], row["defence"], row["share"]) for row in rows}
    return [f"{cell.attack}, {cell.defence}, {cell.share:g}" for cell in cells if cell not in done]
