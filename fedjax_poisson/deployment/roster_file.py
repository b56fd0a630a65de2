"""A roster as a file: TOML that people read, byte strings in hexadecimal, the signatures at its end.

The parser takes foreign bytes (the file travels by mail), so sizes and kinds are checked before anything is believed; the hash is over `roster.canonical`,
never over the text.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_poisson.deployment.roster import Party, Roster, RosterRefused, check, parties_of, roster_hash, unsigned

__all__ = ["SignedRoster", "gather", "read_roster", "roster_text"]

_MOST_TEXT = 1 << 22


class SignedRoster(NamedTuple):
    """A roster as it is read from a file: nothing but its form was checked.

    Attributes:
      roster: the consortium.
      signatures: party's name to its signature.
    """

    roster: Roster
    signatures: dict[str, bytes]


def gather(first: SignedRoster, *others: SignedRoster) -> SignedRoster:
    """One roster with the signatures of several copies that hold for it.

    Raises:
      RosterRefused: a copy is of another roster, or brings a signature that does not hold.
    """
    roster, body = first.roster, roster_hash(first.roster)
    found: dict[str, bytes] = {}
    for number, copy in enumerate((first, *others), 1):
        if roster_hash(copy.roster) != body:
            raise RosterRefused(
                f"copy {number} is of another roster ({roster_hash(copy.roster).hex()[:16]}..., not {body.hex()[:16]}...): somebody was handed another "
                "one, or changed it. Ask by another way than the one it came."
            )
        wrong = unsigned((p for p in parties_of(roster) if p.name in copy.signatures), copy.signatures, "roster", body)
        if wrong:
            raise RosterRefused(f"copy {number}: {'; '.join(wrong)}.")
        found |= copy.signatures
    return SignedRoster(roster, found)


def roster_text(roster: Roster, signatures: Mapping[str, bytes] | None = None) -> str:
    """The roster as TOML, with its hash in a comment; byte strings in hexadecimal."""
    lines = [
        f"# {roster_hash(roster).hex()}  compare this hash with every other party before you sign",
        f"name = {json.dumps(roster.name)}",
        *(f"{each} = {getattr(roster, each)}" for each in ("threshold", "malicious", "corrupt", "minimum")),
        f"members = {json.dumps(list(roster.committee))}",
    ]
    for kind, parties in (("sites", roster.sites), ("operators", roster.operators)):
        for party in parties:
            lines += ["", f"[[{kind}]]", f"name = {json.dumps(party.name)}", f'public = "{party.public.hex()}"']
            lines += [f'attestation = "{party.attestation.hex()}"'] if party.attestation else []
            lines += [f"verifier = {json.dumps(party.verifier)}"] if party.verifier else []
    if signatures:
        lines += ["", "[signatures]", *(f'{name} = "{blob.hex()}"' for name, blob in sorted(signatures.items()))]
    return "\n".join(lines) + "\n"


def read_roster(source: str | Path) -> SignedRoster:
    """A roster from a TOML file, or from its text.

    Args:
      source: a `Path`, or the text itself.

    Raises:
      OSError: the file cannot be read.
      RosterRefused: it is not a roster, or one that contradicts itself; signatures are not checked (`check_signatures`).
    """
    where = str(source) if isinstance(source, Path) else "the roster"
    text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
    if len(text) > _MOST_TEXT:
        raise RosterRefused(f"{where} has {len(text)} characters; no roster has more than {_MOST_TEXT}.")
    try:
        values = tomllib.loads(text)
        fields: dict[str, Callable[[Any], Any]] = {
            "name": _text,
            "threshold": _number,
            "malicious": _number,
            "corrupt": _number,
            "minimum": _number,
            "members": lambda found: tuple(_text(each) for each in _list(found)),
            "sites": lambda found: tuple(_party(each) for each in _list(found)),
            "operators": lambda found: tuple(_party(each) for each in _list(found)),
        }
        signatures = {name: bytes.fromhex(_text(each)) for name, each in values.pop("signatures", {}).items()}
        if strange := set(values) - set(fields):
            raise ValueError(f"it sets {min(strange)!r}; known are {', '.join(fields)}, signatures")
        read: dict[str, Any] = {name: fields[name](found) for name, found in values.items()}
        roster = Roster(**read)
    except (ValueError, TypeError, AttributeError) as error:
        raise RosterRefused(f"{where} is not a roster: {error}.") from None
    check(roster)
    return SignedRoster(roster, signatures)


def _party(found: Any) -> Party:
    if not isinstance(found, dict) or not {"name", "public"} <= set(found) <= set(Party._fields):
        raise ValueError(f"a party has name and public, and may have attestation and verifier; seen: {found!r:.120}")
    return Party(
        _text(found["name"]),
        bytes.fromhex(_text(found["public"])),
        bytes.fromhex(_text(found.get("attestation", ""))),
        _text(found.get("verifier", "")),
    )


def _text(found: Any) -> str:
    if not isinstance(found, str):
        raise ValueError(f"{found!r:.60} is not text")
    return found


def _number(found: Any) -> int:
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 1 << 31:
        raise ValueError(f"{found!r:.60} is not a number of parties")
    return found


def _list(found: Any) -> list[Any]:
    if not isinstance(found, list):
        raise ValueError(f"{found!r:.60} is not a list")
    return found
