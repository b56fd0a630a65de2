"""What a finished run says on the screen: whether it may be called private before anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console


def print_summary(console: Console, summary: dict[str, Any], page: Path) -> None:
    """Print the verdict, then what was learned and what it cost.

    Args:
      console: where to.
      summary: as in summary.json.
      page: the report.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False)

    say("")
    _print_verdict(say, summary)
    if summary["mean_client_accuracy"] is None:
        say(
            f"[bold]{summary['dataset']}[/]: trained for {summary['rounds']} rounds; no scores, as asked (--evaluation none)"
        )
    else:
        plain = summary["nonprivate_mean_client_accuracy"]
        beside = f" (the same recipe without privacy: {plain:.3f})" if plain is not None else ""
        say(
            f"[bold]{summary['dataset']}[/]: mean client accuracy [bold]{summary['mean_client_accuracy']:.3f}[/]"
            f"{beside}, AUC {summary['auc'] or float('nan'):.3f}"
            + (
                f" (private scores; standard error of the pooled accuracy {error:.3f})"
                if (error := summary.get("pooled_accuracy_error"))
                else ""
            )
        )
    if summary["budget_exhausted"]:
        say(
            f"[bold yellow]The budget was exhausted after {summary['rounds']} of {summary['rounds_planned']} rounds:[/] {summary['lost_releases']} "
            "releases were charged whose result was lost."
        )
    say(
        f"privacy: epsilon {summary['epsilon']:.4f}, delta {summary['delta']:g}, unit {summary['unit']}, {summary['adjacency']}, "
        f"{summary['honest_senders']} of {summary['senders']} sites honest (epsilon {summary['epsilon_one_honest']:.4g} against the server plus all but "
        f"one); {summary['rounds']} rounds "
        + (
            "on the ledger, nothing released to standardise"
            if summary["standardize"] == "bounds"
            else "and the standardisation on the ledger"
        )
    )
    if shared := summary["shared_ledger"]:
        say(
            f"data set's ledger: epsilon {shared['epsilon']:.4f} of {shared['budget_epsilon']:g} spent by {shared['runs']} runs ({shared['path']})"
        )
    if others := summary["earlier_runs"]["folders"]:
        total = summary["earlier_runs"]["epsilon_together"]
        say(
            f"[yellow]{len(others)} other runs beside this one used the same data set:[/] together with this one epsilon "
            + (f"{total:.4f}" if total is not None else "is larger (their claims differ and cannot be added)")
            + "; --ledger FILE shares one budget"
        )
    say(
        f"encryption ({summary['aggregator']}): {summary['bytes_up_per_client_per_round']:,} bytes per site and round, "
        f"{summary['encrypt_seconds']:.2f} s in all; whole run {summary['total_seconds']:.1f} s"
    )
    if border := summary["border_only"]:
        say(
            f"[bold]border only[/]: a linear classifier that sees the {border['width']}-pixel border and no lung reaches accuracy "
            f"[bold]{border['accuracy']:.3f}[/] (always the commonest class: {border['majority_accuracy']:.3f}), AUC "
            f"{border['auc'] or float('nan'):.3f}; the model {summary['pooled_accuracy']:.3f}, AUC {summary['auc'] or float('nan'):.3f}. {border['why']}"
        )
    for warning in summary["warnings"]:
        say(f"[yellow]warning:[/] {warning}")
    say(f"report: {page}")


def _print_verdict(say: Callable[[str], None], summary: dict[str, Any]) -> None:
    """Whether the run may be called private, before anything else."""
    if summary["verdict"] == "not private":
        say(f"[bold yellow]NOT PRIVATE:[/] {summary['privacy_note']}")
    elif summary["verdict"] == "conditional":
        say(
            "[bold yellow]PRIVATE ON CONDITIONS:[/] these facts about the records were shown, and epsilon does not cover them:"
        )
        for each in summary["conditions"]:
            say(f"  - {each['fact']}; closed by {each['remedy']}")
