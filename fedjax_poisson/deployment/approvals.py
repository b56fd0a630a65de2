"""Runs that wait for a person's yes: each a file of its terms in the site's folder, and the names of those that were approved.

The worker puts terms here and asks again when the same terms come; a person at the site reads and approves them (`fedjax-poisson site approve`). Who may write
in the folder may approve, so its mode is 0700. Terms whose time is over (`run_terms.check_in_time`) wait no more.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from fedjax_poisson.aggregation.refusals import RoundRefused
from fedjax_poisson.deployment.run_terms import RunTerms, decode_run_terms, encode_run_terms, run_terms_hash
from fedjax_poisson.federated.checkpoints import write_atomic

__all__ = ["approve", "approved_so_far", "find_terms", "is_approved", "wait_for_approval", "waiting"]

FOLDER = "approvals"
MOST_WAITING = 100
_TERMS, _YES = ".terms", ".approved"


def wait_for_approval(state: Path, terms: RunTerms, now: datetime) -> bytes:
    """Keep terms until somebody approves them or their time is over; their hash. The same terms again change nothing.

    Raises:
      ValueError: too many wait already.
    """
    digest = run_terms_hash(terms)
    path = state / FOLDER / f"{digest.hex()}{_TERMS}"
    if not path.exists():
        for old in (state / FOLDER).glob(f"*{_TERMS}"):
            if (known := _read(old)) is not None and known.begin_before < now.timestamp():
                old.unlink()  # a yes to them stays: it counts (`approved_so_far`)
        if len(list((state / FOLDER).glob(f"*{_TERMS}"))) >= MOST_WAITING:
            raise ValueError(
                f"{MOST_WAITING} runs are in {state / FOLDER} already; remove those that nobody wants, then propose again."
            )
        write_atomic(path, encode_run_terms(terms))
    return digest


def waiting(state: Path, now: datetime) -> list[RunTerms]:
    """Terms that nobody has approved yet and whose time is not over, the newest last; files that are none are left out."""
    paths = sorted((state / FOLDER).glob(f"*{_TERMS}"), key=lambda path: (path.stat().st_mtime, path.name))
    found = [_read(path) for path in paths if not path.with_suffix(_YES).exists()]
    return [terms for terms in found if terms is not None and terms.begin_before >= now.timestamp()]


def _read(path: Path) -> RunTerms | None:
    try:
        return decode_run_terms(path.read_bytes())
    except (RoundRefused, ValueError):
        return None


def find_terms(state: Path, name: str, now: datetime) -> RunTerms:
    """Terms by the path of their file, or by the start of their hash (8 digits at least) among those that wait or were approved.

    Raises:
      ValueError: none, or several.
      RoundRefused: the file holds no terms.
    """
    path = Path(name)
    if not path.is_file():
        found = list((state / FOLDER).glob(f"{name}*{_TERMS}")) if len(name) >= 8 and name.isalnum() else []
        if len(found) != 1:
            known = ", ".join(run_terms_hash(terms).hex()[:16] for terms in waiting(state, now)) or "none"
            raise ValueError(
                f"{name!r} is neither a file nor the start (8 digits or more) of the hash of one run here; waiting: {known}."
            )
        path = found[0]
    return decode_run_terms(path.read_bytes())


def approve(state: Path, terms: RunTerms) -> None:
    """A person's yes to these terms and no others."""
    write_atomic(state / FOLDER / f"{run_terms_hash(terms).hex()}{_YES}", b"")


def approved_so_far(state: Path) -> int:
    """How many runs somebody at this site said yes to."""
    return len(list((state / FOLDER).glob(f"*{_YES}")))


def is_approved(state: Path, terms: RunTerms) -> bool:
    """Whether somebody said yes to them."""
    return (state / FOLDER / f"{run_terms_hash(terms).hex()}{_YES}").is_file()
