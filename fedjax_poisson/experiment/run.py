"""The main job: private standardisation, private training, evaluation, and a run folder that shows it all.

Order of events in every release: contributions are computed, embedded and encrypted; the server adds ciphertexts; the ledger writes the
release down or refuses; the sum is opened; the model moves; a line is appended to `rounds.jsonl`; a checkpoint is renamed into place. A kill
at any moment leaves a folder that `resume` can go on from: a release that was written but whose result was lost stays spent.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_poisson import accounting, data
from fedjax_poisson.ckks import Aggregator
from fedjax_poisson.experiment import checkpoint, evaluate
from fedjax_poisson.experiment.config import Config, read_config, write_config
from fedjax_poisson.experiment.setting import (
    Setting,
    aggregator_for,
    algorithm_for,
    build,
    initial_state,
    learned_records,
    training_units,
)
from fedjax_poisson.experiment.summary import predictions, summarise
from fedjax_poisson.federated import Records, standardize
from fedjax_poisson.federated.private_sum import SumInfo
from fedjax_poisson.mechanisms import Mechanism
from fedjax_poisson.randomness import Stream, fold_in

_EVALUATIONS = 25  # of a run on pictures, whose test records take seconds to evaluate

Report = Callable[[dict[str, Any]], None]
"""Called with every line of rounds.jsonl as it is written."""


class RunExists(FileExistsError):
    """The output folder already holds a run."""


def run(
    config: Config,
    out: Path,
    *,
    resume: bool = False,
    report: Report | None = None,
    sites: data.Sites | None = None,
) -> dict[str, Any]:
    """Run (or go on with) one experiment and leave its folder.

    Args:
      config: the settings; with resume they must be those of the folder.
      out: run folder; must not hold a run unless resume.
      resume: go on with a run that was stopped or killed.
      report: called with each round's line.
      sites: the data instead of what the settings name, for example a fold.

    Returns:
      The summary, as in summary.json.

    Raises:
      RunExists: the folder holds a run and resume was not asked for.
      ValueError: a setting or the data is wrong, or a privacy claim would be unsound; nothing was released.
    """
    started = time.perf_counter()
    out = Path(out)
    _check_folder(config, out, resume)
    setting = build(config, sites)  # refuses what is wrong before anything is written
    out.mkdir(parents=True, exist_ok=True)
    write_config(config, out / "config.toml")
    ledger = accounting.open_ledger(
        out / "ledger.sqlite",
        epsilon=config.epsilon,
        delta=setting.plan.accounted_delta,
        unit=setting.sites.unit,
        adjacency=config.adjacency,
        orders=setting.plan.orders,
        planned_rdp=setting.plan.standardize_rdp + setting.plan.rounds * setting.plan.train_rdp,
    )
    train_aggregator = aggregator_for(setting, setting.plan.train, setting.dimension, "train")
    try:
        cohort, test, state, exhausted = _release_everything(
            setting, train_aggregator, ledger, out, report or (lambda line: None)
        )
        lines = checkpoint.read_lines(out / "rounds.jsonl")
        summary = summarise(setting, ledger, lines, cohort, test, state, train_aggregator, exhausted)
    finally:
        ledger.close()
    summary["total_seconds"] = time.perf_counter() - started
    checkpoint.write_json(out / "summary.json", summary)
    return summary


def _check_folder(config: Config, out: Path, resume: bool) -> None:
    settings = out / "config.toml"
    if resume:
        if not settings.exists():
            raise ValueError(f"{out} holds no config.toml: there is no run to resume; start one with --out {out}.")
        stored = read_config(settings)
        if stored != config:
            changed = [f.name for f in dataclasses.fields(Config) if getattr(stored, f.name) != getattr(config, f.name)]
            raise ValueError(
                f"{settings} was written with other settings ({', '.join(changed)}); resume without changing them."
            )
        return
    if settings.exists():
        raise RunExists(f"{out} already holds a run; choose another --out, or go on with it by --resume {out}.")


def _release_everything(
    setting: Setting, train_aggregator: Aggregator, ledger: accounting.Ledger, out: Path, report: Report
) -> tuple[Records, Records, Any, bool]:
    """Standardise, then train until the rounds or the budget are used up; picks up where a checkpoint stands."""
    config, plan, senders = setting.config, setting.plan, setting.plan.senders
    lines = out / "rounds.jsonl"
    saved = out / "checkpoints" / "latest.npz"
    width = setting.sites.features.shape[-1]
    blank = standardize.blank_scaler(width, senders if config.standardize == "site" else None)

    earlier = collections.Counter(row.label for row in ledger.rows())

    def charge(purpose: str, number: int, mechanism: Mechanism, rdp: np.ndarray) -> tuple[Callable[[], None], Stream]:
        """The gate of a release and its stream; a repeated attempt at the same round never reuses a stream."""
        label = f"{purpose} {number}"
        attempts = earlier[label]  # in this process every label is tried once

        def gate() -> None:
            ledger.spend(
                purpose,
                label,
                mechanism.facts.name,
                dict(mechanism.facts.parameters),
                rdp,
                plan.honest_senders,
                senders,
            )

        return gate, fold_in(setting.root, purpose, number, attempts)

    if saved.exists():
        example = (blank, initial_state(setting))
        (scaler, state), facts = checkpoint.load_tree(saved, example)
        kept = [row for row in checkpoint.read_lines(lines) if row["round"] <= int(state.round)]
        checkpoint.write_lines(lines, kept)
        bytes_up = int(facts["bytes_up"])
        algorithm = algorithm_for(setting, scaler, train_aggregator)
    else:
        checkpoint.write_lines(lines, [])
        bytes_up, state = 0, initial_state(setting)
        if plan.standardize is None:
            scaler = standardize.bounds_scaler(setting.sites.feature_bounds, training_units(config, setting.train))
        else:
            began = time.perf_counter()
            gate, own = charge("standardise", 0, plan.standardize, plan.standardize_rdp)
            by_site = config.standardize == "site"
            size = standardize.moment_dimension(setting.sites.binary) * (senders if by_site else 1)
            scaler, info = standardize.private_scaler(
                setting.train,
                setting.sites.feature_bounds,
                setting.sites.binary,
                mechanism=plan.standardize,
                aggregator=aggregator_for(setting, plan.standardize, size, "standardise"),
                stream=own,
                gate=gate,
                largest_unit=setting.largest_unit,
                by_site=by_site,
            )
            bytes_up = info.bytes_up_per_sender
            line = _line(0, "standardise", ledger, info, time.perf_counter() - began, bytes_up, None)
            checkpoint.append_line(lines, line)
            checkpoint.save_tree(saved, (scaler, state), bytes_up=bytes_up)
            report(line)
        algorithm = algorithm_for(setting, scaler, train_aggregator)

    cohort, test = (learned_records(setting, scaler, part) for part in (setting.train, setting.test))
    exhausted = False
    every = max(1, config.rounds // _EVALUATIONS) if setting.sites.features.ndim == 4 else 1
    while int(state.round) < config.rounds:
        number = int(state.round) + 1
        began = time.perf_counter()
        gate, own = charge("train", number, plan.train, plan.train_rdp)
        try:
            state, round_info = algorithm.apply(state, cohort, own, gate)
        except accounting.BudgetExhausted:
            exhausted = True
            break
        seconds = time.perf_counter() - began
        bytes_up += round_info.sum.bytes_up_per_sender
        due = number % every == 0 or number == config.rounds
        scores = _scores(setting, algorithm.parameters(state), test) if due else None
        line = _line(number, "train", ledger, round_info.sum, seconds, bytes_up, scores)
        checkpoint.append_line(lines, line)
        checkpoint.save_tree(saved, (scaler, state), bytes_up=bytes_up)
        report(line)
    return cohort, test, state, exhausted


def _scores(setting: Setting, params: Any, test: Records) -> dict[str, Any]:
    logits = predictions(setting, params, test)
    scores = evaluate.scores(logits, np.asarray(test.labels), np.asarray(test.mask), setting.sites.site_names)
    return {name: value for name, value in scores.items() if name not in ("auc_by_site", "calibration_error_by_site")}


def _line(
    number: int,
    purpose: str,
    ledger: accounting.Ledger,
    info: SumInfo,
    seconds: float,
    bytes_up: int,
    scores: dict[str, Any] | None,
) -> dict[str, Any]:
    crypto = info.embed_seconds + info.encrypt_seconds + info.add_seconds + info.open_seconds
    return {
        "round": number,
        "purpose": purpose,
        "epsilon_so_far": ledger.epsilon(),
        "seconds": seconds,
        "train_seconds": max(seconds - crypto, 0.0),
        "embed_seconds": info.embed_seconds,
        "encrypt_seconds": info.encrypt_seconds,
        "add_seconds": info.add_seconds,
        "open_seconds": info.open_seconds,
        "bytes_up_per_client": info.bytes_up_per_sender,
        "bytes_up_total": bytes_up,
        "exact": info.exact,
        "test": scores,
    }
