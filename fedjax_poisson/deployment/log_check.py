"""Several sites' logs against each other and against the transcripts of the rounds: was everybody in the same run, and was everybody shown the same?

Anyone with the roster can do this, no key is needed. What a finding rests on are signatures of the sites themselves, so it can be shown to others
(`log_findings.Finding.proof`). What it cannot find: what a site did without writing it down and no other log or transcript shows; a site that gives no log
is named as missing. A site's epsilon is its own statement: how the ledger came to it is checked with `fedjax-poisson ledger --verify`, where the ledger is.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fedjax_poisson.deployment.log_entries import Entry, LogDamaged, check_chain, genesis
from fedjax_poisson.deployment.log_findings import Finding, Findings
from fedjax_poisson.deployment.log_transcripts import Shown, check_transcripts
from fedjax_poisson.deployment.roster import Roster, named, parties_of, party_of, roster_hash, roster_keys
from fedjax_poisson.deployment.site_log import parse_log

__all__ = ["check_logs"]

Round = tuple[str, int]
"""Run (hexadecimal) and number."""


Said = Mapping[str, Sequence[Entry]]
"""Party to its entries."""


def check_logs(roster: Roster, logs: Mapping[str, bytes], transcripts: Mapping[str, bytes] | None = None) -> Findings:
    """Check any number of logs.

    Args:
      roster: the consortium.
      logs: where each is from (for messages), and its bytes; whose it is follows from its signatures.
      transcripts: name to bytes of the rounds' transcripts; None: none were kept, and nothing is said about that.
    """
    said, found = _read(roster, logs)
    found += _terms(roster, said)
    rounds = _by_round(said)
    for place, entries in rounds.items():
        found += _round(roster, place, entries)
    holding: Mapping[str, Shown] = {}
    if transcripts is not None:
        holding, refused = check_transcripts(roster, transcripts)
        found += [Finding("transcript", True, f"the transcript {name} does not hold: {why}") for name, why in refused]
        found += _against_transcripts(roster, said, holding)
    epsilon = {}
    for name, own in said.items():
        spent: dict[str, float] = {}
        for run, value in ((e.facts["run"], float(e.facts["epsilon"])) for e in own if e.kind == "charge"):
            spent[run] = max(
                value, spent.get(run, value)
            )  # what was charged stays charged, whatever a later entry says
        if spent:
            epsilon[name] = spent
    opened = [place for place, entries in rounds.items() if any(entry.kind == "opened" for _, entry in entries)]
    missing = tuple(party.name for party in parties_of(roster) if party.name not in said)
    return Findings(not any(one.grave for one in found), tuple(found), len(opened), epsilon, missing, len(holding))


def _read(roster: Roster, logs: Mapping[str, bytes]) -> tuple[dict[str, list[Entry]], list[Finding]]:
    """Each party's longest sound log, and what is wrong with the others."""
    owners = {genesis(party.public): party for party in parties_of(roster)}
    said: dict[str, list[Entry]] = {}
    found = []
    for source, blob in logs.items():
        try:
            entries, torn = parse_log(blob)
            party = owners.get(entries[0].previous) if entries else None
            if party is None:
                why = "is empty" if not entries else "is of no party of this roster"
                found.append(Finding("stranger", True, f"the log {source} {why}"))
                continue
            check_chain(entries, party.public)
        except LogDamaged as error:
            found.append(Finding("damaged", True, f"the log {source} is not what a site wrote: {error}"))
            continue
        if torn:
            found.append(
                Finding("torn", False, f"the log {source} ends in a torn line, which was left out", (party.name,))
            )
        other = said.get(party.name, [])
        for one, two in zip(entries, other, strict=False):
            if one.hash != two.hash:
                found.append(
                    Finding(
                        "forked",
                        True,
                        f"{party.name} has signed two different entries {one.number}: it keeps two logs, or was set back to an old copy",
                        (party.name,),
                        proof=(one, two),
                    )
                )
                break
        said[party.name] = max(entries, other, key=len)
    return said, found


def _by_round(said: Said) -> dict[Round, list[tuple[str, Entry]]]:
    found: dict[Round, list[tuple[str, Entry]]] = {}
    for name, entries in said.items():
        for entry in entries:
            if "round" in entry.facts:
                found.setdefault((entry.facts["run"], entry.facts["round"]), []).append((name, entry))
    return dict(sorted(found.items()))


def _terms(roster: Roster, said: Said) -> Iterator[Finding]:
    """Everybody signed the same terms of each run, of this consortium, before taking part."""
    signed: dict[str, list[tuple[str, Entry]]] = {}
    for name, entries in said.items():
        begun: set[str] = set()
        for entry in entries:
            run = entry.facts.get("run", "")
            if entry.kind == "terms":
                begun.add(run)
                signed.setdefault(run, []).append((name, entry))
                if entry.facts["roster"] != roster_hash(roster).hex():
                    yield Finding(
                        "other-roster",
                        True,
                        f"{name} signed terms of another consortium ({entry.facts['roster'][:16]}...)",
                        (name,),
                        run,
                        proof=(entry,),
                    )
            elif entry.kind in ("contribution", "answer") and run not in begun:
                begun.add(run)  # said once
                yield Finding(
                    "no-terms",
                    True,
                    f"{name} took part in the run {run[:8]} without having written down its terms",
                    (name,),
                    run,
                    proof=(entry,),
                )
    for run, entries_of in signed.items():
        yield from _differing("terms", f"the terms of the run {run[:8]}", entries_of, ("terms",), run, None)


def _differing(
    kind: str, what: str, entries: Sequence[tuple[str, Entry]], names: Sequence[str], run: str, number: int | None
) -> Iterator[Finding]:
    """One finding where entries disagree about some of their facts; who saw what, the largest group last."""
    groups: dict[tuple[Any, ...], list[tuple[str, Entry]]] = {}
    for name, entry in entries:
        facts = tuple(
            tuple(sorted(entry.facts[each])) if each == "clients" else entry.facts[each]
            for each in names
            if each in entry.facts
        )
        groups.setdefault(facts, []).append((name, entry))
    if len(groups) < 2:
        return
    ordered = sorted(groups.items(), key=lambda item: len(item[1]))
    seen = "; ".join(
        f"{', '.join(sorted({name for name, _ in group}))} saw {_short(facts, names)}" for facts, group in ordered
    )
    sites = tuple(sorted({name for _, group in ordered[:-1] for name, _ in group}))
    proof = tuple(group[0][1] for _, group in ordered)
    yield Finding(kind, True, f"{what} are not the same for everybody: {seen}", sites, run, number, proof)


def _short(facts: tuple[Any, ...], names: Sequence[str]) -> str:
    words = [f"{len(value)} sites" if isinstance(value, tuple) else str(value)[:12] for value in facts]
    return ", ".join(f"{name} {word}" for name, word in zip(names, words, strict=False))


def _round(roster: Roster, place: Round, entries: Sequence[tuple[str, Entry]]) -> Iterator[Finding]:
    """One round, in all logs."""
    run, number = place
    where = f"round {number} of the run {run[:8]}"
    of: dict[str, list[tuple[str, Entry]]] = collections.defaultdict(list)
    for name, entry in entries:
        of[entry.kind].append((name, entry))
    yield from _differing(
        "equivocation",
        f"{where}: the opened sums",
        of["opened"],
        ("transcript", "counts", "clients", "label"),
        run,
        number,
    )
    begun = of["contribution"] + of["opened"] + of["dead"]
    yield from _differing("round-terms", f"{where}: the terms", begun, ("terms",), run, number)
    yield from _differing(
        "two-sets", f"{where}: the sets that members answered to", of["answer"], ("included",), run, number
    )
    if of["dead"] and of["opened"]:
        yield Finding(
            "dead-and-opened",
            True,
            f"{where}: {_names(of['dead'])} hold a proof that it opens nothing, {_names(of['opened'])} saw it opened",
            tuple(sorted({name for name, _ in of["dead"]})),
            run,
            number,
            (of["dead"][0][1], of["opened"][0][1]),
        )
    yield from _contributions(place, where, of)
    yield from _opened_sets(roster, place, where, of)


def _names(entries: Iterable[tuple[str, Entry]]) -> str:
    return ", ".join(sorted({name for name, _ in entries}))


def _contributions(place: Round, where: str, of: Mapping[str, list[tuple[str, Entry]]]) -> Iterator[Finding]:
    run, number = place
    charged = {name: entry.number for name, entry in reversed(of["charge"])}
    digests: dict[str, Entry] = {}
    for name, entry in of["contribution"]:
        earlier = digests.setdefault(name, entry)
        if earlier.facts["digest"] != entry.facts["digest"]:
            words = f"{where}: {name} sent two different contributions"
            yield Finding("twice", True, words, (name,), run, number, (earlier, entry))
        elif earlier is entry and charged.get(name, entry.number) >= entry.number:
            words = f"{where}: {name} sent a contribution that its ledger was not charged for before"
            yield Finding("uncharged", True, words, (name,), run, number, (entry,))
    if not of["opened"] and not of["dead"] and digests:
        words = f"{where}: no log has an opening nor a proof that there is none; what {_names(of['contribution'])} charged stays charged"
        yield Finding("open-end", False, words, tuple(sorted(digests)), run, number)


def _opened_sets(
    roster: Roster, place: Round, where: str, of: Mapping[str, list[tuple[str, Entry]]]
) -> Iterator[Finding]:
    run, number = place
    if not of["opened"]:
        return
    logged = {name for entries in of.values() for name, _ in entries}
    sent, saw = {name for name, _ in of["contribution"]}, {name for name, _ in of["opened"]}
    inside = {key for _, entry in of["opened"] for key in entry.facts["clients"]}
    strangers = inside - {key.hex() for key in roster_keys(roster)}
    if strangers:
        words = f"{where}: the opened sum has {len(strangers)} senders that are no sites of the roster"
        yield Finding("stranger-in-sum", True, words, (), run, number, (of["opened"][0][1],))
    if small := [(name, entry) for name, entry in of["opened"] if len(set(entry.facts["clients"])) < roster.minimum]:
        words = f"{where}: {_names(small)} saw a sum of fewer than {roster.minimum} sites opened"
        yield Finding("tiny", True, words, tuple(name for name, _ in small), run, number, (small[0][1],))
    for party in roster.sites:
        name, key = party.name, party.public.hex()
        if key in inside and name in logged and name not in sent:
            words = f"{where}: the opened sum names {name}, whose log has no contribution to it"
            yield Finding("never-sent", True, words, (name,), run, number, (of["opened"][0][1],))
        if key not in inside and name in sent:
            words = f"{where}: {name} sent a contribution that is in no opened sum (late, lost or refused); it stays charged"
            yield Finding("left-out", False, words, (name,), run, number)
        if key in inside and name in sent and name not in saw:
            words = f"{where}: {name} is in the sum and did not write down its opening (it was away, or stopped)"
            yield Finding("not-seen", False, words, (name,), run, number)


def _against_transcripts(roster: Roster, said: Said, holding: Mapping[str, Shown]) -> Iterator[Finding]:
    """Logs against transcripts that hold."""
    by_place: dict[Round, Shown] = {}
    for name, shown in holding.items():
        earlier = by_place.setdefault((shown.run, shown.round), shown)
        if earlier.counts != shown.counts or earlier.clients != shown.clients:
            words = f"the transcripts {earlier.name} and {name} are of one round and open different sums"
            yield Finding("two-openings", True, words, (), shown.run, shown.round)
    rounds = _by_round(said)
    for place, shown in by_place.items():
        run, number = place
        where = f"round {number} of the run {run[:8]}"
        for name, entry in rounds.get(place, []):
            wrong = _unlike(roster, name, entry, shown)
            if wrong:
                words = f"{where}: the log of {name} has other {wrong} than the transcript {shown.name}"
                yield Finding("unlike-transcript", True, words, (name,), run, number, (entry,))
        if place not in rounds:
            who = [named(roster, key) for key, _ in shown.clients]
            lacking = sorted(set(who) & set(said))
            if lacking:
                words = f"{where}: the transcript {shown.name} opens a sum with {', '.join(lacking)}, whose logs do not have this round"
                yield Finding("never-sent", True, words, tuple(lacking), run, number)
    untold = collections.defaultdict[str, list[int]](list)
    for (run, number), entries in rounds.items():
        if (run, number) not in by_place and any(entry.kind == "opened" for _, entry in entries):
            untold[run].append(number)
    for run, numbers in untold.items():  # one line a run: that of another run is usually in another folder, all of it
        listed = ", ".join(map(str, sorted(numbers)[:8])) + (", ..." if len(numbers) > 8 else "")
        words = f"{len(numbers)} rounds of the run {run[:8]} were opened, and their transcripts are not here: {listed}"
        yield Finding("no-transcript", False, words, (), run, min(numbers))


def _unlike(roster: Roster, name: str, entry: Entry, shown: Shown) -> str:
    """What an entry says otherwise than the transcript of its round; empty if nothing."""
    facts = entry.facts
    own = dict(shown.clients).get(party_of(roster, name).public)
    wrong = []
    if "terms" in facts and facts["terms"] != shown.terms:
        wrong.append("terms")
    if entry.kind == "contribution" and own is not None and facts["digest"] != own.hex():
        wrong.append("contribution")
    if entry.kind == "answer" and facts["included"] != shown.included:
        wrong.append("set")
    if entry.kind == "opened":
        if facts["counts"] != shown.counts:
            wrong.append("counts")
        if facts["transcript"] != shown.digest:
            wrong.append("bytes of a transcript")
        if sorted(facts["clients"]) != sorted(key.hex() for key, _ in shown.clients):
            wrong.append("sites in the sum")
    return " and ".join(wrong)
