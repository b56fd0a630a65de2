"""Labels from a gradient: exact for a single record, counts of each class for a batch.

The gradient of a cross-entropy with respect to the output layer's bias is the gradient with respect to the logits, `p - onehot(y)` summed
over the records: for one record only the entry of its label is negative (Zhao, Mopuri and Bilen 2020, iDLG, equation 4; there for the rows of
the last weight). With one logit (binary labels) it is `sigmoid(z) - y`, negative for label 1.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson import trees
from fedjax_poisson.models import Model


def output_bias(model: Model, params: Any, example: Array) -> slice:
    """Where the output layer's bias lies in a flat gradient: the leaf whose derivative of the logits is the identity.

    Works for any model that adds a bias to its logits last; nothing about names is assumed.

    Args:
      model: the attacked model.
      params: its parameters.
      example: one batch of one record, `[1, ...]`.

    Raises:
      ValueError: there is no such leaf; then use the sign of another layer or optimise the labels along with the images.
    """
    logits = jnp.atleast_1d(model.apply(params, example)[0])
    classes, start = logits.shape[0], 0
    leaves, tree = jax.tree.flatten(params)
    for position, leaf in enumerate(leaves):
        if leaf.size == classes and leaf.ndim <= 1:

            def logits_of(value: Array, at: int = position) -> Array:
                changed = [*leaves[:at], value, *leaves[at + 1 :]]
                return jnp.atleast_1d(model.apply(jax.tree.unflatten(tree, changed), example)[0])

            jacobian = np.asarray(jax.jit(jax.jacrev(logits_of))(leaf)).reshape(classes, classes)
            if np.allclose(jacobian, np.eye(classes), atol=1e-6):
                return slice(start, start + classes)
        start += leaf.size
    raise ValueError(
        f"no parameter is added to the {classes} logits; label recovery by the bias gradient needs an output layer with a bias."
    )


def recover_labels(gradients: Array, bias: slice) -> Array:
    """Label of the single record behind each gradient: int32 `[T]` from float32 `[T, D]` (module docstring).

    Clipping scales a gradient and keeps its signs, so clipped updates give the same labels.
    """
    logits = gradients[:, bias]
    if logits.shape[1] == 1:
        return (logits[:, 0] < 0).astype(jnp.int32)
    return jnp.argmin(logits, axis=1).astype(jnp.int32)


def recover_label_counts(gradient: Array, bias: slice, batch: int, probability: np.ndarray) -> np.ndarray:
    """How many records of each class are in a batch whose *summed* gradient is known.

    `g_c = sum_i p_ic - n_c`, so `n_c = B p_c - g_c` with the mean predicted probability p_c, which the attacker estimates by feeding the known
    model with data of his own (Geng et al. 2021, arXiv:2110.09074, section 3.1). Rounded to counts that add up to the batch.

    Args:
      gradient: float32 `[D]`, sum over the batch (multiply a mean gradient by the batch first).
      bias: from `output_bias`.
      batch: B, number of records.
      probability: float `[classes]`, mean predicted probabilities; `[1]` for a binary model: that of label 1.

    Returns:
      int64 `[classes]` (`[2]` for a binary model), adding up to the batch.
    """
    logits = np.asarray(gradient, np.float64)[bias]
    expected = batch * np.asarray(probability, np.float64) - logits
    if expected.size == 1:
        expected = np.array([batch - expected[0], expected[0]])
    expected = np.clip(expected, 0, batch)
    expected *= batch / max(expected.sum(), 1e-12)
    counts = np.floor(expected).astype(np.int64)
    missing = np.argsort(counts - expected)[: batch - int(counts.sum())]
    counts[missing] += 1
    return counts


@functools.partial(jax.jit, static_argnums=0)
def gradients_of(model: Model, params: Any, x: Array, y: Array) -> Array:
    """Flat gradients of the summed loss of each group of records: float32 `[T, D]` from x `[T, B, ...]`, y `[T, B]`."""
    return jax.vmap(lambda xs, ys: trees.flatten(jax.grad(lambda p: jnp.sum(model.loss(p, xs, ys)))(params)))(x, y)
