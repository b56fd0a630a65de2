"""A trained model as one file: parameters, standardisation, the encoding of rows, and how to rebuild the model.

The file is an npz without pickles: arrays, and a JSON text with everything else. It contains only released values and public facts, and nothing else
from the records.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from fedjax_poisson import data, models
from fedjax_poisson.data.tables.new_rows import Rows, encode_rows, plain_encoder
from fedjax_poisson.data.tables.schema import Encoder, encoder_from_json, encoder_to_json
from fedjax_poisson.federated import evaluation
from fedjax_poisson.federated.checkpoints import write_atomic
from fedjax_poisson.federated.evaluator import map_records
from fedjax_poisson.federated.standardize import Scaler, in_units, standardize
from fedjax_poisson.models import Model

_FORMAT = "fedjax-poisson-model-2"


class SavedModel(NamedTuple):
    """What `load_model` returns.

    Attributes:
      model: the model.
      params: its parameters.
      scaler: standardises encoded rows, or the rows of each site; None where the model takes them raw.
      encoder: rows of a table to features; None for images.
      class_names: names of the label values, of the labels, or of the number.
      shape: of one record.
      task: what it predicts, as `Sites.task`.
      label_bounds: public range of a number.
      site_names: S names if each site is standardised separately, else empty.
    """

    model: Model
    params: Any
    scaler: Scaler | None
    encoder: Encoder | None
    class_names: tuple[str, ...]
    shape: tuple[int, ...]
    task: data.Task
    label_bounds: tuple[float, float] | None
    site_names: tuple[str, ...] = ()


class Predictions(NamedTuple):
    """What `predict` returns.

    Attributes:
      outputs: float32 `[n]` or `[n, K]`, the model's outputs (logits of a classifier).
      probabilities: float64 `[n, K]` of the classes, or of a yes for each of several labels; None for a number.
      labels: int64 `[n]`, the most probable class; int64 `[n, K]`, 0 or 1 for each of several labels; float64 `[n]`, a number in the unit of the label.
      class_names: K names.
      task: what was predicted, as `Sites.task`.
    """

    outputs: np.ndarray
    probabilities: np.ndarray | None
    labels: np.ndarray
    class_names: tuple[str, ...]
    task: data.Task


def save_model(
    path: str | os.PathLike[str], model: Model, params: Any, sites: data.Sites, scaler: Scaler | None = None
) -> None:
    """Write a model, whole or not at all.

    A model from `fedjax_poisson.models` is stored by its name and sizes; a custom model has to be passed to `load_model` again.

    Args:
      path: the file, by custom `*.npz`.
      model: the model.
      params: its parameters.
      sites: the data: how rows become features, and the names of the classes.
      scaler: the standardisation of the features, if there was one. If each site was standardised separately, `predict` needs a row's site.
    """
    shape = sites.features.shape[1:]
    table = len(shape) == 1
    encoder = (sites.encoder or plain_encoder(sites.feature_names, sites.feature_bounds)) if table else None
    facts = {
        "format": _FORMAT,
        "recipe": _true_recipe(model, params, shape),
        "shape": list(shape),
        "classes": list(sites.class_names),
        "task": sites.task,
        "label_bounds": None if sites.label_bounds is None else list(sites.label_bounds),
        "encoder": None if encoder is None else encoder_to_json(encoder),
        "leaves": [jax.tree_util.keystr(where) for where, _ in jax.tree_util.tree_leaves_with_path(params)],
        "scaled": scaler is not None,
        "sites": list(sites.site_names) if scaler is not None and scaler.centre.ndim > 1 else [],
    }
    arrays: dict[str, Any] = {f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(params))}
    if scaler is not None:
        arrays |= {f"scaler_{name}": np.asarray(value) for name, value in scaler._asdict().items() if value is not None}
    buffer = io.BytesIO()
    np.savez(buffer, facts=np.array(json.dumps(facts)), **arrays)
    write_atomic(Path(path), buffer.getvalue())


def load_model(path: str | os.PathLike[str], model: Model | None = None) -> SavedModel:
    """Read what `save_model` wrote.

    Args:
      path: the file.
      model: the model, where it is one of your own.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no such file, or was written for another model.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            arrays = {name: file[name] for name in file.files if name != "facts"}
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise ValueError(
            f"{path} is not a saved model ({type(error).__name__}); give a file that save_model wrote."
        ) from error
    if facts.get("format") != _FORMAT:
        raise ValueError(f"{path} has format {facts.get('format')!r}; this version reads {_FORMAT!r}.")
    if model is None:
        if facts["recipe"] is None:
            raise ValueError(
                f"{path} holds the parameters of a model that is not from fedjax_poisson.models: give model=..., the one it was trained as."
            )
        name, arguments = facts["recipe"]
        model = getattr(models, name)(**arguments)
    shape = tuple(facts["shape"])
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *shape), jnp.float32)))
    wanted = [(jax.tree_util.keystr(where), leaf.shape) for where, leaf in jax.tree_util.tree_leaves_with_path(like)]
    saved = [(name, arrays[f"leaf_{i}"].shape) for i, name in enumerate(facts["leaves"])]
    if wanted != saved:
        raise ValueError(
            f"{path} was written for another model: it holds {saved[:3]}..., the model has {wanted[:3]}..."
        )
    leaves = [jnp.asarray(arrays[f"leaf_{i}"]) for i in range(len(saved))]
    return SavedModel(
        model,
        jax.tree.unflatten(jax.tree.structure(like), leaves),
        _scaler_from(arrays) if facts["scaled"] else None,
        None if facts["encoder"] is None else encoder_from_json(facts["encoder"]),
        tuple(facts["classes"]),
        shape,
        facts["task"],
        None if facts["label_bounds"] is None else (float(facts["label_bounds"][0]), float(facts["label_bounds"][1])),
        tuple(facts["sites"]),
    )


def _scaler_from(arrays: dict[str, np.ndarray]) -> Scaler:
    return Scaler(
        **{name: jnp.asarray(arrays[f"scaler_{name}"]) for name in Scaler._fields if f"scaler_{name}" in arrays}
    )


def predict(
    path: str | os.PathLike[str], rows: Rows | np.ndarray, model: Model | None = None, *, site: str | None = None
) -> Predictions:
    """Predictions of a saved model for new rows.

    Args:
      path: a file that `save_model` wrote, or the folder of a run that holds `model.npz`.
      rows: rows of a table (`Sites.encode`), or records as the model's data had them, raw: float32 `[n, F]` or pictures `[n, height, width, channels]`.
      model: the model, where it is one of your own.
      site: where the rows are from; needed where each site was standardised by itself.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file, the site or a row does not fit; the message names it.
    """
    path = Path(path)
    saved = load_model(path / "model.npz" if path.is_dir() else path, model)
    if isinstance(rows, np.ndarray | jax.Array):
        x = np.asarray(rows, np.float32)
    elif saved.encoder is None:
        raise ValueError(f"the model takes images: give them as float32 [n, {', '.join(map(str, saved.shape))}].")
    else:
        x = encode_rows(saved.encoder, rows)
    if x.shape[1:] != saved.shape:
        raise ValueError(f"a record has shape {list(x.shape[1:])}; the model was trained on {list(saved.shape)}.")
    if (scaler := _scaler_of(saved, site)) is not None:
        x = np.asarray(standardize(scaler, jnp.asarray(x)))
    apply = jax.jit(saved.model.apply)
    outputs = map_records(lambda batch: apply(saved.params, batch), x)
    return _predictions(saved, outputs)


def _predictions(saved: SavedModel, outputs: np.ndarray) -> Predictions:
    """What a model's outputs say, by its task."""
    if saved.label_bounds is not None:
        scaler = saved.scaler
        if scaler is None or scaler.target is None:  # trained on the numbers as they are
            numbers = np.clip(np.asarray(outputs, np.float64), *saved.label_bounds)
        else:
            numbers = in_units(scaler, outputs, saved.label_bounds)
        return Predictions(outputs, None, numbers, saved.class_names, saved.task)
    if saved.task == "multilabel":
        chance = special.expit(np.asarray(outputs, np.float64))
        return Predictions(outputs, chance, (outputs > 0).astype(np.int64), saved.class_names, saved.task)
    chance = evaluation.probabilities(outputs)
    if chance.ndim == 1:
        chance = np.stack([1 - chance, chance], axis=1)
    return Predictions(outputs, chance, chance.argmax(axis=1), saved.class_names, saved.task)


def table_of(found: Predictions) -> list[list[Any]]:
    """Predictions as the lines of a table, with a header: what `fedjax-poisson predict` writes."""
    names = found.class_names
    if found.probabilities is None:
        head = ["row", f"predicted {names[0]}"]
        return [head, *([number, f"{value:.6g}"] for number, value in enumerate(found.labels, 1))]
    rows = [[f"{chance:.6f}" for chance in own] for own in found.probabilities]
    chances = [f"probability of {name}" for name in names]
    if found.task == "multilabel":
        head = ["row", *(f"predicted {name}" for name in names), *chances]
        return [head, *([number, *own.tolist(), *rows[number - 1]] for number, own in enumerate(found.labels, 1))]
    head = ["row", "predicted", *chances]
    return [head, *([number, names[label], *rows[number - 1]] for number, label in enumerate(found.labels, 1))]


def _scaler_of(saved: SavedModel, site: str | None) -> Scaler | None:
    """The standardisation of a site's rows, or of all rows."""
    if not saved.site_names:
        if site is not None:
            raise ValueError(
                f"site={site!r} was given, but this model standardises all sites in the same way; leave it out."
            )
        return saved.scaler
    if site not in saved.site_names:
        seen = "no site was given" if site is None else f"there is no site {site!r}"
        raise ValueError(
            f"{seen}, and this model standardises each site separately: give one of {', '.join(saved.site_names)}. A model for other sites is trained with "
            "standardize='global'."
        )
    assert saved.scaler is not None
    place = saved.site_names.index(site)
    return saved.scaler._replace(centre=saved.scaler.centre[place, 0], scale=saved.scaler.scale[place, 0])


def _true_recipe(model: Model, params: Any, shape: tuple[int, ...]) -> Any:
    """The model's recipe if it still makes this model: one whose functions were replaced afterwards is one of the user's own."""
    if model.recipe is None:
        return None
    name, arguments = model.recipe
    again = getattr(models, name)(**dict(arguments))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *shape)), jnp.float32)
    same = np.array_equal(jax.jit(again.apply)(params, x), jax.jit(model.apply)(params, x))
    return [name, dict(arguments)] if same else None
