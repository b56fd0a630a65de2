"""Values of a finished run in the form in which figures and sections show them; what was not recorded is left out."""

from __future__ import annotations

from fedjax_poisson.reports.guarantees import encrypted
from fedjax_poisson.runs.run_folder import RunFolder, in_consortium, number

__all__ = ["phase_seconds", "reliability_bins"]

_PHASES = (
    ("train", "compute gradients"),
    ("embed", "draw the noise"),
    ("encrypt", "encrypt (all senders)"),
    ("add", "add the messages"),
    ("open", "agree, decrypt the sum"),
)
_IN_THE_CLEAR = {"encrypt": "make the messages", "open": "read the sum"}
_AT_ONE_SITE = {"encrypt": "encrypt (this site)", "open": "wait for the others,\ndecrypt the sum"}


def phase_seconds(run: RunFolder) -> list[tuple[str, float]]:
    """(name of the phase, seconds over all releases) for every recorded phase, then the rest of the run's time."""
    found, alone = [], in_consortium(run)
    for key, words in _PHASES:
        if alone and key == "add":  # the coordinator does
            continue
        values = [value for row in run.rounds if (value := number(row.get(f"{key}_seconds"))) is not None]
        total = sum(values) if values else number(run.summary.get(f"{key}_seconds"))
        if total is not None:
            names = _AT_ONE_SITE if alone else {} if encrypted(run) else _IN_THE_CLEAR
            found.append((names.get(key, words), total))
    whole = number(run.summary.get("total_seconds"))
    if found and whole is not None and (rest := whole - sum(value for _, value in found)) > 0:
        found.append(("everything else", rest))
    return found


def reliability_bins(run: RunFolder) -> list[tuple[float, float, float]]:
    """(mean predicted probability, observed frequency, records) of the non-empty bins."""
    recorded = run.summary.get("reliability")
    if not isinstance(recorded, dict):
        return []
    columns = [recorded.get(name) for name in ("confidence", "frequency", "count")]
    if not all(isinstance(column, list) for column in columns):
        return []
    rows = [[number(value) for value in row] for row in zip(*columns, strict=False)]
    return [(c, f, n) for c, f, n in rows if c is not None and f is not None and n is not None and n > 0]
