"""What a check of logs found: for people as lines, for programs as JSON values."""

from __future__ import annotations

from typing import Any, NamedTuple

from fedjax_poisson.deployment.log_entries import Entry

__all__ = ["Finding", "Findings", "as_json", "in_words"]


class Finding(NamedTuple):
    """One thing that was found.

    Attributes:
      kind: a word for code.
      grave: whether something is wrong; else it is only worth knowing (somebody was away).
      words: for people.
      sites: whom it concerns.
      run: hexadecimal; empty if it is about no run.
      round: number; None if it is about no round.
      proof: signed entries that show it.
    """

    kind: str
    grave: bool
    words: str
    sites: tuple[str, ...] = ()
    run: str = ""
    round: int | None = None
    proof: tuple[Entry, ...] = ()


class Findings(NamedTuple):
    """What logs and transcripts show together.

    Attributes:
      sound: nothing grave was found.
      findings: in the order in which they were found.
      rounds: opened rounds in any log.
      epsilon: of each site the largest epsilon beside a charge, of every run in its log; runs on the same records add up.
      missing: parties of the roster without a log.
      transcripts: how many hold.
    """

    sound: bool
    findings: tuple[Finding, ...]
    rounds: int
    epsilon: dict[str, dict[str, float]]
    missing: tuple[str, ...]
    transcripts: int


def in_words(findings: Findings) -> list[str]:
    """Lines for people, the verdict last."""
    lines = [f"{'WRONG' if one.grave else 'note '}  {one.words}" for one in findings.findings]
    for one in findings.findings:
        if one.grave and one.proof:
            lines += [
                f"       {one.kind}: entry {e.number}, hash {e.hash.hex()}, signature {e.signature.hex()}"
                for e in one.proof
            ]
    for name, runs in sorted(findings.epsilon.items()):
        spent = ", ".join(f"{value:.4f} in the run {run[:8]}" for run, value in runs.items())
        lines.append(f"epsilon  {name}: {spent} by its own log{'; they add up' if len(runs) > 1 else ''}")
    if findings.missing:
        lines.append(f"missing  no log of {', '.join(findings.missing)}: nothing is known of what they wrote down")
    grave = sum(one.grave for one in findings.findings)
    verdict = "sound: the logs agree" if findings.sound else f"NOT SOUND: {grave} things are wrong"
    lines.append(f"{verdict}; {findings.rounds} opened rounds, {findings.transcripts} transcripts that hold")
    return lines


def as_json(findings: Findings) -> dict[str, Any]:
    """The findings as JSON values; entries as number, hash and signature in hexadecimal."""
    listed = [
        {
            **one._asdict(),
            "sites": list(one.sites),
            "proof": [
                {
                    "number": e.number,
                    "hash": e.hash.hex(),
                    "signature": e.signature.hex(),
                    "kind": e.kind,
                    "facts": e.facts,
                }
                for e in one.proof
            ],
        }
        for one in findings.findings
    ]
    return {**findings._asdict(), "findings": listed, "missing": list(findings.missing)}
