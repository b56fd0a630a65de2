"""The summary of a finished run: what was released, its cost and accuracy, and the same recipe without privacy for comparison."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, NamedTuple

import jax

from fedjax_poisson import accounting, data
from fedjax_poisson.aggregation import Aggregator
from fedjax_poisson.federated import Records, standardize, task_scores
from fedjax_poisson.mechanisms import Mechanism
from fedjax_poisson.runs import scoring
from fedjax_poisson.runs.border_control import WIDTH, border_scores
from fedjax_poisson.runs.build import RunSetup
from fedjax_poisson.runs.config import records_are_public
from fedjax_poisson.runs.earlier_runs import EarlierRuns
from fedjax_poisson.runs.run_ledger import Books, foreign_parts
from fedjax_poisson.runs.steering import ending, steering_of
from fedjax_poisson.runs.verdict import (
    PRIVATE,
    conditions,
    judge,
    notes_may_be_shown,
    site_sizes_public,
    yardstick_wanted,
)

_PACKAGES = ("fedjax-poisson", "jax", "jaxlib", "numpy", "optax", "tenseal", "scipy", "cryptography")
_BESIDE = (
    *("mean_client_accuracy", "pooled_accuracy", "auc", "accuracy_by_site", "calibration_error"),
    *("rmse", "r2", "mean_absolute_error", "rmse_by_site"),
)  # scores that are shown beside those of the same recipe without privacy
_DRAWN = ("reliability", "intervals", "curves", "subgroups")  # of public or paid-for test records


class Finished(NamedTuple):
    """The outcome of a run, apart from its settings and its ledger.

    Attributes:
      lines: rows of rounds.jsonl.
      cohort: training records as seen by the trained part of the model (`build.learned_records`).
      test: test records in the same form.
      params: the final parameters.
      rounds: training sums that were released.
      stop: whether the training's controller ended it.
      aggregator: the encryption of the training sums.
      exhausted: whether the budget ran out before all planned releases were made.
      scaler: the standardisation.
      released: scores that were released (`federated.private_scores`), or None.
      columns: released ranges and levels as JSON values, or None.
      earlier: other runs on the same data.
    """

    lines: list[dict[str, Any]]
    cohort: Records
    test: Records
    params: Any
    rounds: int
    stop: bool
    aggregator: Aggregator
    exhausted: bool
    scaler: standardize.Scaler
    released: dict[str, Any] | None
    columns: dict[str, Any] | None
    earlier: EarlierRuns


def summarise(setting: RunSetup, books: Books, finished: Finished) -> dict[str, Any]:
    """Everything `summary.json` holds, JSON values only.

    Args:
      setting: the run.
      books: its ledger.
      finished: its outcome.
    """
    # The yardstick and the scores take the time; the date below is when they are done.
    public = (finished.cohort, finished.test)
    plain = scoring.without_privacy(setting, public=public) if yardstick_wanted(setting) else {}
    return {
        "dataset": setting.sites.provenance.name,
        **_privacy(setting, books, finished),
        "released_columns": finished.columns,
        "budget_exhausted": finished.exhausted,
        **_shown_scores(setting, finished),
        **{f"nonprivate_{name}": plain.get(name) for name in _BESIDE},
        **_costs(setting, finished),
        **_recipe(setting),
        **_ledger(setting, books),
        "earlier_runs": {
            "folders": list(finished.earlier.folders),
            "epsilon_together": finished.earlier.epsilon,
        },
        **_data(setting),
        "machine": f"{platform.system()} {platform.machine()}, {jax.devices()[0].device_kind}, Python {platform.python_version()}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }


def _privacy(setting: RunSetup, books: Books, finished: Finished) -> dict[str, Any]:
    """The verdict, the budget spent and the number of releases."""
    config, plan, releases = setting.config, setting.plan, books.rows()
    judged, rounds = judge(releases, conditions(setting)), finished.rounds
    steering = steering_of(setting.recipe, plan, setting.dimension) if setting.kind.steered else None
    adapts = steering is not None and steering.adapts
    once = len(plan.columns.releases) + (plan.standardize is not None) + (finished.released is not None)
    return {
        "verdict": judged.word,
        "private": judged.word == PRIVATE,
        "privacy_note": "; ".join(judged.reasons),
        "conditions": [{"fact": each.fact, "remedy": each.remedy} for each in judged.conditions],
        "public_data": records_are_public(config),
        "assumed": list(judged.assumed),
        "unit": setting.unit,
        "adjacency": config.adjacency,
        "epsilon": books.guaranteed(adapts),
        "epsilon_spent": books.epsilon(),
        "adapts": adapts,
        "ended": None
        if steering is None
        else ending(steering.controller, finished.stop, rounds, setting.recipe.rounds, books.ledger.remaining()),
        "epsilon_one_honest": plan.epsilon_one_honest,
        "delta": config.delta,
        "epsilon_target": config.epsilon,
        "sampler_delta": plan.sampler_delta,
        "rounds": rounds,
        "rounds_planned": setting.recipe.rounds,
        "lost_releases": len(releases) - rounds - once,
    }


def _costs(setting: RunSetup, finished: Finished) -> dict[str, Any]:
    """Bytes and seconds, with the encryption that caused them."""
    lines, trained = finished.lines, [line for line in finished.lines if line["purpose"] == "train"]
    return {
        "bytes_up_per_client_per_round": max((line["bytes_up_per_client"] for line in trained), default=0),
        "bytes_up_total_per_client": lines[-1]["bytes_up_total"] if lines else 0,
        "plaintext_bytes_per_client_per_round": 4 * setting.dimension,
        **{
            f"{phase}_seconds": _sum_of(line[f"{phase}_seconds"] for line in lines)
            for phase in ("train", "embed", "encrypt", "add", "open")
        },
        "fidelity": trained[-1].get("fidelity") if trained else None,
        "aggregator": setting.config.aggregator,
        "aggregator_info": describe_aggregator(finished.aggregator),
    }


def _sum_of(seconds: Iterable[float | None]) -> float | None:
    """None where one was not measured."""
    found = list(seconds)
    return None if None in found else sum(each for each in found if each is not None)


def _noise_senders(setting: RunSetup) -> dict[str, int] | None:
    """Who sends the noise of norm rounds, and how many of these the price counts; None where senders bring their own."""
    by = setting.plan.train.mechanism.noise_senders
    return None if by is None else {"senders": by.senders, "honest": by.honest}


def _recipe(setting: RunSetup) -> dict[str, Any]:
    """What was trained, on which data, through which mechanisms."""
    config, plan, sites = setting.config, setting.plan, setting.sites
    return {
        "evaluation": config.evaluation,
        "algorithm": config.algorithm,
        "mechanism": {
            **{each.purpose: describe(each.planned.mechanism) for each in plan.columns.releases},
            **({} if plan.standardize is None else {"standardise": describe(plan.standardize.mechanism)}),
            "train": describe(plan.train.mechanism)
            | ({"status": "assumed"} if ("mechanism", config.mechanism) in foreign_parts(config) else {}),
            **({} if plan.evaluate is None else {"evaluate": describe(plan.evaluate.mechanism)}),
        },
        "standardize": config.standardize,
        "model": config.model,
        "task": setting.target.task,
        "label_bounds": None if setting.target.label_bounds is None else list(setting.target.label_bounds),
        "classes": list(sites.class_names),
        "record_shape": list(sites.features.shape[1:]),
        "border_only": border_scores(sites) if _needs_border(setting) and _border_may_be_shown(setting) else None,
        "senders": plan.senders,
        "honest_senders": plan.honest_senders,
        "noise_senders": _noise_senders(setting),
        "training": setting.recipe._asdict(),
        "portions": plan.portions,
        "law": plan.law,
        "renyi_variance": plan.renyi_variance,
        "sampling_rate": setting.recipe.sampling_rate,
        "dimension": setting.dimension,
    }


def _ledger(setting: RunSetup, books: Books) -> dict[str, Any]:
    """The source of the randomness, every release, and the values against which a later check compares the ledger."""
    releases, pinned = books.rows(), books.pinned()
    seeds = [row.origin["seed"] for row in releases if row.origin.get("seed") is not None]
    return {
        "reproducible": bool(seeds),
        "seed": seeds[0] if seeds else None,
        "releases": _releases(books, releases),
        **pinned,
        "ledger_verified": books.ledger.verify(pinned["ledger_head"]) == pinned["ledger_rows"],
        "shared_ledger": _shared(books),
    }


def _data(setting: RunSetup) -> dict[str, Any]:
    """The sites of the data, its source, and the warnings about it."""
    sites = setting.sites
    return {
        "warnings": [*sites.warnings, *_own_warnings(setting)],
        "sites": _site_rows(setting),
        "data": {
            "source": sites.provenance.source,
            "licence": sites.provenance.licence,
            "citation": sites.provenance.citation,
            "notes": list(sites.provenance.notes) if notes_may_be_shown(setting) else [],
        },
    }


def _shown_scores(setting: RunSetup, finished: Finished) -> dict[str, Any]:
    """Scores on held-out records, and what is drawn of them; None if the settings ask for none or a private release does not provide them.

    Curves of records in the clear show more than the scores that the settings ask for: only those of public records are kept.
    """
    blank = dict.fromkeys((*task_scores.SCORES, *_DRAWN))
    if setting.config.evaluation != "clear":
        return blank | (finished.released or {})
    params, test = finished.params, finished.test
    scores = blank | scoring.test_scores(setting, finished.scaler, params, test)
    if not records_are_public(setting.config):
        return scores
    outputs = scoring.predictions(setting, params, test)
    return {
        **scores,
        "reliability": scoring.reliability(setting, outputs, test),
        **scoring.details(setting, finished.scaler, params, test),
    }


def _site_rows(setting: RunSetup) -> list[dict[str, Any]]:
    """The sites, with their numbers of records if these may be shown."""
    names, sizes = setting.sites.site_names, data.site_sizes(setting.sites)
    if not site_sizes_public(setting):
        return [{"name": name} for name in names]
    return [
        {"name": name, "train_records": int(fit), "test_records": int(held_out)}
        for name, (fit, held_out) in zip(names, sizes, strict=True)
    ]


def _shared(books: Books) -> dict[str, Any] | None:
    """What the shared ledger of the data set says about all runs on it; None if the run has a separate ledger."""
    if not books.shared:
        return None
    ledger = books.ledger
    return {
        "path": str(ledger.path),
        "budget_epsilon": ledger.budget_epsilon,
        "epsilon": ledger.epsilon(),
        "runs": len({row.origin.get("run") for row in ledger.rows()}),
    }


def _needs_border(setting: RunSetup) -> bool:
    """True for the COVID task, and for other images in which four pixels are a border and not half of the image."""
    features = setting.sites.features
    return features.ndim == 4 and (setting.config.dataset == "covid" or min(features.shape[1:3]) >= 16 * WIDTH)


def _border_may_be_shown(setting: RunSetup) -> bool:
    """The border classifier is trained in the clear: for public records, or if the user asks for a yardstick anyway."""
    return records_are_public(setting.config) or yardstick_wanted(setting)


def describe(mechanism: Mechanism) -> dict[str, Any]:
    """A mechanism's facts as JSON."""
    facts = mechanism.facts
    return {
        "name": facts.name,
        "integer": facts.integer,
        "parameters": dict(facts.parameters),
        "status": facts.status,
        "guarantee": facts.guarantee,
        "sampler_distance": facts.sampler_distance,
    }


def describe_aggregator(aggregator: Aggregator) -> dict[str, Any]:
    """An aggregator's facts as JSON."""
    return {
        key: value if isinstance(value, bool | int | float | str | type(None)) else str(value)
        for key, value in dataclasses.asdict(aggregator.info).items()
    }


def versions() -> dict[str, str]:
    """Installed versions of the packages that affect results."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _releases(books: Books, rows: list[accounting.Release]) -> list[dict[str, Any]]:
    found = []
    for purpose in dict.fromkeys(row.purpose for row in rows):
        own = [row for row in rows if row.purpose == purpose]
        alone = books.epsilon_of(own)
        found.append({"purpose": purpose, "count": len(own), "epsilon_alone": alone})
    return found


def _own_warnings(setting: RunSetup) -> list[str]:
    """What a reader must know in addition to the verdict."""
    found = []
    if _needs_border(setting) and not _border_may_be_shown(setting):
        found.append(
            "How well the border of the images alone predicts the class was not computed, because that requires training in the clear; --public-data "
            "True enables it. Without this control, a good score may only reflect which source an image comes from."
        )
    units = setting.largest_site * len(setting.sites.site_names)  # public: the bound on a site's units, times the sites
    if setting.config.delta * units > 1:
        found.append(
            f"delta={setting.config.delta:g} is above 1 in {units}, the largest number of {setting.unit}s that the sites may have: releasing one record "
            "in the clear would satisfy it. Choose a smaller --delta."
        )
    return found
