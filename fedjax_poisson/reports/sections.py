"""The factual sections of the report: what left each site, what it cost, and the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedjax_poisson.reports.formatting import (
    MISSING,
    format_bytes,
    format_epsilon,
    format_factor,
    format_seconds,
    format_share,
    plural,
    shown,
    site_word,
    words,
)
from fedjax_poisson.reports.guarantees import committee, encrypted, noise_senders
from fedjax_poisson.reports.html import Child, Html, bullets, element, paragraph, pictures, section, table
from fedjax_poisson.reports.recorded_values import phase_seconds
from fedjax_poisson.runs.run_folder import (
    LedgerCheck,
    RunFolder,
    in_consortium,
    number,
    objects,
)

_FIRST_ROWS, _LAST_ROWS = 4, 3
_PURPOSES = {
    "columns": "Ranges and levels",
    "ranges": "Finer ranges",
    "standardise": "Standardisation",
    "train": "Training",
    "evaluate": "Scores",
}
_COST = {
    "cost": "Left: wall-clock time of all rounds. Right: one sender's message in one training round, compared "
    "with the same numbers as plain float32.",
}
_EPSILON = {
    "epsilon": "Epsilon does not add up linearly: two releases together cost less than the sum of both. The dark area "
    "shows the cost of standardisation alone.",
}


def what_left(run: RunFolder) -> Html:
    """Which messages left each site, how many, how large and in which form, and what did not leave."""
    summary, one, many = run.summary, site_word(run, 1), site_word(run)
    rows: list[list[Child]] = []
    for purpose in dict.fromkeys(str(row.get("purpose")) for row in run.rounds):
        own = [row for row in run.rounds if row.get("purpose") == purpose]
        sizes = [size for row in own if (size := number(row.get("bytes_up_per_client"))) is not None]
        rows.append(
            [
                _PURPOSES.get(purpose, purpose),
                f"{len(own):,}",
                format_bytes(max(sizes)) if sizes else MISSING,
                _content(run, purpose) + _noise(run, purpose),
                _form(run),
            ]
        )
    total = f"In total, {shown(summary.get('bytes_up_total_per_client'), format_bytes)} left each {one}."
    lost = number(summary.get("lost_releases")) or 0
    if lost:
        total += (
            f" {plural(lost, 'more release')} remain{'s' if lost == 1 else ''} on the ledger although an interruption of "
            "the run lost the result."
        )
    kept = [
        "any record, label, name or date",
        "the contribution of any single record, and which records took part in a release",
        *([] if noise_senders(run) else [f"the random numbers from which each {one} drew its counts"]),
    ]
    if encrypted(run):
        kept.insert(
            1,
            f"the sum of any one {one} in readable form: only the sum over all {shown(summary.get('senders'))} {many} "
            "was decrypted",
        )
    return section(
        f"What left each {one}",
        table(["purpose", "messages", "size of each", "what a message holds", "how it is protected"], rows, texts=5)
        if rows
        else paragraph(f"The messages were {MISSING}."),
        *_nothing_to_standardize(run),
        paragraph(
            total,
            " After each training round every site received the same model (parameters: "
            f"{shown(summary.get('dimension'), '{:,.0f}'.format)}).",
        ),
        element("h3", f"What did not leave the {one}"),
        bullets(kept),
        paragraph(
            (
                f"Each {one} was a process of its own, beside its own records; “left” means sent to the coordinator, encrypted."
                if in_consortium(run)
                else f"This run is a simulation: all {many} were parts of one program on one machine. “Left” means passed to "
                "the part that acts as the server, in exactly the form and size that would be sent over a network."
            )
            + _one_draw(run)
            + (
                ""
                if run.summary.get("evaluation") in ("private", "none")
                else f" To show the scores in this report, the program also evaluated the model on the test records of every {one} in the clear."
            ),
        ),
    )


def _noise(run: RunFolder, purpose: str) -> str:
    """Whose noise the integers of a message carry."""
    by = noise_senders(run)
    if by is None or purpose != "train":
        return ", as noisy integers"
    return f", as integers without noise of their own; {plural(by, 'noise sender adds', 'noise senders add')} it before anything is opened"


def _nothing_to_standardize(run: RunFolder) -> list[Child]:
    """Why no message was sent for standardisation, if none was."""
    if run.summary.get("standardize") != "bounds":
        return []
    return [
        paragraph(
            "Nothing was sent, and none of the budget was spent, to standardise: features are scaled by their public bounds. The number of "
            f"training {words(run.summary.get('unit'))}s that scales the step is not a private count: it was declared, published, or "
            "counted in the data (in which case a warning appears above)."
        )
    ]


def _content(run: RunFolder, purpose: str) -> str:
    if purpose == "standardise":
        what = "features and label" if run.summary.get("task") == "regression" else "features"
        return f"number of records, sums and sums of squares of the clipped {what}" + (
            ", one block per site" if run.summary.get("standardize") == "site" else ""
        )
    if purpose == "train" and run.summary.get("unit") == "client":
        return f"clipped update of the {site_word(run, 1)}’s model"
    if purpose == "train":
        rate, unit = number(run.summary.get("sampling_rate")), words(run.summary.get("unit"))
        each = f"each {unit}" if rate is not None and rate >= 1 else f"each {unit} in a secret sample"
        return f"sum of the clipped gradients of {each}"
    if purpose == "columns":
        return "a histogram of the columns whose ranges or levels were not declared"
    if purpose == "ranges":
        return "a finer histogram of the numeric columns within these ranges"
    if purpose == "evaluate":
        return "numbers of held-out records and of correct decisions, and a histogram of predictions"
    return f"a sum for the purpose {purpose!r}"


def _one_draw(run: RunFolder) -> str:
    """What must be said where a simulation made no messages."""
    made = str(run.summary.get("fidelity"))
    if not made.startswith("ONE DRAW"):
        return ""
    return f" In training rounds no message was made: sizes are those that messages would have. {made}."


def _form(run: RunFolder) -> str:
    backend = words(run.summary.get("aggregator"))
    if backend == "plain":
        return "NOT encrypted: integers in the clear"
    if backend == MISSING:
        return MISSING
    info = run.summary.get("aggregator_info")
    info = info if isinstance(info, dict) else {}
    facts = [backend]
    if isinstance(info.get("mode"), str):
        facts.append(info["mode"].replace("_", " "))
    if (degree := number(info.get("degree"))) is not None:
        facts.append(f"ring degree {degree:.0f}")
    if (security := number(info.get("security_bits"))) is not None:
        facts.append(f"{security:.0f}-bit security")
    group = committee(run)
    if group is not None:
        facts[:2] = [
            f"{group.threshold} of {group.members} members open the sum",
            *([] if group.signed else ["messages not signed"]),
        ]
        return f"row under a fresh secret of its own ({', '.join(facts)})"
    return f"CKKS ciphertext ({', '.join(facts)})"


def what_it_cost(run: RunFolder, folder: Path) -> Html:
    """Bytes and seconds of encryption."""
    summary, one, many = run.summary, site_word(run, 1), site_word(run)
    sent, plain = (
        number(summary.get("bytes_up_per_client_per_round")),
        number(summary.get("plaintext_bytes_per_client_per_round")),
    )
    factor = format_factor(sent / plain) if sent is not None and plain else MISSING
    own, opened = in_consortium(run), len(run.rounds)
    encrypt, senders, whole = (number(summary.get(name)) for name in ("encrypt_seconds", "senders", "total_seconds"))
    encrypted_here = opened if own else (senders or 0) * opened  # a site of a consortium sees its own seconds only
    each = format_seconds(encrypt / encrypted_here) if encrypt is not None and encrypted_here else MISSING
    making = "encryption" if encrypted(run) else "making the messages, unencrypted"
    share = f" ({format_share(encrypt / whole)} of the run)" if encrypt is not None and whole else ""
    rows: list[list[Child]] = [
        ["one training message", shown(sent, format_bytes)],
        ["the same numbers as plain float32", shown(plain, format_bytes)],
        ["expansion", factor],
        [f"sent by each {one}, whole run", shown(summary.get("bytes_up_total_per_client"), format_bytes)],
        [
            f"{making}, {f'this {one} alone' if own else f'all {many}'}, whole run",
            shown(encrypt, format_seconds) + share,
        ],
        [f"{making}, one message", each],
        [
            "waiting for the other parties until the sum was decrypted, whole run"
            if own
            else "agreeing on the sets and decrypting the sums, whole run"
            if encrypted(run)
            else "reading the sums, whole run",
            shown(summary.get("open_seconds"), format_seconds),
        ],
        ["whole run", shown(whole, format_seconds)],
    ]
    if not own:  # in a consortium the coordinator adds
        rows.insert(-2, ["adding the messages, whole run", shown(summary.get("add_seconds"), format_seconds)])
    parts: list[Child] = [table(["what", "cost"], rows), *pictures(folder, _COST)]
    info = summary.get("aggregator_info")
    info = info if isinstance(info, dict) else {}
    degree, dimension = number(info.get("degree")), number(summary.get("dimension"))
    if degree and dimension and dimension < degree / 4:
        parts.append(
            paragraph(
                "A ciphertext has a fixed minimum size with room for thousands of numbers, and this model has only "
                f"{dimension:,.0f}. The expansion is therefore large here and shrinks as models grow."
            )
        )
    if any(name == "everything else" for name, _ in phase_seconds(run)):
        parts.append(
            paragraph(
                "“Everything else” covers loading, planning, compilation, evaluation and the run without privacy."
            )
        )
    if info:
        parts += [
            element("h3", "Encryption settings"),
            table(["setting", "value"], [[k, _setting(v)] for k, v in info.items()], texts=2),
        ]
    return section("What it cost", *parts)


def _setting(value: Any) -> str:
    return MISSING if value is None else str(value)


def the_ledger(run: RunFolder, ledger: LedgerCheck, folder: Path) -> Html:
    """Every release as it was charged, and whether the hash chain is intact."""
    parts: list[Child] = [ledger_badge(ledger)]
    parts.append(
        paragraph(
            "Every sum over the sites that is to be decrypted (a release) is first written to the ledger with its price; each entry is bound to the "
            "one before it "
            "by a hash. For this page all hashes and totals were recomputed",
            " and compared the last hash with the one in summary.json." if ledger.pinned else
            ". No last hash was recorded elsewhere, so the removal of rows from the end would go undetected.",
        )
    )  # fmt: skip
    if ledger.rows:
        count = len(ledger.rows)
        shown_rows = (
            list(range(count))
            if count <= _FIRST_ROWS + _LAST_ROWS + 1
            else [*range(_FIRST_ROWS), *range(count - _LAST_ROWS, count)]
        )
        rows: list[list[Child]] = []
        for i in shown_rows:
            release = ledger.rows[i]
            if rows and i and i - 1 not in shown_rows:
                rows.append(["…", f"{plural(i - _FIRST_ROWS, 'more release')}", "…", "…", "…", "…"])
            when = release.time.replace("T", " ")[:19]
            rows.append(
                [
                    str(release.id),
                    release.label + (" (claim assumed)" if release.origin.get("assumed") else ""),
                    when,
                    f"{release.honest_senders} of {release.senders}",
                    format_epsilon(ledger.readings[i]),
                    release.hash[:12],
                ]
            )
        rows.append(["total", plural(count, "release"), "–", "–", shown(ledger.epsilon, format_epsilon), "–"])
        parts.append(table(["no.", "release", "time (UTC)", "honest senders", "epsilon so far", "hash"], rows, texts=4))
        parts.append(paragraph(_ledger_delta(run, ledger), " Last hash: ", element("code", ledger.rows[-1].hash)))
    alone = objects(run.summary.get("releases"))
    if alone:
        parts.append(
            table(
                ["purpose", "releases", "epsilon of this purpose alone"],
                [
                    [
                        str(e.get("purpose", MISSING)),
                        shown(e.get("count"), "{:,.0f}".format),
                        shown(e.get("epsilon_alone"), format_epsilon),
                    ]
                    for e in alone
                ],
            )
        )
    return section("The ledger: what was spent, and when", *parts, *pictures(folder, _EPSILON))


def ledger_badge(ledger: LedgerCheck) -> Html:
    """One line: verified, or the reason why not."""
    if ledger.verified:
        return element("div", f"✓ Verified: {plural(len(ledger.rows), 'release')}, chain unbroken", class_="verified")
    return element("div", f"✗ Not verified. {ledger.problem}", class_="unverified")


def _ledger_delta(run: RunFolder, ledger: LedgerCheck) -> str:
    sampler = number(run.summary.get("sampler_delta"))
    text = f"Epsilon in this table is evaluated at delta {ledger.delta:.8g}." if ledger.delta is not None else ""
    if sampler:
        text += f" Of the stated delta, {sampler:.2g} covers the samplers' distance from the exact Poisson law and samples too large for their slots."
    return text
