"""The round of zeros beside a run's beginning: it makes the run's programs, changes nothing of the run, holds no record, and is over when the run is."""

from __future__ import annotations

import dataclasses
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedjax_poisson import accounting
from fedjax_poisson.runs import rehearsal
from fedjax_poisson.runs.build import RunSetup, build
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.run import run
from fedjax_poisson.traced_programs import FOLDER

CONFIG = Config(rounds=2, seed=11, yardstick=False)


@pytest.fixture(scope="module")
def setting() -> RunSetup:
    return build(CONFIG)


@pytest.fixture
def helpful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that keeps programs, on two cores."""
    (tmp_path / "kept").mkdir()
    monkeypatch.setenv(FOLDER, str(tmp_path / "kept"))
    monkeypatch.setattr(rehearsal, "usable_cores", lambda: 2)


def _threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name == "rehearsal"]


def _learned(folder: Path) -> list[np.ndarray]:
    with np.load(folder / "checkpoints" / "latest.npz") as file:
        return [file[name] for name in file.files if name != "facts"]


@pytest.mark.usefixtures("helpful")
def test_a_run_with_a_rehearsal_has_the_bits_and_the_ledger_of_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def noted(name: str) -> None:
        step = getattr(rehearsal, name)
        monkeypatch.setattr(rehearsal, name, lambda *given: (step(*given), done.append(name)))

    noted("_training")
    run(CONFIG, tmp_path / "with")
    assert done == ["_training"] and not _threads()
    with monkeypatch.context() as patch:
        patch.setattr(rehearsal, "usable_cores", lambda: 1)
        run(CONFIG, tmp_path / "without")
    assert len(done) == 1  # the second run had none
    for a, b in zip(_learned(tmp_path / "with"), _learned(tmp_path / "without"), strict=True):
        np.testing.assert_array_equal(a, b)
    books = [accounting.read_ledger(tmp_path / name / "ledger.sqlite") for name in ("with", "without")]
    assert [len(book.rows()) for book in books] == [3, 3] and books[0].epsilon() == books[1].epsilon()
    counts = [sorted(path.name for path in (tmp_path / name / "transcripts").iterdir()) for name in ("with", "without")]
    assert len(counts[0]) == len(counts[1]) == 3  # no transcript of a rehearsal


@pytest.mark.usefixtures("helpful")
def test_what_it_trains_on_are_zeros(setting: RunSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def stop(setting: RunSetup, scaler: Any, records: Any, *others: Any) -> None:
        seen.append(records)
        raise RuntimeError("seen")

    monkeypatch.setattr(rehearsal, "training_for", stop)
    with pytest.raises(RuntimeError, match="seen"):
        rehearsal._training(setting, lambda: False)
    assert np.any(np.asarray(setting.train.features)) and np.any(np.asarray(setting.train.labels))
    assert not np.any(np.asarray(seen[0].features)) and not np.any(np.asarray(seen[0].labels))
    assert seen[0].features.shape == setting.train.features.shape


@pytest.mark.usefixtures("helpful")
@pytest.mark.parametrize(("yardstick", "over"), [(True, False), (True, True), (False, False)])
def test_the_yardstick_is_rehearsed_on_zeros_where_the_run_wants_one_and_goes_on(
    yardstick: bool, over: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, seen = build(dataclasses.replace(CONFIG, yardstick=yardstick)), []
    train = rehearsal.trained_without_privacy

    def noted(setting: RunSetup, scaler: Any, records: Any, stream: Any) -> Any:
        seen.append(records)
        return train(setting, scaler, records, stream)

    monkeypatch.setattr(rehearsal, "trained_without_privacy", noted)
    monkeypatch.setattr(rehearsal, "_training", lambda *_: None)
    rehearsal._rehearse(wanted, lambda: over)
    assert len(seen) == (yardstick and not over)
    if yardstick and not over:
        other = wanted.kind._replace(without_privacy=lambda *_: None)  # of many programs, which nothing could interrupt
        rehearsal._rehearse(wanted._replace(kind=other), lambda: over)
        assert len(seen) == 1
    for records in seen:
        assert not np.any(np.asarray(records.features)) and not np.any(np.asarray(records.labels))
        assert records.features.shape == wanted.train.features.shape


@pytest.mark.usefixtures("helpful")
def test_one_that_fails_is_said_and_the_run_goes_on(setting: RunSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("no such ring")

    monkeypatch.setattr(rehearsal, "_training", fail)
    with pytest.warns(UserWarning, match="no such ring"), rehearsal.rehearsed(setting):
        pass


@pytest.mark.usefixtures("helpful")
def test_a_run_that_ends_early_waits_for_the_round_under_way(
    setting: RunSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, may_end, steps = threading.Event(), threading.Event(), []

    def slow(*_: Any) -> None:
        began.set()
        assert may_end.wait(60)
        steps.append("done")

    monkeypatch.setattr(rehearsal, "_training", slow)
    with pytest.raises(KeyboardInterrupt), rehearsal.rehearsed(setting):
        assert began.wait(60) and _threads()
        threading.Timer(0.2, may_end.set).start()
        raise KeyboardInterrupt
    assert steps == ["done"] and not _threads()


@pytest.mark.usefixtures("helpful")
@pytest.mark.parametrize("last", ["", "begin", "encrypt", "check", "gate", "open"])
def test_a_round_is_left_between_its_programs_as_soon_as_the_run_is_over(
    last: str, setting: RunSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    class Sums:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: done.append(name)

        def _replace(self, **functions: Any) -> Any:
            return functions

    def training(setting: RunSetup, scaler: Any, records: Any, aggregator: Any) -> Any:
        def apply(state: Any, cohort: Any, stream: Any, gate: Any) -> None:
            for name in ("begin", "encrypt", "check"):
                aggregator[name]()
            gate()
            done.append("gate")
            aggregator["open"]()

        algorithm = type("Algorithm", (), {"init": staticmethod(lambda key: None), "apply": staticmethod(apply)})
        return algorithm, lambda number: None

    monkeypatch.setattr(rehearsal, "aggregator_for", lambda *_: Sums())
    monkeypatch.setattr(rehearsal, "training_for", training)
    steps = ["begin", "encrypt", "check", "gate", "open"]
    if last == "open":
        rehearsal._training(setting, lambda: False)
    else:
        with pytest.raises(rehearsal._Over):
            rehearsal._training(setting, lambda: not last or last in done)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            rehearsal._rehearse(setting, lambda: True)  # nothing is said of it
    assert done == steps[: steps.index(last) + 1 if last else 0]


@pytest.mark.usefixtures("helpful")
def test_it_is_made_where_it_helps_only(setting: RunSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rehearsal._helps(setting)
    assert not rehearsal._helps(setting._replace(network=object()))  # sites in other processes
    tenseal = dataclasses.replace(setting.config, aggregator="tenseal")  # a library encrypts, no program
    assert not rehearsal._helps(setting._replace(config=tenseal))
    assert not rehearsal._helps(setting._replace(dimension=rehearsal.MOST_NUMBERS))
    assert not rehearsal._helps(setting._replace(model=setting.model._replace(fixed=lambda x: x)))
    with monkeypatch.context() as patch:
        patch.delenv(FOLDER)  # a notebook, `--no-cache`, or a part of the user's own
        assert not rehearsal._helps(setting)
    monkeypatch.setattr(rehearsal, "usable_cores", lambda: 1)
    assert not rehearsal._helps(setting)
    with rehearsal.rehearsed(setting):
        assert not _threads()
