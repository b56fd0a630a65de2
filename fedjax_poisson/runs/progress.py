"""What is seen of a run while it goes on: a live bar for people, one JSON line a release for scripts."""

from __future__ import annotations

import contextlib
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from fedjax_poisson.runs import start_time
from fedjax_poisson.runs.start_time import Start

__all__ = ["Bar", "in_words", "json_lines", "progress", "seconds_left", "to_strict_json"]

_RECENT = 10  # rounds that say how long the next ones take


class Bar(NamedTuple):
    """Functions of a progress bar.

    Attributes:
      plan: called once the number of training rounds is known, with it and with what the start is expected to take (`start_time.begin`).
      report: called with each line of rounds.jsonl.
    """

    plan: Callable[[int, Start], None]
    report: Callable[[dict[str, Any]], None]


class _Clock:
    """Times of the reports of one run: the one thing here that changes."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now, self.rounds = now, 1
        self.start: Start | None = None
        self.planned = self.last = now()
        self.took: list[float] = []  # seconds of each training round after the first, which compiles

    def plan(self, rounds: int, start: Start) -> None:
        self.rounds, self.start = rounds, start
        self.planned = self.last = self.now()

    def report(self, line: dict[str, Any]) -> None:
        """Note a line's time; the first training round ends the start."""
        here = self.now()
        if line["purpose"] == "train":
            if self.start is not None:
                start_time.finish(self.start, here - self.planned)
                self.start = None
            else:
                self.took.append(here - self.last)
            self.last = here

    def waiting(self) -> str:
        """What the user waits for before the first training round."""
        if self.start is None:
            return ""
        what, seconds = start_time.expected(self.start)
        if seconds is None:
            return what
        left = seconds - (self.now() - self.planned)
        first, comma, rest = what.partition(",")
        return f"{first}, about {in_words(left)}{comma}{rest}" if left > 0 else what

    def left(self, number: int) -> float | None:
        return seconds_left(self.took, self.rounds - number)


def seconds_left(took: list[float], rounds: int) -> float | None:
    """Expected seconds of the remaining rounds, by the median of the last ten; None before two rounds were timed.

    Args:
      took: seconds of rounds so far, without the first, which compiles.
      rounds: that remain.
    """
    return None if len(took) < 2 else statistics.median(took[-_RECENT:]) * max(rounds, 0)


def in_words(seconds: float) -> str:
    """A duration for people: "8 s", "3 min", "2.5 h"."""
    if seconds < 99.5:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"


@contextlib.contextmanager
def progress(console: Console, now: Callable[[], float] = time.monotonic) -> Iterator[Bar]:
    """Show a bar while the block runs.

    Args:
      console: where to draw; if it is not a terminal, a plain line is printed every tenth of the run instead.
      now: a clock in seconds.
    """
    clock = _Clock(now)
    if not console.is_terminal:

        def say_plan(rounds: int, start: Start) -> None:
            clock.plan(rounds, start)
            console.print(clock.waiting(), highlight=False)

        def say(line: dict[str, Any]) -> None:
            clock.report(line)
            _plain(console, line, clock)

        yield Bar(say_plan, say)
        return
    wide = console.width >= 100  # 80 columns do not hold everything
    bar = Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24 if wide else 5),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn() if wide else SpinnerColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task("planning", total=None, facts="")

        def show_plan(rounds: int, start: Start) -> None:
            clock.plan(rounds, start)
            bar.update(task, total=rounds + 1, description=clock.waiting(), refresh=True)

        def update(line: dict[str, Any]) -> None:
            clock.report(line)
            waiting = clock.waiting()
            what, facts = (waiting, "") if waiting else (line["purpose"], _facts(line, clock))
            bar.update(task, completed=line["round"] + 1, description=what, facts=facts, refresh=True)

        yield Bar(show_plan, update)


def json_lines(out: TextIO, now: Callable[[], float] = time.monotonic) -> Bar:
    """A bar for scripts: each line of rounds.jsonl as one JSON object with `"event": "round"`, as soon as its release is saved.

    Args:
      out: where to write, usually standard output.
      now: a clock in seconds; the start is recorded for the runs that people watch.
    """
    clock = _Clock(now)

    def report(line: dict[str, Any]) -> None:
        clock.report(line)
        print(to_strict_json({"event": "round", **line}), file=out, flush=True)

    return Bar(clock.plan, report)


def to_strict_json(value: dict[str, Any]) -> str:
    """One line that every JSON reader takes: what is not finite becomes null."""

    def finite(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: finite(each) for key, each in part.items()}
        if isinstance(part, (list, tuple)):
            return [finite(each) for each in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(finite(value), allow_nan=False)


def _facts(line: dict[str, Any], clock: _Clock) -> str:
    scores = line["test"] or {}
    names = {"mean_client_accuracy": "accuracy {:.3f}  ", "rmse": "RMSE {:.4g}  "}
    known = "".join(text.format(scores[name]) for name, text in names.items() if scores.get(name) is not None)
    left = clock.left(line["round"])
    ahead = f"  ~{in_words(left)} left" if left else ""
    return f"{known}epsilon {line['epsilon_so_far']:.3f}  {line['bytes_up_total'] / 1e6:.2f} MB up{ahead}"


def _plain(console: Console, line: dict[str, Any], clock: _Clock) -> None:
    step = max(clock.rounds // 10, 1)
    if line["round"] % step == 0 or line["round"] == clock.rounds:
        console.print(
            f"{line['purpose']:<11} {line['round']:>4}/{clock.rounds}  {_facts(line, clock)}  {line['seconds']:.2f} s",
            highlight=False,
        )
