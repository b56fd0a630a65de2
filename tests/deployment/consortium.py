"""A consortium of a few sites in this process: tables, keys, and the sites' runs behind handlers, without policies and logs."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedjax_poisson.aggregation import keys
from fedjax_poisson.aggregation.parameters import default_malicious, least_threshold
from fedjax_poisson.aggregation.store import Store, sqlite_store
from fedjax_poisson.aggregation.terms import Pinned, roster_hash
from fedjax_poisson.deployment import site_run
from fedjax_poisson.deployment.conduct import Consortium
from fedjax_poisson.deployment.party import Limits, party_of
from fedjax_poisson.deployment.requests import decode
from fedjax_poisson.deployment.site_run import SiteRun
from fedjax_poisson.deployment.transport.in_process import in_process
from fedjax_poisson.deployment.transport.link import Link
from fedjax_poisson.runs.config import Config

RUN, TERMS = bytes(range(16)), bytes(range(32))
BOUNDS = {"age": [20.0, 90.0], "pressure": [80.0, 220.0]}


def write_tables(folder: Path, names: tuple[str, ...], rows: int = 40, seed: int = 1) -> dict[str, Path]:
    """One table a site: two numbers, a flag, and a label that follows from them."""
    random, found = np.random.default_rng(seed), {}
    for k, name in enumerate(names):
        age = random.uniform(25, 85, rows + k)
        pressure = random.normal(140, 20, rows + k)
        smoker = random.integers(0, 2, rows + k)
        ill = (0.05 * (age - 55) + 0.03 * (pressure - 140) + smoker + random.normal(0, 1, rows + k)) > 0.5
        found[name] = folder / f"{name}.csv"
        with found[name].open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["age", "pressure", "smoker", "ill"])
            writer.writerows(zip(age.round(1), pressure.round(1), smoker, ill.astype(int), strict=True))
    return found


def settings(names: tuple[str, ...], **changed: Any) -> dict[str, Any]:
    """Settings that all sites share."""
    return {
        "label": "ill",
        "sites": list(names),
        "bounds": BOUNDS,
        "min_site_records": 1,
        "largest_site": 64,
        "epsilon": 6.0,
        "delta": 1e-4,
        "rounds": 3,
        "evaluation": "none",
        "public_data": False,
        "seed": 7,
        **changed,
    }


class Parties(NamedTuple):
    """Everybody, and what the coordinator knows of them."""

    consortium: Consortium
    start: Callable[[str], SiteRun]
    restart: Callable[[str], SiteRun]
    told: dict[str, list[tuple[str, dict[str, Any]]]]


def parties(
    folder: Path,
    tables: dict[str, Path],
    *,
    minimum: int | None = None,
    corrupt: int = 1,
    stop: dict[str, bool] | None = None,
    **changed: Any,
) -> Parties:
    """Keys and settings of all sites; `start(name)` begins or resumes one's run, from what lies in its folder."""
    names = tuple(tables)
    signing = {name: keys.new_signing_key() for name in names}
    public = {name: keys.public_of(key) for name, key in signing.items()}
    roster = frozenset(public.values())
    malicious = default_malicious(len(names))
    least = len(names) if minimum is None else minimum
    pinned = Pinned(
        tuple(public.values()),
        least_threshold(len(names), malicious),
        malicious,
        roster_hash(tuple(roster)),
        least - corrupt,
        corrupt,
    )
    told: dict[str, list[tuple[str, dict[str, Any]]]] = {name: [] for name in names}
    common = settings(names, honest_senders=least - corrupt, members=len(names), **changed)

    stores: dict[str, tuple[Store, Store]] = {}

    def restart(name: str) -> SiteRun:
        for store in stores.pop(name):
            store.close()
        return start(name)

    def start(name: str) -> SiteRun:
        own = folder / name
        own.mkdir(exist_ok=True, parents=True)
        stores[name] = (sqlite_store(own / "client.sqlite"), sqlite_store(own / "member.sqlite"))
        party = party_of(
            name=name,
            sites=names,
            key=signing[name],
            pinned=pinned,
            roster=roster,
            run=RUN,
            terms=TERMS,
            store=stores[name][0],
            member_store=stores[name][1],
        )
        config = Config(csv=str(tables[name]), here=name, **common)
        return site_run.start(
            party,
            config,
            own / "run",
            minimum=least,
            corrupt=corrupt,
            limits=Limits(1000),
            tell=lambda kind, **facts: told[name].append((kind, facts)),
            stop=lambda: bool(stop and stop.get(name)),
        )

    consortium = Consortium(
        run=RUN,
        pinned=pinned,
        members=dict(enumerate(names, 1)),
        sites=public,
        minimum=least,
        phase_seconds=60.0,
        patience_seconds=1.0,
    )
    return Parties(consortium, start, restart, told)


def link_to(sites: dict[str, SiteRun]) -> Link:
    """A link to runs in this process; the dict may change."""

    def handler(name: str) -> Callable[[bytes], bytes]:
        return lambda blob: site_run.answer(sites[name], decode(blob))

    return in_process({name: handler(name) for name in sites})
