"""A run's releases other than training sums: ranges, levels and moments before them, private scores after; and each one's line in rounds.jsonl."""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fedjax_poisson import accounting, data
from fedjax_poisson.data.tables.open_table import encode_sites
from fedjax_poisson.data.tables.schema import Released, released_from_json, released_to_json
from fedjax_poisson.federated import Records, checkpoints, evaluation, standardize
from fedjax_poisson.federated.private_scores import private_scores, score_dimension, scores_of
from fedjax_poisson.federated.private_sum import SumInfo
from fedjax_poisson.federated.records import largest_unit
from fedjax_poisson.runs.build import RunSetup
from fedjax_poisson.runs.column_release import release_columns
from fedjax_poisson.runs.load_data import check_width
from fedjax_poisson.runs.run_ledger import COLUMNS, LINES, Books, charging
from fedjax_poisson.runs.scoring import predictions
from fedjax_poisson.runs.training import aggregator_for


class NothingLearned(RuntimeError):
    """The budget was used up before a single training round."""


class Progress(NamedTuple):
    """The contents of a checkpoint: the released standardisation, the server's state, the bytes sent by each site, and any released scores."""

    scaler: standardize.Scaler
    state: Any
    bytes_up: int
    scores: dict[str, Any] | None = None


def release_table(
    books: Books, out: Path, report: Callable[[dict[str, Any]], None]
) -> tuple[data.Sites, dict[str, Any]]:
    """Release the ranges and levels of open columns and encode the table with them; nothing released by an earlier process is released again.

    Returns:
      The data, and the released facts as JSON values.
    """
    prepared, opened = books.prepared, books.prepared.opened
    assert opened is not None
    began, saved, lines = time.perf_counter(), out / COLUMNS, column_lines(out)
    known = None
    if saved.exists():  # the ledger has been held against its pin
        known = released_from_json(json.loads(saved.read_text(encoding="utf-8"))["released"])

    def keep(released: Released, purpose: str, info: SumInfo) -> None:
        nonlocal began
        sent = sum(line["bytes_up_per_client"] for line in lines) + info.bytes_up_per_sender
        lines.append(round_line(0, purpose, books, info, time.perf_counter() - began, sent))
        checkpoints.write_json(saved, {**books.pinned(), "released": released_to_json(released), "lines": lines})
        checkpoints.append_line(out / LINES, lines[-1])
        report(lines[-1])
        began = time.perf_counter()

    try:
        released = release_columns(
            opened,
            prepared.plan.columns,
            charge=charging(books),
            aggregator=functools.partial(aggregator_for, prepared, out=out),
            saved=known,
            keep=keep,
        )
    except accounting.BudgetExhausted as error:
        raise NothingLearned(nothing_learned(books)) from error
    sites = encode_sites(opened, released)
    check_width(prepared.config, sites.features.shape[1], int(sites.train.sum()))
    return sites, released_to_json(released)


def column_lines(out: Path) -> list[dict[str, Any]]:
    """The lines of rounds.jsonl about released columns, as saved with the released values."""
    saved = out / COLUMNS
    found: list[dict[str, Any]] = json.loads(saved.read_text(encoding="utf-8"))["lines"] if saved.exists() else []
    return found


def nothing_learned(books: Books) -> str:
    """The message when charges have used up the budget and no round is left."""
    return (
        f"The budget was exhausted before the first of {books.prepared.recipe.rounds} rounds: {len(books.rows())} releases were charged "
        f"(epsilon {books.epsilon():.4f}), and their results were lost. There is no model; start a new run, whose epsilon adds to this one's."
    )


def release_moments(
    setting: RunSetup, books: Books, out: Path, before: Progress, charge: Callable[..., Any]
) -> tuple[Progress, dict[str, Any]]:
    """Release the moments."""
    plan, by_site = setting.plan, setting.config.standardize == "site"
    assert plan.standardize is not None
    began = time.perf_counter()
    mechanism = plan.standardize.mechanism
    gate, own = charge("standardise", 0, plan.standardize)
    bounds = setting.sites.label_bounds
    size = standardize.moment_dimension(setting.sites.binary, bounds) * (plan.senders if by_site else 1)
    try:
        scaler, info = standardize.private_scaler(
            setting.train,
            setting.sites.feature_bounds,
            setting.sites.binary,
            mechanism=mechanism,
            aggregator=aggregator_for(setting, mechanism, size, "standardise", out=out),
            stream=own,
            gate=gate,
            largest_unit=setting.largest_unit,
            by_site=by_site,
            label_bounds=bounds,
        )
    except accounting.BudgetExhausted as error:
        raise NothingLearned(nothing_learned(books)) from error
    bytes_up = before.bytes_up + info.bytes_up_per_sender
    line = round_line(0, "standardise", books, info, time.perf_counter() - began, bytes_up)
    return Progress(scaler, before.state, bytes_up), line


def release_scores(
    setting: RunSetup,
    books: Books,
    out: Path,
    params: Any,
    test: Records,
    number: int,
    bytes_up: int,
    charge: Callable[..., Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Release scores on the held-out records."""
    plan, names = setting.plan, setting.sites.site_names
    assert plan.evaluate is not None
    began = time.perf_counter()
    mechanism = plan.evaluate.mechanism
    gate, own = charge("evaluate", number, plan.evaluate)
    logits = predictions(setting, params, test)
    chances = evaluation.probabilities(logits.ravel()).reshape(
        logits.shape
    )  # a row is a site's records, not one record's classes
    total, info = private_scores(
        jnp.asarray(chances, jnp.float32),
        test,
        mechanism=mechanism,
        aggregator=aggregator_for(setting, mechanism, score_dimension(len(names)), "evaluate", out=out),
        stream=own,
        gate=gate,
        largest_unit=largest_unit(np.asarray(test.unit)),
    )
    found = scores_of(total, math.sqrt(mechanism.variance(plan.senders)), names)
    bytes_up += info.bytes_up_per_sender
    line = round_line(number, "evaluate", books, info, time.perf_counter() - began, bytes_up)
    return found, line | {"test": found}


def round_line(number: int, purpose: str, books: Books, info: SumInfo, seconds: float, bytes_up: int) -> dict[str, Any]:
    """A line of rounds.jsonl: the cost of a release, without scores. Seconds that were not measured by themselves are part of those of the training."""
    measured = (info.embed_seconds, info.encrypt_seconds, info.add_seconds, info.open_seconds)
    crypto = sum(each for each in measured if each is not None)
    return {
        "round": number,
        "purpose": purpose,
        "epsilon_so_far": books.epsilon(),
        "seconds": seconds,
        "train_seconds": max(seconds - crypto, 0.0),
        "embed_seconds": info.embed_seconds,
        "encrypt_seconds": info.encrypt_seconds,
        "add_seconds": info.add_seconds,
        "open_seconds": info.open_seconds,
        "bytes_up_per_client": info.bytes_up_per_sender,
        "bytes_up_total": bytes_up,
        "exact": info.exact,
        "fidelity": info.fidelity,
        "test": None,
    }


_NUMBERS = ("round", "epsilon_so_far", "seconds", "train_seconds", "bytes_up_per_client", "bytes_up_total", "exact")
_MEASURED = ("embed_seconds", "encrypt_seconds", "add_seconds", "open_seconds")


def is_line(row: dict[str, Any]) -> bool:
    """Whether an object of rounds.jsonl has all that `round_line` writes; a disk, or somebody, may have changed it."""
    numbers = all(isinstance(row.get(name), int | float) for name in _NUMBERS)
    measured = all(name in row and isinstance(row[name], int | float | None) for name in _MEASURED)
    return numbers and measured and isinstance(row.get("purpose"), str) and isinstance(row.get("test", 0), dict | None)
