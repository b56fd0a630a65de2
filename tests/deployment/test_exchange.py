"""A site's part in a sum, against a coordinator that lies; each lie has a twin without it, which is taken."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from fedjax_poisson import randomness
from fedjax_poisson.accounting import Pin
from fedjax_poisson.aggregation import Opened, aggregator, keys
from fedjax_poisson.aggregation.refusals import BadTerms, OutOfOrder, RoundRefused
from fedjax_poisson.aggregation.store import memory_store
from fedjax_poisson.aggregation.terms import Pinned, Terms, decode_terms, encode_terms, roster_hash
from fedjax_poisson.deployment.errors import RoundLost, TooManyLost
from fedjax_poisson.deployment.exchange import Exchange
from fedjax_poisson.deployment.party import Limits, party_of
from fedjax_poisson.deployment.requests import Spoken, decode, encode
from fedjax_poisson.deployment.round_at_server import RoundOver, hold_round
from fedjax_poisson.deployment.site_run import Progress, SiteRun, answer
from fedjax_poisson.deployment.transport.in_process import in_process
from fedjax_poisson.deployment.transport.link import Link
from fedjax_poisson.runs.network import Standing

NAMES, SIZE = ("north", "east", "south"), 12
RUN, TERMS = bytes(range(16)), bytes(range(32))


class Site:
    """A site whose run wants one sum after another, with a ledger that only counts."""

    def __init__(self, name: str, party: Any, folder: Path) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.exchange = Exchange(party, folder, lambda kind, **facts: self.told.append((kind, facts)))
        self.name, self.paid, self.result = name, [], []
        self.paying: Callable[[str], None] = lambda label: self.paid.append(label)
        self.thread: threading.Thread | None = None

    def want(self, number: int, counts: np.ndarray, minimum: int = 3) -> None:
        """Begin, in a thread of its own, what `private_sum` does for one release."""

        def pay(label: str) -> Callable[[], None]:
            return lambda: self.paying(label)

        def work() -> None:
            charge = self.exchange.charging(
                lambda purpose, k: (pay(f"{purpose} {k}"), randomness.stream()),
                Standing(
                    self.paid.count,
                    lambda: len(self.paid) - len(set(self.paid)),
                    lambda: (float(len(self.paid)), Pin(len(self.paid), "00" * 32)),
                ),
            )
            gate, own = charge("train", number)
            made = aggregator(
                self.exchange.backend,
                count_bound=1000,
                senders=3,
                minimum_senders=minimum,
                size=SIZE,
                members=3,
                corrupt=1,
            )
            assert made.recall is not None
            try:
                found = made.recall(SIZE)
                sealed = made.encrypt(counts, own)
                gate()
                self.result.append(made.open(sealed, SIZE) if found is None else found)
            except Exception as error:
                self.result.append(error)

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()

    def got(self) -> Any:
        assert self.thread is not None
        self.thread.join(60)
        return self.result[-1]


class Group(NamedTuple):
    """Three sites, and what a coordinator has."""

    sites: dict[str, Site]
    link: Link
    keys: dict[str, bytes]
    restart: Callable[[str], Site]


@pytest.fixture
def group(tmp_path: Path) -> Group:
    signing = {name: keys.new_signing_key() for name in NAMES}
    public = {name: keys.public_of(key) for name, key in signing.items()}
    pinned = Pinned(tuple(public.values()), 2, 0, roster_hash(tuple(public.values())), 2, 1)
    parties = {
        name: party_of(
            name=name,
            sites=NAMES,
            key=signing[name],
            pinned=pinned,
            roster=frozenset(public.values()),
            run=RUN,
            terms=TERMS,
            store=memory_store(),
            member_store=memory_store(),
        )
        for name in NAMES
    }
    sites = {name: Site(name, parties[name], tmp_path / name) for name in NAMES}

    def handler(name: str) -> Callable[[bytes], bytes]:
        def handle(blob: bytes) -> bytes:
            running = Progress("running", None, "", None)
            return answer(SiteRun(sites[name].exchange, lambda: running, tmp_path, lambda seconds: None), decode(blob))

        return handle

    def restart(name: str) -> Site:
        paid = sites[name].paid
        sites[name] = Site(name, parties[name], tmp_path / name)
        sites[name].paid = paid
        return sites[name]

    return Group(sites, in_process({name: handler(name) for name in NAMES}), public, restart)


def wanted(group: Group, number: int = 1) -> Terms:
    """All three want a sum; the terms that they expect."""
    for k, site in enumerate(group.sites.values()):
        site.want(number, np.arange(SIZE) * (k + 1))
    drafts = {site.exchange.wanted(60).draft for site in group.sites.values()}
    assert len(drafts) == 1
    (draft,) = drafts
    assert draft is not None
    return decode_terms(draft)


def until_ready(site: Site) -> bytes:
    """The terms that a site expects, once its counts are there."""
    for _ in range(600):
        if (draft := site.exchange.wanted(0.1).draft) is not None:
            return draft
        time.sleep(0.05)
    raise AssertionError(f"{site.name} has no counts")


def held(
    group: Group,
    draft: Terms,
    number: int = 1,
    sites: tuple[str, ...] = NAMES,
    link: Link | None = None,
    seconds: float = 60,
) -> bytes:
    """One round; its transcript."""
    chosen = {name: group.keys[name] for name in sites}
    return hold_round(
        link or group.link,
        dataclasses.replace(draft, round=number),
        members=dict(enumerate(NAMES, 1)),
        sites=chosen,
        seconds=seconds,
    )[0]


def test_three_sites_get_the_sum_of_their_counts(group: Group) -> None:
    transcript = held(group, wanted(group))
    for site in group.sites.values():
        site.exchange.opened(0, transcript)
        found = site.got()
        assert isinstance(found, Opened) and found.senders == 3
        np.testing.assert_array_equal(found.counts, 6 * np.arange(SIZE))
        kinds = [kind for kind, _ in site.told]
        assert kinds.index("charge") < kinds.index("contribution") < kinds.index("opened")
        assert site.paid == ["train 1"]


LIES: dict[str, Any] = {
    "minimum": 2,
    "corrupt": 0,
    "count_bound": 500,
    "count_rms": 7,
    "size": 11,
    "senders": 4,
    "model": bytes(32),
    "mechanism": '{"name":"none"}',
    "charge": "nothing",
    "run": bytes(16),
    "roster": bytes(32),
    "threshold": 3,
    "malicious": 1,
}


@pytest.mark.parametrize("field", LIES)
def test_other_terms_than_expected_are_refused_by_the_field_and_nothing_is_sent(group: Group, field: str) -> None:
    draft, site = wanted(group), group.sites["east"]
    lie = dataclasses.replace(draft, round=1, **{field: LIES[field]})
    with pytest.raises(BadTerms, match=f"other terms than this site expects.*{field}"):
        site.exchange.invite(encode_terms(lie), b"")
    assert "contribution" not in [kind for kind, _ in site.told]
    held(group, draft)  # the twin: without the lie it sends
    assert "contribution" in [kind for kind, _ in site.told]


def test_members_of_the_servers_choice_are_refused(group: Group) -> None:
    draft = wanted(group)
    own = keys.public_of(keys.new_signing_key())
    for members in ((own, *draft.members[1:]), draft.members[:2]):
        lie = dataclasses.replace(draft, round=1, members=members, round_keys=tuple(b"" for _ in members))
        with pytest.raises(BadTerms, match="members"):
            group.sites["north"].exchange.invite(encode_terms(lie), b"")


def test_counts_that_were_sent_are_never_sent_in_another_round(group: Group) -> None:
    draft, site = wanted(group), group.sites["east"]
    seen: dict[str, list[bytes]] = {}
    held(group, draft, link=watched(group.link, "invite", seen))
    first = seen["east"][0]
    request = decode(first)
    assert site.exchange.invite(*request.parts) == site.exchange.invite(*request.parts)  # the same bytes
    with pytest.raises(RoundOver):
        held(group, draft, 2, seconds=10)  # a server that holds a second round for the same counts
    assert isinstance(site.got(), RoundLost)
    assert sum(kind == "contribution" for kind, _ in site.told) == 1


def watched(link: Link, word: str, seen: dict[str, list[bytes]]) -> Link:
    """The same link, noting requests of a word."""

    def ask(asked: Any, seconds: float) -> Any:
        for name, blob in asked.items():
            if decode(blob).word == word:
                seen.setdefault(name, []).append(blob)
        return link.ask(asked, seconds)

    return link._replace(ask=ask)


def test_after_a_lost_round_fresh_counts_are_paid_for_again_and_opened(group: Group) -> None:
    draft, site = wanted(group), group.sites["east"]
    held(group, draft)
    with pytest.raises(RoundOver):
        held(group, draft, 2, seconds=10)
    assert isinstance(site.got(), RoundLost)
    for each in group.sites.values():
        each.got()
        each.want(1, np.arange(SIZE))
    for each in group.sites.values():
        assert each.exchange.wanted(60).asking  # what became of the round is not known here
        each.exchange.go_on(0)
    again = decode_terms(until_ready(group.sites["east"]))
    for each in group.sites.values():
        until_ready(each)
    assert again == draft
    transcript = held(group, again, 3)
    for each in group.sites.values():
        each.exchange.opened(0, transcript)
        np.testing.assert_array_equal(each.got().counts, 3 * np.arange(SIZE))
        assert each.paid == ["train 1", "train 1"]


def test_a_site_that_asks_what_became_of_its_counts_holds_no_round_up(group: Group) -> None:
    draft, site, seen = wanted(group), group.sites["east"], dict[str, list[bytes]]()
    held(group, draft, link=watched(group.link, "invite", seen))
    with pytest.raises(RoundOver):
        held(group, draft, 2, seconds=10)
    assert isinstance(site.got(), RoundLost)
    terms, certificate = decode(seen["east"][0]).parts
    with pytest.raises(OutOfOrder, match="ask again later"):  # its counts are on their way: the round waits for them
        site.exchange.invite(terms, certificate)
    site.want(1, np.arange(SIZE))
    assert site.exchange.wanted(60).asking
    with pytest.raises(OutOfOrder, match="what became of its earlier counts") as refusal:
        site.exchange.invite(terms, certificate)
    assert "ask again" not in str(refusal.value).lower()
    site.exchange.go_on(0)
    until_ready(site)


def test_a_coordinator_that_lets_rounds_die_gets_no_more_than_the_site_allows(group: Group) -> None:
    site = group.sites["east"]
    site.exchange._limits = Limits(most_lost=2)
    for number in range(1, 5):
        site.want(1, np.arange(SIZE))
        for each in group.sites.values():
            if each is not site:
                each.want(1, np.arange(SIZE))
        for each in group.sites.values():
            if each.exchange.wanted(60).asking:
                each.exchange.go_on(0)
        if number == 4:
            break
        draft = decode_terms(until_ready(site))
        for each in group.sites.values():
            until_ready(each)
        held(group, draft, number)  # it is opened, and shown to nobody
        assert all(each.exchange.wanted().asking for each in group.sites.values())
        for each in group.sites.values():
            each.exchange.go_on(0)
            assert isinstance(each.got(), RoundLost)
    found = site.got()
    assert isinstance(found, TooManyLost) and site.paid == ["train 1"] * 3
    assert "limits.lost_rounds" in str(found)


def test_a_sum_that_was_opened_meanwhile_is_taken_and_not_paid_twice(group: Group) -> None:
    transcript = held(group, wanted(group))
    site = group.restart("east")  # it ended after it had sent
    began = time.monotonic()
    waiting = threading.Timer(0.5, site.want, (1, np.full(SIZE, 99)))
    waiting.start()
    assert site.exchange.wanted(60).asking
    assert time.monotonic() - began < 30  # at once, though it waits for counts when the run begins to ask
    waiting.join()
    site.exchange.opened(0, transcript)
    np.testing.assert_array_equal(site.got().counts, 6 * np.arange(SIZE))
    assert site.paid == ["train 1"]
    again = group.restart("east")  # now the transcript is on its disk
    again.want(1, np.full(SIZE, 99))
    np.testing.assert_array_equal(again.got().counts, 6 * np.arange(SIZE))
    assert again.paid == ["train 1"]


def test_a_transcript_that_does_not_hold_or_is_of_another_round_is_refused(group: Group, tmp_path: Path) -> None:
    draft = wanted(group)
    transcript, site = held(group, draft), group.sites["north"]
    for place in (40, len(transcript) // 2, len(transcript) - 10):
        harmed = bytearray(transcript)
        harmed[place] ^= 1
        with pytest.raises(RoundRefused):
            site.exchange.opened(0, bytes(harmed))
    with pytest.raises(OutOfOrder, match="position 0"):
        site.exchange.opened(1, transcript)
    site.exchange.opened(0, transcript)
    site.got()
    site.want(2, np.zeros(SIZE, int))
    assert site.exchange.wanted(60).position == 1
    with pytest.raises(BadTerms, match="model is"):
        site.exchange.opened(1, transcript)  # the first sum once more, as the second
    assert site.exchange.position == 1


def test_a_site_that_was_shown_another_sum_expects_other_terms_from_then_on(group: Group) -> None:
    transcript = held(group, wanted(group))
    drafts = []
    for name, site in group.sites.items():
        if name != "south":
            site.exchange.opened(0, transcript)
            site.got()
            site.want(2, np.zeros(SIZE, int))
            drafts.append(site.exchange.wanted(60).draft)
    assert drafts[0] == drafts[1]
    other = group.sites["south"].exchange
    rounds = other._rounds  # a sum that differs in one count, as a coordinator that alters the rows could show
    from fedjax_poisson.aggregation.transcript import check_transcript
    from fedjax_poisson.deployment.opened_rounds import OpenedRound, release_name

    checked = check_transcript(transcript)
    altered = checked._replace(counts=checked.counts + np.eye(1, SIZE, dtype=np.int32)[0])
    told = [OpenedRound(0, "train 1", Path("-"), one) for one in (checked, altered)]
    assert release_name(TERMS, "train 2", told[:1]) == decode_terms(drafts[0] or b"").model
    assert release_name(TERMS, "train 2", told[1:]) != decode_terms(drafts[0] or b"").model
    assert rounds == []


def test_below_the_minimum_nothing_is_opened(group: Group) -> None:
    draft = wanted(group)
    with pytest.raises(RoundOver, match="TinySet"):
        held(group, draft, sites=("north", "east"))
    assert all(site.exchange.position == 0 for site in group.sites.values())


def test_a_damaged_transcript_on_disk_is_refused_at_the_next_start(group: Group, tmp_path: Path) -> None:
    transcript, site = held(group, wanted(group)), group.sites["north"]
    site.exchange.opened(0, transcript)
    site.got()
    (path,) = (tmp_path / "north").glob("*.round")
    assert group.restart("north").exchange.position == 1
    path.write_bytes(transcript[:-40] + bytes(40))
    with pytest.raises(RoundRefused):
        group.restart("north")


def test_a_request_that_is_none_gets_a_refusal(group: Group) -> None:
    site = group.sites["north"]
    run = SiteRun(site.exchange, lambda: Progress("running", None, "", None), Path("-"), lambda seconds: None)
    for spoken in (Spoken("next", (b"x",)), Spoken("opened", (b"", b"")), Spoken("final"), Spoken("notice", (b"?",))):
        assert decode(answer(run, spoken)).word == "refused"
    assert decode(answer(run, Spoken("next"))).word == "at"
    assert encode(Spoken("next")) != encode(Spoken("final"))


def test_a_sum_that_was_written_down_and_not_told_is_told_after_the_restart_once(group: Group, tmp_path: Path) -> None:
    transcript = held(group, wanted(group))
    site = group.sites["east"]
    site.exchange.opened(0, transcript)
    digest = hashlib.sha256(transcript).hexdigest()
    first = [facts for kind, facts in site.told if kind == "opened"]
    assert [facts["transcript"] for facts in first] == [digest]
    for named, count in (([], 1), ([digest], 0)):  # the log lacks it; the twin: the log has it
        told: list[tuple[str, dict[str, Any]]] = []
        party = site.exchange.party
        Exchange(party, tmp_path / "east", lambda kind, told=told, **facts: told.append((kind, facts)), named=named)
        assert [kind for kind, _ in told] == ["opened"] * count
        assert all({**facts, "epsilon": 0} == {**first[0], "epsilon": 0} for _, facts in told)


def test_a_lost_transcript_is_taken_back_only_as_the_log_names_it(group: Group, tmp_path: Path) -> None:
    transcript, site = held(group, wanted(group)), group.sites["east"]
    named = [hashlib.sha256(transcript).hexdigest()]
    for names, taken in ((["00" * 32], False), (named, True)):
        site.exchange._named = names
        if taken:
            site.exchange.opened(0, transcript)
        else:
            with pytest.raises(BadTerms, match="the one that this site's log names"):
                site.exchange.opened(0, transcript)
        assert site.exchange.position == taken
    assert "opened" not in [kind for kind, _ in site.told]  # it was told before it was lost


@pytest.mark.parametrize(("away", "asked"), [(["south"], {"north", "east"}), (["east", "south"], set(NAMES))])
def test_a_member_that_was_silent_just_now_is_not_asked_while_enough_are_left(
    group: Group, away: list[str], asked: set[str]
) -> None:
    draft, seen = wanted(group), dict[str, list[bytes]]()
    transcript, heard = hold_round(
        watched(group.link, "notice", seen),
        dataclasses.replace(draft, round=1),
        members=dict(enumerate(NAMES, 1)),
        sites=group.keys,
        seconds=120,
        away=frozenset(away),
    )
    assert set(seen) == asked and not heard  # two of three open a sum; with one left nobody could, so all are asked
    for site in group.sites.values():
        site.exchange.opened(0, transcript)
        np.testing.assert_array_equal(site.got().counts, 6 * np.arange(SIZE))
