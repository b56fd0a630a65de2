"""Scores of a run's model on held-out records in the clear, and those of the same recipe without privacy; epsilon covers neither."""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import jax
import numpy as np

from fedjax_poisson.federated import Records, evaluation, reference, standardize, task_scores
from fedjax_poisson.federated.evaluator import map_records
from fedjax_poisson.randomness import ReproducibleStreamWarning, stream
from fedjax_poisson.runs.build import RunSetup, learned_model, learned_records, optimizer_for
from fedjax_poisson.runs.training_recipe import step_size

_REFERENCE_SEED = 0  # the yardstick is not private, so a fixed seed for its sampling does no harm


def test_scores(setting: RunSetup, scaler: standardize.Scaler, params: Any, test: Records) -> dict[str, Any]:
    """Scores (`task_scores.SCORES`) on held-out records in the clear.

    Args:
      setting: the run.
      scaler: the standardisation of the records.
      params: parameters.
      test: as `build.learned_records` gives them.
    """
    outputs, labels, mask = predictions(setting, params, test), np.asarray(test.labels), np.asarray(test.mask)
    sites = setting.sites
    if sites.label_bounds is not None:
        outputs, labels = (standardize.in_units(scaler, each, sites.label_bounds) for each in (outputs, labels))
    else:
        labels = labels.astype(np.int64)
    return task_scores.scores_of(setting.target.task, outputs, labels, mask, sites.site_names, sites.class_names)


def predictions(setting: RunSetup, params: Any, records: Records) -> np.ndarray:
    """Outputs float32 `[S, n]`, or `[S, n, K]` of K > 2 classes or of labels; images that are padding get zeros.

    Args:
      setting: the run.
      params: parameters.
      records: as `build.learned_records` gives them.
    """
    model = learned_model(setting)
    if records.features.ndim == 3:
        return np.asarray(jax.vmap(lambda x: model.apply(params, x))(records.features))
    mask = np.asarray(records.mask)
    found = map_records(functools.partial(model.apply, params), np.asarray(records.features)[mask])
    logits = np.zeros((*mask.shape, *found.shape[1:]), np.float32)
    logits[mask] = found
    return logits


def reliability(setting: RunSetup, outputs: np.ndarray, test: Records) -> dict[str, list[Any]] | None:
    """The reliability curve of a classifier; of several labels, over all their decisions."""
    if setting.target.task == "regression":
        return None
    mask = np.asarray(test.mask)
    outputs, labels = outputs[mask], np.asarray(test.labels, np.int64)[mask]
    if setting.target.task == "multilabel":
        outputs, labels = outputs.ravel(), labels.ravel()
    return evaluation.reliability(labels, evaluation.probabilities(outputs))


def without_privacy(
    setting: RunSetup, *, seed: int = _REFERENCE_SEED, public: tuple[Records, Records] | None = None
) -> dict[str, Any]:
    """Test scores (`task_scores.SCORES`) of the same recipe without clipping, noise and encryption; it protects nobody.

    Args:
      setting: the run.
      seed: seed for sampling the records of each step.
      public: training and test records as the run had them, used if its standardisation is public and therefore the same here.
    """
    config = setting.config
    scaler = _exact_scaler(setting)
    if public and config.standardize == "bounds":
        cohort, test = public
    else:
        cohort, test = (learned_records(setting, scaler, part) for part in (setting.train, setting.test))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReproducibleStreamWarning)
        own = stream(seed)
    params = reference.train_without_privacy(
        learned_model(setting),
        cohort,
        rounds=setting.recipe.rounds,
        sampling_rate=setting.recipe.sampling_rate,
        server_optimizer=optimizer_for(setting, config.nonprivate_rate or step_size(setting.recipe, math.inf)),
        stream=own,
        average_from=setting.average_from,
    )
    return test_scores(setting, scaler, params, test)


def _exact_scaler(setting: RunSetup) -> standardize.Scaler:
    """Standardisation by exact moments, which protect nobody."""
    config, sites = setting.config, setting.sites
    if config.standardize == "bounds":
        return standardize.bounds_scaler(sites.feature_bounds, 1.0, sites.label_bounds)
    return reference.exact_scaler(
        setting.train,
        sites.feature_bounds,
        sites.binary,
        by_site=config.standardize == "site",
        label_bounds=sites.label_bounds,
    )
