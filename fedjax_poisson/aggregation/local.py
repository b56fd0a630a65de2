"""A whole round in one process: every role with its own keys and its own messages, exactly as between machines; or bare, where messages cannot be made.

`encrypt` is a client's contribution to the round that is under way (another size begins another round), `add` joins contributions, `check` takes the round
to its include step (everything that can be refused is refused there, before a release is charged), `open` asks for the answers and opens. A round is over
when it was opened; `begin` starts a new one and drops what was not opened.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fedjax_poisson.aggregation import bare, committee, server, terms, transcript
from fedjax_poisson.aggregation.bare import DeviceFunctions, RoundSum
from fedjax_poisson.aggregation.committee import Committee, UnderWay
from fedjax_poisson.aggregation.envelope import new_id
from fedjax_poisson.aggregation.parameters import RoundParameters
from fedjax_poisson.aggregation.refusals import RoundRefused
from fedjax_poisson.aggregation.roles import (
    Opened,
    Sealed,
    check_announced,
    check_joined,
    check_unopened,
    checked_counts,
)
from fedjax_poisson.aggregation.round_setting import (
    RoundSetting,
    draft_of,
    expected_of,
    message_bytes,
    noise_sent,
    parameters_for,
)
from fedjax_poisson.randomness import Stream, fold_in

__all__ = ["LocalRounds", "local_rounds"]


class LocalRounds(NamedTuple):
    """The functions of an aggregator; `Aggregator` has their docs."""

    begin: Callable[[], None]
    encrypt: Callable[..., Sealed]
    add: Callable[[Sealed, Sealed], Sealed]
    check: Callable[[Sealed, int], None]
    open: Callable[[Sealed, int], Opened]
    functions: Callable[[int], DeviceFunctions]
    parameters: Callable[[int], RoundParameters]
    message_bytes: Callable[[int], int]


@dataclasses.dataclass
class _Process:
    """What the process remembers between calls, and all that they change.

    Attributes:
      setting: what its rounds have in common.
      authenticate: whether rounds have signatures, boxes, agreement and screening; else they are bare (`bare`).
      device: functions of bare rounds, by D.
      committee: all parties, once a round was asked for.
      number: of the last round.
      under: the round that is under way.
      opened: names of the contributions in opened sums.
      noised: in bare norm rounds, whether a contribution since the last sum carries the noise; a sum must hold it exactly once.
    """

    setting: RoundSetting
    authenticate: bool
    device: dict[int, DeviceFunctions] = dataclasses.field(default_factory=dict)
    committee: Committee | None = None
    number: int = 0
    under: UnderWay | None = None
    opened: set[bytes] = dataclasses.field(default_factory=set)
    noised: bool = False


def local_rounds(setting: RoundSetting, *, authenticate: bool) -> LocalRounds:
    """Rounds of one process.

    Args:
      setting: what they have in common.
      authenticate: with signatures, boxes, agreement and screening; else bare (`bare`).
    """
    process = _Process(setting, authenticate)
    parameters = functools.partial(parameters_for, setting)
    return LocalRounds(
        begin=functools.partial(_begin, process),
        encrypt=functools.partial(_encrypt, process),
        add=functools.partial(_add, process),
        check=functools.partial(_check, process),
        open=functools.partial(_open, process),
        functions=functools.partial(_functions, process),
        parameters=parameters,
        message_bytes=lambda size: message_bytes(parameters(size)),
    )


def _begin(process: _Process) -> None:
    process.under, process.noised = None, False


def _functions(process: _Process, size: int) -> DeviceFunctions:
    """What bare rounds of D values are computed with; compiled functions are kept by D."""
    if size not in process.device:
        setting = process.setting
        members = tuple(bytes([k]) * 32 for k in range(1, setting.members + 1))
        digest = terms.terms_hash(draft_of(setting, 0, setting.size or 1, members, bytes(32)))
        expected = expected_of(setting, setting.senders)
        process.device[size] = bare.device_functions(parameters_for(setting, size), digest, expected)
    return process.device[size]


def _encrypt(process: _Process, counts: Any, stream: Any = None, *, round: int = 0) -> Sealed:
    setting = process.setting
    values = checked_counts(counts, setting.count_bound, setting.size, round)
    if not isinstance(stream, Stream):
        raise ValueError(
            "Rounds encrypt from a randomness stream; give one, fresh for every message (randomness.fold_in)."
        )
    if not process.authenticate:
        payload = bare.encrypt_one(_functions(process, values.size), values, stream)
        if setting.noise is not None and not process.noised:
            payload = _with_noise(process, payload, values.size, fold_in(stream, "noise"))
        return Sealed(payload, values.size, 1, frozenset([new_id()]), int(round))
    return Sealed(None, values.size, 1, frozenset([_contribute(process, values, stream)]), int(round))


def _with_noise(process: _Process, payload: RoundSum, size: int, stream: Stream) -> RoundSum:
    """A bare contribution with those of all noise senders added; the sum counts all of them."""
    use = _functions(process, size)
    for number in range(process.setting.noise_senders):
        noise, own = noise_sent(process.setting, number, size, stream)
        payload = bare.add_two(use, payload, bare.as_noise(bare.encrypt_one(use, noise, own)))
    process.noised = True
    return payload


def _contribute(process: _Process, values: np.ndarray, stream: Stream) -> bytes:
    """The next client's contribution to the round under way, or to a new one; its name."""
    if process.committee is None:
        process.committee = Committee(process.setting)
    under = process.under
    over = under is None or under.sent == process.setting.senders or under.state.phase != "contribution"
    if under is None or over or under.state.draft.size != values.size:
        process.number += 1
        under = committee.open_round(
            process.committee, process.setting, process.number, values.size, fold_in(stream, "noise")
        )
    process.under, name = committee.add_contribution(process.committee, under, values, stream)
    return name


def _add(process: _Process, a: Sealed, b: Sealed) -> Sealed:
    check_joined(a, b, process.setting.senders)
    if (a.payload is None) != (b.payload is None):
        raise RoundRefused("A signed contribution and a simulated sum do not belong together; leave one out.")
    payload = None
    if a.payload is not None:
        payload = bare.add_two(_functions(process, a.size), a.payload, b.payload)
    return Sealed(payload, a.size, a.senders + b.senders, a.ids | b.ids, a.round)


def _check(process: _Process, sealed: Sealed, size: int) -> None:
    check_announced(sealed, size, process.setting.minimum, process.setting.senders)
    check_unopened(sealed, process.opened)
    if sealed.payload is not None:
        noise = int(sealed.payload.noise)
        if noise != process.setting.noise_senders:
            raise RoundRefused(
                f"The sum has the noise of {noise} noise senders, not of {process.setting.noise_senders}. Nothing was opened."
            )
        _counted(int(sealed.payload.senders) - noise, sealed)
        return
    _counted(len(sealed.ids), sealed)
    under = process.under
    if under is None or not sealed.ids <= {one.digest for one in under.state.clients.values()}:
        raise RoundRefused("The round of these contributions is over. Nothing was opened.")
    if under.state.phase == "answer":
        if committee.included(under) != sealed.ids:
            raise RoundRefused("This round was taken to its include step for another set. Nothing was opened.")
        return
    assert process.committee is not None
    process.under = committee.to_include(process.committee, under, sealed.ids)


def _counted(found: int, sealed: Sealed) -> None:
    if found != sealed.senders:
        raise RoundRefused(
            f"The sum counts {found} clients' contributions beside all noise, and its message {sealed.senders}. Nothing was opened."
        )


def _open(process: _Process, sealed: Sealed, size: int) -> Opened:
    _check(process, sealed, size)
    if isinstance(sealed.payload, RoundSum):
        expected = expected_of(process.setting, sealed.senders)
        counts = bare.open_one(_functions(process, size), sealed.payload, expected)
        process.opened |= sealed.ids
        process.noised = False
        return Opened(counts, sealed.senders, True)
    assert process.committee is not None and process.under is not None
    state = committee.answered(process.committee, process.under)
    process.opened |= sealed.ids
    process.under = None
    state, _ = server.advance(state)
    assert state.opened is not None
    return Opened(state.opened.counts, sealed.senders, True, transcript.write_transcript(state))
