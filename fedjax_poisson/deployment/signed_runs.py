"""What every party does with the terms of a run, a site and a member without records alike: sign one set a run, keep what all have signed, take it up again.

In the party's folder: `runs/RUN/terms.bin` and `signatures.json`, and `current.json`, which names the run that was begun last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from fedjax_poisson.aggregation.refusals import BadTerms
from fedjax_poisson.deployment import run_terms
from fedjax_poisson.deployment.identity import Identity
from fedjax_poisson.deployment.requests import read_signatures
from fedjax_poisson.deployment.roster import Roster
from fedjax_poisson.deployment.run_terms import RunTerms
from fedjax_poisson.deployment.site_log import SiteLog
from fedjax_poisson.federated.checkpoints import write_atomic

__all__ = [
    "CURRENT",
    "RUNS",
    "SignedRun",
    "begun",
    "check_signed",
    "current_run",
    "keep_run",
    "read_run",
    "sign_once",
    "signed",
]

RUNS, CURRENT = "runs", "current.json"
_TERMS, _SIGNATURES = "terms.bin", "signatures.json"
_RUN = re.compile(r"[0-9a-f]{32}")


class SignedRun(NamedTuple):
    """A run that all parties signed, as far as the bytes say (`check_signed`).

    Attributes:
      terms: of the run.
      signatures: party to its signature.
    """

    terms: RunTerms
    signatures: dict[str, bytes]


def read_run(terms: bytes, signatures: bytes) -> SignedRun:
    """A run from foreign bytes.

    Raises:
      RoundRefused: they are none.
    """
    return SignedRun(run_terms.decode_run_terms(terms), read_signatures(signatures))


def signed(log: SiteLog, terms: RunTerms) -> bool:
    """Whether this party has signed these terms, as its log says."""
    return run_terms.run_terms_hash(terms).hex() in _signed(log, terms)


def begun(log: SiteLog, terms: RunTerms) -> bool:
    """Whether a run of these terms has begun here before, as the log says: the time until which it may begin is then no matter."""
    return signed(log, terms) and _started(log, terms)


def _started(log: SiteLog, terms: RunTerms) -> bool:
    run = terms.run.hex()
    return any(entry.kind == "started" and entry.facts["run"] == run for entry in log.entries())


def _signed(log: SiteLog, terms: RunTerms) -> set[str]:
    run = terms.run.hex()
    return {entry.facts["terms"] for entry in log.entries() if entry.kind == "terms" and entry.facts["run"] == run}


def sign_once(log: SiteLog, who: Identity, terms: RunTerms) -> bytes:
    """This party's signature under terms that it takes part in; the first one is in its log before it leaves.

    Raises:
      BadTerms: it has signed other terms of a run of this name.
    """
    digest, known = run_terms.run_terms_hash(terms).hex(), _signed(log, terms)
    if known - {digest}:
        raise BadTerms("Other terms of a run of this name were signed here; a run has one set of terms.")
    if not known:
        log.append("terms", run=terms.run.hex(), terms=digest, roster=terms.roster.hex())
    return run_terms.sign_run_terms(who, terms)


def check_signed(run: SignedRun, roster: Roster, *, now: datetime | None, foreign: Collection[str] = ()) -> None:
    """Refuse a run that must not be begun or taken up here; roster and version of the package may have changed since it began.

    Args:
      run: the run.
      roster: as it is pinned now.
      now: of a run that begins; None for one that began.
      foreign: algorithms `module:name` that are allowed here.

    Raises:
      BadTerms: it is of another roster, of another version of the package, out of date, or not signed by all.
    """
    run_terms.check_run_terms(run.terms, roster, metadata.version("fedjax_poisson"), foreign=foreign)
    run_terms.check_signatures(roster, run.terms, run.signatures)
    if now is not None:
        run_terms.check_in_time(run.terms, now)


def keep_run(state: Path, log: SiteLog, run: SignedRun) -> None:
    """Write down, durably, that a run begins here: its terms and signatures, a line in the log, and only then that it is the current one.

    So no run is taken up again of which the log does not say that it began.
    """
    folder = folder_of(state, run.terms)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(folder / _TERMS, run_terms.encode_run_terms(run.terms))
    write_atomic(folder / _SIGNATURES, run_terms.signature_bytes(run.signatures))
    name = run.terms.run.hex()
    if not _started(log, run.terms):
        log.append("started", run=name, version=run.terms.version)
    write_atomic(state / CURRENT, json.dumps({"run": name}).encode())


def folder_of(state: Path, terms: RunTerms) -> Path:
    """The folder of a run."""
    return state / RUNS / terms.run.hex()


def current_run(state: Path) -> SignedRun | None:
    """The run that was begun last; None if there was none.

    Raises:
      RoundRefused, ValueError, OSError: its files are gone or damaged.
    """
    if not (state / CURRENT).exists():
        return None
    found = json.loads((state / CURRENT).read_text())
    name = found.get("run") if isinstance(found, dict) else None
    if not isinstance(name, str) or not _RUN.fullmatch(name):
        raise ValueError(
            f"{state / CURRENT} does not name a run; move it away, and the coordinator's next start begins the run again."
        )
    folder = state / RUNS / name
    return read_run((folder / _TERMS).read_bytes(), (folder / _SIGNATURES).read_bytes())
