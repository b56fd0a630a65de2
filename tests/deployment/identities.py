"""A consortium for tests: parties with keys, a roster of them, and settings of a run that all of them would sign."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from fedjax_poisson.aggregation import keys
from fedjax_poisson.deployment.common_settings import common_config, with_roster
from fedjax_poisson.deployment.identity import Identity
from fedjax_poisson.deployment.roster import Party, Roster, roster_hash
from fedjax_poisson.deployment.run_terms import RunTerms
from fedjax_poisson.runs.config import Config

NAMES = ("east", "north", "south", "west", "york")
VERSION = "0.1.0"


def person() -> Identity:
    """A key pair without files."""
    key = keys.new_signing_key()
    return Identity(key, keys.public_of(key))


def people(names: tuple[str, ...] = NAMES) -> dict[str, Identity]:
    return {name: person() for name in names}


def roster_of(who: dict[str, Identity], **changes: Any) -> Roster:
    """All of them are sites and the committee: m = 5, f = 1, t = 4."""
    facts: dict[str, Any] = {
        "name": "Heart consortium",
        "sites": tuple(Party(name, one.public) for name, one in who.items()),
        "threshold": 4,
        "malicious": 1,
        "corrupt": 1,
        "minimum": 4,
    }
    return Roster(**{**facts, **changes})


def settings(**changes: Any) -> Config:
    """Settings of a run on each site's own table that nothing is to be said against."""
    facts: dict[str, Any] = {
        "csv": "visits.csv",
        "label": "died",
        "sites": list(NAMES),
        "patient": "patient",
        "bounds": "private",
        "categorical": {"admission": ["emergency", "planned"]},
        "epsilon": 2.0,
        "largest_site": 4096,
        "min_site_records": 1,
        "evaluation": "private",
    }
    return Config(**{**facts, **changes})


def terms_of(roster: Roster, config: Config | None = None, **changes: Any) -> RunTerms:
    facts: dict[str, Any] = {
        "roster": roster_hash(roster),
        "run": bytes(range(16)),
        "config": common_config(with_roster(config or settings(), roster)),
        "version": VERSION,
        "deadline_seconds": 60,
        "most_rounds": 100,
        "begin_before": int(time.time()) + 300 * 86400,
    }
    return dataclasses.replace(RunTerms(**facts), **changes)
