"""Sites with all that a hospital has: folder, key, policy, signed roster, log and ledger, behind handlers in this process."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from fedjax_poisson.deployment import identity, run_terms
from fedjax_poisson.deployment.common_settings import common_config, with_roster
from fedjax_poisson.deployment.identity import Identity
from fedjax_poisson.deployment.policy import (
    ApprovalPolicy,
    ConsortiumPolicy,
    DataPolicy,
    LimitPolicy,
    Policy,
    PrivacyPolicy,
)
from fedjax_poisson.deployment.requests import Spoken, decode, encode
from fedjax_poisson.deployment.roster import Party, Roster, roster_hash
from fedjax_poisson.deployment.run_terms import RunTerms
from fedjax_poisson.deployment.site import Worker
from fedjax_poisson.deployment.site_log import SiteLog, open_log
from fedjax_poisson.deployment.transport.in_process import in_process
from fedjax_poisson.deployment.transport.link import Link
from fedjax_poisson.runs.config import Config
from tests.deployment.consortium import settings, write_tables

NAMES = ("north", "east", "south")


class Hospitals:
    """A consortium whose workers can be ended and started again."""

    def __init__(self, folder: Path, names: tuple[str, ...] = NAMES, *, seed: int | None = 7, **roster: Any) -> None:
        self.folder, self.names, self.seed = folder, names, seed
        self.tables = write_tables(folder, names)
        self.who: dict[str, Identity] = {name: identity.create(folder / name) for name in names}
        facts = {"threshold": 2, "malicious": 0, "corrupt": 1, "minimum": len(names), **roster}
        self.roster = Roster(
            name="test", sites=tuple(Party(name, one.public) for name, one in self.who.items()), **facts
        )
        self.policies = {name: self.policy(name) for name in names}
        self.workers: dict[str, Worker] = {}
        self.logs: dict[str, SiteLog] = {}
        self.heard: dict[str, list[str]] = {name: [] for name in names}

    def policy(self, name: str, *, mode: Any = "automatic", **limits: Any) -> Policy:
        """What a site allows unless a test says otherwise."""
        return Policy(
            consortium=ConsortiumPolicy(roster="roster.toml", name=name),
            data=DataPolicy(labels="all", columns="all", csv=str(self.tables[name])),
            privacy=PrivacyPolicy(unit="record", epsilon=20.0, delta=1e-4, least_honest_others=1, minimum_senders=2),
            limits=LimitPolicy(**limits),
            approval=ApprovalPolicy(mode=mode),
        )

    def start(self, name: str, **changed: Any) -> Worker:
        """Begin, or begin again, a site's worker from what lies in its folder."""
        self.stop(name)
        self.logs[name] = open_log(self.folder / name / "site.log", self.who[name])
        self.workers[name] = Worker(
            self.folder / name,
            self.policies[name],
            self.roster,
            self.who[name],
            self.logs[name],
            seed=self.seed,
            say=self.heard[name].append,
            **changed,
        )
        return self.workers[name]

    def stop(self, name: str) -> None:
        if name in self.workers:
            self.workers.pop(name).close()

    def start_all(self) -> Hospitals:
        for name in self.names:
            self.start(name)
        return self

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()

    def link(self) -> Link:
        """A link to whatever worker a site has now."""

        def handler(name: str) -> Callable[[bytes], bytes]:
            return lambda blob: self.workers[name].handle(blob)

        return in_process({name: handler(name) for name in self.names})

    def config(self, **changed: Any) -> str:
        """The common settings of a run."""
        values = {**settings(self.names), **changed}
        values.pop("seed")
        return common_config(with_roster(Config(csv="table", **values), self.roster))

    def terms(self, run: bytes = bytes(range(16)), **changed: Any) -> RunTerms:
        """The terms of a run."""
        usual: dict[str, Any] = {
            "roster": roster_hash(self.roster),
            "deadline_seconds": 60,
            "most_rounds": 100,
            "begin_before": int(time.time()) + 86400,
        }
        facts = {name: changed.pop(name, value) for name, value in usual.items()}
        return RunTerms(run=run, config=self.config(**changed), version=metadata.version("fedjax_poisson"), **facts)

    def signed(self, terms: RunTerms) -> bytes:
        """Everybody's signature, made outside of the workers."""
        made = {name: run_terms.sign_run_terms(who, terms).hex() for name, who in self.who.items()}
        return json.dumps(made).encode()

    def ask(self, name: str, word: str, *parts: bytes) -> Spoken:
        return decode(self.workers[name].handle(encode(Spoken(word, parts))))

    def propose(self, name: str, terms: RunTerms) -> Spoken:
        return self.ask(name, "propose", run_terms.encode_run_terms(terms))

    def begin(self, name: str, terms: RunTerms) -> Spoken:
        return self.ask(name, "start", run_terms.encode_run_terms(terms), self.signed(terms))

    def kinds(self, name: str) -> list[str]:
        return [entry.kind for entry in self.logs[name].entries()]


def words_of(reply: Spoken) -> str:
    """What a refusal says; empty of any other reply."""
    return reply.parts[0].decode() if reply.word == "refused" else ""


def with_policy(policy: Policy, table: str, **changed: Any) -> Policy:
    """A policy with one table changed."""
    return dataclasses.replace(policy, **{table: dataclasses.replace(getattr(policy, table), **changed)})


__all__ = ["NAMES", "Hospitals", "with_policy", "words_of"]
