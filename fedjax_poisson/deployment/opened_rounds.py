"""The sums that a consortium has opened, as one site keeps them: every transcript, in order, with a hash that the next release's terms carry.

A run's position is the number of sums opened so far. What a round is for (`release_name`) hangs on the run's terms, the release's name, and the hash of all
sums before it: a site that was shown another sum than the others expects other terms from the next round on, and refuses theirs.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedjax_poisson.aggregation.refusals import BadTerms
from fedjax_poisson.aggregation.terms import Pinned
from fedjax_poisson.aggregation.transcript import Checked, check_transcript
from fedjax_poisson.aggregation.wire import prefixed, u64
from fedjax_poisson.federated.checkpoints import write_atomic

__all__ = ["OpenedRound", "chained", "counts_hash", "keep", "kept_rounds", "release_name"]

_START = hashlib.sha256(b"fedjax-poisson/1/opened\0").digest()


class OpenedRound(NamedTuple):
    """One opened sum.

    Attributes:
      position: 0, 1, ... in the order of opening.
      label: the release, such as "train 3".
      path: of its transcript.
      checked: what the transcript showed.
    """

    position: int
    label: str
    path: Path
    checked: Checked


def counts_hash(counts: np.ndarray) -> bytes:
    """32 bytes of opened counts, int32 `[D]`, in one byte order."""
    return hashlib.sha256(np.ascontiguousarray(counts, "<i4").tobytes()).digest()


def chained(rounds: list[OpenedRound]) -> bytes:
    """The hash over all opened sums."""
    head = _START
    for one in rounds:
        head = hashlib.sha256(head + prefixed(one.label.encode()) + counts_hash(one.checked.counts)).digest()
    return head


def release_name(run_terms: bytes, label: str, rounds: list[OpenedRound]) -> bytes:
    """What `Terms.model` of a release must be.

    Args:
      run_terms: hash of the run's terms.
      label: the release.
      rounds: sums opened before it.
    """
    body = run_terms + prefixed(label.encode()) + u64(len(rounds)) + chained(rounds)
    return hashlib.sha256(b"fedjax-poisson/1/release\0" + body).digest()


def keep(folder: Path, position: int, label: str, transcript: bytes, checked: Checked) -> OpenedRound:
    """Write a transcript down, durably, before anything is made of its sum."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{position:05d}-{label.replace(' ', '-')}.round"
    write_atomic(path, transcript)
    return OpenedRound(position, label, path, checked)


def kept_rounds(folder: Path, pinned: Pinned) -> list[OpenedRound]:
    """What `keep` wrote, each checked again.

    Raises:
      BadTerms: a position is missing or stands twice.
      RoundRefused: a transcript does not hold, by its name.
    """
    found: list[OpenedRound] = []
    for path in sorted(folder.glob("*.round")):
        number, _, words = path.stem.partition("-")
        purpose, _, count = words.rpartition("-")
        if not number.isdigit() or int(number) != len(found):
            raise BadTerms(
                f"{folder}: {path.name} stands where position {len(found)} was expected; restore the folder from a backup."
            )
        checked = check_transcript(path.read_bytes(), pinned)
        found.append(OpenedRound(len(found), f"{purpose} {count}", path, checked))
    return found
