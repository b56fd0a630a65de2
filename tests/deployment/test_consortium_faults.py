"""The campaign of faults against a consortium at toy size, and a twin for every verdict: a party with one mistake, which the verdict must notice."""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import compiling

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the campaign watches files as Linux names them"
)


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[[str], Any]:
    """`part(name)`: a module of the campaign."""
    import importlib

    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    caplog.set_level(logging.CRITICAL, "fedjax_poisson")  # sites that fail say so; only until the test ends
    return lambda name: importlib.import_module(f"consortium_campaign.{name}")


@pytest.fixture
def row(part: Callable[[str], Any], tmp_path: Path) -> Callable[..., Any]:
    """`row(party, transition, time, kind)`: one run with one fault, judged."""
    known, number = part("people").people(), iter(range(100))

    def judged(
        party: str = "", transition: str = "", time: int = 1, kind: str = "none", limit: float = 90.0, **named: Any
    ) -> Any:
        scenario = part("scenario")
        run = part("people").fresh_run(2, named.pop("phase", 4.0), 0.3)
        where = part("traps").Place(party, transition, time) if party else None
        fault = scenario.Fault(where, kind)
        result = scenario.scenario(
            tmp_path / str(next(number)), known, run, fault, random.Random(1), limit=limit, **named
        )
        assert result.struck is (where is not None)
        return part("judging").judged("test", fault, result, known, run)

    return judged


@pytest.mark.slow
def test_no_fault_of_the_toy_campaign_does_harm(tmp_path: Path) -> None:
    words = [sys.executable, str(EXPERIMENTS / "consortium_faults.py"), "--toy", "--seed", "5", "--out", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(EXPERIMENTS.parent), "XLA_FLAGS": compiling.flags()}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    found = json.loads((tmp_path / "results" / "consortium_faults.json").read_text())
    rows = [dict(zip(found["columns"], each, strict=True)) for each in found["rows"]]
    assert found["wrong"] == 0 and found["faults"] > 15
    assert {each["part"] for each in rows} >= {"message", "site's steps and files", "other terms"}


# Twins. The first run of each is that without the mistake.


def test_a_wrong_sum_is_found(part: Callable[[str], Any], row: Callable[..., Any]) -> None:
    assert row().wrong == []
    wrong = row(twin=part("scenario").Twin(counts=lambda counts: counts + 1)).wrong
    assert any("not that of its sites' counts" in sentence for sentence in wrong)


def test_counts_that_are_sent_twice_are_found(row: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from fedjax_poisson.deployment.exchange import Exchange

    fault = ("coordinator", "ask committed", 1, "kill")
    assert row(*fault).wrong == []
    real = Exchange.invite

    def invite(self: Exchange, *terms: bytes) -> bytes:
        self._sent = None
        blob = real(self, *terms)
        self._sent = None  # it forgets at once that they left
        return blob

    monkeypatch.setattr(Exchange, "invite", invite)
    wrong = row(*fault).wrong
    assert any("the same counts left in 2 contributions" in sentence for sentence in wrong)
    assert any("2 contributions for train 1, 1 charges" in sentence for sentence in wrong)


@pytest.mark.slow
def test_a_member_that_forgets_is_found(
    part: Callable[[str], Any], row: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedjax_poisson.aggregation.store import memory_store, sqlite_store
    from fedjax_poisson.deployment import conduct, seat

    monkeypatch.setattr(conduct, "next_number", lambda sums: 1)  # and a coordinator that uses a number again
    fault, lives = ("coordinator", "ask invite", 1, "kill"), []

    def forgets(name: str, handler: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        def handle(blob: bytes) -> bytes:
            site = lives[-1].sites.get(name)
            if name == "east" and site is not None and b"begin" in blob and site.exchange._seat.round() == 1:
                site.exchange._seat = seat.take_seat(site.exchange.party.member, site.exchange._tell)
            return handler(blob)

        return handle

    twin = part("scenario").Twin(begin=lives.append, handle=forgets)
    answers = [sentence for sentence in row(*fault, twin=twin, limit=10.0).wrong if "different answers" in sentence]
    assert answers == []

    def store(path: Path) -> Any:
        kept = memory_store()
        unread = kept._replace(last=lambda run, step: -1, get=lambda run, number, step: None)
        forgetful = unread._replace(put=lambda run, number, step, blob: blob)
        return forgetful if path.match("east/*/member.sqlite") else sqlite_store(path)

    monkeypatch.setattr(part("light_site"), "sqlite_store", store)
    answers = [sentence for sentence in row(*fault, twin=twin, limit=10.0).wrong if "different answers" in sentence]
    assert any(sentence.startswith("east") and "round-key of round 1" in sentence for sentence in answers), answers


def test_a_site_that_does_not_pay_is_found_by_the_witness_and_one_that_does_not_say_so_by_its_log(
    part: Callable[[str], Any], row: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = part("light_site").LightSite
    real = site._tell
    with monkeypatch.context() as patch:
        patch.setattr(site, "_pay", lambda self, ledger, label: None)
        assert any("1 contributions for train 1, 0 charges" in sentence for sentence in row().wrong)

    def silent(self: Any, kind: str, **told: Any) -> None:
        if kind != "charge":
            real(self, kind, **told)

    monkeypatch.setattr(site, "_tell", silent)
    assert any("was not charged for before" in sentence for sentence in row().wrong)


def test_an_error_that_is_no_refusal_is_found(row: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from fedjax_poisson.deployment.exchange import Exchange

    fault = ("north", "message judged", 1, "request altered")
    assert row(*fault).wrong == []
    real = Exchange.notice

    def notice(self: Exchange, blob: bytes) -> bytes:
        if self.party.name == "north" and b"judged" in blob[:16]:
            raise KeyError("judged")
        return real(self, blob)

    monkeypatch.setattr(Exchange, "notice", notice)
    assert any("KeyError is no refusal" in sentence for sentence in row().wrong)


@pytest.mark.slow
def test_a_run_that_does_not_go_on_or_hangs_is_found(
    part: Callable[[str], Any], row: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(name: str, handler: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        def handle(blob: bytes) -> bytes:
            raise ConnectionError("away")

        return handler if name in ("east", "west") else handle

    wrong = row(twin=part("scenario").Twin(handle=away), phase=1.0).wrong
    assert any("does not go on to its end" in sentence for sentence in wrong)
    assert not any("hangs" in sentence for sentence in wrong)
    from fedjax_poisson.deployment import conduct

    monkeypatch.setattr(conduct, "agreed", lambda running, position: (None, []))
    monkeypatch.setattr(conduct, "_hand_out", lambda *rest: None)
    real = conduct.ask_positions

    def never_ready(*rest: Any) -> Any:
        at, *further = real(*rest)
        return {name: one._replace(draft=None, state="running") for name, one in at.items()}, *further

    monkeypatch.setattr(conduct, "ask_positions", never_ready)
    assert any("the run hangs" in sentence for sentence in row(limit=4.0, phase=1.0).wrong)


def test_the_verdicts_that_need_no_run(part: Callable[[str], Any]) -> None:
    verdicts, witness = part("verdicts"), part("witness")
    assert verdicts.differing_histories({"a": [b"1", b"2"], "b": [b"1", b"3"]})
    assert not verdicts.differing_histories({"a": [b"1", b"2"], "b": [b"1"]})
    assert verdicts.too_late([1.0, 16.0], 10, 1.0, 5.0) and not verdicts.too_late([1.0, 14.0], 10, 1.0, 5.0)
    assert verdicts.unhelpful(["no"]) and not verdicts.unhelpful(["no room: start again"])
    left = [witness.Left("east", "00", 1, "aa", {"train 1": 1})]
    seen = witness.Seen({"aa": witness.Made("east", "train 1", (1,))}, left, [], [])
    assert verdicts.forgotten_charges(seen, {"east": {}}) and not verdicts.forgotten_charges(
        seen, {"east": {"train 1": 2}}
    )
    failed = seen._replace(failures=[("east", "StoreUnwritable", "full")])
    assert verdicts.tracebacks(failed) and not verdicts.tracebacks(failed, {"east"})


def test_every_kind_of_fault_is_planned(part: Callable[[str], Any]) -> None:
    place = part("traps").Place
    places = [place("east", f"{what} {k}", 2) for what in ("message", "reply", "write") for k in "abc"]
    places += [place("coordinator", f"{what} {k}", 1) for what in ("ask", "write") for k in "abc"]
    kinds = {fault.kind for _, fault in part("plan").planned(places, random.Random(0), 1000)}
    harms, wires = part("harms"), part("wires")
    assert kinds == {*harms.AT_SITE, *harms.AT_COORDINATOR, *harms.CUTS, *wires.KINDS}
