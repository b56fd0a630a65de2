"""The privacy sections of the report: what the guarantee covers, for whom, and what it does not cover."""

from __future__ import annotations

import math
from typing import Any

from fedjax_poisson.aggregation.norm_bound import dense_passes, squared_bound
from fedjax_poisson.reports.formatting import MISSING, format_epsilon, format_share, plural, shown, site_word, words
from fedjax_poisson.reports.guarantees import (
    FALSE_POSITIVES,
    attack_success,
    committee,
    conditions,
    encrypted,
    question,
    reasons_against,
    seeded,
)
from fedjax_poisson.reports.html import Child, Html, bold, bullets, element, join, paragraph, section, table
from fedjax_poisson.runs.run_folder import LedgerCheck, RunFolder, in_consortium, number, training_records

_UNITS = {
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


def how_private(run: RunFolder) -> Html:
    """Epsilon, delta, unit, adjacency and trust, a sentence for each, and what they mean for an attacker."""
    summary = run.summary
    unit = _unit(run)
    epsilon, delta = number(summary.get("epsilon")), number(summary.get("delta"))
    parts: list[Child] = []
    if reasons_against(run):
        parts.append(
            paragraph(
                bold("These statements do not hold for this run. "),
                "They state what the same settings would guarantee with secret randomness and encrypted sums.",
            )
        )
    parts.append(
        table(
            ["", "value", "meaning"],
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
                    _UNITS.get(str(summary.get("unit")), "The privacy unit was not recorded."),
                ],
                [
                    "adjacency",
                    words(summary.get("adjacency")),
                    _ADJACENCIES.get(str(summary.get("adjacency")), "The adjacency was not recorded.").format(
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
            element("h3", "What an attacker can gain at most"),
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
        f"Covers everything that was released, taken together: whatever anyone sees is at most {factor} times as likely, or as "
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
        text += "it is." if delta < 1 / records else "it is not; choose a smaller delta."
    return text


def _counted(run: RunFolder) -> tuple[float, float] | None:
    """Of whom the price counts how many: the senders of noise, which are the sites but in norm rounds; None where it was not recorded."""
    by = run.summary.get("noise_senders") or {}
    names = (by, "honest", "senders") if by else (run.summary, "honest_senders", "senders")
    honest, senders = number(names[0].get(names[1])), number(names[0].get(names[2]))
    return None if honest is None or senders is None else (honest, senders)


def _trust_value(run: RunFolder) -> str:
    found = _counted(run)
    return MISSING if found is None else f"{found[0]:g} of {found[1]:g}"


def _trust_sentence(run: RunFolder) -> str:
    found = _counted(run)
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
    text = (
        f"The guarantee needs {honest:g} of the {senders:g} {many} (including the {one} of the protected {_unit(run)}) "
        "to add their noise "
    )
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
        return f"Every {unit} takes part in every training release; no sampling is claimed."
    return (
        f"In each training release every {unit} takes part with this probability, by a secret draw. Every "
        f"{site_word(run, 1)} always sends a message with its full noise, so nobody can tell who took part. Epsilon "
        "takes this sampling into account."
    )


def _attacker(epsilon: float, delta: float, unknown: str) -> Html:
    posterior = 1 / (1 + math.exp(-min(epsilon, 700)))
    success = attack_success(epsilon, delta)
    return join(
        [
            paragraph(
                f"Suppose an attacker knows everything about the data except {unknown}, sees every opened sum and every "
                "model, and has unlimited computing power."
            ),
            table(
                ["", "by guessing", "with everything released, at most"],
                [
                    ["A belief of 50 % becomes (up to delta)", "50.0 %", format_share(posterior)],
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
    statuses = ", ".join(f"{purpose}: {words(facts.get('status'))}" for purpose, facts in mechanisms.items())
    real = any(facts.get("integer") is False for facts in mechanisms.values())
    return [
        element("h3", "Where the noise comes from"),
        paragraph(
            "Noise is not added afterwards: each ",
            site_word(run, 1),
            " adds its noise to its clipped contribution in floating-point numbers, whose textbook guarantee assumes real ones. The settings:"
            if real
            else " converts its clipped contribution into random integer counts and sends only these. The settings:",
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


def _protected(run: RunFolder, ledger: LedgerCheck) -> list[Child]:
    summary, many, one, unit = run.summary, site_word(run), site_word(run, 1), _unit(run)
    found: list[Child] = []
    holds = not reasons_against(run)
    if holds:
        found.append(
            "Anyone who sees the final model, every earlier model and every opened sum, whatever else they know: "
            f"epsilon bounds what they learn about one {unit}."
        )
    if encrypted(run):
        blind = " that does not know the seed" if seeded(run) else ""
        group = committee(run)
        if group is not None and group.signed:
            found.append(
                f"A malicious server{blind}, together with up to {group.malicious} of the {group.members} members and any {many}: each sum is opened once, for "
                f"one set of {many} that the members signed, and no single {one}'s message is. `fedjax-poisson verify` repeats "
                "a round's public checks from the run folder."
            )
        else:
            found.append(
                f"A curious server{blind} that follows the protocol: it sees ciphertexts and opened sums, never the content "
                f"of a single {one}'s message."
            )
    counted = _counted(run)
    if holds and counted is not None and counted[1] > counted[0]:
        others = counted[1] - counted[0]
        who = (
            plural(others, "noise sender", "noise senders")
            if summary.get("noise_senders")
            else plural(others, one, many)
        )
        found.append(
            f"Collusion of the server with up to {who}: epsilon is computed as if they added no noise."
            + (f" Any number of {many} may collude." if summary.get("noise_senders") else "")
        )
    if encrypted(run):
        found.append(
            "Leaks through inexact decryption: every opened value is rounded to the exact integer sum before anything uses it, a sum with a value too far "
            "from an integer is refused, and the size of the deviation is not disclosed to anyone."
        )
    if ledger.verified:
        found.append(
            "Unrecorded spending: every release is written to the ledger before it is opened, and no release is opened "
            "that the budget does not cover."
        )
    return found or ["Nothing: this run folder does not support any statement."]


def _shown_here(run: RunFolder) -> list[Child]:
    """What the page shows that epsilon does not cover."""
    if run.summary.get("public_data") is True:
        return [
            "The contents of this report: test scores, the run without privacy and the numbers of records are computed from the data in the clear. The "
            "data set is public, so this harms nobody; for your own data such facts are left out, or listed at the top of the page."
        ]
    if conditions(run):
        return [
            "What this report discloses in addition to the releases, as listed in the box at the top. Treat the report as confidential."
        ]
    return []


def _poisoned(run: RunFolder, one: str) -> str:
    """What a corrupt site may send."""
    group = committee(run)
    if not run.summary.get("noise_senders") or group is None:
        return f"Poisoned updates: a {one} can send wrong numbers, as large as the whole sum may be. Encryption hides them, and nothing here checks them."
    ratio = squared_bound(10**6, group.members, group.threshold, group.malicious) / 10**6
    chances = ", ".join(f"{clips} bounds with {dense_passes(clips, ratio):.1g}" for clips in (3, 5, 10))
    return (
        f"Poisoned updates of an honest update's length: a {one} can send wrong numbers, and what passed the test of norms can have moved a round. A longer "
        f"vector is left out and named; one that is as long as so many times its bound passes by chance: {chances}."
    )


def _unprotected(run: RunFolder) -> list[Child]:
    many, one, unit = site_word(run), site_word(run, 1), _unit(run)
    found: list[Child] = []
    if not encrypted(run):
        found.append(f"A curious server: without encryption it reads what each {one} sent.")
    else:
        group = committee(run)
        who = "The key holder" if group is None else f"{group.threshold} of the {group.members} members"
        left = (
            f"Nothing protects it then: in norm rounds a {one}'s numbers carry no noise of their own."
            if run.summary.get("noise_senders")
            else f"Then only that {one}'s noise protects it, and epsilon is larger than stated here."
        )
        found.append(
            f"{who} pooling what they hold with the server: together they could decrypt what a single {one} sent. {left}"
        )
        if group is None or not group.signed:
            found.append(
                f"A server or {many} that deviate from the protocol beyond the collusion stated above: messages were not signed."
            )
    found += [
        _poisoned(run, one),
        *_shown_here(run),
        "The release of the model. Releasing it is the purpose of the run; epsilon bounds what its parameters reveal.",
        "Choices made by looking at the data: bounds, numbers of rounds or step sizes tuned on the data are releases "
        "too. They are treated as public here.",
    ]
    if unit == "record":
        found.append("Several records of one person together, or facts about a group: the guarantee is for one record.")
    found.append(
        f"The machines. Whoever reads the memory or the files of a {one}'s machine sees what that {one} sees: its own records and keys."
        if in_consortium(run)
        else f"The machine. This run plays all {many} and every other party in one process: whoever reads its memory sees everything, and keys were not "
        "exchanged over any network."
    )
    return found
