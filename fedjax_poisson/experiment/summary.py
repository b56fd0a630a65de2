"""The summary of a finished run: what was released at what cost, how accurate, beside the same recipe without privacy."""

from __future__ import annotations

import dataclasses
import functools
import platform
import warnings
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import jax
import numpy as np

from fedjax_poisson import accounting, data
from fedjax_poisson.ckks import Aggregator
from fedjax_poisson.experiment import evaluate
from fedjax_poisson.experiment.border import WIDTH, border_scores
from fedjax_poisson.experiment.setting import (
    Setting,
    learned_model,
    learned_records,
    map_records,
    optimizer_for,
)
from fedjax_poisson.federated import Records, reference, standardize
from fedjax_poisson.federated.server import State, final_parameters
from fedjax_poisson.mechanisms import Mechanism
from fedjax_poisson.randomness import ReproducibleStreamWarning, stream

_PACKAGES = ("fedjax-poisson", "jax", "jaxlib", "numpy", "optax", "tenseal", "scipy")
_REFERENCE_SEED = 0  # the yardstick is not private: its sampling may as well be the same for everybody


def summarise(
    setting: Setting,
    ledger: accounting.Ledger,
    lines: list[dict[str, Any]],
    cohort: Records,
    test: Records,
    state: State,
    aggregator: Aggregator,
    exhausted: bool,
) -> dict[str, Any]:
    """Everything `summary.json` holds, JSON values only.

    Args:
      setting: the run.
      ledger: its ledger.
      lines: rows of rounds.jsonl.
      cohort: training records as the trained part of the model saw them (`setting.learned_records`).
      test: test records in the same form.
      state: the final state.
      aggregator: the encryption of the training sums.
      exhausted: whether the budget ended the run before its rounds did.
    """
    config, plan, sites = setting.config, setting.plan, setting.sites
    params = final_parameters(state, setting.average_from)
    mask, labels = np.asarray(test.mask), np.asarray(test.labels, np.int64)
    logits = predictions(setting, params, test)
    own = evaluate.scores(logits, labels, mask, sites.site_names)
    plain = without_privacy(setting, public=(cohort, test)) if config.yardstick else {}
    releases = ledger.rows()
    trained = [line for line in lines if line["purpose"] == "train"]
    note = privacy_note(setting)
    return {
        "dataset": sites.provenance.name,
        "unit": sites.unit,
        "adjacency": config.adjacency,
        "epsilon": ledger.epsilon(),
        "delta": config.delta,
        "epsilon_target": config.epsilon,
        "sampler_delta": plan.sampler_delta,
        "rounds": len(trained),
        "lost_releases": len(releases) - len(lines),
        "budget_exhausted": exhausted,
        **own,
        **{
            f"nonprivate_{name}": plain.get(name)
            for name in ("mean_client_accuracy", "pooled_accuracy", "auc", "accuracy_by_site", "calibration_error")
        },
        "bytes_up_per_client_per_round": max((line["bytes_up_per_client"] for line in trained), default=0),
        "bytes_up_total_per_client": lines[-1]["bytes_up_total"] if lines else 0,
        "plaintext_bytes_per_client_per_round": 4 * setting.dimension,
        **{
            f"{phase}_seconds": sum(line[f"{phase}_seconds"] for line in lines)
            for phase in ("train", "embed", "encrypt", "add", "open")
        },
        "aggregator": config.aggregator,
        "aggregator_info": describe_aggregator(aggregator),
        "mechanism": {
            **({} if plan.standardize is None else {"standardise": describe(plan.standardize)}),
            "train": describe(plan.train),
        },
        "standardize": config.standardize,
        "model": config.model,
        "classes": list(sites.class_names),
        "record_shape": list(sites.features.shape[1:]),
        "border_only": border_scores(sites) if _needs_border(setting) else None,
        "senders": plan.senders,
        "honest_senders": plan.honest_senders,
        "sampling_rate": config.sampling_rate,
        "dimension": setting.dimension,
        "reproducible": config.seed is not None,
        "seed": config.seed,
        "private": note == "",
        "privacy_note": note,
        "releases": _releases(setting, releases),
        "ledger_head": ledger.head(),
        "ledger_verified": ledger.verify(ledger.head()) == len(releases),
        "warnings": [*sites.warnings, *_own_warnings(setting)],
        "sites": [
            {"name": name, "train_records": int(fit), "test_records": int(held_out)}
            for name, (fit, held_out) in zip(sites.site_names, data.site_sizes(sites), strict=True)
        ],
        "data": {
            "source": sites.provenance.source,
            "licence": sites.provenance.licence,
            "citation": sites.provenance.citation,
            "notes": list(sites.provenance.notes),
        },
        "reliability": evaluate.reliability(labels[mask], evaluate.probabilities(logits[mask])),
        "machine": f"{platform.system()} {platform.machine()}, {jax.devices()[0].device_kind}, Python {platform.python_version()}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }


def predictions(setting: Setting, params: Any, records: Records) -> np.ndarray:
    """Logits float32 `[S, n]`, or `[S, n, K]` of K > 2 classes; pictures that are padding get zeros.

    Args:
      setting: the run.
      params: parameters.
      records: as `setting.learned_records` gives them.
    """
    model = learned_model(setting)
    if records.features.ndim == 3:
        return np.asarray(jax.vmap(lambda x: model.apply(params, x))(records.features))
    mask = np.asarray(records.mask)
    found = map_records(functools.partial(model.apply, params), np.asarray(records.features)[mask])
    logits = np.zeros((*mask.shape, *found.shape[1:]), np.float32)
    logits[mask] = found
    return logits


def _needs_border(setting: Setting) -> bool:
    """The COVID task always; other pictures where four pixels are a border and not half of the picture."""
    features = setting.sites.features
    return features.ndim == 4 and (setting.config.dataset == "covid" or min(features.shape[1:3]) >= 16 * WIDTH)


def privacy_note(setting: Setting) -> str:
    """Why the run protects nobody, or an empty string."""
    reasons = []
    if setting.config.seed is not None:
        reasons.append(
            "all randomness descends from a seed, so whoever knows the seed can remove the noise and open every ciphertext"
        )
    if setting.config.aggregator == "plain":
        reasons.append("nothing was encrypted: the server saw every site's counts")
    return "; ".join(reasons)


def describe(mechanism: Mechanism) -> dict[str, Any]:
    """A mechanism's facts as JSON."""
    facts = mechanism.facts
    return {
        "name": facts.name,
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
    """Installed versions of what decides a result."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def without_privacy(
    setting: Setting, *, seed: int = _REFERENCE_SEED, public: tuple[Records, Records] | None = None
) -> dict[str, Any]:
    """Test scores (`evaluate.scores`) of the same recipe without clip, noise and encryption; it protects nobody.

    Args:
      setting: the run.
      seed: of the samples of its steps.
      public: training and test records as the run had them, taken where its standardisation is public and so the same here.
    """
    config, sites = setting.config, setting.sites
    cohort, test = public if public and config.standardize == "bounds" else _exactly_standardized(setting)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReproducibleStreamWarning)
        own = stream(seed)
    params = reference.train_without_privacy(
        learned_model(setting),
        cohort,
        rounds=config.rounds,
        sampling_rate=config.sampling_rate,
        server_optimizer=optimizer_for(config, config.nonprivate_rate or config.learning_rate),
        stream=own,
        average_from=setting.average_from,
    )
    return evaluate.scores(
        predictions(setting, params, test), np.asarray(test.labels, np.int64), np.asarray(test.mask), sites.site_names
    )


def _exactly_standardized(setting: Setting) -> tuple[Records, Records]:
    """Training and test records by exact moments, as whoever protects nobody would have them."""
    config, sites = setting.config, setting.sites
    if config.standardize == "bounds":
        scaler = standardize.bounds_scaler(sites.feature_bounds, 1.0)
    else:
        scaler = reference.exact_scaler(
            setting.train, sites.feature_bounds, sites.binary, by_site=config.standardize == "site"
        )
    return learned_records(setting, scaler, setting.train), learned_records(setting, scaler, setting.test)


def _releases(setting: Setting, rows: list[accounting.Release]) -> list[dict[str, Any]]:
    plan = setting.plan
    found = []
    for purpose in dict.fromkeys(row.purpose for row in rows):
        own = [row for row in rows if row.purpose == purpose]
        alone = accounting.epsilon(plan.orders, sum(row.rdp for row in own), plan.accounted_delta)
        found.append({"purpose": purpose, "count": len(own), "epsilon_alone": alone})
    return found


def _own_warnings(setting: Setting) -> list[str]:
    found = []
    if setting.config.largest_site is None and setting.config.csv is not None:
        found.append(
            f"The bound on a site's records ({setting.largest_site}) was taken from the data and is not covered by epsilon; "
            "declare it with --largest-site."
        )
    shipped = setting.config.csv is None and setting.config.dataset in (*data.registry.LOADERS, "pneumonia", "medmnist")
    if setting.plan.standardize is None and setting.config.training_units is None and not shipped:
        found.append(
            "The number of training units that scales the step was counted in the data and is not covered by epsilon; declare it with "
            "--training-units."
        )
    if setting.config.delta * int(np.asarray(setting.train.mask).sum()) > 1:
        found.append(f"delta={setting.config.delta} is above 1 / number of records; choose a smaller delta.")
    return found
