"""A member of the committee that has no records: it holds shares and answers once a round, as a site does in its second part.

It signs the terms of a run if they are the consortium's; what a run does with the sites' records is for the sites to judge.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from fedjax_poisson.aggregation import member
from fedjax_poisson.aggregation.refusals import OutOfOrder, RoundRefused
from fedjax_poisson.aggregation.store import Store, StoreDamaged, sqlite_store
from fedjax_poisson.deployment import run_terms
from fedjax_poisson.deployment.backups import check_stores
from fedjax_poisson.deployment.identity import Identity
from fedjax_poisson.deployment.requests import NO_RUN, Spoken, decode, encode, refused
from fedjax_poisson.deployment.roster import Roster, named, pinned_of, roster_keys
from fedjax_poisson.deployment.run_terms import RunTerms
from fedjax_poisson.deployment.seat import Seat, take_seat
from fedjax_poisson.deployment.signed_runs import (
    SignedRun,
    begun,
    check_signed,
    current_run,
    folder_of,
    keep_run,
    read_run,
    sign_once,
)
from fedjax_poisson.deployment.site_log import SiteLog
from fedjax_poisson.deployment.status import write_status

__all__ = ["Operator"]


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
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        """Take up the run that was under way, if there is one.

        Args:
          state: the operator's folder.
          roster: checked and signed by all.
          who: its key.
          log: open.
          say: told what a person should know.
          now: the operator's clock, for the time until which terms hold.

        Raises:
          ValueError: the key is not that of a member.
        """
        self._pinned = pinned_of(roster)
        if who.public not in self._pinned.members:
            raise ValueError(f"the roster {roster.name!r} has no member with the key of {state}.")
        self._state, self._roster, self._who, self._log, self._say, self._now = state, roster, who, log, say, now
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._seat: Seat | None = None
        self._terms: RunTerms | None = None
        try:
            if (current := current_run(state)) is not None:
                check_signed(current, roster, now=None)
                self._begin(current.terms)
        except (RoundRefused, StoreDamaged, ValueError, OSError) as error:
            self._say(f"the run that was under way does not go on: {error}")
            self._log.append("refused", reasons=[type(error).__name__])
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
                        self._start(read_run(terms, signatures))
                        return encode(Spoken("started"))
                    case Spoken("notice", (notice,)):
                        if self._seat is None:
                            raise OutOfOrder(f"{NO_RUN} at this member.")
                        return encode(Spoken("said", (self._seat.notice(notice),)))
                    case _:
                        raise OutOfOrder(f'"{spoken.word}" is no request to a member without records.')
        except RoundRefused as error:
            return refused(error)
        except StoreDamaged as error:
            self._say(str(error))
            return refused(
                f"{type(error).__name__}: a file of this member is lost or older than its log; what to do is on its own screen"
            )

    def _propose(self, terms: RunTerms) -> bytes:
        run_terms.check_run_terms(terms, self._roster, metadata.version("fedjax_poisson"))
        run_terms.check_in_time(terms, self._now())
        return sign_once(self._log, self._who, terms)

    def _start(self, run: SignedRun) -> None:
        if self._terms == run.terms:
            return
        check_signed(run, self._roster, now=None if begun(self._log, run.terms) else self._now())
        keep_run(self._state, self._log, run)
        self._begin(run.terms)

    def _begin(self, terms: RunTerms) -> None:
        """The seat of a run, where its store stands.

        Raises:
          StoreDamaged: what was said in the run is not all there.
        """
        if self._store is not None:
            self._store.close()
        self._seat = self._terms = None
        self._store = sqlite_store(folder_of(self._state, terms) / "member.sqlite")
        check_stores(self._log.entries(), terms.run, {"answer": self._store})
        sitting = member.Member(
            number=self._pinned.members.index(self._who.public) + 1,
            key=self._who.key,
            pinned=self._pinned,
            roster=roster_keys(self._roster),
            run=terms.run,
            store=self._store,
        )

        def tell(kind: str, **told: Any) -> None:
            self._log.append(kind, run=terms.run.hex(), **told)

        self._seat, self._terms = take_seat(sitting, tell), terms
        self._write_status()

    def _write_status(self) -> None:
        name, phase = named(self._roster, self._who.public), "waiting" if self._terms is None else "running"
        run = "" if self._terms is None else self._terms.run.hex()
        with contextlib.suppress(OSError):  # a status that cannot be written stops nothing
            write_status(self._state, phase, site=name, run=run)
