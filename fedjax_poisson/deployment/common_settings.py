"""The settings of a run that all sites have in common: their one text, a site's whole settings from it, and what they must not ask for.

Settings are those of `runs.config.Config`, written so that every one that has a value stands in the text: a later version with another default changes no
signed run. They must not make a site show anything about its records that is on no ledger (`check_common`); what only the table shows (a column without
a declared range) the site finds when it reads it, and puts before its own policy (`policy.Proposal.uncovered`). The text comes from others, so a name of code
outside the package is refused before anything could import it.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Collection, Mapping
from typing import Any

from fedjax_poisson.data.tables.declarations import FROM_DATA
from fedjax_poisson.deployment.roster import Roster
from fedjax_poisson.extensions import is_path
from fedjax_poisson.runs.algorithm_registry import ALGORITHMS, algorithm_entry
from fedjax_poisson.runs.config import Config, config_text, recipe, records_are_public
from fedjax_poisson.runs.named_models import FIXED_NORMS

__all__ = ["OWN", "check_common", "common_config", "parse_common", "read_settings", "with_roster"]

OWN = ("csv", "data", "here", "ledger", "ledger_epsilon", "seed")
"""Settings of `Config` that each site has of its own."""
_IMPORTED = (
    "dataset",
    "mechanism",
    "controller",
    "aggregator",
)  # of an algorithm of their own sites may agree (`check_common`)
_STAND_IN = "table"  # a table of one's own has settings of its own; which file it is each site says


def common_config(config: Config) -> str:
    """The settings that all sites have in common, as TOML: every one that has a value but those of `OWN`; of a table of one's own no data set either."""
    own: dict[str, Any] = dict.fromkeys(OWN)
    if config.csv is None:
        return _canonical(dataclasses.replace(config, **own), ())
    return _canonical(dataclasses.replace(config, **{**own, "csv": _STAND_IN}), ("csv", "dataset"))


def _canonical(config: Config, without: Collection[str]) -> str:
    lines = config_text(config).splitlines()[1:]  # without the comment that names a command
    return "\n".join(line for line in lines if line.partition(" = ")[0] not in without) + "\n"


def parse_common(text: str, own: Mapping[str, Any]) -> Config:
    """Settings from their common text and a site's own ones; where they name no data set and no table is given, with a stand-in for it.

    Raises:
      ValueError: they are not settings that sites have in common, or contradict each other.
    """
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"they are not TOML ({error}).") from None
    known = {field.name for field in dataclasses.fields(Config)} - set(OWN)
    if strange := sorted(set(values) - known):
        raise ValueError(f"{strange[0][:60]!r} is not a setting that sites have in common.")
    for name in _IMPORTED:
        if is_path(str(values.get(name, ""))):
            raise ValueError(
                f"{name} = {values[name]!r:.80} is code from outside the package; a run between sites takes none."
            )
    given = {name: value for name, value in own.items() if value is not None}
    if "dataset" in values and "csv" in given:
        raise ValueError(f"the run is on the data set {values['dataset']!r}, not on a table; leave csv out.")
    if "dataset" not in values:
        given.setdefault("csv", _STAND_IN)
    return Config(**{**values, **given})


def read_settings(values: Mapping[str, Any], path: str, roster: Roster) -> Config:
    """The common settings as who proposes a run writes them; of a table at each site, with a stand-in for it.

    Args:
      values: settings by name.
      path: where they stand, for messages.
      roster: whose sites, committee and honest senders are set (`with_roster`).

    Raises:
      ValueError: they set something of a site's own, or contradict each other.
    """
    if own := [name for name in OWN if name in values]:
        raise ValueError(
            f"{path} sets {own[0]}, which is each site's own: it stands in the site's policy. Leave it out."
        )
    known = [field.name for field in dataclasses.fields(Config) if field.name not in OWN]
    if strange := [name for name in values if name not in known]:
        near = difflib.get_close_matches(strange[0], known, 1)
        hint = f"do you mean {near[0]}?" if near else f"settings are: {', '.join(known)}."
        raise ValueError(f"{path} sets {strange[0]!r} in [run], which is not a setting; {hint}")
    given = {"sites": [party.name for party in roster.sites], **values}
    if "dataset" not in values and "label" in values:
        return with_roster(Config(**{"csv": _STAND_IN, "min_site_records": 1, **given}), roster)
    return with_roster(recipe(given.pop("dataset", "heart"), **given), roster)


def with_roster(config: Config, roster: Roster) -> Config:
    """The settings with the sites, the committee's size and the honest senders that the roster states."""
    return dataclasses.replace(
        config,
        sites=[party.name for party in roster.sites],
        members=len(roster.committee),
        honest_senders=roster.minimum - roster.corrupt,
    )


def check_common(config: Config, roster: Roster, *, foreign: Collection[str] = ()) -> None:
    """Refuse common settings under which a site would show something about its records that no ledger has, or count on more than the roster states.

    Args:
      config: the common settings.
      roster: the consortium.
      foreign: algorithms `module:name` that are allowed; others cannot make a site load code.

    Raises:
      ValueError: with the setting, its value, and what to set instead.
    """
    if config.aggregator != "round":
        raise ValueError(
            f'aggregator = {config.aggregator!r}: between sites every sum is opened by the committee; set aggregator = "round".'
        )
    if config.algorithm not in ALGORITHMS and config.algorithm not in foreign:
        raise ValueError(
            f"algorithm = {config.algorithm!r} is none of {', '.join(ALGORITHMS)}, and this site's policy does not list it under limits.algorithms."
        )
    if config.mechanism == "gaussian":
        raise ValueError("mechanism = 'gaussian' is no mechanism of encrypted rounds; take poisson_embedding.")
    if records_are_public(config):
        raise ValueError(
            f"public_data = {config.public_data}, dataset = {config.dataset!r}: records between sites are not public; set public_data = false."
        )
    for name in ("yardstick", "publish_site_sizes"):
        if getattr(config, name):
            raise ValueError(f"{name} = true shows facts about the records that no ledger has; leave it out.")
    if config.evaluation not in ("private", "none"):
        raise ValueError(
            f'evaluation = {config.evaluation!r} scores held-out records in the clear, and they stay at their sites; set "private" or "none".'
        )
    _check_declared(config)
    _check_counts(config, roster)


def _check_declared(config: Config) -> None:
    """Nothing is read from the records that decides how the others' records are read."""
    if config.csv is not None:
        if config.bounds is None:
            raise ValueError(
                'bounds is not set, so ranges would be read from the records: set bounds = "private", or the range of each column in [bounds].'
            )
        if config.min_site_records != 1:
            raise ValueError(
                f"min_site_records = {config.min_site_records} merges small sites, which counts their records; set min_site_records = 1."
            )
    for name in ("bounds", "categorical", "classes"):
        value = getattr(config, name)
        found = [column for column, each in value.items() if each == FROM_DATA] if isinstance(value, Mapping) else []
        if value == FROM_DATA or found:
            raise ValueError(
                f'{name} of {", ".join(found) or "all columns"} are read from the data, which no ledger has; declare them, or set "private" if it may be.'
            )


def _check_counts(config: Config, roster: Roster) -> None:
    names = [party.name for party in roster.sites]
    if config.sites != names:
        raise ValueError(f"sites = {config.sites}; the roster has {', '.join(names)}, in this order.")
    if algorithm_entry(config.algorithm).entry.unit != "client":
        if config.largest_site is None:
            raise ValueError(
                "largest_site is not set, so the bound on a site's sums would be read from the records; set a public bound on the training units of one site."
            )
        if config.training_units is None and (config.standardize == "bounds" or config.model in FIXED_NORMS):
            raise ValueError(
                "training_units is not set, so the step would be scaled by a count of records; set a public number of all training units."
            )
    if config.members != len(roster.committee):
        raise ValueError(f"members = {config.members}; the committee of the roster has {len(roster.committee)}.")
    honest = len(roster.sites) - 1 if config.honest_senders is None else config.honest_senders
    if honest > roster.minimum - roster.corrupt:
        raise ValueError(
            f"honest_senders = {honest}, but sums of {roster.minimum} sites are opened of which {roster.corrupt} are assumed corrupt: "
            f"set honest_senders = {roster.minimum - roster.corrupt}."
        )
