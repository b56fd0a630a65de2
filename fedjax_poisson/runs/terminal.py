"""What a finished run prints on the screen: first of all, whether it may be called private."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from fedjax_poisson.runs.headline import scores_in_words


def print_summary(console: Console, summary: dict[str, Any], page: Path) -> None:
    """Print the verdict, then the scores and the costs.

    Args:
      console: where to print.
      summary: as in summary.json.
      page: path of the report.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False)

    say("")
    _print_verdict(say, summary)
    if (scores := scores_in_words(summary)) is None:
        say(
            f"[bold]{summary['dataset']}[/]: trained for {summary['rounds']} rounds; no scores, as requested (--evaluation none)"
        )
    else:
        say(f"[bold]{summary['dataset']}[/]: {scores}")
    if summary["budget_exhausted"]:
        say(
            f"[bold yellow]The budget was exhausted after {summary['rounds']} of {summary['rounds_planned']} rounds:[/] {summary['lost_releases']} "
            "releases were charged but their results were lost."
        )
    if ended := summary.get("ended"):
        say(
            f"[bold]{ended['how']} after {summary['rounds']} of {summary['rounds_planned']} rounds[/] (controller {ended['controller']}): "
            f"{_spent(summary, ended['share_left'])}"
        )
    say(
        f"privacy: epsilon {summary['epsilon']:.4f}, delta {summary['delta']:g}, unit {summary['unit']}, {summary['adjacency']}, "
        f"{summary['algorithm']} with {summary['mechanism']['train']['name']}, "
        f"{_honest(summary)}; {summary['rounds']} rounds "
        + (
            "on the ledger, nothing released to standardise"
            if summary["standardize"] == "bounds"
            else "and the standardisation on the ledger"
        )
    )
    if summary.get("law") == "tight":
        say(
            f"accounting: remaining variance; Renyi curves would have needed {summary['renyi_variance']:.3f} times the noise variance for this plan"
        )
    if shared := summary["shared_ledger"]:
        say(
            f"shared ledger of the data set: epsilon {shared['epsilon']:.4f} of {shared['budget_epsilon']:g} spent by {_runs(shared['runs'])} "
            f"({shared['path']})"
        )
    if others := summary["earlier_runs"]["folders"]:
        total = summary["earlier_runs"]["epsilon_together"]
        say(
            f"[yellow]{_runs(len(others), 'other ')} in neighbouring folders used the same data set:[/] together with this one, "
            + (
                f"what was spent reads as epsilon {total:.4f} (orientation; at up to twice this delta)"
                if total is not None
                else "epsilon is larger (their guarantees differ and cannot be added)"
            )
            + "; use --ledger FILE to share one budget"
        )
    info = summary["aggregator_info"]
    if info["members"]:
        say(
            f"rounds: {info['threshold']} of {info['members']} members open a sum, once; up to {info['malicious']} malicious members, the server and any sites "
            f"cannot open another; {info['corrupt']} of {summary['senders']} sites assumed corrupt"
            + (
                ""
                if info["mode"] == "round"
                else ". [bold yellow]Messages were not signed, boxed or screened[/]: "
                + info["protects"].rsplit("deviates: ", 1)[-1]
            )
        )
    spent = summary["encrypt_seconds"]
    say(
        f"encryption ({summary['aggregator']}): {summary['bytes_up_per_client_per_round']:,} bytes per site and round, "
        f"{'in one program with the training' if spent is None else f'{spent:.2f} s in all'}; whole run {summary['total_seconds']:.1f} s"
    )
    if made := summary.get("fidelity"):
        say(f"simulated training rounds: {made}")
    if border := summary["border_only"]:
        say(
            f"[bold]border only[/]: a linear classifier that sees the {border['width']}-pixel border and no lung reaches accuracy "
            f"[bold]{border['accuracy']:.3f}[/] (always predicting the most common class: {border['majority_accuracy']:.3f}), AUC "
            f"{border['auc'] or float('nan'):.3f}; the model {summary['pooled_accuracy']:.3f}, AUC {summary['auc'] or float('nan'):.3f}. {border['why']}"
        )
    for warning in summary["warnings"]:
        say(f"[yellow]warning:[/] {warning}")
    say(f"report: {page}")


def _runs(number: int, which: str = "") -> str:
    return f"{number} {which}run{'' if number == 1 else 's'}"


def _honest(summary: dict[str, Any]) -> str:
    """Whose noise the price counts."""
    if by := summary["noise_senders"]:
        return f"{by['honest']} of {by['senders']} noise senders honest, whichever sites collude (norm rounds: sites send clean counts)"
    return (
        f"{summary['honest_senders']} of {summary['senders']} sites honest (epsilon {summary['epsilon_one_honest']:.4g} if the server colludes with all but "
        "one)"
    )


def _spent(summary: dict[str, Any], share_left: float) -> str:
    """What a run that adapted took of its budget, and what that means."""
    where = "shared ledger" if summary["shared_ledger"] else "ledger"
    return (
        f"it spent what reads as epsilon {summary['epsilon_spent']:.4f}, and {share_left:.1%} of the budget is left on the {where} for the next question. "
        f"Guaranteed is epsilon {summary['epsilon']:.4f}, as the end was chosen from releases"
    )


def _print_verdict(say: Callable[[str], None], summary: dict[str, Any]) -> None:
    """Print whether the run may be called private."""
    if summary["verdict"] == "not private":
        say(f"[bold yellow]NOT PRIVATE:[/] {summary['privacy_note']}")
    elif summary["conditions"]:
        say(
            "[bold yellow]CONDITIONALLY PRIVATE:[/] these facts about the records were disclosed, and epsilon does not cover them:"
        )
        for each in summary["conditions"]:
            say(f"  - {each['fact']}; remedy: {each['remedy']}")
    if summary["assumed"]:
        say(
            f"[bold yellow]CONDITIONALLY PRIVATE, CLAIM ASSUMED:[/] {' and '.join(summary['assumed'])} comes from outside the package. What it claims about "
            "privacy is its author's word; nothing here proved or checked it."
        )
