"""What all rounds of one aggregator have in common, and what follows from it: parameters, terms, bytes, the name of the run."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fedjax_poisson.aggregation import keys
from fedjax_poisson.aggregation.norm_bound import NormScreening
from fedjax_poisson.aggregation.opening import Expected
from fedjax_poisson.aggregation.parameters import RoundParameters, choose
from fedjax_poisson.aggregation.terms import Terms
from fedjax_poisson.randomness import Stream, bits, fold_in

__all__ = ["RoundSetting", "draft_of", "expected_of", "message_bytes", "noise_sent", "parameters_for", "run_name"]


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
      norm: of norm rounds; None for light ones.
      noise: `(stream, D) -> int32[D]`, the noise of one noise sender; only for norm rounds.
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
    norm: NormScreening | None = None
    noise: Callable[[Stream, int], Any] | None = None

    @property
    def noise_senders(self) -> int:
        """l; 0 in light rounds."""
        return 0 if self.norm is None else self.norm.noise_senders


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
        malicious=setting.malicious,
        norm=setting.norm,
    )


def thousandths(count_rms: float) -> int:
    """How terms state a root mean square: rounded up, so that an honest sum at the bound is not refused."""
    return math.ceil(count_rms * 1000)


def draft_of(
    setting: RoundSetting,
    number: int,
    size: int,
    members: tuple[bytes, ...],
    roster: bytes,
    noise: tuple[bytes, ...] = (),
) -> Terms:
    """The terms of a round, without round keys; `noise` are the keys of its noise senders."""
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
        noise=noise,
        honest_noise=0 if setting.norm is None else setting.norm.honest_noise,
        squared_norm=0 if setting.norm is None else setting.norm.squared_norm,
    )


def expected_of(setting: RoundSetting, clients: int) -> Expected:
    """What the sum of so many clients, and of all noise senders, keeps to."""
    return Expected(
        clients + setting.noise_senders, setting.corrupt, setting.count_bound, setting.count_rms, setting.malicious
    )


def noise_sent(setting: RoundSetting, number: int, size: int, stream: Stream) -> tuple[np.ndarray, Stream]:
    """What a noise sender of a norm round in one process sends, int32 `[D]`, and the stream it encrypts with; both from a part of its own."""
    assert setting.noise is not None
    own = fold_in(stream, "noise sender", number)
    return np.asarray(setting.noise(fold_in(own, "noise"), size)), fold_in(own, "encrypt")


def message_bytes(params: RoundParameters) -> int:
    """Bytes of one client's messages on the wire: its contribution, and in norm rounds its proof."""
    parts = (
        params.rows_bytes + params.members * (4 + keys.BOX_BYTES) + params.corrections * (4 + params.polynomial_bytes)
    )
    body = 64 + 32 * params.members + 32 * params.corrections
    contribution = 4 + len("contribution") + 32 + 32 + 4 + body + 64 + 4 + 4 + parts
    if params.proof is None:
        return contribution
    proof = 4 + len("proof") + 32 + 32 + 4 + 32 + 32 * params.corrections + 64 + 4
    return contribution + proof + params.corrections * (4 + params.proof_bytes)


def run_name(stream: Stream | None) -> bytes:
    """16 bytes that name a run: from a stream (so that several processes agree), or fresh."""
    if stream is None:
        return os.urandom(16)
    return hashlib.sha256(np.asarray(bits(fold_in(stream, "run name"), 8)).tobytes()).digest()[:16]
