"""The models that a configuration can name, made for what there is to learn: one of two or several classes, several labels, or a number."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from fedjax_poisson import data, models
from fedjax_poisson.data.sites import Task
from fedjax_poisson.data.tables.labels import TableLabel
from fedjax_poisson.models import Model
from fedjax_poisson.runs.config import Config

FOR_TABLES = ("logistic", "mlp")
FOR_PICTURES = ("scattering", "cnn", "small_resnet", "resnet18", "resnet50")
FIXED_NORMS: Mapping[str, float] = MappingProxyType({"scattering": 1.0})
"""Models on fixed features, with the norm of a record's features."""

_SMALL = 64  # pixels: below, a residual network for small images


class Target(NamedTuple):
    """What there is to learn; public.

    Attributes:
      task: "binary", "multiclass", "multilabel" or "regression".
      outputs: numbers that a model gives for a record: 1 for one of two classes or a number, else the classes or labels.
      label_bounds: public range of a number.
    """

    task: Task
    outputs: int
    label_bounds: tuple[float, float] | None = None

    @property
    def words(self) -> str:
        """For messages."""
        return {
            "binary": "two classes",
            "multiclass": f"{self.outputs} classes",
            "multilabel": f"{self.outputs} labels for one record",
            "regression": "a number as its label",
        }[self.task]


def target_of(source: data.Sites | TableLabel) -> Target:
    """What there is to learn from some records, or from a table with this label."""
    if isinstance(source, data.Sites):
        names, bounds, several = source.class_names, source.label_bounds, source.labels.ndim == 2
    else:
        names, bounds, several = source.names, source.bounds, source.values.ndim == 2
    if bounds is not None:
        return Target("regression", 1, bounds)
    if several:
        return Target("multilabel", len(names))
    return Target("binary", 1) if len(names) == 2 else Target("multiclass", len(names))


def check_model(config: Config, name: str, target: Target, *, pictures: bool) -> None:
    """Refuse a model or settings that do not fit what there is to learn.

    Raises:
      ValueError: what does not fit, with what would.
    """
    if pictures != (config.model in FOR_PICTURES):
        fitting = ", ".join(FOR_PICTURES if pictures else FOR_TABLES)
        raise ValueError(
            f"model={config.model!r} is not for {name}, which holds {'images' if pictures else 'a table'}; choose one of: {fitting}."
        )
    if pictures and target.task in ("multilabel", "regression"):
        raise ValueError(
            f"{name} has {target.words}; the models of images that `run` knows learn one class per record (choose another data set, or train one of your own "
            "with fedsgd)."
        )
    if config.evaluation == "private" and target.task != "binary":
        raise ValueError(
            f"evaluation='private' is for two classes, since its sum is a histogram of one probability; {name} has {target.words}: choose 'clear' or 'none'."
        )
    if pictures and config.standardize != "bounds":
        raise ValueError(
            f"standardize={config.standardize!r}: images are scaled by their public bounds; set standardize='bounds'."
        )


def model_for(config: Config, target: Target, shape: tuple[int, ...]) -> Model:
    """The model of a configuration.

    Args:
      config: names it.
      target: what it shall learn.
      shape: of one record; for a table whose features are not known yet, a bound.
    """
    width, binary, classes = config.width, target.task == "binary", max(target.outputs, 2)
    small = shape[0] <= _SMALL
    match config.model:
        case "logistic":
            return _linear(target)
        case "mlp":
            losses = {"binary": "binary", "multiclass": "softmax", "multilabel": "sigmoid", "regression": "squared"}
            return models.mlp((2 * width, width), outputs=target.outputs, loss=losses[target.task])  # type: ignore[arg-type]
        case "scattering":
            return models.scattering(classes, binary=binary)
        case "cnn":
            return models.cnn(classes, widths=(width, 2 * width), dense=2 * width, binary=binary)
        case "small_resnet":
            return models.small_resnet(classes, width=width, binary=binary)
        case "resnet18":
            return models.resnet18(classes, width=width, binary=binary, small_images=small)
        case "resnet50":
            return models.resnet50(classes, width=width, binary=binary, small_images=small)
    raise ValueError(f"model={config.model!r} is unknown; there are: {', '.join((*FOR_TABLES, *FOR_PICTURES))}.")


def _linear(target: Target) -> Model:
    match target.task:
        case "binary":
            return models.logistic()
        case "multiclass":
            return models.linear(target.outputs)
        case "multilabel":
            return models.multilabel_logistic(target.outputs)
        case "regression":
            return models.linear_regression()
