"""What the coordinator of a run keeps: the transcripts of opened sums, in order, and the number of the last round that it began.

A folder that is lost, or is an older copy, is filled again from the sites: each of them keeps every transcript. Nothing is believed: a transcript must hold
under the pinned keys and be of this run, and of several the one that the most sites keep at a position is taken.
"""

from __future__ import annotations

import collections
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from fedjax_poisson.aggregation.refusals import Malformed, RoundRefused
from fedjax_poisson.aggregation.terms import Pinned, Terms
from fedjax_poisson.aggregation.transcript import check_transcript, terms_of
from fedjax_poisson.aggregation.wire import u64
from fedjax_poisson.deployment.requests import Spoken
from fedjax_poisson.federated.checkpoints import write_atomic

__all__ = ["fetch_sums", "keep_sum", "last_number", "note_number", "release_of"]

_LABEL = re.compile(r"[a-z][a-z _-]{0,63} [0-9]{1,9}")
_NUMBER = "last_round.json"


def release_of(terms: Terms) -> str:
    """The release that a round is for, such as "train 3", from its terms. A file is named by it, so its form is checked: a site may say anything.

    Raises:
      Malformed: it is no name of a release.
    """
    label = terms.charge.partition(",")[0]
    if not _LABEL.fullmatch(label):
        raise Malformed(f"A round is for a release with the name {label!r:.80}.")
    return label


def keep_sum(folder: Path, opened: list[Path], transcript: bytes, terms: Terms) -> str:
    """Write the next sum down, durably, and add its path to `opened`; returns the release.

    Raises:
      Malformed: as `release_of`.
    """
    label = release_of(terms)
    path = folder / f"{len(opened):05d}-{label.replace(' ', '-')}.round"
    write_atomic(path, transcript)
    opened.append(path)
    return label


def fetch_sums(
    ask: Callable[[list[str], Spoken], Mapping[str, Spoken | str]],
    positions: Mapping[str, int],
    folder: Path,
    opened: list[Path],
    pinned: Pinned,
    run: bytes,
) -> None:
    """Get the sums that sites have and this folder lacks, as far as what they show holds.

    Args:
      ask: `(sites, request)` -> reply of each, or why there is none.
      positions: sums opened, as each site says.
      folder: where they are kept.
      opened: paths of the kept ones; grows.
      pinned: the members' keys, t, f, the roster.
      run: 16 bytes.
    """
    while ahead := [name for name, position in positions.items() if position > len(opened)]:
        said = ask(ahead, Spoken("transcript", (u64(len(opened)),))).values()
        shown = collections.Counter(
            one.parts[1] for one in said if isinstance(one, Spoken) and one.word == "kept" and len(one.parts) == 2
        )
        if not any(_kept(blob, folder, opened, pinned, run) for blob, _ in shown.most_common()):
            return


def _kept(transcript: bytes, folder: Path, opened: list[Path], pinned: Pinned, run: bytes) -> bool:
    try:
        terms = check_transcript(transcript, pinned).terms
        if terms.run == run:
            keep_sum(folder, opened, transcript, terms)
            return True
    except RoundRefused:
        pass
    return False


def last_number(folder: Path, opened: list[Path]) -> int:
    """The number of the last round that was begun, as far as the folder says; no number is used twice."""
    newest = terms_of(opened[-1].read_bytes()).round if opened else 0
    try:
        return max(newest, int(json.loads((folder / _NUMBER).read_text())["round"]))
    except FileNotFoundError:
        return newest


def note_number(folder: Path, number: int) -> None:
    """Write down, durably, that a round is begun."""
    write_atomic(folder / _NUMBER, json.dumps({"round": number}).encode())
