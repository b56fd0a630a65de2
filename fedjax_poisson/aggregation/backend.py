"""What a backend provides to the aggregation interface: three roles that share no object."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fedjax_poisson.aggregation.norm_bound import NormScreening

Payload = Any
"""What a backend sums: TenSEAL vectors, or plain integers."""


class SenderPart(NamedTuple):
    """A sender's side.

    Attributes:
      seal: `(int32[D], stream) -> Payload`.
    """

    seal: Callable[[np.ndarray, Any], Payload]


class ServerPart(NamedTuple):
    """The server's side, built from public bytes only.

    Attributes:
      load: body bytes of a message of D values -> Payload; raises `WireError`.
      dump: Payload -> body bytes.
      add: the sum of two payloads of the same size.
      measure: `(payload, D) -> len(dump(payload))`, without writing bytes where the length is known.
    """

    load: Callable[[bytes, int], Payload]
    dump: Callable[[Payload], bytes]
    add: Callable[[Payload, Payload], Payload]
    measure: Callable[[Payload, int], int]


class HolderPart(NamedTuple):
    """The key holder's side.

    Attributes:
      read: `(payload, D, senders, ids) -> (integer values int64[D], whether every raw value was within the backend's margin of its integer)`. How far it
        was is the ciphertexts' noise, which depends on secrets: the number stays inside.
    """

    read: Callable[[Payload, int, int, frozenset[bytes]], tuple[np.ndarray, bool]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AggregatorInfo:
    """Public facts about an aggregator.

    Attributes:
      backend: "round", "tenseal" or "plain".
      mode: "round", "bare" (a round without messages), "public_key" (TenSEAL) or "none" (nothing is encrypted).
      degree: ring degree N; 0 without encryption.
      moduli_bits: bits of each prime of the ciphertext modulus.
      security_bits: classical security that the lattice parameters are chosen for; 0 without encryption.
      scale_bits: log2 of the CKKS scale (slots) or of one packed count's step; 0 without encryption.
      count_bound: largest absolute value of one coordinate of the sum.
      senders: largest number of contributions that one sum may hold.
      minimum_senders: fewest contributions that are opened.
      key_holder: who can open what.
      protects: what the encryption protects against, in words.
      error_bound: largest distance of an opened value from its integer, except with probability 2^-128; 0 where exact
        by construction.
      members: m; 0 where there is no committee.
      threshold: t, members that open a sum.
      malicious: f, members that may be malicious.
      corrupt: senders assumed corrupt: honest_senders is minimum_senders less these.
      norm: of norm rounds, whose noise comes from noise senders; None for all others.
    """

    backend: str
    mode: str
    degree: int
    moduli_bits: tuple[int, ...]
    security_bits: int
    scale_bits: int
    count_bound: int
    senders: int
    minimum_senders: int
    key_holder: str
    protects: str
    error_bound: float
    members: int = 0
    threshold: int = 0
    malicious: int = 0
    corrupt: int = 0
    norm: NormScreening | None = None


class Parts(NamedTuple):
    """One backend, ready to be wired.

    Attributes:
      code: number of the backend in the envelope.
      mark: 16-byte fingerprint of the public parameters and key.
      sender: what every sender gets.
      server: what the server gets.
      holder: what the key holder keeps.
      info: the public facts.
      body_bytes: D -> bytes of one sender's body; exact where the format has a fixed length, else a ceiling.
    """

    code: int
    mark: bytes
    sender: SenderPart
    server: ServerPart
    holder: HolderPart
    info: AggregatorInfo
    body_bytes: Callable[[int], int]
