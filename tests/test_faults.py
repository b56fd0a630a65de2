"""The campaign of faults at toy size, and a twin for every verdict: a party with one mistake, which the verdict must notice."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import compiling

EXPERIMENTS = Path(__file__).parents[1] / "experiments"

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the campaign watches files as Linux names them"
)


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch):
    """`part(name)`: a module of the campaign."""
    import importlib

    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    return lambda name: importlib.import_module(f"fault_campaign.{name}")


def campaign(tmp_path: Path, *arguments: str) -> dict:
    words = [sys.executable, str(EXPERIMENTS / "faults.py"), "--out", str(tmp_path), *arguments]
    environment = os.environ | {"PYTHONPATH": str(EXPERIMENTS.parent), "XLA_FLAGS": compiling.flags()}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return json.loads((tmp_path / "results" / "faults.json").read_text())


@pytest.mark.slow
def test_no_fault_of_the_toy_campaign_does_harm(tmp_path: Path) -> None:
    found = campaign(tmp_path, "--toy", "--seed", "5")
    assert found["wrong"] == 0 and found["faults"] == len(found["rows"]) > 200
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
    assert {row["kind"] for row in rows} >= {
        "kill",
        "exit",
        "torn",
        "full disk",
        "power cut",
        "race",
        "lost",
        "doubled",
    }
    assert {row["part"] for row in rows} >= {"ledger", "books", "store", "run", "messages", "member's store"}


@pytest.mark.long
@pytest.mark.slow
def test_no_fault_of_a_campaign_does_harm(tmp_path: Path) -> None:
    assert campaign(tmp_path, "--faults", "1500", "--seed", str(random.randrange(10**6)))["wrong"] == 0


# Twins


TWINS = """
import json, random
from fault_campaign import parties
found = {}
for name, party in parties.TWINS.items():
    rows = parties.faults(name, party, random.Random(0), 40)
    found[name] = sorted({sentence.split(": ")[-1][:60] for row in rows for sentence in row.wrong})
print(json.dumps(found))
"""


def test_parties_with_one_mistake_are_found() -> None:
    """In a process of its own, which forks."""
    paths = os.pathsep.join([str(EXPERIMENTS), str(EXPERIMENTS.parent)])
    environment = os.environ | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-W", "ignore", "-c", TWINS]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert "train 1 was opened and is not on the ledger" in found["ledger charged after opening"]
    assert any("is damaged" in sentence for sentence in found["checkpoint written in place"])
    assert "2 different answers" in found["store behind its words"]


def test_a_sum_that_is_opened_before_it_is_charged_is_found(part, tmp_path: Path) -> None:
    runs = part("runs")
    config = runs.config_of("plain")
    good, early = (runs.album(config, tmp_path / name, early=name == "early") for name in ("good", "early"))
    uncharged = part("verdicts").uncharged
    for shots, harm in ((good, False), (early, True)):
        found = [uncharged(shot.known, runs._charged(shot.copy)) for shot in shots]
        assert any(found) is harm


def test_a_member_that_forgets_is_found(part, tmp_path: Path) -> None:
    from fedjax_poisson.aggregation.store import memory_store

    rounds, verdicts = part("rounds"), part("verdicts")
    told, _ = rounds.store_album(rounds.setting(), tmp_path)
    before = list(told.shots[-1].known)
    again = rounds.member_again(told, memory_store())
    assert not verdicts.second_answers(before)
    assert any("round-key: 2 different answers" in sentence for sentence in verdicts.second_answers([*before, *again]))


def test_a_wrong_sum_and_a_message_that_stops_a_round_are_found(part, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = part("rounds")
    own, real = rounds.setting(), rounds.Net.round
    for instead, words in (
        ("opened wrongly, 5 clients", "not that of its clients"),
        ("refused by X", "a message too many"),
    ):
        monkeypatch.setattr(
            rounds.Net, "round", lambda self, counts, fault, said=instead: said if fault else real(self, counts, None)
        )
        rows = list(rounds.lost_messages(own, random.Random(0), 12))
        assert any(words in sentence for row in rows for sentence in row.wrong)


def test_the_verdicts_themselves(part) -> None:
    verdicts = part("verdicts")
    assert verdicts.uncharged(["a", "a"], ["a", "b"]) and not verdicts.uncharged(["a"], ["b", "a"])
    assert verdicts.forgotten(["a", "b"], ["a"]) and not verdicts.forgotten(["a"], ["a", "b"])
    assert verdicts.wrong_model(b"1", b"2") and not verdicts.wrong_model(b"1", b"1")
    assert verdicts.second_answers([("x", b"1"), ("x", b"2")]) and not verdicts.second_answers(
        [("x", b"1"), ("y", b"2")]
    )

    def of(function, *arguments) -> list[str]:
        try:
            function(*arguments)
        except Exception as error:
            return verdicts.own_refusal(error)
        raise AssertionError("it was to raise")

    from fedjax_poisson.runs.config import read_config

    assert of(json.loads, "{") and of({}.__getitem__, "a")
    assert not of(read_config, EXPERIMENTS)  # a folder: "give a TOML file"


def test_every_name_is_chosen_first(part) -> None:
    chosen = part("plan").chosen
    names = ["a"] * 50 + ["b", "c"]
    for seed in range(20):
        plan = chosen(names, ["x", "y"], random.Random(seed), 3)
        assert {names[at] for at, _ in plan} == {"a", "b", "c"} and len(plan) == 3
    assert len(set(chosen(names, ["x", "y"], random.Random(0), 10**6))) == 104


def test_a_power_cut_takes_what_was_not_synchronised(part, tmp_path: Path) -> None:
    events = part("events")
    seen = []

    def decide(watch, event) -> None:
        seen.append((event.call, {path.name: data for path, data in watch.after_power_cut().items()}))

    (tmp_path / "old").write_bytes(b"old")
    with events.watched(tmp_path, decide):
        with open(tmp_path / "new.part", "wb") as file:
            file.write(b"new")
            file.flush()
            os.fsync(file.fileno())
        os.replace(tmp_path / "new.part", tmp_path / "old")
        folder = os.open(tmp_path, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        with open(tmp_path / "old", "ab") as file:
            file.write(b"er")
        os.replace(tmp_path / "old", tmp_path / "unsafe")  # without a sync: an empty file, as some systems leave it
        os.unlink(tmp_path / "unsafe")
    calls = [call for call, _ in seen]
    assert calls == ["create", "write", "fsync", "replace", "fsync", "write", "replace", "unlink"]
    assert seen[3][1] == {"new.part": None}  # the name is not safe
    assert seen[4][1] == {"old": b"old"}  # the rename is not
    assert seen[5][1] == {"old": b"new"}
    assert seen[7][1]["unsafe"] is None
