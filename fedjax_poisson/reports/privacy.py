"""The privacy section of the report: what the guarantee covers, the attacker's best trade-off, and what every statement rests on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from fedjax_poisson.reports.formatting import (
    MISSING,
    format_bound,
    format_epsilon,
    format_share,
    plural,
    shown,
    site_word,
    words,
)
from fedjax_poisson.reports.grounds import counted, grounds
from fedjax_poisson.reports.guarantees import noise_senders, question, reasons_against
from fedjax_poisson.reports.html import Child, Html, bold, element, paragraph, pictures, section, table, tag
from fedjax_poisson.reports.trade_off import EXAMPLE, TradeOff, patient_sentence
from fedjax_poisson.runs.run_folder import LedgerCheck, RunFolder, number, training_records

UNITS = {
    "record": "One record (a row of the table). A person with several records is protected for each record separately, "
    "not for all of them together.",
    "patient": "One patient: all records of the same person, taken together.",
    "client": "One site: everything it contributes.",
}
_ADJACENCIES = {
    "zero_out": "The guarantee compares this run with one in which that {unit} contributes nothing (zero) and "
    "everything else, including the noise, stays the same.",
    "replace_one": "The guarantee compares this run with one in which that {unit} is replaced by any other one.",
}
_PARAMETERS = {
    "clip_norm": "largest Euclidean norm of one {unit}'s contribution",
    "coordinate_bound": "largest absolute value of any coordinate of that contribution",
    "total_bound": "clamp on each coordinate of a site's sum",
    "dark_count": "mean of each of the two Poisson counts that a site draws per coordinate; sets the noise",
    "modulation": "largest relative change that the data can make to that mean",
    "portions": "equal parts of the noise, of which a round may use fewer",
    "grid_step": "value of one integer step",
    "noise_variance": "variance of the noise that a site adds to each coordinate, in squared integer steps",
    "noise_std": "standard deviation of the noise that a site adds to each coordinate",
}
_SHOWN_RATES = (0.01, EXAMPLE, 0.1, 0.25)


def how_private(run: RunFolder, ledger: LedgerCheck, folder: Path, curve: TradeOff | None) -> Html:
    """For whom, against whom, by how much, and what it rests on."""
    parts: list[Child] = []
    if reasons_against(run):
        parts.append(
            paragraph(
                bold("These statements do not hold for this run. "),
                "They state what the same settings would guarantee with secret randomness and encrypted sums.",
            )
        )
    parts.append(
        paragraph(
            f"Noise hides whether any single {unit_of(run)} was used: with it or without it, everything that came out of the run is almost equally likely. "
            "How nearly, epsilon says: 0 would be no difference at all, and the smaller the better."
        )
    )
    parts += [*_attacker(run, folder, curve), _facts(run)]
    if more := [*_spent_less(run), *_beside_epsilon(run)]:
        parts.append(paragraph(*more))
    rows: list[list[Child]] = [
        [each.statement, tag(each.status, "does not hold" if each.status == "broken" else each.status), each.basis]
        for each in grounds(run, ledger)
    ]
    parts += [
        element("h3", "What these statements rest on"),
        paragraph(
            "Proved: a theorem says so. Checked: computed, and compared with an independent answer or a record. Assumed: believed, for the reason "
            "given; if it is "
            "wrong, so is what follows from it."
        ),
        table(["statement", "status", "what it rests on"], rows, texts=3),
        *_mechanisms(run, unit_of(run)),
    ]
    return section("How private it is", *parts, anchor="how-private")


def unit_of(run: RunFolder) -> str:
    """The protected unit, or "unit" where it was not recorded."""
    unit = run.summary.get("unit")
    return unit if isinstance(unit, str) and unit in UNITS else "unit"


def _attacker(run: RunFolder, folder: Path, curve: TradeOff | None) -> list[Child]:
    """The trade-off curve, its sentence for a patient, and a few of its numbers."""
    if curve is None:
        return []
    rows: list[list[Child]] = [
        [format_share(rate), format_share(rate), format_bound(curve.at(rate))] for rate in _SHOWN_RATES
    ]
    epsilon = number(run.summary.get("epsilon"))
    belief = "" if epsilon is None else (
        f" Read as a belief: whoever held it as likely as not (50.0 %) that one {unit_of(run)} was used, holds it at most "
        f"{format_share(1 / (1 + math.exp(-min(epsilon, 700))))} likely afterwards (but for rare outcomes, up to some tens of times delta likely)."
    )  # fmt: skip
    alt = (
        "Curve of the largest detection rate against the rate of false alarms. "
        + "; ".join(
            f"at {format_share(rate)} false alarms at most {format_bound(curve.at(rate))}" for rate in _SHOWN_RATES
        )
        + ". The diagonal is guessing."
    )
    caption = {
        "trade_off": f"No test can lie above the curve, which was computed from {curve.source}. The attacker may know everything about the data "
        f"except {question(run)}, "
        "sees all that was released and every model, and has any computer."
    }
    return [
        element("h3", "What an attacker can find out at most"),
        element("p", patient_sentence(curve, unit_of(run)), class_="patient"),
        element(
            "div",
            *pictures(folder, caption, {"trade_off": alt}),
            element(
                "div",
                table(
                    ["false alarms that the attacker accepts", "found by guessing", "found by the best test, at most"],
                    rows,
                ),
                *([paragraph(belief.strip())] if belief else []),
            ),
            class_="pairs",
        ),
    ]


def _facts(run: RunFolder) -> Html:
    summary, unit = run.summary, unit_of(run)
    epsilon, delta = number(summary.get("epsilon")), number(summary.get("delta"))
    adjacency = str(summary.get("adjacency"))
    rows: list[list[Child]] = [
        [
            "for whom (unit)",
            words(summary.get("unit")),
            UNITS.get(str(summary.get("unit")), "The privacy unit was not recorded."),
        ],
        ["epsilon", shown(epsilon, format_epsilon), _epsilon_sentence(epsilon, unit, adjacency)],
        ["delta", shown(delta), _delta_sentence(run, delta)],
        [
            "compared with (adjacency)",
            words(summary.get("adjacency")),
            _ADJACENCIES.get(adjacency, "The adjacency was not recorded.").format(unit=unit),
        ],
        ["who must be honest", _trust_value(run), _trust_sentence(run)],
        ["sampling", shown(summary.get("sampling_rate")), _sampling_sentence(run, unit)],
    ]
    return table(["term", "value", "meaning"], rows, texts=3, caption="The guarantee in its technical terms")


def _epsilon_sentence(epsilon: float | None, unit: str, adjacency: str) -> str:
    if epsilon is None:
        return f"Epsilon was {MISSING}."
    factor = "more than e^700" if epsilon > 700 else f"e^epsilon = {math.exp(epsilon):.4g}"
    other = "another in its place" if adjacency == "replace_one" else "it left out"
    return (
        f"Covers everything that was released, taken together: whatever anyone sees is at most {factor} times as likely, or as "
        f"unlikely, with any one {unit} as with {other} (up to delta)."
    )


def _delta_sentence(run: RunFolder, delta: float | None) -> str:
    if delta is None:
        return f"Delta was {MISSING}."
    text = "The slack in that bound: it is added to the probability of every event." if delta > 0 else "No slack."
    records = training_records(run)
    if records and delta > 0:
        text += f" It should be smaller than 1 / (number of training records) = {1 / records:.2g}: "
        text += "it is." if delta < 1 / records else "it is not; choose a smaller delta."
    return text


def _trust_value(run: RunFolder) -> str:
    found = counted(run)
    return MISSING if found is None else f"{found[0]:g} of {found[1]:g}"


def _trust_sentence(run: RunFolder) -> str:
    found = counted(run)
    many, one = site_word(run), site_word(run, 1)
    if found is None:
        return f"How many {many} must be honest was {MISSING}."
    honest, senders = found
    others = senders - honest
    if run.summary.get("noise_senders"):
        return (
            f"The guarantee needs {honest:g} of the {senders:g} noise senders to draw their noise and to keep it secret, whoever the {many} are: "
            f"these send clean counts, and prove that they are short. {plural(others, 'noise sender', 'noise senders')} may tell the server everything."
        )
    text = f"The guarantee needs {honest:g} of the {senders:g} {many} (including the {one} of the protected {unit_of(run)}) to add their noise "
    text += (
        f"and to keep it secret. {plural(others, one, many)} may tell the server everything."
        if others
        else "and to keep it secret."
    )
    return text


def _sampling_sentence(run: RunFolder, unit: str) -> str:
    rate = number(run.summary.get("sampling_rate"))
    if rate is None:
        return f"Whether records were sampled was {MISSING}."
    if rate >= 1:
        return f"Every {unit} takes part in every training round; no sampling is claimed."
    return (
        f"In each training round every {unit} takes part with this probability, by a secret draw. Every "
        f"{site_word(run, 1)} always sends a message with its full noise, so nobody can tell who took part. Epsilon "
        "takes this sampling into account."
    )


def _spent_less(run: RunFolder) -> list[Child]:
    """What a run that its controller ended took of its budget, and what is left."""
    summary, ended = run.summary, run.summary.get("ended")
    if not isinstance(ended, dict):
        return []
    return [
        f"The training ended by itself after {shown(summary.get('rounds'), '{:,.0f}'.format)} of {shown(summary.get('rounds_planned'), '{:,.0f}'.format)} "
        f"rounds ({words(ended.get('how'))}). It spent what reads as epsilon {shown(summary.get('epsilon_spent'), format_epsilon)}; "
        f"{shown(ended.get('share_left'), format_share)} of the budget is left on the ledger for the next question. Since the end was chosen from "
        "what had been seen, the epsilon that is guaranteed is that of the whole plan. ",
    ]


def _beside_epsilon(run: RunFolder) -> list[Child]:
    """Epsilon if no other site is honest, and the total cost of all runs on the data."""
    alone, together = number(run.summary.get("epsilon_one_honest")), run.summary.get("earlier_runs")
    text = ""
    if run.summary.get("noise_senders"):
        text += f"Whichever {site_word(run)} work with the server, epsilon stays the same: the noise is that of noise senders. "
    elif alone is not None:
        text += (
            f"If the server works with all other {site_word(run)}, epsilon is {format_epsilon(alone)}: only the noise of the one remaining "
            f"{site_word(run, 1)} counts then. "
        )
    if isinstance(together, dict) and (folders := together.get("folders")):
        total = number(together.get("epsilon_together"))
        text += (
            f"{plural(len(folders), 'other run')} in neighbouring folders used this data set; together with this one, "
        )
        text += (
            f"what was spent reads as epsilon {format_epsilon(total)} (orientation; at up to twice this delta). "
            if total is not None
            else "more was spent than this page states. "
        )
    if isinstance(shared := run.summary.get("shared_ledger"), dict):
        text += (
            f"The data set's shared ledger counts {shown(shared.get('runs'), '{:g}'.format)} run(s): epsilon {shown(shared.get('epsilon'), format_epsilon)} "
            f"of {shown(shared.get('budget_epsilon'))} spent."
        )
    return [text] if text else []


def _mechanisms(run: RunFolder, unit: str) -> list[Child]:
    recorded = run.summary.get("mechanism")
    mechanisms = {str(k): v for k, v in recorded.items() if isinstance(v, dict)} if isinstance(recorded, dict) else {}
    if not mechanisms:
        return [element("h3", "Where the noise comes from"), paragraph(f"The mechanism was {MISSING}.")]
    names = sorted(
        {str(name) for facts in mechanisms.values() for name in _parameters(facts)},
        key=lambda n: list(_PARAMETERS).index(n) if n in _PARAMETERS else 99,
    )
    rows: list[list[Child]] = [
        ["mechanism", "the law of the noise", *(words(facts.get("name")) for facts in mechanisms.values())]
    ]
    for name in names:
        meaning = _PARAMETERS.get(name, "a setting of the mechanism’s own").format(unit=unit)
        rows.append([name, meaning, *(_plain(_parameters(facts).get(name, "–")) for facts in mechanisms.values())])
    guarantees = dict.fromkeys(words(facts.get("guarantee")) for facts in mechanisms.values())
    statuses = ", ".join(f"{purpose}: {words(facts.get('status'))}" for purpose, facts in mechanisms.items())
    real = any(facts.get("integer") is False for facts in mechanisms.values())
    by = noise_senders(run)
    return [
        element("h3", "Where the noise comes from"),
        paragraph(
            "Each ",
            site_word(run, 1),
            " adds its noise to its clipped contribution in floating-point numbers, whose textbook guarantee assumes real ones."
            if real
            else " sends its clipped contribution of a training round as integers without noise of its own: "
            f"{plural(by, 'noise sender adds', 'noise senders add')} random integers before anything is opened."
            if by is not None
            else " turns its bounded contribution into random integer counts, which have it as their mean and the noise as their spread, and sends only these.",
        ),
        table(["setting", "meaning", *mechanisms], rows, texts=2),
        paragraph("The guarantee, as stated by the mechanism: ", *(text + " " for text in guarantees)),
        paragraph(f"What the statements rest on: {statuses}."),
    ]


def _parameters(facts: dict[str, Any]) -> dict[str, Any]:
    found = facts.get("parameters")
    return found if isinstance(found, dict) else {}


def _plain(value: Any) -> str:
    found = number(value)
    return (MISSING if value is None else str(value)) if found is None else f"{found:,.6g}"
