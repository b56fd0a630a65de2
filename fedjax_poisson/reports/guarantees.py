"""What may be claimed about a run's privacy. The figures and the report both ask here, so they cannot differ."""

from __future__ import annotations

import math

from fedjax_poisson.reports.formatting import MISSING, site_word
from fedjax_poisson.runs.run_folder import RunFolder, number, objects

FALSE_POSITIVES = 0.05
"""False alarms that the example attacker in the report accepts."""


def encrypted(run: RunFolder) -> bool:
    """Whether what a sender sent was encrypted; a run that names no aggregator is taken not to be."""
    backend = run.summary.get("aggregator")
    return isinstance(backend, str) and backend != "plain"


def seeded(run: RunFolder) -> bool:
    """Whether the randomness of the run can be repeated by whoever knows a number."""
    return run.summary.get("reproducible") is True or number(run.summary.get("seed")) is not None


def protection(run: RunFolder) -> str:
    """The run in a few words for a label: "private, encrypted"."""
    word = "not private" if reasons_against(run) else "private on conditions" if conditions(run) else "private"
    return word + (", encrypted" if encrypted(run) else "")


def conditions(run: RunFolder) -> list[tuple[str, str]]:
    """Facts about the records that the run showed and no epsilon covers, each with what would close the gap."""
    found = [
        (str(each.get("fact", MISSING)), str(each.get("remedy", MISSING)))
        for each in objects(run.summary.get("conditions"))
    ]
    if run.summary.get("public_data") is not True and (run.path / "leakage.json").exists():
        found.append(
            ("attacks were run on the records and their results are shown", "a copy of the folder without leakage.json")
        )
    return found


def reasons_against(run: RunFolder) -> list[str]:
    """Why the stated guarantee does not hold; empty when it does. A run that does not say that it is private is not."""
    summary, found = run.summary, []
    if seeded(run):
        found.append(
            "All randomness of this run, noise and keys included, descends from the seed "
            f"{summary.get('seed', MISSING)}. Whoever knows the seed can remove the noise and open every message."
        )
    if not isinstance(summary.get("aggregator"), str):
        found.append("The run folder does not say whether anything was encrypted.")
    elif not encrypted(run):
        found.append(
            f"Nothing was encrypted. The server saw what each {site_word(run, 1)} sent, where only that "
            f"{site_word(run, 1)}'s own share of the noise protects it."
        )
    if number(summary.get("epsilon")) is None or number(summary.get("delta")) is None:
        found.append("The run folder records no epsilon and delta.")
    if summary.get("private") is not True and summary.get("verdict") != "conditional" and not found:
        found.append(str(summary.get("privacy_note") or "The run folder does not say that this run is private."))
    return found


def question(run: RunFolder) -> str:
    """What the guarantee keeps an attacker from finding out, for the run's unit and adjacency."""
    unit = run.summary.get("unit")
    unit = unit if isinstance(unit, str) else "unit"
    if run.summary.get("adjacency") == "replace_one":
        return f"which of two {unit}s was used"
    return f"whether a certain {unit} was used"


def attack_success(epsilon: float, delta: float, false_positives: float = FALSE_POSITIVES) -> float:
    """Largest true-positive rate of any test for one unit's presence at a given false-positive rate.

    It is min(1, e^epsilon * false_positives + delta): the definition of (epsilon, delta)-differential privacy, applied
    to the event that the attacker says "present".
    """
    return 1.0 if epsilon > 700 else min(1.0, math.exp(epsilon) * false_positives + delta)
