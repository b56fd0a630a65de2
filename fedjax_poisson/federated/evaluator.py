"""Scores of parameters on records in the clear, as a function for a training loop to call; epsilon does not cover it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.federated import evaluation
from fedjax_poisson.federated.features import Features, leading_of, on_host, take
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
      records: `Records`, standardised as the model sees them, or `(x [n, ...], y [n, ...])`; x may be a dict of arrays.
      metric: custom scores of outputs and labels; None for those of a classifier: accuracy, balanced accuracy, AUC, Brier score, calibration error.

    Returns:
      `(params) -> {name: number}`; a score that is not defined (an AUC of one class) is None.

    Raises:
      ValueError: there is no record.
    """
    if isinstance(records, Records):
        mask = np.asarray(records.mask)
        x, y = take(on_host(records.features), mask), np.asarray(records.labels)[mask]
    else:
        x, y = on_host(records[0]), np.asarray(records[1])
    count = leading_of(x, 1)[0]
    if not count or count != len(y):
        raise ValueError(
            f"there are {count} records and {len(y)} labels to evaluate on; give the same number, at least one."
        )
    outputs = jax.jit(model.apply)
    score = metric or evaluation.all_scores

    def evaluate(params: Any) -> dict[str, Any]:
        return score(map_records(lambda batch: outputs(params, batch), x), y)

    return evaluate


def map_records(function: Callable[[Any], Array], records: Features) -> np.ndarray:
    """A function of a batch over any number of records, in batches of one size, so that one program serves all."""
    count = leading_of(records, 1)[0]

    def cut(leaf: np.ndarray) -> np.ndarray:
        kind = np.float32 if leaf is records else leaf.dtype  # one array is one of floats; in a dict integers stay
        filler = np.zeros((-count % _BATCH, *leaf.shape[1:]), kind)
        return np.concatenate([leaf, filler]).reshape(-1, _BATCH, *leaf.shape[1:])

    batches = jax.tree.map(cut, records)
    parts = [
        function(jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i]), batches)) for i in range(-(-count // _BATCH))
    ]
    return np.concatenate([np.asarray(part) for part in parts])[:count]
