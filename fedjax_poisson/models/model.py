"""A model is a record of pure functions; losses are *per record*, because record-level privacy clips each record's gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Params = Any


class Model(NamedTuple):
    """A model as pure functions; parameters are a pytree of float32 arrays.

    Attributes:
        init: `(key, features) -> params`; `features` is one batch `[B, ...]` (only its shape and dtype matter).
        apply: `(params, x) -> logits`; float32 `[B, ...]` to float32 `[B]` for a binary label, `[B, classes]` for several classes.
        loss: `(params, x, y) -> losses`; float32 `[B]`, one loss in nats a record; y is `[B]`: 0 and 1 (integer or float) for a binary
            label, integer class numbers for several classes.
        fixed: `(x) -> features` `[B, ...]`: the part without parameters that a record goes through first, public and the same for everybody;
            None where there is none. A run computes it once for each record instead of in every round.
        head: the model of those features, with the same parameters: `apply(p, x) = head.apply(p, fixed(x))`; None without `fixed`.
        binary: the loss is for one 0/1 label and takes every other number for 1, so algorithms refuse other labels.
    """

    init: Callable[[jax.Array, jax.Array], Params]
    apply: Callable[[Params, jax.Array], jax.Array]
    loss: Callable[[Params, jax.Array, jax.Array], jax.Array]
    fixed: Callable[[jax.Array], jax.Array] | None = None
    head: Model | None = None
    binary: bool = False


def on_fixed_features(fixed: Callable[[jax.Array], jax.Array], head: Model) -> Model:
    """A model of features that nobody trains here: a fixed transform, or a network trained on public data.

    What `fixed` has learned from private records is not covered by any epsilon of this package.

    Args:
        fixed: `[B, ...]` to features float32 `[B, ...]`, each record's by itself.
        head: model of the features.
    """

    def init(key: jax.Array, x: jax.Array) -> Params:
        return head.init(key, jax.eval_shape(fixed, x))

    return Model(
        init,
        lambda params, x: head.apply(params, fixed(x)),
        lambda params, x, y: head.loss(params, fixed(x), y),
        fixed,
        head,
        head.binary,
    )


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Negative log likelihood of each Bernoulli label, in nats: `softplus(z)` for y = 0, `softplus(-z)` for y = 1.

    Written so because the usual `softplus(z) - y z` cancels to 0 where a large logit is right.

    Args:
        logits: float32 `[B]`.
        labels: `[B]` in {0, 1}, int32 or float32.

    Returns:
        float32 `[B]`.
    """
    return jax.nn.softplus(jnp.where(labels > 0, -logits, logits))


def softmax_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Negative log likelihood of each class label, in nats: `log(sum_k exp(z_k)) - z_y`.

    Written as `softplus(log(sum_{k != y} exp(z_k)) - z_y)`, the binary loss against all other classes together: the difference above
    cancels to 0 where a large logit is right. No gather, so no scatter in the gradient.

    Args:
        logits: float32 `[B, classes]`, at least two classes.
        labels: int `[B]` in 0..classes-1. A number outside has no likelihood: its loss is NaN and its gradient is zero.

    Returns:
        float32 `[B]`.

    Raises:
        TypeError: the labels are not integers.
        ValueError: the shapes do not fit.
    """
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(
            f"labels are {labels.dtype}; several classes need integer class numbers (y.astype(int32)), "
            "and a model of one 0/1 label is built with binary=True."
        )
    if logits.ndim != 2 or logits.shape[1] < 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"logits have shape {logits.shape} and labels {labels.shape}; expected [B, classes] with at least two classes and [B]."
        )
    classes = jnp.arange(logits.shape[1], dtype=labels.dtype)
    own = labels[:, None] == classes[None, :]
    others = jax.nn.logsumexp(jnp.where(own, -jnp.inf, logits), axis=1)
    loss = jax.nn.softplus(others - jnp.sum(jnp.where(own, logits, jnp.float32(0)), axis=1))
    return jnp.where(jnp.any(own, axis=1), loss, jnp.float32(jnp.nan))


def with_loss(
    init: Callable[[jax.Array, jax.Array], Params], apply: Callable[[Params, jax.Array], jax.Array], *, binary: bool
) -> Model:
    """A model with the cross entropy that its logits call for.

    Args:
        init: as in `Model`.
        apply: as in `Model`; logits `[B]` if binary, else `[B, classes]`.
        binary: one 0/1 label (`binary_cross_entropy`) instead of several classes (`softmax_cross_entropy`).
    """
    cross_entropy = binary_cross_entropy if binary else softmax_cross_entropy

    def loss(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        return cross_entropy(apply(params, x), y)

    return Model(init, apply, loss, binary=binary)
