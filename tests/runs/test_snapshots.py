"""A campaign of kills: the run folder as it was at every write, sync, rename and SQL statement, and what resuming each copy does.

A process that is killed leaves what the system had been told so far. The folder (and the ledger's journal) is copied after each such event of a short
run, and every copy is resumed. Whatever the moment: no sum is opened that was not charged first, nothing that was charged is forgotten, epsilon stays in
the budget, and a run that cannot go on says so in one sentence.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedjax_poisson import accounting
from fedjax_poisson.runs import training as setting_module
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.run import NothingLearned, run

CONFIG = Config(rounds=2, aggregator="plain", yardstick=False, seed=1)


class Camera:
    """Copies a folder after every event that a kill could follow, and counts the sums that had been opened by then."""

    def __init__(self, folder: Path, album: Path) -> None:
        self.folder, self.album, self.taken, self.opened = folder, album, [], 0
        album.mkdir()

    def shoot(self, event: str) -> None:
        if not self.folder.exists():
            return
        copy = self.album / f"{len(self.taken):03d}"
        shutil.copytree(self.folder, copy)
        last = self.taken[-1][0] if self.taken else None
        if last is not None and _same(last, copy):
            shutil.rmtree(copy)
            return
        self.taken.append((copy, event, self.opened))

    def after(self, event: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **named: Any) -> Any:
            result = function(*args, **named)
            self.shoot(event)
            return result

        return wrapped


def _same(a: Path, b: Path) -> bool:
    files = [{str(f.relative_to(x)): f.read_bytes() for f in x.rglob("*") if f.is_file()} for x in (a, b)]
    return files[0] == files[1]


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, str, int]]:
    base = tmp_path_factory.mktemp("snapshots")
    camera = Camera(base / "run", base / "album")
    patch = pytest.MonkeyPatch()
    connect, make = accounting.chain.connect, setting_module.make_aggregator

    def watched(*args: Any, **named: Any) -> Any:
        connection = connect(*args, **named)
        connection.set_trace_callback(lambda statement: camera.shoot(f"before SQL: {statement[:40]}"))
        return connection

    def counted(*args: Any, **named: Any) -> Any:
        agg = make(*args, **named)

        def open_(sealed: Any, size: int) -> Any:
            camera.opened += 1
            camera.shoot("opened")
            return agg.open(sealed, size)

        return agg._replace(open=open_)

    patch.setattr(os, "replace", camera.after("renamed", os.replace))
    patch.setattr(os, "fsync", camera.after("synced", os.fsync))
    patch.setattr(accounting.opening, "connect", watched)
    patch.setattr(setting_module, "make_aggregator", counted)
    try:
        run(CONFIG, camera.folder)
    finally:
        patch.undo()
    camera.shoot("end")
    assert camera.opened == 3 and len(camera.taken) > 20
    return camera.taken


def _charged(folder: Path) -> list[str]:
    if not (folder / "ledger.sqlite").exists():
        return []
    book = accounting.read_ledger(folder / "ledger.sqlite")
    labels = [row.label for row in book.rows()]
    book.verify()
    book.close()
    return labels


def _check(shot: Path, event: str, opened: int) -> str:
    """Resume a copy of one shot; what became of it."""
    folder = shot.with_name(f"{shot.name}-resumed")
    shutil.copytree(shot, folder)
    try:
        return _resumed(folder, event, opened)
    finally:
        shutil.rmtree(folder)


def _resumed(folder: Path, event: str, opened: int) -> str:
    started = (folder / "config.toml").exists()
    try:
        before = _charged(folder)
    except accounting.LedgerCorrupt:
        assert not started, event  # the first statements of a new ledger, before there are settings
        before = []
    assert opened <= len(before), f"{event}: a sum was opened that was not on the ledger"
    if not started:
        assert not before, event
        summary = run(CONFIG, folder)  # nothing had begun: it can be started again
        assert summary["rounds"] == 2, event
        return "started anew"
    try:
        summary = run(CONFIG, folder, resume=True)
    except NothingLearned as error:
        assert "There is no model" in str(error)
        assert _charged(folder)[: len(before)] == before, event
        return "refused"
    after = _charged(folder)
    assert after[: len(before)] == before, f"{event}: a charged release was forgotten"
    assert summary["epsilon"] <= CONFIG.epsilon and summary["ledger_verified"], event
    assert summary["lost_releases"] == len(after) - summary["rounds"] - 1 <= 1, (
        f"{event}: more than one release was lost"
    )
    rows = [json.loads(line)["round"] for line in (folder / "rounds.jsonl").read_text().splitlines()]
    assert rows == list(range(summary["rounds"] + 1)), event
    return "went on"


def test_no_kill_loses_more_than_the_release_under_way(album: list[tuple[Path, str, int]]) -> None:
    """A sample of the moments, spread over the run, and every moment around the opening of a sum."""
    chosen = album[:: max(1, len(album) // 8)] + [shot for shot in album if shot[1] == "opened"][1:2]
    found = {event: _check(folder, event, opened) for folder, event, opened in chosen}
    assert set(found.values()) >= {"went on"}


@pytest.mark.long
def test_every_moment_of_a_run_can_be_resumed(album: list[tuple[Path, str, int]]) -> None:
    found = [(_check(folder, event, opened), event) for folder, event, opened in album]
    assert {outcome for outcome, _ in found} == {"started anew", "went on", "refused"} or len(found) > 20


def test_the_campaign_would_find_a_release_that_is_charged_too_late(
    album: list[tuple[Path, str, int]], tmp_path: Path
) -> None:
    """The twin: the same check on a folder whose ledger had not been charged when the sum was opened."""
    folder, event, opened = next(shot for shot in album if shot[1] == "opened")
    early = next(shot for shot in album if shot[2] == 0 and (shot[0] / "config.toml").exists())
    copy = Path(shutil.copytree(early[0], tmp_path / "late"))
    with pytest.raises(AssertionError, match="not on the ledger"):
        _check(copy, event, opened)
    assert folder.exists()
