"""One interface to all ways of summing: a sender seals, the server adds, the sum is opened.

    agg = aggregator("round", count_bound=10_000, senders=4, members=5)
    sealed = [agg.encrypt(counts, stream) for counts, stream in ...]        # each at its sender
    total = functools.reduce(agg.add, sealed)                                # at the server
    opened = agg.open(total, size)                                           # opened.counts int32[D]

"round" plays all parties of the protocol in one process, each with keys of its own (`client`, `member`, `server` are the parties as they run apart).
"tenseal" is the reference backend, with one key holder, for interchange. "plain" encrypts nothing.

`open` withholds everything and raises `RoundRefused` when fewer contributions than the announced minimum are in the sum, more than the parameters were chosen
for, a check of the opening fails, the size differs, or a contribution was in an earlier opened sum (the difference of two overlapping sums would reveal
individual senders).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from fedjax_poisson.aggregation import envelope, keys, local, plain_backend, tenseal_backend
from fedjax_poisson.aggregation.backend import AggregatorInfo, Parts
from fedjax_poisson.aggregation.bare import DeviceFunctions, RoundSum
from fedjax_poisson.aggregation.norm_bound import NormScreening, dense_passes, squared_bound
from fedjax_poisson.aggregation.parameters import RoundParameters, default_malicious, least_threshold
from fedjax_poisson.aggregation.roles import (
    Holder,
    Mark,
    Opened,
    Sealed,
    Sender,
    Server,
    holder_role,
    sender_role,
    server_role,
)
from fedjax_poisson.aggregation.round_setting import RoundSetting, run_name
from fedjax_poisson.aggregation.terms import MOST_MEMBERS
from fedjax_poisson.extensions import find
from fedjax_poisson.randomness import Stream

__all__ = ["Aggregator", "AggregatorInfo", "Opened", "Sealed", "aggregator", "round_info", "wire_roles"]

MOST_SIGNED = 128
"""More senders than this in one process are taken for a simulation, whose messages are not signed unless asked for."""

_ROUND = (
    "No key outlives a round. Each sender's fresh secret is shared to {m} members; {t} of them open one sum of at least {minimum} senders, once; up to {f} "
    "malicious members, the server and any senders cannot open another ({t} members that pool their shares could open every sender)."
)
_ALONE = "NO COMMITTEE: the one member could open every sender; each sum has at least {minimum} senders."
_ONE_PROCESS = " All roles run in this one process: whoever reads its memory sees everything."
_HOLDS = (
    "The server, any senders and up to {f} of {m} members, all malicious, learn the one sum and nothing of single senders (ring-LWE; functionals of secrets "
    "are opened, of counts none). An opening that anyone can check is exact or refused."
)
_LIGHT = " Not bounded: what a malicious sender adds to the sum (light rounds)."
_NORM = (
    " Norm rounds: counts are sent without noise, {noise} parties send it ({honest} of them are counted on), and each client proves that its vector is short: "
    "one of 3 bounds passes with {three:.2g}, one of 5 with {five:.2g}, one of 10 with {ten:.2g}."
)
_UNPROVED = " The vectors' norms are NOT tested in such a simulation unless the algorithm does it."
_BARE = (
    "A SIMULATION of rounds: senders' counts are hidden under secrets of their own and the sum is opened exactly, but messages are NOT signed, boxed or "
    "screened, so nothing is claimed against a party that deviates: {why}"
)


class Aggregator(NamedTuple):
    """All the roles of a round in one record.

    Attributes:
      encrypt: `(counts int32[D], stream, round=0) -> Sealed`, run by each sender.
      add: `(Sealed, Sealed) -> Sealed`, run by the server.
      check: `(Sealed, size) -> None`, whether `open` would refuse: raises the same `RoundRefused` and opens nothing. A round is taken to its include step.
        Ask it before a release is charged to a ledger.
      open: `(Sealed, size) -> Opened`.
      begin: `() -> None`: what was sent and not opened is dropped; the next `encrypt` is of a new round.
      bytes_up: `Sealed -> int`, bytes of one sender's message on the wire.
      message_bytes: `size -> int`, bytes of one sender's message: exact for plain and rounds, a ceiling for TenSEAL (it
        compresses).
      info: the public facts.
      sender: the sender's role alone; None for rounds, whose parties are in modules of their own.
      server: the server's role alone; None for rounds.
      holder: the key holder's role alone; None for rounds.
      device: for programs that simulate clients inside `jit`, `vmap` or `scan`; None for the other backends, and where no size was announced.
      wrap: `(RoundSum, size, round=0) -> Sealed`, a sum made in such a program, to be opened; None for the other backends.
      size: D of every message, where it was announced; None takes any.
      own: number of the one sender whose counts are in this process, where the others' are elsewhere (`deployment`); None where all are here.
      recall: `(size) -> Opened | None`: the sum about to be asked for, where it was opened before this process could take it in; None where that cannot be.
    """

    encrypt: Callable[..., Sealed]
    add: Callable[[Sealed, Sealed], Sealed]
    check: Callable[[Sealed, int], None]
    open: Callable[[Sealed, int], Opened]
    begin: Callable[[], None]
    bytes_up: Callable[[Sealed], int]
    message_bytes: Callable[[int], int]
    info: AggregatorInfo
    sender: Sender | None = None
    server: Server | None = None
    holder: Holder | None = None
    device: DeviceFunctions | None = None
    wrap: Callable[..., Sealed] | None = None
    size: int | None = None
    own: int | None = None
    recall: Callable[[int], Opened | None] | None = None

    def __repr__(self) -> str:
        """The public facts only."""
        return f"Aggregator({self.info!r})"


def aggregator(
    backend: str | Backend = "round",
    *,
    count_bound: int,
    senders: int,
    minimum_senders: int | None = None,
    size: int | None = None,
    members: int = 5,
    threshold: int | None = None,
    malicious: int | None = None,
    corrupt: int | None = None,
    count_rms: float | None = None,
    authenticate: bool | None = None,
    mechanism: Mapping[str, Any] | None = None,
    stream: Stream | None = None,
    norm: NormScreening | None = None,
    noise: Callable[[Stream, int], Any] | None = None,
) -> Aggregator:
    """Make keys and connect the roles.

    Args:
      backend: "round", "tenseal", "plain", or a `Backend` of your own, as it is or by "module:name".
      count_bound: largest |coordinate of the sum| that a round may open, below 2^31 (`Mechanism.count_bound`).
      senders: most contributions in one sum.
      minimum_senders: fewest contributions that may be opened; None means all `senders`.
      size: D of every message; None accepts any (rounds then choose parameters for each size that they see).
      members: m, 1 to 20 ("round"). With one member there is no committee, and `info` says that it opens every sender.
      threshold: t, members that open a sum; 2 t > m + f. None takes the least.
      malicious: f, members that may be malicious; None takes (m - 1) // 3.
      corrupt: senders assumed corrupt; None takes one where the minimum leaves others.
      count_rms: root mean square that the counts of an honest sum keep to, if known: sums beyond it are refused.
      authenticate: make signatures and boxes, agree and screen ("round"); None does for up to 128 senders where the `cryptography` package can. `info`
        says if not, and why.
      mechanism: facts that the terms of a round state.
      stream: names the run, so that several processes of one simulation agree; no secret comes from it.
      norm: makes norm rounds: clients send clean counts and prove their norm, noise senders send the noise ("round"; needs `noise`, `size`, `count_rms`).
        `count_bound` and `count_rms` are those of an honest sum; what a corrupt client that passes may add is added here.
      noise: `(stream, D) -> int32[D]`, one noise sender's noise (`Mechanism.noise`).

    Returns:
      The record of roles.

    Raises:
      ValueError: an argument out of range, or parameters that cannot be met.
    """
    minimum = senders if minimum_senders is None else minimum_senders
    if not 1 <= count_bound < 2**31:
        raise ValueError(
            f"count_bound = {count_bound}; give 1 <= count_bound < 2^31, the bound on |any coordinate of the sum|."
        )
    if not 1 <= minimum <= senders:
        raise ValueError(f"minimum_senders = {minimum} of senders = {senders}; give 1 <= minimum_senders <= senders.")
    make = find(backend, BACKENDS, "encryption backend").entry if isinstance(backend, str) else backend
    if not 1 <= members <= MOST_MEMBERS:
        raise ValueError(f"members = {members}; a round has 1 to {MOST_MEMBERS}.")
    f = default_malicious(members) if malicious is None else malicious
    t = least_threshold(members, f) if threshold is None else threshold
    if not 0 <= f < members or not least_threshold(members, f) <= t <= members:
        raise ValueError(
            f"threshold = {t} of members = {members} with malicious = {f}: 2 t > m + f and t <= m are needed, so {least_threshold(members, f)} or more."
        )
    c = min(1, minimum - 1) if corrupt is None else corrupt
    if not 0 <= c < minimum:
        raise ValueError(f"corrupt = {c} of minimum_senders = {minimum}: at least one sender must be honest.")
    if count_rms is not None and not 0.001 <= count_rms < 2**31 / 1000:
        raise ValueError(f"count_rms = {count_rms}; give 0.001 to {2**31 // 1000}, or leave it out.")
    if norm is not None:
        count_bound, count_rms = _with_corrupt(
            str(backend), norm, noise, size, count_bound, count_rms, members, t, f, c
        )
    setting = RoundSetting(
        run=run_name(stream),
        count_bound=count_bound,
        count_rms=count_rms,
        senders=senders,
        minimum=minimum,
        corrupt=c,
        members=members,
        threshold=t,
        malicious=f,
        mechanism=json.dumps(dict(mechanism or {}), sort_keys=True, default=str),
        size=size,
        norm=norm,
        noise=noise,
    )
    return make(setting, authenticate)


def _with_corrupt(
    backend: str,
    norm: NormScreening,
    noise: Callable[[Stream, int], Any] | None,
    size: int | None,
    count_bound: int,
    count_rms: float | None,
    members: int,
    threshold: int,
    malicious: int,
    corrupt: int,
) -> tuple[int, float]:
    """Bounds of a norm round's sum with what corrupt clients that pass may add: B in one coordinate, three norms in all (`norm_bound`)."""
    if backend != "round" or noise is None or size is None or count_rms is None:
        raise ValueError(
            f'norm rounds need backend = "round" (here {backend!r}), noise, size and count_rms: without noise a sum of clean counts would be opened.'
        )
    largest = math.isqrt(squared_bound(norm.squared_norm, members, threshold, malicious)) + 1
    found = count_bound + corrupt * largest
    if found >= 2**31:
        raise ValueError(f"count_bound = {count_bound} with {corrupt} corrupt clients reaches {found}, beyond 2^31.")
    return found, count_rms + corrupt * 3 * math.sqrt(norm.squared_norm / size)


def with_key_holder(choose: Callable[..., Parts]) -> Backend:
    """A backend with one key holder, from `(*, count_bound, senders, minimum_senders) -> Parts`: the three roles that share no object."""

    def make(setting: RoundSetting, authenticate: bool | None) -> Aggregator:
        del authenticate
        parts = choose(count_bound=setting.count_bound, senders=setting.senders, minimum_senders=setting.minimum)
        return wire_roles(parts, channel_key=envelope.new_channel_key(), size=setting.size)

    return make


def _of_rounds(setting: RoundSetting, authenticate: bool | None) -> Aggregator:
    missing = keys.available()
    if authenticate and missing is not None:
        raise ValueError(f"authenticate=True, but {missing}.")
    many = setting.senders > MOST_SIGNED
    messages = missing is None and not many if authenticate is None else authenticate
    why = (
        ""
        if messages
        else missing
        or (f"more than {MOST_SIGNED} senders in one process." if authenticate is None else "authenticate=False.")
    )
    rounds = local.local_rounds(setting, authenticate=messages)
    info = round_info(setting, rounds.parameters(setting.size or 1 << 16))
    info = dataclasses.replace(info, key_holder=info.key_holder + _ONE_PROCESS)
    if not messages:
        info = dataclasses.replace(info, mode="bare", protects=_BARE.format(why=why))
    if setting.norm is not None:
        info = dataclasses.replace(info, norm=setting.norm, protects=info.protects + _in_words(setting, messages))
    device = None if setting.size is None else rounds.functions(setting.size)
    return Aggregator(
        encrypt=rounds.encrypt,
        add=rounds.add,
        check=rounds.check,
        open=rounds.open,
        begin=rounds.begin,
        bytes_up=lambda sealed: rounds.message_bytes(sealed.size),
        message_bytes=rounds.message_bytes,
        info=info,
        device=device,
        wrap=_wrap,
        size=setting.size,
    )


def round_info(setting: RoundSetting, params: RoundParameters) -> AggregatorInfo:
    """The facts of rounds whose messages are made, with roles that lie in different places."""
    who = _ROUND if setting.members > 1 else _ALONE
    return AggregatorInfo(
        backend="round",
        mode="round",
        degree=params.ring.degree,
        moduli_bits=params.ring.residue_bits,
        security_bits=params.ring.security_bits,
        scale_bits=params.ring.step.bit_length() - 1,
        count_bound=setting.count_bound,
        senders=setting.senders,
        minimum_senders=setting.minimum,
        key_holder=who.format(m=setting.members, t=setting.threshold, f=setting.malicious, minimum=setting.minimum),
        protects=_HOLDS.format(f=setting.malicious, m=setting.members) + ("" if setting.norm else _LIGHT),
        error_bound=0.0,
        members=setting.members,
        threshold=setting.threshold,
        malicious=setting.malicious,
        corrupt=setting.corrupt,
    )


def _wrap(total: RoundSum, size: int, *, round: int = 0) -> Sealed:
    return Sealed(total, size, int(total.senders) - int(total.noise), frozenset([envelope.new_id()]), round)


def _in_words(setting: RoundSetting, messages: bool) -> str:
    assert setting.norm is not None
    bound = squared_bound(setting.norm.squared_norm, setting.members, setting.threshold, setting.malicious)
    ratio = bound / setting.norm.squared_norm
    said = _NORM.format(
        noise=setting.norm.noise_senders,
        honest=setting.norm.honest_noise,
        three=dense_passes(3, ratio),
        five=dense_passes(5, ratio),
        ten=dense_passes(10, ratio),
    )
    return said if messages else said + _UNPROVED


Backend = Callable[[RoundSetting, "bool | None"], Aggregator]
"""`(setting, authenticate) -> Aggregator`: what makes a backend's roles; `with_key_holder` makes one of three roles."""

BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        "round": _of_rounds,
        "tenseal": with_key_holder(tenseal_backend.parts),
        "plain": with_key_holder(plain_backend.parts),
    }
)
"""By name: another is a file with its roles and a line here, or `module:name` of one of the user's own."""


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
        begin=lambda: None,
        bytes_up=lambda sealed: envelope.overhead(len(sealed.ids)) + measure(sealed.payload, sealed.size),
        message_bytes=lambda values: envelope.overhead(1) + body_bytes(values),
        info=parts.info,
        sender=sender,
        server=server,
        holder=holder,
        size=size,
    )
