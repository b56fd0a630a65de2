"""All verdicts over one run: a row of the table."""

from __future__ import annotations

from collections.abc import Collection

from consortium_campaign import verdicts
from consortium_campaign.harms import FULL, exempt_from, may_be_refused
from consortium_campaign.people import NAMES, People, Run
from consortium_campaign.scenario import Fault, Result
from consortium_campaign.verdicts import Row
from fedjax_poisson.deployment.log_check import check_logs
from fedjax_poisson.deployment.roster import pinned_of

__all__ = ["PHASES", "judged"]

PHASES = 10
"""Of a light round."""
SLACK = 5.0
"""Seconds that a busy machine may add to a round."""


def judged(part: str, fault: Fault, result: Result, known: People, run: Run, different: Collection[str] = ()) -> Row:
    """The row of a run.

    Args:
      part: where the fault struck, for the table.
      fault: what happened.
      result: what became of it.
      known: the consortium.
      run: what was run.
      different: sites whose terms are other ones; they take no part in a sum.
    """
    party = "" if fault.place is None else fault.place.party
    exempt = {party} if exempt_from(fault.kind) else set[str]()
    full = {party} if fault.kind in FULL else set[str]()
    seen, transcripts = result.seen, _named(result)
    wrong = [
        *verdicts.unlike_the_counts(seen, transcripts, pinned_of(known.roster)),
        *verdicts.counts_used_twice(seen, exempt),
        *verdicts.second_answers(seen, exempt),
        *verdicts.uncharged(seen, exempt),
        *verdicts.forgotten_charges(seen, result.ledgers, exempt | set(result.refused)),
        *verdicts.differing_histories({name: own for name, own in result.histories.items() if name not in exempt}),
        *verdicts.too_late(result.held, PHASES, run.phase_seconds, SLACK),
        *verdicts.tracebacks(seen, full),
        *verdicts.unhelpful([*result.refusals, *result.refused.values()]),
        *result.failed,
        *logs_apart(result, known, {party} if "log" in fault.kind or exempt else set()),
        *_ending(fault, result, different),
    ]
    transition = "" if fault.place is None else f"{'site' if party in NAMES else party}: {fault.place.transition}"
    return Row(part, transition, fault.kind, outcome_of(result), round(result.seconds, 2), wrong)


def _named(result: Result) -> dict[str, bytes]:
    return {f"{name} {position}": blob for name, own in result.histories.items() for position, blob in enumerate(own)}


def logs_apart(result: Result, known: People, suspect: Collection[str]) -> list[str]:
    """What anybody finds who holds the logs against each other and the transcripts (`deployment.log_check`); of sites whose log was set back it must."""
    transcripts = {
        f"{position:05d}.round": blob for position, blob in enumerate(max(result.histories.values(), key=len))
    }
    findings = check_logs(
        known.roster, {f"{name}.log": blob for name, blob in result.logs.items() if blob}, transcripts
    )
    return [
        f"the logs: {one.words}"
        for one in findings.findings
        if one.grave and not (one.sites and set(one.sites) <= set(suspect))
    ]


def _ending(fault: Fault, result: Result, different: Collection[str]) -> list[str]:
    """After the fault the run goes on to its end with everybody who may, or says why not."""
    wrong = []
    party = "" if fault.place is None else fault.place.party
    if result.hung:
        wrong.append(f"the run hangs; the coordinator said last: {result.said[-3:]}, states {result.states}")
        return wrong
    for name, words in result.refused.items():
        if name != party or not words.startswith(may_be_refused(fault.kind) or ("nothing",)):
            wrong.append(f"{name} does not begin again: {words}")
    expected = [name for name in NAMES if name not in result.refused and name not in different]
    late = [name for name in expected if result.states.get(name) != "done"]
    if late:
        states = {name: result.states.get(name, "dead") for name in late}
        wrong.append(f"the run does not go on to its end: {states}; {(result.refusals or ['no refusal'])[-1]}")
    if result.ended is None:
        wrong.append(f"the coordinator has no result: {(result.refusals or result.failed or ['no refusal'])[-1]}")
    elif set(result.ended.digests) - set(result.ended.agree):
        wrong.append("the models differ")
    return wrong


def outcome_of(result: Result) -> str:
    """In words, without names."""
    words = []
    if result.refused:
        words.append(
            "a site sits it out ("
            + ", ".join(sorted({each.partition(":")[0] for each in result.refused.values()}))
            + ")"
        )
    if result.refusals:
        words.append("refused until started again")
    if any("round died" in each for each in result.said):
        words.append("a round died")
    if any(len(step.clients) < len(NAMES) for step in result.steps):
        words.append("a sum without a site")
    return ", ".join(words) or "nothing was lost"
