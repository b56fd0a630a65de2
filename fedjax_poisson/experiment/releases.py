"""The releases of a run beside its training sums: the moments before, and private scores after; and the line that each leaves in rounds.jsonl."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fedjax_poisson import accounting
from fedjax_poisson.experiment import evaluate
from fedjax_poisson.experiment.books import Books
from fedjax_poisson.experiment.setting import Setting, aggregator_for
from fedjax_poisson.experiment.summary import predictions
from fedjax_poisson.federated import Records, standardize
from fedjax_poisson.federated.private_scores import private_scores, score_dimension, scores_of
from fedjax_poisson.federated.private_sum import SumInfo
from fedjax_poisson.federated.records import largest_unit
from fedjax_poisson.federated.server import State


class NothingLearned(RuntimeError):
    """The budget was used up before a single training round."""


class Progress(NamedTuple):
    """What a checkpoint holds: the released standardisation, the server's state, bytes that each site has sent, and released scores where there are some."""

    scaler: standardize.Scaler
    state: State
    bytes_up: int
    scores: dict[str, Any] | None = None


def standardise(
    setting: Setting, books: Books, state: State, charge: Callable[..., Any]
) -> tuple[Progress, dict[str, Any]]:
    """The moments, released."""
    plan, by_site = setting.plan, setting.config.standardize == "site"
    assert plan.standardize is not None
    began = time.perf_counter()
    gate, own = charge("standardise", 0, plan.standardize, plan.standardize_rdp, plan.standardize_distance)
    size = standardize.moment_dimension(setting.sites.binary) * (plan.senders if by_site else 1)
    try:
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
    except accounting.BudgetExhausted as error:
        raise NothingLearned(
            f"The budget was exhausted before the first of {setting.config.rounds} rounds: {len(books.rows())} releases are charged "
            f"(epsilon {books.epsilon():.4f}), and what they released was lost. There is no model; start a new run, whose epsilon adds to this one's."
        ) from error
    bytes_up = info.bytes_up_per_sender
    line = round_line(0, "standardise", books, info, time.perf_counter() - began, bytes_up)
    return Progress(scaler, state, bytes_up), line


def release_scores(
    setting: Setting,
    books: Books,
    params: Any,
    test: Records,
    number: int,
    bytes_up: int,
    charge: Callable[..., Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores on the held-out records, released."""
    plan, names = setting.plan, setting.sites.site_names
    assert plan.evaluate is not None
    began = time.perf_counter()
    gate, own = charge("evaluate", number, plan.evaluate, plan.evaluate_rdp, plan.evaluate_distance)
    chances = evaluate.probabilities(predictions(setting, params, test))
    total, info = private_scores(
        jnp.asarray(chances, jnp.float32),
        test,
        mechanism=plan.evaluate,
        aggregator=aggregator_for(setting, plan.evaluate, score_dimension(len(names)), "evaluate"),
        stream=own,
        gate=gate,
        largest_unit=largest_unit(np.asarray(test.unit)),
    )
    found = scores_of(total, math.sqrt(plan.evaluate.variance(plan.senders)), names)
    bytes_up += info.bytes_up_per_sender
    line = round_line(number, "evaluate", books, info, time.perf_counter() - began, bytes_up)
    return found, line | {"test": found}


def round_line(number: int, purpose: str, books: Books, info: SumInfo, seconds: float, bytes_up: int) -> dict[str, Any]:
    """A line of rounds.jsonl: what a release cost, without scores."""
    crypto = info.embed_seconds + info.encrypt_seconds + info.add_seconds + info.open_seconds
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
        "test": None,
    }
