"""Scores of parts of the test records that a column tells apart: women and men, the old and the young.

A subgroup is declared by a column of the data (`Sites.subgroups`, or the setting `subgroups`): a yes/no column or one with levels by its name, a number with
a public place to cut it, as "age>=60". Each part gets the scores of its records alone, which are in the clear: epsilon does not cover them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_poisson.data.sites import Sites
from fedjax_poisson.federated import evaluation
from fedjax_poisson.federated.intervals import right_decisions, share_interval

__all__ = ["Subgroup", "subgroup_scores", "subgroups_of"]

_CUT = re.compile(r"^(?P<column>.+?)\s*>=\s*(?P<at>-?\d+(?:\.\d+)?)$")


class Subgroup(NamedTuple):
    """Some of the records.

    Attributes:
      column: as it was declared.
      name: of the part, for tables.
      members: bool `[n]`, in the order of the data.
    """

    column: str
    name: str
    members: np.ndarray


def subgroups_of(sites: Sites, declared: Sequence[str]) -> list[Subgroup]:
    """The parts that columns tell apart.

    Args:
      sites: the data, a table.
      declared: columns: NAME of a yes/no column or one with levels, or NAME>=NUMBER.

    Returns:
      The parts of each column in turn; each column's parts cover all records once.

    Raises:
      ValueError: there is no such column, or it cannot be cut in this way; with the columns that there are.
    """
    if declared and sites.features.ndim != 2:
        raise ValueError(f"subgroups {', '.join(declared)}: pictures have no columns; leave subgroups out.")
    found: list[Subgroup] = []
    for each in declared:
        found += _parts(sites, each)
    return found


def _parts(sites: Sites, declared: str) -> list[Subgroup]:
    names = sites.feature_names
    if (cut := _CUT.match(declared)) is not None:
        column, at = cut["column"].strip(), float(cut["at"])
        if column not in names or sites.binary[names.index(column)]:
            raise ValueError(f"subgroup {declared!r}: {column!r} is no number among the columns. {_known(sites)}")
        above = sites.features[:, names.index(column)] >= at
        return [Subgroup(declared, f"{column} < {at:g}", ~above), Subgroup(declared, f"{column} >= {at:g}", above)]
    levels = [name for name in names if name.startswith(f"{declared}=")]
    if levels:
        hits = {name: sites.features[:, names.index(name)] > 0.5 for name in levels}
        rest = ~np.any(list(hits.values()), axis=0)
        parts = [Subgroup(declared, f"{declared} = {name[len(declared) + 1 :]}", own) for name, own in hits.items()]
        return [*parts, Subgroup(declared, f"{declared}: none of these", rest)] if rest.any() else parts
    if declared not in names:
        raise ValueError(f"subgroup {declared!r} is not a column that the model sees. {_known(sites)}")
    j = names.index(declared)
    if not sites.binary[j]:
        raise ValueError(
            f"subgroup {declared!r} is a number: say where to cut it, such as '{declared}>={sites.feature_bounds[j].mean():g}'."
        )
    yes = sites.features[:, j] > 0.5
    return [Subgroup(declared, f"{declared} = 0", ~yes), Subgroup(declared, f"{declared} = 1", yes)]


def _known(sites: Sites) -> str:
    numbers = [f"{name}>=NUMBER" for name, flag in zip(sites.feature_names, sites.binary, strict=True) if not flag]
    others = dict.fromkeys(
        name.partition("=")[0] for name, flag in zip(sites.feature_names, sites.binary, strict=True) if flag
    )
    return f"There are: {', '.join([*others, *numbers])}."


def subgroup_scores(
    task: str, outputs: np.ndarray, labels: np.ndarray, groups: Sequence[Subgroup], owners: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """Scores of each part of the test records.

    Args:
      task: "binary", "multiclass", "multilabel" or "regression".
      outputs: `[n]` or `[n, K]`, of the test records.
      labels: `[n]`, or 0/1 `[n, K]`.
      groups: parts of the test records, `members` in their order.
      owners: `[n]`, whose record each is; None where every record is its own.

    Returns:
      One object for each part with column, name and records; for classes also accuracy, interval (`intervals.share_interval`), sensitivity, specificity, auc
      and calibration_error, of two classes positives too; for a number rmse. None where a score is not defined.
    """
    found, owners = [], np.arange(len(labels)) if owners is None else np.asarray(owners)
    for part in groups:
        own, truth = outputs[part.members], labels[part.members]
        row: dict[str, Any] = {"column": part.column, "name": part.name, "records": len(truth)}
        if len(truth):
            row |= _scores(task, own, truth, owners[part.members])
        found.append(row)
    return found


def _scores(task: str, outputs: np.ndarray, labels: np.ndarray, owners: np.ndarray) -> dict[str, Any]:
    if task == "regression":
        error = np.asarray(outputs, np.float64) - np.asarray(labels, np.float64)
        return {"rmse": float(np.sqrt(np.mean(error**2))), "mean_error": float(error.mean())}
    right = right_decisions(task, outputs, labels)
    interval = list(share_interval(right.ravel(), np.repeat(owners, right.size // len(right))))
    if task == "multilabel":
        return {"accuracy": float(right.mean()), "interval": interval}
    labels = np.asarray(labels, np.int64)
    scores = evaluation.all_scores(outputs, labels)
    row: dict[str, Any] = {name: scores[name] for name in ("accuracy", "auc", "calibration_error")}
    row["interval"] = interval
    if task == "binary":
        called = evaluation.decide(outputs)
        row["positives"] = int(labels.sum())
        row["sensitivity"] = float(called[labels == 1].mean()) if (labels == 1).any() else None
        row["specificity"] = float(1 - called[labels == 0].mean()) if (labels == 0).any() else None
    return row
