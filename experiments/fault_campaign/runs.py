"""Whole runs on the heart table: stopped at every event, on a full disk, by damage to every file, under a wrong clock; and then gone on with.

A kill leaves the folder as the system had been told to make it, so a copy that is taken before an event is what SIGKILL there leaves; `processes` kills real
ones to confirm that. All runs are seeded, so that the model of a run that went on can be held, bit for bit, against that of an undisturbed one.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import shutil
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from fault_campaign import verdicts
from fault_campaign.events import Event, Watch, strike, watched
from fault_campaign.harm import HARM, harm
from fault_campaign.shots import Shot, develop, photographed
from fault_campaign.verdicts import Row
from fedjax_poisson import accounting
from fedjax_poisson.federated import checkpoints, folder_lock
from fedjax_poisson.runs import run_ledger
from fedjax_poisson.runs import training as training_module
from fedjax_poisson.runs.config import Config, read_config
from fedjax_poisson.runs.run import NothingLearned, run

__all__ = [
    "Truth",
    "album",
    "clocks",
    "config_of",
    "damages",
    "full_disks",
    "opened_labels",
    "resumed",
    "snapshots",
    "stopped_folders",
]


def config_of(aggregator: str) -> Config:
    """Three rounds with a seed."""
    return Config(rounds=3, seed=1, aggregator=aggregator, yardstick=False, controller="constant")


class Lost(BaseException):
    """A release is lost after it was charged."""


def lost_labels(charged: list[str], rounds: int) -> tuple[str, ...]:
    """What was charged and is not part of a model of so many rounds, in order."""
    used = {"standardise 0", *(f"train {number}" for number in range(1, rounds + 1))}
    lost = collections.Counter(charged)
    lost.subtract(used)
    return tuple(sorted(lost.elements()))


class Truth:
    """Models of undisturbed runs, by the labels that were charged: a release that is lost is charged again, with other noise.

    Args:
      config: of the runs.
      base: a folder for them.
    """

    def __init__(self, config: Config, base: Path) -> None:
        self.config, self.base = config, base
        self.models: dict[tuple[str, ...], bytes] = {}

    def model(self, charged: list[str], rounds: int) -> bytes:
        """The bytes of model.npz of a run of so many rounds that lost what was charged for nothing else, and met with no other accident."""
        key = lost_labels(charged, rounds)
        if key not in self.models:
            self.models[key] = self._run(collections.Counter(key), self.base / str(len(self.models)))
        return self.models[key]

    def _run(self, losses: collections.Counter[str], folder: Path) -> bytes:
        spend = accounting.Ledger.spend

        def losing(book: accounting.Ledger, purpose: str, label: str, *rest: Any, **named: Any) -> Any:
            found = spend(book, purpose, label, *rest, **named)
            if losses[label] > 0:
                losses[label] -= 1
                raise Lost
            return found

        accounting.Ledger.spend = losing
        try:
            while True:
                try:
                    run(self.config, folder, resume=(folder / "config.toml").exists())
                    return (folder / "model.npz").read_bytes()
                except Lost:
                    continue
        finally:
            accounting.Ledger.spend = spend


@contextlib.contextmanager
def opened_labels(*, early: bool = False) -> Iterator[list[str]]:
    """Labels of the sums that are opened while the block runs, in order.

    Args:
      early: the twin: sums count as opened where they are checked, which is before they are charged.
    """
    make, opened, numbers = training_module.make_aggregator, [], collections.Counter()

    def counted(*args: Any, **named: Any) -> Any:
        made = make(*args, **named)
        facts = named.get("mechanism")
        if not facts:  # of the blank training, which opens nothing
            return made
        purpose = facts["purpose"]

        def note() -> None:
            numbers[purpose] += 1
            opened.append(f"{purpose} {numbers[purpose] if purpose == 'train' else 0}")

        def open_(sealed: Any, size: int) -> Any:
            if not early:
                note()
            return made.open(sealed, size)

        def check(sealed: Any, size: int) -> None:
            made.check(sealed, size)
            if early:
                note()

        return made._replace(open=open_, check=check)

    training_module.make_aggregator = counted
    try:
        yield opened
    finally:
        training_module.make_aggregator = make


def album(config: Config, base: Path, *, early: bool = False) -> list[Shot]:
    """A run with a copy of its folder before every event, and the labels of the sums that had been opened."""
    folder = base.resolve() / "run"
    with (
        opened_labels(early=early) as opened,
        photographed(folder, base.resolve() / "album", lambda: tuple(opened)) as shots,
    ):
        run(config, folder)
    return shots


def _charged(folder: Path) -> list[str]:
    path = folder / "ledger.sqlite"
    if not path.is_file() or path.stat().st_size == 0:
        return []
    try:
        book = accounting.read_ledger(path)
    except accounting.LedgerCorrupt:
        if (folder / "config.toml").exists():
            raise
        return []  # killed while it was made, before there are settings
    try:
        book.verify()
        return [row.label for row in book.rows()]
    finally:
        book.close()


def resumed(folder: Path, truth: Truth, opened: tuple[str, ...] = ()) -> tuple[str, list[str]]:
    """Go on with a run in a folder: the outcome, and what is wrong."""
    before = _charged(folder)
    wrong = verdicts.uncharged(opened, before)
    started = (folder / "config.toml").exists()
    try:
        config = read_config(folder / "config.toml") if started else truth.config
        summary = run(config, folder, resume=started)
    except NothingLearned as error:
        return "refused by NothingLearned", wrong + verdicts.own_refusal(error)
    except BaseException as error:
        return f"refused by {type(error).__name__}", [*wrong, *verdicts.own_refusal(error), f"cannot go on: {error}"]
    after = _charged(folder)
    wrong += verdicts.forgotten(before, after)
    wrong += verdicts.wrong_model((folder / "model.npz").read_bytes(), truth.model(after, summary["rounds"]))
    wrong += lines_wrong(folder, summary, after)
    lost = len(lost_labels(after, summary["rounds"]))
    return ("went on, same model" if not lost else f"went on, {lost} lost") + ("" if started else ", anew"), wrong


def lines_wrong(folder: Path, summary: dict[str, Any], charged: list[str]) -> list[str]:
    """One line for every round that is part of the model, and no more of them than there are charges; or the summary says that lines are missing."""
    found = [row["round"] for row in checkpoints.read_lines(folder / "rounds.jsonl")[0]]
    wrong = [f"{len(found)} lines, {len(charged)} charges"] if len(found) > len(charged) else []
    told = any("rounds.jsonl" in warning for warning in summary["warnings"])
    if found != list(range(summary["rounds"] + 1)) and not told:
        wrong.append(f"rounds.jsonl holds {found} of {summary['rounds']} rounds, and nothing says so")
    if summary["epsilon"] > 1.0 or not summary["ledger_verified"]:
        wrong.append(f"epsilon {summary['epsilon']}, ledger verified: {summary['ledger_verified']}")
    return wrong


def snapshots(shots: list[Shot], plan: list[tuple[int, str]], truth: Truth, base: Path) -> Iterator[Row]:
    """What becomes of a run that ends at an event: plan entries are (place in shots, how it ends)."""
    for at, kind in plan:
        folder = base / "again"
        develop(shots[at], kind, folder)
        outcome, wrong = resumed(folder, truth, shots[at].known)
        shutil.rmtree(folder)
        yield Row("run", shots[at].transition, kind, outcome, wrong)


def full_disks(shots: list[Shot], places: list[int], truth: Truth, base: Path) -> Iterator[Row]:
    """The disk is full from an event on: the run ends by a clear error, and goes on once there is room."""
    for at in places:
        folder = (base / "full").resolve()

        def decide(watch: Watch, event: Event, first: int = shots[at].event.number) -> str | None:
            return "full disk" if event.number >= first else None

        wrong: list[str] = []
        with opened_labels() as opened, watched(folder, decide):
            try:
                run(truth.config, folder)
                outcome = "did without"
            except BaseException as error:
                outcome = f"refused by {type(error).__name__}"
                wrong += verdicts.own_refusal(error)
        then, more = resumed(folder, truth, tuple(opened))
        shutil.rmtree(folder)
        yield Row("run", shots[at].transition, "full disk", f"{outcome}, {then}", wrong + more)


# Damage to files


class Folders(NamedTuple):
    """A run that was stopped after two of three rounds, as it was a round earlier, and another run's."""

    newest: Path
    older: Path
    foreign: Path


def stopped_folders(config: Config, base: Path) -> Folders:
    """Make them."""
    older = base / "older"

    def report(line: dict[str, Any]) -> None:
        if line["round"] == 1:
            shutil.copytree(base / "newest", older)
        if line["round"] == 2:
            raise Lost

    with contextlib.suppress(Lost):
        run(config, base / "newest", report=report)
    with contextlib.suppress(Lost):
        run(config, base / "foreign", report=lambda line: _raise(Lost) if line["round"] == 2 else None)
    return Folders(base / "newest", older, base / "foreign")


def _raise(error: type[BaseException]) -> None:
    raise error


FILES = ("config.toml", "ledger.sqlite", "rounds.jsonl", "checkpoints/latest.npz", ".lock")


def damages(folders: Folders, truth: Truth, base: Path, rng: random.Random, times: int) -> Iterator[Row]:
    """Every file in every kind of damage: the run goes on to the same model, or is refused by name with nothing forgotten."""
    plan = [(name, kind) for name in FILES for kind in HARM for _ in range(times)]
    for name, kind in plan:
        if name == ".lock" and kind in ("older", "foreign", "a folder"):
            continue
        folder = base / "harmed"
        shutil.copytree(folders.newest, folder)
        known = _charged(folder)
        other = {"foreign": folders.foreign, "older": folders.older}.get(kind)
        harm(folder / name, kind, rng, None if other is None else other / name)
        try:
            config = read_config(folder / "config.toml")
            summary = run(config, folder, resume=True)
        except BaseException as error:
            outcome, wrong = f"refused by {type(error).__name__}", verdicts.own_refusal(error)
        else:
            after = _charged(folder)
            lost = len(lost_labels(after, summary["rounds"]))
            outcome = "went on, same model" if not lost else f"went on, {lost} lost"
            wrong = verdicts.forgotten(known, after) + lines_wrong(folder, summary, after)
            wrong += verdicts.wrong_model((folder / "model.npz").read_bytes(), truth.model(after, summary["rounds"]))
        shutil.rmtree(folder)
        yield Row("run", name, kind, outcome, wrong)


# Clocks


@contextlib.contextmanager
def clock_off(days: float) -> Iterator[None]:
    """Every clock that the run reads is off by so many days."""
    modules = (accounting.ledger, run_ledger, folder_lock)
    before = [module.datetime for module in modules]

    class Shifted:
        @staticmethod
        def now(zone: Any = None) -> datetime:
            return datetime.now(zone) + timedelta(days=days)

    for module in modules:
        module.datetime = Shifted
    try:
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            module.datetime = own


def clocks(folders: Folders, truth: Truth, base: Path, off: tuple[float, ...]) -> Iterator[Row]:
    """A run that is gone on with while the clock is wrong ends as ever."""
    for days in off:
        folder = base / "clock"
        shutil.copytree(folders.newest, folder)
        with clock_off(days):
            outcome, wrong = resumed(folder, truth)
        shutil.rmtree(folder)
        yield Row("run", "resume", f"clock off by {days:+g} days", outcome, wrong)


def main() -> None:
    """One real process: `FOLDER WITNESS AGGREGATOR NUMBER KIND`, a run (gone on with where it exists) that the fault strikes at an event."""
    folder, witness, aggregator, number, kind = sys.argv[1:]
    descriptor = os.open(witness, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    told, names = 0, []

    def decide(watch: Watch, event: Event) -> str | None:
        nonlocal told
        names.append(event.transition(path))
        if len(opened) > told:
            os.write(descriptor, "".join(f"{label}\n" for label in opened[told:]).encode())
            told = len(opened)
        if event.number == int(number) or (kind == "full disk" and event.number > int(number)):
            return strike(watch, event, kind)
        return None

    path = Path(folder).resolve()
    with opened_labels() as opened, watched(path, decide):
        try:
            run(config_of(aggregator), path, resume=(path / "config.toml").exists())
        except (ValueError, OSError, RuntimeError) as error:
            print(f"refused: {type(error).__name__}: {error}")
            sys.exit(2)
    print(json.dumps(names))


if __name__ == "__main__":
    main()
