"""The section of the report on what a run protects against and what it does not, side by side."""

from __future__ import annotations

from fedjax_poisson.aggregation.norm_bound import dense_passes, squared_bound
from fedjax_poisson.reports.formatting import plural, site_word
from fedjax_poisson.reports.grounds import counted
from fedjax_poisson.reports.guarantees import committee, conditions, encrypted, reasons_against, seeded
from fedjax_poisson.reports.html import Child, Html, bullets, element, section
from fedjax_poisson.reports.privacy import unit_of
from fedjax_poisson.runs.run_folder import LedgerCheck, RunFolder, in_consortium


def protects(run: RunFolder, ledger: LedgerCheck) -> Html:
    """What the run protects against and what it does not, side by side."""
    left = element("div", element("h3", "It protects against"), bullets(_protected(run, ledger)))
    right = element("div", element("h3", "It does not protect against"), bullets(_unprotected(run)))
    return section("What this protects against, and what it does not", element("div", left, right, class_="two"))


def _protected(run: RunFolder, ledger: LedgerCheck) -> list[Child]:
    summary, many, one, unit = run.summary, site_word(run), site_word(run, 1), unit_of(run)
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
                f"A malicious server{blind}, together with up to {group.malicious} of the {group.members} members and any {many}: each sum is opened "
                "once, for "
                f"one set of {many} that the members signed, and no single {one}'s message is. `fedjax-poisson verify` repeats "
                "a round's public checks from the run folder. "
                f"If all other {many} of the sum collude, the sum less theirs is the last one's, which only "
                + (
                    "the noise of the noise senders protects."
                    if summary.get("noise_senders")
                    else "its own noise protects."
                )
            )
        else:
            found.append(
                f"A curious server{blind} that follows the protocol: it sees ciphertexts and opened sums, never the content "
                f"of a single {one}'s message."
            )
    of = counted(run)
    if holds and of is not None and of[1] > of[0]:
        others = of[1] - of[0]
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
            "from an integer is refused; the deviation in a round is a sum of errors, which does not depend on the counts."
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
        hidden = "Encryption hides them, and n" if encrypted(run) else "N"
        return f"Poisoned updates: a {one} can send wrong numbers, as large as the whole sum may be. {hidden}othing here checks them."
    ratio = squared_bound(10**6, group.members, group.threshold, group.malicious) / 10**6
    chances = ", ".join(f"{clips} bounds with {dense_passes(clips, ratio):.1g}" for clips in (3, 5, 10))
    return (
        f"Poisoned updates of an honest update's length: a {one} can send wrong numbers, and what passed the test of norms can have moved a round. A longer "
        f"vector is left out and named; one that is as long as so many times its bound passes by chance: {chances}."
    )


def _unprotected(run: RunFolder) -> list[Child]:
    many, one, unit = site_word(run), site_word(run, 1), unit_of(run)
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
