"""`report`, `attack`, `ledger` and `verify`: what is asked of a run folder afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro

__all__ = ["attack", "ledger", "report", "verify"]


def report(folder: Annotated[Path, tyro.conf.Positional]) -> int:
    """Regenerate the figures and report.html of a finished run.

    Args:
      folder: run folder.
    """
    from fedjax_poisson.reports.page import write_report

    print(write_report(folder))
    return 0


def attack(
    folder: Annotated[Path, tyro.conf.Positional],
    *,
    attack: str = "all",
    quick: bool = False,
) -> int:
    """Attack a finished run using its settings, and add what leaked to its folder and report.

    Args:
      folder: run folder.
      attack: membership (LiRA and the loss), audit (the mechanism against the ledger), one_run (canary records through the pipeline), inversion
        (records from updates, in four views), property (which site an update came from), or all.
      quick: use small sizes, for a first look within a minute or two, with wide intervals.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from fedjax_poisson.leakage.measure import attack_run
    from fedjax_poisson.reports import leakage
    from fedjax_poisson.reports.page import write_report

    console = Console()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def told(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        found = attack_run(folder, attack, quick=quick, report=told)
    page = write_report(folder)
    console.print(leakage.text_table(found))
    for note in (*found["notes"], leakage.SITES, leakage.NO_PROOF):
        console.print(note, highlight=False)
    console.print(f"numbers: {folder / 'leakage.json'}, report: {page}", highlight=False)
    return 0


def ledger(folder: Annotated[Path, tyro.conf.Positional], *, verify: bool = False) -> int:
    """Show the privacy ledger of a run. Nothing is written, so a read-only copy is enough.

    Args:
      folder: run folder (or a ledger file).
      verify: recompute the hash chain and compare it with the values pinned in summary.json.
    """
    from fedjax_poisson.runs.show import print_ledger

    print_ledger(folder, verify=verify)
    return 0


def verify(folder: Annotated[Path, tyro.conf.Positional]) -> int:
    """Check a run again from its files alone: the ledger's chain, and every opened round's signatures, quorums, screening and opening.

    Args:
      folder: run folder.
    """
    from fedjax_poisson.runs.show import print_rounds

    return print_rounds(folder)
