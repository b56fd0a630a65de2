"""What must hold after a fault, as pure functions of what was seen; each returns the sentences that say what is wrong, none where all is well."""

from __future__ import annotations

import collections
import hashlib
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import fedjax_poisson

__all__ = ["Row", "forgotten", "own_refusal", "second_answers", "uncharged", "wrong_model"]

_ADVICE = (
    *("restore", "resume", "choose", "delete", "give", "undo", "wait", "check", "start", "free", "use ", "go on"),
    *("finish", "save it", "settings are", "restart", "retrain", "pass "),
)
"""What to do begins with one of these."""
_PACKAGE = str(Path(fedjax_poisson.__file__).parent)


class Row(NamedTuple):
    """One fault and what became of it.

    Attributes:
      part: what ran.
      transition: the event, file or message that the fault struck.
      kind: of the fault.
      outcome: went on, same model, refused by which class, ...
      wrong: sentences; empty where every invariant holds.
    """

    part: str
    transition: str
    kind: str
    outcome: str
    wrong: list[str]


def uncharged(opened: Sequence[str], charged: Sequence[str]) -> list[str]:
    """0 releases without a charge: every opened label has a row that was on the ledger by then, as often as it was opened.

    Args:
      opened: labels of the sums that had been opened when the fault struck, in order.
      charged: labels of the ledger's rows, read after the fault and before anything went on.
    """
    missing = collections.Counter(opened) - collections.Counter(charged)
    return [f"{label} was opened and is not on the ledger" for label in missing]


def forgotten(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """What was charged stays charged: the rows after going on begin with those of before."""
    if list(after[: len(before)]) == list(before):
        return []
    return [f"rows {list(before)} were charged, {list(after)} are on the ledger now"]


def second_answers(said: Iterable[tuple[str, bytes]]) -> list[str]:
    """0 second answers: one step of one round never has two different byte strings.

    Args:
      said: (party, round and step, as text; the bytes that left the party), over all lives of it.
    """
    heard: dict[str, set[bytes]] = collections.defaultdict(set)
    for step, blob in said:
        heard[step].add(hashlib.sha256(blob).digest())
    return [f"{step}: {len(found)} different answers" for step, found in heard.items() if len(found) > 1]


def wrong_model(model: bytes, reference: bytes) -> list[str]:
    """0 wrong models: the file is, bit for bit, that of an undisturbed run."""
    return [] if model == reference else ["the model is not that of an undisturbed run"]


def own_refusal(error: BaseException) -> list[str]:
    """0 tracebacks: a refusal is an error that the command line prints as one line, raised on purpose by the package itself."""
    name = type(error).__name__
    if not isinstance(error, ValueError | OSError | RuntimeError):
        return [f"{name} would be a traceback: {error}"]
    if isinstance(error, OSError) and error.filename is not None:
        return []  # the system's own words about a file that is named
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not frames[-1].filename.startswith(_PACKAGE):
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "nowhere"
        return [f"{name} from {where} is not the package's own: {error}"]
    if not any(word in str(error).lower() for word in _ADVICE):
        return [f"{name} does not say what to do: {error}"]
    return []
