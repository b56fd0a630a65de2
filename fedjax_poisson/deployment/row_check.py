"""Whether the summed rows of a round are the sum of its sites' own rows: what no transcript shows, and all sites' contributions together do.

A transcript names every contribution by the hash of its signed manifest, which names the rows by theirs; the rows are not in it. So whoever sums them may add
something to the sum that all sites then open alike. [proved: with the contributions of all of U the sum is one number, and any other is found;
assumed: SHA-256 without collisions, Ed25519] One site's rows alone, or all but one's, show nothing of that: the missing ones could be anything.

A contribution is a ciphertext that the coordinator had: to show it to another tells no more than it was told. It lies in `runs/RUN/client.sqlite` of its
site, with nothing secret beside it in rounds between sites. The file is read as it lies there, and never written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
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
    """Not all contributions to a sum are there, so nothing can be said of it."""


def contributions_in(store: Path) -> dict[tuple[str, int], bytes]:
    """What a site sent, by run (hexadecimal) and round, from its `client.sqlite`, or a copy of it.

    Raises:
      ValueError: it is no such file.
    """
    try:
        connection = sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            rows = connection.execute("SELECT run, round, bytes FROM taken WHERE step = 'contribution'").fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise ValueError(f"{store} is not what a site sent ({error}); give runs/RUN/client.sqlite of a site.") from None
    return {(bytes(run).hex(), int(number)): bytes(blob) for run, number, blob in rows}


def check_rows(transcript: bytes, contributions: Iterable[bytes], pinned: Pinned, roster: Iterable[bytes]) -> None:
    """Refuse a transcript whose summed rows are not the sum of its contributions.

    Args:
      transcript: of the round.
      contributions: of its sites, in any order.
      pinned: the members' keys, t, f, the roster.
      roster: keys of the sites.

    Raises:
      OpeningRefused: the sum was changed.
      MissingRows: a contribution to the sum is not there.
      RoundRefused: the transcript, or a contribution, does not hold.
    """
    terms, senders = check_transcript(transcript, pinned).terms, frozenset(roster)
    digest, params = terms_hash(terms), parameters_of(terms)
    missing = dict(shown_by("", transcript, pinned).clients)
    total = np.zeros((params.rows, params.ring.limbs, params.ring.degree), np.uint32)
    for blob in contributions:
        message = messages.decode(blob, terms, digest, lambda label: senders, ["contribution"])
        if missing.pop(message.sender, b"") != messages.manifest_hash(message):
            raise WrongTerms(
                f"The site {message.sender.hex()[:16]} gave a contribution that is not the one in this sum."
            )
        add_rows(total, read_contribution(message, params).rows, params)
    if missing:
        raise MissingRows(
            f"{len(missing)} of the sum's contributions are not there: of {', '.join(key.hex()[:16] for key in missing)}."
        )
    if (summed_rows(transcript) != total).any():
        raise OpeningRefused("The summed rows are not the sum of the sites' own: whoever summed them moved the result.")


def with_rows(
    findings: Findings,
    roster: Roster,
    transcripts: Mapping[str, bytes],
    sent: Sequence[Mapping[tuple[str, int], bytes]],
) -> Findings:
    """What a check of logs found, and of every transcript whether its rows are the sites' own.

    Args:
      findings: so far.
      roster: the consortium.
      transcripts: by the file's name; those that do not hold are in the findings already.
      sent: of each site, `contributions_in`.
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

        try:
            named = {digest for _, digest in shown.clients}  # who came too late has sent something too
            given = [one[key] for one in sent if key in one]
            inside = [rows for rows in given if messages.manifest_hash(messages.parts_of(rows)) in named]
            check_rows(blob, inside, pinned_of(roster), roster_keys(roster))
            note("rows", "the summed rows are the sum of the sites' own")
        except MissingRows as missing:
            note("rows-missing", str(missing))
        except RoundRefused as refused:
            note("rows-moved", f"{type(refused).__name__}: {refused}", grave=True)
    return findings._replace(findings=tuple(found), sound=findings.sound and not any(one.grave for one in found))
