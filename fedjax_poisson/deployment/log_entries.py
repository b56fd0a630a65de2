"""Entries of a site's log: what they may say, the chain of hashes over them, and the signature under each.

An entry is a line of JSON. Its hash covers number, time, kind, facts and the hash before it; the first one hangs on the site's public key; the site's key
signs the hash. So a log that was changed, reordered or written by another does not check, and two different entries of one number, both signed, prove that
the site kept two logs. What a chain cannot show by itself is that lines were cut from its end: other sites' logs and the transcripts do (`log_check`).
[assumed: SHA-256 without collisions, Ed25519]

Nothing about a person can enter by accident: every kind has its own facts, each of one form (a hash, a size, a number, a name from the code).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from fedjax_poisson.aggregation.refusals import BadSignature
from fedjax_poisson.deployment import identity
from fedjax_poisson.deployment.identity import Identity

__all__ = [
    "KINDS",
    "Entry",
    "LogDamaged",
    "check_chain",
    "check_facts",
    "entry_of",
    "genesis",
    "line_of",
    "make_entry",
]

_LABEL = "log"
MOST_LINE = 1 << 20
_HEX = re.compile(r"(?:[0-9a-f]{2})+")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,63}( [0-9]{1,10})?")
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]{0,31}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")


class LogDamaged(RuntimeError):
    """A log that is not what its site wrote, with the first entry that does not fit."""


class Entry(NamedTuple):
    """One entry.

    Attributes:
      number: 1, 2, ...
      time: UTC to the second; for people, nothing rests on it.
      kind: one of `KINDS`.
      facts: JSON values of the kind.
      previous: hash of the entry before, 32 bytes.
      hash: 32 bytes.
      signature: 64 bytes over the hash.
    """

    number: int
    time: str
    kind: str
    facts: dict[str, Any]
    previous: bytes
    hash: bytes
    signature: bytes


def _hex(size: int) -> Any:
    return lambda value: isinstance(value, str) and len(value) == 2 * size and bool(_HEX.fullmatch(value))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _word(value: Any) -> bool:
    return isinstance(value, str) and bool(_WORD.fullmatch(value))


def _version(value: Any) -> bool:
    return isinstance(value, str) and bool(_VERSION.fullmatch(value))


def _words(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(_word(each) for each in value)


def _keys(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(_hex(32)(each) for each in value)


_RUN, _ROUND = {"run": _hex(16)}, {"run": _hex(16), "round": _whole}
KINDS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "terms": {**_RUN, "terms": _hex(32), "roster": _hex(32)},
        "started": {**_RUN, "version": _version},
        "charge": {**_ROUND, "label": _word, "epsilon": _number, "rows": _whole, "ledger": _hex(32)},
        "contribution": {**_ROUND, "terms": _hex(32), "digest": _hex(32), "bytes": _whole},
        "answer": {**_ROUND, "included": _hex(32), "bytes": _whole},
        "opened": {
            **_ROUND,
            "terms": _hex(32),
            "label": _word,
            "transcript": _hex(32),
            "counts": _hex(32),
            "clients": _keys,
            "epsilon": _number,
        },
        "refused": {"reasons": _words},
        "dead": {**_ROUND, "terms": _hex(32)},
        "ended": {**_RUN, "model": _hex(32)},
        "repaired": {"bytes": _whole, "removed": _hex(32)},
    }
)
"""Kind to its facts, and to what each must be. Of all kinds but "refused" the facts named here are needed, and no others are allowed; "refused" may
say of which run and round.

terms: the site signed a run's terms (hash), of the consortium (roster, hash). started: the worker began on them, with this version of the package.
charge: its ledger was charged for the round's sum: label, epsilon so far, the ledger's rows and head (`Ledger.pin`); before the contribution.
contribution: the signed manifest's name (`messages.manifest_hash`) and the bytes sent, under the round's terms (hash).
answer: as a member, to the set that is named by `included` (SHA-256 of the signed body). opened: SHA-256 of the transcript that the site checked and of the
counts (int32, little-endian), keys of the sites in the sum, epsilon so far. dead: t members signed that the round opens nothing. ended: the model's digest.
refused: names of refusals or keys of the policy. repaired: a torn last line was cut off."""
_MAY = {"refused": _ROUND}


def check_facts(kind: str, facts: Mapping[str, Any]) -> None:
    """Refuse facts that a kind does not have, or that have another form: no free text enters a log.

    Raises:
      ValueError: with the fact.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r:.40} is no kind of entry; kinds are {', '.join(KINDS)}.")
    wanted, allowed = KINDS[kind], {**KINDS[kind], **_MAY.get(kind, {})}
    if missing := [name for name in wanted if name not in facts]:
        raise ValueError(f'an entry "{kind}" needs {", ".join(missing)}.')
    for name, value in facts.items():
        if name not in allowed:
            raise ValueError(f'an entry "{kind}" has no {name!r:.40}; it has {", ".join(allowed)}.')
        if not allowed[name](value):
            raise ValueError(
                f'{name} of an entry "{kind}" is not of its form: hashes are hexadecimal, words are names from the code; free text does not enter a log.'
            )


def genesis(public: bytes) -> bytes:
    """What the first entry of a site's log hangs on."""
    return hashlib.sha256(b"fedjax-poisson/1/site-log\0" + public).digest()


def _hash(number: int, time: str, kind: str, facts: Mapping[str, Any], previous: bytes) -> bytes:
    body = json.dumps([number, time, kind, facts, previous.hex()], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(b"fedjax-poisson/1/site-log-entry\0" + body.encode()).digest()


def make_entry(who: Identity, number: int, time: str, kind: str, facts: Mapping[str, Any], previous: bytes) -> Entry:
    """The next entry, signed.

    Raises:
      ValueError: the facts are not those of the kind.
    """
    plain = json.loads(json.dumps(dict(facts)))
    check_facts(kind, plain)
    digest = _hash(number, time, kind, plain, previous)
    return Entry(number, time, kind, plain, previous, digest, identity.sign(who, _LABEL, digest))


def line_of(entry: Entry) -> bytes:
    """The line of an entry, with its newline."""
    value = {
        "number": entry.number,
        "time": entry.time,
        "kind": entry.kind,
        "facts": entry.facts,
        "previous": entry.previous.hex(),
        "hash": entry.hash.hex(),
        "signature": entry.signature.hex(),
    }
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def entry_of(line: bytes, place: int) -> Entry:
    """An entry from its line; its form is checked, its hash and signature are not (`check_chain`).

    Args:
      line: foreign bytes.
      place: number of the line, for the message.

    Raises:
      LogDamaged: it is not an entry.
    """
    try:
        if len(line) > MOST_LINE:
            raise ValueError("too long")
        value = json.loads(line)
        if not isinstance(value, dict) or set(value) != set(Entry._fields):
            raise ValueError("other fields")
        number, time, kind, facts = (value[name] for name in ("number", "time", "kind", "facts"))
        if not _whole(number) or not isinstance(time, str) or not isinstance(kind, str) or not isinstance(facts, dict):
            raise ValueError("other forms")
        if not _TIME.fullmatch(time):
            raise ValueError("no time")
        check_facts(kind, facts)
        sizes = {"previous": 32, "hash": 32, "signature": 64}
        if not all(_hex(size)(value[name]) for name, size in sizes.items()):
            raise ValueError("no hashes")
        previous, digest, signature = (bytes.fromhex(value[name]) for name in sizes)
    except (ValueError, RecursionError) as error:
        raise LogDamaged(f"line {place} is no entry of a log ({error!s:.200}).") from None
    return Entry(number, time, kind, facts, previous, digest, signature)


def check_chain(entries: Sequence[Entry], public: bytes) -> None:
    """Refuse entries that do not follow from one another from the first on, or that the key has not signed.

    Raises:
      LogDamaged: with the first entry that does not fit.
    """
    previous = genesis(public)
    for place, entry in enumerate(entries, 1):
        if entry.number != place:
            raise LogDamaged(f"entry {place} has the number {entry.number}: entries are missing, or were reordered.")
        if entry.previous != previous:
            raise LogDamaged(
                f"entry {place} does not follow from the one before: {'it is the log of another key' if place == 1 else 'that was replaced'}."
            )
        if _hash(entry.number, entry.time, entry.kind, entry.facts, entry.previous) != entry.hash:
            raise LogDamaged(f"entry {place} was changed: its hash is of other contents.")
        try:
            identity.verify(public, _LABEL, entry.hash, entry.signature)
        except BadSignature:
            raise LogDamaged(f"entry {place} is not signed by the site's key.") from None
        previous = entry.hash
