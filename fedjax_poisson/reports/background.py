"""The background of a report: the data, the words that the page uses, and how to repeat the run."""

from __future__ import annotations

import re
from pathlib import PurePath

from fedjax_poisson.reports.answers import model_words
from fedjax_poisson.reports.formatting import MISSING, shown, words
from fedjax_poisson.reports.html import Child, Html, bullets, element, paragraph, section, table
from fedjax_poisson.runs.run_folder import RunFolder, held_out_records, training_records

_WORDS = (
    ("site", "An institution that takes part with records of its own, and keeps them."),
    (
        "round",
        "One step of the training: every site sends a message, their sum is decrypted, and the model moves by it.",
    ),
    ("release", "A sum over all sites that was decrypted, and so could be seen. Only releases cost privacy."),
    (
        "clipping",
        "Before a sum is made, what a single record (or patient) adds to it is cut to a fixed length, so that noise can hide it.",
    ),
    (
        "noise",
        "Random numbers that each site adds to its sum before it leaves. They hide single records and blur the model a little.",
    ),
    (
        "epsilon",
        "How much more likely anything that was seen can be with a record than without it: at most e^epsilon times (1: 2.7 times).",
    ),
    ("delta", "A small chance that is left out of that statement."),
    (
        "false alarm, detection",
        "Of those not in the data, the share that an attacker wrongly names; of those in it, the share that he rightly names.",
    ),
    (
        "ledger",
        "The account book of the data set: every release stands on it with its price before it is decrypted, and what exceeds the budget is refused.",
    ),
    (
        "calibration error",
        "How far predicted probabilities are from how often they come true, on average; 0 is perfect.",
    ),
)
_PATHS = re.compile(r'^(csv|data|ledger) = "(.*)"$', re.MULTILINE)


def the_words(run: RunFolder) -> Html:
    """What the words of the page mean."""
    return section("The words on this page", table(["word", "meaning"], [list(each) for each in _WORDS], texts=2))


def _shown_settings(run: RunFolder) -> str:
    """config.toml, with the names of files but not where they lie: that is nobody's business to whom the page is sent."""
    if run.config is None:
        return MISSING
    return _PATHS.sub(lambda found: f'{found[1]} = "{PurePath(found[2]).name}"', run.config)


def the_data(run: RunFolder) -> Html:
    """The source and licence of the data, and what was done to it."""
    summary = run.summary
    recorded = summary.get("data")
    facts = recorded if isinstance(recorded, dict) else {}
    records, tested = training_records(run), held_out_records(run)
    rows: list[list[Child]] = [
        ["data set", words(run.summary.get("dataset"))],
        ["records", f"{records:,.0f} for training, {tested:,.0f} for testing" if records or tested else MISSING],
        ["source", words(facts.get("source"))],
        ["licence", words(facts.get("licence"))],
        ["classes", ", ".join(map(str, classes)) if isinstance(classes := summary.get("classes"), list) else MISSING],
        ["model", f"{model_words(run)}, {shown(summary.get('dimension'), '{:,.0f}'.format)} parameters"],
        ["citation", words(facts.get("citation"))],
    ]
    notes = facts.get("notes")
    parts: list[Child] = [table(["what", "value"], rows, texts=2)]
    if isinstance(notes, list) and notes:
        parts += [element("h3", "What was done to the data"), bullets([str(note) for note in notes])]
    return section("The data", *parts)


def how_to_repeat(run: RunFolder) -> Html:
    """Settings, commands and versions."""
    summary = run.summary
    if summary.get("reproducible") is True:
        seed = (
            "Repeating the run gives the same numbers, because all randomness is derived from seed "
            f"{summary.get('seed', MISSING)}. This is also why the run is not private."
        )
    else:
        seed = (
            "Repeating the run draws new noise from the operating system, so the scores differ slightly. This is "
            "intended: noise that can be reproduced can be removed."
        )
    commands = (
        ("fedjax-poisson run config.toml --out REPEAT", "the same settings"),
        ("fedjax-poisson ledger RUN", "verify the ledger"),
        ("fedjax-poisson report RUN", "regenerate this page"),
    )
    versions = summary.get("versions")
    rows: list[list[Child]] = [["date", words(summary.get("date"))], ["machine", words(summary.get("machine"))]]
    if isinstance(versions, dict):
        rows += [[str(name), str(version)] for name, version in versions.items()]
    return section(
        "How to repeat it",
        paragraph("RUN is this run's folder. ", seed),
        element("pre", "\n".join(f"{command:<46}# {what}" for command, what in commands)),
        element("h3", "config.toml"),
        element("pre", _shown_settings(run)),
        element("h3", "Machine and versions"),
        table(["what", "value"], rows, texts=2),
    )
