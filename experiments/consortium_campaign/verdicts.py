"""What must hold whatever happened, as pure functions of what was seen; each returns the sentences that say what is wrong, none where all is well."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from consortium_campaign.witness import Seen
from fedjax_poisson.aggregation.terms import Pinned
from fedjax_poisson.aggregation.transcript import check_transcript
from fedjax_poisson.deployment.log_transcripts import shown_by

__all__ = [
    "Row",
    "counts_used_twice",
    "differing_histories",
    "forgotten_charges",
    "second_answers",
    "too_late",
    "tracebacks",
    "uncharged",
    "unhelpful",
    "unlike_the_counts",
]

DISK = ("StoreUnwritable", "LogUnwritable", "LedgerUnwritable", "OSError")
"""Errors of a site whose disk is full."""
ADVICE = (
    "start again",
    "restore",
    "ask again",
    "look ",
    "check ",
    "go on",
    "go back",
    "give it a new",
    "new one",
    "begin ",
    "keep ",
    "wait",
)


class Row(NamedTuple):
    """One fault and what became of it.

    Attributes:
      part: where it struck: a site's disk, a message, the coordinator, a process.
      transition: the step.
      kind: of the fault.
      outcome: in words.
      seconds: of the whole run.
      wrong: sentences; empty where everything holds.
    """

    part: str
    transition: str
    kind: str
    outcome: str
    seconds: float
    wrong: list[str]


def unlike_the_counts(seen: Seen, transcripts: Mapping[str, bytes], pinned: Pinned) -> list[str]:
    """Every opened sum is the sum of the counts that the sites of U offered for that very release, and holds no fewer than the minimum."""
    wrong = []
    for name, blob in _distinct(transcripts):
        checked = check_transcript(blob, pinned)
        made = [seen.made.get(manifest.hex()) for _, manifest in shown_by(name, blob, pinned).clients]
        if any(one is None for one in made):
            wrong.append(f"{name}: a contribution is in it that no site made")
            continue
        total = np.sum([one.counts for one in made if one is not None], axis=0)
        if not np.array_equal(total, checked.counts):
            wrong.append(f"{name}: the opened sum is not that of its sites' counts")
        if len({one.label for one in made if one is not None}) != 1:
            wrong.append(f"{name}: counts of different releases are in one sum")
        if len(made) < checked.terms.minimum:
            wrong.append(f"{name}: a sum of {len(made)} sites, fewer than the minimum")
    return wrong


def _distinct(transcripts: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
    found: dict[bytes, str] = {}
    for name, blob in transcripts.items():
        found.setdefault(blob, name)
    return [(name, blob) for blob, name in found.items()]


def counts_used_twice(seen: Seen, exempt: Iterable[str] = ()) -> list[str]:
    """No counts of a site left in two contributions: two sums with them would show the difference of the rest."""
    found: dict[tuple[str, tuple[int, ...]], set[str]] = collections.defaultdict(set)
    for one in seen.left:
        if one.manifest in seen.made and one.site not in exempt:
            found[one.site, seen.made[one.manifest].counts].add(one.manifest)
    return [
        f"{site}: the same counts left in {len(names)} contributions"
        for (site, _), names in found.items()
        if len(names) > 1
    ]


def second_answers(seen: Seen, exempt: Iterable[str] = ()) -> list[str]:
    """No member says two things in one step of one round, and no site sends two contributions to one round, over all its lives."""
    said: dict[tuple[str, str, int, str], set[str]] = collections.defaultdict(set)
    for one in seen.said:
        said[one.site, one.run, one.round, one.step].add(one.digest)
    for each in seen.left:
        said[each.site, each.run, each.round, "contribution"].add(each.manifest)
    return [
        f"{site}: {len(found)} different answers to {step} of round {number}"
        for (site, _, number, step), found in said.items()
        if len(found) > 1 and site not in exempt
    ]


def uncharged(seen: Seen, exempt: Iterable[str] = ()) -> list[str]:
    """Whenever a contribution left, its site's ledger had as many rows for that release as different contributions had left by then."""
    gone: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
    wrong = []
    for one in seen.left:
        if one.site in exempt or one.manifest not in seen.made:
            continue
        label = seen.made[one.manifest].label
        gone[one.site, label].add(one.manifest)
        if one.charges.get(label, 0) < len(gone[one.site, label]):
            wrong.append(
                f"{one.site}: {len(gone[one.site, label])} contributions for {label}, {one.charges.get(label, 0)} charges"
            )
    return wrong


def forgotten_charges(seen: Seen, ledgers: Mapping[str, Mapping[str, int]], exempt: Iterable[str] = ()) -> list[str]:
    """What was charged when a contribution left is still on the ledger at the end."""
    wrong = []
    for one in seen.left:
        now = ledgers.get(one.site, {})
        if one.site not in exempt and any(now.get(label, 0) < count for label, count in one.charges.items()):
            wrong.append(f"{one.site}: {one.charges} was charged, {dict(now)} is on its ledger now")
    return sorted(set(wrong))


def differing_histories(histories: Mapping[str, Sequence[bytes]]) -> list[str]:
    """All kept transcripts agree position by position, the coordinator's with the sites'."""
    wrong = []
    longest = max(histories.values(), key=len, default=())
    for name, own in histories.items():
        for position, (one, other) in enumerate(zip(own, longest, strict=False)):
            if one != other:
                wrong.append(f"{name} holds another transcript at position {position}")
    return wrong


def too_late(held: Sequence[float], phases: int, phase_seconds: float, slack: float) -> list[str]:
    """No round is longer than all its phases' deadlines together."""
    most = phases * phase_seconds + slack
    return [f"a round took {seconds:.1f} s, {most:.1f} s are allowed" for seconds in held if seconds > most]


def tracebacks(seen: Seen, full: Iterable[str] = ()) -> list[str]:
    """Requests end in replies and refusals; only a site whose disk is full fails, by the name of what it could not write.

    Args:
      seen: of all sites.
      full: sites whose disk was full.
    """
    allowed = set(full)
    return [
        f"{site}: {error} is no refusal: {words[:200]}"
        for site, error, words in seen.failures
        if not (site in allowed and error in DISK)
    ]


def unhelpful(words: Iterable[str]) -> list[str]:
    """Whoever refuses to go on says what to do."""
    return [
        f"a refusal does not say what to do: {one[:200]}"
        for one in words
        if not any(each in one.lower() for each in ADVICE)
    ]
