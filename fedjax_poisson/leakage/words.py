"""What each attack found, in words: one sentence with its numbers, what the attacker needs, what a stronger one would try."""

from __future__ import annotations

from typing import Any, NamedTuple

VIEWS = {
    "clear": "in the clear",
    "summed": "encrypted, sum only",
    "noisy": "noise, not encrypted",
    "noisy_sum": "noise and encrypted",
}


class Said(NamedTuple):
    """One result of an attack in words.

    Attributes:
      result: the numbers.
      needs: what the attacker needs.
      try_next: what a stronger one would try.
    """

    result: str
    needs: str
    try_next: str


def membership(own: dict[str, Any]) -> list[Said]:
    """Of the likelihood ratio and of the loss."""
    rows = []
    for key, attack in (
        ("lira_online", f"likelihood ratio with {own['shadows']} shadow models (LiRA)"),
        ("own_model", "loss under this run's model"),
    ):
        one = own[key]
        auc, rate = one["auc"], one["tpr_at_1_percent"]
        text = (
            f"{attack}: AUC {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}] (0.5 is guessing); at 1 % false alarms it finds "
            f"{100 * rate['value']:.2f} % of the members [{100 * rate['low']:.2f}, {100 * rate['high']:.2f}] (1 % by guessing)"
        )
        if key == "own_model":
            text += (
                "; it distinguishes training from test records, so any other difference between the two counts as well"
            )
        rows.append(Said(text, one["needs"], one["try_next"]))
    return rows


def audit(own: dict[str, Any]) -> list[Said]:
    """Of the audit of the mechanism against the ledger."""
    rows = []
    for key, what in (("mechanism", "two unsampled sums"), ("sampled_round", "one sampled sum")):
        if key not in own:
            continue
        one = own[key]
        text = (
            f"{what}, {one['draws']:,} draws of the worst-case pair: epsilon is at least {one['epsilon_lower']:.3f}, claimed is "
            f"{one['epsilon_claimed']:.3f}: {_verdict(one)} ({own['honest_senders']} of {own['senders']} senders honest)"
        )
        rows.append(Said(text, one["needs"], one["try_next"]))
    return rows


def one_run(own: dict[str, Any]) -> list[Said]:
    """Of the planted records."""
    rows = []
    for key, what in (("white_box", "from the opened sums"), ("black_box", "from the final model")):
        one = own[key]
        text = (
            f"{what}: {one['correct']} of {one['guesses']} guesses about {one['canaries']} canaries correct after {own['rounds']} rounds through "
            f"the {own['aggregator']} pipeline; epsilon is at least {one['epsilon_lower']:.3f}, claimed is {one['epsilon_claimed']:.3f}: {_verdict(one)}"
        )
        rows.append(Said(text, one["needs"], one["try_next"]))
    return rows


def inversion(own: dict[str, Any]) -> list[Said]:
    """Of the reconstruction, for each view."""
    rows = []
    for view, name in VIEWS.items():
        one = own[view]
        if own["picture"]:
            text = (
                f"{name}: SSIM {one['ssim']:.2f} (best of {one['chance_records']} random training images: {one['chance_ssim']:.2f}); "
                f"{100 * one['recognisable']:.0f} % of {own['targets']} at 20 dB or better"
            )
        else:
            text = (
                f"{name}: error {one['error']:.2f} standard deviations (best of {one['chance_records']} random training records: "
                f"{one['chance_error']:.2f}); {100 * one['recognisable']:.0f} % of {own['targets']} read to within a tenth"
            )
        if "labels_recovered" in one:
            text += f"; labels correct in {100 * one['labels_recovered']:.0f} %"
        rows.append(Said(text, one["needs"], one["try_next"]))
    return rows


def site_property(own: dict[str, Any]) -> list[Said]:
    """Of the attribution of updates to sites, for each view."""
    rows = []
    for view, name in VIEWS.items():
        one = own[view]
        right = one["accuracy"]
        asked = "the site whose data are missing" if view in ("summed", "noisy_sum") else "the site"
        text = (
            f"{name}: identifies {asked} in {100 * right['value']:.0f} % [{100 * right['low']:.0f}, {100 * right['high']:.0f}] of cases "
            f"({100 * one['chance']:.0f} % by guessing)"
        )
        rows.append(Said(text, one["needs"], one["try_next"]))
    return rows


def _verdict(audit: dict[str, Any]) -> str:
    return "MORE leaks than claimed" if audit["violated"] else "no contradiction"
