"""Members' announcements of a round, which its terms contain."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

from fedjax_poisson.aggregation import keys, messages
from fedjax_poisson.aggregation.messages import NO_TERMS
from fedjax_poisson.aggregation.refusals import BadTerms, UnknownSender
from fedjax_poisson.aggregation.terms import Terms
from fedjax_poisson.aggregation.wire import Reader

__all__ = ["RoundKey", "check_round_keys", "round_key_of"]


class RoundKey(NamedTuple):
    """A member's announcement of a round: a fresh box key, and commitments to what it will open.

    Attributes:
      run: 16 bytes.
      round: its number.
      box_key: what clients seal to.
      commitment: to its part of the beacon (`bodies.commitment`).
      sign_commitment: to its part of the public signs, which only norm rounds open (`signs.commitment`).
    """

    run: bytes
    round: int
    box_key: bytes
    commitment: bytes
    sign_commitment: bytes


def round_key_of(blob: bytes, members: Sequence[bytes]) -> tuple[bytes, RoundKey]:
    """A signed `round-key` and its sender.

    Raises:
      RoundRefused: of the kinds of `messages.decode`.
    """
    message = messages.decode(blob, None, NO_TERMS, lambda label: members, ["round-key"])
    reader = Reader(message.body)
    found = RoundKey(reader.take(16), reader.u64(), reader.take(keys.BOX_KEY_BYTES), reader.take(32), reader.take(32))
    reader.done()
    return message.sender, found


@functools.lru_cache(maxsize=16)  # in one process all roles check the same; it is public, and an exception is not kept
def check_round_keys(terms: Terms) -> tuple[RoundKey | None, ...]:
    """Every member's round key, signed by that member for this run and round; None for a member that is away.

    Raises:
      RoundRefused: fewer than t are there, or one is planted or of another round.
    """
    found: list[RoundKey | None] = []
    for member, blob in zip(terms.members, terms.round_keys, strict=True):
        if not blob:
            found.append(None)
            continue
        sender, key = round_key_of(blob, terms.members)
        if sender != member:
            raise UnknownSender("A round key stands in another member's place.")
        if (key.run, key.round) != (terms.run, terms.round):
            raise BadTerms(f"A round key is for round {key.round}, the terms are for round {terms.round}.")
        found.append(key)
    if sum(key is not None for key in found) < terms.threshold:
        raise BadTerms(f"Fewer than t = {terms.threshold} members are there.")
    return tuple(found)
