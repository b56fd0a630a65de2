"""A run at one site: the thread that trains, and the answers to the coordinator's requests about its rounds.

`start` begins the run, or goes on where the folder stands. A round that died ends the thread's attempt; it is resumed at once, with fresh noise under a new
charge. What ends it for good is in `progress`: done, or the reason why not.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_poisson.aggregation.refusals import OutOfOrder, RoundRefused
from fedjax_poisson.aggregation.wire import u64
from fedjax_poisson.deployment.errors import RoundLost
from fedjax_poisson.deployment.exchange import Exchange
from fedjax_poisson.deployment.model_digest import digest_of
from fedjax_poisson.deployment.party import Limits, Party
from fedjax_poisson.deployment.requests import Spoken, encode, refused
from fedjax_poisson.deployment.roster import Roster
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.network import Network
from fedjax_poisson.runs.run import run
from fedjax_poisson.runs.run_ledger import CONFIG, MODEL
from fedjax_poisson.runs.transcripts import FOLDER

__all__ = ["ROUND_WORDS", "Progress", "SiteRun", "answer", "model_digest", "planning_network", "start"]

ROUND_WORDS = ("next", "notice", "invite", "opened", "go on", "transcript", "final")
"""Requests that `answer` knows."""

_RELEASED = (
    *(
        "verdict",
        "unit",
        "adjacency",
        "epsilon",
        "delta",
        "rounds",
        "budget_exhausted",
        "dimension",
        "bytes_up_total_per_client",
    ),
    *(
        "mean_client_accuracy",
        "pooled_accuracy",
        "pooled_accuracy_error",
        "auc",
        "balanced_accuracy",
        "accuracy_by_site",
    ),
)
"""Of a summary: what follows from releases and settings. Scores are there where they were released (`evaluation = "private"`), and None else."""

_READY_SECONDS = 2.0
"""How long "next" waits for the counts before it says that they are not there yet."""


class Progress(NamedTuple):
    """How far a run is.

    Attributes:
      state: "running", "done", "stopped" or "failed".
      line: the last line of rounds.jsonl; None before the first.
      reason: why it failed; empty otherwise.
      summary: of a run that is done.
    """

    state: str
    line: dict[str, Any] | None
    reason: str
    summary: dict[str, Any] | None


class SiteRun(NamedTuple):
    """A run under way.

    Attributes:
      exchange: its part in the sums.
      progress: `() -> Progress`.
      out: the run's folder.
      join: waits for the thread, so many seconds at most.
    """

    exchange: Exchange
    progress: Callable[[], Progress]
    out: Path
    join: Callable[[float | None], None]


def planning_network(roster: Roster) -> Network:
    """The other sites as the plan of a run sees them, before there is a run: nothing can be sent with it."""

    def none(*rest: Any, **named: Any) -> Any:
        raise RuntimeError("a run that is only planned sends nothing")

    members = len(roster.committee)
    return Network(none, members, roster.threshold, roster.malicious, roster.minimum, roster.corrupt, none)


def start(
    party: Party,
    config: Config,
    out: Path,
    *,
    minimum: int,
    corrupt: int,
    limits: Limits,
    tell: Callable[..., None],
    named: Sequence[str] | None = None,
    stop: Callable[[], bool],
    changed: Callable[[], None] = lambda: None,
) -> SiteRun:
    """Begin or resume a run in a thread of its own.

    Args:
      party: the site's parts in the rounds.
      config: the settings, with the site's own table and ledger.
      out: folder of the run.
      minimum: fewest sites in a sum.
      corrupt: sites assumed corrupt.
      limits: what the run may take.
      tell: writes into the site's log.
      named: transcripts of this run that the log names (`backups.opened_in`).
      stop: asked before every round and while one is waited for.
      changed: called after every release, and at the end.
    """
    exchange = Exchange(party, out / FOLDER, tell, stop, limits, named)
    pinned = party.sender.pinned
    network = Network(
        backend=exchange.backend,
        members=len(pinned.members),
        threshold=pinned.threshold,
        malicious=pinned.malicious,
        minimum=minimum,
        corrupt=corrupt,
        charging=exchange.charging,
    )
    seen = [Progress("running", None, "", None)]

    def report(line: dict[str, Any]) -> None:
        seen[0] = seen[0]._replace(line=line)
        changed()

    def work() -> None:
        try:
            while True:
                try:
                    summary = run(
                        config, out, resume=(out / CONFIG).exists(), report=report, stop=stop, network=network
                    )
                    break
                except RoundLost as lost:
                    tell("refused", reasons=[type(lost).__name__])
            tell("ended", model=model_digest(out))
            seen[0] = seen[0]._replace(state="done", summary=summary)
        except BaseException as error:
            state = "stopped" if getattr(error, "interrupted", False) else "failed"
            seen[0] = seen[0]._replace(state=state, reason=f"{type(error).__name__}: {error}")
            if state == "failed":
                tell("refused", reasons=[type(error).__name__])
        changed()

    thread = threading.Thread(target=work, name=f"run of {party.name}", daemon=True)
    thread.start()
    return SiteRun(exchange, lambda: seen[0], out, thread.join)


def model_digest(out: Path) -> str:
    """The digest of a finished run's model (`model_digest.digest_of`)."""
    return digest_of((out / MODEL).read_bytes())


def answer(site: SiteRun, spoken: Spoken) -> bytes:
    """The reply to a request about rounds; refusals are replies too.

    `next` -> ("at", position, JSON facts, terms or nothing); `notice` (blob) -> ("said", blob); `invite` (terms, certificate) -> ("sent", blob);
    `opened` (position, transcript) -> ("kept", position); `go on` (position) -> ("kept", position);
    `transcript` (position) -> ("kept", position, transcript); `final` -> ("ended", JSON facts, model).
    """
    exchange = site.exchange
    try:
        match spoken:
            case Spoken("next", ()):
                wanted = exchange.wanted(_READY_SECONDS if site.progress().state == "running" else 0.0)
                found = site.progress()
                facts = {
                    "state": found.state,
                    "label": wanted.label,
                    "asking": wanted.asking,
                    "reason": _outside(found),
                    "epsilon": _epsilon(found),
                }
                return encode(Spoken("at", (u64(wanted.position), json.dumps(facts).encode(), wanted.draft or b"")))
            case Spoken("notice", (blob,)):
                return encode(Spoken("said", (exchange.notice(blob),)))
            case Spoken("invite", (terms, certificate)):
                return encode(Spoken("sent", (exchange.invite(terms, certificate),)))
            case Spoken("opened", (position, transcript)) if len(position) == 8:
                exchange.opened(int.from_bytes(position, "little"), transcript)
                return encode(Spoken("kept", (position,)))
            case Spoken("go on", (position,)) if len(position) == 8:
                exchange.go_on(int.from_bytes(position, "little"))
                return encode(Spoken("kept", (position,)))
            case Spoken("transcript", (position,)) if len(position) == 8:
                return encode(Spoken("kept", (position, exchange.transcript(int.from_bytes(position, "little")))))
            case Spoken("final", ()):
                return _final(site)
            case _:
                return refused(OutOfOrder(f'"{spoken.word}" with {len(spoken.parts)} parts is no request of a run.'))
    except RoundRefused as error:
        return refused(error)


def _outside(found: Progress) -> str:
    """The reason as it may leave the site: the kind of error, without its words, which may quote the table or name files."""
    return f"{found.reason.partition(':')[0]}, whose words are on the site's own screen" if found.reason else ""


def _epsilon(found: Progress) -> float | None:
    return None if found.line is None else float(found.line["epsilon_so_far"])


def _final(site: SiteRun) -> bytes:
    found = site.progress()
    if found.state != "done":
        raise OutOfOrder(f"The run is {found.state} here{': ' + _outside(found) if found.reason else ''}.")
    assert found.summary is not None
    facts = {"digest": model_digest(site.out), **{name: found.summary.get(name) for name in _RELEASED}}
    return encode(Spoken("ended", (json.dumps(facts).encode(), (site.out / MODEL).read_bytes())))
