"""The parts of the report that make statements about privacy: what holds, for whom, and what does not."""

from __future__ import annotations

import math
from typing import Any

from fedjax_poisson.reports.formatting import MISSING, format_epsilon, format_share, plural, shown, site_word, words
from fedjax_poisson.reports.guarantees import (
    FALSE_POSITIVES,
    attack_success,
    conditions,
    encrypted,
    question,
    reasons_against,
    seeded,
)
from fedjax_poisson.reports.html import Child, Html, bold, bullets, element, join, paragraph, section, table
from fedjax_poisson.runs.run_folder import LedgerCheck, RunFolder, number, training_records

_UNITS = {
    "record": "One record, a row of the table. Somebody with several records is protected for each of them, not for "
    "all together.",
    "patient": "One patient: all records of the same person together.",
    "client": "One site: everything it contributes.",
}
_ADJACENCIES = {
    "zero_out": "The guarantee compares this run with one in which that {unit} contributes nothing (zero) and "
    "everything else, the noise included, stays.",
    "replace_one": "The guarantee compares this run with one in which that {unit} is replaced by any other one.",
}
_PARAMETERS = {
    "clip_norm": "largest Euclidean length of what one {unit} contributes",
    "coordinate_bound": "largest absolute value of any one number in it",
    "total_bound": "clamp on each number of a site's sum",
    "dark_count": "mean of each of the two Poisson counts that a site draws per number; sets the noise",
    "modulation": "largest relative change of that mean by the data",
}


def how_private(run: RunFolder) -> Html:
    """Epsilon, delta, unit, adjacency and trust, each in a sentence, and what they mean for an attacker."""
    summary = run.summary
    unit = _unit(run)
    epsilon, delta = number(summary.get("epsilon")), number(summary.get("delta"))
    parts: list[Child] = []
    if reasons_against(run):
        parts.append(
            paragraph(
                bold("These statements do not hold for this run. "),
                "They are what the same settings would guarantee with secret randomness and encrypted sums.",
            )
        )
    parts.append(
        table(
            ["", "value", "what it says"],
            [
                [
                    "epsilon",
                    shown(epsilon, format_epsilon),
                    _epsilon_sentence(epsilon, unit, str(summary.get("adjacency"))),
                ],
                ["delta", shown(delta), _delta_sentence(run, delta)],
                [
                    "unit",
                    words(summary.get("unit")),
                    _UNITS.get(str(summary.get("unit")), "What is protected was not recorded."),
                ],
                [
                    "adjacency",
                    words(summary.get("adjacency")),
                    _ADJACENCIES.get(str(summary.get("adjacency")), "What is compared was not recorded.").format(
                        unit=unit
                    ),
                ],
                ["who is trusted", _trust_value(run), _trust_sentence(run)],
                ["sampling", shown(summary.get("sampling_rate")), _sampling_sentence(run, unit)],
            ],
            texts=3,
        )
    )
    if epsilon is not None and delta is not None:
        parts += [
            element("h3", "What an attacker gains at most"),
            _attacker(epsilon, delta, question(run)),
        ]
    parts += _mechanisms(run, unit)
    return section("How private", *parts)


def protects(run: RunFolder, ledger: LedgerCheck) -> Html:
    """What the run protects against and what it does not, side by side."""
    left = element("div", element("h3", "It protects against"), bullets(_protected(run, ledger)))
    right = element("div", element("h3", "It does not protect against"), bullets(_unprotected(run)))
    return section("What this protects against, and what it does not", element("div", left, right, class_="two"))


def _unit(run: RunFolder) -> str:
    unit = run.summary.get("unit")
    return unit if isinstance(unit, str) and unit in _UNITS else "unit"


def _epsilon_sentence(epsilon: float | None, unit: str, adjacency: str) -> str:
    if epsilon is None:
        return f"Epsilon was {MISSING}."
    factor = "more than e^700" if epsilon > 700 else f"e^epsilon = {math.exp(epsilon):.4g}"
    other = "another in its place" if adjacency == "replace_one" else "it left out"
    return (
        f"Everything that was released, together: whatever anyone sees is at most {factor} times as likely, or as "
        f"unlikely, with any one {unit} as with {other} (up to delta)."
    )


def _delta_sentence(run: RunFolder, delta: float | None) -> str:
    if delta is None:
        return f"Delta was {MISSING}."
    text = (
        f"The slack in that bound: roughly the chance, 1 in {1 / delta:,.0f}, that it fails."
        if delta > 0
        else "No slack."
    )
    records = training_records(run)
    if records and delta > 0:
        text += f" It should be smaller than 1 / (number of training records) = {1 / records:.2g}: "
        text += "it is." if delta < 1 / records else "it is not, choose a smaller delta."
    return text


def _trust_value(run: RunFolder) -> str:
    honest, senders = number(run.summary.get("honest_senders")), number(run.summary.get("senders"))
    return MISSING if honest is None or senders is None else f"{honest:g} of {senders:g}"


def _trust_sentence(run: RunFolder) -> str:
    honest, senders = number(run.summary.get("honest_senders")), number(run.summary.get("senders"))
    many, one = site_word(run), site_word(run, 1)
    if honest is None or senders is None:
        return f"How many {many} must be honest was {MISSING}."
    others = senders - honest
    text = (
        f"The guarantee needs {honest:g} of the {senders:g} {many} (the {one} of the protected {_unit(run)} among "
        "them) to add their noise "
    )
    text += (
        f"and to keep it to themselves. {plural(others, one, many)} may tell the server everything."
        if others
        else "and to keep it to themselves."
    )
    return text


def _sampling_sentence(run: RunFolder, unit: str) -> str:
    rate = number(run.summary.get("sampling_rate"))
    if rate is None:
        return f"Whether records were sampled was {MISSING}."
    if rate >= 1:
        return f"Every {unit} takes part in every training release; no sampling is claimed."
    return (
        f"In each training release every {unit} takes part with this probability, drawn secretly; every "
        f"{site_word(run, 1)} always sends, with its full noise, so that nobody can tell who took part. Epsilon makes "
        "use of it."
    )


def _attacker(epsilon: float, delta: float, unknown: str) -> Html:
    posterior = 1 / (1 + math.exp(-min(epsilon, 700)))
    success = attack_success(epsilon, delta)
    return join(
        [
            paragraph(
                f"Suppose somebody knows everything about the data except {unknown}, sees every opened sum and every "
                "model, and has any amount of computing power."
            ),
            table(
                ["", "by guessing", "with everything released, at most"],
                [
                    ["Belief of 50 % becomes (up to delta)", "50.0 %", format_share(posterior)],
                    [
                        f"Correct detections, when {format_share(FALSE_POSITIVES)} false alarms are accepted",
                        format_share(FALSE_POSITIVES),
                        format_share(success),
                    ],
                ],
            ),
        ]
    )


def _mechanisms(run: RunFolder, unit: str) -> list[Child]:
    recorded = run.summary.get("mechanism")
    mechanisms = {str(k): v for k, v in recorded.items() if isinstance(v, dict)} if isinstance(recorded, dict) else {}
    if not mechanisms:
        return [element("h3", "Mechanism"), paragraph(f"The mechanism was {MISSING}.")]
    names = sorted(
        {str(name) for facts in mechanisms.values() for name in _parameters(facts)},
        key=lambda n: list(_PARAMETERS).index(n) if n in _PARAMETERS else 99,
    )
    rows: list[list[Child]] = [["mechanism", "", *(words(facts.get("name")) for facts in mechanisms.values())]]
    for name in names:
        meaning = _PARAMETERS.get(name, "").format(unit=unit)
        rows.append([name, meaning, *(_plain(_parameters(facts).get(name)) for facts in mechanisms.values())])
    guarantees = dict.fromkeys(words(facts.get("guarantee")) for facts in mechanisms.values())
    return [
        element("h3", "Where the noise comes from"),
        paragraph(
            "Noise is not added afterwards: each ",
            site_word(run, 1),
            " turns its clipped sum into random integer counts, and only these are sent. The settings:",
        ),
        table(["setting", "meaning", *mechanisms], rows, texts=2),
        paragraph("The guarantee, in the words of the mechanism: ", *(text + " " for text in guarantees)),
    ]


def _parameters(facts: dict[str, Any]) -> dict[str, Any]:
    found = facts.get("parameters")
    return found if isinstance(found, dict) else {}


def _plain(value: Any) -> str:
    found = number(value)
    return (MISSING if value is None else str(value)) if found is None else f"{found:,.6g}"


def _protected(run: RunFolder, ledger: LedgerCheck) -> list[Child]:
    summary, many, one, unit = run.summary, site_word(run), site_word(run, 1), _unit(run)
    found: list[Child] = []
    holds = not reasons_against(run)
    if holds:
        found.append(
            "Anyone who sees the final model, every earlier model and every opened sum, with any knowledge from "
            f"elsewhere: epsilon bounds what they learn about one {unit}."
        )
    if encrypted(run):
        blind = " and does not know the seed" if seeded(run) else ""
        found.append(
            f"A curious server that follows the protocol{blind}: it handles ciphertexts and opened sums, never what a "
            f"single {one} sent."
        )
    honest, senders = number(summary.get("honest_senders")), number(summary.get("senders"))
    if holds and honest is not None and senders is not None and senders > honest:
        found.append(
            f"Collusion of the server with up to {plural(senders - honest, one, many)}: epsilon is computed as if they "
            "added no noise."
        )
    if encrypted(run):
        found.append(
            "Leaks through inexact decryption: every opened value is rounded to the exact integer sum before anything uses it, a sum with a value too far "
            "from an integer is refused, and how far it was is not told to anyone."
        )
    if ledger.verified:
        found.append(
            "Unnoticed spending: every release is on the ledger before it is opened, and none is opened that the "
            "budget does not cover."
        )
    return found or ["Nothing that could be stated from this run folder."]


def _shown_here(run: RunFolder) -> list[Child]:
    """What the page shows that no epsilon covers."""
    if run.summary.get("public_data") is True:
        return [
            "What this report itself shows: test scores, the run without privacy and the numbers of records are computed from the data in the clear. The "
            "data set is public, so that harms nobody; with your own data such facts are left out, or named at the top of the page."
        ]
    if conditions(run):
        return [
            "What this report itself shows beside the releases: the box at the top lists it. Treat the report as confidential."
        ]
    return []


def _unprotected(run: RunFolder) -> list[Child]:
    many, one, unit = site_word(run), site_word(run, 1), _unit(run)
    found: list[Child] = []
    if not encrypted(run):
        found.append(f"A curious server: without encryption it reads what each {one} sent.")
    else:
        found.append(
            f"The holder of the key and the server together: they could open what a single {one} sent. Then only that "
            f"{one}'s own noise protects it, and epsilon is larger than stated here."
        )
    found += [
        f"Poisoned updates: a {one} can send wrong numbers. Encryption hides them, and nothing here checks them.",
        f"A server or {many} that break the protocol beyond the collusion stated above. The parties are assumed to be "
        "curious, not malicious.",
        *_shown_here(run),
        "The release of the model. That is its purpose; epsilon bounds what its parameters reveal.",
        "Choices made by looking at the data: bounds, number of rounds or step sizes tuned on it are releases too. "
        "They count as public here.",
    ]
    if unit == "record":
        found.append("Several records of one person together, or facts about a group: the guarantee is for one record.")
    found.append(
        f"The network. This run simulates all {many} in one process on one machine: no transport, no authentication, "
        "no handing over of keys."
    )
    return found
