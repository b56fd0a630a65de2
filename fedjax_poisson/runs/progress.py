"""A live progress bar of a run: round, accuracy, epsilon so far, bytes sent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Bar(NamedTuple):
    """Functions of a progress bar.

    Attributes:
      plan: called with the number of training rounds once it is known.
      report: called with each line of rounds.jsonl.
    """

    plan: Callable[[int], None]
    report: Callable[[dict[str, Any]], None]


@contextlib.contextmanager
def progress(console: Console) -> Iterator[Bar]:
    """Show a bar while the block runs.

    Args:
      console: where to draw; if it is not a terminal, a plain line is printed every tenth of the run instead.
    """
    planned = [1]

    def plan(rounds: int) -> None:
        planned[0] = rounds

    if not console.is_terminal:
        yield Bar(plan, lambda line: _plain(console, line, planned[0]))
        return
    bar = Progress(
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task("planning", total=None, facts="")

        def show_plan(rounds: int) -> None:
            bar.update(task, total=rounds + 1, description="compiling")

        def update(line: dict[str, Any]) -> None:
            bar.update(task, completed=line["round"] + 1, description=line["purpose"], facts=_facts(line))

        yield Bar(show_plan, update)


def _facts(line: dict[str, Any]) -> str:
    scores = line["test"] or {}
    names = {"mean_client_accuracy": "accuracy {:.3f}  ", "rmse": "RMSE {:.4g}  "}
    known = "".join(text.format(scores[name]) for name, text in names.items() if scores.get(name) is not None)
    return f"{known}epsilon {line['epsilon_so_far']:.3f}  sent {line['bytes_up_total'] / 1e6:.2f} MB/site"


def _plain(console: Console, line: dict[str, Any], rounds: int) -> None:
    step = max(rounds // 10, 1)
    if line["round"] % step == 0 or line["round"] == rounds:
        console.print(
            f"{line['purpose']:<11} {line['round']:>4}/{rounds}  {_facts(line)}  {line['seconds']:.2f} s",
            highlight=False,
        )
