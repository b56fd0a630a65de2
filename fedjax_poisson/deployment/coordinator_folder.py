"""What the coordinator of a run keeps: the transcripts of opened sums, in order, and the number of the last round that it began.

A folder that is lost, or is an older copy, is filled again from the sites: each of them keeps every transcript. Nothing is believed: a transcript must hold
under the pinned keys and be of this run, and of several the one that the most sites keep at a position is taken.
"""

from __future__ import annotations

import collections
import dataclasses
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

__all__ = ["Sums", "fetch_sums", "keep_sum", "next_number", "open_sums", "release_of"]

_LABEL = re.compile(r"[a-z][a-z _-]{0,63} [0-9]{1,9}")
_NUMBER = "last_round.json"


@dataclasses.dataclass
class Sums:
    """The opened sums of a run, as the coordinator keeps them; grows while it holds the run.

    Attributes:
      folder: where they are.
      paths: of the transcripts, in the order of positions.
      last: largest number of a round that was begun or is in a transcript.
    """

    folder: Path
    paths: list[Path]
    last: int


def open_sums(folder: Path) -> Sums:
    """What a folder holds; made if it is missing.

    Raises:
      RoundRefused, ValueError: a file in it is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = sorted(folder.glob("*.round"))
    newest = terms_of(paths[-1].read_bytes()).round if paths else 0
    noted = folder / _NUMBER
    begun = int(json.loads(noted.read_text())["round"]) if noted.exists() else 0
    return Sums(folder, paths, max(newest, begun))


def next_number(sums: Sums) -> int:
    """The number of a round that begins now, written down before anybody is asked: no number is used twice."""
    sums.last += 1
    write_atomic(sums.folder / _NUMBER, json.dumps({"round": sums.last}).encode())
    return sums.last


def release_of(terms: Terms) -> str:
    """The release that a round is for, such as "train 3", from its terms. A file is named by it, so its form is checked: a site may say anything.

    Raises:
      Malformed: it is no name of a release.
    """
    label = terms.charge.partition(",")[0]
    if not _LABEL.fullmatch(label):
        raise Malformed(f"A round is for a release with the name {label!r:.80}.")
    return label


def keep_sum(sums: Sums, transcript: bytes, terms: Terms) -> str:
    """Write the next sum down, durably; returns the release.

    Raises:
      Malformed: as `release_of`.
    """
    label = release_of(terms)
    path = sums.folder / f"{len(sums.paths):05d}-{label.replace(' ', '-')}.round"
    write_atomic(path, transcript)
    sums.paths.append(path)
    sums.last = max(sums.last, terms.round)
    return label


def fetch_sums(
    ask: Callable[[list[str], Spoken], Mapping[str, Spoken | str]],
    positions: Mapping[str, int],
    sums: Sums,
    pinned: Pinned,
    run: bytes,
) -> None:
    """Get the sums that sites have and this folder lacks, as far as what they show holds.

    Args:
      ask: `(sites, request)` -> reply of each, or why there is none.
      positions: sums opened, as each site says.
      sums: those that are kept; grows.
      pinned: the members' keys, t, f, the roster.
      run: 16 bytes.
    """
    while ahead := [name for name, position in positions.items() if position > len(sums.paths)]:
        said = ask(ahead, Spoken("transcript", (u64(len(sums.paths)),))).values()
        shown = collections.Counter(
            one.parts[1] for one in said if isinstance(one, Spoken) and one.word == "kept" and len(one.parts) == 2
        )
        if not any(_kept(blob, sums, pinned, run) for blob, _ in shown.most_common()):
            return


def _kept(transcript: bytes, sums: Sums, pinned: Pinned, run: bytes) -> bool:
    try:
        terms = check_transcript(transcript, pinned).terms
        if terms.run == run:
            keep_sum(sums, transcript, terms)
            return True
    except RoundRefused:
        pass
    return False
