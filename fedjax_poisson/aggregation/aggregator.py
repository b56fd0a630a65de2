"""One interface to all encryption backends: a sender seals, the server adds, the key holder opens the sum.

    agg = aggregator("tenseal", count_bound=10_000, senders=4, minimum_senders=4)
    sealed = [agg.encrypt(counts, stream) for counts, stream in ...]        # each at its sender
    total = functools.reduce(agg.add, sealed)                                # at the server
    opened = agg.open(total, size)                                           # at the key holder: opened.counts int32[D]

In one process the record `Aggregator` plays all the roles; `.sender`, `.server` and `.holder` are the separate roles,
as they would be given to separate machines. Nothing reachable from `.sender` or `.server` holds a secret key. Between
machines a message is sent as `agg.sender.to_bytes(sealed)`, then checked and accepted by `agg.server.receive(blob)`.

`open` withholds everything and raises `RoundRefused` when fewer contributions than the announced minimum are in the
sum, more than the parameters were chosen for, a value is too far from an integer or beyond the count bound,
the size differs, or a contribution was in an earlier opened sum (the difference of two overlapping sums would reveal
individual senders).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from fedjax_poisson.aggregation import device_backend, envelope, plain_backend, tenseal_backend
from fedjax_poisson.aggregation.backend import AggregatorInfo, Parts
from fedjax_poisson.aggregation.device_backend import DeviceFunctions
from fedjax_poisson.aggregation.roles import (
    Collected,
    Holder,
    Mark,
    Opened,
    Refusal,
    Sealed,
    Sender,
    Server,
    holder_role,
    sender_role,
    server_role,
)
from fedjax_poisson.ckks.encryption import Ciphertext
from fedjax_poisson.ckks.parameters import CkksParameters, Mode, choose_parameters
from fedjax_poisson.ckks.rlwe_samplers import Stream
from fedjax_poisson.randomness.chacha import stream as new_stream

__all__ = [
    "Aggregator",
    "AggregatorInfo",
    "Collected",
    "Holder",
    "Opened",
    "Refusal",
    "Sealed",
    "Sender",
    "Server",
    "aggregator",
    "wire_roles",
]


class Aggregator(NamedTuple):
    """All the roles of a round in one record.

    Attributes:
      encrypt: `(counts int32[D], stream, round=0) -> Sealed`, run by each sender.
      add: `(Sealed, Sealed) -> Sealed`, run by the server.
      check: `(Sealed, size) -> None`, whether `open` would refuse because of announced facts: raises the same `RoundRefused`
        and opens nothing. Ask it before a release is charged to a ledger.
      open: `(Sealed, size) -> Opened`, run by the key holder.
      bytes_up: `Sealed -> int`, bytes of that message on the wire.
      message_bytes: `size -> int`, bytes of one sender's message: exact for plain and device, a ceiling for TenSEAL (it
        compresses).
      info: the public facts.
      sender: the sender's role alone.
      server: the server's role alone.
      holder: the key holder's role alone.
      device: for programs that encrypt inside `jit`, `vmap` or `scan`; None for the other backends.
      wrap: `(Ciphertext, size, round=0) -> Sealed`, a sum made in such a program, to be opened; None for the other
        backends.
      size: D of every message, where it was announced; None takes any.
    """

    encrypt: Callable[..., Sealed]
    add: Callable[[Sealed, Sealed], Sealed]
    check: Callable[[Sealed, int], None]
    open: Callable[[Sealed, int], Opened]
    bytes_up: Callable[[Sealed], int]
    message_bytes: Callable[[int], int]
    info: AggregatorInfo
    sender: Sender
    server: Server
    holder: Holder
    device: DeviceFunctions | None = None
    wrap: Callable[..., Sealed] | None = None
    size: int | None = None

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
    """Generate keys and connect the roles.

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
      guards: one file for each party, recording across restarts what it answered; None keeps the record in memory.

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
                f"and senders = {most} were given. Leave the two out, or choose parameters for them."
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
    """The record of roles over a backend's parts; each role closes over its part only."""
    mark = Mark(parts.code, parts.mark, channel_key)
    sender = sender_role(parts.sender, parts.server.dump, mark, parts.info, size)
    server = server_role(parts.server, mark, parts.info, size)
    holder = holder_role(parts.holder, server.receive, parts.info)
    measure = parts.server.measure
    body_bytes = parts.body_bytes
    return Aggregator(
        encrypt=sender.encrypt,
        add=server.add,
        check=holder.check,
        open=holder.open,
        bytes_up=lambda sealed: envelope.overhead(len(sealed.ids)) + measure(sealed.payload, sealed.size),
        message_bytes=lambda values: envelope.overhead(1) + body_bytes(values),
        info=parts.info,
        sender=sender,
        server=server,
        holder=holder,
        size=size,
    )
