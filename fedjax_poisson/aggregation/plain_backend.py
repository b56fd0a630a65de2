"""Sums in the clear, with every check of an encrypted round: for tests, and to measure what encryption costs.

NOTHING IS ENCRYPTED HERE: the server reads every sender's counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fedjax_poisson.aggregation.backend import AggregatorInfo, HolderPart, Parts, SenderPart, ServerPart
from fedjax_poisson.ckks.ciphertext_bytes import fingerprint
from fedjax_poisson.ckks.errors import WireError

CODE = 0


def parts(*, count_bound: int, senders: int, minimum_senders: int) -> Parts:
    """The three roles without encryption."""
    info = AggregatorInfo(
        backend="plain",
        mode="none",
        degree=0,
        moduli_bits=(),
        security_bits=0,
        scale_bits=0,
        count_bound=count_bound,
        senders=senders,
        minimum_senders=minimum_senders,
        key_holder="nobody: NOTHING IS ENCRYPTED, there is no key",
        protects="NOTHING: the server reads every sender's counts. For tests and cost comparisons only.",
        error_bound=0.0,
    )
    return Parts(
        code=CODE,
        mark=fingerprint(b"plain", count_bound.to_bytes(8, "little")),
        sender=SenderPart(seal=_seal),
        server=ServerPart(load=_load, dump=_dump, add=_add, measure=lambda payload, size: len(_dump(payload))),
        holder=HolderPart(read=_read),
        info=info,
        body_bytes=lambda size: 1 + 4 * size,
    )


def _seal(counts: np.ndarray, stream: Any) -> np.ndarray:
    del stream
    return counts.astype(np.int64)


def _dump(payload: np.ndarray) -> bytes:
    """One width byte (4 or 8), then the values, little-endian."""
    small = not payload.size or bool(np.all(np.abs(payload) < 2**31))
    width = 4 if small else 8
    return bytes([width]) + payload.astype(f"<i{width}").tobytes()


def _load(body: bytes, size: int) -> np.ndarray:
    if not body or body[0] not in (4, 8) or len(body) != 1 + body[0] * size:
        raise WireError(
            f"A plain message of {size} values has {1 + 4 * size} or {1 + 8 * size} bytes, this one has {len(body)}."
        )
    return np.frombuffer(body, dtype=f"<i{body[0]}", offset=1).astype(np.int64)


def _add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a + b


def _read(payload: np.ndarray, size: int, senders: int, ids: frozenset[bytes]) -> tuple[np.ndarray, bool]:
    del size, senders, ids
    return payload, True
