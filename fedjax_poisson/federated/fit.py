"""A convenient training loop: rounds with a progress bar, scores, callbacks, checkpoints, and a stop when the budget is used up.

`training_rounds` is the loop itself, which `runs.run` also uses; `fit` adds the conveniences that notebooks and scripts need.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from fedjax_poisson import accounting
from fedjax_poisson.federated.algorithm import Algorithm
from fedjax_poisson.federated.charging import Paying
from fedjax_poisson.federated.checkpoints import CheckpointDamaged, load_tree, save_tree
from fedjax_poisson.federated.folder_lock import folder_lock
from fedjax_poisson.federated.population import Population
from fedjax_poisson.federated.records import Records
from fedjax_poisson.federated.stopping import stop_requested
from fedjax_poisson.federated.turns import FixedCohorts
from fedjax_poisson.randomness import Stream
from fedjax_poisson.randomness import stream as new_stream

CHECKPOINT = "fit.npz"

Ended = Literal["rounds", "budget", "controller", "callback", "interrupted"]


class Round(NamedTuple):
    """One round, as callbacks see it.

    Attributes:
      number: 1, 2, ...
      state: the algorithm's state after it.
      info: the algorithm's info about it.
      seconds: wall clock of `apply`.
      epsilon: spent so far; None if a gate of the caller is charged.
      scores: what `evaluate` returned; empty where it was not due.
    """

    number: int
    state: Any
    info: Any
    seconds: float
    epsilon: float | None = None
    scores: dict[str, Any] = {}  # noqa: RUF012  never written to

    def row(self) -> dict[str, Any]:
        """The round as one line of a history."""
        norm = getattr(self.info, "update_norm", None)
        return {
            "round": self.number,
            "epsilon": self.epsilon,
            "update_norm": norm,
            "seconds": self.seconds,
            **({"insiders": insiders} if (insiders := getattr(self.info, "insiders", "")) else {}),
            **self.scores,
        }


class Fitted(NamedTuple):
    """The result of `fit`.

    Attributes:
      params: parameters to evaluate or ship.
      state: the algorithm's state, for continuing.
      rounds: total number of rounds done.
      epsilon: spent at the delta of the algorithm's ledger; None if a gate of the caller was charged. Where noise or stopping were decided from releases, it is
        what the next question does not have; the guarantee is the ledger's budget (`control`).
      ended: "rounds" (all done), "budget" (the ledger refused the next), "controller" (the algorithm's decided to stop: the rest stays on the ledger),
        "callback" (one asked to stop) or "interrupted" (Ctrl-C, after its round).
      history: one dict per round: round, epsilon, update_norm, seconds, scores; and insiders, where corrupt clients were simulated.
    """

    params: Any
    state: Any
    rounds: int
    epsilon: float | None
    ended: Ended
    history: list[dict[str, Any]]


def training_rounds(
    algorithm: Algorithm,
    state: Any,
    cohort_of: Callable[[int], Any],
    *,
    first: int,
    last: int,
    terms: Callable[[int, Any], tuple[Paying, Stream]],
) -> Iterator[Round]:
    """Rounds `first` to `last`, one after another; fewer where the algorithm's controller stops (`stopped`).

    Args:
      algorithm: the algorithm that runs a round.
      state: before the first.
      cohort_of: `(number) -> cohort`.
      first: number of the first round.
      last: of the last.
      terms: `(number, state before it) -> (ledger, gate or "unaccounted", stream)`.

    Raises:
      BudgetExhausted: the ledger refused the next round; earlier rounds remain valid.
    """
    for number in range(first, last + 1):
        if stopped(algorithm, state):
            return
        began = time.perf_counter()
        paying, stream = terms(number, state)
        state, info = algorithm.apply(state, cohort_of(number), stream, paying)
        yield Round(number, state, info, time.perf_counter() - began, getattr(info, "epsilon", None))


def stopped(algorithm: Algorithm, state: Any) -> bool:
    """Whether the algorithm's controller has ended the training."""
    return algorithm.decision is not None and bool(algorithm.decision(state).stop)


def fit(
    algorithm: Algorithm,
    data: Records | Population | FixedCohorts | Callable[[int], Any],
    *,
    rounds: int,
    key: jax.Array | None = None,
    stream: Stream | None = None,
    gate: Callable[[int], Paying] | Literal["unaccounted"] | None = None,
    evaluate: Callable[[Any], dict[str, Any]] | None = None,
    evaluate_every: int = 1,
    callbacks: Sequence[Callable[[Round], Any]] = (),
    resume: str | Path | None = None,
    progress: bool | None = None,
) -> Fitted:
    """Train for a number of rounds, or until the algorithm's controller stops or the ledger refuses the next.

    Args:
      algorithm: `fedsgd(...)`, `fedavg(...)`, or a custom one.
      data: `Records`, the same in every round; a `Population`, all of whose clients take part in every round; the `FixedCohorts` of the algorithm, which
        then chooses; or `(number) -> cohort`, such as `population.sampled_cohorts(population, clients)`.
      rounds: total number of rounds, including those of a resumed run.
      key: key for the initial parameters; default: `jax.random.key(0)` (initial parameters are public).
      stream: stream for the noise and the encryption; default: 256 bits from the operating system.
      gate: where round `number` is charged: a function of the number, or "unaccounted"; None charges the algorithm's ledger.
      evaluate: `(params) -> {name: number}`, such as `evaluator(model, test)`; after every `evaluate_every`-th round and the last. Scores of private
        records in the clear are not covered by any epsilon.
      evaluate_every: rounds between evaluations.
      callbacks: each is called with every `Round`; one that returns True ends the training.
      resume: folder of a checkpoint, written after every round and resumed from if it exists. A private algorithm then needs a ledger in a file
        (`accounting.open_ledger`), since an in-memory ledger forgets what was spent.
      progress: show a progress bar; None shows it in a terminal or a notebook only.

    Returns:
      `Fitted`. Ctrl-C finishes the current round and returns the result so far.

    Raises:
      ValueError: a number is invalid, the checkpoint is of another algorithm, or the ledger is in memory.
      LedgerCorrupt: the ledger does not hold what had been charged when the checkpoint was written.
      FolderBusy: another process is using the folder.
    """
    if rounds < 1 or evaluate_every < 1:
        raise ValueError(f"rounds={rounds} and evaluate_every={evaluate_every}: give whole numbers of at least 1.")
    state = algorithm.init(jax.random.key(0) if key is None else key)
    stream = new_stream() if stream is None else stream
    folder = None if resume is None else Path(resume)
    ledger = algorithm.ledger if gate is None else None  # a gate's own ledger is its caller's to keep
    history: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        if folder is not None:
            _check_kept(ledger, folder)
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(folder_lock(folder))
            state, history = _picked_up(ledger, folder, state)
        show, say = stack.enter_context(_bar(progress, rounds, len(history)))
        stop = stack.enter_context(stop_requested(say))
        ended: Ended = "rounds"
        steps = training_rounds(
            algorithm,
            state,
            _cohorts(data),
            first=len(history) + 1,
            last=rounds,
            terms=lambda number, state: (gate(number) if callable(gate) else gate, stream),
        )
        try:
            for step in steps:
                state = step.state
                history.append(step.row())
                _save(ledger, folder, state, history)  # before anything else can fail: the round is paid for
                last = step.number == rounds or stopped(algorithm, state)
                if evaluate is not None and (step.number % evaluate_every == 0 or last):
                    step = step._replace(scores=evaluate(algorithm.parameters(state)))
                    history[-1] = step.row()
                    _save(ledger, folder, state, history)
                show(history[-1])
                if any([callback(step) is True for callback in callbacks]):  # every callback sees every round
                    ended = "callback"
                    break
                if stop() and not last:
                    ended = "interrupted"
                    break
            if ended == "rounds" and len(history) < rounds and stopped(algorithm, state):
                ended = "controller"
                say(f"the controller ended the training after {len(history)} of {rounds} rounds")
        except accounting.BudgetExhausted as refused:
            ended = "budget"
            say(f"the budget ends after round {len(history)}: {refused}")
    epsilon = history[-1]["epsilon"] if history else (0.0 if algorithm.ledger is not None else math.inf)
    return Fitted(algorithm.parameters(state), state, len(history), epsilon, ended, history)


def _cohorts(data: Any) -> Callable[[int], Any]:
    if isinstance(data, Population):
        everyone = np.arange(data.size)
        return lambda number: everyone
    if isinstance(data, FixedCohorts):
        return lambda number: None
    return data if callable(data) else lambda number: data


def _check_kept(ledger: accounting.Ledger | None, folder: Path) -> None:
    if ledger is not None and str(ledger.path) == accounting.MEMORY:
        raise ValueError(
            f"resume={str(folder)!r} keeps the model, but the algorithm's in-memory ledger would forget what it cost: create the algorithm with "
            f"ledger=accounting.open_ledger({str(folder / 'ledger.sqlite')!r}, epsilon=..., delta=...)."
        )


def _save(ledger: accounting.Ledger | None, folder: Path | None, state: Any, history: list[dict[str, Any]]) -> None:
    if folder is not None:
        pin = None if ledger is None else list(ledger.pin())
        save_tree(folder / CHECKPOINT, state, history=history, pin=pin)


def _picked_up(ledger: accounting.Ledger | None, folder: Path, blank: Any) -> tuple[Any, list[dict[str, Any]]]:
    if not (folder / CHECKPOINT).exists():
        return blank, []
    try:
        state, facts = load_tree(folder / CHECKPOINT, blank)
    except CheckpointDamaged as error:
        raise CheckpointDamaged(
            f"{error}, so the model is lost; what was charged stays charged. Restore the file from a backup, or delete it to train anew with what is left."
        ) from error
    if ledger is not None:
        if facts["pin"] is None:
            raise ValueError(
                f"{folder / CHECKPOINT} was written by a training that did not charge the algorithm's own ledger; give another folder."
            )
        ledger.check_pin(accounting.Pin(*facts["pin"]))
    return state, facts["history"]


@contextlib.contextmanager
def _bar(
    progress: bool | None, rounds: int, done: int
) -> Iterator[tuple[Callable[[dict[str, Any]], None], Callable[[str], None]]]:
    """`(show a row, say a sentence)` while the block runs."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console()
    shown = (console.is_terminal or console.is_jupyter) if progress is None else progress
    columns = (
        TextColumn("training"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=not shown) as bar:
        task = bar.add_task("training", total=rounds, completed=done, facts="compiling")

        def show(row: dict[str, Any]) -> None:
            numbers = {name: value for name, value in row.items() if name not in ("round", "update_norm", "seconds")}
            facts = "  ".join(f"{name} {value:.3f}" for name, value in numbers.items() if isinstance(value, float))
            bar.update(task, completed=row["round"], facts=facts)

        yield show, lambda text: bar.console.print(text, highlight=False)
