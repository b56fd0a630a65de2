"""A model is a record of pure functions; losses are *per record*, because record-level privacy clips each record's gradient."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

Params = Any


class Model(NamedTuple):
    """A model as pure functions; parameters are a pytree of float32 arrays.

    Attributes:
        init: `(key, features) -> params`; `features` is one batch `[B, ...]`, an array or a dict of arrays as the records' features are (only shapes and
            dtypes matter).
        apply: `(params, x) -> logits`; float32 `[B, ...]` to float32 `[B]` for a binary label, `[B, classes]` for several classes.
        loss: `(params, x, y) -> losses`; float32 `[B]`, one loss in nats a record; y is `[B]`: 0 and 1 (integer or float) for a binary
            label, integer class numbers for several classes.
        fixed: `(x) -> features` `[B, ...]`: the part without parameters that a record goes through first, public and the same for everybody;
            None where there is none. A run computes it once for each record instead of in every round.
        head: the model of those features, with the same parameters: `apply(p, x) = head.apply(p, fixed(x))`; None without `fixed`.
        binary: the loss is for one 0/1 label and takes every other number for 1, so algorithms refuse other labels.
        recipe: the function of `models` that makes it and its arguments as (name, value) pairs of JSON values, so that a saved model can be made
            again; None for your own model. Hashable, as a model is a static argument of compiled programs.
    """

    init: Callable[[jax.Array, jax.Array], Params]
    apply: Callable[[Params, jax.Array], jax.Array]
    loss: Callable[[Params, jax.Array, jax.Array], jax.Array]
    fixed: Callable[[jax.Array], jax.Array] | None = None
    head: Model | None = None
    binary: bool = False
    recipe: tuple[str, tuple[tuple[str, Any], ...]] | None = None


Factory = TypeVar("Factory", bound=Callable[..., Model])


def recorded(factory: Factory) -> Factory:
    """The factory, whose models say how they were made (`Model.recipe`); the same arguments give the same model, and so the same compiled programs."""
    signature = inspect.signature(factory)
    made: dict[Any, Model] = {}

    @functools.wraps(factory)
    def make(*args: Any, **kwargs: Any) -> Model:
        given = dict(signature.bind(*args, **kwargs).arguments)
        for name, parameter in signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                given |= given.pop(name, {})
        pairs = tuple((name, _as_json(value)) for name, value in given.items())
        key = tuple(
            (name, type(value), value) for name, value in pairs
        )  # 2 and 2.0 are equal, and not the same argument
        if key not in made:
            made[key] = factory(*args, **kwargs)._replace(recipe=(factory.__name__, pairs))
        return made[key]

    return make  # type: ignore[return-value]


def _as_json(value: Any) -> Any:
    """An argument of a factory as JSON: numbers and flags as they are, sizes as a tuple, a dtype as its name."""
    if isinstance(value, bool | int | float | str):
        return value
    return tuple(int(each) for each in value) if isinstance(value, Sequence) else str(jnp.dtype(value))


def on_fixed_features(fixed: Callable[[jax.Array], jax.Array], head: Model) -> Model:
    """A model on features that are not trained here: a fixed transform, or a network trained on public data.

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


def sigmoid_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Negative log likelihood of several independent 0/1 labels of each record, in nats: `binary_cross_entropy` added over the labels.

    Args:
        logits: float32 `[B, K]`.
        labels: `[B, K]` in {0, 1}.

    Returns:
        float32 `[B]`.

    Raises:
        ValueError: the shapes do not fit.
    """
    if logits.ndim != 2 or labels.shape != logits.shape:
        raise ValueError(f"logits have shape {logits.shape} and labels {labels.shape}; both are [B, labels].")
    return jnp.sum(binary_cross_entropy(logits, labels), axis=1)


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Half the squared error of each record, added over its outputs.

    Args:
        outputs: float32 `[B]` or `[B, K]`.
        targets: float32 of the same shape; on a scale near 1, or the clip takes most of the gradient.

    Returns:
        float32 `[B]`.

    Raises:
        ValueError: the shapes do not fit.
    """
    if outputs.shape != targets.shape:
        raise ValueError(f"outputs have shape {outputs.shape} and targets {targets.shape}; they must be the same.")
    half = jnp.float32(0.5) * (outputs - targets.astype(jnp.float32)) ** 2
    return half if half.ndim == 1 else jnp.sum(half, axis=tuple(range(1, half.ndim)))


LossName = Literal["binary", "softmax", "sigmoid", "squared"]

_LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "binary": binary_cross_entropy,
    "softmax": softmax_cross_entropy,
    "sigmoid": sigmoid_cross_entropy,
    "squared": squared_error,
}


def with_loss(
    init: Callable[[jax.Array, jax.Array], Params],
    apply: Callable[[Params, jax.Array], jax.Array],
    *,
    loss: LossName | Callable[[jax.Array, jax.Array], jax.Array],
) -> Model:
    """A model from its functions and the name of its loss, or a custom loss.

    Args:
        init: as in `Model`.
        apply: as in `Model`.
        loss: "binary" (one 0/1 label, logits `[B]`), "softmax" (integer class numbers, logits `[B, classes]`), "sigmoid" (several 0/1 labels, logits and
            labels `[B, K]`), "squared" (regression, outputs and targets `[B]` or `[B, K]`), or `(outputs, y) -> losses float32 [B]`.

    Raises:
        ValueError: there is no loss of that name.
    """
    if not callable(loss) and loss not in _LOSSES:
        raise ValueError(
            f"loss={loss!r} is unknown; give one of {', '.join(_LOSSES)}, or a function (outputs, y) -> losses [B]."
        )
    loss_of = loss if callable(loss) else _LOSSES[loss]

    def losses(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        return loss_of(apply(params, x), y)

    return Model(init, apply, losses, binary=loss == "binary")
