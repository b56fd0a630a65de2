"""A site's resident worker: it answers the coordinator's requests, and decides by itself what it takes part in.

What lies in its folder, all of it private to the site (mode 0700): the key, the log, the ledger of its data set, approvals, and one folder a run with the
signed terms, what was said in its rounds, the transcripts, and the run itself. A worker that ended goes on where these stand.

Requests and replies (`requests`), beside those about rounds (`site_run`):

    hello   ()                    -> at-home   (JSON: name, version, protocol, run, state)
    propose (terms)               -> signed    (signature), or refused: the policy's reasons
    start   (terms, signatures)   -> started   (), or refused
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
from collections.abc import Callable
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from fedjax_poisson.accounting import LedgerCorrupt
from fedjax_poisson.aggregation.refusals import BadTerms, OutOfOrder, RoundRefused
from fedjax_poisson.aggregation.store import Store, StoreDamaged, sqlite_store
from fedjax_poisson.deployment import approvals, run_terms
from fedjax_poisson.deployment.backups import check_ledger, check_stores, check_transcripts, opened_in
from fedjax_poisson.deployment.identity import Identity
from fedjax_poisson.deployment.party import Limits, party_of
from fedjax_poisson.deployment.policy import ApprovalPolicy, Policy, Proposal, key_of, refusals
from fedjax_poisson.deployment.proposal import before_reading, proposal_of, sums_today
from fedjax_poisson.deployment.requests import NO_RUN, Spoken, decode, encode, refused
from fedjax_poisson.deployment.roster import Roster, pinned_of, roster_keys
from fedjax_poisson.deployment.roster import party_of as party_on
from fedjax_poisson.deployment.run_terms import RunTerms
from fedjax_poisson.deployment.signed_runs import (
    SignedRun,
    begun,
    check_signed,
    current_run,
    folder_of,
    keep_run,
    read_run,
    sign_once,
    signed,
)
from fedjax_poisson.deployment.site_log import SiteLog
from fedjax_poisson.deployment.site_run import ROUND_WORDS, SiteRun, answer, planning_network, start
from fedjax_poisson.deployment.status import write_status
from fedjax_poisson.reports.page import write_report
from fedjax_poisson.runs.build import prepare
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.transcripts import FOLDER

__all__ = ["LEDGER", "Worker"]

LEDGER = "ledger.sqlite"
_TABLE = "data.table"
"""The reason of a refusal that depends on what the table holds."""
_YESES = 8
"""Signatures under runs that were never begun that tell as much about a table as one refusal."""


class PolicyRefused(RuntimeError):
    """The site's policy forbids it; the words are the policy's keys, and leave the site."""


class Worker:
    """One site; `handle` is what a transport calls."""

    def __init__(
        self,
        state: Path,
        policy: Policy,
        roster: Roster,
        who: Identity,
        log: SiteLog,
        *,
        seed: int | None = None,
        say: Callable[[str], None] = lambda words: None,
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        """Take up the run that was under way, if there is one.

        Args:
          state: the site's folder.
          policy: what it allows.
          roster: checked and signed by all.
          who: its key.
          log: open.
          seed: for rehearsals only: all noise follows from it, and every output says that nothing is private.
          say: told what a person at the site should know.
          now: the site's clock, for opening hours only.

        Raises:
          ValueError: the key is not the one that the roster has for this name.
        """
        self._state, self._policy, self._roster, self._who, self._log = state, policy, roster, who, log
        self._seed, self._say, self._now = seed, say, now
        self._name = policy.consortium.name
        self._foreign = tuple(name for name in policy.limits.algorithms if ":" in name)
        if party_on(roster, self._name).public != who.public:
            raise ValueError(
                f"the roster has another key for {self._name!r} than {state} holds: this is another site's folder, or the site was enrolled anew."
            )
        self._lock = threading.RLock()
        self._stopping = False
        self._run: SiteRun | None = None
        self._terms: RunTerms | None = None
        self._allowed: Proposal | None = None
        self._stores: tuple[Store, ...] = ()
        try:
            if (current := current_run(state)) is not None:
                check_signed(current, roster, now=None, foreign=self._foreign)
                self._begin(current.terms)
        except (RoundRefused, StoreDamaged, LedgerCorrupt, ValueError, OSError) as error:
            self._say(f"the run that was under way does not go on: {error}")
            self._log.append("refused", reasons=[type(error).__name__])
        self._write_status()

    def beat(self) -> None:
        """Write the status again, so that its age says whether the worker is alive, also while it waits."""
        self._write_status()

    @property
    def run(self) -> SiteRun | None:
        """The run that is under way or over."""
        return self._run

    def close(self) -> None:
        """Stop the run between releases, and let go of all files."""
        self._stopping = True
        if self._run is not None:
            self._run.join(60)
        for store in self._stores:
            store.close()
        self._log.close()

    def handle(self, blob: bytes) -> bytes:
        """The reply to one request; every refusal is a reply too."""
        try:
            spoken = decode(blob)
            if spoken.word in ROUND_WORDS:
                return self._round(spoken)
            with self._lock:
                match spoken:
                    case Spoken("hello", ()):
                        return encode(Spoken("at-home", (json.dumps(self._about()).encode(),)))
                    case Spoken("propose", (terms,)):
                        return encode(Spoken("signed", (self._propose(terms),)))
                    case Spoken("start", (terms, signatures)):
                        self._start(read_run(terms, signatures))
                        return encode(Spoken("started"))
                    case _:
                        raise OutOfOrder(f'"{spoken.word}" with {len(spoken.parts)} parts is no request to a site.')
        except (RoundRefused, PolicyRefused) as error:
            return refused(error)
        except (LedgerCorrupt, StoreDamaged) as error:
            self._say(str(error))
            return refused(
                f"{type(error).__name__}: a file of this site is lost or older than its log; what to do is on its own screen"
            )

    def _about(self) -> dict[str, Any]:
        return {
            "name": self._name,
            "version": metadata.version("fedjax_poisson"),
            "protocol": run_terms.PROTOCOL,
            "run": None if self._terms is None else self._terms.run.hex(),
            "state": "waiting" if self._run is None else self._run.progress().state,
        }

    # Before a run

    def _propose(self, blob: bytes) -> bytes:
        """This site's signature under the terms of a run, if its policy allows all of it."""
        terms = run_terms.decode_run_terms(blob)
        known = signed(self._log, terms)  # what was signed tells nothing new
        self._judge(terms, by_hand=not known and self._asked_too_much())
        return sign_once(self._log, self._who, terms)

    def _asked_too_much(self) -> bool:
        """Whether so much was asked of the table that a person decides about further proposals, whatever the policy says.

        Whether a table can be read as the terms ask tells something about its records, a yes ("no record has a level but these") as a no ("no record has this
        label"), and no ledger has it. So one no, or `_YESES` signatures under runs that were never begun, is all that proposals get, and as much again for
        every run that somebody here looked at and approved. [assumed: people approve no run that is a question; a run that all sign and begin is none]
        """
        entries = self._log.entries()
        failed = sum(e.kind == "refused" and _TABLE in e.facts["reasons"] for e in entries)
        started = {e.facts["run"] for e in entries if e.kind == "started"}
        idle = {e.facts["run"] for e in entries if e.kind == "terms"} - started
        return _YESES * failed + len(idle) >= _YESES * (approvals.approved_so_far(self._state) + 1)

    def _judge(self, terms: RunTerms, *, by_hand: bool = False, again: bool = False) -> None:
        """Refuse a run that the policy does not allow: first by its terms alone, and only then by what this site's table makes of them.

        What leaves the site are the policy's keys; the words, which may say what the table holds, are for people at the site.

        Args:
          terms: of the run.
          by_hand: a person must have approved them, whatever the policy says.
          again: the run began here before, so the time until which it may begin is no matter.

        Raises:
          PolicyRefused: with the key of every reason.
          BadTerms: no site may take part in such a run, or this one cannot compute it on its table.
          LedgerCorrupt: the ledger is lost, or older than the log.
        """
        check_ledger(self._state / LEDGER, self._log.entries())
        policy = self._policy
        if by_hand:
            policy = dataclasses.replace(policy, approval=ApprovalPolicy(mode="by hand"))
        try:
            run_terms.check_run_terms(terms, self._roster, metadata.version("fedjax_poisson"), foreign=self._foreign)
            if not again:
                run_terms.check_in_time(terms, self._now())
        except BadTerms as error:
            self._note_refusal(terms, [type(error).__name__])
            raise
        approved = approvals.is_approved(self._state, terms)
        try:
            config = self._own_config(terms)
            early = before_reading(config, self._roster, policy, approved=approved)
        except ValueError as error:
            self._say(f"refused a run: {error}")
            self._note_refusal(terms, [type(error).__name__])
            raise BadTerms("This site has no settings for such a run; the reason is on its own screen.") from error
        self._refuse(terms, refusals(policy, early, self._now()))
        try:
            prepared = prepare(config, None, planning_network(self._roster))
        except Exception as error:  # any of them tells something about the table
            self._say(f"refused a run: {error}")
            self._log.append("refused", reasons=[_TABLE], run=terms.run.hex())
            raise BadTerms(
                "This site cannot compute such a run on its table; the reason is on its own screen, since it may quote the table."
            ) from error
        today = sums_today(self._log.entries(), self._now())
        proposal = proposal_of(prepared, self._roster, approved=approved, opened_today=today)
        self._refuse(terms, refusals(policy, proposal, self._now()))

    def _refuse(self, terms: RunTerms, found: tuple[str, ...]) -> None:
        """Refuse if there are reasons; terms that only lack a person's yes wait for it."""
        if not found:
            return
        reasons = [key_of(reason) for reason in found]
        if any(reason == "data.uncovered" for reason in reasons):
            reasons.append(_TABLE)
        new = self._note_refusal(terms, reasons)
        if new:
            self._say(f"refused a run: {'; '.join(found)}")
        if all(reason == "approval.mode" for reason in reasons):
            try:
                digest = approvals.wait_for_approval(self._state, terms, self._now())
            except ValueError as error:
                self._say(str(error))
                raise PolicyRefused("approval.mode, and too many runs wait at this site") from error
            if new:
                self._say(f"a run waits for approval: fedjax-poisson site approve {digest.hex()[:16]}")
        raise PolicyRefused("; ".join(dict.fromkeys(key_of(reason) for reason in found)))

    def _own_config(self, terms: RunTerms) -> Config:
        data = self._policy.data
        return run_terms.site_config(
            terms,
            csv=data.csv or None,
            data=data.images or None,
            here=self._name,
            ledger=self._state / LEDGER,
            ledger_epsilon=self._policy.privacy.epsilon,
            seed=self._seed,
        )

    def _note_refusal(self, terms: RunTerms, reasons: list[str]) -> bool:
        """Write a refusal down; asked again and again, once. Whether it is a new one."""
        facts = {"reasons": reasons, "run": terms.run.hex()}
        last = [e for e in self._log.entries() if e.kind == "refused"][-1:]
        if last and last[0].facts == facts and _TABLE not in reasons:
            return False
        self._log.append("refused", **facts)
        return True

    def _start(self, run: SignedRun) -> None:
        """Begin a run that every party signed."""
        if self._terms == run.terms:
            return
        if self._run is not None and self._run.progress().state == "running":
            raise OutOfOrder("Another run is under way at this site.")
        again = begun(self._log, run.terms)
        check_signed(run, self._roster, now=None if again else self._now(), foreign=self._foreign)
        self._judge(run.terms, again=again)
        keep_run(self._state, self._log, run)
        self._begin(run.terms)

    def _begin(self, terms: RunTerms) -> None:
        """The run's thread; what is on disk decides where it stands.

        Raises:
          LedgerCorrupt, StoreDamaged: what the site has spent or said is not all there.
        """
        check_ledger(self._state / LEDGER, self._log.entries())
        config = self._own_config(terms)
        prepared = prepare(config, None, planning_network(self._roster))
        self._allowed = proposal_of(prepared, self._roster, approved=True, opened_today=0)
        folder = folder_of(self._state, terms)
        for store in self._stores:
            store.close()
        self._stores = (sqlite_store(folder / "client.sqlite"), sqlite_store(folder / "member.sqlite"))
        check_stores(self._log.entries(), terms.run, {"contribution": self._stores[0], "answer": self._stores[1]})
        check_transcripts(self._log.entries(), terms.run, folder / "run" / FOLDER)
        party = party_of(
            name=self._name,
            sites=tuple(one.name for one in self._roster.sites),
            key=self._who.key,
            pinned=pinned_of(self._roster),
            roster=roster_keys(self._roster),
            run=terms.run,
            terms=run_terms.run_terms_hash(terms),
            store=self._stores[0],
            member_store=self._stores[1],
        )

        def tell(kind: str, **told: Any) -> None:
            self._log.append(kind, run=terms.run.hex(), **told)

        self._terms = terms
        again = "goes on" if (folder / "run" / "config.toml").exists() else "begins"
        facts = f"label {config.label!r}, epsilon {config.epsilon:g} at delta {config.delta:g}"
        if not (folder / "run" / "summary.json").exists():  # else it is over, which `_changed` says
            self._say(
                f"the run {terms.run.hex()[:8]} {again}: {facts}; programs are compiled before its sums, which takes a while"
            )
        self._run = start(
            party,
            config,
            folder / "run",
            minimum=self._roster.minimum,
            corrupt=self._roster.corrupt,
            limits=Limits(terms.most_rounds, self._policy.limits.lost_rounds),
            tell=tell,
            named=opened_in(self._log.entries(), terms.run),
            stop=lambda: self._stopping,
            changed=self._changed,
        )

    # Rounds

    def _round(self, spoken: Spoken) -> bytes:
        run = self._run
        if run is None:
            raise OutOfOrder(f"{NO_RUN} at this site.")
        if spoken.word == "invite":
            self._check_hour()
        return answer(run, spoken)

    def _check_hour(self) -> None:
        """What a policy says about the hour and the day holds for every round, not only for the run."""
        assert self._allowed is not None
        today = sums_today(self._log.entries(), self._now())
        asked = self._allowed._replace(rounds=1, rounds_today=today, fits=True, approved=True)
        if found := refusals(self._policy, asked, self._now()):
            raise PolicyRefused("; ".join(dict.fromkeys(map(key_of, found))))

    def _changed(self) -> None:
        run = self._run
        self._write_status()
        if run is None:
            return
        progress = run.progress()
        if progress.state in ("failed", "stopped"):
            self._say(f"the run {progress.state}: {progress.reason}")
        elif progress.state == "done":
            try:
                self._say(f"the run is done: {write_report(run.out)}")
            except Exception as error:  # the model is there; a page that cannot be drawn changes nothing
                self._say(f"the run is done: {run.out}; no report ({error}): fedjax-poisson report {run.out}")

    def _write_status(self) -> None:
        run = self._run
        progress = None if run is None else run.progress()
        told: dict[str, Any] = {"site": self._name}
        if self._terms is not None:
            told["run"] = self._terms.run.hex()
        if run is not None:
            told["position"] = run.exchange.position
        if progress is not None and progress.line is not None:
            told |= {"round": progress.line["round"], "epsilon": progress.line["epsilon_so_far"]}
        with contextlib.suppress(OSError):  # a status that cannot be written stops nothing
            write_status(self._state, "waiting" if progress is None else progress.state, **told)
