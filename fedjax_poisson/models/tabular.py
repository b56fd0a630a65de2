"""Models of tabular records: linear ones for one of two or several classes, for several labels and for a number, and a small multilayer perceptron.

The caller standardises the features.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from .model import LossName, Model, Params, recorded, with_loss


@recorded
def logistic() -> Model:
    """Logistic regression with an intercept, started at zero (the loss is convex: there is no symmetry to break).

    Returns:
        Model with parameters `{"weight": float32 [F], "bias": float32 []}`.

    >>> model = logistic()
    >>> params = model.init(jax.random.key(0), jnp.zeros((1, 13)))
    >>> model.apply(params, jnp.ones((2, 13))).tolist()
    [0.0, 0.0]
    """

    def init(key: jax.Array, features: jax.Array) -> Params:
        del key
        return {"weight": jnp.zeros(_feature_count(features), jnp.float32), "bias": jnp.zeros((), jnp.float32)}

    def apply(params: Params, x: jax.Array) -> jax.Array:
        return x @ params["weight"] + params["bias"]

    return with_loss(init, apply, loss="binary")


@recorded
def linear(classes: int, *, binary: bool = False) -> Model:
    """Softmax regression, or logistic regression for one 0/1 label; started at zero.

    Args:
        classes: K, number of classes, at least 2.
        binary: one 0/1 label (K = 2), as `logistic`.

    Returns:
        Model with parameters `{"weight": float32 [F, K], "bias": float32 [K]}`, or those of `logistic` if binary.

    Raises:
        ValueError: fewer than two classes, or binary with more.
    """
    if classes < 2 or (binary and classes != 2):
        raise ValueError(f"classes={classes}, binary={binary}; expected at least two classes, and two if binary")
    if binary:
        return logistic()

    return _affine(classes, "softmax")


@recorded
def multilabel_logistic(labels: int) -> Model:
    """Logistic regression for each of several yes/no labels of a record; started at zero.

    Args:
        labels: K, at least 1.

    Returns:
        Model with parameters `{"weight": float32 [F, K], "bias": float32 [K]}`; logits and labels are `[B, K]`, the loss is the sum over the labels.

    Raises:
        ValueError: No label.
    """
    if labels < 1:
        raise ValueError(f"labels={labels}; expected at least one label")
    return _affine(labels, "sigmoid")


@recorded
def linear_regression() -> Model:
    """Linear regression of one number with an intercept, by squared error; started at zero.

    A gradient is the residual times the features (and a 1): as long as the residual, so its bound is whatever the clip makes it. A clip at C takes a record
    of norm |x| as the Huber loss with threshold C / |x| does. Targets of mean 0 and variance 1 are what `fedsgd` clips fit.

    Returns:
        Model with parameters `{"weight": float32 [F], "bias": float32 []}`; outputs and targets are `[B]`.
    """
    model = logistic()
    return with_loss(model.init, model.apply, loss="squared")


def _affine(outputs: int, loss: LossName) -> Model:
    def init(key: jax.Array, features: jax.Array) -> Params:
        del key
        shape = (_feature_count(features), outputs)
        return {"weight": jnp.zeros(shape, jnp.float32), "bias": jnp.zeros(outputs, jnp.float32)}

    def apply(params: Params, x: jax.Array) -> jax.Array:
        return x @ params["weight"] + jnp.expand_dims(params["bias"], range(x.ndim - 1))

    return with_loss(init, apply, loss=loss)


@recorded
def mlp(hidden: Sequence[int] = (64, 32), *, outputs: int = 1, loss: LossName = "binary") -> Model:
    """Multilayer perceptron with ReLU layers, weights He-normal, biases zero.

    He et al., Delving Deep into Rectifiers, ICCV 2015, equation 10: variance `2 / fan_in` keeps the scale of the
    activations through ReLU layers. The output layer starts at variance `1 / fan_in`.

    Args:
        hidden: Widths of the hidden layers, each at least 1.
        outputs: Numbers that it gives for a record: 1 for one 0/1 label or one number, else classes or labels.
        loss: "binary", "softmax", "sigmoid" or "squared", as in `with_loss`.

    Returns:
        Model with parameters `{"layers": [{"weight": float32 [in, out], "bias": float32 [out]}, ...]}`.

    Raises:
        ValueError: There is no hidden layer (that is `logistic`), a width is below 1, or the outputs do not fit the loss.
    """
    widths = tuple(hidden)
    if not widths or min(widths) < 1:
        raise ValueError(f"hidden is {widths}; expected at least one width, each at least 1 (for none, use logistic())")

    if outputs < 1 or (outputs == 1 and loss == "softmax") or (outputs > 1 and loss == "binary"):
        raise ValueError(f"outputs={outputs} with loss={loss!r}; binary has 1 output, softmax has one for each class")

    def init(key: jax.Array, features: jax.Array) -> Params:
        sizes = (_feature_count(features), *widths, outputs)
        layers: list[dict[str, jax.Array]] = []
        for layer_key, fan_in, fan_out in zip(
            jax.random.split(key, len(sizes) - 1), sizes[:-1], sizes[1:], strict=True
        ):
            gain = 1.0 if len(layers) == len(widths) else 2.0
            weight = jax.random.normal(layer_key, (fan_in, fan_out), jnp.float32) * jnp.float32((gain / fan_in) ** 0.5)
            layers.append({"weight": weight, "bias": jnp.zeros(fan_out, jnp.float32)})
        return {"layers": layers}

    def apply(params: Params, x: jax.Array) -> jax.Array:
        *inner, last = params["layers"]
        for layer in inner:
            x = jax.nn.relu(x @ layer["weight"] + jnp.expand_dims(layer["bias"], range(x.ndim - 1)))
        if loss in ("binary", "squared") and outputs == 1:
            return (x @ last["weight"])[..., 0] + last["bias"][0]
        return x @ last["weight"] + jnp.expand_dims(last["bias"], range(x.ndim - 1))

    return with_loss(init, apply, loss=loss)


def _feature_count(features: jax.Array) -> int:
    if features.ndim != 2:
        raise ValueError(f"features have shape {features.shape}; a tabular model expects a batch [B, F]")
    return features.shape[-1]
