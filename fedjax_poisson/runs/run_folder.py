"""A finished run, read back from its folder: the input of the figures and the report.

Everything here is read from files that somebody may have copied, shortened or edited, so a value is only treated as a
number after `number` has checked it, and a missing value is None, never a guess.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_poisson import accounting
from fedjax_poisson.federated import checkpoints


class RunFolder(NamedTuple):
    """The contents of a run folder.

    Attributes:
      path: the folder.
      summary: the object in summary.json.
      rounds: rows of rounds.jsonl, one per opened release; empty if there is no such file.
      config: text of config.toml, or None.
    """

    path: Path
    summary: dict[str, Any]
    rounds: list[dict[str, Any]]
    config: str | None


class LedgerCheck(NamedTuple):
    """The ledger of a run, freshly verified.

    Attributes:
      rows: its releases in the order of spending; empty if it cannot be read.
      readings: epsilon after each of them.
      epsilon: what the ledger reads, or None.
      delta: the delta that reading is for, or None.
      verified: True when the chain of hashes holds and ends in the head that summary.json pins.
      pinned: whether summary.json pins a head; without one, the removal of rows at the end cannot be detected.
      problem: why it is not verified, or an empty string.
      law: by which its releases were charged, or None.
      reserve: the part of delta that covers inexact samplers.
    """

    rows: list[accounting.Release]
    readings: list[float]
    epsilon: float | None
    delta: float | None
    verified: bool
    pinned: bool
    problem: str
    law: accounting.Law | None = None
    reserve: float = 0.0


def read_run(run_dir: str | Path) -> RunFolder:
    """Read a run folder.

    Args:
      run_dir: folder that `fedjax-poisson run` wrote.

    Returns:
      Its contents.

    Raises:
      FileNotFoundError: the folder has no summary.json (the run has not finished).
      ValueError: summary.json is not a JSON object.
    """
    path = Path(run_dir)
    source = path / "summary.json"
    if not source.is_file():
        raise FileNotFoundError(
            f"{path} has no summary.json: the run has not finished. Finish it with --resume {path}."
        )
    try:
        summary = json.loads(source.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{source} is not JSON ({error}); finish the run again with --resume {path}.") from error
    if not isinstance(summary, dict):
        raise ValueError(
            f"{source} holds a {type(summary).__name__}, expected an object; finish the run again with --resume {path}."
        )
    config = path / "config.toml"
    return RunFolder(
        path=path,
        summary=summary,
        rounds=checkpoints.read_lines(path / "rounds.jsonl")[0],
        config=config.read_text(encoding="utf-8") if config.is_file() else None,
    )


def check_ledger(run: RunFolder) -> LedgerCheck:
    """Open the run's ledger, recompute its chain and compare it with what summary.json says.

    Returns:
      The rows and the outcome; a ledger that is absent, unreadable or inconsistent is an outcome, not an exception.
    """
    head = run.summary.get("ledger_head")
    pinned = isinstance(head, str) and bool(head)
    nothing = LedgerCheck(rows=[], readings=[], epsilon=None, delta=None, verified=False, pinned=pinned, problem="")
    shared = run.summary.get("shared_ledger")
    path = Path(str(shared.get("path"))) if isinstance(shared, dict) else run.path / "ledger.sqlite"
    try:
        ledger = accounting.read_ledger(path)
    except FileNotFoundError:
        where = f"The data set's ledger is not at {path}" if shared else "There is no ledger.sqlite in the run folder"
        return nothing._replace(problem=f"{where}.")
    except (accounting.LedgerCorrupt, sqlite3.Error) as error:
        return nothing._replace(problem=f"The ledger cannot be read: {error}.")
    try:
        found = _own_part(run, ledger, nothing) if shared else _whole(ledger, nothing, head)
    except (accounting.LedgerCorrupt, sqlite3.Error) as error:
        return nothing._replace(problem=f"Verification failed: {error}.")
    finally:
        ledger.close()
    problem = found.problem or _disagreement(run, found)
    return found._replace(verified=not problem, problem=problem, law=ledger.law, reserve=ledger.reserve)


def _whole(ledger: accounting.Ledger, nothing: LedgerCheck, head: Any) -> LedgerCheck:
    """What a ledger of one run alone says."""
    ledger.verify(head if nothing.pinned else None)
    return nothing._replace(
        rows=ledger.rows(), readings=ledger.readings(), epsilon=ledger.epsilon(), delta=ledger.delta
    )


def _own_part(run: RunFolder, ledger: accounting.Ledger, nothing: LedgerCheck) -> LedgerCheck:
    """What a ledger that several runs share says of this run: its own rows, and epsilon of them alone. Rows of later runs may follow those of the pinned head.

    The rows of a run carry the SHA-256 of its config.toml (`run_ledger`).
    """
    ledger.verify()
    count = number(run.summary.get("ledger_rows"))
    if nothing.pinned and count is not None:
        ledger.check_pin(accounting.Pin(int(count), str(run.summary["ledger_head"])))
    name = hashlib.sha256((run.config or "").encode()).hexdigest()
    rows = [row for row in ledger.rows() if row.origin.get("run") == name]
    if not rows:
        return nothing._replace(problem=f"{ledger.path} has no release of this run.")
    charges = [(row.charge, 1) for row in rows]
    readings = [accounting.scheduled_epsilon(ledger.law, charges[: i + 1], ledger.delta) for i in range(len(charges))]
    return nothing._replace(rows=rows, readings=readings, epsilon=readings[-1], delta=ledger.delta)


def _disagreement(run: RunFolder, ledger: LedgerCheck) -> str:
    """Where the ledger contradicts the rest of the folder, or an empty string."""
    stated = number(run.summary.get("epsilon"))
    # The last digit may differ between two builds of NumPy; a claim below the ledger's reading by more is a wrong
    # claim. A run's part of a shared ledger is read by itself, on another grid than its plan (2e-6 apart in the tests).
    apart = 1e-4 if run.summary.get("shared_ledger") else 1e-9
    if stated is not None and ledger.epsilon is not None and stated < ledger.epsilon * (1 - apart):
        return f"The ledger reads epsilon {ledger.epsilon:.6g}, more than the {stated:.6g} that summary.json states."
    if len(run.rounds) > len(ledger.rows):
        return f"{len(run.rounds)} releases were opened but only {len(ledger.rows)} are on the ledger."
    return ""


def in_consortium(run: RunFolder) -> bool:
    """Whether the sites were processes of their own (`deployment`), of which this folder is one site's."""
    return site_of(run) is not None


def site_of(run: RunFolder) -> str | None:
    """The site of a consortium whose folder this is; None where all sites were in one process."""
    try:
        return str(tomllib.loads(run.config or "").get("here") or "") or None
    except tomllib.TOMLDecodeError:
        return None


def number(value: object) -> float | None:
    """A finite number as float; None for anything else (absent, text, true/false, NaN, infinite)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def numbers_by_name(value: object) -> dict[str, float]:
    """The entries of a {name: number} object that really are numbers, in their order."""
    if not isinstance(value, dict):
        return {}
    return {str(name): found for name, entry in value.items() if (found := number(entry)) is not None}


def objects(value: object) -> list[dict[str, Any]]:
    """The objects in a list; empty for anything else."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def score(row: dict[str, Any], name: str) -> float | None:
    """A test score in a row of rounds.jsonl, or None where the release was not evaluated."""
    test = row.get("test")
    return number(test.get(name)) if isinstance(test, dict) else None


def site_rows(run: RunFolder) -> list[tuple[str, float | None, float | None]]:
    """(name, training records, test records) of every site that is named anywhere."""
    found = [
        (str(site.get("name", "unnamed")), number(site.get("train_records")), number(site.get("test_records")))
        for site in objects(run.summary.get("sites"))
    ]
    named = {name for name, _, _ in found}
    return found + [
        (name, None, None) for name in numbers_by_name(run.summary.get("accuracy_by_site")) if name not in named
    ]


def held_out_records(run: RunFolder) -> float:
    """Test records over all sites; 0 if not recorded."""
    return sum(tested or 0.0 for _, _, tested in site_rows(run))


def training_records(run: RunFolder) -> float:
    """Training records over all sites; 0 if not recorded."""
    return sum(number(site.get("train_records")) or 0.0 for site in objects(run.summary.get("sites")))
