"""A run folder after an accident: a lost ledger never makes epsilon smaller, changed settings are noticed, and every refusal says what to do."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedjax_poisson import accounting
from fedjax_poisson.federated import checkpoints
from fedjax_poisson.federated.folder_lock import FolderBusy, folder_lock
from fedjax_poisson.runs.config import Config, read_config
from fedjax_poisson.runs.run import NothingLearned, RunExists, Stopped, run
from fedjax_poisson.runs.run_ledger import CannotResume

CONFIG = Config(rounds=4, aggregator="plain", yardstick=False, controller="constant")


class Killed(Exception):
    pass


def _stop_after(number: int) -> Callable[[dict[str, Any]], None]:
    def report(line: dict[str, Any]) -> None:
        if line["round"] == number:
            raise Killed

    return report


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Killed):
        run(CONFIG, folder, report=_stop_after(2))
    return folder


@pytest.fixture
def folder(stopped_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped_run, tmp_path / "run"))


def _labels(folder: Path) -> list[str]:
    book = accounting.read_ledger(folder / "ledger.sqlite")
    labels = [row.label for row in book.rows()]
    book.close()
    return labels


def _cut(folder: Path, keep: int) -> None:
    with sqlite3.connect(folder / "ledger.sqlite") as raw:
        raw.execute("DROP TRIGGER releases_stay")
        raw.execute("DELETE FROM releases WHERE id > ?", (keep,))
    raw.close()


def _another_ledger(folder: Path) -> None:
    """A fresh ledger under the same budget, as the old code made where one was missing."""
    old = accounting.read_ledger(folder / "ledger.sqlite")
    facts = {"epsilon": old.budget_epsilon, "delta": old.delta, "unit": old.unit, "adjacency": old.adjacency}
    rows, reserve = old.rows(), old.reserve
    old.close()
    (folder / "ledger.sqlite").unlink()
    new = accounting.open_ledger(folder / "ledger.sqlite", **facts, law="tight", reserve=reserve)
    for row in rows:
        new.spend(
            row.purpose,
            row.label,
            row.mechanism,
            row.parameters,
            row.charge._replace(events=1e-9 * row.charge.events),
            3,
            4,
            data=row.data,
            origin=row.origin,
        )
    new.close()


LEDGERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "deleted": (
        lambda folder: (folder / "ledger.sqlite").unlink(),
        "is missing, so it is unknown what this run has spent",
    ),
    "cut to one release": (lambda folder: _cut(folder, 1), "holds 1 releases, but 3 had been charged"),
    "cut to none": (lambda folder: _cut(folder, 0), "holds 0 releases, but 3 had been charged"),
    "written anew, cheaper": (_another_ledger, "is not the release that was charged"),
    "emptied": (lambda folder: (folder / "ledger.sqlite").write_bytes(b""), "without a privacy ledger"),
    "torn": (lambda folder: os.truncate(folder / "ledger.sqlite", 5000), "ledger"),
}


@pytest.mark.parametrize("accident", LEDGERS)
def test_a_lost_ledger_never_launders_epsilon(folder: Path, accident: str) -> None:
    damage, words = LEDGERS[accident]
    damage(folder)
    before = (folder / "checkpoints" / "latest.npz").read_bytes()
    with pytest.raises((CannotResume, accounting.LedgerCorrupt), match=words):
        run(CONFIG, folder, resume=True)
    assert not (folder / "summary.json").exists()
    assert (folder / "checkpoints" / "latest.npz").read_bytes() == before


def test_an_older_copy_of_the_ledger_is_refused(tmp_path: Path) -> None:
    folder, older = tmp_path / "run", tmp_path / "older.sqlite"

    def copy_then_stop(line: dict[str, Any]) -> None:
        if line["round"] == 1:
            shutil.copy(folder / "ledger.sqlite", older)
        if line["round"] == 3:
            raise Killed

    with pytest.raises(Killed):
        run(CONFIG, folder, report=copy_then_stop)
    newest = (folder / "ledger.sqlite").read_bytes()
    shutil.copy(older, folder / "ledger.sqlite")
    with pytest.raises(CannotResume, match="Restore the newest copy of the ledger"):
        run(CONFIG, folder, resume=True)
    (folder / "ledger.sqlite").write_bytes(newest)
    summary = run(CONFIG, folder, resume=True)
    assert summary["rounds"] == 4 and summary["private"] is False  # plain aggregator
    assert _labels(folder) == ["standardise 0", "train 1", "train 2", "train 3", "train 4"]
    # ... and a summary pins it too, once the run has ended
    shutil.copy(older, folder / "ledger.sqlite")
    (folder / "checkpoints" / "latest.npz").unlink()
    with pytest.raises(CannotResume, match=r"summary\.json|holds 2 releases"):
        run(CONFIG, folder, resume=True)


def test_a_ledger_of_which_a_middle_release_was_never_charged_is_refused(folder: Path) -> None:
    """Rows that do follow from one another, but not all that the checkpoint's rounds needed."""
    old = accounting.read_ledger(folder / "ledger.sqlite")
    rows, facts = old.rows(), {"epsilon": 1.0, "delta": old.delta, "unit": "record", "adjacency": "zero_out"}
    new = accounting.open_ledger(folder / "new.sqlite", **facts, law="tight", reserve=old.reserve)
    for row in [rows[0], rows[1], rows[1]]:
        new.spend(
            row.purpose, row.label, row.mechanism, row.parameters, row.charge, 3, 4, data=row.data, origin=row.origin
        )
    pin = new.pin()
    old.close(), new.close()
    os.replace(folder / "new.sqlite", folder / "ledger.sqlite")
    saved = folder / "checkpoints" / "latest.npz"
    leaves, stored = checkpoints._read(saved)
    checkpoints.save_tree(saved, leaves, **{**stored, "ledger_rows": pin.rows, "ledger_head": pin.head})
    with pytest.raises(CannotResume, match=r"the result of 'train 2'.* has not charged"):
        run(CONFIG, folder, resume=True)


SETTINGS: dict[str, Callable[[Path], None]] = {
    "a seed was added": lambda path: path.write_text(path.read_text() + "seed = 3\n"),
    "a comment was removed": lambda path: path.write_text(
        "\n".join(x for x in path.read_text().splitlines() if x[:5] != "# run")
    ),
    "epsilon was raised": lambda path: path.write_text(path.read_text().replace("epsilon = 1.0", "epsilon = 3.0")),
    "emptied by a crash": lambda path: path.write_text(""),
}


@pytest.mark.parametrize("accident", SETTINGS)
def test_settings_that_were_changed_by_hand_are_noticed(folder: Path, accident: str) -> None:
    """An emptied file used to mean the default recipe: a seeded run in the clear ended as private and encrypted."""
    SETTINGS[accident](folder / "config.toml")
    text = (folder / "config.toml").read_bytes()
    with pytest.raises((CannotResume, ValueError), match=r"was changed after the run started|made for other facts"):
        run(read_config(folder / "config.toml"), folder, resume=True)
    assert (folder / "config.toml").read_bytes() == text  # never written again
    assert not (folder / "summary.json").exists()


def test_settings_are_written_once_and_whole(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "config.toml").read_bytes()
    run(CONFIG, folder, resume=True)
    assert (folder / "config.toml").read_bytes() == before

    def torn(path: Path, data: bytes) -> None:
        if path.name == "config.toml":
            path.with_suffix(".toml.part").write_bytes(data[:20])
            raise OSError(28, "No space left on device")
        write(path, data)

    write = checkpoints.write_atomic
    monkeypatch.setattr(checkpoints, "write_atomic", torn)
    with pytest.raises(OSError, match="No space"):
        run(CONFIG, tmp_path / "new")
    assert not (tmp_path / "new" / "config.toml").exists()
    monkeypatch.setattr(checkpoints, "write_atomic", write)
    assert run(CONFIG, tmp_path / "new")["rounds"] == 4  # a start that failed can be started again


def test_what_every_release_was_decides_whether_a_run_is_private(folder: Path) -> None:
    from fedjax_poisson.runs.verdict import judge

    book = accounting.read_ledger(folder / "ledger.sqlite")
    rows = book.rows()
    book.close()
    sealed = [row._replace(origin={**row.origin, "aggregator": "round"}) for row in rows]
    assert judge(sealed, ()).word == "private"
    assert judge([*sealed[:2], rows[2]], ()).word == "not private"  # one release in the clear is enough
    assert "1 of 3 releases" in judge([*sealed[:2], rows[2]], ()).reasons[0]
    seeded = [sealed[0]._replace(origin={**sealed[0].origin, "seed": 3}), *sealed[1:]]
    assert "is derived from a seed (3)" in judge(seeded, ()).reasons[0]
    assert judge([sealed[0]._replace(origin={}), *sealed[1:]], ()).word == "not private"
    assert judge([], ()).word == "not private"


def test_two_processes_do_not_share_a_folder(folder: Path) -> None:
    with folder_lock(folder):
        with pytest.raises(FolderBusy, match=rf"in use by process {os.getpid()} on .* since 20"):
            run(CONFIG, folder, resume=True)
    assert _labels(folder) == ["standardise 0", "train 1", "train 2"]
    holder = """
        import sys, time
        from pathlib import Path
        from fedjax_poisson.federated.folder_lock import folder_lock
        with folder_lock(Path(sys.argv[1])):
            print("held", flush=True)
            time.sleep(60)
    """
    other = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(holder), str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline().strip() == "held"
    with pytest.raises(FolderBusy, match=f"process {other.pid} "):
        run(CONFIG, folder, resume=True)
    other.kill()
    other.wait()
    assert run(CONFIG, folder, resume=True)["rounds"] == 4  # a killed process leaves no lock behind


def test_a_new_run_does_not_start_in_a_folder_that_another_has_just_started(tmp_path: Path) -> None:
    run(Config(rounds=1, aggregator="plain", yardstick=False), tmp_path / "run")
    with pytest.raises(RunExists):
        run(Config(rounds=1, aggregator="plain", yardstick=False), tmp_path / "run")


CHECKPOINTS: dict[str, Callable[[Path], None]] = {
    "no archive": lambda path: path.write_bytes(b"PK\x03\x04 nothing more"),
    "empty": lambda path: path.write_bytes(b""),
    "torn": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "a byte changed": lambda path: path.write_bytes(path.read_bytes()[:400] + b"\xff" + path.read_bytes()[401:]),
    "text": lambda path: path.write_text("not an archive at all"),
}


@pytest.mark.parametrize("accident", CHECKPOINTS)
def test_a_damaged_checkpoint_says_what_stays_charged(folder: Path, accident: str) -> None:
    CHECKPOINTS[accident](folder / "checkpoints" / "latest.npz")
    with pytest.raises(
        CannotResume, match=r"is damaged .*3 releases of this run remain charged \(epsilon 0\.\d+ of 1\)"
    ) as found:
        run(CONFIG, folder, resume=True)
    assert "allow_pickle" not in str(found.value)


def test_without_its_checkpoint_a_run_trains_anew_with_what_is_left(tmp_path: Path) -> None:
    config = Config(rounds=6, aggregator="plain", yardstick=False, controller="constant")
    with pytest.raises(Killed):
        run(config, tmp_path / "run", report=_stop_after(0))
    (tmp_path / "run" / "checkpoints" / "latest.npz").unlink()
    summary = run(config, tmp_path / "run", resume=True)
    assert summary["budget_exhausted"] and summary["rounds"] in (3, 4) and summary["rounds_planned"] == 6
    assert summary["lost_releases"] == 1 and summary["epsilon"] <= 1.0  # the moments, a fifth of the budget, twice


def test_a_budget_that_is_used_up_before_the_first_round_is_an_error(tmp_path: Path) -> None:
    config = Config(rounds=1, aggregator="plain", yardstick=False)
    run(config, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "latest.npz").unlink()
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(NothingLearned, match="There is no model"):
        run(config, tmp_path / "run", resume=True)
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_damaged_line_of_rounds_is_told_and_costs_nothing(folder: Path) -> None:
    lines = (folder / "rounds.jsonl").read_text().splitlines()
    (folder / "rounds.jsonl").write_bytes(
        "\n".join([lines[0], lines[1][:40] + "\x00", lines[2], ""]).encode() + b"\xff\xfe"
    )
    summary = run(CONFIG, folder, resume=True)
    assert summary["rounds"] == 4 and any("was damaged" in warning for warning in summary["warnings"])
    assert [json.loads(line)["round"] for line in (folder / "rounds.jsonl").read_text().splitlines()] == [0, 2, 3, 4]


@pytest.mark.parametrize("accident", ["lost", "emptied", "shortened"])
def test_lines_that_were_lost_are_told(folder: Path, accident: str) -> None:
    """The model does not need them, but every sum over rounds does: a run used to end with a line too few and no word about it."""
    lines = folder / "rounds.jsonl"
    before = lines.read_bytes()
    if accident == "lost":
        lines.unlink()
    else:
        lines.write_bytes(b"" if accident == "emptied" else before[: before.index(b"\n") + 1])
    summary = run(CONFIG, folder, resume=True)
    assert summary["rounds"] == 4 and any("lost in part" in warning for warning in summary["warnings"])
    assert (folder / "rounds.jsonl.damaged").exists()


@pytest.mark.parametrize("old", ['"encrypt_seconds"', '"purpose": "train"', '"bytes_up_total": ', '"test"'])
def test_a_line_whose_names_or_values_were_changed_is_damaged(folder: Path, old: str) -> None:
    """A flipped bit in a name used to end the run in a KeyError, after all of its rounds."""
    text = (folder / "rounds.jsonl").read_text()
    new = {'"purpose": "train"': '"purpose": 7', '"bytes_up_total": ': '"bytes_up_total": "x", "was": '}.get(
        old, '"other"'
    )
    (folder / "rounds.jsonl").write_text(text.replace(old, new))
    summary = run(CONFIG, folder, resume=True)
    assert summary["rounds"] == 4 and any("was damaged" in warning for warning in summary["warnings"])


def test_a_start_that_was_killed_while_it_made_the_ledger_can_be_started_again(tmp_path: Path) -> None:
    config = Config(rounds=1, aggregator="plain", yardstick=False)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ledger.sqlite").write_bytes(b"")
    assert run(config, tmp_path / "run")["rounds"] == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "ledger.sqlite").write_text("somebody's notes, which are not thrown away")
    with pytest.raises(accounting.LedgerCorrupt, match="restore its newest copy"):
        run(config, tmp_path / "other")
    assert (tmp_path / "other" / "ledger.sqlite").read_text().startswith("somebody's notes")


def test_a_run_that_is_asked_to_stop_finishes_its_round(tmp_path: Path) -> None:
    asked = iter([False, False, True])
    with pytest.raises(Stopped, match=r"Stopped after round 2 of 4; continue with --resume"):
        run(CONFIG, tmp_path / "run", stop=lambda: next(asked))
    assert _labels(tmp_path / "run") == ["standardise 0", "train 1", "train 2"]
    summary = run(CONFIG, tmp_path / "run", resume=True)
    assert summary["rounds"] == 4 and summary["lost_releases"] == 0


def test_an_interrupt_inside_a_round_says_what_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spend = accounting.Ledger.spend

    def interrupted(self: accounting.Ledger, purpose: str, label: str, *rest: Any, **named: Any) -> Any:
        release = spend(self, purpose, label, *rest, **named)
        if label == "train 2":
            raise KeyboardInterrupt
        return release

    monkeypatch.setattr(accounting.Ledger, "spend", interrupted)
    with pytest.raises(Stopped, match=r"Interrupted after round 1\. A release in progress stays charged"):
        run(CONFIG, tmp_path / "run")
    monkeypatch.undo()
    summary = run(CONFIG, tmp_path / "run", resume=True)
    assert summary["lost_releases"] == 1 and summary["rounds"] == 3 and summary["budget_exhausted"]


def test_a_lost_attempt_never_lends_its_noise_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a seed the noise of (round, attempt) is fixed: the second attempt at a round must draw other noise than the first."""
    sums = sys.modules["fedjax_poisson.federated.private_sum"]
    drawn: list[tuple[str, Any]] = []
    inside = sums._embed_all

    def recorded(mechanism: Any, grids: Any, stream: Any) -> Any:
        drawn.append(("stream", tuple(int(word) for word in stream.key.ravel())))
        return inside(mechanism, grids, stream)

    monkeypatch.setattr(sums, "_embed_all", recorded)
    spend = accounting.Ledger.spend

    def killed(self: accounting.Ledger, purpose: str, label: str, *rest: Any, **named: Any) -> Any:
        spend(self, purpose, label, *rest, **named)
        if label == "train 1":
            raise Killed

    config = Config(rounds=3, seed=5, aggregator="plain", yardstick=False)
    monkeypatch.setattr(accounting.Ledger, "spend", killed)
    with pytest.raises(Killed):
        run(config, tmp_path / "run")
    monkeypatch.setattr(accounting.Ledger, "spend", spend)
    run(config, tmp_path / "run", resume=True)
    assert len(drawn) == len(set(drawn)) and len(drawn) >= 4  # moments, the lost round 1, round 1 again, round 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_an_error_of_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        run(CONFIG, tmp_path / "run")
