"""What may be claimed about a run's privacy. The figures and the report both use this module, so they cannot disagree."""

from __future__ import annotations

from typing import NamedTuple

from fedjax_poisson.reports.formatting import MISSING, site_word
from fedjax_poisson.runs.run_folder import RunFolder, number, objects


def encrypted(run: RunFolder) -> bool:
    """Whether the senders' messages were encrypted; a run that names no aggregator counts as unencrypted."""
    backend = run.summary.get("aggregator")
    return isinstance(backend, str) and backend != "plain"


class Committee(NamedTuple):
    """Who could open what in a run with rounds.

    Attributes:
      members: m.
      threshold: t, members that open a sum.
      malicious: f, members that may be malicious.
      signed: whether messages were signed, boxed and screened; if not, the roles were simulated by their arithmetic alone.
    """

    members: int
    threshold: int
    malicious: int
    signed: bool


def committee(run: RunFolder) -> Committee | None:
    """The committee of a run with rounds; None for other backends and older folders."""
    info = run.summary.get("aggregator_info")
    if run.summary.get("aggregator") != "round" or not isinstance(info, dict):
        return None
    found = [number(info.get(name)) for name in ("members", "threshold", "malicious")]
    if any(value is None for value in found):
        return None
    members, threshold, malicious = (int(value or 0) for value in found)
    return Committee(members, threshold, malicious, info.get("mode") == "round")


def noise_senders(run: RunFolder) -> int | None:
    """How many noise senders make the noise of the training sums, where sites add none of their own (norm rounds); else None."""
    by = run.summary.get("noise_senders")
    senders = number(by.get("senders")) if isinstance(by, dict) else None
    return None if senders is None else int(senders)


def seeded(run: RunFolder) -> bool:
    """Whether anyone who knows the seed can reproduce the randomness of the run."""
    return run.summary.get("reproducible") is True or number(run.summary.get("seed")) is not None


def verdict(run: RunFolder) -> str:
    """What the folder supports, "not private", "conditional" or "private": of the folder as it is now, which may hold more than when the run ended."""
    if reasons_against(run):
        return "not private"
    return "conditional" if conditions(run) or assumed(run) else "private"


def protection(run: RunFolder) -> str:
    """A short label for the run, such as "private, encrypted"."""
    word = verdict(run)
    return ("conditionally private" if word == "conditional" else word) + (", encrypted" if encrypted(run) else "")


def conditions(run: RunFolder) -> list[tuple[str, str]]:
    """Facts about the records that the run disclosed and epsilon does not cover, each with its remedy."""
    found = [
        (str(each.get("fact", MISSING)), str(each.get("remedy", MISSING)))
        for each in objects(run.summary.get("conditions"))
    ]
    if run.summary.get("public_data") is not True and (run.path / "leakage.json").exists():
        found.append(
            (
                "attacks were run on the records and their results are shown",
                "deleting leakage.json, leakage_inversion.npz and figures/leakage_*.png, and writing the report anew (fedjax-poisson report RUN)",
            )
        )
    return found


def assumed(run: RunFolder) -> list[str]:
    """Parts of the run from outside the package, whose claims are their authors'."""
    found = run.summary.get("assumed")
    return [str(each) for each in found] if isinstance(found, list) else []


def reasons_against(run: RunFolder) -> list[str]:
    """Why the stated guarantee does not hold; empty if it does. A run that does not state that it is private is not."""
    summary, found = run.summary, []
    if seeded(run):
        found.append(
            "All randomness of this run, including noise and keys, is derived from the seed "
            f"{summary.get('seed', MISSING)}. Anyone who knows the seed can remove the noise and decrypt every message."
        )
    if not isinstance(summary.get("aggregator"), str):
        found.append("The run folder does not record whether anything was encrypted.")
    elif not encrypted(run):
        found.append(
            f"Nothing was encrypted. The server saw what each {site_word(run, 1)} sent, protected only by "
            f"that {site_word(run, 1)}'s share of the noise."
        )
    if number(summary.get("epsilon")) is None or number(summary.get("delta")) is None:
        found.append("The run folder records no epsilon and delta.")
    if summary.get("private") is not True and summary.get("verdict") != "conditional" and not found:
        found.append(str(summary.get("privacy_note") or "The run folder does not state that this run is private."))
    return found


def question(run: RunFolder) -> str:
    """The question that the guarantee keeps an attacker from answering, for the run's unit and adjacency."""
    unit = run.summary.get("unit")
    unit = unit if isinstance(unit, str) else "unit"
    if run.summary.get("adjacency") == "replace_one":
        return f"which of two {unit}s was used"
    return f"whether a particular {unit} was used"
