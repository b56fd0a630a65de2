"""Who a consortium is: its sites, its committee and the bounds that all of them sign once and pin from then on.

The roster stands outside the server's reach: a file that every party was handed by people, compared by its hash (read it out on the telephone), and signed.
What a round's terms say is held against it (`pinned_of`). An attestation (a quote of a trusted execution environment, a certificate of an auditor) is
opaque bytes that are pinned and shown with the party; whoever reads the roster may check it with a function of its own (`attested`). No guarantee of this
package rests on one. Keys in the roster are public; nothing in it is secret.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from fedjax_poisson.aggregation.parameters import least_threshold
from fedjax_poisson.aggregation.refusals import BadSignature
from fedjax_poisson.aggregation.terms import MOST_MEMBERS, Pinned
from fedjax_poisson.aggregation.terms import roster_hash as hash_of_clients
from fedjax_poisson.aggregation.wire import prefixed, u8, u32
from fedjax_poisson.deployment import identity
from fedjax_poisson.deployment.identity import Identity

__all__ = [
    "NAME",
    "Party",
    "Roster",
    "RosterRefused",
    "Verifier",
    "attested",
    "canonical",
    "check",
    "check_signatures",
    "named",
    "parties_of",
    "party_of",
    "pinned_of",
    "roster_hash",
    "roster_keys",
    "sign_roster",
    "unsigned",
]

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
"""Names of parties."""
MOST_SITES = 1000
_MOST_ATTESTATION = 1 << 16
_LABEL = "roster"


class RosterRefused(ValueError):
    """A roster that contradicts itself, is not the one that was signed, or lacks a signature."""


class Party(NamedTuple):
    """One site or operator.

    Attributes:
      name: small letters, digits, hyphens and underscores; at most 32.
      public: its Ed25519 key, 32 bytes.
      attestation: opaque bytes, pinned and shown.
      verifier: the name of what can check them; empty for none.
    """

    name: str
    public: bytes
    attestation: bytes = b""
    verifier: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roster:
    """A consortium. `check` says what must hold.

    Attributes:
      name: of the consortium; for people.
      sites: who has data, and sends contributions.
      operators: members of the committee that have no data.
      members: names of the committee, in the order of their numbers 1..m; empty: all sites, in their order.
      threshold: t, members that open a sum.
      malicious: f, members that may do anything.
      corrupt: sites that are assumed corrupt; the privacy account counts on minimum - corrupt.
      minimum: fewest sites whose sum is opened.
    """

    name: str
    sites: tuple[Party, ...]
    threshold: int
    malicious: int
    corrupt: int
    minimum: int
    members: tuple[str, ...] = ()
    operators: tuple[Party, ...] = ()

    @property
    def committee(self) -> tuple[str, ...]:
        """Names of the members 1..m."""
        return self.members or tuple(party.name for party in self.sites)


Verifier = Callable[[Party], str]
"""Checks a party's attestation: what it shows, in words; raises `ValueError` if it does not hold."""


def parties_of(roster: Roster) -> tuple[Party, ...]:
    """Sites, then operators."""
    return roster.sites + roster.operators


def party_of(roster: Roster, name: str) -> Party:
    """The party of a name.

    Raises:
      RosterRefused: there is none.
    """
    for party in parties_of(roster):
        if party.name == name:
            return party
    raise RosterRefused(
        f"{name!r} is not on the roster {roster.name!r}; on it are {', '.join(p.name for p in parties_of(roster))}."
    )


def named(roster: Roster, public: bytes) -> str:
    """The name of a key; the start of the key itself where the roster does not know it."""
    return next((party.name for party in parties_of(roster) if party.public == public), public.hex()[:16])


def check(roster: Roster) -> None:
    """Refuse a roster that contradicts itself or under which nothing would be private.

    Raises:
      RosterRefused: with what was seen.
    """
    if not roster.name.strip() or len(roster.name) > 200 or not roster.name.isprintable():
        raise RosterRefused(f"the consortium's name {roster.name[:60]!r} must be 1 to 200 printable characters.")
    if not 2 <= len(roster.sites) <= MOST_SITES:
        raise RosterRefused(
            f"{len(roster.sites)} sites; a consortium has 2 to {MOST_SITES}, for a sum over one hides nothing."
        )
    parties = parties_of(roster)
    names, publics = [party.name for party in parties], [party.public for party in parties]
    for party in parties:
        if not NAME.fullmatch(party.name):
            raise RosterRefused(
                f"the name {party.name[:60]!r} must be 1 to 32 of a-z, 0-9, '-' and '_', and begin with a letter or digit."
            )
        if len(party.public) != 32:
            raise RosterRefused(f"the key of {party.name} has {len(party.public)} bytes; an Ed25519 key has 32.")
        if len(party.attestation) > _MOST_ATTESTATION:
            raise RosterRefused(
                f"the attestation of {party.name} has {len(party.attestation)} bytes; at most {_MOST_ATTESTATION} are pinned."
            )
        if party.verifier and not NAME.fullmatch(party.verifier):
            raise RosterRefused(
                f"the verifier of {party.name} is {party.verifier[:60]!r}; names are like those of parties."
            )
    if twice := _twice(names):
        raise RosterRefused(f"the name {twice!r} stands twice.")
    if (key := _twice(publics)) is not None:
        who = [party.name for party in parties if party.public == key]
        raise RosterRefused(f"{' and '.join(who)} have the same key: one party under two names counts twice.")
    _check_committee(roster, set(names))
    if not 0 <= roster.corrupt or roster.minimum - roster.corrupt < 1:
        raise RosterRefused(
            f"minimum = {roster.minimum} with {roster.corrupt} sites assumed corrupt: a sum must hold an honest one, minimum - corrupt >= 1."
        )
    if not 2 <= roster.minimum <= len(roster.sites):
        raise RosterRefused(
            f"minimum = {roster.minimum} of {len(roster.sites)} sites; it must be 2 to {len(roster.sites)}."
        )


def _check_committee(roster: Roster, names: set[str]) -> None:
    members = roster.committee
    if twice := _twice(members):
        raise RosterRefused(f"the member {twice!r} stands twice.")
    if strangers := [name for name in members if name not in names]:
        raise RosterRefused(f"the member {strangers[0]!r} is neither a site nor an operator.")
    if idle := [party.name for party in roster.operators if party.name not in members]:
        raise RosterRefused(f"the operator {idle[0]!r} is not a member, so it has no part in anything; leave it out.")
    m, t, f = len(members), roster.threshold, roster.malicious
    if not 2 <= m <= MOST_MEMBERS:
        raise RosterRefused(
            f"{m} members; a committee has 2 to {MOST_MEMBERS}: name some of the sites with members = [...]."
        )
    if not 0 <= f < m:
        raise RosterRefused(f"malicious = {f} of {m} members; it must be 0 to {m - 1}.")
    if not least_threshold(m, f) <= t <= m:
        raise RosterRefused(
            f"threshold = {t} of {m} members with {f} malicious: 2 t > m + f is needed, else two sums over different sites could be opened; "
            f"the least is {least_threshold(m, f)}."
        )
    if t < 2:
        raise RosterRefused("threshold = 1: a single member could open every site's counts.")


def _twice(values: Iterable[Any]) -> Any:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def canonical(roster: Roster) -> bytes:
    """The bytes of a roster that its hash is over: everything but the signatures."""

    def texts(values: Iterable[str]) -> bytes:
        return b"".join(prefixed(value.encode()) for value in values)

    def listed(parties: tuple[Party, ...]) -> bytes:
        return u32(len(parties)) + b"".join(
            texts([p.name]) + prefixed(p.public) + prefixed(p.attestation) + texts([p.verifier]) for p in parties
        )

    members = roster.committee
    numbers = (roster.threshold, roster.malicious, roster.corrupt, roster.minimum)
    return b"".join(
        [
            u8(1),
            texts([roster.name]),
            listed(roster.sites),
            listed(roster.operators),
            u32(len(members)),
            texts(members),
            *(u32(number) for number in numbers),
        ]
    )


def roster_hash(roster: Roster) -> bytes:
    """32 bytes that name the consortium."""
    return hashlib.sha256(b"fedjax-poisson/1/consortium\0" + canonical(roster)).digest()


def roster_keys(roster: Roster) -> frozenset[bytes]:
    """Keys of the sites: who may contribute."""
    return frozenset(party.public for party in roster.sites)


def pinned_of(roster: Roster) -> Pinned:
    """What a party of the consortium holds a round's terms against: light rounds, without noise senders (every site sends its own noise)."""
    return Pinned(
        members=tuple(party_of(roster, name).public for name in roster.committee),
        threshold=roster.threshold,
        malicious=roster.malicious,
        roster=hash_of_clients(tuple(roster_keys(roster))),
        least_honest=roster.minimum - roster.corrupt,
        corrupt=roster.corrupt,
    )


def sign_roster(who: Identity, roster: Roster) -> bytes:
    """A party's signature: it has compared the hash with the others, and knows whose keys these are.

    Raises:
      RosterRefused: the roster does not hold, or the key is not on it.
    """
    check(roster)
    if who.public not in {party.public for party in parties_of(roster)}:
        raise RosterRefused(
            f"this key ({who.public.hex()[:16]}...) is not on the roster {roster.name!r}: send it to who makes the roster."
        )
    return identity.sign(who, _LABEL, roster_hash(roster))


def check_signatures(roster: Roster, signatures: Mapping[str, bytes]) -> None:
    """Refuse a roster that not every party has signed.

    Raises:
      RosterRefused: it does not hold (`check`), or a signature is missing or wrong; all such parties are named.
    """
    check(roster)
    refused = unsigned(parties_of(roster), signatures, _LABEL, roster_hash(roster))
    if refused:
        raise RosterRefused(f"the roster {roster.name!r} is not signed by all: {'; '.join(refused)}.")


def unsigned(parties: Iterable[Party], signatures: Mapping[str, bytes], label: str, body: bytes) -> list[str]:
    """What is wrong with each party's signature, in words; those of names that are no party count too."""
    found, known = [], set()
    for party in parties:
        known.add(party.name)
        if party.name not in signatures:
            found.append(f"that of {party.name} is missing")
            continue
        try:
            identity.verify(party.public, label, body, signatures[party.name])
        except BadSignature:
            found.append(f"that of {party.name} is wrong (of another key, or of other contents)")
    return found + [f"{name[:32]} is no party" for name in signatures if name not in known]


def attested(roster: Roster, verifiers: Mapping[str, Verifier]) -> dict[str, str]:
    """What the attestations show, in words, by party; nothing rests on it (module docstring).

    Args:
      roster: the consortium.
      verifiers: name to function, chosen by whoever reads the roster and never named by it alone: a roster comes from others.
    """
    found = {}
    for party in parties_of(roster):
        if not party.attestation and not party.verifier:
            continue
        if party.verifier not in verifiers:
            found[party.name] = f"not checked: there is no verifier {party.verifier!r} here"
            continue
        try:
            found[party.name] = verifiers[party.verifier](party)
        except ValueError as error:
            found[party.name] = f"does not hold: {error}"
    return found
