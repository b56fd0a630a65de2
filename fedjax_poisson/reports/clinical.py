"""The part of the report for a clinician: thresholds, calibration, net benefit, several classes, subgroups; whose records were used and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedjax_poisson.federated.curves import Curves
from fedjax_poisson.reports.curve_figures import recorded_curves
from fedjax_poisson.reports.formatting import format_epsilon, format_share, interval_text, shown
from fedjax_poisson.reports.html import Child, Html, element, paragraph, pictures, section, table
from fedjax_poisson.runs.run_folder import RunFolder, held_out_records, number, objects

__all__ = ["for_the_clinician"]

_THRESHOLDS = (0.1, 0.2, 0.3, 0.5, 0.7)
_CAPTIONS = {
    "roc": "Every point is a threshold of the predicted probability. The dashed diagonal is guessing.",
    "precision": "How many of the alarms are true, where so many of the cases are found.",
    "reliability": "Records in bins of the predicted probability (with their number), and how often the prediction came true, with 95 % intervals; "
    "on the dashed line it is as often as predicted. No recalibration was done.",
    "decision": "Net benefit (Vickers and Elkin 2006): found cases a record, less needless actions, weighted by how much one minds them. "
    "The model helps where its line is the highest.",
    "agreement": "Records in equal parts by their predicted number. No recalibration was done.",
}
_MOST_CLASSES = 12


def for_the_clinician(run: RunFolder, folder: Path) -> Html:
    """The section; where nothing may be drawn, it says why and what would change that."""
    parts: list[Child] = [paragraph(_whose(run))]
    curves, alts = recorded_curves(run), dict[str, str]()
    if len(curves) == 1:
        (own,) = curves.values()
        parts.append(paragraph(_noise(run), _how_to_read(own)))
        parts.append(_at_thresholds(own))
        alts = _alts(own)
    figures = pictures(folder, _CAPTIONS, alts)
    if figures:
        parts.append(element("div", *figures, class_="pairs"))
    parts += [*_confusion(run), *_subgroups(run)]
    return section("At every threshold, and for whom", *parts)


def _drawn(run: RunFolder) -> bool:
    return any(run.summary.get(name) for name in ("curves", "reliability", "subgroups"))


def _whose(run: RunFolder) -> str:
    """Whose records the curves are of, and what they cost."""
    how, tested = run.summary.get("evaluation"), held_out_records(run)
    if how == "private" and _drawn(run):
        alone = next((each for each in objects(run.summary.get("releases")) if each.get("purpose") == "evaluate"), {})
        cost = number(alone.get("epsilon_alone"))
        paid = f" (which would be {format_epsilon(cost)} for it alone)" if cost is not None else ""
        return (
            "These are the held-out records of all sites together, seen only through one noisy, encrypted histogram of predictions. It is on the ledger and "
            f"inside epsilon{paid}; the curves are computed from it and cost nothing more."
        )
    if run.summary.get("public_data") is True and _drawn(run):
        count = f"{tested:,.0f} " if tested else ""
        return (
            f"These are the {count}held-out records of the public data set “{run.summary.get('dataset')}”, in the clear. Anyone can look them up, so "
            "they cost none of the budget; "
            "with records of your own such curves are drawn only from a private release."
        )
    if how == "none":
        return (
            "Nothing is drawn here, since the settings asked for no scores. With --evaluation private a run releases a noisy histogram, which its budget "
            "pays for, and its curves are drawn."
        )
    if how == "clear" and run.summary.get("public_data") is not True:
        return (
            "Nothing is drawn here: the records are not public, and curves in the clear would show more of them than the scores above do. With --evaluation "
            "private a run releases a noisy histogram, which its budget pays for, and its curves are drawn."
        )
    return "Nothing that could be drawn here was recorded."


def _noise(run: RunFolder) -> str:
    """How far the noise of a private release moves the curves."""
    recorded = run.summary.get("curves")
    points: Any = recorded.get("points") if isinstance(recorded, dict) else None
    own: Any = next(iter(points.values()), {}) if isinstance(points, dict) else {}
    deviation, positives, negatives = (number(own.get(name)) for name in ("deviation", "positives", "negatives"))
    if not deviation or not positives or not negatives:
        return ""
    bins = len(own.get("thresholds", [0])) - 1
    spread = deviation * np.sqrt(bins / 2)
    return (
        f"The noise alone moves a point of these curves by about {format_share(spread / positives)} (sensitivity) and "
        f"{format_share(spread / negatives)} (false alarms), "
        "one standard deviation. "
    )


def _how_to_read(own: Curves) -> str:
    return (
        f"{format_share(own.prevalence)} of the records are cases. Whoever acts on a predicted probability from 20 % on holds a missed case to be as "
        "bad as four "
        "needless actions; the table and the last picture show what comes of such a choice."
    )


def _nearest(own: Curves, threshold: float) -> int:
    return int(np.argmin(np.abs(own.thresholds - threshold)))


def _at_thresholds(own: Curves) -> Html:
    rows: list[list[Child]] = []
    for at in dict.fromkeys(_nearest(own, each) for each in _THRESHOLDS):
        precision = float(own.precision[at])
        rows.append(
            [
                format_share(float(own.thresholds[at])),
                format_share(float(own.sensitivity[at])),
                format_share(1 - float(own.false_alarms[at])),
                "–" if np.isnan(precision) else format_share(precision),
                f"{float(own.net_benefit[at]):.3f}",
                f"{float(own.treat_all[at]):.3f}",
            ]
        )
    head: list[Child] = [
        "called a case from",
        "cases found (sensitivity)",
        "others left alone (specificity)",
        "alarms that are cases",
        "net benefit",
        "net benefit of acting on all",
    ]
    return table(head, rows)


def _alts(own: Curves) -> dict[str, str]:
    at = _nearest(own, 0.5)
    better = (own.thresholds >= 0.01) & (own.thresholds <= 0.99) & (own.net_benefit > np.maximum(own.treat_all, 0))
    ends = own.thresholds[better]
    where = (
        f"between {format_share(float(ends.min()))} and {format_share(float(ends.max()))}" if ends.size else "nowhere"
    )
    found, alarms = format_share(float(own.sensitivity[at])), format_share(float(own.false_alarms[at]))
    true = (
        "" if np.isnan(own.precision[at]) else f" {format_share(float(own.precision[at]))} of the alarms are cases, and"
    )
    return {
        "roc": f"ROC curve: at a threshold of 50 % it finds {found} of the cases with {alarms} false alarms.",
        "precision": f"Precision-recall curve: at a threshold of 50 %{true} {found} of the cases are found; "
        f"{format_share(own.prevalence)} of the records are cases.",
        "decision": f"Decision curve: the model has more net benefit than acting on everybody or on nobody {where}.",
    }


def _confusion(run: RunFolder) -> list[Child]:
    """The table of true and predicted classes."""
    curves, classes = run.summary.get("curves"), run.summary.get("classes")
    found = curves.get("confusion") if isinstance(curves, dict) else None
    if (
        not isinstance(found, list)
        or not isinstance(classes, list)
        or not 0 < len(found) == len(classes) <= _MOST_CLASSES
    ):
        return []
    rows: list[list[Child]] = [
        [str(name), *(shown(each, "{:,.0f}".format) for each in row)]
        for name, row in zip(classes, found, strict=True)
        if isinstance(row, list)
    ]
    return [
        element("h3", "Which classes are taken for which"),
        table(["true class", *(f"called {name}" for name in classes)], rows),
    ]


def _subgroups(run: RunFolder) -> list[Child]:
    found = objects(run.summary.get("subgroups"))
    if not found:
        return []
    if any("rmse" in each for each in found):
        head: list[Child] = [
            "records with",
            "test records",
            "root mean squared error",
            "mean error (predicted less true)",
        ]
        rows: list[list[Child]] = [
            [
                str(each.get("name")),
                shown(each.get("records"), "{:,.0f}".format),
                shown(each.get("rmse"), "{:.4g}".format),
                shown(each.get("mean_error"), "{:.4g}".format),
            ]
            for each in found
        ]
    else:
        head = [
            "records with",
            "test records",
            "accuracy",
            "95 % interval",
            "sensitivity",
            "specificity",
            "ROC area",
            "calibration error",
        ]
        rows = [
            [
                str(each.get("name")),
                shown(each.get("records"), "{:,.0f}".format),
                _or_dash(each.get("accuracy"), format_share),
                interval_text(each.get("interval"), format_share),
                _or_dash(each.get("sensitivity"), format_share),
                _or_dash(each.get("specificity"), format_share),
                _or_dash(each.get("auc"), "{:.3f}".format),
                _or_dash(each.get("calibration_error"), "{:.3f}".format),
            ]
            for each in found
        ]
    return [
        element("h3", "Does it work for everybody?"),
        table(head, rows),
        paragraph(
            "Small groups have wide intervals: a difference between two groups means something only where their intervals hardly overlap."
        ),
    ]


def _or_dash(value: Any, form: Any) -> str:
    found = number(value)
    return "–" if found is None else form(found)
