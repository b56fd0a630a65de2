"""What a sender contributes to a round: rows under a fresh secret, and that secret's shares, in a signed manifest and what it names by its hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from fedjax_poisson.aggregation import host_rows, host_shares, keys, messages, rows
from fedjax_poisson.aggregation.messages import Message
from fedjax_poisson.aggregation.parameters import RoundParameters
from fedjax_poisson.aggregation.refusals import BadBox, Malformed
from fedjax_poisson.aggregation.round_keys import RoundKey
from fedjax_poisson.aggregation.wire import Reader, prefixed, residue_bytes
from fedjax_poisson.randomness import Stream, bits, fold_in
from fedjax_poisson.traced_programs import traced_once

__all__ = [
    "Contribution",
    "Manifest",
    "box_info",
    "contribution_message",
    "kappas_of",
    "read_contribution",
    "read_manifest",
    "sealed_rows",
]


class Manifest(NamedTuple):
    """The signed body of a contribution: hashes of what follows it."""

    rows: bytes
    certificate: bytes
    boxes: tuple[bytes, ...]
    corrections: tuple[bytes, ...]


class Contribution(NamedTuple):
    """A contribution in parts; bytes as they travel."""

    message: Message
    manifest: Manifest
    rows: bytes
    boxes: tuple[bytes, ...]
    corrections: tuple[bytes, ...]


def box_info(terms: bytes, client: bytes, number: int) -> bytes:
    """What binds a box to its round, client and member."""
    return b"fedjax-poisson/1/box\0" + terms + client + bytes([number])


def contribution_message(
    key: keys.Hidden,
    label: str,
    digest: bytes,
    params: RoundParameters,
    round_keys: Sequence[RoundKey | None],
    values: np.ndarray,
    stream: Stream,
    shown: bytes,
) -> tuple[Message, bytes]:
    """A signed contribution.

    Args:
      key: of the sender.
      label: "contribution", or "noise".
      digest: hash of the terms.
      params: of the round.
      round_keys: the members'.
      values: int32 `[D]`.
      stream: fresh for this round.
      shown: hash of the certificate that the sender was shown; zeros for noise, which precedes it.

    Returns:
      The message, and the members' 32 bytes each, from which a proof's shares are expanded too.
    """
    public, moduli = keys.public_of(key), params.ring.moduli
    # Bound to the terms, the sender and the counts: a stream that is given again, its store lost, yields no secret twice.
    own = fold_in(stream, *(int(word) for word in rows.hash_words("fresh", digest, public, values.tobytes())))
    made, secret = sealed_rows(params, rows.common_of(params, digest), values, own)
    words = np.asarray(kappas_of(params, own)).astype("<u4")
    boxes = tuple(
        b"" if found is None else keys.seal_box(found.box_key, words[k].tobytes(), box_info(digest, public, k + 1))
        for k, found in enumerate(round_keys)
    )
    parts = [residue_bytes(one, moduli) for one in host_shares.dealt(params, digest, secret, words)]
    row_bytes = residue_bytes(made, moduli)
    hashes = [hashlib.sha256(row_bytes).digest(), shown]
    hashes += [hashlib.sha256(part).digest() for part in (*boxes, *parts)]
    attached = prefixed(row_bytes) + b"".join(prefixed(part) for part in (*boxes, *parts))
    return messages.make(key, label, digest, b"".join(hashes), attached), words.tobytes()


def sealed_rows(
    params: RoundParameters, a: jax.Array, counts: np.ndarray, stream: Stream
) -> tuple[np.ndarray, np.ndarray]:
    """Rows uint32 `[R, L, N]`, and the secret in NTT form uint32 `[L, N]`."""
    if host_rows.is_small(params):
        return host_rows.seal(params, np.asarray(a), counts, stream)
    made, secret = _seal(params, a, counts, stream)
    return np.asarray(made), np.asarray(secret)


@traced_once(0)
def _seal(params: RoundParameters, a: jax.Array, counts: jax.Array, stream: Stream) -> tuple[jax.Array, jax.Array]:
    secrets = rows.draw(params, stream)
    return rows.encrypt(params, a, counts, secrets), rows.small_form(params, secrets.secret)


def kappas_of(params: RoundParameters, stream: Stream) -> jax.Array:
    """The members' 32 bytes, uint32 `[m, 8]`, of a client's stream."""
    return bits(fold_in(stream, "kappas"), (params.members, 8))


def read_manifest(body: bytes, params: RoundParameters) -> Manifest:
    """The hashes in a contribution's signed body.

    Raises:
      Malformed: another length.
    """
    reader = Reader(body)
    found = Manifest(
        reader.take(32),
        reader.take(32),
        tuple(reader.take(32) for _ in range(params.members)),
        tuple(reader.take(32) for _ in range(params.corrections)),
    )
    reader.done()
    return found


def read_contribution(message: Message, params: RoundParameters) -> Contribution:
    """A contribution in parts, each as the manifest names it.

    Raises:
      Malformed, BadBox: a part that is missing, of another size, or not the one that was signed.
    """
    manifest = read_manifest(message.body, params)
    reader = Reader(message.attached)
    row_bytes = reader.prefixed()
    boxes = tuple(reader.prefixed() for _ in range(params.members))
    corrections = tuple(reader.prefixed() for _ in range(params.corrections))
    reader.done()
    # sizes first: with one part made longer at the cost of the others, a member's list would be too large for it
    if len(row_bytes) != params.rows_bytes or any(len(part) != params.polynomial_bytes for part in corrections):
        raise Malformed("Rows or a correction of another size than the terms imply.")
    if any(len(box) not in (0, keys.BOX_BYTES) for box in boxes):
        raise BadBox(f"A box has {keys.BOX_BYTES} bytes, or none for a member that is away.")
    named = (manifest.rows, *manifest.boxes, *manifest.corrections)
    for part, digest in zip((row_bytes, *boxes, *corrections), named, strict=True):
        if hashlib.sha256(part).digest() != digest:
            raise Malformed("A part of a contribution is not the one that its manifest names.")
    return Contribution(message, manifest, row_bytes, boxes, corrections)
