"""Scores of parameters on records in the clear, as a function for a training loop to call; epsilon does not cover it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.federated import evaluation
from fedjax_poisson.federated.records import Records
from fedjax_poisson.models import Model

_BATCH = 64  # records mapped at once

Metric = Callable[[np.ndarray, np.ndarray], dict[str, Any]]
"""`(outputs [n, ...], labels [n, ...]) -> {name: number}`."""


def evaluator(
    model: Model, records: Records | tuple[Any, Any], metric: Metric | None = None
) -> Callable[[Any], dict[str, Any]]:
    """A function from parameters to scores on some records.

    Args:
      model: gives the outputs.
      records: `Records`, standardised as the model sees them, or `(x [n, ...], y [n, ...])`.
      metric: custom scores of outputs and labels; None for those of a classifier: accuracy, balanced accuracy, AUC, Brier score, calibration error.

    Returns:
      `(params) -> {name: number}`; a score that is not defined (an AUC of one class) is None.

    Raises:
      ValueError: there is no record.
    """
    if isinstance(records, Records):
        mask = np.asarray(records.mask)
        x, y = np.asarray(records.features)[mask], np.asarray(records.labels)[mask]
    else:
        x, y = (np.asarray(each) for each in records)
    if not len(x) or len(x) != len(y):
        raise ValueError(
            f"there are {len(x)} records and {len(y)} labels to evaluate on; give the same number, at least one."
        )
    outputs = jax.jit(model.apply)
    score = metric or evaluation.all_scores

    def evaluate(params: Any) -> dict[str, Any]:
        return score(map_records(lambda batch: outputs(params, batch), x), y)

    return evaluate


def map_records(function: Callable[[Array], Array], records: np.ndarray) -> np.ndarray:
    """A function of a batch over any number of records, in batches of one size, so that one program serves all."""
    filler = np.zeros((-len(records) % _BATCH, *records.shape[1:]), np.float32)
    batches = np.concatenate([records, filler]).reshape(-1, _BATCH, *records.shape[1:])
    return np.concatenate([np.asarray(function(jnp.asarray(batch))) for batch in batches])[: len(records)]
