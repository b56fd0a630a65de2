"""The accuracy section of the report: overall and by site, compared with the run without privacy and published scores."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from fedjax_poisson.reports.formatting import format_share, interval_text, plural, shown, site_word
from fedjax_poisson.reports.html import Child, Html, bullets, element, paragraph, pictures, section, table
from fedjax_poisson.runs.published_scores import Published, PublishedScore, published
from fedjax_poisson.runs.run_folder import RunFolder, held_out_records, number, numbers_by_name, site_rows

_SCORES_OF_A_NUMBER = {
    "accuracy": "Root mean squared error after every round; the upper axis shows the privacy spent by then. ",
    "sites": "Root mean squared error at each site, on that site's test records.",
}
_SCORES = {
    "accuracy": "Accuracy after every round; the upper axis shows the privacy spent by then. ",
    "sites": "Accuracy at each site, on that site's test records.",
}
_IN_THE_CLEAR = "Test scores are shown to the researcher only: nothing adapts to them, and epsilon does not cover them."
_RELEASED = "Test scores were released as a noisy sum, which is on the ledger and inside epsilon."


def how_accurate(run: RunFolder, folder: Path) -> Html:
    """Accuracy overall and by site, compared with the same recipe without privacy and with published scores."""
    if run.summary.get("task") == "regression":
        return _how_close(run, folder)
    summary, many = run.summary, site_word(run)
    known = published(summary.get("dataset"))
    rows: list[list[Child]] = [
        [f"accuracy, mean over {many}", *_triple(run, "mean_client_accuracy", format_share)],
        ["accuracy, all test records together", *_triple(run, "pooled_accuracy", format_share)],
        [f"area under the ROC curve, all test records{_of_classes(run)}", *_triple(run, "auc", "{:.3f}".format)],
        ["calibration error, all test records (0 is perfect)", *_triple(run, "calibration_error", "{:.3f}".format)],
    ]
    head = ["score", "this run", "95 % interval", "same recipe without privacy"]
    if known is not None:
        head += [f"{known.by}, pooled", f"{known.by}, FedAvg"]
        rows[0] += [format_share(known.pooled.mean_client_accuracy), format_share(known.federated.mean_client_accuracy)]
        rows[1] += [
            shown(known.pooled.pooled_accuracy, format_share),
            shown(known.federated.pooled_accuracy, format_share),
        ]
        for row in rows[2:]:
            row += ["–", "–"]
    parts: list[Child] = [
        table(head, rows),
        *_border(run),
        *pictures(folder, _captions(run, _SCORES)),
        *_by_site(run, known),
    ]
    if noise := _sampling_noise(run):
        parts.append(paragraph(noise))
    if known is not None:
        parts += [element("h3", f"Published by {known.by}"), _published_table(known, many), bullets(known.caveats)]
        parts.append(paragraph(element("span", f"Source: {known.source}.", class_="soft")))
    parts += _by_label(run)
    parts.append(_not_clinical(run))
    return section("How well it works", *parts)


def _captions(run: RunFolder, captions: dict[str, str]) -> dict[str, str]:
    """Captions of the figures of scores, with what epsilon says of the scores."""
    private = run.summary.get("evaluation") == "private"
    return captions | {"accuracy": captions["accuracy"] + (_RELEASED if private else _IN_THE_CLEAR)}


def _not_clinical(run: RunFolder, of: str = "") -> Html:
    """What a score says, with the number of test records where it is public."""
    tested = held_out_records(run)
    on = f"{plural(tested, 'test record')}{of}" if tested else "records of the same sites"
    return paragraph(f"A score on {on} shows that the method works; it is not a clinical validation of the model.")


def _how_close(run: RunFolder, folder: Path) -> Html:
    """How far a predicted number is from the true one, overall and by site."""
    many = site_word(run)
    name = ", ".join(map(str, run.summary.get("classes") or ["the label"]))
    form = "{:.4g}".format
    rows: list[list[Child]] = [
        ["root mean squared error, all test records", *_triple(run, "rmse", form)],
        ["mean absolute error, all test records", *_triple(run, "mean_absolute_error", form)],
        ["R2 (0: no better than the mean; 1: exact)", *_triple(run, "r2", "{:.3f}".format)],
    ]
    own, plain = (numbers_by_name(run.summary.get(each)) for each in ("rmse_by_site", "nonprivate_rmse_by_site"))
    ends = _intervals(run, "rmse_by_site")
    explained = numbers_by_name(run.summary.get("r2_by_site"))
    by_site: list[list[Child]] = [
        [
            site,
            shown(fit, "{:,.0f}".format),
            shown(held_out, "{:,.0f}".format),
            shown(own.get(site), form),
            interval_text(ends.get(site), form),
            shown(plain.get(site), form),
            shown(explained.get(site), "{:.3f}".format),
        ]
        for site, fit, held_out in site_rows(run)
    ]
    bounds = run.summary.get("label_bounds")
    within = f", whose public range is {bounds[0]:g} to {bounds[1]:g}" if isinstance(bounds, list) else ""
    head = [
        site_word(run, 1),
        "training records",
        "test records",
        "error, this run",
        "95 % interval",
        "error, without privacy",
        "R2, this run",
    ]
    return section(
        "How well it works",
        paragraph(
            f"The model predicts a number, {name}{within}; errors are in its unit. The range bounds what is learned from and what is predicted."
        ),
        table(["score", "this run", "95 % interval", "same recipe without privacy"], rows),
        *pictures(folder, _captions(run, _SCORES_OF_A_NUMBER)),
        table(head, by_site),
        _not_clinical(run, f" of {many}"),
    )


def _by_label(run: RunFolder) -> list[Child]:
    """The area under the ROC curve of each class against the rest, or of each label."""
    found = run.summary.get("auc_by_label")
    if not isinstance(found, dict) or not found:
        return []
    several = run.summary.get("task") == "multilabel"
    rows: list[list[Child]] = [[name, _area(found, name)] for name in found]
    return [
        element("h3", "Each label" if several else "Each class against the rest"),
        table(["label" if several else "class", "area under the ROC curve, pooled"], rows),
    ]


def _of_classes(run: RunFolder) -> str:
    words = {"multiclass": ", mean of each class against the rest", "multilabel": ", mean over the labels"}
    return words.get(str(run.summary.get("task")), "")


def _border(run: RunFolder) -> list[Child]:
    """The control for images: the scores of a classifier that sees only the border."""
    found = run.summary.get("border_only")
    if not isinstance(found, dict):
        return []
    width = shown(found.get("width"), "{:.0f}".format)
    rows: list[list[Child]] = [
        [
            "accuracy, pooled",
            shown(run.summary.get("pooled_accuracy"), format_share),
            shown(found.get("accuracy"), format_share),
        ],
        [
            "area under the ROC curve, pooled",
            shown(run.summary.get("auc"), "{:.3f}".format),
            shown(found.get("auc"), "{:.3f}".format),
        ],
    ]
    return [
        element("h3", "How much of the score does not come from anatomy?"),
        table(["score", "this run", f"a linear classifier that sees only the {width}-pixel border"], rows),
        paragraph(
            str(found.get("why", "")),
            f" Always predicting the most common class of the training images is correct in "
            f"{shown(found.get('majority_accuracy'), format_share)} of cases. The control was trained in the clear; epsilon does not cover it.",
        ),
    ]


def _triple(run: RunFolder, name: str, form: Any) -> list[Child]:
    """A score, its interval, and the same without privacy."""
    plain = run.summary.get(f"nonprivate_{name}")
    return [
        shown(run.summary.get(name), form),
        interval_text(_intervals(run).get(name), form),
        "–" if plain is None else shown(plain, form),
    ]


def _intervals(run: RunFolder, by_site: str = "") -> dict[str, Any]:
    """The recorded intervals, or those of one score by site."""
    found = run.summary.get("intervals")
    found = found.get(by_site) if isinstance(found, dict) and by_site else found
    return found if isinstance(found, dict) else {}


def _by_site(run: RunFolder, known: Published | None) -> list[Child]:
    """Accuracy at every site beside others', and the scores that only this run has."""
    own = numbers_by_name(run.summary.get("accuracy_by_site"))
    plain = numbers_by_name(run.summary.get("nonprivate_accuracy_by_site"))
    recorded = run.summary.get("auc_by_site")
    areas = recorded if isinstance(recorded, dict) else {}
    calibration = numbers_by_name(run.summary.get("calibration_error_by_site"))
    within, of_area = _intervals(run, "accuracy_by_site"), _intervals(run, "auc_by_site")
    site = site_word(run, 1)
    head = [site, "training records", "test records", "accuracy, this run", "95 % interval", "without privacy"]
    if known is not None:
        head += [f"{known.by}, pooled", f"{known.by}, FedAvg"]
    rows: list[list[Child]] = []
    others: list[list[Child]] = []
    for name, fit, tested in site_rows(run):
        row: list[Child] = [name, _count(fit), _count(tested)]
        score = shown(own.get(name), format_share)
        if name not in own and run.summary.get("evaluation") == "private":
            score = "hidden by the noise"
        row += [score, interval_text(within.get(name), format_share)]
        row.append(shown(plain.get(name), format_share) if plain else "–")
        if known is not None:
            row += [shown(score.by_site.get(name), format_share) for score in (known.pooled, known.federated)]
        rows.append(row)
        ends = interval_text(of_area.get(name), "{:.2f}".format)
        others.append([name, _area(areas, name), ends, shown(calibration.get(name), "{:.3f}".format)])
    found: list[Child] = [table(head, rows)]
    if areas or calibration:
        found.append(table([site, "ROC area, this run", "95 % interval", "calibration error, this run"], others))
    return found


def _count(value: float | None) -> str:
    """A number of records, which may not be public."""
    return "not public" if value is None else f"{value:,.0f}"


def _area(areas: dict[str, Any], name: str) -> str:
    """The area under the ROC curve, which is undefined if all test records belong to one class."""
    return "one class only" if name in areas and areas[name] is None else shown(areas.get(name), "{:.3f}".format)


def _sampling_noise(run: RunFolder) -> str:
    """How much a score on this many test records varies by chance alone."""
    tested, accuracy = held_out_records(run), number(run.summary.get("pooled_accuracy"))
    if not tested or accuracy is None:
        return ""
    error = math.sqrt(max(accuracy * (1 - accuracy), 0) / tested)
    name, _, fewest = min((row for row in site_rows(run) if row[2]), key=lambda row: row[2] or 0)
    return (
        f"Differences of one or two points mean little: with {tested:.0f} test records the accuracy has a "
        f"standard error of {100 * error:.1f} percentage points, and {name} has only "
        f"{plural(fewest or 0, 'test record')}."
    )


def _published_table(known: Published, many: str) -> Html:
    def row(score: PublishedScore) -> list[Child]:
        spread = "" if score.deviation is None else f" ± {100 * score.deviation:.1f}"
        return [
            score.method,
            format_share(score.mean_client_accuracy) + spread,
            "not published" if score.pooled_accuracy is None else format_share(score.pooled_accuracy),
        ]

    scores = (known.pooled, known.federated, *known.others)
    return table(
        [f"{known.by}'s experiments", f"accuracy, mean over {many}", "pooled"], [row(score) for score in scores]
    )
