"""What stands in the bodies of messages and notices, and the checks of it that members, the server and any reader share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fedjax_poisson.aggregation import judging, messages
from fedjax_poisson.aggregation.judging import Shown
from fedjax_poisson.aggregation.keys import Hidden
from fedjax_poisson.aggregation.messages import entries_of, read_entries
from fedjax_poisson.aggregation.parameters import RoundParameters
from fedjax_poisson.aggregation.refusals import MissingNoise, NoQuorum, Oversize, WrongTerms
from fedjax_poisson.aggregation.round_keys import RoundKey
from fedjax_poisson.aggregation.terms import Terms
from fedjax_poisson.aggregation.wire import Reader, prefixed, read_residues, residue_bytes, u8, u32

__all__ = [
    "Handed",
    "Include",
    "check_include",
    "check_noise",
    "commit_body",
    "commit_hash",
    "commitment",
    "handed_body",
    "include_body",
    "key_list",
    "many",
    "new_beacon",
    "projections_body",
    "read_commit",
    "read_handed",
    "read_include",
    "read_key_list",
    "read_many",
    "read_scalars",
    "seed_of",
]

Entries = tuple[tuple[bytes, bytes], ...]
"""Clients in order: (key, manifest hash)."""


class Handed(NamedTuple):
    """What the server hands a member of one contribution: the signed manifest, the member's box and its correction (empty below t)."""

    signed: bytes
    box: bytes
    correction: bytes


class Include(NamedTuple):
    """The set that is opened.

    Attributes:
      clients: U.
      members: M, numbers in order: whose scalars decided, and who answers.
      left_out: clients of D that are not in U, with a number of `REASONS`.
    """

    clients: Entries
    members: tuple[int, ...]
    left_out: tuple[tuple[bytes, int], ...]


def new_beacon() -> Hidden:
    """A member's part of the beacon: 32 random bytes and a salt of 32."""
    return Hidden(os.urandom(64))


def commitment(beacon: Hidden | bytes) -> bytes:
    """The hash that a round key commits to a beacon with."""
    raw = beacon.value if isinstance(beacon, Hidden) else beacon
    return hashlib.sha256(b"fedjax-poisson/1/beacon\0" + raw).digest()


def seed_of(
    terms: Terms, round_keys: Sequence[RoundKey | None], committed: Entries, parts: Mapping[bytes, bytes]
) -> bytes:
    """The seed of the functionals: a hash of D and of every member's part; zero for one that is missing or unlike its commitment.

    Who withholds parts chooses among drawings: f members among 2^f, a server that hides honest members' parts among 2^(m - t + f). That costs as many bits
    of soundness and no privacy.
    """
    state = hashlib.sha256(b"fedjax-poisson/1/seed\0" + commit_hash(committed))
    for member, key in zip(terms.members, round_keys, strict=True):
        part = parts.get(member, b"")
        good = key is not None and len(part) == 64 and commitment(part) == key.commitment
        state.update(part[:32] if good else bytes(32))
    return state.digest()


def commit_body(entries: Entries, certificate: bytes = b"") -> bytes:
    """What members sign of D: its entries, and in norm rounds the name of the certificate that all of its clients were shown."""
    return entries_of(entries) + certificate


def commit_hash(entries: Entries) -> bytes:
    """The name of D."""
    return hashlib.sha256(entries_of(entries)).digest()


def read_commit(body: bytes, terms: Terms) -> Entries:
    """D from bytes.

    Raises:
      RoundRefused: too many, a client twice, or bytes left over.
    """
    reader = Reader(body)
    found = read_entries(reader, terms.parties)
    if terms.norm is not None:
        reader.take(32)
    reader.done()
    return found


def key_list(found: Iterable[bytes]) -> bytes:
    """Client keys in order."""
    ordered = sorted(found)
    return u32(len(ordered)) + b"".join(ordered)


def read_key_list(body: bytes, most: int) -> tuple[bytes, ...]:
    """The inverse of `key_list`."""
    reader = Reader(body)
    count = reader.u32()
    if count > most:
        raise Oversize(f"A list of {count} clients; the terms have {most}.")
    found = reader.increasing(count, 32)
    reader.done()
    return tuple(found)


def many(blobs: Iterable[bytes]) -> bytes:
    """Several messages behind one another."""
    listed = list(blobs)
    return u32(len(listed)) + b"".join(prefixed(blob) for blob in listed)


def read_many(body: bytes, most: int) -> list[bytes]:
    """The inverse of `many`."""
    reader = Reader(body)
    count = reader.u32()
    if count > most:
        raise Oversize(f"{count} messages; at most {most} are expected.")
    found = [reader.prefixed() for _ in range(count)]
    reader.done()
    return found


def handed_body(handed: Iterable[Handed]) -> bytes:
    """What a member gets of all contributions."""
    listed = list(handed)
    return u32(len(listed)) + b"".join(prefixed(part) for one in listed for part in one)


def read_handed(body: bytes, terms: Terms) -> list[Handed]:
    """The inverse of `handed_body`."""
    reader = Reader(body)
    count = reader.u32()
    if count > terms.parties:
        raise Oversize(f"{count} contributions; the terms have {terms.parties}.")
    found = [Handed(reader.prefixed(), reader.prefixed(), reader.prefixed()) for _ in range(count)]
    reader.done()
    return found


def include_body(include: Include) -> bytes:
    """U, M and who is left out, as bytes."""
    left = sorted(include.left_out)
    return b"".join(
        [
            entries_of(include.clients),
            u8(len(include.members)),
            bytes(include.members),
            u32(len(left)),
            *(key + u8(reason) for key, reason in left),
        ]
    )


def read_include(body: bytes, terms: Terms) -> Include:
    """The inverse of `include_body`.

    Raises:
      RoundRefused: by its name.
    """
    reader = Reader(body)
    clients = read_entries(reader, terms.parties)
    members = tuple(reader.take(reader.u8()))
    if list(members) != sorted(set(members)) or not all(1 <= k <= len(terms.members) for k in members):
        raise WrongTerms("The members of a set are not distinct numbers in order.")
    count = reader.u32()
    if count > terms.parties:
        raise Oversize(f"A list of {count} clients; the terms have {terms.parties}.")
    left = tuple((entry[:32], entry[32]) for entry in reader.increasing(count, 33))
    reader.done()
    if {key for key, _ in left} & {key for key, _ in clients}:
        raise WrongTerms("A client is both in the set and left out.")
    return Include(clients, members, left)


def projections_body(seed: bytes, committed: Entries, shown: Shown, params: RoundParameters) -> bytes:
    """A member's scalars of all of D, and in norm rounds the names of the proofs that they are about."""
    flat = np.moveaxis(shown.scalars, -1, 0).reshape(params.ring.limbs, -1)
    return seed + commit_hash(committed) + b"".join(shown.proofs) + residue_bytes(flat, params.ring.moduli)


def read_scalars(
    blobs: Iterable[bytes], terms: Terms, digest: bytes, params: RoundParameters, seed: bytes, committed: Entries
) -> dict[int, Shown]:
    """Member number to what it showed in signed `projections` for this seed and D.

    Raises:
      RoundRefused: one is not signed by a member, or is for another seed or set.
    """
    found: dict[int, Shown] = {}
    count = len(committed)
    for blob in blobs:
        message = messages.decode(blob, terms, digest, lambda label: terms.members, ["projections"])
        reader = Reader(message.body)
        if reader.take(32) != seed or reader.take(32) != commit_hash(committed):
            raise WrongTerms("Projections for another seed or another set.")
        proofs = tuple(reader.take(32) for _ in range(count)) if terms.norm is not None else ()
        flat = read_residues(reader.rest(), (), count * params.scalars, params.ring.moduli)
        scalars = np.moveaxis(flat.reshape(-1, count, params.scalars), 0, -1)
        found[terms.members.index(message.sender) + 1] = Shown(scalars, proofs)
    return found


def check_noise(entries: Entries, terms: Terms) -> Entries:
    """The entries of clients, once those of all noise senders were found among them; in light rounds all of them.

    Raises:
      MissingNoise: a noise sender is not in the set: the sum would carry less noise than is charged.
    """
    senders = set(terms.noise)
    if not senders <= {key for key, _ in entries}:
        raise MissingNoise("A noise sender is not in the set: its sum would carry less noise than is charged.")
    return tuple(entry for entry in entries if entry[0] not in senders)


def check_include(
    include: Include,
    shown: Mapping[int, Shown],
    terms: Terms,
    digest: bytes,
    params: RoundParameters,
    seed: bytes,
    committed: Entries,
) -> None:
    """Refuse a set whose clients do not pass screening by the scalars of its members.

    M is either all members that showed scalars, or at least t + f of them: it then holds t honest ones, so what it agrees on is the truth; in norm rounds it is
    at least t + f in any case, since with fewer a liar could make any vector pass. Whether a proof is
    about a client's rows is not checked here: that needs the rows (`judging.reasons`).

    Raises:
      NoQuorum: a member of M showed nothing, M is too small, or a client of U does not pass.
      MissingNoise: a noise sender is not in U.
    """
    if not set(include.members) <= set(shown) or len(include.members) < params.threshold:
        raise NoQuorum(f"{len(include.members)} members decide, {params.threshold} with scalars are needed.")
    some = set(include.members) != set(shown) or terms.norm is not None
    if some and len(include.members) < params.threshold + terms.malicious:
        raise NoQuorum(
            f"Only {len(include.members)} of the members that sent scalars decide: {params.threshold + terms.malicious} are needed."
        )
    check_noise(include.clients, terms)
    noise = [key in terms.noise for key, _ in committed]
    found = judging.reasons(params, digest, seed, {k: shown[k] for k in include.members}, noise, None)
    reasons = dict(zip(committed, found.tolist(), strict=True))
    failed = sum(reasons[entry] != 0 for entry in include.clients)
    if failed:
        raise NoQuorum(f"{failed} clients of the set do not pass screening.")
    _check_left_out(include, {key: reason for (key, _), reason in reasons.items()}, terms)


def _check_left_out(include: Include, reasons: Mapping[bytes, int], terms: Terms) -> None:
    """Refuse a set that leaves out a client which passes, or names another reason than the scalars show.

    In norm rounds who has the rows may say of a client which passes here that its proof is not about its rows.
    """
    rest = set(reasons) - {key for key, _ in include.clients}
    if {key for key, _ in include.left_out} != rest:
        raise WrongTerms("Those left out are not the rest of the committed set.")
    for key, reason in include.left_out:
        seen = reasons[key] or (judging.OTHER_ROWS if terms.norm is not None else 0)
        if not reason or reason != seen:
            raise WrongTerms("A client is left out for a reason that the scalars do not show.")
