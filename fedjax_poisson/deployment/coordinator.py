"""The coordinator of a consortium: it proposes a run, collects everybody's signature, holds the rounds, and keeps what may be kept by anyone.

Its folder holds the signed terms, every transcript, the model and the released results. Nothing in it is secret, and nothing that it says is believed by a
site; who has it has what a reader of the released model has.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from fedjax_poisson.deployment import run_terms
from fedjax_poisson.deployment.conduct import Consortium, Ended, Step, conduct
from fedjax_poisson.deployment.policy import key_of
from fedjax_poisson.deployment.replies import ask_all
from fedjax_poisson.deployment.requests import Spoken
from fedjax_poisson.deployment.roster import Roster, parties_of, pinned_of, roster_hash
from fedjax_poisson.deployment.run_terms import RunTerms
from fedjax_poisson.deployment.transport.link import Link
from fedjax_poisson.federated.checkpoints import write_atomic, write_json

__all__ = [
    "MODEL",
    "RESULT",
    "SIGNATURES",
    "TERMS",
    "TRANSCRIPTS",
    "NotSigned",
    "coordinate",
    "standing",
    "without_score",
]

TERMS, SIGNATURES, TRANSCRIPTS, MODEL, RESULT = (
    "terms.bin",
    "signatures.json",
    "transcripts",
    "model.npz",
    "result.json",
)

Say = Callable[[str], None]


class NotSigned(RuntimeError):
    """A party refuses the run, or does not answer; the message has every reason."""


def coordinate(
    link: Link,
    roster: Roster,
    config: str,
    out: Path,
    *,
    deadline_seconds: int = 120,
    patience_seconds: float = 30.0,
    approval_seconds: float = 3600.0,
    begin_days: float = 14.0,
    most_rounds: int = 10_000,
    step: Callable[[Step], None] = lambda step: None,
    say: Say = lambda words: None,
    wait: Say = lambda words: None,
    stop: Callable[[], bool] = lambda: False,
) -> Ended:
    """Hold a run from its proposal to the model; an interrupted one goes on where `out` stands.

    Args:
      link: to all parties of the roster, by their names.
      roster: the consortium.
      config: the common settings (`common_settings.read_settings`), as text (`common_config`).
      out: folder of the coordinator; one run each.
      deadline_seconds: how long a phase of a round may take.
      patience_seconds: how long a round waits for further sites once enough are ready.
      approval_seconds: how long people may take to approve the run.
      begin_days: for how long new terms may be signed and begun; a proposal that nobody began ends then by itself.
      most_rounds: most rounds that are tried.
      step: called after every opened sum.
      say: told what a person should know.
      wait: told what is waited for, and for whom, whenever that changes.
      stop: asked between rounds.

    Raises:
      NotSigned: somebody refuses, or is away before the start.
      NoProgress: too few sites are there.
      ValueError: `out` holds a run with other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    terms = _terms(roster, config, out, deadline_seconds, most_rounds, begin_days)
    signatures = _signed(link, roster, terms, out, approval_seconds, say, wait, stop)
    wait("the sites begin")
    start = Spoken("start", (run_terms.encode_run_terms(terms), run_terms.signature_bytes(signatures)))
    names = [party.name for party in parties_of(roster)]
    for name, reply in ask_all(link, names, start, float(deadline_seconds)).items():
        if reply != Spoken("started"):
            say(f"{name} did not start: {_why(reply)}")
    consortium = Consortium(
        run=terms.run,
        pinned=pinned_of(roster),
        members=dict(enumerate(roster.committee, 1)),
        sites={party.name: party.public for party in roster.sites},
        minimum=roster.minimum,
        start=start,
        phase_seconds=float(deadline_seconds),
        patience_seconds=patience_seconds,
        most_rounds=most_rounds,
    )
    ended = conduct(link, consortium, out / TRANSCRIPTS, step=step, say=say, wait=wait, stop=stop)
    write_atomic(out / MODEL, ended.model)
    write_json(out / RESULT, result_of(terms, roster, ended))
    return ended


def result_of(terms: RunTerms, roster: Roster, ended: Ended) -> dict[str, Any]:
    """What the coordinator's folder says of a run that is over, as JSON values: `released` is what `stated_by` say of the sums that all opened."""
    released = {name: value for name, value in ended.facts.items() if name not in ("digest", "model_sha256")}
    return {
        "run": terms.run.hex(),
        "terms": run_terms.run_terms_hash(terms).hex(),
        "models": ended.digests,
        "agree": list(ended.agree),
        "away": ended.away,
        "model_sha256": ended.facts["model_sha256"],
        "stated_by": list(ended.stated_by),
        "released": released,
        "sites_without_score": without_score(roster, released),
    }


def without_score(roster: Roster, released: dict[str, Any]) -> list[str]:
    """Sites that a released score by site leaves out, since the noise on their number of held-out records is as large as the number itself."""
    known = released.get("accuracy_by_site")
    return [party.name for party in roster.sites if party.name not in known] if isinstance(known, dict) else []


def standing(out: Path) -> dict[str, Any]:
    """How far the run of a coordinator's folder is, as JSON values.

    Raises:
      FileNotFoundError: there is no run.
    """
    if not (out / TERMS).is_file():
        raise FileNotFoundError(
            f"{out} holds no run of a consortium; start one with: fedjax-poisson consortium run CONFIG.toml --out {out}"
        )
    terms = run_terms.decode_run_terms((out / TERMS).read_bytes())
    signed = sorted(json.loads((out / SIGNATURES).read_text())) if (out / SIGNATURES).is_file() else []
    sums = sorted((out / TRANSCRIPTS).glob("*.round"))
    state = "over" if (out / RESULT).is_file() else "running or interrupted" if signed else "waiting for signatures"
    return {
        "run": terms.run.hex(),
        "terms": run_terms.run_terms_hash(terms).hex(),
        "state": state,
        "signed": ", ".join(signed),
        "sums": len(sums),
        "last": sums[-1].stem.partition("-")[2] if sums else "",
        "updated": datetime.fromtimestamp(max(path.stat().st_mtime for path in [out / TERMS, *sums]), UTC).isoformat(
            timespec="seconds"
        ),
    }


def _terms(
    roster: Roster, config: str, out: Path, deadline_seconds: int, most_rounds: int, begin_days: float
) -> RunTerms:
    """The terms of this folder's run; new ones are written before anybody is asked."""
    path = out / TERMS
    if path.exists():
        found = run_terms.decode_run_terms(path.read_bytes())
        if found.config != config or found.roster != roster_hash(roster):
            raise ValueError(
                f"{out} holds a run with other settings or another roster; choose another --out, or go on with the same ones."
            )
        if not (out / SIGNATURES).exists() and found.begin_before < time.time():
            raise ValueError(
                f"{out} holds a proposal that ended on {run_terms.moment(found.begin_before)}, signed by too few; choose another --out to propose it anew."
            )
        return found
    terms = RunTerms(
        roster=roster_hash(roster),
        run=os.urandom(16),
        config=config,
        version=metadata.version("fedjax_poisson"),
        deadline_seconds=deadline_seconds,
        most_rounds=most_rounds,
        begin_before=int(time.time() + 86400 * begin_days),
    )
    run_terms.check_run_terms(terms, roster, terms.version)
    run_terms.check_in_time(terms, datetime.now(UTC))
    write_atomic(path, run_terms.encode_run_terms(terms))
    return terms


def _signed(
    link: Link,
    roster: Roster,
    terms: RunTerms,
    out: Path,
    seconds: float,
    say: Say,
    wait: Say,
    stop: Callable[[], bool],
) -> dict[str, bytes]:
    """Every party's signature under the terms; those whose people have to approve first are asked again."""
    path, names = out / SIGNATURES, [party.name for party in parties_of(roster)]
    if path.exists():
        return {name: bytes.fromhex(value) for name, value in json.loads(path.read_text()).items()}
    proposal = Spoken("propose", (run_terms.encode_run_terms(terms),))
    found: dict[str, bytes] = {}
    until, told = time.monotonic() + seconds, set[str]()
    while True:
        waiting, refused = [], []
        missing = [name for name in names if name not in found]
        if not told:
            wait(f"asks {', '.join(missing)} to sign")
        for name, reply in ask_all(link, missing, proposal, float(terms.deadline_seconds)).items():
            match reply:
                case Spoken("signed", (signature,)):
                    found[name] = signature
                case str() if all(key_of(one.strip()).endswith("approval.mode") for one in reply.split("; ")):
                    waiting.append(name)
                case _:
                    refused.append(f"{name}: {_why(reply)}")
        if refused:
            raise NotSigned("the run was not signed:\n  " + "\n  ".join(refused))
        if not waiting:
            break
        for name in set(waiting) - told:
            say(f"{name} waits for somebody to approve the run there (fedjax-poisson site approve)")
            told.add(name)
        wait(f"people at {', '.join(waiting)} have to approve")
        if time.monotonic() > until or stop():
            raise NotSigned(f"{', '.join(waiting)} did not approve within {seconds:g} s; start again to ask again.")
        time.sleep(1.0)
    run_terms.check_signatures(roster, terms, found)
    write_atomic(path, run_terms.signature_bytes(found))
    return found


def _why(reply: Spoken | str) -> str:
    """Why a party does not do what it was asked."""
    return reply if isinstance(reply, str) else f"said {reply.word!r:.60}, which is no answer to it"
