"""`report`, `export`, `attack`, `ledger` and `verify`: what is asked of a run folder afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from fedjax_poisson.reports.several_runs import Row

__all__ = ["attack", "compare", "export", "ledger", "list_runs", "report", "verify"]


def report(folder: Annotated[Path, tyro.conf.Positional], *, section: tuple[str, ...] = ()) -> int:
    """Write the report of a run anew: report.html, report.json, its figures, and model_card.md unless somebody edited it.

    Of a run that has not finished the page says how far it came and what it has spent.

    Args:
      folder: run folder.
      section: sections of your own to add, module:name of a function of the run.
    """
    from fedjax_poisson.reports.page import write_report

    print(write_report(folder, sections=section))
    return 0


def export(folder: Annotated[Path, tyro.conf.Positional], *, out: Path | None = None, site: str | None = None) -> int:
    """Write a model's weights for other programs, with the standardisation folded in: weights.npz, weights.safetensors, weights.json (what they mean).

    For linear models and perceptrons of tables. Apply them with one clip of the raw features and the layers, as weights.json says.

    Args:
      folder: run folder.
      out: folder for the files; default: export in the run folder.
      site: site whose standardisation is folded in; needed if the run standardised each site separately.
    """
    from fedjax_poisson.federated.exported_model import export_model
    from fedjax_poisson.runs.run_folder import read_run

    privacy = ("verdict", "unit", "adjacency", "epsilon", "delta", "honest_senders", "senders", "dataset", "date")
    summary = read_run(folder).summary if folder.is_dir() else {}
    facts = {"run": {name: summary.get(name) for name in privacy}} if summary else {}
    for path in export_model(
        folder, out or (folder if folder.is_dir() else folder.parent) / "export", site=site, facts=facts
    ):
        print(path)
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
        (records from updates, in four views), property (which site an update came from), all, or module:name of your own.
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


def list_runs(root: Annotated[Path, tyro.conf.Positional] = Path("runs"), *, json: bool = False) -> int:
    """List the finished runs below a folder: epsilon, verdict, scores, size.

    Args:
      root: folder that is looked through.
      json: one object a line, for programs.
    """
    from fedjax_poisson.reports.several_runs import find_runs

    rows = find_runs(root)
    if not rows and not json:
        print(f"{root} holds no finished run")
    return _print_runs(rows, json)


def compare(
    folders: Annotated[tuple[Path, ...], tyro.conf.Positional], *, out: Path | None = None, json: bool = False
) -> int:
    """Compare finished runs: a table, and with --out a figure of score against epsilon.

    Args:
      folders: run folders.
      out: PNG file of the figure.
      json: one object a line, for programs.
    """
    from fedjax_poisson.reports.several_runs import draw, row_of

    if len(folders) < 2:
        raise ValueError(f"{len(folders)} run folder is given; compare takes two or more.")
    rows = [row_of(folder) for folder in folders]
    code = _print_runs(rows, json)
    if out is not None:
        print(draw(rows, out))
    return code


def _print_runs(rows: Sequence[Row], json: bool) -> int:
    from json import dumps

    from fedjax_poisson.reports.several_runs import text_rows

    if json:
        for row in rows:
            print(dumps({**row._asdict(), "folder": str(row.folder)}))
    elif rows:
        cells = text_rows(rows)
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for line in cells:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0


def verify(folder: Annotated[Path, tyro.conf.Positional]) -> int:
    """Check a run again from its files alone: the ledger's chain, and every opened round's signatures, quorums, screening and opening.

    Args:
      folder: run folder.
    """
    from fedjax_poisson.runs.show import print_rounds

    return print_rounds(folder)
