"""A consortium's whole run between sites that share nothing but messages, against the same run in one process."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from fedjax_poisson import accounting, data
from fedjax_poisson.aggregation.terms import encode_terms
from fedjax_poisson.aggregation.transcript import check_transcript, terms_of
from fedjax_poisson.aggregation.wire import u64
from fedjax_poisson.deployment.conduct import Ended, NoProgress, Step, conduct
from fedjax_poisson.deployment.requests import Spoken, decode, encode, refused
from fedjax_poisson.deployment.site_run import SiteRun, model_digest
from fedjax_poisson.deployment.transport.link import Asked, Unreached
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.load_data import load_sites
from fedjax_poisson.runs.run import run
from tests.deployment import consortium

NAMES = ("north", "east", "south")


class Whole(NamedTuple):
    """A run that went through."""

    folder: Path
    sites: dict[str, SiteRun]
    steps: list[Step]
    ended: Ended
    parties: consortium.Parties


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return consortium.write_tables(tmp_path_factory.mktemp("tables"), NAMES)


@pytest.fixture(scope="module")
def whole(tables: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    parties = consortium.parties(folder / "sites", tables)
    sites = {name: parties.start(name) for name in NAMES}
    steps: list[Step] = []
    ended = conduct(consortium.link_to(sites), parties.consortium, folder / "server", step=steps.append)
    return Whole(folder, sites, steps, ended, parties)


def charges(path: Path) -> list[tuple[str, Any, float]]:
    with accounting.read_ledger(path) as ledger:
        return [(row.label, row.charge, row.distance) for row in ledger.rows()]


def test_the_sites_together_compute_what_one_process_computes_bit_for_bit(
    whole: Whole, tables: dict[str, Path], tmp_path: Path
) -> None:
    own = {name: load_sites(Config(csv=str(tables[name]), here=name, **settings())) for name in NAMES}
    together = data.joined([own[name] for name in NAMES])
    run(Config(csv=str(tables["north"]), **settings()), tmp_path / "one", sites=together)
    digest = model_digest(tmp_path / "one")
    assert whole.ended.digests == dict.fromkeys(NAMES, digest)
    for name in NAMES:
        assert charges(whole.sites[name].out / "ledger.sqlite") == charges(tmp_path / "one" / "ledger.sqlite")


def test_other_records_at_one_site_give_another_model(tables: dict[str, Path], whole: Whole, tmp_path: Path) -> None:
    own = {name: load_sites(Config(csv=str(tables[name]), here=name, **settings())) for name in NAMES}
    together = data.joined([own[name] for name in NAMES])
    labels = np.where(together.site == 0, 1 - together.labels, together.labels).astype(np.int32)
    changed = data.Sites(**{**vars(together), "labels": labels})
    run(Config(csv=str(tables["north"]), **settings()), tmp_path / "one", sites=changed)
    assert model_digest(tmp_path / "one") != whole.ended.digests["north"]


def settings() -> dict[str, Any]:
    return consortium.settings(NAMES, honest_senders=2, members=3)


def test_every_sum_is_of_all_sites_and_its_transcript_holds_for_who_has_pinned_the_keys(whole: Whole) -> None:
    assert [step.label for step in whole.steps] == ["standardise 0", "train 1", "train 2", "train 3"]
    files = sorted((whole.folder / "server").glob("*.round"))
    assert len(files) == 4
    for path, step in zip(files, whole.steps, strict=True):
        checked = check_transcript(path.read_bytes(), whole.parties.consortium.pinned)
        assert step.clients == tuple(sorted(NAMES)) and len(checked.clients) == 3 and not step.heard
    for site in whole.sites.values():
        assert [path.read_bytes() for path in sorted((site.out / "transcripts").glob("*.round"))] == [
            path.read_bytes() for path in files
        ]


def test_a_charge_is_told_before_the_contribution_it_is_for(whole: Whole) -> None:
    for told in whole.parties.told.values():
        charged: set[str] = set()
        rounds: set[int] = set()
        for kind, facts in told:
            if kind == "charge":
                charged.add(facts["label"])
                rounds.add(facts["round"])
            if kind == "contribution":
                assert facts["round"] in rounds
        assert charged == {"standardise 0", "train 1", "train 2", "train 3"}


def test_a_site_that_is_away_misses_a_sum_and_catches_up(tables: dict[str, Path], tmp_path: Path) -> None:
    stop: dict[str, bool] = {}
    parties = consortium.parties(tmp_path / "sites", tables, minimum=2, stop=stop, rounds=4)
    sites = {name: parties.start(name) for name in NAMES}
    steps: list[Step] = []

    def step(one: Step) -> None:
        steps.append(one)
        if one.label == "train 1":
            stop["east"] = True
            sites["east"].join(30)
        if one.label == "train 2":  # opened by two sites
            stop["east"] = False
            sites["east"] = parties.restart("east")

    ended = conduct(consortium.link_to(sites), parties.consortium, tmp_path / "server", step=step)
    assert len(set(ended.digests.values())) == 1 and set(ended.digests) == set(NAMES)
    assert [one.clients for one in steps] == [tuple(sorted(NAMES))] * 2 + [("north", "south")] + [
        tuple(sorted(NAMES))
    ] * 2
    labels = [row[0] for row in charges(sites["east"].out / "ledger.sqlite")]
    assert sorted(set(labels)) == ["standardise 0", "train 1", "train 2", "train 3", "train 4"]


def test_a_coordinator_that_lost_its_folder_gets_the_sums_from_the_sites(whole: Whole, tmp_path: Path) -> None:
    again = conduct(consortium.link_to(whole.sites), whole.parties.consortium, tmp_path)
    assert again.digests == whole.ended.digests
    before = {path.name: path.read_bytes() for path in (whole.folder / "server").glob("*.round")}
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.round")} == before


def test_a_site_that_is_slow_to_send_its_model_is_left_out_by_the_deadline(whole: Whole, tmp_path: Path) -> None:
    link = consortium.link_to(whole.sites)

    def ask(asked: Asked, seconds: float) -> Iterator[tuple[str, bytes | Unreached]]:
        assert seconds <= 2.0
        for name, reply in link.ask(asked, seconds):
            slow = name == "east" and decode(asked[name]).word == "final"
            yield name, Unreached(f"no reply in {seconds:g} s") if slow else reply

    quick = dataclasses.replace(whole.parties.consortium, phase_seconds=2.0)
    ended = conduct(link._replace(ask=ask), quick, tmp_path)
    assert ended.agree == ("north", "south") and "no reply" in ended.away["east"]


def test_a_site_that_is_left_behind_does_not_keep_the_model_from_the_others(whole: Whole, tmp_path: Path) -> None:
    """East says that it waits for another sum than all others have; its twin is the coordinator above."""
    first = min((whole.folder / "server").glob("*.round"))
    draft = terms_of(first.read_bytes())
    stuck = encode_terms(dataclasses.replace(draft, model=bytes(32), round=0))
    link = consortium.link_to(whole.sites)

    def ask(asked: Asked, seconds: float) -> Iterator[tuple[str, bytes | Unreached]]:
        for name, reply in link.ask(asked, seconds):
            if name == "east":
                waits = decode(asked[name]).word == "next"
                facts = b'{"state": "running", "label": "train 1", "asking": false, "epsilon": null, "reason": ""}'
                said = encode(Spoken("at", (u64(0), facts, stuck))) if waits else refused("BadTerms: other terms")
                yield name, said
            else:
                yield name, reply

    quick = dataclasses.replace(whole.parties.consortium, minimum=2, phase_seconds=1.0, patience_seconds=0.3)
    words: list[str] = []
    ended = conduct(link._replace(ask=ask), quick, tmp_path, say=words.append)
    assert ended.agree == ("north", "south")
    assert any("east did not come to the end" in one for one in words)
    with pytest.raises(
        NoProgress, match="east: at position 0, other terms"
    ):  # the twin: two are fewer than the minimum
        conduct(link._replace(ask=ask), dataclasses.replace(quick, minimum=3), tmp_path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"squared_norm": 100, "honest_noise": 1, "noise": (bytes(32),)}, "norm round"),
        ({"members": (b"m" * 32,) * 5, "round_keys": (b"",) * 5}, "other members"),
        ({"size": 0}, "No parameters"),
        ({}, ""),
    ],
)
def test_terms_of_which_there_is_no_round_do_not_end_the_coordinator(
    whole: Whole, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    """All sites name them; the twin, terms as they should be, gets as far as a round, which nobody there answers."""
    first = min((whole.folder / "server").glob("*.round"))
    draft = terms_of(first.read_bytes())
    empty = dataclasses.replace(draft, round=0, round_keys=(b"",) * len(draft.members))
    blob = encode_terms(dataclasses.replace(empty, **changes))

    def ask(asked: Asked, seconds: float) -> Iterator[tuple[str, bytes | Unreached]]:
        for name, request in asked.items():
            facts = b'{"state": "running", "label": "standardise 0"}'
            waits = decode(request).word == "next"
            yield name, encode(Spoken("at", (u64(0), facts, blob))) if waits else refused("no")

    quick = dataclasses.replace(whole.parties.consortium, phase_seconds=0.3, patience_seconds=0.2)
    words: list[str] = []
    with pytest.raises(NoProgress):
        conduct(consortium.link_to(whole.sites)._replace(ask=ask), quick, tmp_path, say=words.append)
    away = [one for one in words if " is away: " in one]
    assert len(away) == (3 if reason else 0) and all(reason in one for one in away), words
    assert any("A round died" in one for one in words) == (not reason)


def test_too_few_sites_are_named_and_nothing_is_opened(tables: dict[str, Path], tmp_path: Path) -> None:
    stop = {"east": True, "south": True}
    parties = consortium.parties(tmp_path / "sites", tables, minimum=2, stop=stop)
    sites = {name: parties.start(name) for name in NAMES}
    for name in ("east", "south"):
        sites[name].join(60)
    quick = parties.consortium.__class__(**{**vars(parties.consortium), "phase_seconds": 1.0, "patience_seconds": 0.5})
    began = time.monotonic()
    with pytest.raises(NoProgress, match="at least 2 are needed") as refused:
        conduct(consortium.link_to(sites), quick, tmp_path / "server")
    stop["north"] = True
    sites["north"].join(60)
    assert time.monotonic() - began < 60
    assert "east: stopped" in str(refused.value) and "south: stopped" in str(refused.value)
    assert not list((tmp_path / "server").glob("*.round"))
