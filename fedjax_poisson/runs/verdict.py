"""Whether a run may be called private, judged by how every release was made and by what was shown in addition to the releases.

A run is *private* when every release on its ledger was made under encryption with secret randomness and nothing else that depends on the records was
shown. It is *conditional* when the releases are in order but exact facts about the records, which no epsilon covers, were shown too: its epsilon then
holds against anyone who does not see these facts, or if they are declared public. It is conditional as well where a part from outside the package
(a mechanism, an algorithm, an encryption backend named `module:name`) made a release: its claim is *assumed*. Otherwise it is *not private*.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from fedjax_poisson import accounting
from fedjax_poisson.runs.build import RunSetup
from fedjax_poisson.runs.config import records_are_public
from fedjax_poisson.runs.load_data import has_open_columns

PRIVATE, CONDITIONAL, NOT_PRIVATE = "private", "conditional", "not private"


class Condition(NamedTuple):
    """A fact that depends on the records and is not covered by epsilon, with what would close the gap."""

    fact: str
    remedy: str


class Verdict(NamedTuple):
    """What may be claimed about a run.

    Attributes:
      word: "private", "conditional" or "not private".
      reasons: why it is not private.
      conditions: what was shown that epsilon does not cover.
      assumed: parts of the run from outside the package, whose claims are their authors'.
    """

    word: Literal["private", "conditional", "not private"]
    reasons: tuple[str, ...]
    conditions: tuple[Condition, ...]
    assumed: tuple[str, ...] = ()


def judge(rows: Sequence[accounting.Release], found: Sequence[Condition]) -> Verdict:
    """The verdict on a run.

    Args:
      rows: every release of the run, as recorded in its ledger; their `origin` says how each was made, whatever the settings say now.
      found: what was shown in addition to them (`conditions`).
    """
    reasons = []
    if not rows:
        reasons.append("the ledger holds no release of this run")
    seeds = sorted({str(row.origin["seed"]) for row in rows if row.origin.get("seed") is not None})
    if seeds:
        reasons.append(
            f"all randomness of {_some(rows, lambda row: row.origin.get('seed') is not None)} is derived from a seed ({', '.join(seeds)}), so anyone who "
            "knows it can remove the noise and decrypt every ciphertext"
        )
    if any(row.origin.get("aggregator") == "plain" for row in rows):
        some = _some(rows, lambda row: row.origin.get("aggregator") == "plain")
        reasons.append(f"nothing was encrypted in {some}: the server saw every site's counts")
    if any("aggregator" not in row.origin or "seed" not in row.origin for row in rows):
        reasons.append("the ledger does not record how every release was made")
    assumed = tuple(dict.fromkeys(str(part) for row in rows for part in row.origin.get("assumed", ())))
    word = NOT_PRIVATE if reasons else CONDITIONAL if found or assumed else PRIVATE
    return Verdict(word, tuple(reasons), tuple(found), assumed)  # type: ignore[arg-type]


def _some(rows: Sequence[accounting.Release], which: Callable[[accounting.Release], bool]) -> str:
    count = sum(which(row) for row in rows)
    return "this run" if count == len(rows) else f"{count} of {len(rows)} releases"


def conditions(setting: RunSetup) -> tuple[Condition, ...]:
    """What this run shows about its records that is not on any ledger; empty if the records are public."""
    config, sites = setting.config, setting.sites
    if records_are_public(config):
        return ()
    found = [Condition(fact, remedy) for fact, remedy in sites.uncovered]
    if sites.warnings:
        found.append(
            Condition(
                "observations about the records are shown as warnings below",
                "fixing what they point out, or leaving the columns out",
            )
        )
    by_site = setting.unit == "client"  # no number of records enters what a client sends
    if config.largest_site is None and not by_site:
        found.append(
            Condition(
                f"the bound on a site's {setting.unit}s ({setting.largest_site}) was rounded up from the largest site",
                "--largest-site N, a public bound that does not depend on the records",
            )
        )
    if setting.plan.standardize is None and config.training_units is None and not by_site:
        found.append(
            Condition(
                f"the number of training {setting.unit}s, which scales the step, was counted in the data",
                "--training-units N, a public number",
            )
        )
    if config.evaluation == "clear":
        found.append(
            Condition(
                "scores on held-out records were computed in the clear",
                f"--evaluation {'none' if by_site else 'private or none'}, or --public-data True if the records are public",
            )
        )
    if yardstick_wanted(setting):
        found.append(
            Condition(
                "the same recipe was trained without privacy and its scores are shown",
                "leaving out --yardstick True (it is off by default for data that are not public)",
            )
        )
    return tuple(found)


def yardstick_wanted(setting: RunSetup) -> bool:
    """Whether the recipe is also trained without privacy: as set by the user, by default only if the records are public; never where the algorithm cannot."""
    config = setting.config
    if setting.kind.without_privacy is None:
        return False
    return records_are_public(config) if config.yardstick is None else config.yardstick


def notes_may_be_shown(setting: RunSetup) -> bool:
    """Whether notes on the preparation of the data may be shown: except for tables with open columns, they count records and missing values."""
    return records_are_public(setting.config) or has_open_columns(setting.config)


def site_sizes_public(setting: RunSetup) -> bool:
    """Whether the numbers of records may be shown."""
    return records_are_public(setting.config) or setting.config.publish_site_sizes
