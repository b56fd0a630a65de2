"""Scores of a run's model on held-out records in the clear, and those of the same recipe without privacy; epsilon covers neither."""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import jax
import numpy as np
from scipy import special

from fedjax_poisson import data
from fedjax_poisson.federated import Records, evaluation, reference, standardize, task_scores
from fedjax_poisson.federated.curves import agreement, confusion, operating_points
from fedjax_poisson.federated.evaluator import map_records
from fedjax_poisson.federated.intervals import score_intervals
from fedjax_poisson.federated.subgroups import subgroup_scores, subgroups_of
from fedjax_poisson.randomness import ReproducibleStreamWarning, Stream, stream
from fedjax_poisson.runs.build import RunSetup
from fedjax_poisson.runs.load_data import wanted_subgroups
from fedjax_poisson.runs.training import learned_model, learned_records, optimizer_for, parts_for
from fedjax_poisson.runs.training_recipe import step_size

_MOST_CURVES = 12  # of several labels
_REFERENCE_SEED = 0  # the yardstick is not private, so a fixed seed for its sampling does no harm


def test_scores(setting: RunSetup, scaler: standardize.Scaler, params: Any, test: Records) -> dict[str, Any]:
    """Scores (`task_scores.SCORES`) on held-out records in the clear.

    Args:
      setting: the run.
      scaler: the standardisation of the records.
      params: parameters.
      test: as `training.learned_records` gives them.
    """
    outputs, labels, mask = _shown(setting, scaler, predictions(setting, params, test), test)
    sites = setting.sites
    return task_scores.scores_of(setting.target.task, outputs, labels, mask, sites.site_names, sites.class_names)


def _shown(
    setting: RunSetup, scaler: standardize.Scaler, outputs: np.ndarray, test: Records
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs, labels (numbers in their unit) and the mask of real records."""
    labels, mask, bounds = np.asarray(test.labels), np.asarray(test.mask), setting.sites.label_bounds
    if bounds is None:
        return outputs, labels.astype(np.int64), mask
    return standardize.in_units(scaler, outputs, bounds), standardize.in_units(scaler, labels, bounds), mask


def predictions(setting: RunSetup, params: Any, records: Records) -> np.ndarray:
    """Outputs float32 `[S, n]`, or `[S, n, K]` of K > 2 classes or of labels; images that are padding get zeros.

    Args:
      setting: the run.
      params: parameters.
      records: as `training.learned_records` gives them.
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


def details(setting: RunSetup, scaler: standardize.Scaler, params: Any, test: Records) -> dict[str, Any]:
    """What a report draws of public test records beside their scores: intervals, curves, subgroups. It shows more of the records than scores do.

    Args:
      setting: the run, on records that may be shown.
      scaler: the standardisation of the records.
      params: parameters.
      test: as `training.learned_records` gives them.

    Returns:
      JSON values: intervals (`intervals.score_intervals`); curves: {"points": {name: `operating_points`}} of two classes or each label, {"confusion"} of
      several classes, {"agreement"} of a number; subgroups (`subgroups.subgroup_scores`).
    """
    sites, task = setting.sites, setting.target.task
    outputs, labels, mask = _shown(setting, scaler, predictions(setting, params, test), test)
    rows, _ = data.padded_rows(sites, train=False)
    owners = None if sites.unit == "record" else sites.group[rows]
    flat, truth = outputs[mask], labels[mask]
    curves: dict[str, Any] = {}
    if task == "regression":
        curves["agreement"] = agreement(truth, flat)
    elif task == "multiclass":
        curves["confusion"] = confusion(truth, evaluation.decide(flat), len(sites.class_names))
    else:
        chances = special.expit(np.asarray(flat, np.float64)).reshape(len(flat), -1)
        answers = truth.reshape(len(flat), -1)
        names = sites.class_names if task == "multilabel" else sites.class_names[1:]
        both = [k for k in range(len(names)) if 0 < answers[:, k].sum() < len(answers)][:_MOST_CURVES]
        curves["points"] = {names[k]: operating_points(answers[:, k], chances[:, k]) for k in both}
    groups = [
        part._replace(members=part.members[rows][mask])
        for part in subgroups_of(sites, wanted_subgroups(setting.config, sites))
    ]
    return {
        "intervals": score_intervals(task, outputs, labels, mask, sites.site_names, owners),
        "curves": curves,
        "subgroups": subgroup_scores(task, flat, truth, groups, None if owners is None else owners[mask]),
    }


def without_privacy(
    setting: RunSetup, *, seed: int = _REFERENCE_SEED, public: tuple[Records, Records] | None = None
) -> dict[str, Any]:
    """Test scores (`task_scores.SCORES`) of the same recipe without clipping, noise and encryption; it protects nobody.

    Args:
      setting: the run.
      seed: seed for sampling the records of each step.
      public: training and test records as the run had them, used if its standardisation is public and therefore the same here.
    """
    scaler = _exact_scaler(setting)
    if public and setting.config.standardize == "bounds":
        cohort, test = public
    else:
        cohort, test = (learned_records(setting, scaler, part) for part in (setting.train, setting.test))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReproducibleStreamWarning)
        own = stream(seed)
    return test_scores(setting, scaler, trained_without_privacy(setting, scaler, cohort, own), test)


def trained_without_privacy(setting: RunSetup, scaler: standardize.Scaler, cohort: Records, stream: Stream) -> Any:
    """The parameters that the recipe leads to on these records, as `learned_records` gives them, without clipping, noise and encryption."""
    assert setting.kind.without_privacy is not None  # `yardstick_wanted` asks for none where there is none
    optimizer = optimizer_for(setting, setting.config.nonprivate_rate or step_size(setting.recipe, math.inf))
    parts = parts_for(setting, scaler, cohort, None, optimizer)
    return setting.kind.without_privacy(parts, setting.recipe.rounds, setting.recipe.sampling_rate, stream)


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
