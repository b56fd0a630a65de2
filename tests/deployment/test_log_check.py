"""Every finding, with one changed log beside clean ones; the clean logs are the twin of all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from fedjax_poisson.deployment import identity
from fedjax_poisson.deployment.log_check import check_logs
from tests.deployment.identities import person
from tests.deployment.logs import (
    SITES,
    Script,
    change,
    clean,
    consortium,
    drop,
    found,
    log_of,
    logs_of,
    step,
)

OTHER = "99" * 32


def grave(findings) -> list[str]:
    return [one.kind for one in findings.findings if one.grave]


def notes(findings) -> list[str]:
    return [one.kind for one in findings.findings if not one.grave]


def kept() -> dict[str, bytes]:
    return {"train-1.round": consortium().transcript}


def test_clean_logs_agree_with_each_other_and_with_the_transcript() -> None:
    findings = found(clean(), kept())
    assert findings.sound and grave(findings) == [] and findings.missing == ()
    assert notes(findings) == ["left-out", "no-transcript"]  # york in round 2, and that round has no file
    assert findings.rounds == 2 and findings.transcripts == 1
    assert {name: list(runs.values()) for name, runs in findings.epsilon.items()} == {name: [0.75] for name in SITES}
    assert notes(found(clean())) == ["left-out"]  # nothing is asked of transcripts that were not given


def test_who_gives_no_log_is_missing_and_nothing_is_concluded() -> None:
    script = clean()
    del script["west"], script["member-3"]
    findings = found(script, kept())
    assert findings.sound and findings.missing == ("west", "member-3")


CASES: dict[str, tuple[str, Callable[[Script], Script], tuple[str, ...]]] = {
    "other terms of the run": ("terms", lambda s: change(s, "west", "terms", terms=OTHER), ("west",)),
    "terms of another consortium": ("other-roster", lambda s: change(s, "west", "terms", roster=OTHER), ("west",)),
    "no terms at all": ("no-terms", lambda s: drop(s, "west", "terms"), ("west",)),
    "another sum": ("equivocation", lambda s: change(s, "west", "opened", 2, counts=OTHER), ("west",)),
    "another transcript": ("equivocation", lambda s: change(s, "west", "opened", 2, transcript=OTHER), ("west",)),
    "another label": ("equivocation", lambda s: change(s, "west", "opened", 2, label="score 1"), ("west",)),
    "another set": (
        "equivocation",
        lambda s: change(s, "west", "opened", 2, clients=[consortium().who[n].public.hex() for n in SITES]),
        ("west",),
    ),
    "other terms of a round": ("round-terms", lambda s: change(s, "west", "contribution", 2, terms=OTHER), ("west",)),
    "members answer to two sets": ("two-sets", lambda s: change(s, "member-2", "answer", 2, included=OTHER), ("member-2",)),
    "no charge": ("uncharged", lambda s: drop(s, "west", "charge", 2), ("west",)),
    "never sent": ("never-sent", lambda s: drop(s, "west", "contribution", 2), ("west",)),
    "dead and opened": (
        "dead-and-opened",
        lambda s: {
            **s,
            "west": [*s["west"], ("dead", {"run": s["west"][0][1]["run"], "round": 2, "terms": "02" * 32})],
        },
        ("west",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_in_one_log_is_found_and_named(case: str) -> None:
    kind, changed, sites = CASES[case]
    findings = found(changed(clean()))
    assert not findings.sound and grave(findings) == [kind], [one.words for one in findings.findings]
    (one,) = (one for one in findings.findings if one.grave)
    assert one.sites == sites
    for entry in one.proof:  # a proof can be shown to others: it is signed by the sites themselves
        assert any(_signed(entry, who) for who in consortium().who.values())
    assert one.proof


def _signed(entry, who) -> bool:
    try:
        identity.verify(who.public, "log", entry.hash, entry.signature)
    except Exception:
        return False
    return True


def test_a_charge_after_the_contribution_is_none_before_it() -> None:
    script = clean()
    at = step(script, "west", "charge", 2)
    script["west"][at], script["west"][at + 1] = script["west"][at + 1], script["west"][at]
    assert grave(found(script)) == ["uncharged"]


def test_two_contributions_in_a_round_are_found_and_the_same_one_again_is_not() -> None:
    script = clean()
    at = step(script, "west", "contribution", 2)
    script["west"].insert(at + 1, script["west"][at])
    assert found(script).sound
    kind, facts = script["west"][at + 1]
    script["west"][at + 1] = (kind, {**facts, "digest": OTHER})
    findings = found(script)
    assert grave(findings) == ["twice"] and findings.findings[0].sites == ("west",)


def test_a_member_that_answers_twice_is_found() -> None:
    script = clean()
    at = step(script, "member-2", "answer", 2)
    kind, facts = script["member-2"][at]
    script["member-2"].insert(at, (kind, {**facts, "included": OTHER}))
    assert grave(found(script)) == ["two-sets"]


@pytest.mark.parametrize(("left", "kinds"), [(3, []), (2, ["tiny"])])
def test_a_sum_of_too_few_is_found(left: int, kinds: list[str]) -> None:
    script = clean()
    inside = [consortium().who[name].public.hex() for name in SITES[:left]]
    for name in SITES:
        change(script, name, "opened", 2, clients=inside)
    assert grave(found(script)) == kinds


def test_a_sender_that_is_no_site_is_found() -> None:
    script = clean()
    inside = [consortium().who[name].public.hex() for name in (*SITES[:4], "member-1")]
    for name in SITES:
        change(script, name, "opened", 2, clients=inside)
    assert grave(found(script)) == ["stranger-in-sum"]


def test_a_round_without_an_end_and_a_site_that_was_away_are_only_noted() -> None:
    script = clean()
    for name in SITES:
        drop(script, name, "dead", 3)
    findings = found(script)
    assert findings.sound and notes(findings) == ["left-out", "open-end"]
    findings = found(drop(clean(), "west", "opened", 2))
    assert findings.sound and notes(findings) == ["not-seen", "left-out"]


def test_logs_that_are_not_what_a_site_wrote_are_named_by_their_file() -> None:
    logs = logs_of(clean())
    roster = consortium().roster
    changed = logs["west.log"].replace(b'"bytes":1000', b'"bytes":1001', 1)
    findings = check_logs(roster, {**logs, "west.log": changed})
    assert grave(findings) == ["damaged"] and "west.log" in findings.findings[0].words
    assert findings.missing == ("west",)
    middle = b"\n".join(line for place, line in enumerate(logs["west.log"].split(b"\n")) if place != 3)
    assert grave(check_logs(roster, {**logs, "west.log": middle})) == ["damaged"]
    assert grave(check_logs(roster, {**logs, "empty.log": b""})) == ["stranger"]
    torn = check_logs(roster, {**logs, "west.log": logs["west.log"] + b'{"number"'})
    assert torn.sound and "torn" in notes(torn)


def test_the_log_of_somebody_else_is_no_partys() -> None:
    from fedjax_poisson.deployment.log_entries import genesis, line_of, make_entry

    who = person()
    line = line_of(
        make_entry(
            who, 1, "2026-01-02T03:04:05+00:00", "ended", {"run": "00" * 16, "model": OTHER}, genesis(who.public)
        )
    )
    assert grave(found(clean(), None, other=line)) == ["stranger"]


def test_a_site_that_keeps_two_logs_is_found_and_an_older_copy_is_not_one() -> None:
    script = clean()
    older = log_of("west", script["west"][:-3])
    assert found(script, None, older=older).sound
    second = log_of("west", change(clean(), "west", "opened", 2, epsilon=0.1)["west"])
    findings = found(script, None, second=second)
    assert grave(findings) == ["forked"]
    one, two = findings.findings[0].proof
    assert one.number == two.number and one.hash != two.hash and _signed(one, consortium().who["west"])


def test_epsilon_is_what_was_charged_whatever_an_opening_says() -> None:
    run = consortium().world.run.hex()
    assert found(clean()).epsilon["west"] == {run: 0.75}
    script = change(change(clean(), "west", "opened", 1, epsilon=0.0), "west", "opened", 2, epsilon=0.0)
    script["west"] = script["west"][: step(script, "west", "opened", 2) + 1]  # ends with that entry
    assert found(script).epsilon["west"] == {run: 0.5}
    assert found(change(clean(), "west", "charge", 3, epsilon=0.1)).epsilon["west"] == {run: 0.5}


def test_what_was_cut_from_the_end_of_a_log_is_missed_by_the_others() -> None:
    """The chain of a shortened log holds; the others' logs show what is not in it."""
    script = clean()
    script["west"] = script["west"][: step(script, "west", "contribution", 2)]
    assert grave(found(script)) == ["never-sent"]


# Against transcripts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "facts", "words"),
    [
        ("opened", "opened", {"counts": OTHER}, "other counts"),
        ("opened", "opened", {"transcript": OTHER}, "other bytes of a transcript"),
        ("opened", "opened", {"clients": "four"}, "other sites in the sum"),
        ("terms", "dead", {}, "terms"),
    ],
)
def test_logs_that_all_agree_may_still_differ_from_the_transcript(
    name: str, kind: str, facts: dict, words: str
) -> None:
    script = clean()
    if facts.get("clients"):
        facts = {"clients": [consortium().who[each].public.hex() for each in SITES[:4]]}
    for site in SITES:
        if name == "opened":
            change(script, site, kind, 1, **facts)
        else:
            change(script, site, "opened", 1, terms=OTHER)
            change(script, site, "contribution", 1, terms=OTHER)
    assert found(script).sound  # without the transcript nothing is seen
    findings = found(script, kept())
    assert set(grave(findings)) == {"unlike-transcript"}
    assert all(words in one.words for one in findings.findings if one.grave)
    assert {one.sites[0] for one in findings.findings if one.grave} == set(SITES)


def test_another_contribution_than_the_site_wrote_down_is_found() -> None:
    findings = found(change(clean(), "west", "contribution", 1, digest=OTHER), kept())
    (one,) = (one for one in findings.findings if one.grave)
    assert one.kind == "unlike-transcript" and one.sites == ("west",) and "other contribution" in one.words


def test_an_answer_to_another_set_than_the_opened_one_is_found() -> None:
    script = clean()
    for name in consortium().roster.members:
        change(script, name, "answer", 1, included=OTHER)
    assert found(script).sound
    assert grave(found(script, kept())) == ["unlike-transcript"] * 6


def test_a_sum_with_sites_that_wrote_nothing_of_it_is_found() -> None:
    script = {name: [one for one in steps if one[1].get("round") != 1] for name, steps in clean().items()}
    assert found(script).sound
    findings = found(script, kept())
    assert grave(findings) == ["never-sent"] and findings.findings[-2].sites == SITES


def test_transcripts_that_do_not_hold_are_named() -> None:
    blob = consortium().transcript
    changed = blob[:-1] + bytes([blob[-1] ^ 1])
    findings = found(clean(), {"a.round": changed, "b.round": b"junk"})
    assert grave(findings)[:2] == ["transcript"] * 2 and findings.transcripts == 0
    assert "a.round" in findings.findings[1].words or "a.round" in findings.findings[0].words
    again = found(clean(), {"a.round": blob, "copy.round": blob})
    assert again.sound and again.transcripts == 2


def test_a_transcript_under_other_keys_does_not_hold() -> None:
    """It is consistent in itself; only the roster shows that its members are others."""
    import dataclasses

    from fedjax_poisson.aggregation.transcript import check_transcript

    blob, roster = consortium().transcript, consortium().roster
    check_transcript(blob)
    strangers = dataclasses.replace(
        roster, operators=tuple(party._replace(public=person().public) for party in roster.operators)
    )
    findings = check_logs(strangers, {}, {"a.round": blob})
    assert grave(findings) == ["transcript"] and "BadTerms" in findings.findings[0].words
    assert check_logs(roster, {}, {"a.round": blob}).sound


def test_counts_are_named_as_the_documentation_of_entries_says() -> None:
    opened = consortium().world.server.opened
    assert hashlib.sha256(opened.counts.astype("<i4").tobytes()).hexdigest() == consortium().counts


@pytest.mark.parametrize("other", [{"counts": OTHER}, {"clients": ()}, {}])
def test_two_openings_of_one_round_are_found_wherever_they_come_from(monkeypatch, other: dict) -> None:
    """No honest committee makes two; more than f malicious members could."""
    from fedjax_poisson.deployment import log_check
    from fedjax_poisson.deployment.log_transcripts import check_transcripts

    holding, _ = check_transcripts(consortium().roster, {"a.round": consortium().transcript})
    second = holding["a.round"]._replace(name="b.round", **other)
    monkeypatch.setattr(log_check, "check_transcripts", lambda roster, blobs: ({**holding, "b.round": second}, []))
    assert grave(found(clean(), kept())) == (["two-openings"] if other else [])


def test_a_finding_says_which_round_it_is_about() -> None:
    run = consortium().world.run.hex()
    for kind, changed, _ in CASES.values():
        (one,) = (one for one in found(changed(clean())).findings if one.grave)
        assert one.run == run and one.round == (None if kind in ("terms", "other-roster", "no-terms") else 2)
    left, lacking = found(clean(), kept()).findings
    assert (left.sites, left.round, lacking.round) == (("york",), 2, 2) and left.run == lacking.run == run


def test_only_what_takes_part_needs_terms() -> None:
    """A site that refused a run signed no terms of it; a member that answered did."""
    script = clean()
    run = script["west"][0][1]["run"]
    script["west"] = [("refused", {"reasons": ["privacy.epsilon"], "run": run})]
    for name in SITES:
        for number in (1, 2):
            if name != "west":
                inside = [consortium().who[each].public.hex() for each in ("east", "north", "south")]
                change(script, name, "opened", number, clients=inside)
    assert found(script).sound
    findings = found(drop(clean(), "member-2", "terms"))
    assert grave(findings) == ["no-terms"] and findings.findings[0].sites == ("member-2",)
