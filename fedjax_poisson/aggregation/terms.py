"""What a round is: one record that everybody signs by its hash, and the checks against what each party has pinned.

The common `a`, the points of the shares and every signature hang on the hash of these bytes, so a change of any field is another round. Nothing in the terms
is trusted: a client or a member compares them with what it was given outside the server's reach (`Pinned`) and computes the parameters again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from typing import NamedTuple

from fedjax_poisson.aggregation.norm_bound import NormScreening
from fedjax_poisson.aggregation.parameters import RoundParameters, choose, least_threshold
from fedjax_poisson.aggregation.refusals import BadTerms, Oversize
from fedjax_poisson.aggregation.wire import Reader, prefixed, u8, u32, u64

__all__ = [
    "MOST_CLIENTS",
    "MOST_MEMBERS",
    "Pinned",
    "Terms",
    "check_terms",
    "decode_terms",
    "encode_terms",
    "mechanism_facts",
    "parameters_of",
    "roster_hash",
    "terms_hash",
]

VERSION = 2
MOST_MEMBERS = 20
MOST_CLIENTS = 1 << 20
MOST_NOISE_SENDERS = 64
MOST_VALUES = 1 << 28
_MOST_TEXT = 1 << 14
_ROUND_KEY_BYTES = 1 << 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Terms:
    """The terms of one round.

    Attributes:
      run: 16 bytes that name the run.
      round: number of the round, larger than any before it in the run.
      model: SHA-256 of what the clients contribute to.
      mechanism: facts of the mechanism as canonical JSON, integers and decimals as text.
      charge: what the release costs, in words; for people.
      size: D.
      count_bound: bound on |any coordinate of the sum|.
      count_rms: root mean square that the counts of an honest sum keep to, in thousandths; 0 if not stated.
      senders: most clients.
      minimum: fewest clients whose sum is opened.
      corrupt: clients assumed corrupt; the ledger counts minimum - corrupt honest senders.
      threshold: t.
      malicious: f.
      members: the members' keys, in the order of their numbers 1..m.
      round_keys: each member's signed `round-key` message for this round.
      roster: hash of the enrolled clients' keys.
      noise: keys of the senders of noise, increasing; none in a light round, whose clients send noise of their own.
      honest_noise: how many of them the privacy cost counts on.
      squared_norm: Delta^2, bound on the squared L2 norm of one client's counts; 0 in a light round, which bounds nothing.
    """

    run: bytes
    round: int
    model: bytes
    mechanism: str
    charge: str
    size: int
    count_bound: int
    count_rms: int = 0
    senders: int
    minimum: int
    corrupt: int
    threshold: int
    malicious: int
    members: tuple[bytes, ...]
    round_keys: tuple[bytes, ...]
    roster: bytes
    noise: tuple[bytes, ...] = ()
    honest_noise: int = 0
    squared_norm: int = 0

    @property
    def norm(self) -> NormScreening | None:
        """What makes this a norm round; None for a light one."""
        if not self.noise:
            return None
        return NormScreening(self.squared_norm, len(self.noise), self.honest_noise)

    @property
    def parties(self) -> int:
        """Most contributions in a sum: those of clients and of noise senders."""
        return self.senders + len(self.noise)


class Pinned(NamedTuple):
    """What a party knows from outside the server's reach.

    Attributes:
      members: the complete list of member keys, in the order of their numbers.
      threshold: t.
      malicious: f.
      roster: hash of the enrolled clients' keys.
      least_honest: fewest honest senders that the party accepts, minimum - corrupt.
      corrupt: fewest clients that must be assumed corrupt; else the server could state none and lower the minimum by as many.
      noise: keys of the noise senders, increasing; none for a party that takes part in light rounds. A client of norm rounds sends no noise itself.
      honest_noise: most of them that may be counted on.
      squared_norm: largest Delta^2 that may be announced; the proofs of a round with a larger one would bound less.
    """

    members: tuple[bytes, ...]
    threshold: int
    malicious: int
    roster: bytes
    least_honest: int = 1
    corrupt: int = 0
    noise: tuple[bytes, ...] = ()
    honest_noise: int = 0
    squared_norm: int = 0


def roster_hash(clients: list[bytes] | tuple[bytes, ...]) -> bytes:
    """One hash for a set of client keys."""
    return hashlib.sha256(b"fedjax-poisson/1/roster\0" + b"".join(sorted(clients))).digest()


def mechanism_facts(name: str, parameters: Iterable[tuple[str, object]], **more: str) -> dict[str, str]:
    """What terms state of a mechanism: its name, its parameters as text, and what else tells its rounds apart (such as their purpose)."""
    return {"name": name, **more, **{key: str(value) for key, value in parameters}}


def encode_terms(terms: Terms) -> bytes:
    """The one encoding of terms."""
    return b"".join(
        [
            u8(VERSION),
            terms.run,
            u64(terms.round),
            terms.model,
            prefixed(terms.mechanism.encode()),
            prefixed(terms.charge.encode()),
            *(
                u32(v)
                for v in (terms.size, terms.count_bound, terms.count_rms, terms.senders, terms.minimum, terms.corrupt)
            ),
            *(u8(v) for v in (terms.threshold, terms.malicious, len(terms.members))),
            *terms.members,
            *(prefixed(key) for key in terms.round_keys),
            terms.roster,
            u8(len(terms.noise)),
            *terms.noise,
            u8(terms.honest_noise),
            u64(terms.squared_norm),
        ]
    )


def decode_terms(blob: bytes) -> Terms:
    """Terms from bytes.

    Raises:
      Oversize, Malformed, BadTerms: they are not terms.
    """
    if len(blob) > MOST_MEMBERS * (_ROUND_KEY_BYTES + 36) + 32 * 256 + 3 * _MOST_TEXT:
        raise Oversize(f"Terms of {len(blob)} bytes; no round of {MOST_MEMBERS} members has as many.")
    reader = Reader(blob)
    version = reader.u8()
    if version != VERSION:
        raise BadTerms(f"Terms of version {version}; this package speaks version {VERSION}.")
    run, number, model = reader.take(16), reader.u64(), reader.take(32)
    try:
        mechanism, charge = reader.prefixed().decode(), reader.prefixed().decode()
        size, bound, rms, senders, minimum, corrupt = (reader.u32() for _ in range(6))
        threshold, malicious, count = (reader.u8() for _ in range(3))
        if not 1 <= count <= MOST_MEMBERS:
            raise BadTerms(f"{count} members; a round has 1 to {MOST_MEMBERS}.")
        members = tuple(reader.take(32) for _ in range(count))
        keys = tuple(reader.prefixed() for _ in range(count))
        roster, noise = reader.take(32), tuple(reader.take(32) for _ in range(reader.u8()))
        honest_noise, squared_norm = reader.u8(), reader.u64()
    except UnicodeDecodeError:
        raise BadTerms("A text in the terms is not UTF-8.") from None
    reader.done()
    if max(len(mechanism), len(charge)) > _MOST_TEXT:
        raise Oversize(f"A text in the terms is longer than {_MOST_TEXT}.")
    return Terms(
        run=run,
        round=number,
        model=model,
        mechanism=mechanism,
        charge=charge,
        size=size,
        count_bound=bound,
        count_rms=rms,
        senders=senders,
        minimum=minimum,
        corrupt=corrupt,
        threshold=threshold,
        malicious=malicious,
        members=members,
        round_keys=keys,
        roster=roster,
        noise=noise,
        honest_noise=honest_noise,
        squared_norm=squared_norm,
    )


def terms_hash(terms: Terms) -> bytes:
    """32 bytes that name the round."""
    return hashlib.sha256(b"fedjax-poisson/1/terms\0" + encode_terms(terms)).digest()


def parameters_of(terms: Terms) -> RoundParameters:
    """Ring, packing and rows; everybody computes them, nobody sends them.

    Raises:
      BadTerms: there are none.
    """
    try:
        return choose(
            terms.size,
            terms.count_bound,
            terms.senders,
            len(terms.members),
            terms.threshold,
            corrupt=terms.corrupt,
            count_rms=terms.count_rms / 1000 if terms.count_rms else None,
            malicious=terms.malicious,
            norm=terms.norm,
        )
    except ValueError as error:
        raise BadTerms(f"No parameters for these terms: {error}") from None


def check_terms(terms: Terms, pinned: Pinned) -> None:
    """Compare terms with what is pinned, and with themselves; sizes first, so that nothing large is computed for absurd ones.

    Raises:
      BadTerms: with what differs.
    """
    members = len(terms.members)
    if terms.members != pinned.members:
        raise BadTerms(
            "The members are not the pinned ones: with members of its own choice the server could certify anything."
        )
    if len(set(terms.members)) != members or len(terms.round_keys) != members:
        raise BadTerms("A member stands twice, or has no round key.")
    if (terms.threshold, terms.malicious) != (pinned.threshold, pinned.malicious):
        raise BadTerms(
            f"t = {terms.threshold}, f = {terms.malicious}; pinned are t = {pinned.threshold}, f = {pinned.malicious}."
        )
    if not least_threshold(members, terms.malicious) <= terms.threshold <= members:
        raise BadTerms(
            f"t = {terms.threshold} of m = {members} with f = {terms.malicious}: 2 t > m + f is needed, else two sets could be opened."
        )
    if terms.roster != pinned.roster:
        raise BadTerms("The roster of clients is not the pinned one: clients that the server enrols hide nobody.")
    _check_noise(terms, pinned)
    if not 1 <= terms.size <= MOST_VALUES or not 1 <= terms.senders <= MOST_CLIENTS:
        raise BadTerms(f"{terms.size} values of {terms.senders} clients; at most {MOST_VALUES} and {MOST_CLIENTS}.")
    if not 1 <= terms.minimum <= terms.senders:
        raise BadTerms(f"minimum = {terms.minimum} of {terms.senders} clients.")
    if terms.corrupt < pinned.corrupt:
        raise BadTerms(f"{terms.corrupt} clients are assumed corrupt, {pinned.corrupt} are pinned.")
    if terms.minimum - terms.corrupt < pinned.least_honest:
        raise BadTerms(
            f"minimum = {terms.minimum} with {terms.corrupt} assumed corrupt leaves fewer honest senders than the {pinned.least_honest} asked for."
        )
    if not 1 <= terms.count_bound < 1 << 31:
        raise BadTerms(f"count_bound = {terms.count_bound} must be in [1, 2^31).")
    try:
        json.loads(terms.mechanism)
    except (ValueError, RecursionError):  # the latter for ten thousand brackets
        raise BadTerms("The mechanism's facts are not JSON.") from None
    parameters_of(terms)


def _check_noise(terms: Terms, pinned: Pinned) -> None:
    """The noise senders are the pinned ones, and no more of them are counted on than is pinned.

    A client of norm rounds sends clean counts: a light round, or one with noise senders of the server's choice, would open their sum without noise.
    """
    if terms.noise != pinned.noise:
        raise BadTerms(f"{len(terms.noise)} noise senders, which are not the {len(pinned.noise)} pinned ones.")
    if list(terms.noise) != sorted(set(terms.noise)) or len(terms.noise) > MOST_NOISE_SENDERS:
        raise BadTerms(f"Noise senders are not distinct keys in order, {MOST_NOISE_SENDERS} at most.")
    if not terms.noise:
        if terms.honest_noise or terms.squared_norm:
            raise BadTerms("A round without noise senders is a light one, without a norm.")
        return
    if not 1 <= terms.honest_noise <= min(pinned.honest_noise, len(terms.noise)):
        raise BadTerms(
            f"{terms.honest_noise} honest noise senders are counted on; {pinned.honest_noise} of {len(terms.noise)} are pinned."
        )
    if not 1 <= terms.squared_norm <= min(pinned.squared_norm, (1 << 56) - 1):
        raise BadTerms(f"squared_norm = {terms.squared_norm}; at most {pinned.squared_norm} is pinned.")
    if terms.threshold + terms.malicious > len(terms.members):
        raise BadTerms(
            f"t + f = {terms.threshold + terms.malicious} of m = {len(terms.members)} members: proofs are judged by so many, else a liar could let any "
            "vector pass. Lower f, or take more members."
        )
