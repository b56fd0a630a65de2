"""A whole run through workers, an operator without records and the coordinator, and what their logs say of it."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fedjax_poisson.aggregation.messages import Notice, encode_notice
from fedjax_poisson.aggregation.wire import u64
from fedjax_poisson.deployment.common_settings import common_config, read_settings
from fedjax_poisson.deployment.coordinator import (
    MODEL,
    RESULT,
    TERMS,
    TRANSCRIPTS,
    NotSigned,
    coordinate,
    standing,
    without_score,
)
from fedjax_poisson.deployment.identity import Identity
from fedjax_poisson.deployment.log_check import check_logs
from fedjax_poisson.deployment.operator import Operator
from fedjax_poisson.deployment.policy import (
    ApprovalPolicy,
    ConsortiumPolicy,
    DataPolicy,
    LimitPolicy,
    Policy,
    PrivacyPolicy,
)
from fedjax_poisson.deployment.requests import Spoken, decode, encode
from fedjax_poisson.deployment.roster import Party, Roster
from fedjax_poisson.deployment.row_check import contributions_in, with_rows
from fedjax_poisson.deployment.run_terms import (
    RunTerms,
    decode_run_terms,
    encode_run_terms,
    sign_run_terms,
    signature_bytes,
)
from fedjax_poisson.deployment.site import Worker
from fedjax_poisson.deployment.site_log import open_log, read_log
from fedjax_poisson.deployment.transport.in_process import in_process
from fedjax_poisson.federated.saved_model import predict
from tests.deployment.consortium import BOUNDS, write_tables
from tests.deployment.identities import people, terms_of

SITES = ("east", "north")


class Everybody(NamedTuple):
    """All parties of a consortium, in this process."""

    folder: Path
    who: dict[str, Identity]
    roster: Roster
    workers: dict[str, Worker | Operator]
    config: str


def settings(roster: Roster, **changed: Any) -> str:
    asked = {
        "label": "ill",
        "bounds": BOUNDS,
        "largest_site": 64,
        "epsilon": 6.0,
        "delta": 1e-4,
        "rounds": 2,
        "evaluation": "private",
        **changed,
    }
    return common_config(read_settings(asked, "run.toml", roster))


@pytest.fixture(scope="module")
def everybody(tmp_path_factory: pytest.TempPathFactory) -> Everybody:
    folder = tmp_path_factory.mktemp("everybody")
    who = people((*SITES, "notary"))
    roster = Roster(
        name="Two hospitals and a notary",
        sites=tuple(Party(name, who[name].public) for name in SITES),
        operators=(Party("notary", who["notary"].public),),
        members=(*SITES, "notary"),
        threshold=2,
        malicious=0,
        corrupt=0,
        minimum=2,
    )
    tables = write_tables(folder, SITES)
    workers: dict[str, Worker | Operator] = {}
    for name in (*SITES, "notary"):
        state = folder / name
        state.mkdir(mode=0o700)
        log = open_log(state / "site.log", who[name])
        if name == "notary":
            workers[name] = Operator(state, roster, who[name], log)
            continue
        policy = Policy(
            consortium=ConsortiumPolicy(roster="-", name=name),
            data=DataPolicy(csv=str(tables[name]), labels="all", columns="all"),
            privacy=PrivacyPolicy(unit="record", epsilon=7.0, delta=1e-4, least_honest_others=1, minimum_senders=2),
            limits=LimitPolicy(),
            approval=ApprovalPolicy(mode="automatic"),
        )
        workers[name] = Worker(state, policy, roster, who[name], log)
    return Everybody(folder, who, roster, workers, settings(roster))


def link_of(everybody: Everybody) -> Any:
    return in_process({name: worker.handle for name, worker in everybody.workers.items()})


def test_everybody_signs_the_run_goes_through_and_all_logs_agree(everybody: Everybody) -> None:
    out, labels = everybody.folder / "out", []
    link = link_of(everybody)
    ended = coordinate(
        link, everybody.roster, everybody.config, out, step=lambda one: labels.append(one.label), patience_seconds=1.0
    )
    assert labels == ["standardise 0", "train 1", "train 2", "evaluate 2"]
    assert ended.agree == SITES and not ended.away
    assert ended.facts["verdict"] == "private" and ended.facts["epsilon"] <= 6.0
    result = json.loads((out / RESULT).read_text())
    assert result["stated_by"] == list(SITES) and result["released"]["epsilon"] == ended.facts["epsilon"]
    named = set(result["released"]["accuracy_by_site"])
    assert set(result["sites_without_score"]) == set(SITES) - named
    assert without_score(everybody.roster, {"accuracy_by_site": {"north": 0.5}}) == ["east"]
    assert without_score(everybody.roster, {"accuracy_by_site": None}) == []
    transcripts = sorted((out / TRANSCRIPTS).glob("*.round"))
    assert len(transcripts) == 4 and (out / RESULT).is_file()
    table = everybody.folder / "east.csv"
    assert predict(out / MODEL, str(table)).labels.shape == (40,)
    logs = {name: (everybody.folder / name / "site.log").read_bytes() for name in everybody.workers}
    found = check_logs(everybody.roster, logs, {path.name: path.read_bytes() for path in transcripts})
    assert found.sound, found
    (run,) = (everybody.folder / "east" / "runs").iterdir()
    sent = {name: contributions_in(everybody.folder / name / "runs" / run.name / "client.sqlite") for name in SITES}
    rounds = {path.name: path.read_bytes() for path in transcripts}
    kinds = [one.kind for one in with_rows(found, everybody.roster, rounds, sent).findings]
    assert kinds.count("rows") == 4 and not {"rows-moved", "rows-missing"} & set(kinds)
    kinds = [
        one.kind for one in with_rows(found, everybody.roster, rounds, {"east": sent["east"]}).findings
    ]  # the twin
    assert kinds.count("rows-missing") == 4
    notary = [entry.kind for entry in read_log(everybody.folder / "notary" / "site.log")]
    assert notary == ["terms", "started", *["answer"] * notary.count("answer")] and notary.count("answer") >= 2
    again = coordinate(link, everybody.roster, everybody.config, out, patience_seconds=1.0)  # it is over
    assert again.digests == ended.digests
    with pytest.raises(ValueError, match="other settings"):
        coordinate(link, everybody.roster, settings(everybody.roster, rounds=3), out)
    assert standing(out)["state"] == "over" and standing(out)["sums"] == 4
    stored = (out / TERMS).read_bytes()
    assert decode(everybody.workers["east"].handle(encode(Spoken("hello")))).word == "at-home" and stored


def test_a_second_run_beyond_the_sites_ledgers_is_signed_by_nobody(everybody: Everybody, tmp_path: Path) -> None:
    """After the run above the ledgers have nothing left for another like it."""
    if not (everybody.folder / "out").exists():
        pytest.skip("needs the run of the test above")
    with pytest.raises(NotSigned, match=r"privacy\.epsilon"):
        coordinate(link_of(everybody), everybody.roster, everybody.config, tmp_path / "second")
    assert not (tmp_path / "second" / "signatures.json").exists()
    assert standing(tmp_path / "second")["state"] == "waiting for signatures"
    with pytest.raises(FileNotFoundError, match="holds no run"):
        standing(tmp_path / "none")


def test_a_member_refuses_what_is_not_its_consortiums(everybody: Everybody) -> None:
    notary = everybody.workers["notary"]
    other = dataclasses.replace(terms_of(everybody.roster), config=everybody.config, roster=bytes(32))
    assert decode(notary.handle(encode(Spoken("propose", (encode_run_terms(other),))))).word == "refused"
    mine = dataclasses.replace(terms_of(everybody.roster), config=everybody.config)
    assert decode(notary.handle(encode(Spoken("propose", (encode_run_terms(mine),))))).word == "signed"
    assert decode(notary.handle(encode(Spoken("start", (encode_run_terms(mine), b"{}"))))).word == "refused"
    assert decode(notary.handle(encode(Spoken("invite", (b"", b""))))).word == "refused"
    assert decode(notary.handle(b"")).word == "refused"


# The notary is killed and begins again; each refusal has a twin in which nothing was done to its files


def notary_again(everybody: Everybody, roster: Roster | None = None) -> tuple[Operator, list[str]]:
    """The notary's next life, and what it says to a person."""
    everybody.workers["notary"].close()
    state, said = everybody.folder / "notary", list[str]()
    log = open_log(state / "site.log", everybody.who["notary"])
    made = Operator(state, roster or everybody.roster, everybody.who["notary"], log, say=said.append)
    everybody.workers["notary"] = made
    return made, said


def begin_notice(everybody: Everybody) -> bytes:
    """The first notice of a round that none was before."""
    run = decode_run_terms((everybody.folder / "out" / TERMS).read_bytes()).run
    return encode(Spoken("notice", (encode_notice(Notice("begin", run + u64(1000))),)))


def test_a_member_goes_on_after_a_restart_and_not_with_a_lost_or_older_store(everybody: Everybody) -> None:
    if not (everybody.folder / "out").exists():
        pytest.skip("needs the run of the first test")
    (folder,) = (everybody.folder / "notary" / "runs").iterdir()
    notary, said = notary_again(everybody)
    assert said == [] and decode(notary.handle(begin_notice(everybody))).word == "said"  # the twin
    notary.close()
    files = sorted(folder.glob("member.sqlite*"))
    assert len(files) >= 2
    for path in files:
        path.rename(path.with_name(f"away-{path.name}"))
    notary, said = notary_again(everybody)
    assert "was lost, or set back" in said[-1]
    refusal = decode(notary.handle(begin_notice(everybody)))
    assert refusal.word == "refused" and b"No run is under way" in refusal.parts[0]
    start = Spoken(
        "start", tuple((everybody.folder / "out" / name).read_bytes() for name in (TERMS, "signatures.json"))
    )
    refusal = decode(notary.handle(encode(start)))  # nor may the coordinator begin it anew
    assert refusal.word == "refused" and str(everybody.folder).encode() not in refusal.parts[0]
    assert decode(notary.handle(begin_notice(everybody))).word == "refused"
    notary.close()
    for path in files:
        path.unlink(missing_ok=True)
        path.with_name(f"away-{path.name}").rename(path)
    notary, said = notary_again(everybody)
    assert said == [] and decode(notary.handle(begin_notice(everybody))).word == "said"


def test_a_member_takes_up_no_run_of_another_roster_or_version(
    everybody: Everybody, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (everybody.folder / "out").exists():
        pytest.skip("needs the run of the first test")
    notary, said = notary_again(everybody, dataclasses.replace(everybody.roster, name="Another consortium"))
    assert "has pinned" in said[-1] and decode(notary.handle(begin_notice(everybody))).word == "refused"
    from fedjax_poisson.deployment import signed_runs

    monkeypatch.setattr(signed_runs.metadata, "version", lambda name: "9.9.9")
    notary, said = notary_again(everybody)
    assert "version" in said[-1] and decode(notary.handle(begin_notice(everybody))).word == "refused"
    monkeypatch.undo()
    notary, said = notary_again(everybody)
    assert said == [] and decode(notary.handle(begin_notice(everybody))).word == "said"  # the twin


def test_a_member_signs_one_set_of_terms_for_a_run_and_none_whose_time_is_over(everybody: Everybody) -> None:
    notary = everybody.workers["notary"]
    one = dataclasses.replace(terms_of(everybody.roster), config=everybody.config, run=b"one name a run!!")
    assert decode(notary.handle(encode(Spoken("propose", (encode_run_terms(one),))))).word == "signed"
    for changes, reason in (({"most_rounds": 7}, b"one set of terms"), ({"begin_before": 1}, b"propose it again")):
        other = encode_run_terms(dataclasses.replace(one, **changes))
        refusal = decode(notary.handle(encode(Spoken("propose", (other,)))))
        assert refusal.word == "refused" and reason in refusal.parts[0]
    assert decode(notary.handle(encode(Spoken("propose", (encode_run_terms(one),))))).word == "signed"  # the twin


def test_a_member_begins_a_run_again_after_its_time_and_no_new_one(everybody: Everybody, tmp_path: Path) -> None:
    who, roster, clock = everybody.who["notary"], everybody.roster, [datetime.now(UTC)]
    log = open_log(tmp_path / "site.log", who)
    notary = Operator(tmp_path, roster, who, log, now=lambda: clock[0])
    usual = terms_of(roster)
    day = int(clock[0].timestamp()) + 86400
    first, second, never = (
        dataclasses.replace(usual, config=everybody.config, run=bytes([k]) * 16, begin_before=day) for k in range(3)
    )

    def start(terms: RunTerms) -> Spoken:
        signed = {name: sign_run_terms(one, terms) for name, one in everybody.who.items()}
        return decode(notary.handle(encode(Spoken("start", (encode_run_terms(terms), signature_bytes(signed))))))

    for terms in (first, second, never):
        assert decode(notary.handle(encode(Spoken("propose", (encode_run_terms(terms),))))).word == "signed"
    assert start(first).word == start(second).word == "started"
    clock[0] += timedelta(days=2)
    assert start(first).word == "started"
    refusal = start(never)  # the twin
    assert refusal.word == "refused" and b"propose it again" in refusal.parts[0]
    notary.close()
    (tmp_path / "current.json").write_text("{}")
    said: list[str] = []
    Operator(tmp_path, roster, who, open_log(tmp_path / "site.log", who), say=said.append).close()
    assert "does not name a run" in said[-1]


def test_a_proposal_that_ended_unsigned_is_not_proposed_again(everybody: Everybody, tmp_path: Path) -> None:
    silent = in_process(dict.fromkeys((*SITES, "notary"), lambda blob: b"nothing"))
    with pytest.raises(NotSigned, match="Malformed"):
        coordinate(silent, everybody.roster, everybody.config, tmp_path / "out")
    terms = decode_run_terms((tmp_path / "out" / TERMS).read_bytes())
    with pytest.raises(NotSigned, match="Malformed"):  # the twin: it holds for two weeks
        coordinate(silent, everybody.roster, everybody.config, tmp_path / "out")
    (tmp_path / "out" / TERMS).write_bytes(encode_run_terms(dataclasses.replace(terms, begin_before=10**9)))
    with pytest.raises(ValueError, match="holds a proposal that ended on 2001-09-09"):
        coordinate(silent, everybody.roster, everybody.config, tmp_path / "out")
