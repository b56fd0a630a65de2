"""The three roles of a round and the checks that each makes; every role closes over its part of the backend only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from fedjax_poisson.aggregation import envelope
from fedjax_poisson.aggregation.backend import AggregatorInfo, HolderPart, Payload, SenderPart, ServerPart
from fedjax_poisson.ckks.errors import RoundRefused, WireError


class Sealed(NamedTuple):
    """One message: a sender's encrypted counts, or a sum of such messages.

    Attributes:
      payload: what the backend sums.
      size: D.
      senders: contributions added up in it.
      ids: one nonce per message in it; shared nonces mean the same contribution twice.
      round: number of the round that it belongs to.
    """

    payload: Payload
    size: int
    senders: int
    ids: frozenset[bytes]
    round: int

    def __repr__(self) -> str:
        """Facts only, never the payload."""
        return f"Sealed(size={self.size}, senders={self.senders}, messages={len(self.ids)}, round={self.round})"


class Opened(NamedTuple):
    """An opened sum.

    Attributes:
      counts: int32 `[D]`, the exact sum.
      senders: contributions in it.
      exact: every raw value was within the backend's margin of its integer. Always true of what was opened, since anything else is withheld; how near
        they were is noise that depends on the keys, and stays with the key holder.
      transcript: what anyone may check the round by (`transcript.check_transcript`); None where no messages were made.
    """

    counts: np.ndarray
    senders: int
    exact: bool
    transcript: bytes | None = None


class Refusal(NamedTuple):
    """A message that was left out.

    Attributes:
      position: its place in the sequence.
      reason: why.
    """

    position: int
    reason: str


class Collected(NamedTuple):
    """What the server made of a round's messages.

    Attributes:
      total: the sum of the sound ones; None if there are none.
      refused: the others.
    """

    total: Sealed | None
    refused: tuple[Refusal, ...]


class Sender(NamedTuple):
    """A sender's role.

    Attributes:
      encrypt: `(counts int32[D], stream, round=0) -> Sealed`.
      to_bytes: the message as it travels.
    """

    encrypt: Callable[..., Sealed]
    to_bytes: Callable[[Sealed], bytes]
    info: AggregatorInfo


class Server(NamedTuple):
    """The server's role; no secret key is reachable from it.

    Attributes:
      receive: bytes -> Sealed; raises `WireError`.
      add: the sum of two messages; raises `RoundRefused` for a contribution that is in both, or for different sizes or
        rounds.
      collect: `Iterable[bytes] -> Collected`: receives and adds, leaving out what is unsound.
      to_bytes: a sum as it travels to the key holder.
    """

    receive: Callable[[bytes], Sealed]
    add: Callable[[Sealed, Sealed], Sealed]
    collect: Callable[[Iterable[bytes]], Collected]
    to_bytes: Callable[[Sealed], bytes]
    info: AggregatorInfo


class Holder(NamedTuple):
    """The key holder's role.

    Attributes:
      receive: bytes -> Sealed; raises `WireError`.
      check: `(Sealed, size) -> None`; raises `RoundRefused` where `open` would for what was announced (senders, size, a
        contribution opened before), without opening anything and without remembering that it was asked.
      open: `(Sealed, size) -> Opened`; raises `RoundRefused`.
    """

    receive: Callable[[bytes], Sealed]
    check: Callable[[Sealed, int], None]
    open: Callable[[Sealed, int], Opened]
    info: AggregatorInfo

    def __repr__(self) -> str:
        """Names the role only: what `open` closes over is secret."""
        return f"Holder(backend={self.info.backend!r})"


class Mark(NamedTuple):
    """What every envelope of one aggregator carries: the backend's number, its fingerprint, and the key of the tag."""

    code: int
    fingerprint: bytes
    channel_key: bytes


def checked_counts(counts: Any, count_bound: int, size: int | None, round: int) -> np.ndarray:
    """A sender's counts as int32 `[D]`.

    Raises:
      ValueError: they are no vector of integers, of another size than announced, or beyond the bound; or the round is no number.
    """
    values = np.asarray(counts)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"counts is {values.dtype}{list(values.shape)}; give a vector of integers, int32[D].")
    if values.size == 0 or (size is not None and values.size != size):
        raise ValueError(
            f"counts has {values.size} values; this aggregator takes {'at least 1' if size is None else size}."
        )
    largest = max(int(values.max()), -int(values.min()))
    if largest > count_bound:
        raise ValueError(
            f"A count of absolute value {largest} is above count_bound = {count_bound}; nothing was "
            "encrypted. Raise count_bound when the aggregator is made, or clip."
        )
    if not 0 <= round < 1 << 64:
        raise ValueError(f"round = {round}; give a number of 0 or more.")
    return values.astype(np.int32)


def check_joined(a: Sealed, b: Sealed, most: int) -> None:
    """Refuse two messages that do not belong in one sum.

    Raises:
      RoundRefused: other sizes or rounds, a contribution in both, or more than `most` senders.
    """
    if a.size != b.size or a.round != b.round:
        raise RoundRefused(
            f"Messages of {a.size} and {b.size} values, of rounds {a.round} and {b.round}, do not belong together; "
            "leave the odd one out."
        )
    if a.ids & b.ids:
        raise RoundRefused("A contribution would be added twice (replayed message): leave the repetition out.")
    if a.senders + b.senders > most:
        raise RoundRefused(
            f"The sum would hold {a.senders + b.senders} contributions; its parameters are for at most "
            f"{most}. Make the aggregator for more senders."
        )


def check_announced(sealed: Sealed, size: int, minimum: int, most: int) -> None:
    """Refuse a sum that differs from what was announced.

    Raises:
      RoundRefused: too few senders, too many, or another size.
    """
    if sealed.senders < minimum:
        raise RoundRefused(
            f"The sum holds {sealed.senders} contributions; at least {minimum} were announced. "
            "Nothing was opened: wait for more senders or give the round up."
        )
    if sealed.senders > most:
        raise RoundRefused(
            f"The sum holds {sealed.senders} contributions; its parameters are for at most {most}. Nothing was opened."
        )
    if sealed.size != size:
        raise RoundRefused(f"The sum has {sealed.size} values and {size} were asked for. Nothing was opened.")


def check_unopened(sealed: Sealed, opened: set[bytes]) -> None:
    """Refuse a sum with a contribution that was opened before.

    Raises:
      RoundRefused: one was.
    """
    if opened & sealed.ids:
        raise RoundRefused(
            "A contribution of this sum was opened before, in this or another sum; the two together would show "
            "more than sums. Nothing was opened: have every sender encrypt afresh."
        )


def sender_role(
    part: SenderPart, dump: Callable[[Payload], bytes], mark: Mark, info: AggregatorInfo, size: int | None
) -> Sender:
    """A sender's role; it refuses counts beyond the bound before anything is encrypted."""

    def encrypt(counts: Any, stream: Any = None, *, round: int = 0) -> Sealed:
        values = checked_counts(counts, info.count_bound, size, round)
        return Sealed(part.seal(values, stream), values.size, 1, frozenset([envelope.new_id()]), int(round))

    return Sender(encrypt=encrypt, to_bytes=_to_bytes(dump, mark), info=info)


def server_role(part: ServerPart, mark: Mark, info: AggregatorInfo, size: int | None = None) -> Server:
    """The server's role; it refuses what is unsound, one message at a time. `size` is the announced D, if one was."""

    def receive(blob: bytes) -> Sealed:
        message = envelope.unpack(blob, mark.channel_key)
        if message.backend != mark.code or message.fingerprint != mark.fingerprint:
            raise WireError(
                "The message was made for another backend, other parameters or another key. Give all senders the same "
                "public part."
            )
        if message.size < 1 or (size is not None and message.size != size):
            raise WireError(
                f"The message states {message.size} values; {'at least 1' if size is None else size} are taken here."
            )
        return Sealed(part.load(message.body, message.size), message.size, message.senders, message.ids, message.round)

    def add(a: Sealed, b: Sealed) -> Sealed:
        check_joined(a, b, info.senders)
        return Sealed(part.add(a.payload, b.payload), a.size, a.senders + b.senders, a.ids | b.ids, a.round)

    def collect(blobs: Iterable[bytes]) -> Collected:
        total: Sealed | None = None
        refused = []
        for index, blob in enumerate(blobs):
            try:
                one = receive(blob)
                total = one if total is None else add(total, one)
            except (WireError, RoundRefused) as reason:
                refused.append(Refusal(index, str(reason)))
        return Collected(total, tuple(refused))

    return Server(receive=receive, add=add, collect=collect, to_bytes=_to_bytes(part.dump, mark), info=info)


def holder_role(part: HolderPart, receive: Callable[[bytes], Sealed], info: AggregatorInfo) -> Holder:
    """The key holder's role; it withholds every sum that does not meet the announced conditions."""
    opened_ids: set[bytes] = set()

    def check(sealed: Sealed, size: int) -> None:
        check_announced(sealed, size, info.minimum_senders, info.senders)
        check_unopened(sealed, opened_ids)

    def open_sum(sealed: Sealed, size: int) -> Opened:
        check(sealed, size)
        values, exact = part.read(sealed.payload, size, sealed.senders, sealed.ids)
        if not exact:
            raise RoundRefused(
                "A decrypted value was not within the margin of an integer: the sum was altered or is under another "
                "key. The values are withheld; repeat the round without the sender at fault."
            )
        largest = max(int(values.max(initial=0)), -int(values.min(initial=0)))
        if largest > info.count_bound:
            raise RoundRefused(
                f"A coordinate of the sum exceeds count_bound = {info.count_bound}. The values are withheld: a sender "
                "sent too much, or count_bound is too small for these senders."
            )
        opened_ids.update(sealed.ids)
        return Opened(values.astype(np.int32), sealed.senders, exact)

    return Holder(receive=receive, check=check, open=open_sum, info=info)


def _to_bytes(dump: Callable[[Payload], bytes], mark: Mark) -> Callable[[Sealed], bytes]:
    def to_bytes(sealed: Sealed) -> bytes:
        message = envelope.Envelope(
            mark.code, sealed.round, sealed.size, sealed.senders, sealed.ids, mark.fingerprint, dump(sealed.payload)
        )
        return envelope.pack(message, mark.channel_key)

    return to_bytes
