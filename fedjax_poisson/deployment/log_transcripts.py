"""What the transcripts of a consortium's rounds show, in the form in which logs are held against them: each is checked again under the roster's keys."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from fedjax_poisson.aggregation import bodies, messages
from fedjax_poisson.aggregation.refusals import RoundRefused
from fedjax_poisson.aggregation.terms import Pinned, Terms, decode_terms, terms_hash
from fedjax_poisson.aggregation.transcript import check_transcript
from fedjax_poisson.aggregation.wire import Reader
from fedjax_poisson.deployment.roster import Roster, pinned_of

__all__ = ["Shown", "check_transcripts", "shown_by"]

_MAGIC_BYTES = 5
_BEFORE_INCLUDE = 4  # commit, beacon-open, seed, projections


class Shown(NamedTuple):
    """What a transcript that holds shows of its round.

    Attributes:
      name: of the file.
      run, round: which, the run in hexadecimal.
      terms: hash of the round's terms, hexadecimal.
      included: hash of the set that was answered to, hexadecimal.
      clients: (key, name of the contribution), the sites in the sum.
      counts: SHA-256 of the opened counts, int32 little-endian, hexadecimal.
      digest: SHA-256 of the transcript's bytes, hexadecimal.
    """

    name: str
    run: str
    round: int
    terms: str
    included: str
    clients: tuple[tuple[bytes, bytes], ...]
    counts: str
    digest: str


def check_transcripts(
    roster: Roster, transcripts: Mapping[str, bytes]
) -> tuple[dict[str, Shown], list[tuple[str, str]]]:
    """Check transcripts again; (those that hold, (name, why) of those that do not)."""
    pinned, holding, refused = pinned_of(roster), {}, []
    for name, blob in sorted(transcripts.items()):
        try:
            holding[name] = shown_by(name, blob, pinned)
        except RoundRefused as error:
            refused.append((name, f"{type(error).__name__}: {error}"))
    return holding, refused


def shown_by(name: str, blob: bytes, pinned: Pinned) -> Shown:
    """One transcript, checked under pinned keys.

    Raises:
      RoundRefused: by its name, what does not hold.
    """
    checked = check_transcript(blob, pinned)
    terms, body = _included(blob)
    include = bodies.read_include(body, terms)
    counts = hashlib.sha256(checked.counts.astype("<i4").tobytes()).hexdigest()
    return Shown(
        name,
        terms.run.hex(),
        terms.round,
        terms_hash(terms).hex(),
        hashlib.sha256(body).hexdigest(),
        include.clients,
        counts,
        hashlib.sha256(blob).hexdigest(),
    )


def _included(blob: bytes) -> tuple[Terms, bytes]:
    """Terms and signed set of a transcript that was checked: of the sets in it, at most one has t signatures."""
    reader = Reader(blob[_MAGIC_BYTES:])
    terms = decode_terms(reader.prefixed())
    for _ in range(1 + _BEFORE_INCLUDE):  # the certificate comes first
        reader.prefixed()
    said = [messages.parts_of(each).body for each in bodies.read_many(reader.prefixed(), len(terms.members))]
    return terms, collections.Counter(said).most_common(1)[0][0]
