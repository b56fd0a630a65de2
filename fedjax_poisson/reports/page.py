"""The report of a run: one HTML file that a data officer can read, keep, print and mail.

It is built from the run folder alone, with embedded images and styles, no scripts and no external resources. It
recomputes what it can (the figures, the ledger's hash chain) and says "not recorded" where a value is absent.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from fedjax_poisson.extensions import find
from fedjax_poisson.federated import checkpoints
from fedjax_poisson.reports import accuracy, consortium, leakage, privacy
from fedjax_poisson.reports import sections as facts
from fedjax_poisson.reports.figures import write_figures
from fedjax_poisson.reports.formatting import (
    MISSING,
    format_bytes,
    format_epsilon,
    format_seconds,
    format_share,
    moment,
    plural,
    shown,
    site_word,
    words,
)
from fedjax_poisson.reports.guarantees import assumed, attack_success, conditions, encrypted, question, reasons_against
from fedjax_poisson.reports.html import Child, Html, bold, bullets, element, join, paragraph, table
from fedjax_poisson.runs.headline import headline
from fedjax_poisson.runs.published_scores import published
from fedjax_poisson.runs.run_folder import LedgerCheck, RunFolder, check_ledger, number, read_run, training_records


def write_report(run_dir: str | Path, *, sections: Sequence[str] = ()) -> Path:
    """Draw the figures and write report.html.

    Args:
      run_dir: folder of a finished run.
      sections: module:name of sections of your own, functions like those of `SECTIONS`.

    Returns:
      Path of the report.

    Raises:
      FileNotFoundError: the folder has no summary.json.
      ValueError: summary.json is not a JSON object, or there is no such section.
    """
    run = read_run(run_dir)
    write_figures(run.path)
    if leakage.read_leakage(run.path) is not None:
        leakage.write_leakage_figures(run.path)
    target = run.path / "report.html"
    checkpoints.write_atomic(target, render(run, check_ledger(run), sections).encode("utf-8"))
    return target


def render(run: RunFolder, ledger: LedgerCheck, more: Sequence[str] = ()) -> str:
    """The whole page; images are read from the run's figures/ folder. `more` names sections of the user's own, which come last."""
    folder = run.path / "figures"
    dataset = words(run.summary.get("dataset"))
    title = f"Federated training report: {dataset}"
    style = importlib.resources.files("fedjax_poisson.reports").joinpath("report.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(style)),  # our own file: it holds no markup
    )
    subtitle = (
        f"{moment(run.summary.get('date'))} · {words(run.summary.get('machine'))} · run folder "
        f"{run.path.resolve().name}"
    )
    body = element(
        "body",
        element(
            "main",
            element("header", element("h1", title), element("div", subtitle, class_="soft")),
            banners(run, ledger),
            warnings_box(run),
            *(make(run, ledger, folder) for make in SECTIONS.values()),
            *(find(name, SECTIONS, "report section").entry(run, ledger, folder) for name in more),
        ),
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en").markup + "\n"


def banners(run: RunFolder, ledger: LedgerCheck) -> Html:
    """Whatever invalidates or qualifies the privacy statement, prominently at the top; empty if nothing does."""
    found: list[Child] = []
    if reasons := reasons_against(run):
        note = run.summary.get("privacy_note")
        parts: list[Child] = [bold_line("This run is NOT private"), *(paragraph(reason) for reason in reasons)]
        if isinstance(note, str) and note and note not in reasons:
            parts.append(paragraph(f"As recorded by the run: {note}."))
        parts.append(paragraph("Do not use this run, or this page, as evidence that anyone's data were protected."))
        found.append(element("div", *parts, class_="banner", role="alert"))
    elif shown_facts := conditions(run):
        found.append(
            element(
                "div",
                bold_line("This run is conditionally private"),
                paragraph(
                    "Every release is on the ledger and covered by epsilon. However, the following facts about the records were also disclosed, and "
                    "epsilon does not cover them. The guarantee holds against anyone who does not see these facts; share this folder only with people "
                    "who may see the records."
                ),
                table(
                    ["what was disclosed", "what would close the gap"], [list(each) for each in shown_facts], texts=2
                ),
                class_="warnings",
                role="note",
            )
        )
    if foreign := assumed(run):
        text = (
            f"{' and '.join(foreign)}: this part of the run comes from outside fedjax_poisson. What it claims about privacy is assumed: its author's word, "
            "which nothing here has proved or checked. Every number of this page that speaks of privacy rests on it."
        )
        found.append(
            element("div", bold_line("The privacy claim is assumed"), paragraph(text), class_="warnings", role="note")
        )
    if not ledger.verified:
        parts = [bold_line("The ledger does not support the statements on this page"), paragraph(ledger.problem)]
        found.append(element("div", *parts, class_="banner", role="alert"))
    return join(found)


def bold_line(text: str) -> Html:
    """The first line of a box."""
    return element("b", text)


def warnings_box(run: RunFolder) -> Html:
    """The run's warnings, such as bounds that were inferred from the data."""
    recorded = run.summary.get("warnings")
    found = [str(entry) for entry in recorded] if isinstance(recorded, list) else []
    if not found:
        return Html("")
    return element(
        "div", bold_line("Read this before you rely on the numbers"), bullets(found), class_="warnings", role="note"
    )


def in_short(run: RunFolder, ledger: LedgerCheck) -> Html:
    """The headline numbers and a five-line summary in plain words."""
    lines = [_who(run), _how_private(run), _how_accurate(run), _what_was_sent(run), _what_is_kept(run, ledger)]
    return element(
        "section",
        element("h2", "In short"),
        _tiles(run),
        element("ul", *(element("li", *line) for line in lines), class_="inshort"),
    )


def _tiles(run: RunFolder) -> Html:
    summary, one, many = run.summary, site_word(run, 1), site_word(run)
    private = not reasons_against(run)
    lead = headline(summary)
    form = format_share if lead.share else lead.text
    without = summary.get(f"nonprivate_{lead.name}")
    plain = "" if without is None else f"; without privacy {shown(without, form)}"
    epsilon = shown(summary.get("epsilon"), format_epsilon) if private else "none"
    tiles = (
        (
            epsilon,
            f"epsilon per {words(summary.get('unit'))}, at delta {shown(summary.get('delta'))}"
            + (" (with conditions, see above)" if conditions(run) or assumed(run) else "")
            if private
            else "privacy guarantee: see above",
        ),
        (
            shown(summary.get(lead.name), form),
            f"{lead.words}, {f'mean over {many}' if lead.share else 'all test records'}{plain}",
        ),
        (
            shown(summary.get("bytes_up_per_client_per_round"), format_bytes),
            f"{'encrypted' if encrypted(run) else 'unencrypted'} upload of a {one} per training release",
        ),
        (
            shown(summary.get("encrypt_seconds"), format_seconds),
            f"encryption time, all {many} together; the whole run took "
            f"{shown(summary.get('total_seconds'), format_seconds)}",
        ),
    )
    return element(
        "div",
        *(element("div", element("b", big), element("span", small), class_="tile") for big, small in tiles),
        class_="tiles",
    )


def _who(run: RunFolder) -> list[Child]:
    senders = number(run.summary.get("senders"))
    who = MISSING if senders is None else plural(senders, site_word(run, 1), site_word(run))
    records = training_records(run)
    data = f" on {records:,.0f} training records" if records else ""
    return [
        bold(who),
        f" trained one model together{data} in {shown(run.summary.get('rounds'), '{:,.0f}'.format)} rounds. No record "
        "left its site.",
    ]


def _how_private(run: RunFolder) -> list[Child]:
    summary, unit = run.summary, words(run.summary.get("unit"))
    if reasons_against(run):
        return [bold("It was not private"), ": the box above explains why."]
    if conditions(run) or assumed(run):
        opening = "Subject to the conditions in the box above, every opened sum is private with "
    else:
        opening = "Every opened sum is private with "
    epsilon, delta = number(summary.get("epsilon")), number(summary.get("delta"))
    assert epsilon is not None and delta is not None  # reasons_against would have said otherwise
    caught = format_share(attack_success(epsilon, delta))
    return [
        opening,
        bold(f"epsilon {format_epsilon(epsilon)}, delta {delta:g}"),
        f" for each {unit}: an attacker who tries to find out {question(run)}, and accepts 5 % false alarms, succeeds "
        f"in at most {caught} of cases (5 % by guessing).",
        *_spent_less(run),
        *_beside_epsilon(run),
    ]


def _spent_less(run: RunFolder) -> list[Child]:
    """What a run that its controller ended took of its budget, and what is left."""
    summary, ended = run.summary, run.summary.get("ended")
    if not isinstance(ended, dict):
        return []
    return [
        f" The training ended by itself after {shown(summary.get('rounds'), '{:,.0f}'.format)} of {shown(summary.get('rounds_planned'), '{:,.0f}'.format)} "
        f"rounds ({words(ended.get('how'))}). It spent what reads as epsilon {shown(summary.get('epsilon_spent'), format_epsilon)}; "
        f"{shown(ended.get('share_left'), format_share)} of the budget is left on the ledger for the next question. Since the end was chosen from "
        "releases, the epsilon that is guaranteed is that of the whole plan.",
    ]


def _beside_epsilon(run: RunFolder) -> list[Child]:
    """Epsilon if no other site is honest, and the total cost of all runs on the data."""
    alone, together = number(run.summary.get("epsilon_one_honest")), run.summary.get("earlier_runs")
    text = ""
    if run.summary.get("noise_senders"):
        text += f" Whichever {site_word(run)} collude with the server, epsilon stays the same: the noise is that of noise senders."
    elif alone is not None:
        text += (
            f" If the server colludes with all other {site_word(run)}, epsilon is {format_epsilon(alone)}: only the noise of the one remaining "
            f"{site_word(run, 1)} counts then."
        )
    if isinstance(together, dict) and (folders := together.get("folders")):
        total = number(together.get("epsilon_together"))
        text += (
            f" {plural(len(folders), 'other run')} in neighbouring folders used this data set; together with this one, "
        )
        text += f"epsilon is {format_epsilon(total)}." if total is not None else "more was spent than this page states."
    if isinstance(shared := run.summary.get("shared_ledger"), dict):
        text += (
            f" The data set's shared ledger counts {shown(shared.get('runs'), '{:g}'.format)} run(s): epsilon {shown(shared.get('epsilon'), format_epsilon)} "
            f"of {shown(shared.get('budget_epsilon'))} spent."
        )
    return [text] if text else []


def _how_accurate(run: RunFolder) -> list[Child]:
    summary = run.summary
    if summary.get("task") == "regression":
        return [
            "A prediction is off by ",
            bold(shown(summary.get("rmse"), "{:.4g}".format)),
            " (root mean squared error on the test records); the same recipe without privacy by "
            f"{shown(summary.get('nonprivate_rmse'), '{:.4g}'.format)}. R2 is {shown(summary.get('r2'), '{:.3f}'.format)}.",
        ]
    what = "labels of the test records" if summary.get("task") == "multilabel" else "test records"
    text = f" of the {what} are classified correctly (mean over {site_word(run)})"
    if (plain := summary.get("nonprivate_mean_client_accuracy")) is not None:
        text += f"; the same recipe without privacy reaches {shown(plain, format_share)}"
    if (known := published(summary.get("dataset"))) is not None:
        text += f". {known.by} published {format_share(known.pooled.mean_client_accuracy)} for pooled and "
        text += (
            f"{format_share(known.federated.mean_client_accuracy)} for federated training without privacy, with "
            "a different recipe"
        )
    return [bold(shown(summary.get("mean_client_accuracy"), format_share)), text + "."]


def _what_was_sent(run: RunFolder) -> list[Child]:
    summary, one = run.summary, site_word(run, 1)
    how = "all encrypted; only their sums were opened" if encrypted(run) else "none of them encrypted"
    messages = plural(len(run.rounds), "message") if run.rounds else f"messages (number {MISSING})"
    total = shown(summary.get("bytes_up_total_per_client"), format_bytes)
    return [f"Each {one} sent ", bold(messages), f", {total} in total, {how}."]


def _what_is_kept(run: RunFolder, ledger: LedgerCheck) -> list[Child]:
    if not ledger.verified:
        return [bold("The ledger could not be verified"), ": the box above explains why."]
    return [
        "Every opened sum is on the ledger: ",
        bold(f"{plural(len(ledger.rows), 'release')}, verified"),
        " when this page was written.",
    ]


Section = Callable[[RunFolder, LedgerCheck, Path], Html]
"""`(run, ledger, folder of its figures) -> Html`; empty where it has nothing to say."""

SECTIONS: Mapping[str, Section] = MappingProxyType(
    {
        "in short": lambda run, ledger, figures: in_short(run, ledger),
        "what left": lambda run, ledger, figures: facts.what_left(run),
        "who saw what": lambda run, ledger, figures: consortium.who_saw_what(run),
        "how private": lambda run, ledger, figures: privacy.how_private(run),
        "how accurate": lambda run, ledger, figures: accuracy.how_accurate(run, figures),
        "what it cost": lambda run, ledger, figures: facts.what_it_cost(run, figures),
        "the ledger": facts.the_ledger,
        "protects": lambda run, ledger, figures: privacy.protects(run, ledger),
        "what leaks": lambda run, ledger, figures: leakage.what_leaks(run, figures),
        "the data": lambda run, ledger, figures: facts.the_data(run),
        "how to repeat": lambda run, ledger, figures: facts.how_to_repeat(run),
    }
)
"""The sections of the page in their order: another is a function in a file and a line here."""
