"""What all rounds of one aggregator have in common, and what follows from it: parameters, terms, bytes, the name of the run."""

from __future__ import annotations

import hashlib
import math
import os
from typing import NamedTuple

import numpy as np

from fedjax_poisson.aggregation import keys
from fedjax_poisson.aggregation.opening import Expected
from fedjax_poisson.aggregation.parameters import RoundParameters, choose
from fedjax_poisson.aggregation.terms import Terms
from fedjax_poisson.randomness import Stream, bits, fold_in

__all__ = ["RoundSetting", "draft_of", "expected_of", "message_bytes", "parameters_for", "run_name"]


class RoundSetting(NamedTuple):
    """What all rounds of one aggregator have in common.

    Attributes:
      run: 16 bytes.
      count_bound: bound on |any coordinate of the sum|.
      count_rms: root mean square that honest counts keep to; None if not stated.
      senders: most clients of a round.
      minimum: fewest.
      corrupt: clients assumed corrupt.
      members: m.
      threshold: t.
      malicious: f.
      mechanism: facts, canonical JSON.
      size: D of every message; None takes any.
    """

    run: bytes
    count_bound: int
    count_rms: float | None
    senders: int
    minimum: int
    corrupt: int
    members: int
    threshold: int
    malicious: int
    mechanism: str
    size: int | None


def parameters_for(setting: RoundSetting, size: int) -> RoundParameters:
    """The parameters of rounds of D values."""
    return choose(
        size,
        setting.count_bound,
        setting.senders,
        setting.members,
        setting.threshold,
        corrupt=setting.corrupt,
        count_rms=None if setting.count_rms is None else thousandths(setting.count_rms) / 1000,
    )


def thousandths(count_rms: float) -> int:
    """How terms state a root mean square: rounded up, so that an honest sum at the bound is not refused."""
    return math.ceil(count_rms * 1000)


def draft_of(setting: RoundSetting, number: int, size: int, members: tuple[bytes, ...], roster: bytes) -> Terms:
    """The terms of a round, without round keys."""
    return Terms(
        run=setting.run,
        round=number,
        model=bytes(32),
        mechanism=setting.mechanism,
        charge="charged by the ledger of the process that runs all roles",
        size=size,
        count_bound=setting.count_bound,
        count_rms=0 if setting.count_rms is None else thousandths(setting.count_rms),
        senders=setting.senders,
        minimum=setting.minimum,
        corrupt=setting.corrupt,
        threshold=setting.threshold,
        malicious=setting.malicious,
        members=members,
        round_keys=tuple(b"" for _ in members),
        roster=roster,
    )


def expected_of(setting: RoundSetting, clients: int) -> Expected:
    """What the sum of so many clients keeps to."""
    return Expected(clients, setting.corrupt, setting.count_bound, setting.count_rms, setting.malicious)


def message_bytes(params: RoundParameters) -> int:
    """Bytes of one client's contribution on the wire."""
    parts = (
        params.rows_bytes + params.members * (4 + keys.BOX_BYTES) + params.corrections * (4 + params.polynomial_bytes)
    )
    body = 64 + 32 * params.members + 32 * params.corrections
    return 4 + len("contribution") + 32 + 32 + 4 + body + 64 + 4 + 4 + parts


def run_name(stream: Stream | None) -> bytes:
    """16 bytes that name a run: from a stream (so that several processes agree), or fresh."""
    if stream is None:
        return os.urandom(16)
    return hashlib.sha256(np.asarray(bits(fold_in(stream, "run name"), 8)).tobytes()).digest()[:16]
