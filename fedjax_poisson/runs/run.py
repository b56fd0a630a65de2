"""The main entry point: private standardisation, private training, evaluation, and a run folder that documents it all.

Order of events in every release: contributions are computed, embedded and encrypted; the server adds ciphertexts; the ledger records the
release or refuses; the sum is opened; the model is updated; the checkpoint is renamed into place; then the model is evaluated and a line is
appended to `rounds.jsonl`. A kill at any moment loses at most the release in progress, which stays charged, and leaves a folder from which
`resume` can continue, or which explains why it cannot (`run_ledger`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from fedjax_poisson import accounting, data
from fedjax_poisson.aggregation import Aggregator
from fedjax_poisson.federated import Records, checkpoints, standardize
from fedjax_poisson.federated.charging import Paying
from fedjax_poisson.federated.fit import stopped, training_rounds
from fedjax_poisson.federated.folder_lock import folder_lock
from fedjax_poisson.federated.saved_model import save_model
from fedjax_poisson.randomness import Stream
from fedjax_poisson.runs import run_ledger as books_lib
from fedjax_poisson.runs.build import Prepared, RunSetup, complete, prepare, training_units
from fedjax_poisson.runs.config import Config, read_config
from fedjax_poisson.runs.earlier_runs import earlier_runs
from fedjax_poisson.runs.network import Network
from fedjax_poisson.runs.rehearsal import rehearsed
from fedjax_poisson.runs.releases import (
    NothingLearned,
    Progress,
    column_lines,
    is_line,
    nothing_learned,
    release_moments,
    release_scores,
    release_table,
    round_line,
)
from fedjax_poisson.runs.run_ledger import CHECKPOINT, CONFIG, DAMAGED_LINES, LINES, MODEL, SUMMARY, Books, CannotResume
from fedjax_poisson.runs.scoring import test_scores
from fedjax_poisson.runs.steering import release_of
from fedjax_poisson.runs.summary import Finished, summarise
from fedjax_poisson.runs.training import aggregator_for, blank_training, learned_records, training_for

__all__ = ["CannotResume", "NothingLearned", "OnRound", "RunExists", "Stopped", "run"]

_EVALUATIONS = 25  # of a run on pictures, whose test records take seconds to evaluate

OnRound = Callable[[dict[str, Any]], None]
"""Called with every line of rounds.jsonl as it is written."""


class RunExists(FileExistsError):
    """The output folder already holds a run."""


class Stopped(RuntimeError):
    """The run was asked to stop, or interrupted; the message says how to continue."""

    interrupted = True


def run(
    config: Config,
    out: Path,
    *,
    resume: bool = False,
    report: OnRound | None = None,
    sites: data.Sites | None = None,
    stop: Callable[[], bool] = lambda: False,
    planned: Callable[[Prepared], None] = lambda prepared: None,
    network: Network | None = None,
) -> dict[str, Any]:
    """Run (or resume) one experiment and write its folder.

    Args:
      config: the settings; with resume they must be those of the folder.
      out: run folder; must not hold a run unless resume.
      resume: continue a run that was stopped or killed.
      report: called with each round's line.
      sites: the data instead of what the settings name, for example a fold.
      stop: asked before every round; True stops the run there.
      planned: called with the plan before anything is released; raising there stops the run.
      network: the other sites, where they are in other processes (`deployment`).

    Returns:
      The summary, as in summary.json.

    Raises:
      RunExists: the folder holds a run and resume was not asked for.
      FolderBusy: another process works in the folder.
      CannotResume: ledger, checkpoint or settings are not what the run left; nothing was released.
      Stopped: `stop` said so, or Ctrl-C; everything that is finished is saved.
      NothingLearned: the budget was used up before the first round.
      ValueError: a setting or the data is wrong, or a privacy claim would be unsound; nothing was released.
    """
    started = time.perf_counter()
    out = Path(out)
    if resume:
        _check_settings(config, out)
    else:
        _check_new(out)
        prepared = prepare(config, sites, network)  # refuses what is wrong before anything is written
        planned(prepared)
        out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with _nothing_released(out):
            stack.enter_context(folder_lock(out))
        if resume:
            prepared = prepare(config, sites, network)
            planned(prepared)
        else:
            _check_new(out)  # another process may have been faster
        with _nothing_released(out):
            books = (books_lib.resume if resume else books_lib.start)(prepared, out)
        with contextlib.closing(books.ledger):
            summary = _train_and_tell(books, out, report or (lambda line: None), stop, resume)
            summary["total_seconds"] = time.perf_counter() - started
            try:
                checkpoints.write_json(out / SUMMARY, summary)
            except OSError as error:
                raise _told(error, f"every round is saved. Free space, then finish with --resume {out}") from error
    return summary


@contextlib.contextmanager
def _nothing_released(out: Path) -> Iterator[None]:
    """What a full or read-only disk means before the first release of a process."""
    try:
        yield
    except OSError as error:
        what = (
            f"{out} cannot be written, and nothing was released. Free space or choose another folder, then start again"
        )
        raise _told(error, what) from error


def _told(error: OSError, what: str) -> OSError:
    """The system's error with what it means for the run."""
    return type(error)(*error.args[:1], f"{error.strerror or error}; {what}")


def _check_settings(config: Config, out: Path) -> None:
    if not (out / CONFIG).exists():
        raise ValueError(f"{out} holds no {CONFIG}: there is no run to resume; start one with --out {out}.")
    stored = read_config(out / CONFIG)
    if stored != config:
        changed = [f.name for f in dataclasses.fields(Config) if getattr(stored, f.name) != getattr(config, f.name)]
        raise ValueError(
            f"{out / CONFIG} was written with other settings ({', '.join(changed)}); resume without changing them."
        )


def _check_new(out: Path) -> None:
    if (out / CONFIG).exists():
        raise RunExists(f"{out} already holds a run; choose another --out, or continue it with --resume {out}.")


def _train_and_tell(
    books: Books, out: Path, report: OnRound, stop: Callable[[], bool], resumed: bool
) -> dict[str, Any]:
    done = 0

    def note(line: dict[str, Any]) -> None:
        nonlocal done
        done = line["round"]
        report(line)

    try:
        sites, columns = books.prepared.sites, None
        if sites is None:
            sites, columns = release_table(books, out, note)
        setting = complete(books.prepared, sites)
        aggregator = aggregator_for(setting, setting.plan.train.mechanism, setting.dimension, "train", out=out)
        with rehearsed(setting):
            released = _release_everything(setting, aggregator, books, out, note, stop, resumed)
        cohort, test, progress, exhausted = released
        blank = blank_training(setting)
        params = blank.algorithm.parameters(progress.state)
        save_model(out / MODEL, setting.model, params, sites, progress.scaler)
        lines, _ = checkpoints.read_lines(out / LINES)
        summary = summarise(
            setting,
            books,
            Finished(
                lines=lines,
                cohort=cohort,
                test=test,
                params=params,
                rounds=int(progress.state.round),
                stop=stopped(blank.algorithm, progress.state),
                aggregator=aggregator,
                exhausted=exhausted,
                released=progress.scores,
                scaler=progress.scaler,
                columns=columns,
                earlier=earlier_runs(books, out),
            ),
        )
        if (out / DAMAGED_LINES).exists():
            summary["warnings"].append(
                f"{LINES} was damaged or lost in part when the run went on: lines that could not be read are missing from it and from every sum over rounds; "
                f"the old file is {DAMAGED_LINES}"
            )
        return summary
    except KeyboardInterrupt as interrupted:
        raise Stopped(
            f"Interrupted after round {done}. A release in progress stays charged. Continue with --resume {out}"
        ) from interrupted
    except OSError as error:
        what = f"round {done} is saved, a later one stays charged if it was charged. Continue with --resume {out}"
        raise _told(error, what) from error


def _release_everything(
    setting: RunSetup,
    train_aggregator: Aggregator,
    books: Books,
    out: Path,
    report: OnRound,
    stop: Callable[[], bool],
    resumed: bool,
) -> tuple[Records, Records, Progress, bool]:
    """Standardise, then train until the rounds or the budget are used up; picks up where a checkpoint stands."""
    config, recipe, plan = setting.config, setting.recipe, setting.plan
    charge = books_lib.charging(books)
    lines, saved = out / LINES, out / CHECKPOINT

    def save(progress: Progress, line: dict[str, Any]) -> None:
        checkpoints.save_tree(
            saved,
            (progress.scaler, progress.state),
            **books.pinned(),
            bytes_up=progress.bytes_up,
            scores=progress.scores,
            line=line,
        )

    def tell(line: dict[str, Any]) -> None:
        checkpoints.append_line(lines, line)
        report(line)

    progress = _picked_up(setting, books, out) if resumed else None
    if progress is None:
        progress = Progress(*_start(setting, out))
        if plan.standardize is not None:
            progress, line = release_moments(setting, books, out, progress, charge)
            save(progress, line)
            tell(line)
    scaler, state, bytes_up, scores = progress
    exhausted, before = False, state
    cohort, test = (learned_records(setting, scaler, part) for part in (setting.train, setting.test))
    algorithm, cohort_of = training_for(setting, scaler, cohort, train_aggregator)
    every = max(1, recipe.rounds // _EVALUATIONS) if setting.sites.features.ndim == 4 else 1

    paid: set[int] = set()

    def portions_in(state: Any) -> int | None:
        return None if algorithm.decision is None else int(algorithm.decision(state).portions)

    def terms(number: int, before: Any) -> tuple[Paying, Stream]:
        if stop():
            raise Stopped(f"Stopped after round {number - 1} of {recipe.rounds}; continue with --resume {out}")
        decided = portions_in(before)
        release = plan.of_round(number) if decided is None else release_of(plan, number, decided)
        pay, own = charge("train", number, release, algorithm.fidelity)

        def asked() -> None:
            pay()
            paid.add(number)

        return asked, own

    steps = training_rounds(algorithm, state, cohort_of, first=int(state.round) + 1, last=recipe.rounds, terms=terms)
    try:
        for number, state, info, seconds, *_ in steps:
            if number not in paid:
                raise ValueError(
                    f"algorithm={config.algorithm!r} finished round {number} without asking the gate that `apply` was given, so nothing was charged for what "
                    "it released: call it once, before the sum is opened."
                )
            bytes_up += info.sum.bytes_up_per_sender
            line = round_line(number, "train", books, info.sum, seconds, bytes_up) | {"portions": portions_in(before)}
            before = state
            save(Progress(scaler, state, bytes_up), line)
            due = number % every == 0 or number == recipe.rounds or stopped(algorithm, state)
            if due and config.evaluation == "clear":
                line["test"] = _scores(setting, scaler, algorithm.parameters(state), test)
            tell(line)
    except accounting.BudgetExhausted as error:
        if int(state.round) == 0:
            raise NothingLearned(nothing_learned(books)) from error
        exhausted = True
    if plan.evaluate is not None and scores is None:
        params = algorithm.parameters(state)
        try:
            scores, line = release_scores(setting, books, out, params, test, int(state.round), bytes_up, charge)
        except accounting.BudgetExhausted:
            return cohort, test, Progress(scaler, state, bytes_up), True
        bytes_up = line["bytes_up_total"]
        save(Progress(scaler, state, bytes_up, scores), line)
        tell(line)
    return cohort, test, Progress(scaler, state, bytes_up, scores), exhausted


def _start(setting: RunSetup, out: Path) -> tuple[standardize.Scaler, Any, int]:
    """Before the first release: the public standardisation (used as it is where none is released) and the initial state."""
    scaler = standardize.bounds_scaler(
        setting.sites.feature_bounds, training_units(setting.config, setting.train), setting.sites.label_bounds
    )
    return scaler, _first_state(setting), sum(line["bytes_up_per_client"] for line in column_lines(out))


def _first_state(setting: RunSetup) -> Any:
    return blank_training(setting).algorithm.init(jax.random.key(0))


def _picked_up(setting: RunSetup, books: Books, out: Path) -> Progress | None:
    """What the checkpoint holds, with rounds.jsonl cut or completed to it; None where there is no checkpoint."""
    lines, saved = out / LINES, out / CHECKPOINT
    found, damaged = checkpoints.read_lines(lines)
    kept = [row for row in found if is_line(row)]
    damaged += len(found) - len(kept)
    books_lib.check_charged(books, (f"{row['purpose']} {row['round']}" for row in kept), str(lines))
    if not saved.exists():
        checkpoints.write_lines(lines, column_lines(out))
        return None
    by_site = setting.plan.senders if setting.config.standardize == "site" else None
    regression = setting.target.task == "regression"
    blank = standardize.blank_scaler(setting.sites.features.shape[-1], by_site, regression=regression)
    example = (blank, _first_state(setting))
    (scaler, state), facts = checkpoints.load_tree(saved, example)
    number = int(state.round)
    due = _labels_of(setting, number)
    books_lib.check_charged(books, [f"{purpose} {k}" for k, purpose in due], str(saved))
    kept = [
        row
        for row in kept
        if row["round"] <= number
        and row["purpose"] not in ("columns", "ranges")
        and (row["purpose"] != "evaluate" or facts["scores"])
    ]
    last = facts["line"]
    if not any(
        (row["round"], row["purpose"]) == (last["round"], last["purpose"]) for row in kept
    ):  # killed before its line was written
        kept.append(last)
    kept = [*column_lines(out), *kept]
    known = {(row["round"], row["purpose"]) for row in kept}
    missing = any(label not in known for label in due)
    if damaged or (missing and not (out / DAMAGED_LINES).exists()):
        checkpoints.write_atomic(out / DAMAGED_LINES, lines.read_bytes() if lines.exists() else b"")
    checkpoints.write_lines(lines, kept)
    return Progress(scaler, state, int(facts["bytes_up"]), facts["scores"])


def _labels_of(setting: RunSetup, number: int) -> list[tuple[int, str]]:
    """(round, purpose) of the releases behind a state of so many rounds, apart from those of columns."""
    return [*([(0, "standardise")] if setting.plan.standardize else []), *((k, "train") for k in range(1, number + 1))]


def _scores(setting: RunSetup, scaler: standardize.Scaler, params: Any, test: Records) -> dict[str, Any]:
    scores = test_scores(setting, scaler, params, test)
    left_out = ("auc_by_site", "calibration_error_by_site", "r2_by_site")
    return {name: value for name, value in scores.items() if name not in left_out}
