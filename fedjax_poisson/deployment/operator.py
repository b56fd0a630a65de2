"""A member of the committee that has no records: it holds shares and answers once a round, as a site does in its second part.

It signs the terms of a run if they are the consortium's; what a run does with the sites' records is for the sites to judge.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from fedjax_poisson.aggregation import member, messages
from fedjax_poisson.aggregation.refusals import OutOfOrder, RoundRefused
from fedjax_poisson.aggregation.store import Store, sqlite_store
from fedjax_poisson.deployment import run_terms
from fedjax_poisson.deployment.identity import Identity
from fedjax_poisson.deployment.requests import NO_RUN, Spoken, decode, encode, read_signatures, refused
from fedjax_poisson.deployment.roster import Roster, named, pinned_of, roster_keys
from fedjax_poisson.deployment.run_terms import RunTerms
from fedjax_poisson.deployment.site_log import SiteLog
from fedjax_poisson.deployment.status import write_status
from fedjax_poisson.federated.checkpoints import write_atomic

__all__ = ["Operator"]

_CURRENT = "current.bin"


class Operator:
    """One operator; `handle` is what a transport calls."""

    def __init__(
        self,
        state: Path,
        roster: Roster,
        who: Identity,
        log: SiteLog,
        *,
        say: Callable[[str], None] = lambda words: None,
    ) -> None:
        """Take up the run that was under way, if there is one.

        Args:
          state: the operator's folder.
          roster: checked and signed by all.
          who: its key.
          log: open.
          say: told what a person should know.

        Raises:
          ValueError: the key is not that of a member.
        """
        pinned = pinned_of(roster)
        if who.public not in pinned.members:
            raise ValueError(f"the roster {roster.name!r} has no member with the key of {state}.")
        self._state, self._roster, self._who, self._log, self._say = state, roster, who, log, say
        self._pinned, self._lock = pinned, threading.Lock()
        self._store: Store | None = None
        self._member: member.Member | None = None
        self._seat = member.State()
        self._terms: RunTerms | None = None
        self._answered: tuple[int, bytes] | None = None
        if (state / _CURRENT).exists():
            self._begin(run_terms.decode_run_terms((state / _CURRENT).read_bytes()))
        self._write_status()

    def beat(self) -> None:
        """Write the status again, so that its age says whether the worker is alive, also while it waits."""
        self._write_status()

    def close(self) -> None:
        """Let go of all files."""
        if self._store is not None:
            self._store.close()
        self._log.close()

    def handle(self, blob: bytes) -> bytes:
        """The reply to one request; every refusal is a reply too."""
        try:
            spoken = decode(blob)
            with self._lock:
                match spoken:
                    case Spoken("hello", ()):
                        about = {
                            "name": named(self._roster, self._who.public),
                            "version": metadata.version("fedjax_poisson"),
                            "member": True,
                        }
                        return encode(Spoken("at-home", (json.dumps(about).encode(),)))
                    case Spoken("propose", (terms,)):
                        return encode(Spoken("signed", (self._propose(run_terms.decode_run_terms(terms)),)))
                    case Spoken("start", (terms, signatures)):
                        self._start(terms, signatures)
                        return encode(Spoken("started"))
                    case Spoken("notice", (notice,)):
                        return encode(Spoken("said", (self._notice(notice),)))
                    case _:
                        raise OutOfOrder(f'"{spoken.word}" is no request to a member without records.')
        except RoundRefused as error:
            return refused(error)

    def _propose(self, terms: RunTerms) -> bytes:
        run_terms.check_run_terms(terms, self._roster, metadata.version("fedjax_poisson"))
        digest = run_terms.run_terms_hash(terms).hex()
        if not any(entry.kind == "terms" and entry.facts["terms"] == digest for entry in self._log.entries()):
            self._log.append("terms", run=terms.run.hex(), terms=digest, roster=terms.roster.hex())
        return run_terms.sign_run_terms(self._who, terms)

    def _start(self, blob: bytes, signed: bytes) -> None:
        terms = run_terms.decode_run_terms(blob)
        if self._terms == terms:
            return
        run_terms.check_run_terms(terms, self._roster, metadata.version("fedjax_poisson"))
        run_terms.check_signatures(self._roster, terms, read_signatures(signed))
        write_atomic(self._state / _CURRENT, blob)
        self._log.append("started", run=terms.run.hex(), version=terms.version)
        self._begin(terms)

    def _begin(self, terms: RunTerms) -> None:
        if self._store is not None:
            self._store.close()
        self._store = sqlite_store(self._state / f"member-{terms.run.hex()}.sqlite")
        self._member = member.Member(
            number=self._pinned.members.index(self._who.public) + 1,
            key=self._who.key,
            pinned=self._pinned,
            roster=roster_keys(self._roster),
            run=terms.run,
            store=self._store,
        )
        self._seat, self._terms = member.restore(self._member), terms
        self._write_status()

    def _notice(self, blob: bytes) -> bytes:
        if self._member is None or self._terms is None:
            raise OutOfOrder(f"{NO_RUN} at this member.")
        self._seat, reply = member.step(self._member, self._seat, blob)
        said = messages.parts_of(reply)
        if said.label == "answer" and self._answered != (self._seat.round, said.body[:32]):
            self._log.append(
                "answer",
                run=self._terms.run.hex(),
                round=self._seat.round,
                included=said.body[:32].hex(),
                bytes=len(reply),
            )
            self._answered = (
                self._seat.round,
                said.body[:32],
            )  # only now: what could not be written down is not said later
        return reply

    def _write_status(self) -> None:
        name, phase = named(self._roster, self._who.public), "waiting" if self._terms is None else "running"
        run = "" if self._terms is None else self._terms.run.hex()
        with contextlib.suppress(OSError):  # a status that cannot be written stops nothing
            write_status(self._state, phase, site=name, run=run)
