"""A run's ledger and its rounds on the screen, read from the folder alone."""

from __future__ import annotations

import json
from pathlib import Path

from fedjax_poisson import accounting
from fedjax_poisson.runs.transcripts import in_words, verify_rounds


def print_ledger(folder: Path, *, verify: bool) -> None:
    """Print the rows of a ledger, what they add up to, and with `verify` whether the chain holds.

    Args:
      folder: run folder, or a ledger file.
      verify: recompute the hash chain and compare it with the values pinned in summary.json.

    Raises:
      FileNotFoundError: there is no ledger.
    """
    path = folder / "ledger.sqlite" if folder.is_dir() else folder
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such ledger; give the folder of a run, or a ledger file.")
    book = accounting.read_ledger(path)
    try:
        print(
            f"{'id':>4}  {'time':<26}  {'purpose':<12} {'label':<16} {'mechanism':<18} honest/senders  {accounting.meter_in_words(book.law)}"
        )
        rows = book.rows()
        for row in rows:
            print(
                f"{row.id:>4}  {row.time[:26]:<26}  {row.purpose:<12} {row.label:<16} {row.mechanism:<18} "
                f"{row.honest_senders:>6}/{row.senders:<7} {row.meter:.6g}"
            )
        print(
            f"unit {book.unit}, adjacency {book.adjacency}: epsilon {book.epsilon():.6g} of {book.budget_epsilon:g} at delta {book.delta:g}"
        )
        if runs := {row.origin.get("run") for row in rows} - {None}:
            print(f"data set {rows[0].data!r}, {len(runs)} run{'s' if len(runs) > 1 else ''}")
        if verify:
            print(_verified(book, path))
    finally:
        book.close()


def _verified(book: accounting.Ledger, path: Path) -> str:
    count = book.verify()
    summary = path.parent / "summary.json"
    pinned = "(no summary.json next to it pins the head, so removed rows at the end would go undetected)"
    if summary.exists():
        facts = json.loads(summary.read_text(encoding="utf-8"))
        book.check_pin(accounting.Pin(int(facts["ledger_rows"]), str(facts["ledger_head"])))
        pinned = "and match what summary.json pins"
    return f"verified: {count} rows follow from each other {pinned}"


def print_rounds(folder: Path) -> int:
    """Check a run's ledger and the transcripts of its rounds again, and print a line for each.

    Args:
      folder: run folder.

    Returns:
      0 if everything holds, 1 if a transcript does not.

    Raises:
      FileNotFoundError: the folder has no ledger or no transcripts.
    """
    path = folder / "ledger.sqlite"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such ledger; give the folder of a run.")
    book = accounting.read_ledger(path)
    try:
        print(_verified(book, path))
        charged = len(book.rows())
    finally:
        book.close()
    found = verify_rounds(folder)
    for one in found:
        print(in_words(one))
    bad = sum(one.checked is None for one in found)
    print(
        f"rounds: {len(found) - bad} of {len(found)} hold, {charged} releases are charged. Checked: signatures, quorums, screening, opening. Not in the files, "
        "so not checked: that the summed rows are the sum of the clients' own."
    )
    return 1 if bad else 0
