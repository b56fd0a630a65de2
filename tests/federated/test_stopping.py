"""Ctrl-C: the first one ends the run after its round, the second at once; on the command line neither shows a traceback."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fedjax_poisson import accounting, cli
from fedjax_poisson.federated.stopping import stop_requested


def test_the_first_signal_is_a_note_and_the_second_an_interrupt() -> None:
    said: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop_requested(said.append) as asked:
        assert not asked()
        os.kill(os.getpid(), signal.SIGINT)
        assert asked() and len(said) == 1 and "after this round" in said[0]
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_note_survives_whoever_swallows_exceptions() -> None:
    """While a program compiles, an exception may be eaten; the note is still there afterwards."""
    with stop_requested(lambda text: None) as asked:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException:
            pytest.fail("the first signal must not raise")
        assert asked()


def _main(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as done:
        cli.main(arguments)
    return int(done.value.code or 0)


def test_ctrl_c_stops_after_the_round_and_resume_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spend = accounting.Ledger.spend

    def pressed(self: accounting.Ledger, purpose: str, label: str, *rest: object, **named: object) -> object:
        release = spend(self, purpose, label, *rest, **named)  # type: ignore[arg-type]
        if label == "train 2":
            os.kill(os.getpid(), signal.SIGINT)  # in the middle of a round, after it was charged
        return release

    monkeypatch.setattr(accounting.Ledger, "spend", pressed)
    folder = tmp_path / "run"
    options = ["--rounds", "4", "--aggregator", "plain", "--yardstick", "False"]
    assert _main(["run", "heart", *options, "--out", str(folder)]) == 130
    error = " ".join(capsys.readouterr().err.split())
    assert f"Stopped after round 2 of 4; continue with --resume {folder}" in error and "Traceback" not in error
    monkeypatch.setattr(accounting.Ledger, "spend", spend)
    assert _main(["run", "--resume", str(folder), "--quiet"]) == 0
    book = accounting.read_ledger(folder / "ledger.sqlite")
    assert [row.label for row in book.rows()] == ["standardise 0", *(f"train {k}" for k in range(1, 5))]
    book.close()


def test_an_interrupt_before_the_run_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from fedjax_poisson.runs import run as run_module

    def interrupted(*args: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "prepare", interrupted)
    assert _main(["run", "heart", "--out", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err.strip() == "fedjax-poisson: interrupted"


def test_a_full_disk_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from fedjax_poisson.federated import checkpoints

    save, saved = checkpoints.save_tree, []

    def full(path: Path, tree: object, **facts: object) -> None:
        saved.append(path)
        if len(saved) > 2:
            raise OSError(28, "No space left on device")
        save(path, tree, **facts)

    monkeypatch.setattr(checkpoints, "save_tree", full)
    folder = tmp_path / "run"
    assert (
        _main(["run", "heart", "--rounds", "3", "--aggregator", "plain", "--yardstick", "False", "--out", str(folder)])
        == 2
    )
    error = " ".join(capsys.readouterr().err.split())
    assert "No space left on device; round 1 is saved" in error and f"--resume {folder}" in error
