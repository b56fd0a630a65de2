"""A site without a training: the real exchange, stores, ledger and log, and a run that wants sums of random counts, with a fresh draw for every attempt.

Everything it does is told to a witness, and every step is an *event* at which a fault may strike. What a site writes, it writes under one lock, so that a
copy of its folder at an event is what a process that is killed there leaves.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from consortium_campaign.people import BOUND, SIZE, People, Run, aggregator_of
from consortium_campaign.witness import Witness
from fedjax_poisson import accounting, randomness
from fedjax_poisson.aggregation import client, messages
from fedjax_poisson.aggregation.member import LABELS
from fedjax_poisson.aggregation.refusals import RoundRefused
from fedjax_poisson.aggregation.store import sqlite_store
from fedjax_poisson.aggregation.terms import decode_terms
from fedjax_poisson.deployment import site_run
from fedjax_poisson.deployment.backups import check_ledger, check_stores, check_transcripts, opened_in
from fedjax_poisson.deployment.errors import RoundLost
from fedjax_poisson.deployment.exchange import Exchange
from fedjax_poisson.deployment.party import party_of
from fedjax_poisson.deployment.requests import Spoken, decode, refused
from fedjax_poisson.deployment.roster import pinned_of, roster_hash, roster_keys
from fedjax_poisson.deployment.site_log import open_log
from fedjax_poisson.deployment.site_run import Progress, SiteRun
from fedjax_poisson.federated.checkpoints import write_atomic
from fedjax_poisson.runs.network import Standing
from fedjax_poisson.runs.run import Stopped
from fedjax_poisson.runs.run_ledger import MODEL

__all__ = ["HERE", "LightSite", "charges_of", "name_of", "watched_contributions"]

ORDERS = np.arange(2, 17.0)
HERE = threading.local()
"""`HERE.site`: whose thread this is."""

Event = Callable[[str, str], None]
"""`(site, transition)`: called before a step is taken."""


def name_of(spoken: Spoken) -> str:
    """A request by its word; a notice by its label."""
    if spoken.word != "notice" or not spoken.parts:
        return spoken.word
    try:
        return messages.decode_notice(spoken.parts[0], 1 << 24, list(LABELS)).label
    except RoundRefused:
        return "notice"


class LightSite:
    """One life of a site's process; `handle` is what a transport calls."""

    def __init__(
        self, name: str, known: People, run: Run, folder: Path, note: Witness, event: Event, **other: Any
    ) -> None:
        """Take up what lies in the folder.

        Args:
          name: of the site.
          known: the consortium.
          run: what is run.
          folder: of the site.
          note: the witness.
          event: called before every step.
          other: facts of rounds in which this site differs from the others; `terms`: the hash of its run's terms.

        Raises:
          RuntimeError, RoundRefused: what lies in the folder is refused, by its name.
        """
        self.name, self.run, self.folder, self._note, self._event, self._other = (
            name,
            run,
            folder,
            note,
            event,
            dict(other),
        )
        self._known, self._most = known, BOUND // len(known.who)
        self.busy, self.dead, self._stopping = threading.RLock(), False, False
        self.progress = Progress("running", None, "", None)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.here(), self.busy, contextlib.ExitStack() as opened:
            self.log = open_log(folder / "site.log", known.who[name])
            opened.callback(self.log.close)
            check_ledger(folder / "ledger.sqlite", self.log.entries())
            stores = []
            for file in ("client.sqlite", "member.sqlite"):
                stores.append(sqlite_store(folder / file))
                opened.callback(stores[-1].close)
            check_stores(self.log.entries(), run.run, {"contribution": stores[0], "answer": stores[1]})
            party = party_of(
                name=name,
                sites=tuple(known.who),
                key=known.who[name].key,
                pinned=pinned_of(known.roster),
                roster=roster_keys(known.roster),
                run=run.run,
                terms=self._other.pop("terms", run.terms),
                store=stores[0],
                member_store=stores[1],
            )
            if not any(entry.kind == "terms" for entry in self.log.entries()):
                roster = roster_hash(known.roster).hex()
                self.log.append("terms", run=run.run.hex(), terms=run.terms.hex(), roster=roster)
            check_transcripts(self.log.entries(), run.run, folder / "opened")
            named = opened_in(self.log.entries(), run.run)
            self.exchange = Exchange(party, folder / "opened", self._tell, lambda: self._stopping, named=named)
            self._files = opened.pop_all()
        self._whole = SiteRun(self.exchange, lambda: self.progress, folder, lambda seconds: None)
        self.thread = threading.Thread(target=self._work, name=f"run of {name}", daemon=True)
        self.thread.start()

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """This thread acts for this site."""
        before = getattr(HERE, "site", None)
        HERE.site = self
        try:
            yield
        finally:
            HERE.site = before

    def event(self, transition: str) -> None:
        """Announce a step."""
        if not self.dead:
            self._event(self.name, transition)

    def close(self) -> None:
        """Let go of all files; the run stops where it is."""
        self._stopping = True
        self.thread.join(20)
        with self.here(), self.busy:
            self._files.close()

    def _tell(self, kind: str, **told: Any) -> None:
        self.event(f"log {kind}")
        self.log.append(kind, run=self.run.run.hex(), **told)
        self.event(f"logged {kind}")

    # Requests

    def handle(self, blob: bytes) -> bytes:
        """The reply to one request, as `site.Worker.handle`."""
        with self.here():
            try:
                spoken = decode(blob)
            except RoundRefused as error:
                return refused(error)
            name = name_of(spoken)
            try:
                if spoken.word == "next":  # waits, and writes nothing
                    return self._out(site_run.answer(self._whole, spoken))
                with self.busy:
                    self.event(f"request {name}")
                    reply = site_run.answer(self._whole, spoken)
                    self.event(f"reply {name}")
                    if not self.dead:
                        self._told(spoken, decode(reply))
                    return self._out(reply)
            except Exception as error:
                if not self.dead:
                    self._note("failed", site=self.name, error=type(error).__name__, words=str(error))
                raise

    def _out(self, reply: bytes) -> bytes:
        if self.dead:
            raise ConnectionError("the connection was cut")
        return reply

    def _told(self, spoken: Spoken, reply: Spoken) -> None:
        """The witness learns of what leaves."""
        if spoken.word == "notice" and reply.word == "said":
            said = messages.parts_of(reply.parts[0])
            if said.label != "held":  # says what is held now, and may be said anew
                digest = hashlib.sha256(reply.parts[0]).hexdigest()
                number = self.exchange._seat.round() if self.exchange._seat is not None else -1
                self._note("said", site=self.name, run=self.run.run.hex(), round=number, step=said.label, digest=digest)
        if spoken.word == "invite" and reply.word == "sent":
            manifest = messages.manifest_hash(messages.parts_of(reply.parts[0])).hex()
            number = decode_terms(spoken.parts[0]).round
            charges = charges_of(self.folder)
            self._note("left", site=self.name, run=self.run.run.hex(), round=number, manifest=manifest, charges=charges)

    # The run

    def _work(self) -> None:
        with self.here():
            try:
                with self.busy:
                    ledger = accounting.open_ledger(
                        self.folder / "ledger.sqlite",
                        epsilon=8.0,
                        delta=1e-5,
                        unit="record",
                        adjacency="zero_out",
                        orders=ORDERS,
                    )
                try:
                    while True:
                        try:
                            sums = self._releases(ledger)
                            break
                        except RoundLost as lost:
                            with self.busy:
                                self.event("lost")
                                self.log.append("refused", run=self.run.run.hex(), reasons=[type(lost).__name__])
                finally:
                    with self.busy:
                        ledger.close()
                with self.busy:
                    buffer = io.BytesIO()
                    np.savez(buffer, sums=np.asarray(sums, np.int32))
                    write_atomic(self.folder / MODEL, buffer.getvalue())
                self.progress = self.progress._replace(state="done", summary={"rounds": self.run.releases})
            except BaseException as error:
                state = "stopped" if isinstance(error, Stopped) else "failed"
                self.progress = self.progress._replace(state=state, reason=f"{type(error).__name__}: {error}")
                if state == "failed" and not self.dead:
                    self._note("failed", site=self.name, error=type(error).__name__, words=str(error))

    def _releases(self, ledger: accounting.Ledger) -> list[list[int]]:
        """Every sum that the run wants, from the checkpoint on."""
        path = self.folder / "checkpoint.json"
        sums: list[list[int]] = json.loads(path.read_text()) if path.exists() else []

        def charge(purpose: str, number: int) -> tuple[Callable[[], None], randomness.Stream]:
            return lambda: self._pay(ledger, f"{purpose} {number}"), randomness.stream()

        def times(label: str) -> int:
            return sum(row.label == label for row in ledger.rows())

        def lost() -> int:
            labels = [row.label for row in ledger.rows()]
            return len(labels) - len(set(labels))

        standing = Standing(times, lost, lambda: (ledger.epsilon(), ledger.pin()))
        made = aggregator_of(self._known, self.exchange.backend, **self._other)
        charging = self.exchange.charging(charge, standing)
        for number in range(len(sums) + 1, self.run.releases + 1):
            gate, own = charging("train", number)
            found = made.recall(SIZE)  # in the order of `federated.private_sum`
            if found is None:
                counts = np.random.default_rng().integers(-self._most, self._most, SIZE).astype(np.int32)
                sealed = made.encrypt(counts, own)
                gate()
                found = made.open(sealed, SIZE)
            else:
                gate()
            sums.append([int(value) for value in found.counts])
            with self.busy:
                write_atomic(path, json.dumps(sums).encode())
        return sums

    def _pay(self, ledger: accounting.Ledger, label: str) -> None:
        with self.busy:
            self.event("charge")
            ledger.spend("train", label, "toy", {}, np.full(len(ORDERS), 1e-4), 2, len(self._known.who))
            self.event("charged")

    def note_made(self, blob: bytes, counts: np.ndarray) -> None:
        """The witness learns of a contribution that was made."""
        manifest = messages.manifest_hash(messages.parts_of(blob)).hex()
        values = [int(value) for value in counts]
        self._note("made", site=self.name, manifest=manifest, label=str(self.exchange._label), counts=values)


def charges_of(folder: Path) -> dict[str, int]:
    """Rows of the ledger in a site's folder, by label."""
    path = folder / "ledger.sqlite"
    if not path.is_file() or accounting.never_made(path):
        return {}
    with accounting.read_ledger(path) as ledger:
        labels = [row.label for row in ledger.rows()]
    return {label: labels.count(label) for label in set(labels)}


def watched_contributions(change: Callable[[np.ndarray], np.ndarray] = lambda counts: counts) -> Callable[..., bytes]:
    """`client.contribute` that tells the witness what is in a fresh contribution.

    Args:
      change: what a site with a mistake does to its counts, unseen by the witness.
    """
    real = client.contribute

    def contribute(
        who: client.Client, terms_blob: bytes, certificate: bytes, counts: np.ndarray, stream: Any, **named: Any
    ) -> bytes:
        terms = decode_terms(terms_blob)
        before = who.store.get(terms.run, terms.round, "contribution")
        blob = real(who, terms_blob, certificate, change(counts), stream, **named)
        if before is None:
            HERE.site.note_made(blob, counts)
        return blob

    return contribute
