"""The page of a run that has not finished: how far it came, what it has spent, and how to finish it. No score and no guarantee is shown."""

from __future__ import annotations

import contextlib
import sqlite3
import tomllib
from pathlib import Path
from typing import Any

from fedjax_poisson import accounting
from fedjax_poisson.federated import checkpoints
from fedjax_poisson.reports.formatting import MISSING, format_epsilon, plural, shown
from fedjax_poisson.reports.html import Child, Html, bold, document, element, paragraph, section, table
from fedjax_poisson.reports.page_content import page_content
from fedjax_poisson.reports.report_json import FORMAT, VERSION
from fedjax_poisson.runs.run_folder import number

__all__ = ["is_unfinished", "write_unfinished"]


def is_unfinished(run_dir: str | Path) -> bool:
    """Whether a run began in the folder and has not finished: its settings are there, its summary is not."""
    path = Path(run_dir)
    return (path / "config.toml").is_file() and not (path / "summary.json").exists()


def write_unfinished(run_dir: str | Path) -> Path:
    """Write report.html and report.json of a run that has not finished; its next report replaces them.

    Args:
      run_dir: the folder.

    Returns:
      Path of the page.
    """
    path = Path(run_dir)
    lines = checkpoints.read_lines(path / "rounds.jsonl")[0]
    spent = _spent(path)
    page = document("Report on an unfinished run", _body(path, lines, spent))
    checkpoints.write_atomic(path / "report.html", page.encode("utf-8"))
    checkpoints.write_json(
        path / "report.json",
        {
            "format": FORMAT,
            "version": VERSION,
            "run": {"folder": path.resolve().name, "finished": False},
            "ledger": spent,
            "page": page_content(page),
        },
    )
    return path / "report.html"


def _spent(path: Path) -> dict[str, Any]:
    """What the run's ledger holds."""
    where = path / "ledger.sqlite"
    with contextlib.suppress(OSError, ValueError):
        shared = tomllib.loads((path / "config.toml").read_text(encoding="utf-8")).get("ledger")
        where = Path(shared) if isinstance(shared, str) else where
    try:
        with contextlib.closing(accounting.read_ledger(where)) as ledger:
            ledger.verify()
            return {
                "verified": True,
                "problem": "",
                "shared": where.parent != path,
                "releases": ledger.pin().rows,
                "epsilon": ledger.epsilon(),
                "budget_epsilon": ledger.budget_epsilon,
                "delta": ledger.delta,
                "share_left": ledger.remaining().share,
            }
    except (OSError, accounting.LedgerCorrupt, sqlite3.Error) as error:
        return {"verified": False, "problem": str(error)}


def _body(path: Path, lines: list[dict[str, Any]], spent: dict[str, Any]) -> Html:
    trained = [line for line in lines if line.get("purpose") == "train"]
    last = number(trained[-1].get("round")) if trained else None
    rows: list[list[Child]] = [
        ["rounds of training that are saved", "none" if last is None else f"{last:,.0f}"],
        ["sums that were decrypted and saved", f"{len(lines):,}"],
    ]
    if spent["verified"]:
        whose = "all runs on this data set" if spent["shared"] else "this run"
        rows += [
            [f"entries on the ledger ({whose})", f"{spent['releases']:,}"],
            [
                "epsilon spent so far, as the ledger reads it",
                f"{format_epsilon(spent['epsilon'])} of {spent['budget_epsilon']:g}",
            ],
            ["at delta", shown(spent["delta"])],
            ["share of the budget that is left", f"{100 * spent['share_left']:.1f} %"],
        ]
    else:
        rows.append(["ledger", f"cannot be read: {spent['problem'] or MISSING}"])
    banner = element(
        "div",
        element("b", "This run has not finished"),
        paragraph(
            "There is no model to judge yet, and no statement about privacy is made here. ",
            bold("What was spent stays spent"),
            f", whether the run goes on or not. {plural(len(trained), 'round')} of training can be taken up again (RUN is this folder):",
        ),
        element("pre", "fedjax-poisson run --resume RUN"),
        class_="warnings",
        role="note",
    )
    return element(
        "body",
        element(
            "main",
            element(
                "header",
                element("h1", "Report on an unfinished run"),
                element("div", f"run folder {path.resolve().name}", class_="soft"),
            ),
            banner,
            section("How far it came", table(["what", "so far"], rows)),
        ),
    )
