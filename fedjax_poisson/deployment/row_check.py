"""Whether the summed rows of a round are the sum of its sites' own rows: what no transcript shows, and all sites' contributions together do.

A transcript names every contribution by the hash of its signed manifest, which names the rows by theirs; the rows are not in it. So whoever sums them may add
something to the sum that all sites then open alike. [proved: with the contributions of all of U the sum is one number, and any other is found;
assumed: SHA-256 without collisions, Ed25519] One site's rows alone, or all but one's, show nothing of that: the missing ones could be anything.

A contribution is a ciphertext that the coordinator had. It lies in `runs/RUN/client.sqlite` of its site, in rounds between sites with nothing secret beside it;
but the file has the rows, the members' boxes and the corrections of all rounds, those that opened nothing too. Whoever holds all of it can do with it what the
coordinator could: with t members' keys of a round it opens that site's part alone, and without them nothing. So it goes to those who compare, and is removed.
The file is read as it lies there, and never written. What a file holds that is not what a site signed is named by the file: it may be damaged, or anybody's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from fedjax_poisson.aggregation import messages
from fedjax_poisson.aggregation.contribution import read_contribution
from fedjax_poisson.aggregation.refusals import OpeningRefused, RoundRefused, WrongTerms
from fedjax_poisson.aggregation.server_state import add_rows
from fedjax_poisson.aggregation.terms import Pinned, parameters_of, terms_hash
from fedjax_poisson.aggregation.transcript import check_transcript, summed_rows
from fedjax_poisson.deployment.log_findings import Finding, Findings
from fedjax_poisson.deployment.log_transcripts import Shown, shown_by
from fedjax_poisson.deployment.roster import Roster, pinned_of, roster_keys

__all__ = ["MissingRows", "check_rows", "contributions_in", "with_rows"]


class MissingRows(LookupError):
    """Not all contributions to a sum are there, so nothing can be said of it.

    Attributes:
      unreadable: files whose contribution is not what a site signed, and why.
    """

    def __init__(self, words: str, unreadable: Mapping[str, str]) -> None:
        super().__init__(words)
        self.unreadable = unreadable


_STRANGE = """
SELECT 1 FROM taken
WHERE step = 'contribution' AND (typeof(run) <> 'blob' OR typeof(round) <> 'integer' OR typeof(bytes) <> 'blob') LIMIT 1
"""


def contributions_in(store: Path) -> dict[tuple[str, int], bytes]:
    """What a site sent, by run (hexadecimal) and round, from its `client.sqlite`, or a copy of it.

    Raises:
      ValueError: it is no such file.
    """
    try:
        connection = sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            if connection.execute(_STRANGE).fetchone():  # a number as bytes would ask for as much memory as it is large
                raise ValueError(
                    f"{store} is not what a site sent: a contribution in it is no bytes; ask its site for the file again."
                )
            rows = connection.execute("SELECT run, round, bytes FROM taken WHERE step = 'contribution'").fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise ValueError(f"{store} is not what a site sent ({error}); give runs/RUN/client.sqlite of a site.") from None
    return {(run.hex(), number): blob for run, number, blob in rows}


def check_rows(
    transcript: bytes, contributions: Mapping[str, bytes], pinned: Pinned, roster: Iterable[bytes]
) -> dict[str, str]:
    """Refuse a transcript whose summed rows are not the sum of its contributions.

    Args:
      transcript: of the round.
      contributions: file to what it holds of its round; one that several files hold counts once, one that came too late does not count.
      pinned: the members' keys, t, f, the roster.
      roster: keys of the sites.

    Returns:
      The files whose contribution is not what a site signed, and why; nothing was made of it.

    Raises:
      OpeningRefused: the sum was changed.
      MissingRows: a contribution to the sum is not there; `unreadable` is what would have been returned.
      RoundRefused: the transcript does not hold.
    """
    terms, senders = check_transcript(transcript, pinned).terms, frozenset(roster)
    digest, params = terms_hash(terms), parameters_of(terms)
    missing = {name: key for key, name in shown_by("", transcript, pinned).clients}
    total = np.zeros((params.rows, params.ring.limbs, params.ring.degree), np.uint32)
    unreadable: dict[str, str] = {}
    for file, blob in contributions.items():
        try:
            message = messages.decode(blob, terms, digest, lambda label: senders, ["contribution"])
            name = messages.manifest_hash(message)
            if name in missing:
                add_rows(total, read_contribution(message, params).rows, params)
                del missing[name]
        except WrongTerms:
            continue  # sent to a round of this number that other sites did not hold
        except RoundRefused as error:
            unreadable[file] = f"{type(error).__name__}: {error}"
    if missing:
        raise MissingRows(
            f"{len(missing)} of the sum's contributions are not there: of {', '.join(key.hex()[:16] for key in missing.values())}.",
            unreadable,
        )
    if (summed_rows(transcript) != total).any():
        raise OpeningRefused("The summed rows are not the sum of the sites' own: whoever summed them moved the result.")
    return unreadable


def with_rows(
    findings: Findings,
    roster: Roster,
    transcripts: Mapping[str, bytes],
    sent: Mapping[str, Mapping[tuple[str, int], bytes]],
) -> Findings:
    """What a check of logs found, and of every transcript whether its rows are the sites' own.

    Args:
      findings: so far.
      roster: the consortium.
      transcripts: by the file's name; those that do not hold are in the findings already.
      sent: file to its `contributions_in`.
    """
    found = list(findings.findings)
    for name, blob in sorted(transcripts.items()):
        try:
            shown = shown_by(name, blob, pinned_of(roster))
        except RoundRefused:
            continue
        key = (shown.run, shown.round)

        def note(kind: str, words: str, grave: bool = False, name: str = name, shown: Shown = shown) -> None:
            found.append(Finding(kind, grave, f"{name}: {words}", run=shown.run, round=shown.round))

        given = {file: one[key] for file, one in sent.items() if key in one}
        unreadable: Mapping[str, str] = {}
        try:
            unreadable = check_rows(blob, given, pinned_of(roster), roster_keys(roster))
            note("rows", "the summed rows are the sum of the sites' own")
        except MissingRows as missing:
            unreadable = missing.unreadable
            note("rows-missing", str(missing))
        except OpeningRefused as refused:
            note("rows-moved", f"{type(refused).__name__}: {refused}", grave=True)
        for file, why in unreadable.items():
            note("rows-unreadable", f"{file} holds something else than what a site signed ({why})")
    return findings._replace(findings=tuple(found), sound=findings.sound and not any(one.grave for one in found))
