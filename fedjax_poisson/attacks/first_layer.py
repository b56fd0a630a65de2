"""Closed-form attacks on a dense first layer: the input is the quotient of two gradients, no optimisation needed.

A dense layer `a = x W + b` has `dL/dW[:, i] = x dL/db[i]`, so for one record `x = dL/dW[:, i] / dL/db[i]` for every neuron with a gradient
(Phong et al. 2017, section 3; Geiping et al. 2020, proposition 3.1). For a batch the quotient is an average over the records that activate
the neuron: neurons that a single record activates give it away (Boenisch et al. 2021, "When the Curious Abandon Honesty"). A *malicious
server* can arrange that by planting the layer (Fowl et al. 2021, "Robbing the Fed"): `plant_imprint`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

NEEDS_CURIOUS = (
    "the observed update of a model whose first layer is dense; no knowledge of the parameters or the labels"
)
NEEDS_MALICIOUS = "a malicious server that sends out planted parameters, and quantiles of the records' brightness"
TRY_NEXT = "average the quotients over rounds; plant the first layer (`plant_imprint`); for a convolutional model `inversion.invert`"


class FirstLayer(NamedTuple):
    """Records read off a first layer.

    Attributes:
      records: float32 `[n, F]`.
      strength: float32 `[n]`, |denominator| of the quotient: larger means less disturbed by noise.
      needs: what the attacker must have.
      try_next: what a stronger attacker would do.
    """

    records: np.ndarray
    strength: np.ndarray
    needs: str
    try_next: str


def dense_gradients(tree: Any, features: int) -> tuple[Array, Array]:
    """The gradients (weight float32 `[F, M]`, bias float32 `[M]`) of the house's dense first layer in a gradient tree.

    Takes the trees of `models.mlp` and of `models.logistic` (M = 1).

    Raises:
      ValueError: the tree begins with no dense layer of that many inputs.
    """
    layer = tree["layers"][0] if isinstance(tree, dict) and "layers" in tree else tree
    if isinstance(layer, dict) and {"weight", "bias"} <= layer.keys():
        weight = layer["weight"].reshape(layer["weight"].shape[0], -1)
        if weight.shape[0] == features:
            return weight, layer["bias"].reshape(-1)
    raise ValueError(
        f"this model does not begin with a dense layer of {features} inputs: the closed-form attack cannot read it; use inversion.invert."
    )


def read_single(weight_gradient: Array, bias_gradient: Array) -> FirstLayer:
    """The one record behind a gradient: least squares over all neurons, `x = dW db / |db|**2`.

    Every neuron gives the same quotient; the least-squares one weighs them by their gradient, which is best under equal noise on each entry.

    Args:
      weight_gradient: float32 `[F, M]`.
      bias_gradient: float32 `[M]`.

    Returns:
      `FirstLayer` with one record; zero where no neuron had a gradient (strength 0: the attack failed).
    """
    weight, bias = np.asarray(weight_gradient, np.float64), np.asarray(bias_gradient, np.float64)
    square = float(bias @ bias)
    record = weight @ bias / square if square > 0 else np.zeros(len(weight))
    return FirstLayer(record[None].astype(np.float32), np.array([square**0.5], np.float32), NEEDS_CURIOUS, TRY_NEXT)


def read_neurons(weight_gradient: Array, bias_gradient: Array, count: int) -> FirstLayer:
    """Candidates from a batch: the quotients of the `count` neurons with the largest bias gradients (Boenisch et al. 2021).

    A candidate is a record where that record alone activated the neuron, else a weighted average of several.
    """
    weight, bias = np.asarray(weight_gradient, np.float64), np.asarray(bias_gradient, np.float64)
    strongest = np.argsort(-np.abs(bias))[:count]
    records = _quotients(weight[:, strongest], bias[strongest])
    return FirstLayer(records, np.abs(bias[strongest]).astype(np.float32), NEEDS_CURIOUS, TRY_NEXT)


def plant_imprint(params: Any, quantiles: np.ndarray) -> Any:
    """Parameters that a malicious server sends: neuron i fires for records brighter than `quantiles[i]`, and all neurons act alike.

    Fowl et al. 2021, section 3.1: every column of the first weight measures the mean h(x) of the record, the biases are minus rising
    thresholds, and the rows of the second weight are equal, so that a record's gradient reaches all neurons that it fires with one factor.

    Args:
      params: of `models.mlp`; only its first two layers are replaced.
      quantiles: rising float `[M]`, thresholds on the mean of a record, one for each neuron of the first layer: quantiles of h over data
        that resembles the victims', so that each gap between two thresholds holds one record.

    Returns:
      Planted parameters of the same shape.

    Raises:
      ValueError: not as many thresholds as neurons, or they do not rise.
    """
    first, second, *rest = params["layers"]
    features, width = first["weight"].shape
    quantiles = np.asarray(quantiles, np.float64)
    if quantiles.shape != (width,) or not (np.diff(quantiles) > 0).all():
        raise ValueError(f"{quantiles.shape} thresholds for {width} neurons: give {width} rising ones.")
    planted = {
        "weight": jnp.full((features, width), 1 / features, jnp.float32),
        "bias": jnp.asarray(-quantiles, jnp.float32),
    }
    alike = jnp.broadcast_to(jnp.mean(jnp.abs(second["weight"]), axis=0, keepdims=True), second["weight"].shape)
    return {"layers": [planted, {"weight": alike, "bias": second["bias"]}, *rest]}


def read_imprint(weight_gradient: Array, bias_gradient: Array) -> FirstLayer:
    """Records of a batch from the gradient of a planted layer: differences of neighbouring neurons (Fowl et al. 2021, equation 5).

    Neuron i sums over the records brighter than threshold i, so neuron i less neuron i + 1 holds those between the two thresholds; where
    that is one record, the quotient is that record. The last neuron holds those above all thresholds.

    Args:
      weight_gradient: float32 `[F, M]`.
      bias_gradient: float32 `[M]`.

    Returns:
      `FirstLayer`, M candidates, strongest first; gaps without a record have strength near 0.
    """
    weight = np.asarray(weight_gradient, np.float64)
    bias = np.asarray(bias_gradient, np.float64)
    weight = weight - np.pad(weight[:, 1:], ((0, 0), (0, 1)))
    bias = bias - np.pad(bias[1:], (0, 1))
    order = np.argsort(-np.abs(bias))
    records = _quotients(weight[:, order], bias[order])
    return FirstLayer(records, np.abs(bias[order]).astype(np.float32), NEEDS_MALICIOUS, TRY_NEXT)


def _quotients(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    safe = np.where(np.abs(bias) > 0, bias, 1.0)
    return np.where(np.abs(bias) > 0, weight / safe, 0.0).T.astype(np.float32)
