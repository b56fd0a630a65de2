"""What is seen of a run: time left from rounds that were timed, and JSON lines that every reader takes."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedjax_poisson.runs import progress, start_time

KEY = "k" * 32


def line(number: int, purpose: str = "train", **more: Any) -> dict[str, Any]:
    return {
        "round": number,
        "purpose": purpose,
        "epsilon_so_far": 0.5,
        "bytes_up_total": 1e6,
        "seconds": 1.0,
        "test": None,
    } | more


class Time:
    """A clock that is moved by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def said(folder: Path | None, steps: list[tuple[float, dict[str, Any]]], rounds: int, terminal: bool = False) -> str:
    clock, out = Time(), io.StringIO()
    console = Console(file=out, width=200, force_terminal=terminal, color_system=None)
    with progress.progress(console, clock) as bar:
        bar.plan(rounds, start_time.begin(folder, KEY, "v"))
        for seconds, each in steps:
            clock.now += seconds
            bar.report(each)
    return out.getvalue()


def test_the_first_round_says_nothing_about_the_others() -> None:
    steps = [(9.0, line(0, "standardise")), (30.0, line(1)), *((2.0, line(n)) for n in range(2, 11))]
    text = said(None, steps, 10).splitlines()
    assert text[0] == "compiling, not cached"
    assert all("left" not in row for row in text[1:4])  # 30 s was compilation, and one round is no rate
    assert "~14 s left" in text[4] and " 3/10" in text[4]
    assert "left" not in text[-1]


def test_the_start_is_counted_down_and_recorded(tmp_path: Path) -> None:
    def once(seconds: float, terminal: bool = False) -> str:
        return said(tmp_path, [(seconds / 4, line(0, "standardise")), (seconds * 3 / 4, line(1))], 1, terminal)

    (tmp_path / "jit_f-1-cache").touch()
    assert once(8.0).startswith("compiling (first time), cached afterwards\n")
    assert once(8.0).startswith("loading compiled programs, about 8 s\n")
    assert "loading compiled programs, about 6 s" in once(8.0, terminal=True)  # after the standardisation


def test_a_bar_on_a_terminal_names_the_phase_and_the_time_left(tmp_path: Path) -> None:
    steps = [(9.0, line(0, "standardise")), (30.0, line(1)), (2.0, line(2)), (4.0, line(3))]
    text = said(tmp_path, steps, 9, terminal=True)
    assert "compiling (first time), cached afterwards" in text and "train" in text and "~18 s left" in text


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (99.4, "99 s"), (120.0, "2 min"), (5940.0, "99 min"), (9000.0, "2.5 h")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert progress.in_words(seconds) == words


def test_the_last_ten_rounds_count() -> None:
    assert progress.seconds_left([1.0], 5) is None
    assert progress.seconds_left([100.0] * 5 + [1.0] * 10, 5) == 5.0
    assert progress.seconds_left([1.0, 1.0], -2) == 0.0  # a run that goes past its plan


def test_a_bar_fits_a_terminal_of_80_columns() -> None:
    clock, out = Time(), io.StringIO()
    with progress.progress(Console(file=out, width=80, force_terminal=True, color_system=None), clock) as bar:
        bar.plan(99, start_time.begin(None, KEY, "v"))
        for number in range(60):
            clock.now += 60.0
            scored = line(number, test={"mean_client_accuracy": 0.8})
            bar.report(scored if number else line(0, "standardise"))
    last = out.getvalue().replace("\n", "\r").split("\r")
    assert any("accuracy 0.800  epsilon 0.500  1.00 MB up  ~40 min left" in row for row in last)
    assert not any("…" in row for row in last)


def test_a_start_for_a_script_is_recorded_too(tmp_path: Path) -> None:
    clock = Time()
    bar = progress.json_lines(io.StringIO(), clock)
    bar.plan(2, start_time.begin(tmp_path, KEY, "v"))
    (tmp_path / "jit_f-1-cache").touch()
    clock.now += 7.0
    bar.report(line(1))
    assert start_time.begin(tmp_path, KEY, "v").earlier == start_time.StartRecord("v", 7.0, None)


def test_json_lines_are_strict_json() -> None:
    out = io.StringIO()
    progress.json_lines(out).report(line(3, test={"auc": math.nan, "by_site": [1.0, math.inf]}))
    read = json.loads(out.getvalue(), parse_constant=pytest.fail)
    assert out.getvalue().count("\n") == 1 and read["event"] == "round" and read["round"] == 3
    assert read["test"] == {"auc": None, "by_site": [1.0, None]}
