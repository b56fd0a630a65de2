"""Sites that are not in the same run as the others: other terms, other facts of a round, another version of the package or another roster."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from consortium_campaign.judging import judged
from consortium_campaign.people import NAMES, People, Run
from consortium_campaign.scenario import Fault, scenario
from consortium_campaign.verdicts import Row
from fedjax_poisson.aggregation.refusals import RoundRefused
from fedjax_poisson.deployment.common_settings import common_config, with_roster
from fedjax_poisson.deployment.roster import roster_hash
from fedjax_poisson.deployment.run_terms import (
    RunTerms,
    check_in_time,
    check_run_terms,
    decode_run_terms,
    encode_run_terms,
)
from fedjax_poisson.runs.config import Config

__all__ = ["runs"]

DIFFERENT: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("one site has other terms", 1, {"terms": bytes(32)}),
    ("one site expects another bound", 1, {"count_bound": 2000}),
    ("one site expects another minimum", 1, {"minimum_senders": 4}),
    ("two sites have other terms", 2, {"terms": bytes(32)}),
)


def runs(base: Path, known: People, rng: random.Random, fresh: Callable[[], Run], toy: bool) -> Iterator[Row]:
    """Runs in which a site differs (with `toy` one of them), and proposals that no site signs."""
    for kind, count, other in DIFFERENT[:1] if toy else DIFFERENT:
        names = rng.sample(NAMES, count)
        run = fresh()
        differing = {name: dict(other) for name in names}
        result = scenario(base / kind.replace(" ", "-"), known, run, Fault(None, kind), rng, other=differing)
        row = judged("other terms", Fault(None, kind), result, known, run, different=names)
        yield row._replace(transition="site: message next")
    yield from _proposals(known, rng)


def _proposals(known: People, rng: random.Random) -> Iterator[Row]:
    """A run's terms, as a site judges them before it signs; each changed in one thing."""
    version, config = metadata.version("fedjax_poisson"), _settings()
    own = RunTerms(
        roster=roster_hash(known.roster),
        run=bytes(16),
        config=common_config(with_roster(config, known.roster)),
        version=version,
        deadline_seconds=60,
        most_rounds=100,
        begin_before=int(time.time()) + 86400,
    )
    changed = {
        "another version": dataclasses.replace(own, version="99.0.0"),
        "another protocol": dataclasses.replace(own, protocol=99),
        "another roster": dataclasses.replace(own, roster=bytes(32)),
        "a time that is over": dataclasses.replace(own, begin_before=1),
        "no deadline": dataclasses.replace(own, deadline_seconds=0),
        "none": own,
    }
    for kind, terms in changed.items():
        yield _proposed(kind, encode_run_terms(terms), known, version)
    blob = bytearray(encode_run_terms(own))
    for _ in range(5):
        blob[rng.randrange(len(blob))] ^= 1 << rng.randrange(8)
    yield _proposed("altered bytes", bytes(blob), known, version)


def _proposed(kind: str, blob: bytes, known: People, version: str) -> Row:
    began, wrong = time.monotonic(), []
    try:
        terms = decode_run_terms(blob)
        check_run_terms(terms, known.roster, version)
        check_in_time(terms, datetime.now(UTC))
        outcome = "would be signed"
    except RoundRefused as error:
        outcome = f"refused ({type(error).__name__})"
    except Exception as error:
        outcome = "an error that is no refusal"
        wrong.append(f"{type(error).__name__}: {error}")
    if (outcome == "would be signed") != (kind == "none") and kind != "altered bytes":
        wrong.append(f"{kind} was changed, and the terms: {outcome}")
    return Row("other terms", "site: propose", kind, outcome, round(time.monotonic() - began, 2), wrong)


def _settings() -> Config:
    return Config(
        csv="visits.csv",
        label="died",
        sites=list(NAMES),
        bounds="private",
        epsilon=2.0,
        largest_site=4096,
        min_site_records=1,
        evaluation="private",
    )
