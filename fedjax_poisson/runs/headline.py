"""The score that stands for a run in one number: accuracy for classes and labels, the root mean squared error for a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Headline(NamedTuple):
    """A score of a run, and how it is named and written.

    Attributes:
      name: its key in summary.json and in a line's `test`; with `nonprivate_` before it that of the run without privacy.
      by_site: key of the same score at each site.
      words: what it is called.
      share: whether it is a share, written as a percentage on axes.
      text: the number in words.
    """

    name: str
    by_site: str
    words: str
    share: bool
    text: Callable[[float], str]


def headline(summary: Mapping[str, Any]) -> Headline:
    """The headline score of a run.

    Args:
      summary: as in summary.json.
    """
    if summary.get("task") == "regression":
        return Headline("rmse", "rmse_by_site", "root mean squared error", False, "{:.4g}".format)
    name = "mean share of right decisions over the labels" if summary.get("task") == "multilabel" else "accuracy"
    return Headline("mean_client_accuracy", "accuracy_by_site", name, True, "{:.3f}".format)


def scores_in_words(summary: Mapping[str, Any]) -> str | None:
    """The scores of a run in one line with rich's marks; None if there are none.

    Args:
      summary: as in summary.json.
    """
    lead = headline(summary)
    if (found := summary[lead.name]) is None:
        return None
    plain = summary[f"nonprivate_{lead.name}"]
    beside = f" (the same recipe without privacy: {lead.text(plain)})" if plain is not None else ""
    if summary.get("task") == "regression":
        spread = summary["r2"]
        more = "not defined: all test labels are alike" if spread is None else f"{spread:.3f}"
        return (
            f"{', '.join(summary['classes'])}: root mean squared error [bold]{lead.text(found)}[/]{beside}, R2 {more}, mean absolute error "
            f"{lead.text(summary['mean_absolute_error'])}"
        )
    error = summary.get("pooled_accuracy_error")
    spread = f" (private scores; standard error of the pooled accuracy {error:.3f})" if error else ""
    own = summary.get("auc_by_label") or {}
    each = ", ".join(f"{name} {'-' if area is None else f'{area:.3f}'}" for name, area in list(own.items())[:12])
    of = {"multiclass": " (mean of each class against the rest: ", "multilabel": " (mean over the labels: "}.get(
        summary.get("task", "")
    )
    if (whole := summary["auc"]) is None:
        area = "no AUC (the noise of private scores hides it)" if error else "no AUC (the test records have one class)"
    else:
        area = f"AUC {whole:.3f}"
    return f"mean client accuracy [bold]{found:.3f}[/]{beside}, {area}{spread}" + (
        f"{of}{each})" if of and each else ""
    )
