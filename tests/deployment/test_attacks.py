"""What a coordinator, a transport, one of the sites or an old backup could try; each attack has a twin in which nothing is wrong, which goes through."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedjax_poisson import randomness
from fedjax_poisson.accounting import Pin, open_ledger
from fedjax_poisson.aggregation import aggregator
from fedjax_poisson.aggregation.refusals import OutOfOrder, Oversize, RoundUsed
from fedjax_poisson.aggregation.store import memory_store
from fedjax_poisson.deployment import approvals, run_terms
from fedjax_poisson.deployment.conduct import conduct
from fedjax_poisson.deployment.coordinator import NotSigned, coordinate
from fedjax_poisson.deployment.errors import RoundLost, Uncharged
from fedjax_poisson.deployment.log_check import check_logs
from fedjax_poisson.deployment.party import Limits
from fedjax_poisson.deployment.proposal import sums_today
from fedjax_poisson.deployment.requests import Spoken, decode, encode, facts, words
from fedjax_poisson.deployment.round_at_server import RoundOver
from fedjax_poisson.deployment.seat import take_seat
from fedjax_poisson.runs.network import Standing
from fedjax_poisson.runs.run import Stopped
from tests.deployment import consortium
from tests.deployment.test_exchange import NAMES, SIZE, Group, Site, group, held, until_ready, wanted, watched
from tests.deployment.workers import Hospitals, with_policy, words_of

__all__ = ["group"]  # a fixture


# A whole consortium with folders, logs and ledgers


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    folder = tmp_path_factory.mktemp("done")
    made = Hospitals(folder).start_all()
    coordinate(made.link(), made.roster, made.config(rounds=1), folder / "coordinator", patience_seconds=2.0)
    yield made
    made.close()


def test_a_run_of_real_workers_writes_logs_that_hold_and_that_pin_the_ledger(done: Hospitals) -> None:
    for name in done.names:
        kinds = done.kinds(name)
        assert kinds[:2] == ["terms", "started"] and kinds.count("charge") == kinds.count("contribution") == 2
        charges = [entry.facts for entry in done.logs[name].entries() if entry.kind == "charge"]
        assert [facts["rows"] for facts in charges] == [1, 2]
    logs = {name: (done.folder / name / "site.log").read_bytes() for name in done.names}
    rounds = {path.name: path.read_bytes() for path in (done.folder / "coordinator" / "transcripts").glob("*.round")}
    assert len(rounds) == 2 and check_logs(done.roster, logs, rounds).sound


def moved(files: list[Path], back: bool = False) -> None:
    """Take files away, or put them back in the place of whatever was made instead."""
    for file in files:
        away = file.with_name(f"away-{file.name}")
        if back:
            file.unlink(missing_ok=True)
            away.rename(file)
        else:
            file.rename(away)


@pytest.mark.parametrize("older", [False, True])
def test_a_ledger_that_was_lost_or_set_back_is_not_begun_anew(done: Hospitals, older: bool) -> None:
    ledger, further = done.folder / "east" / "ledger.sqlite", done.terms(run=bytes([older]) * 16, rounds=1)
    done.stop("east")
    moved([ledger])
    if older:  # whole by itself, with the same budget, and nothing on it
        open_ledger(
            ledger, epsilon=20.0, delta=1e-4, reserve=5e-6, unit="record", adjacency="zero_out", law="tight"
        ).close()
    done.start("east")
    assert done.workers["east"].run is None and "releases" in done.heard["east"][-1]
    refusal = done.propose("east", further)
    assert refusal.word == "refused" and str(done.folder).encode() not in refusal.parts[0]
    assert "releases" in done.heard["east"][-1]
    done.stop("east")
    moved([ledger], back=True)
    done.start("east")
    assert done.workers["east"].run is not None
    assert done.propose("east", further).word == "signed"  # the twin: its own ledger


@pytest.mark.parametrize("store", ["client", "member"])
def test_a_store_that_was_lost_with_its_mark_ends_the_sites_part_in_the_run(done: Hospitals, store: str) -> None:
    (folder,) = (done.folder / "south" / "runs").iterdir()
    done.stop("south")
    files = sorted(folder.glob(f"{store}.*"))
    assert len(files) >= 2
    moved(files)
    assert done.start("south").run is None and "was lost, or set back" in done.heard["south"][-1]
    done.stop("south")
    moved(files, back=True)
    assert done.start("south").run is not None  # the twin


# Proposals


@pytest.fixture
def hospitals(tmp_path: Path) -> Iterator[Hospitals]:
    made = Hospitals(tmp_path).start_all()
    yield made
    made.close()


def test_whether_a_table_can_be_read_as_terms_ask_is_told_once_and_then_a_person_decides(hospitals: Hospitals) -> None:
    """Else "some record has the level 1" could be asked of every value, one proposal after another, and no ledger has it."""
    asked = (["0", "2"], ["0", "1"], ["1", "2"], ["2", "3"])
    probes = [hospitals.terms(run=bytes([k + 1]) * 16, categorical={"smoker": one}) for k, one in enumerate(asked)]
    assert hospitals.propose("north", probes[1]).word == "signed"  # every record has one of these levels
    strange = hospitals.terms(run=b"p" * 16, positive="5")
    assert hospitals.propose("north", strange).word == "signed"  # of a label that no record has nothing is told
    assert words_of(hospitals.propose("north", probes[2])).startswith("BadTerms: This site cannot compute")
    for probe in (probes[3], probes[0], hospitals.terms(run=bytes(16))):
        assert words_of(hospitals.propose("north", probe)) == "PolicyRefused: approval.mode"
    assert hospitals.kinds("north").count("refused") == 4
    approvals.approve(hospitals.folder / "north", probes[3])  # a person looked at it: one more
    assert words_of(hospitals.propose("north", probes[3])).startswith("BadTerms: This site cannot compute")
    assert words_of(hospitals.propose("north", probes[0])) == "PolicyRefused: approval.mode"
    assert (
        hospitals.propose("east", hospitals.terms()).word == "signed"
    )  # the twin: a site that was asked nothing strange


def test_signatures_under_runs_that_are_never_begun_run_out(hospitals: Hospitals) -> None:
    """A yes tells something about the table too ("smoker has no value but these")."""
    probes = [
        hospitals.terms(run=bytes([k]) * 16, categorical={"smoker": ["0", "1", *map(str, range(2, 2 + k))]})
        for k in range(10)
    ]
    for probe in probes[:8]:
        assert hospitals.propose("north", probe).word == "signed"
    assert words_of(hospitals.propose("north", probes[8])) == "PolicyRefused: approval.mode"
    assert hospitals.propose("north", probes[7]).word == "signed"  # once more what was signed
    for probe in probes[:8]:  # the twin: runs that are begun are no probes
        hospitals.logs["east"].append("terms", run=probe.run.hex(), terms="aa" * 32, roster="bb" * 32)
        hospitals.logs["east"].append("started", run=probe.run.hex(), version="0.1.0")
    assert hospitals.propose("east", probes[8]).word == "signed"


def test_a_site_that_approves_by_hand_reads_no_table_for_terms_that_nobody_approved(hospitals: Hospitals) -> None:
    probe = hospitals.terms(categorical={"smoker": ["0", "2"]})
    hospitals.policies["north"] = hospitals.policy("north", mode="by hand")
    hospitals.start("north")
    assert words_of(hospitals.propose("north", probe)) == "PolicyRefused: approval.mode"
    assert words_of(hospitals.propose("east", probe)).startswith("BadTerms")  # the twin: it asks its table
    terms = hospitals.terms()  # once: they hold the time at which they expire
    approvals.approve(hospitals.folder / "north", terms)
    assert hospitals.propose("north", terms).word == "signed"


def test_of_a_policy_only_its_keys_leave_and_columns_outside_it_are_not_looked_at(hospitals: Hospitals) -> None:
    hospitals.policies["north"] = with_policy(
        with_policy(hospitals.policies["north"], "privacy", epsilon=0.125), "data", columns=["age", "pressure"]
    )
    hospitals.start("north")
    asked = hospitals.terms(categorical={"smoker": ["0"]})
    assert words_of(hospitals.propose("north", asked)) == "PolicyRefused: data.columns"
    assert words_of(hospitals.propose("east", asked)).startswith("BadTerms")  # the twin: smoker has another value too
    said = words_of(hospitals.propose("north", hospitals.terms(drop=["smoker"])))
    assert said == "PolicyRefused: privacy.epsilon" and "0.125" not in said
    assert any("0.125" in words for words in hospitals.heard["north"])  # the site's own people read why


def test_two_terms_of_one_name_are_not_both_signed(hospitals: Hospitals) -> None:
    first = hospitals.terms()
    assert hospitals.propose("north", first).word == "signed"
    assert hospitals.propose("north", first).word == "signed"
    other = dataclasses.replace(first, most_rounds=first.most_rounds + 1)
    assert "Other terms of a run of this name were signed" in words_of(hospitals.propose("north", other))
    assert hospitals.propose("north", dataclasses.replace(other, run=bytes(16))).word == "signed"


def test_a_run_does_not_go_on_under_another_roster(hospitals: Hospitals) -> None:
    terms = hospitals.terms()
    hospitals.propose("north", terms)
    assert hospitals.begin("north", terms).word == "started"
    assert hospitals.start("north").run is not None  # the twin: the same roster
    hospitals.roster = dataclasses.replace(hospitals.roster, threshold=3)
    assert hospitals.start("north").run is None
    assert "consortium" in hospitals.heard["north"][-1]
    assert words_of(hospitals.begin("north", terms)).startswith("BadTerms: The run is of the consortium")


def test_counts_that_left_count_against_the_day_whether_or_not_their_sum_was_shown(hospitals: Hospitals) -> None:
    run, log = "00" * 16, hospitals.logs["north"]
    for number in (1, 2):
        log.append("contribution", run=run, round=number, terms="aa" * 32, digest="bb" * 32, bytes=1)
    shown: dict[str, Any] = {"terms": "aa" * 32, "label": "train 1", "transcript": "cc" * 32, "counts": "dd" * 32}
    log.append("opened", run=run, round=2, clients=[], epsilon=1.0, **shown)
    assert sums_today(log.entries(), datetime.now(UTC)) == 2
    hospitals.policies["north"] = hospitals.policy(
        "north", rounds_per_day=2 + 2
    )  # of the day, and of the run: moments, and one round
    hospitals.start("north")
    assert hospitals.propose("north", hospitals.terms(rounds=1)).word == "signed"
    hospitals.logs["north"].append("contribution", run=run, round=3, terms="aa" * 32, digest="bb" * 32, bytes=1)
    said = words_of(hospitals.propose("north", hospitals.terms(run=bytes(16), rounds=1)))
    assert said == "PolicyRefused: limits.rounds_per_day"


def test_a_site_that_says_something_else_than_a_signature_is_named(hospitals: Hospitals, tmp_path: Path) -> None:
    honest = hospitals.link()

    def ask(asked: Any, seconds: float) -> Iterator[Any]:
        for name, reply in honest.ask(asked, seconds):
            yield name, encode(Spoken("started")) if name == "east" else reply

    with pytest.raises(NotSigned, match="east: said 'started', which is no answer"):
        coordinate(honest._replace(ask=ask), hospitals.roster, hospitals.config(), tmp_path / "out")
    terms = run_terms.decode_run_terms((tmp_path / "out" / "terms.bin").read_bytes())
    assert hospitals.propose("east", terms).word == "signed"  # the twin


# One site's part in sums


def test_no_counts_leave_after_the_last_round_that_the_run_allows(group: Group) -> None:
    draft = wanted(group)
    for each in group.sites.values():
        each.exchange._limits = Limits(3)
    with pytest.raises(RoundOver, match="Round 4; the terms of the run allow 3"):
        held(group, draft, 4)
    assert all(site.told == [] for site in group.sites.values())
    for each in group.sites.values():
        each.exchange._limits = Limits(5)
    held(group, draft, 5)  # the twin


@pytest.mark.parametrize("asks", [False, True])
def test_counts_whose_gate_was_not_asked_are_not_offered(group: Group, asks: bool) -> None:
    site = group.sites["east"]
    standing = Standing(site.paid.count, lambda: 0, lambda: (0.0, Pin(0, "00" * 32)))
    gate, own = site.exchange.charging(
        lambda *what: (lambda: site.paid.append("train 1"), randomness.stream()), standing
    )("train", 1)
    made = aggregator(
        site.exchange.backend, count_bound=9, senders=3, minimum_senders=3, size=SIZE, members=3, corrupt=1
    )
    sealed = made.encrypt(np.zeros(SIZE, int), own)
    if not asks:
        with pytest.raises(Uncharged, match="train 1"):
            made.open(sealed, SIZE)
        assert site.exchange.wanted().draft is None
        return
    gate()
    site.exchange._stop = lambda: True  # the twin: it is offered, and waits
    with pytest.raises(Stopped):
        made.open(sealed, SIZE)
    with pytest.raises(Uncharged):  # a charge is good for one offer
        made.open(sealed, SIZE)


def test_an_older_round_that_is_played_back_writes_nothing(group: Group) -> None:
    draft = wanted(group)
    seen: dict[str, list[bytes]] = {}
    old: dict[str, list[bytes]] = {}
    with pytest.raises(RoundOver):
        held(group, draft, 3, sites=("north",), link=watched(group.link, "invite", old))
    with pytest.raises(RoundOver):  # east sends in round 5; nothing is opened
        held(group, draft, 5, sites=("east",), link=watched(group.link, "invite", seen))
    site = group.restart("east")
    site.want(1, np.zeros(SIZE, int))
    assert site.exchange.wanted(60).asking
    site.exchange.go_on(0)
    until_ready(site)
    for _ in range(3):
        with pytest.raises(RoundUsed):
            site.exchange.invite(*decode(old["north"][0]).parts)
    assert site.told == [] and site.paid == ["train 1", "train 1"]
    site.exchange.invite(*decode(seen["east"][0]).parts)  # the twin: the round in which it sent, the same bytes
    assert [kind for kind, _ in site.told] == ["charge", "contribution"]


def test_bytes_of_a_round_before_a_restart_are_not_a_second_sending(group: Group) -> None:
    """After a restart the run has drawn other counts; the terms of before get the bytes of before, and other terms nothing without a further charge."""
    draft = wanted(group)
    seen: dict[str, list[bytes]] = {}
    with pytest.raises(RoundOver):
        held(group, draft, 1, sites=("east",), link=watched(group.link, "invite", seen))
    first = decode(seen["east"][0]).parts
    sent = group.sites["east"].exchange.invite(*first)
    site = group.restart("east")
    site.want(1, np.full(SIZE, 9))
    site.exchange.wanted(60)
    site.exchange.go_on(0)
    until_ready(site)
    assert site.exchange.invite(*first) == sent
    with pytest.raises(RoundOver):
        held(group, draft, 2, sites=("east",), seconds=3)
    assert isinstance(site.got(), RoundLost) and site.paid.count("train 1") == 2
    rounds = {facts["round"] for kind, facts in site.told if kind == "contribution"}
    assert rounds == {1}


@pytest.mark.parametrize("full", [False, True])
def test_an_answer_that_cannot_be_written_down_is_not_said_when_it_is_asked_again(group: Group, full: bool) -> None:
    draft, site = wanted(group), group.sites["east"]
    seen: dict[str, list[bytes]] = {}

    def tell(kind: str, **told: Any) -> None:
        if kind == "answer" and full:
            raise OSError("no space left")

    assert site.exchange.party.member is not None
    site.exchange._seat = take_seat(site.exchange.party.member, tell)
    held(group, draft, link=watched(group.link, "notice", seen))  # the other two answer
    last = decode(seen["east"][-1]).parts[0]
    for _ in range(2):
        if full:
            with pytest.raises(OSError, match="no space"):
                site.exchange.notice(last)
        else:
            assert site.exchange.notice(last)  # the twin


class Killed(Exception):
    """The process ended here."""


class Clock:
    """Counts the moments at which something becomes durable, and ends the process before or after one of them."""

    def __init__(self, at: int, after: bool) -> None:
        self.at, self.after, self.now = at, after, 0

    def around(self, action: Any) -> Any:
        def act(*rest: Any, **named: Any) -> Any:
            self.now += 1
            if self.now == self.at and not self.after:
                raise Killed
            result = action(*rest, **named)
            if self.now == self.at:
                raise Killed
            return result

        return act


def certified(group: Group, draft: Any) -> dict[int, tuple[bytes, ...]]:
    """What the coordinator needs to ask for counts in the rounds 1 to 3: terms and certificate of each."""
    found: dict[int, tuple[bytes, ...]] = {}
    for number, name in enumerate(NAMES, 1):  # each of them would say "ask again" in a second round
        seen: dict[str, list[bytes]] = {}
        with pytest.raises(RoundOver):
            held(group, draft, number, sites=(name,), link=watched(group.link, "invite", seen))
        found[number] = decode(seen[name][0]).parts
    return found


ORDERS = [(1, 1, 2), (2, 1, 3), (1, 2, 1)]
"""Rounds that a lying coordinator asks for, one after another, each time with the word that nothing was opened."""


@pytest.mark.parametrize("charged_twice", [True, False])
def test_wherever_the_process_ends_no_counts_leave_without_a_charge_of_their_own(
    group: Group, charged_twice: bool
) -> None:
    """Every moment of every order, before and after it became durable. The twin forgets what it sent, and sends a second time what it paid once."""
    invites = certified(group, wanted(group))
    party = group.sites["east"].exchange.party
    broken = 0
    for order in ORDERS if charged_twice else ORDERS[:1]:
        moments, at = 1, 1
        while at <= moments:
            for after in (False, True):
                clock, store = Clock(at, after), memory_store()
                if charged_twice:
                    kept = store._replace(put=clock.around(store.put))
                else:
                    kept = store._replace(put=lambda run, number, step, blob: blob, last=lambda run, step: -1)
                paid: list[str] = []
                own = dataclasses.replace(party, sender=party.sender._replace(store=kept))
                left = asked_and_killed(own, group, clock, paid, [invites[number] for number in order])
                broken += not all(sent <= charged for sent, charged in left)
                assert len(left) >= 1
            moments, at = max(moments, clock.now), at + 1
    assert (broken == 0) is charged_twice


def asked_and_killed(
    party: Any, group: Group, clock: Clock, paid: list[str], asked: list[tuple[bytes, ...]]
) -> list[tuple[int, int]]:
    """(different messages that left, charges) after every message that left, in a site that is started again whenever it was killed."""
    left: set[bytes] = set()
    found: list[tuple[int, int]] = []
    rng = np.random.default_rng(0)  # one for all restarts: what a site wants to send is never what it sent
    for place, request in enumerate(asked):
        for _ in range(3):  # it is killed once at most
            site = Site("east", party, Path(f"/nonexistent/{place}"))
            site.paid = paid
            site.paying = clock.around(paid.append)
            site.exchange._tell = clock.around(lambda kind, **told: None)
            site.want(1, rng.integers(-9, 9, SIZE))
            ready = offered(site)
            try:
                if ready:
                    left.add(site.exchange.invite(*request))
                    found.append((len(left), len(paid)))
                    break
            except Killed:
                continue
            except RoundUsed:
                break
            finally:
                site.exchange._stop = lambda: True
                with site.exchange._changed:
                    site.exchange._changed.notify_all()
                site.got()
    return found


def offered(site: Any) -> bool:
    """Whether a site came so far as to offer its counts; it was told that nothing was opened if it asked."""
    while site.thread.is_alive():
        said = site.exchange.wanted(0.01)
        if said.asking:
            with contextlib.suppress(OutOfOrder):  # it has heard it, and not yet woken
                site.exchange.go_on(0)
        if said.draft is not None:
            return True
    return False


# One site against the others


@pytest.mark.parametrize("line", ["west: \x1b[2J\x1b]0;owned\x07", "a\nb", "x" * 10_000])
def test_what_a_site_says_cannot_steer_a_terminal_or_fill_it(line: str) -> None:
    said = words(line.encode())
    assert said.isprintable() and len(said) <= 500 and said[:1] == line[:1]
    assert words(b"BadTerms: as it is.") == "BadTerms: as it is."  # the twin
    assert words(b"\xff") == "\ufffd"


def test_facts_of_a_site_are_small_or_refused() -> None:
    assert facts(json.dumps({"a": "b" * 1000}).encode()) == {"a": "b" * 1000}
    with pytest.raises(Oversize, match="as JSON"):
        facts(json.dumps({"a": "b" * (1 << 20)}).encode())


def test_one_site_can_neither_name_files_nor_end_the_coordinator_nor_give_the_model(tmp_path: Path) -> None:
    tables = consortium.write_tables(tmp_path, ("abel", *NAMES[:2]))
    parties = consortium.parties(tmp_path / "sites", tables, rounds=1)
    sites = {name: parties.start(name) for name in tables}
    honest = consortium.link_to(sites)
    said: list[str] = []

    def ask(asked: Any, seconds: float) -> Iterator[Any]:
        for name, reply in honest.ask(asked, seconds):
            spoken = decode(reply) if isinstance(reply, bytes) else Spoken("away")
            if name == "abel" and spoken.word == "at":
                about = facts(spoken.parts[1]) | {"epsilon": 10**400, "label": "../../../evil"}
                reply = encode(Spoken("at", (spoken.parts[0], json.dumps(about).encode(), spoken.parts[2])))
            if name == "abel" and spoken.word == "ended":
                reply = encode(Spoken("ended", (spoken.parts[0], spoiled(spoken.parts[1]))))
            yield name, reply

    ended = conduct(honest._replace(ask=ask), parties.consortium, tmp_path / "server", say=said.append)
    assert sorted(path.name for path in (tmp_path / "server").glob("*.round")) == [
        "00000-standardise-0.round",
        "00001-train-1.round",
    ]
    assert not list(tmp_path.glob("**/*evil*"))
    assert ended.agree == ("east", "north") and ended.model == (sites["east"].out / "model.npz").read_bytes()
    assert ended.digests["abel"] != ended.digests["east"] and any(
        "abel states another digest" in words for words in said
    )
    twin = conduct(honest, parties.consortium, tmp_path / "server")
    assert twin.agree == ("abel", "east", "north")


def spoiled(model: bytes) -> bytes:
    """The same file with other parameters."""
    stored = dict(np.load(io.BytesIO(model)))
    buffer = io.BytesIO()
    np.savez(buffer, **{name: array + 1 if array.dtype.kind == "f" else array for name, array in stored.items()})
    return buffer.getvalue()
