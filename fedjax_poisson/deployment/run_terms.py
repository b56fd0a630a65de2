"""What a run may do: one record that every party signs before the first round, and the settings that all sites have in common.

The server chooses nothing: every site computes the run from these terms and its own records, and each round's terms name their hash (with all sums opened so
far), so a site with other run terms is in another round. What concerns one site only (its table, its ledger, its seed) is no part of them
(`common_settings.OWN`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path

from fedjax_poisson.aggregation.refusals import BadTerms, Oversize
from fedjax_poisson.aggregation.wire import Reader, prefixed, u8, u32, u64
from fedjax_poisson.deployment import identity
from fedjax_poisson.deployment.common_settings import check_common, common_config, parse_common
from fedjax_poisson.deployment.identity import Identity
from fedjax_poisson.deployment.roster import Roster, parties_of, roster_hash, unsigned
from fedjax_poisson.runs.config import Config

__all__ = [
    "PROTOCOL",
    "RunTerms",
    "check_in_time",
    "check_run_terms",
    "check_signatures",
    "common_of",
    "decode_run_terms",
    "encode_run_terms",
    "in_words",
    "moment",
    "run_terms_hash",
    "sign_run_terms",
    "signature_bytes",
    "site_config",
    "summary_line",
]

PROTOCOL = 1
"""Version of what sites and coordinator say to each other."""
MOST_CONFIG = 1 << 18
MOST_ROUNDS = 1 << 20
_MOST_TEXT = 64
_LONGEST_SECONDS = 366 * 86400
_VERSION = 2
_LABEL = "run-terms"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunTerms:
    """The terms of a run.

    Attributes:
      roster: hash of the consortium's roster.
      run: 16 bytes that name the run, fresh.
      config: the common settings (`common_config`).
      version: of the package, which every site runs.
      protocol: `PROTOCOL`.
      deadline_seconds: longest wait for the parties in one step of a round.
      most_rounds: most sums that are opened in the run, lost ones among them.
      begin_before: the last moment at which a party signs these terms or begins the run, in seconds since 1970 (UTC); a run that has begun goes on.
    """

    roster: bytes
    run: bytes
    config: str
    version: str
    deadline_seconds: int
    most_rounds: int
    begin_before: int
    protocol: int = PROTOCOL


def encode_run_terms(terms: RunTerms) -> bytes:
    """The one encoding of a run's terms."""
    return b"".join(
        [
            u8(_VERSION),
            terms.roster,
            terms.run,
            prefixed(terms.config.encode()),
            prefixed(terms.version.encode()),
            *(u32(number) for number in (terms.protocol, terms.deadline_seconds, terms.most_rounds)),
            u64(terms.begin_before),
        ]
    )


def decode_run_terms(blob: bytes) -> RunTerms:
    """A run's terms from foreign bytes, of a form that `check_run_terms` may judge.

    Raises:
      Oversize, Malformed, BadTerms: they are not terms of a run.
    """
    if len(blob) > MOST_CONFIG + 256:
        raise Oversize(f"Terms of a run of {len(blob)} bytes; at most {MOST_CONFIG + 256} are read.")
    reader = Reader(blob)
    if (version := reader.u8()) != _VERSION:
        raise BadTerms(f"Terms of a run of version {version}; this package speaks version {_VERSION}.")
    roster, run = reader.take(32), reader.take(16)
    config, package = reader.prefixed(), reader.prefixed()
    protocol, deadline, most = (reader.u32() for _ in range(3))
    before = reader.u64()
    reader.done()
    if before >= 1 << 36:
        raise BadTerms(f"begin_before = {before} is no moment in seconds since 1970.")
    if len(config) > MOST_CONFIG or len(package) > _MOST_TEXT:
        raise Oversize(f"A text in the terms of a run is longer than {MOST_CONFIG} or {_MOST_TEXT} bytes.")
    try:
        text, name = config.decode(), package.decode("ascii")
    except UnicodeDecodeError:
        raise BadTerms("A text in the terms of a run is not UTF-8.") from None
    found = RunTerms(
        roster=roster,
        run=run,
        config=text,
        version=name,
        protocol=protocol,
        deadline_seconds=deadline,
        most_rounds=most,
        begin_before=before,
    )
    common_of(found)
    return found


def run_terms_hash(terms: RunTerms) -> bytes:
    """32 bytes that name a run's terms."""
    return hashlib.sha256(b"fedjax-poisson/1/run-terms\0" + encode_run_terms(terms)).digest()


def check_run_terms(terms: RunTerms, roster: Roster, version: str, *, foreign: Collection[str] = ()) -> Config:
    """Refuse terms of a run that this site must not take part in, whatever its policy says.

    Args:
      terms: foreign.
      roster: the consortium as this site has pinned it.
      version: of this site's package; another version may compute another run.
      foreign: algorithms `module:name` that this site's policy allows.

    Returns:
      The common settings, with a stand-in for the table.

    Raises:
      BadTerms: with what was seen and what was expected.
    """
    if terms.roster != roster_hash(roster):
        raise BadTerms(
            f"The run is of the consortium {terms.roster.hex()[:16]}..., this site has pinned {roster_hash(roster).hex()[:16]}..."
        )
    if terms.protocol != PROTOCOL:
        raise BadTerms(f"The run speaks protocol {terms.protocol}, this package {PROTOCOL}.")
    if terms.version != version:
        raise BadTerms(
            f"The run is of version {terms.version!r} of the package, this site has {version!r}: all sites must have the same one, else their runs differ."
        )
    if not 1 <= terms.deadline_seconds <= 7 * 86400:
        raise BadTerms(f"deadline_seconds = {terms.deadline_seconds} must be 1 to 604800, a week.")
    if not 1 <= terms.most_rounds <= MOST_ROUNDS:
        raise BadTerms(f"most_rounds = {terms.most_rounds} must be 1 to {MOST_ROUNDS}.")
    config = common_of(terms)
    try:
        check_common(config, roster, foreign=foreign)
    except ValueError as error:
        raise BadTerms(str(error)) from None
    return config


def check_in_time(terms: RunTerms, now: datetime) -> None:
    """Refuse to sign or begin a run whose time is over, or that would wait for more than a year: what was agreed long ago is agreed anew.

    Raises:
      BadTerms: with both moments.
    """
    left = terms.begin_before - now.timestamp()
    if not 0 <= left <= _LONGEST_SECONDS:
        raise BadTerms(
            f"The run is to begin before {moment(terms.begin_before)}, and it is {moment(int(now.timestamp()))} here: "
            f"{'propose it again' if left < 0 else 'terms hold for a year at most'}; if this clock is wrong, set it."
        )


def moment(seconds: int) -> str:
    """A moment in words, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="minutes")


def signature_bytes(signatures: Mapping[str, bytes]) -> bytes:
    """Signatures by party, in the form that is kept and sent (`requests.read_signatures`)."""
    return json.dumps({name: value.hex() for name, value in sorted(signatures.items())}).encode()


def sign_run_terms(who: Identity, terms: RunTerms) -> bytes:
    """A party's signature under a run's terms."""
    return identity.sign(who, _LABEL, run_terms_hash(terms))


def check_signatures(roster: Roster, terms: RunTerms, signatures: Mapping[str, bytes]) -> None:
    """Refuse a run that not every party of the roster has signed.

    Raises:
      BadTerms: signatures are missing or wrong; all such parties are named.
    """
    refused = unsigned(parties_of(roster), signatures, _LABEL, run_terms_hash(terms))
    if refused:
        raise BadTerms(f"The terms of the run are not signed by all: {'; '.join(refused)}.")


def common_of(terms: RunTerms) -> Config:
    """The common settings, with a stand-in for the table of a site.

    Raises:
      BadTerms: they are not settings, set something of a site's own, or are not written as `common_config` writes them (two texts for one run).
    """
    try:
        config = parse_common(terms.config, {})
    except ValueError as error:
        raise BadTerms(f"The common settings of the run are refused: {error}") from None
    if common_config(config) != terms.config:
        raise BadTerms("The common settings of the run are not in their one form (common_config).")
    return config


def site_config(
    terms: RunTerms,
    *,
    csv: str | Path | None = None,
    data: str | Path | None = None,
    here: str | None = None,
    ledger: str | Path | None = None,
    ledger_epsilon: float | None = None,
    seed: int | None = None,
) -> Config:
    """The whole settings of one site: the common ones, and its own.

    Args:
      terms: of the run.
      csv: the site's table; needed where the terms name no data set, refused where they do.
      data: folder or file of images.
      here: the site's name.
      ledger: the privacy ledger of the site's data set, which all runs on it share.
      ledger_epsilon: its budget.
      seed: for rehearsals only: a run with a seed is not private.

    Raises:
      ValueError: the settings contradict each other, or the table is missing.
    """
    own = {"csv": csv, "data": data, "here": here, "ledger": ledger, "ledger_epsilon": ledger_epsilon, "seed": seed}
    if csv is None and common_of(terms).csv is not None:
        raise ValueError("the run is on a table of each site, and this site names none: set csv in its policy.")
    return parse_common(terms.config, own)


def summary_line(terms: RunTerms) -> str:
    """The terms of a run in a line, for a list of those that wait; texts from others are quoted, as in `in_words`."""
    config = common_of(terms)
    unit = "patient" if config.patient else "record"
    rounds = "" if config.rounds is None else f", {config.rounds} rounds"
    return (
        f"run {terms.run.hex()[:8]}: label {config.label!r}, epsilon {config.epsilon:g}, delta {config.delta:g}, {unit} level{rounds}; "
        f"to begin before {moment(terms.begin_before)}"
    )


def in_words(terms: RunTerms) -> str:
    """The terms of a run for who approves them by hand; texts from others are quoted, so that none can steer a terminal."""
    config = common_of(terms)
    table = "each site's own table" if config.csv is not None else f"the data set {config.dataset!r}"
    return "\n".join(
        [
            f"terms       {run_terms_hash(terms).hex()}",
            f"run         {terms.run.hex()}",
            f"consortium  {terms.roster.hex()}",
            f"data        {table}, label {config.label!r}, patient column {config.patient!r}",
            f"privacy     epsilon {config.epsilon:g}, delta {config.delta:g}, {config.adjacency}, "
            f"{'patient' if config.patient else 'record'} level unless the algorithm protects a site",
            f"training    {config.algorithm!r}, {config.model}, {config.mechanism!r}; at most {terms.most_rounds} sums are opened",
            f"scores      {config.evaluation}",
            f"begins      before {moment(terms.begin_before)}, or is proposed anew",
            f"software    version {terms.version!r}, protocol {terms.protocol}; a step waits at most {terms.deadline_seconds} s",
            "",
            "settings of all sites:",
            terms.config.rstrip(),
        ]
    )
