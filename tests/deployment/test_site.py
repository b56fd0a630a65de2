"""A site's worker before its rounds: what it signs, what it starts, and what it refuses, each refusal with its twin."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fedjax_poisson import accounting
from fedjax_poisson.accounting.variance_cost import Normal
from fedjax_poisson.deployment import approvals, run_terms, site
from fedjax_poisson.deployment.common_settings import common_config, read_settings
from fedjax_poisson.deployment.identity import Identity
from fedjax_poisson.deployment.policy import (
    ApprovalPolicy,
    ConsortiumPolicy,
    DataPolicy,
    LimitPolicy,
    Policy,
    PrivacyPolicy,
)
from fedjax_poisson.deployment.requests import Spoken, decode, encode
from fedjax_poisson.deployment.roster import Roster
from fedjax_poisson.deployment.run_terms import RunTerms, encode_run_terms, sign_run_terms
from fedjax_poisson.deployment.site import Worker
from fedjax_poisson.deployment.site_log import open_log
from fedjax_poisson.deployment.site_run import Progress, SiteRun
from tests.deployment.consortium import BOUNDS, write_tables
from tests.deployment.identities import NAMES, VERSION, people, roster_of, terms_of

NOON = datetime(2026, 3, 2, 12, 0).astimezone()


class Place(NamedTuple):
    """A site, and everybody's keys."""

    who: dict[str, Identity]
    roster: Roster
    worker: Worker
    state: Path
    again: Callable[..., Worker]
    started: list[str]


def settings(**changed: Any) -> dict[str, Any]:
    return {
        "label": "ill",
        "bounds": BOUNDS,
        "largest_site": 64,
        "epsilon": 2.0,
        "delta": 1e-4,
        "rounds": 5,
        "evaluation": "none",
        **changed,
    }


def terms(place: Place, changes: dict[str, Any] | None = None, **changed: Any) -> RunTerms:
    """Terms of a run that the site's policy allows, or with some settings changed."""
    config = read_settings(settings(**changed), "run.toml", place.roster)
    usual: dict[str, Any] = {
        "config": common_config(config),
        "version": VERSION,
        "begin_before": int(NOON.timestamp()) + 864_000,
    }
    return dataclasses.replace(terms_of(place.roster), **{**usual, **(changes or {})})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    who = people()
    roster = roster_of(who)
    table = write_tables(tmp_path, ("east",))["east"]
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    started: list[str] = []

    class Quiet:
        position = 0

    def start(party: Any, config: Any, out: Path, **rest: Any) -> SiteRun:
        """A run that only says that it is there: training is tested elsewhere."""
        started.append(out.parent.name)
        return SiteRun(Quiet(), lambda: Progress("running", None, "", None), out, lambda seconds: None)  # type: ignore[arg-type]

    monkeypatch.setattr(site, "start", start)
    policy = Policy(
        consortium=ConsortiumPolicy(roster="roster.toml", name="east"),
        data=DataPolicy(csv=str(table), labels=["ill"], columns=["age", "pressure", "smoker"]),
        privacy=PrivacyPolicy(unit="record", epsilon=3.0, delta=1e-4, least_honest_others=2, minimum_senders=4),
        limits=LimitPolicy(hours="07:00-19:00", rounds_per_day=100),
        approval=ApprovalPolicy(mode="automatic"),
    )

    def again(mode: str = "automatic", now: datetime = NOON) -> Worker:
        own = dataclasses.replace(policy, approval=ApprovalPolicy(mode=mode))  # type: ignore[arg-type]
        return Worker(state, own, roster, who["east"], open_log(state / "site.log", who["east"]), now=lambda: now)

    worker = again()
    return Place(who, roster, worker, state, again, started)


def ask(worker: Worker, word: str, *parts: bytes) -> Spoken:
    return decode(worker.handle(encode(Spoken(word, parts))))


def why(worker: Worker, word: str, *parts: bytes) -> str:
    said = ask(worker, word, *parts)
    assert said.word == "refused", said.word
    return said.parts[0].decode()


def signatures(place: Place, run: RunTerms) -> bytes:
    return json.dumps({name: sign_run_terms(one, run).hex() for name, one in place.who.items()}).encode()


def test_a_run_that_the_policy_allows_is_signed_and_noted_once(place: Place) -> None:
    run = terms(place)
    first, second = (ask(place.worker, "propose", encode_run_terms(run)) for _ in range(2))
    assert first.word == second.word == "signed"
    every = {name: sign_run_terms(one, run) for name, one in place.who.items()}
    run_terms.check_signatures(place.roster, run, {**every, "east": first.parts[0]})
    worker_log = [entry for entry in place.worker._log.entries() if entry.kind == "terms"]
    assert [entry.facts["terms"] for entry in worker_log] == [run_terms.run_terms_hash(run).hex()]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"epsilon": 3.5}, "privacy.epsilon"),
        ({"delta": 1e-3}, "privacy.delta"),
        ({"adjacency": "replace_one"}, "privacy.adjacency"),
        ({"rounds": 1000}, "limits.rounds_per_day"),
    ],
)
def test_a_run_beyond_the_policy_is_refused_with_the_reason(place: Place, changed: dict[str, Any], reason: str) -> None:
    assert reason in why(place.worker, "propose", encode_run_terms(terms(place, **changed)))
    assert not [entry for entry in place.worker._log.entries() if entry.kind == "terms"]
    assert ask(place.worker, "propose", encode_run_terms(terms(place))).word == "signed"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"roster": bytes(32)}, "has pinned"),
        ({"version": "9.9.9"}, "version"),
        ({"protocol": 2}, "protocol"),
        ({"most_rounds": 1 << 30}, "most_rounds"),
        ({"deadline_seconds": 0}, "deadline_seconds"),
        ({"begin_before": int(NOON.timestamp()) - 1}, "propose it again"),
        ({"begin_before": int(NOON.timestamp()) + 400 * 86400}, "a year at most"),
    ],
)
def test_terms_that_no_site_takes_part_in_are_refused(place: Place, changes: dict[str, Any], reason: str) -> None:
    assert reason in why(place.worker, "propose", encode_run_terms(terms(place, changes)))


def test_bytes_that_are_no_terms_and_words_that_are_no_request_are_refused(place: Place) -> None:
    blob = encode_run_terms(terms(place))
    for parts in ((), (b"",), (blob[:-1],), (blob + b"x",), (b"\xff" * 400_000,)):
        assert ask(place.worker, "propose", *parts).word == "refused"
    assert "no request" in why(place.worker, "open sesame")
    assert decode(place.worker.handle(b"GET / HTTP/1.1")).word == "refused"
    assert "No run is under way" in why(place.worker, "next")
    assert ask(place.worker, "hello").word == "at-home"


def test_a_table_that_does_not_fit_is_told_to_the_site_alone(place: Place, tmp_path: Path) -> None:
    said: list[str] = []
    place.worker._say = said.append
    table = Path(place.worker._policy.data.csv)
    table.write_text(table.read_text().replace("\n", "\nMrs Miller,1,1,0\n", 1))
    reason = why(place.worker, "propose", encode_run_terms(terms(place)))
    assert "Miller" not in reason and str(tmp_path) not in reason
    assert any("Miller" in words for words in said)


def test_a_run_starts_only_with_everybodys_signature_under_these_terms(place: Place) -> None:
    run, other = terms(place), terms(place, rounds=6)
    blob, every = encode_run_terms(run), signatures(place, run)
    lacking = json.loads(every)
    del lacking["york"]
    for signed in (b"{}", b"[]", json.dumps(lacking).encode(), signatures(place, other)):
        assert ask(place.worker, "start", blob, signed).word == "refused"
    assert place.started == []
    assert ask(place.worker, "start", blob, every).word == "started"
    assert ask(place.worker, "start", blob, every).word == "started"  # the same request twice
    assert place.started == [run.run.hex()]
    assert "Another run is under way" in why(place.worker, "start", encode_run_terms(other), signatures(place, other))


def test_a_start_is_judged_by_the_policy_like_a_proposal(place: Place) -> None:
    run = terms(place, epsilon=3.5)  # all the others signed it
    assert "privacy.epsilon" in why(place.worker, "start", encode_run_terms(run), signatures(place, run))
    assert place.started == []


def test_a_person_approves_before_anything_is_signed(place: Place) -> None:
    place.worker.close()
    worker, run = place.again("by hand"), terms(place)
    blob = encode_run_terms(run)
    assert "approval.mode" in why(worker, "propose", blob)
    assert [one.run for one in approvals.waiting(place.state, NOON)] == [run.run]
    approvals.approve(place.state, terms(place, rounds=6))  # somebody's yes to other terms is none to these
    assert "approval.mode" in why(worker, "propose", blob)
    approvals.approve(place.state, run)
    assert ask(worker, "propose", blob).word == "signed"


def test_outside_the_hours_nothing_is_signed_and_no_round_is_taken_part_in(place: Place) -> None:
    run = terms(place)
    assert ask(place.worker, "start", encode_run_terms(run), signatures(place, run)).word == "started"
    place.worker._now = lambda: NOON.replace(hour=20)
    assert "limits.hours" in why(place.worker, "invite", b"", b"")
    assert "limits.hours" in why(place.worker, "propose", encode_run_terms(run))


def test_a_run_that_has_begun_is_begun_again_after_the_time_until_which_it_may_begin(place: Place) -> None:
    run, other = terms(place), terms(place, {"run": b"another run here"})
    for one in (run, other):
        ask(place.worker, "propose", encode_run_terms(one))
    assert ask(place.worker, "start", encode_run_terms(run), signatures(place, run)).word == "started"
    place.worker.close()
    (place.state / "current.json").unlink()
    late = place.again(now=NOON + timedelta(days=20))
    assert ask(late, "start", encode_run_terms(run), signatures(place, run)).word == "started"
    late.close()
    (place.state / "current.json").unlink()
    late = place.again(now=NOON + timedelta(days=20))  # the twin: the other one was signed and never begun
    assert "propose it again" in why(late, "start", encode_run_terms(other), signatures(place, other))
    assert "propose it again" in why(late, "propose", encode_run_terms(run))


def test_a_worker_that_starts_again_takes_up_its_run(place: Place) -> None:
    run = terms(place)
    ask(place.worker, "start", encode_run_terms(run), signatures(place, run))
    place.worker.close()
    place.again()
    assert place.started == [run.run.hex()] * 2


def test_a_ledger_that_is_older_than_the_log_is_refused(place: Place) -> None:
    ledger = accounting.open_ledger(
        place.state / "ledger.sqlite",
        epsilon=3.0,
        delta=1e-4,
        reserve=5e-6,
        unit="record",
        adjacency="zero_out",
        law="tight",
    )
    ledger.spend("train", "train 1", "poisson_embedding", {}, Normal(0.01), 3, 4)
    pin = ledger.pin()
    ledger.close()
    log = place.worker._log
    log.append("charge", run="00" * 16, round=1, label="train 1", epsilon=0.1, rows=pin.rows, ledger=pin.head)
    place.worker.close()
    place.again().close()  # the ledger that was charged
    (place.state / "ledger.sqlite").rename(place.state / "newest")
    blob, said = encode_run_terms(terms(place)), list[str]()
    lost = place.again()
    lost._say = said.append
    assert ask(lost, "propose", blob).word == "refused" and "is missing" in said[-1]
    lost.close()
    accounting.open_ledger(
        place.state / "ledger.sqlite",
        epsilon=3.0,
        delta=1e-4,
        reserve=5e-6,
        unit="record",
        adjacency="zero_out",
        law="tight",
    ).close()
    older = place.again()
    assert ask(older, "propose", blob).word == "refused"
    older.close()
    (place.state / "newest").replace(place.state / "ledger.sqlite")
    assert ask(place.again(), "propose", blob).word == "signed"


def test_the_key_must_be_the_one_on_the_roster(place: Place) -> None:
    place.worker.close()
    with pytest.raises(ValueError, match="another key for 'east'"):
        Worker(
            place.state,
            place.worker._policy,
            place.roster,
            place.who["york"],
            open_log(place.state / "other.log", place.who["york"]),
        )
    assert NAMES[0] == "east"
