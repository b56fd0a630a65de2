"""The report of a run: one HTML file that a data officer can read, keep, print and mail.

It is built from the run folder alone, with embedded images and styles, no scripts and no external resources. It
recomputes what it can (the figures, the ledger's hash chain) and says "not recorded" where a value is absent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from fedjax_poisson.extensions import find
from fedjax_poisson.federated import checkpoints
from fedjax_poisson.reports import accuracy, consortium, leakage, privacy
from fedjax_poisson.reports import sections as facts
from fedjax_poisson.reports.answers import answers
from fedjax_poisson.reports.background import how_to_repeat, the_data, the_words
from fedjax_poisson.reports.clinical import for_the_clinician
from fedjax_poisson.reports.figures import write_figures
from fedjax_poisson.reports.formatting import moment, words
from fedjax_poisson.reports.guarantees import assumed, conditions, reasons_against
from fedjax_poisson.reports.html import Child, Html, bullets, document, element, join, paragraph, table
from fedjax_poisson.reports.model_card import card_section, read_card, update_card
from fedjax_poisson.reports.protection import protects
from fedjax_poisson.reports.report_json import report_json
from fedjax_poisson.reports.trade_off import trade_off, write_trade_off_figure
from fedjax_poisson.reports.unfinished import is_unfinished, write_unfinished
from fedjax_poisson.runs.run_folder import LedgerCheck, RunFolder, check_ledger, read_run, site_of


def write_report(
    run_dir: str | Path, *, sections: Sequence[str] = (), draw: Callable[[Path], object] = write_figures
) -> Path:
    """Draw the figures, write report.html and report.json, and model_card.md unless somebody edited it.

    Args:
      run_dir: folder of a run; of one that has not finished the page says so, and what was spent.
      sections: module:name of sections of your own, functions like those of `SECTIONS`.
      draw: draws the figures of a folder, as `write_figures` does.

    Returns:
      Path of the report.

    Raises:
      FileNotFoundError: there is no run in the folder.
      ValueError: summary.json is not a JSON object, or there is no such section.
    """
    if is_unfinished(run_dir):
        return write_unfinished(run_dir)
    run = read_run(run_dir)
    ledger = check_ledger(run)
    curve = trade_off(run, ledger)
    draw(run.path)
    write_trade_off_figure(run, curve)
    if leakage.read_leakage(run.path) is not None:
        leakage.write_leakage_figures(run.path)
    card = update_card(run, curve)
    page = render(run, ledger, sections)
    target = run.path / "report.html"
    checkpoints.write_atomic(target, page.encode("utf-8"))
    checkpoints.write_json(run.path / "report.json", report_json(run, ledger, curve, card, page))
    return target


def render(run: RunFolder, ledger: LedgerCheck, more: Sequence[str] = ()) -> str:
    """The whole page; images are read from the run's figures/ folder. `more` names sections of the user's own, which come last."""
    folder = run.path / "figures"
    dataset = words(run.summary.get("dataset"))
    title = f"Report on a federated training: {dataset}"
    if (here := site_of(run)) is not None:
        title = f"Report on a federated training, as the site “{here}” saw it"
    subtitle = f"{moment(run.summary.get('date'))} · {words(run.summary.get('machine'))} · run folder {run.path.resolve().name}"
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
    return document(title, body)


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
                    "Everything that was decrypted is on the ledger and covered by epsilon. However, the following facts about the records were "
                    "shown as well, and "
                    "epsilon does not cover them. The guarantee holds against anyone who does not see these facts; share this folder only with people "
                    "who may see the records."
                ),
                table(["what was shown", "what would close the gap"], [list(each) for each in shown_facts], texts=2),
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


Section = Callable[[RunFolder, LedgerCheck, Path], Html]
"""`(run, ledger, folder of its figures) -> Html`; empty where it has nothing to say."""

SECTIONS: Mapping[str, Section] = MappingProxyType(
    {
        "in short": lambda run, ledger, figures: answers(run, ledger, trade_off(run, ledger)),
        "how accurate": lambda run, ledger, figures: accuracy.how_accurate(run, figures),
        "for the clinician": lambda run, ledger, figures: for_the_clinician(run, figures),
        "how private": lambda run, ledger, figures: privacy.how_private(run, ledger, figures, trade_off(run, ledger)),
        "what left": lambda run, ledger, figures: facts.what_left(run),
        "who saw what": lambda run, ledger, figures: consortium.who_saw_what(run),
        "protects": lambda run, ledger, figures: protects(run, ledger),
        "what leaks": lambda run, ledger, figures: leakage.what_leaks(run, figures),
        "model card": lambda run, ledger, figures: card_section(read_card(run, trade_off(run, ledger))),
        "what it cost": lambda run, ledger, figures: facts.what_it_cost(run, figures),
        "the ledger": facts.the_ledger,
        "the data": lambda run, ledger, figures: the_data(run),
        "the words": lambda run, ledger, figures: the_words(run),
        "how to repeat": lambda run, ledger, figures: how_to_repeat(run),
    }
)
"""The sections of the page in their order: another is a function in a file and a line here."""
