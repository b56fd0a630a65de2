"""Exact integer sums with this package's lattice arithmetic, on the training device: the default backend.

Three kinds of key. "public_key": senders hold the public key, one key holder the secret. "seeded": senders and key
holder share the secret key (half the bytes; the server has none). "threshold": senders hold a joint public key, n
parties a share each, and nobody has the secret; in one process the parties are simulated, each by a role of its own.

A sum beyond the count bound is refused where it still lies within its packed field; beyond the field it wraps unseen
into its neighbour. Every sender checks its own counts, and a mechanism's `count_bound` holds except with the
probability that it states.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.aggregation import opening, threshold_keys
from fedjax_poisson.aggregation.answer_guard import answer_guard
from fedjax_poisson.aggregation.backend import AggregatorInfo, HolderPart, Parts, SenderPart, ServerPart
from fedjax_poisson.ckks import ciphertext_bytes, encryption
from fedjax_poisson.ckks.ciphertext_bytes import fingerprint
from fedjax_poisson.ckks.encryption import Ciphertext, PublicKey, SecretKey
from fedjax_poisson.ckks.errors import RoundRefused, WireError
from fedjax_poisson.ckks.parameters import MARGIN, CkksParameters
from fedjax_poisson.ckks.rlwe_samplers import Stream, fold_in

CODE = 2

_HOLDERS = {
    "public_key": "one key holder beside the server, who is handed sums only; senders and server hold the public key",
    "seeded": "every sender holds the one secret key; the server has none",
    "threshold": "{t} of {n} parties together; each holds a share of a key that nobody has",
}
_PROTECTS = (
    "An honest-but-curious server, and anyone who sees the messages, learns nothing of one sender's counts (IND-CPA "
    "under ring-LWE, ternary secrets). Opened sums are exact integers, so decryption shows no noise. "
)
_NOT = {
    "public_key": "Not against a server that passes single messages off as sums, nor against side channels.",
    "seeded": "Not against a sender that pools its key with the server, nor against side channels.",
    "threshold": "Not against {t} parties that pool their shares with the server, nor against side channels.",
}


class DeviceFunctions(NamedTuple):
    """For programs that encrypt inside `jit`, `vmap` or `scan`.

    Attributes:
      params: the ring and packing.
      key: what senders encrypt under: a public key, or the secret key in seeded mode.
      encrypt: `(key, counts int32[D], stream) -> Ciphertext`, pure.
      add: `(Ciphertext, Ciphertext) -> Ciphertext`, pure.
    """

    params: CkksParameters
    key: PublicKey | SecretKey
    encrypt: Callable[..., Ciphertext]
    add: Callable[[Ciphertext, Ciphertext], Ciphertext]


def parts(
    params: CkksParameters,
    stream: Stream,
    *,
    minimum_senders: int,
    threshold: int | None = None,
    guards: Sequence[str] | None = None,
) -> tuple[Parts, DeviceFunctions]:
    """Fresh keys and the roles built from them.

    Args:
      params: from `choose_parameters`.
      stream: secret randomness for keys, consumed.
      minimum_senders: fewest contributions that are opened.
      threshold: t of `params.parties` ("threshold" mode); None means all.
      guards: one guard file for each party ("threshold" mode); None keeps them in memory.

    Raises:
      ValueError: settings that do not fit the mode.
    """
    if params.mode != "threshold" and (threshold is not None or guards is not None):
        raise ValueError(f'threshold and guards are for mode "threshold"; the parameters have mode "{params.mode}".')
    key: PublicKey | SecretKey
    if params.mode == "threshold":
        key, holder = _threshold_holder(params, stream, minimum_senders, threshold, guards)
    else:
        secret, public = _generate(params, stream)
        key = secret if params.mode == "seeded" else public
        holder = holder_part(params, secret)
    words = {"t": threshold or params.parties, "n": params.parties}
    info = AggregatorInfo(
        backend="device",
        mode=params.mode,
        degree=params.degree,
        moduli_bits=params.residue_bits,
        security_bits=params.security_bits,
        scale_bits=params.step.bit_length() - 1,
        count_bound=params.count_bound,
        senders=params.senders,
        minimum_senders=minimum_senders,
        key_holder=_HOLDERS[params.mode].format(**words),
        protects=_PROTECTS + _NOT[params.mode].format(**words),
        error_bound=0.0,
    )
    mark = np.asarray(key.data).astype("<u4").tobytes() if isinstance(key, PublicKey) else b""
    found = Parts(
        code=CODE,
        mark=fingerprint(b"device", ciphertext_bytes.parameters_fingerprint(params), mark),
        sender=sender_part(params, key),
        server=server_part(params),
        holder=holder,
        info=info,
        body_bytes=lambda size: ciphertext_bytes.compact_bytes(
            params, params.rows(size), seeded=params.mode == "seeded"
        ),
    )
    return found, DeviceFunctions(
        params, key, functools.partial(encryption.encrypt, params), functools.partial(encryption.add, params)
    )


def sender_part(params: CkksParameters, key: PublicKey | SecretKey) -> SenderPart:
    """A sender's side; its payload is a `Ciphertext`."""

    def seal(counts: np.ndarray, stream: Any) -> Ciphertext:
        if not isinstance(stream, Stream):
            raise ValueError(
                "The device backend encrypts from a randomness stream; give one, fresh for every message "
                "(randomness.fold_in)."
            )
        full = params.rows(counts.size) * params.values_per_row
        padded = np.zeros(full, np.int32)  # whole rows, so that one compilation serves all sizes with as many rows
        padded[: counts.size] = counts
        return _encrypt(dataclasses.replace(params, values=full), key, jnp.asarray(padded), stream)

    return SenderPart(seal=seal)


def server_part(params: CkksParameters) -> ServerPart:
    """The server's side: it needs the parameters and no key at all."""

    def load(body: bytes, size: int) -> Ciphertext:
        if not 1 <= size <= params.values:
            raise WireError(f"The message states {size} values; these parameters are for 1 to {params.values}.")
        return ciphertext_bytes.from_bytes(params, body, rows=params.rows(size))

    def dump(payload: Ciphertext) -> bytes:
        return ciphertext_bytes.to_bytes(params, payload)

    def add(a: Ciphertext, b: Ciphertext) -> Ciphertext:
        return _add(params, a, b)

    def measure(payload: Ciphertext, size: int) -> int:
        return ciphertext_bytes.compact_bytes(params, params.rows(size), seeded=payload.seed is not None)

    return ServerPart(load=load, dump=dump, add=add, measure=measure)


def holder_part(params: CkksParameters, secret: SecretKey) -> HolderPart:
    """The single key holder's side."""

    def read(payload: Ciphertext, size: int, senders: int, ids: frozenset[bytes]) -> tuple[np.ndarray, bool]:
        del ids
        _check_senders(payload, senders)
        counts, exact = _decrypt(params, secret, payload, params.rows(size) * params.values_per_row)
        return _without_padding(np.asarray(counts), size), _sound(counts, exact, size)

    # A pytree whose leaf is the secret: passed to a program as an argument, it never becomes a constant of compiled (and cached) code.
    in_program = jax.tree_util.Partial(functools.partial(_decrypted, params), secret)
    return HolderPart(read=read, in_program=in_program)


def _threshold_holder(
    params: CkksParameters, stream: Stream, minimum_senders: int, threshold: int | None, guards: Sequence[str] | None
) -> tuple[PublicKey, HolderPart]:
    """All parties of a joint key in one process, each a role of its own, and the opening that asks a subset of them."""
    session = threshold_keys.announce(params, minimum_senders=minimum_senders, threshold=threshold)
    if guards is not None and len(guards) != session.parties:
        raise ValueError(f"There are {len(guards)} guard files for {session.parties} parties; give one for each.")
    own = [fold_in(stream, "party", number) for number in range(1, session.parties + 1)]
    made = [threshold_keys.make_party_key(session, i, fold_in(part, "key")) for i, part in enumerate(own, 1)]
    public = threshold_keys.joint_public_key(session, [one[1] for one in made], [one[2] for one in made])
    secrets = [one[0] for one in made]
    if session.threshold < session.parties:
        dealt = [
            threshold_keys.deal(session, secret, fold_in(part, "deal"))
            for secret, part in zip(secrets, own, strict=True)
        ]
        secrets = [
            threshold_keys.combine_shares(session, i, [row[i - 1] for row in dealt])
            for i in range(1, session.parties + 1)
        ]
    parties = tuple(
        opening.make_party(
            session, secret, fold_in(part, "smudging"), answer_guard(None if guards is None else guards[i])
        )
        for i, (secret, part) in enumerate(zip(secrets, own, strict=True))
    )
    return public, threshold_holder_part(session, parties[: session.threshold])


def threshold_holder_part(session: threshold_keys.Session, parties: Sequence[opening.Party]) -> HolderPart:
    """The opening by a subset of parties, through the messages that they would send."""
    params = session.params
    subset = tuple(party.number for party in parties)

    def read(payload: Ciphertext, size: int, senders: int, ids: frozenset[bytes]) -> tuple[np.ndarray, bool]:
        _check_senders(payload, senders)
        answers = [party.answer(payload, subset, ids) for party in parties]
        counts, exact = opening.fuse(session, payload, answers, params.rows(size) * params.values_per_row)
        return _without_padding(np.asarray(counts), size), _sound(counts, exact, size)

    return HolderPart(read=read)


def _check_senders(payload: Ciphertext, senders: int) -> None:
    if int(payload.senders) != senders:
        raise RoundRefused(
            f"The ciphertext counts {int(payload.senders)} contributions and its message {senders}. Nothing was opened."
        )


def _without_padding(counts: np.ndarray, size: int) -> np.ndarray:
    return counts[:size].astype(np.int64)


def _sound(counts: jax.Array, exact: jax.Array, size: int) -> bool:
    """Whether all coefficients were within the margin and the padding, zero in every honest sum, is empty."""
    return bool(exact) and not bool(jnp.any(counts[size:] != jnp.int32(0)))


def _decrypted(
    params: CkksParameters, secret: SecretKey, ciphertext: Ciphertext, size: int
) -> tuple[jax.Array, jax.Array]:
    """Counts int32 `[D]`, and bool `[]` whether each coefficient was within the margin: the distance itself is noise that depends on the keys."""
    counts, distance = encryption.decrypt_with_margin(params, secret, ciphertext, size)
    return counts, distance <= jnp.float32(MARGIN)


@functools.partial(jax.jit, static_argnums=0)
def _generate(params: CkksParameters, stream: Stream) -> tuple[SecretKey, PublicKey]:
    return encryption.generate_keys(params, stream)


@functools.partial(jax.jit, static_argnums=0)
def _encrypt(params: CkksParameters, key: PublicKey | SecretKey, counts: jax.Array, stream: Stream) -> Ciphertext:
    return encryption.encrypt(params, key, counts, stream)


@functools.partial(jax.jit, static_argnums=0)
def _add(params: CkksParameters, a: Ciphertext, b: Ciphertext) -> Ciphertext:
    return encryption.add(params, a, b)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _decrypt(
    params: CkksParameters, secret: SecretKey, ciphertext: Ciphertext, size: int
) -> tuple[jax.Array, jax.Array]:
    return _decrypted(params, secret, ciphertext, size)
