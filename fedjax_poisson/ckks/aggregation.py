"""One face over the encryption backends: a sender seals, the server adds, the key holder opens the sum.

    agg = aggregator("tenseal", count_bound=10_000, senders=4, minimum_senders=4)
    sealed = [agg.encrypt(counts, stream) for counts, stream in ...]        # each at its sender
    total = functools.reduce(agg.add, sealed)                                # at the server
    opened = agg.open(total, size)                                           # at the key holder: opened.counts int32[D]

In one process the record `Aggregator` plays all the roles; `.sender`, `.server` and `.holder` are the roles taken
apart, as they would be handed to separate machines. Nothing reachable from `.sender` or `.server` holds a secret key.
Between machines a message travels as `agg.sender.to_bytes(sealed)` and is taken in, checked, by
`agg.server.receive(blob)`.

`open` withholds everything and raises `RoundRefused` when fewer contributions than the announced minimum are in the
sum, more than the parameters were chosen for, a value is too far from an integer or beyond the count bound,
the size differs, or a contribution was in an earlier opened sum (the difference of two overlapping sums would show
single senders).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_poisson.ckks import device_backend, envelope, plain_backend, tenseal_backend
from fedjax_poisson.ckks.backend import AggregatorInfo, HolderPart, Parts, Payload, SenderPart, ServerPart
from fedjax_poisson.ckks.device_backend import DeviceFunctions
from fedjax_poisson.ckks.encryption import Ciphertext
from fedjax_poisson.ckks.errors import RoundRefused, WireError
from fedjax_poisson.ckks.parameters import CkksParameters, Mode, choose_parameters
from fedjax_poisson.ckks.sampling import Stream
from fedjax_poisson.randomness.chacha import stream as new_stream


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
      distance: largest distance of a raw value from its integer, in units of one count.
    """

    counts: np.ndarray
    senders: int
    distance: float


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
      open: `(Sealed, size) -> Opened`; raises `RoundRefused`.
    """

    receive: Callable[[bytes], Sealed]
    open: Callable[[Sealed, int], Opened]
    info: AggregatorInfo

    def __repr__(self) -> str:
        """Names the role only: what `open` closes over is secret."""
        return f"Holder(backend={self.info.backend!r})"


class Aggregator(NamedTuple):
    """All the roles of a round in one record.

    Attributes:
      encrypt: `(counts int32[D], stream, round=0) -> Sealed`, what one sender does.
      add: `(Sealed, Sealed) -> Sealed`, what the server does.
      open: `(Sealed, size) -> Opened`, what the key holder does.
      bytes_up: `Sealed -> int`, bytes of that message on the wire.
      message_bytes: `size -> int`, bytes of one sender's message: exact for plain and device, a ceiling for TenSEAL (it
        compresses).
      info: the public facts.
      sender: the sender's role by itself.
      server: the server's role by itself.
      holder: the key holder's role by itself.
      device: for programs that encrypt inside `jit`, `vmap` or `scan`; None for the other backends.
      wrap: `(Ciphertext, size, round=0) -> Sealed`, a sum made in such a program, to be opened; None for the other
        backends.
    """

    encrypt: Callable[..., Sealed]
    add: Callable[[Sealed, Sealed], Sealed]
    open: Callable[[Sealed, int], Opened]
    bytes_up: Callable[[Sealed], int]
    message_bytes: Callable[[int], int]
    info: AggregatorInfo
    sender: Sender
    server: Server
    holder: Holder
    device: DeviceFunctions | None = None
    wrap: Callable[..., Sealed] | None = None

    def __repr__(self) -> str:
        """The public facts only."""
        return f"Aggregator({self.info!r})"


def aggregator(
    backend: str,
    params: CkksParameters | None = None,
    *,
    count_bound: int | None = None,
    senders: int | None = None,
    minimum_senders: int | None = None,
    size: int | None = None,
    stream: Stream | None = None,
    mode: Mode = "public_key",
    parties: int = 1,
    threshold: int | None = None,
    guards: Sequence[str] | None = None,
) -> Aggregator:
    """Make keys and wire up the roles.

    Args:
      backend: "device", "tenseal" or "plain".
      params: for "device"; None chooses from the bound, the senders, the size and the mode.
      count_bound: largest |coordinate of the sum| that a round may open, below 2^31 (`Mechanism.count_bound`); None
        takes that of `params`.
      senders: most contributions in one sum; None takes those of `params`.
      minimum_senders: fewest contributions that may be opened; None means all `senders`.
      size: D of every message; None accepts any.
      stream: secret randomness for the keys of the device backend; None takes 256 bits from the operating system.
        TenSEAL always takes its own.
      mode: "public_key", "seeded" or "threshold" (device, where `params` is None).
      parties: key holders in "threshold" mode.
      threshold: how many of them open a sum; None means all.
      guards: one file for each party, which remembers across restarts what it answered; None remembers in memory.

    Returns:
      The record of roles.

    Raises:
      ValueError: an argument out of range, or parameters that cannot be met.
    """
    bound = params.count_bound if count_bound is None and params is not None else count_bound
    most = params.senders if senders is None and params is not None else senders
    if bound is None or most is None:
        raise ValueError("count_bound and senders are needed where params is not given.")
    minimum = most if minimum_senders is None else minimum_senders
    if not 1 <= bound < 2**31:
        raise ValueError(
            f"count_bound = {bound}; give 1 <= count_bound < 2^31, the bound on |any coordinate of the sum|."
        )
    if not 1 <= minimum <= most:
        raise ValueError(f"minimum_senders = {minimum} of senders = {most}; give 1 <= minimum_senders <= senders.")
    channel_key = envelope.new_channel_key()
    if backend == "device":
        ring = params or choose_parameters(count_bound=bound, senders=most, mode=mode, values=size, parties=parties)
        if ring.count_bound != bound or ring.senders < most:
            raise ValueError(
                f"params are for count_bound = {ring.count_bound} and {ring.senders} senders; count_bound = {bound} "
                f"and senders = {most} were given. "
                "Leave the two out, or choose parameters for them."
            )
        made, functions = device_backend.parts(
            ring,
            new_stream() if stream is None else stream,
            minimum_senders=minimum,
            threshold=threshold,
            guards=guards,
        )
        return wire_roles(made, channel_key=channel_key, size=size)._replace(device=functions, wrap=_wrap)
    if backend not in ("tenseal", "plain"):
        raise ValueError(f'backend = "{backend}"; there are "device", "tenseal" and "plain".')
    if params is not None or mode != "public_key" or parties != 1 or threshold is not None or guards is not None:
        raise ValueError(
            f'params, mode, parties, threshold and guards are for the "device" backend; "{backend}" has none of them.'
        )
    choose = tenseal_backend.parts if backend == "tenseal" else plain_backend.parts
    return wire_roles(
        choose(count_bound=bound, senders=most, minimum_senders=minimum), channel_key=channel_key, size=size
    )


def _wrap(ciphertext: Ciphertext, size: int, *, round: int = 0) -> Sealed:
    return Sealed(ciphertext, size, int(ciphertext.senders), frozenset([envelope.new_id()]), round)


def wire_roles(parts: Parts, *, channel_key: bytes, size: int | None = None) -> Aggregator:
    """The record of roles over a backend's parts; each role closes over its own part only."""
    mark = _Mark(parts.code, parts.mark, channel_key)
    sender = _sender_role(parts.sender, parts.server.dump, mark, parts.info, size)
    server = _server_role(parts.server, mark, parts.info)
    holder = _holder_role(parts.holder, server.receive, parts.info)
    measure = parts.server.measure
    body_bytes = parts.body_bytes
    return Aggregator(
        encrypt=sender.encrypt,
        add=server.add,
        open=holder.open,
        bytes_up=lambda sealed: envelope.overhead(len(sealed.ids)) + measure(sealed.payload, sealed.size),
        message_bytes=lambda values: envelope.overhead(1) + body_bytes(values),
        info=parts.info,
        sender=sender,
        server=server,
        holder=holder,
    )


class _Mark(NamedTuple):
    code: int
    fingerprint: bytes
    channel_key: bytes


def _sender_role(
    part: SenderPart, dump: Callable[[Payload], bytes], mark: _Mark, info: AggregatorInfo, size: int | None
) -> Sender:
    def encrypt(counts: Any, stream: Any = None, *, round: int = 0) -> Sealed:
        values = np.asarray(counts)
        if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"counts is {values.dtype}{list(values.shape)}; give a vector of integers, int32[D].")
        if values.size == 0 or (size is not None and values.size != size):
            raise ValueError(
                f"counts has {values.size} values; this aggregator takes {'at least 1' if size is None else size}."
            )
        largest = max(int(values.max()), -int(values.min()))
        if largest > info.count_bound:
            raise ValueError(
                f"A count of absolute value {largest} is above count_bound = {info.count_bound}; nothing was "
                "encrypted. "
                "Raise count_bound when the aggregator is made, or clip."
            )
        return Sealed(
            part.seal(values.astype(np.int32), stream), values.size, 1, frozenset([envelope.new_id()]), int(round)
        )

    return Sender(encrypt=encrypt, to_bytes=_to_bytes(dump, mark), info=info)


def _server_role(part: ServerPart, mark: _Mark, info: AggregatorInfo) -> Server:
    def receive(blob: bytes) -> Sealed:
        message = envelope.unpack(blob, mark.channel_key)
        if message.backend != mark.code or message.fingerprint != mark.fingerprint:
            raise WireError(
                "The message was made for another backend, other parameters or another key. Give all senders the same "
                "public part."
            )
        return Sealed(part.load(message.body, message.size), message.size, message.senders, message.ids, message.round)

    def add(a: Sealed, b: Sealed) -> Sealed:
        if a.size != b.size or a.round != b.round:
            raise RoundRefused(
                f"Messages of {a.size} and {b.size} values, of rounds {a.round} and {b.round}, do not belong "
                "together; leave the odd one out."
            )
        if a.ids & b.ids:
            raise RoundRefused("A contribution would be added twice (replayed message): leave the repetition out.")
        if a.senders + b.senders > info.senders:
            raise RoundRefused(
                f"The sum would hold {a.senders + b.senders} contributions; its parameters are for at most "
                f"{info.senders}. "
                "Make the aggregator for more senders."
            )
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


def _holder_role(part: HolderPart, receive: Callable[[bytes], Sealed], info: AggregatorInfo) -> Holder:
    opened_ids: set[bytes] = set()

    def open_sum(sealed: Sealed, size: int) -> Opened:
        if sealed.senders < info.minimum_senders:
            raise RoundRefused(
                f"The sum holds {sealed.senders} contributions; at least {info.minimum_senders} were announced. "
                "Nothing was opened: "
                "wait for more senders or give the round up."
            )
        if sealed.senders > info.senders:
            raise RoundRefused(
                f"The sum holds {sealed.senders} contributions; its parameters are for at most {info.senders}. "
                "Nothing was opened."
            )
        if sealed.size != size:
            raise RoundRefused(f"The sum has {sealed.size} values and {size} were asked for. Nothing was opened.")
        if opened_ids & sealed.ids:
            raise RoundRefused(
                "A contribution of this sum was opened before, in this or another sum; the two together would show "
                "more than sums. "
                "Nothing was opened: have every sender encrypt afresh."
            )
        values, distance = part.read(sealed.payload, size, sealed.senders, sealed.ids)
        if not distance <= part.max_distance:
            raise RoundRefused(
                f"A decrypted value is {distance:.3g} from the nearest integer (at most {part.max_distance} is "
                "allowed): "
                "the sum was altered or is under "
                "another key. The values are withheld; repeat the round without the sender at fault."
            )
        largest = max(int(values.max(initial=0)), -int(values.min(initial=0)))
        if largest > info.count_bound:
            raise RoundRefused(
                f"A coordinate of the sum exceeds count_bound = {info.count_bound}. The values are withheld: a sender "
                "sent too much, or "
                "count_bound is too small for these senders."
            )
        opened_ids.update(sealed.ids)
        return Opened(values.astype(np.int32), sealed.senders, distance)

    return Holder(receive=receive, open=open_sum, info=info)


def _to_bytes(dump: Callable[[Payload], bytes], mark: _Mark) -> Callable[[Sealed], bytes]:
    def to_bytes(sealed: Sealed) -> bytes:
        message = envelope.Envelope(
            mark.code, sealed.round, sealed.size, sealed.senders, sealed.ids, mark.fingerprint, dump(sealed.payload)
        )
        return envelope.pack(message, mark.channel_key)

    return to_bytes
