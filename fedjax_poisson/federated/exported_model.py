"""A trained model as plain arrays for other programs, with the standardisation folded into its weights.

A run standardises a feature x by clipping it to its public range, centring, scaling, and cutting the result at +-3. A clip cannot be folded into weights, but
all of it together is one clip of the *raw* feature followed by an affine map: with lower and upper the range, c the centre, s the scale,

    cut((clip(x, lower, upper) - c) / s) = (clip(x, l, u) - c) / s,   l and u: lower and upper themselves cut to [c - 3 s, c + 3 s].

So the export holds l and u, and a first layer W' = W / s, b' = b - (c / s) W. What others must do is one clip and the layers; a number that was standardised
as a label is scaled back by the last layer in the same way, and cut to its public range. Both forms are equal up to float32 of c / s. Folded only where the
first layer sees all features at once, as linear models and perceptrons of tables do: a convolution pads pictures with zeros *after* standardisation, which no
weights on raw pictures repeat.

The arrays are written as `.npz` (NumPy) and as safetensors (https://github.com/huggingface/safetensors: the length of a JSON header, the header, the
bytes), with what they mean in a JSON file beside them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedjax_poisson.data.tables.schema import encoder_to_json
from fedjax_poisson.federated.checkpoints import write_atomic, write_json
from fedjax_poisson.federated.saved_model import SavedModel, _scaler_of, load_model
from fedjax_poisson.federated.standardize import _LARGEST_SCORE

__all__ = ["FORMAT", "Exported", "apply_exported", "export_model", "fold", "safetensors_bytes"]

FORMAT = "fedjax-poisson-weights-1"
_HOW = (
    "x: features in the order of `features`, raw. Fill a missing number first (encoder: `fill`, else the middle of `bounds`). "
    "x = clip(x, input.lower, input.upper); then for every layer k from 0 on x = x @ layers.k.weight + "
    "layers.k.bias, with max(x, 0) after each but the last. `output` says what the result is. "
    "Equal to the run's own predictions up to float32 of centre/scale: where a feature's values are large beside their spread, digits cancel."
)
_OUTPUTS = {
    "binary": "one logit z of the second class: its probability is 1 / (1 + exp(-z))",
    "multiclass": "a logit of each class: probabilities are their softmax",
    "multilabel": "a logit z of each label: the probability of a yes is 1 / (1 + exp(-z))",
    "regression": "the number itself, to be clipped to output.lower and output.upper",
}


class Exported(NamedTuple):
    """A folded model.

    Attributes:
      arrays: float32 by name: input.lower and input.upper `[F]`; layers.k.weight `[in, out]` and layers.k.bias `[out]`, k = 0, 1, ...; of a number
        also output.lower and output.upper `[]`.
      facts: JSON values: how to use them, what goes in and what comes out.
    """

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


def fold(saved: SavedModel, site: str | None = None) -> Exported:
    """Fold the standardisation of a saved model into its weights (module docstring).

    Args:
      saved: the model.
      site: whose standardisation is folded; needed where each site was standardised by itself.

    Raises:
      ValueError: this model cannot be folded, with the reason and what to do; or the site does not fit.
    """
    layers = _layers(saved)
    scaler = _scaler_of(saved, site)
    weight, bias = layers[0]
    if scaler is None:
        lower, upper = np.full(len(weight), -np.inf), np.full(len(weight), np.inf)
    else:
        centre, scale, low, high = (np.asarray(each, np.float64) for each in scaler[:4])
        ends = centre - _LARGEST_SCORE * scale, centre + _LARGEST_SCORE * scale
        lower, upper = np.clip(low, *ends), np.clip(high, *ends)
        layers[0] = weight / scale[:, None], bias - (centre / scale) @ weight
    arrays: dict[str, np.ndarray] = {"input.lower": lower, "input.upper": upper}
    if saved.label_bounds is not None:
        if scaler is not None and scaler.target is not None:
            middle, spread = np.asarray(scaler.target, np.float64)
            weight, bias = layers[-1]
            layers[-1] = weight * spread, bias * spread + middle
        arrays |= {"output.lower": np.array(saved.label_bounds[0]), "output.upper": np.array(saved.label_bounds[1])}
    for k, (weight, bias) in enumerate(layers):
        arrays |= {f"layers.{k}.weight": weight, f"layers.{k}.bias": bias}
    return Exported({name: each.astype(np.float32) for name, each in arrays.items()}, _facts(saved, site, len(layers)))


def _layers(saved: SavedModel) -> list[tuple[np.ndarray, np.ndarray]]:
    """The affine layers as float64 (weight `[in, out]`, bias `[out]`)."""
    name = None if saved.model.recipe is None else saved.model.recipe[0]
    if len(saved.shape) != 1:
        raise ValueError(
            f"the model {name or 'of your own'} takes pictures: its standardisation cannot be folded into weights, since convolutions pad and transform "
            "pictures after it. Use fedjax-poisson predict, or load_model in Python."
        )
    params = saved.params
    if name == "mlp":
        found = [(layer["weight"], layer["bias"]) for layer in params["layers"]]
    elif isinstance(params, Mapping) and set(params) == {"weight", "bias"} and name is not None:
        found = [(params["weight"], params["bias"])]
    else:
        raise ValueError(
            f"the model {name or 'of your own'} is no linear model or perceptron of this package, so it is not known what its first layer does with a "
            "standardised feature; export its parameters yourself (load_model(...).params, .scaler)."
        )
    layers = [(np.asarray(weight, np.float64), np.asarray(bias, np.float64)) for weight, bias in found]
    return [(weight.reshape(len(weight), -1), bias.reshape(-1)) for weight, bias in layers]


def _facts(saved: SavedModel, site: str | None, layers: int) -> dict[str, Any]:
    encoder = saved.encoder
    return {
        "format": FORMAT,
        "task": saved.task,
        "classes": list(saved.class_names),
        "features": _feature_names(saved),
        "layers": layers,
        "hidden_activation": "relu" if layers > 1 else None,
        "output": _OUTPUTS[saved.task],
        "how": _HOW,
        "site": site,
        "encoder": None if encoder is None else encoder_to_json(encoder),
    }


def _feature_names(saved: SavedModel) -> list[str]:
    """One name for each feature: the column's, with the level or the gap that a 0/1 feature stands for."""
    if saved.encoder is None:
        return [f"feature {j}" for j in range(saved.shape[0])]
    schema, released = saved.encoder
    names: list[str] = []
    for column in schema.columns:
        if column.kind == "levels":
            names += [f"{column.name}={level}" for level in column.levels]
        elif column.kind == "open_text" and released is not None:
            names += [*(f"{column.name}#{bucket}" for bucket in released.levels[column.name]), f"{column.name}#other"]
        else:
            names.append(column.name)
        if schema.missing == "indicate":
            names.append(f"{column.name}_missing")
    return names if len(names) == saved.shape[0] else [f"feature {j}" for j in range(saved.shape[0])]


def apply_exported(arrays: Mapping[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """The outputs of an export, in NumPy alone: what a program that reads it has to do.

    Args:
      arrays: of `Exported`, or as read from the files.
      features: raw, float `[n, F]`.

    Returns:
      float32 `[n]` for one output, else `[n, K]`: logits, or numbers in the unit of the label.
    """
    x = np.clip(np.asarray(features, np.float32), arrays["input.lower"], arrays["input.upper"])
    count = sum(name.endswith(".weight") for name in arrays)
    for k in range(count):
        x = x @ arrays[f"layers.{k}.weight"] + arrays[f"layers.{k}.bias"]
        x = np.maximum(x, 0) if k < count - 1 else x
    if "output.lower" in arrays:
        x = np.clip(x, arrays["output.lower"], arrays["output.upper"])
    return x[:, 0] if x.shape[1] == 1 else x


def safetensors_bytes(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Arrays in the safetensors format: 8 bytes with the length of a JSON header, the header padded with spaces to a multiple of 8, the arrays.

    Args:
      arrays: float32.
      metadata: texts that travel in the header.

    Raises:
      ValueError: an array is not float32.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    body = b""
    for name, each in arrays.items():
        if each.dtype != np.float32:
            raise ValueError(f"{name} is {each.dtype}; the export writes float32 alone: convert it.")
        blob = np.ascontiguousarray(each, "<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(each.shape), "data_offsets": [len(body), len(body) + len(blob)]}
        body += blob
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def export_model(
    run: str | Path, out: str | Path, *, site: str | None = None, facts: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write weights.npz, weights.safetensors and weights.json of a run's model.

    Args:
      run: folder of the run, or its model.npz.
      out: folder for the files; made if absent.
      site: as in `fold`.
      facts: JSON values that go into weights.json besides, such as epsilon.

    Returns:
      The three files.

    Raises:
      FileNotFoundError: there is no model.
      ValueError: as `load_model` and `fold` do.
    """
    run, out = Path(run), Path(out)
    source = run / "model.npz" if run.is_dir() else run
    if not source.is_file():
        raise FileNotFoundError(
            f"{source}: there is no saved model; give the folder of a finished run, or its model.npz."
        )
    found = fold(load_model(source), site)
    out.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, **found.arrays)  # type: ignore[arg-type]
    files = [out / f"weights.{kind}" for kind in ("npz", "safetensors", "json")]
    write_atomic(files[0], buffer.getvalue())
    write_atomic(files[1], safetensors_bytes(found.arrays, {"format": FORMAT, "how": _HOW}))
    shapes = {name: list(each.shape) for name, each in found.arrays.items()}
    write_json(files[2], {**found.facts, "arrays": shapes, **dict(facts or {})})
    return files
