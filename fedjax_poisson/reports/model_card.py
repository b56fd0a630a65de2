"""The model card of a run: a Markdown file for people to finish, filled in from the run (Mitchell et al., Model Cards for Model Reporting, 2019).

`model_card.md` is written with the first report. Its last line carries the SHA-256 of the text above it: while that holds, nobody has edited the file, and a
new report may fill it in anew; a file that somebody edited is kept as it is, and the report shows it.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from markdown_it import MarkdownIt

from fedjax_poisson.federated.checkpoints import write_atomic
from fedjax_poisson.reports.answers import model_words, task_words
from fedjax_poisson.reports.formatting import (
    MISSING,
    format_epsilon,
    format_share,
    interval_text,
    shown,
    site_word,
    words,
)
from fedjax_poisson.reports.grounds import counted
from fedjax_poisson.reports.guarantees import assumed, conditions, reasons_against
from fedjax_poisson.reports.html import Html, element, paragraph, section
from fedjax_poisson.reports.trade_off import TradeOff, patient_sentence
from fedjax_poisson.runs.headline import headline
from fedjax_poisson.runs.run_folder import RunFolder, held_out_records, number, training_records

__all__ = ["NAME", "card_section", "card_text", "read_card", "update_card"]

NAME = "model_card.md"
_MARK = re.compile(r"\n<!-- filled in from the run; sha256 ([0-9a-f]{64}) -->\n?\Z")
_OFF = [
    "image",
    "link",
    "autolink",
    "html_inline",
    "html_block",
    "reference",
]  # a page that loads nothing and runs nothing


def read_card(run: RunFolder, curve: TradeOff | None) -> str:
    """The card's text, without the mark: as somebody edited it, else as the run fills it in."""
    return _edited(run.path / NAME) or card_text(run, curve)


def update_card(run: RunFolder, curve: TradeOff | None) -> str:
    """Write the card unless somebody edited it.

    Args:
      run: the run.
      curve: its trade-off curve.

    Returns:
      The card's text, without the mark.
    """
    path = run.path / NAME
    if (edited := _edited(path)) is not None:
        return edited
    text = card_text(run, curve)
    write_atomic(path, f"{text}\n<!-- filled in from the run; sha256 {_digest(text)} -->\n".encode())
    return text


def _edited(path: Path) -> str | None:
    """The text of a card that somebody edited; None for one that nobody did, or none."""
    if not path.is_file():
        return None
    found = path.read_text(encoding="utf-8", errors="replace")
    mark, text = _MARK.search(found), _MARK.sub("", found)
    return None if mark is not None and _digest(text) == mark[1] else text


def _digest(text: str) -> str:
    return hashlib.sha256(text.strip().encode()).hexdigest()


def card_text(run: RunFolder, curve: TradeOff | None) -> str:
    """The card as the run fills it in, Markdown."""
    summary = run.summary
    recorded = summary.get("data")
    data = recorded if isinstance(recorded, dict) else {}
    records, tested = training_records(run), held_out_records(run)
    sizes = (
        f"{records:,.0f} records for training, {tested:,.0f} for testing"
        if records or tested
        else "numbers of records are not public"
    )
    model = model_words(run)
    parts = [
        f"# Model card: {_plain(words(summary.get('dataset')))}",
        "## Purpose",
        f"{_capital(model)} that predicts {_plain(task_words(run))}. *To be completed: which decision it is meant to support, and who asked for it.*",
        "## Intended use",
        "*To be completed: who uses it, for which patients, with which other information, and what it must not be used for.* "
        "Until then: research only; it has not been validated for any clinical use.",
        "## Data",
        f"{shown(summary.get('senders'), '{:g}'.format)} {site_word(run)}; {sizes}. Source: {_plain(words(data.get('source')))}. "
        f"Licence: {_plain(words(data.get('licence')))}.",
        "## How well it works",
        _works(run),
        "## Privacy",
        _privacy(run, curve),
        "## Limits",
        "\n".join(f"- {each}" for each in _limits(run)),
        "## Contact",
        "*To be completed: who answers questions about this model.*",
    ]
    return "\n\n".join(parts) + "\n"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", text)


def _works(run: RunFolder) -> str:
    summary, lead = run.summary, headline(run.summary)
    name = "pooled_accuracy" if lead.share else lead.name
    value = number(summary.get(name))
    if value is None:
        return "No score was measured."
    intervals = summary.get("intervals")
    within = intervals.get(name) if isinstance(intervals, dict) else None
    form = format_share if lead.share else lead.text
    text = f"{_capital(lead.words)} on held-out records of the same sites: {form(value)}"
    text += f" (95 % interval {interval_text(within, form)})" if within else ""
    area = number(summary.get("auc"))
    text += f"; area under the ROC curve {area:.3f}" if area is not None else ""
    return f"{text}. The report beside this card has the scores of each site."


def _privacy(run: RunFolder, curve: TradeOff | None) -> str:
    summary = run.summary
    if reasons_against(run):
        return "**This run is not private**: the report says why."
    text = f"Epsilon {shown(summary.get('epsilon'), format_epsilon)} at delta {shown(summary.get('delta'))} for each {words(summary.get('unit'))}"
    of = counted(run)
    if of is not None:
        text += f", if {of[0]:g} of {of[1]:g} {'noise senders' if summary.get('noise_senders') else site_word(run)} keep their noise secret"
    text += ". " + (_plain(patient_sentence(curve, str(summary.get("unit")))) if curve is not None else "")
    if conditions(run) or assumed(run):
        text += " This holds with the conditions that the report lists first."
    return text


def _limits(run: RunFolder) -> list[str]:
    found = [
        "Scores are on records of the sites that trained it. How it does elsewhere, or later, is unknown.",
        "Noise for privacy blurs the model: another run with the same settings gives slightly different predictions.",
    ]
    if not run.summary.get("subgroups"):
        found.append("No subgroup of patients was looked at by itself.")
    if run.summary.get("unit") == "record":
        found.append("Each record is protected by itself; a person with several records is protected less.")
    if number(run.summary.get("pooled_accuracy")) is None and number(run.summary.get("rmse")) is None:
        found.append(f"How well it works was {MISSING}.")
    return found


def card_section(text: str) -> Html:
    """The card as the report shows it; links, images and HTML in it are shown as text."""
    reader = MarkdownIt("commonmark", {"html": False}).disable(_OFF).enable("table")
    tokens = reader.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):  # below the page's own headings
            token.tag = f"h{min(int(token.tag[1]) + 2, 6)}"
    body = Html(reader.renderer.render(tokens, reader.options, {}))
    return section(
        "Model card",
        paragraph(
            f"This card is the file {NAME} of the run folder. It was filled in from the run; complete it there, and it stays as you leave it."
        ),
        element("div", body, class_="modelcard"),
    )
