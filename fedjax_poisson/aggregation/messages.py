"""Keys, shares and answers as bytes, for files and for transport between parties.

One layout for all, integers little-endian: magic `FJPM`, u8 version, u8 kind, u16 flag, u32 first and second number,
u32 rows, u32 length of the subset, 16 bytes parameters, 16 bytes label, 32 bytes nonce or digest, the subset as u32,
the residues packed into the bits of their primes, and BLAKE2b-256 over everything before, which shows accidents, not
forgers.

What this module writes for a `SecretKey`, a `PartySecret` or a `SecretShare` is the secret itself. Keep it as you keep
a password: a file that only its owner reads, a channel that is encrypted and authenticated.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fedjax_poisson.aggregation.opening import PartialDecryption
from fedjax_poisson.aggregation.threshold_keys import KeyShare, PartySecret, SecretShare
from fedjax_poisson.ckks.ciphertext_bytes import pack_bits, parameters_fingerprint, unpack_bits
from fedjax_poisson.ckks.encryption import PublicKey, SecretKey
from fedjax_poisson.ckks.errors import WireError
from fedjax_poisson.ckks.parameters import CkksParameters

Record = PublicKey | SecretKey | PartySecret | KeyShare | SecretShare | PartialDecryption

_HEAD = struct.Struct("<4sBBHIIII16s16s32s")
_MAGIC = b"FJPM"
_CHECK_BYTES = 32
_MAX_ROWS, _MAX_PARTIES = 1 << 20, 1 << 16
_KINDS: dict[type, int] = {
    PublicKey: 1,
    SecretKey: 2,
    PartySecret: 3,
    KeyShare: 4,
    SecretShare: 5,
    PartialDecryption: 6,
}


class _Fields(NamedTuple):
    residues: Any
    flag: int = 0
    first: int = 0
    second: int = 0
    subset: tuple[int, ...] = ()
    label: bytes = bytes(16)
    extra: bytes = bytes(32)


def record_to_bytes(params: CkksParameters, record: Record) -> bytes:
    """A key, share or answer as bytes; `record_from_bytes` reads them.

    Raises:
      TypeError: a record of another type.
      ValueError: residues of another shape than the parameters'.
    """
    if type(record) not in _KINDS:
        raise TypeError(
            f"There are no bytes for a {type(record).__name__}; ciphertexts have ckks.ciphertext_bytes.to_bytes."
        )
    fields = _taken_apart(record)
    residues = np.asarray(fields.residues)
    rows = residues.reshape(-1, *residues.shape[-2:])
    if rows.shape[1:] != (params.limbs, params.degree):
        raise ValueError(
            f"The record has shape {residues.shape}; these parameters need [..., {params.limbs}, {params.degree}]."
        )
    head = _HEAD.pack(
        _MAGIC,
        1,
        _KINDS[type(record)],
        fields.flag,
        fields.first,
        fields.second,
        rows.shape[0],
        len(fields.subset),
        parameters_fingerprint(params),
        fields.label,
        fields.extra,
    )
    body = [pack_bits(rows[:, limb], bits) for limb, bits in enumerate(params.residue_bits)]
    content = b"".join([head, struct.pack(f"<{len(fields.subset)}I", *fields.subset), *body])
    return content + _check(content)


def record_from_bytes(params: CkksParameters, blob: bytes, kind: type) -> Any:
    """Read a record of the named type.

    Args:
      params: the parameters it belongs to.
      blob: the bytes.
      kind: `PublicKey`, `SecretKey`, `PartySecret`, `KeyShare`, `SecretShare` or `PartialDecryption`.

    Raises:
      WireError: truncated, altered, of another kind or other parameters.
    """
    if len(blob) < _HEAD.size + _CHECK_BYTES:
        raise WireError(
            f"The record has {len(blob)} bytes, fewer than its head of {_HEAD.size + _CHECK_BYTES}: truncated."
        )
    content = blob[:-_CHECK_BYTES]
    magic, version, number, flag, first, second, rows, parties, mark, label, extra = _HEAD.unpack_from(content)
    if magic != _MAGIC or version != 1:
        raise WireError("The bytes are not a record of version 1 (FJPM).")
    if _check(content) != blob[-_CHECK_BYTES:]:
        raise WireError("The checksum does not fit: the record was truncated or altered.")
    if number != _KINDS[kind]:
        raise WireError(f"The record is of kind {number}, a {kind.__name__} is {_KINDS[kind]}.")
    if mark != parameters_fingerprint(params):
        raise WireError("The record belongs to other parameters.")
    lengths = [-(-rows * params.degree * bits // 8) for bits in params.residue_bits]
    if not 1 <= rows <= _MAX_ROWS or parties > _MAX_PARTIES or len(content) != _HEAD.size + 4 * parties + sum(lengths):
        raise WireError(
            f"The record states {rows} rows and a subset of {parties}, which do not fit its {len(blob)} bytes."
        )
    subset = struct.unpack_from(f"<{parties}I", content, _HEAD.size)
    at = _HEAD.size + 4 * parties
    residues = np.empty((rows, params.limbs, params.degree), np.uint32)
    for limb, (bits, q, length) in enumerate(zip(params.residue_bits, params.moduli, lengths, strict=True)):
        values = unpack_bits(content[at : at + length], rows * params.degree, bits)
        if np.any(values >= q):
            raise WireError(f"A residue is not below its prime {q}: altered.")
        residues[:, limb] = values.reshape(rows, params.degree)
        at += length
    return _put_together(kind, _Fields(residues, flag, first, second, subset, label, extra))


def _taken_apart(record: Record) -> _Fields:
    match record:
        case PublicKey() | SecretKey():
            return _Fields(record.data)
        case PartySecret():
            return _Fields(record.data, flag=int(record.shared), first=record.party, label=record.label)
        case KeyShare():
            return _Fields(record.first, first=record.party, label=record.label, extra=record.nonce)
        case SecretShare():
            return _Fields(record.data, first=record.sender, second=record.receiver, label=record.label)
        case PartialDecryption():
            return _Fields(record.data, first=record.party, subset=record.subset, extra=record.digest)


def _put_together(kind: type, f: _Fields) -> Record:
    rows = {PublicKey: 2, PartialDecryption: f.residues.shape[0]}.get(kind, 1)
    if f.residues.shape[0] != rows or (f.subset and kind is not PartialDecryption) or f.flag > (kind is PartySecret):
        raise WireError(f"The head of the record does not fit a {kind.__name__}.")
    data = f.residues if kind in (PublicKey, PartialDecryption) else f.residues[0]
    if kind is KeyShare:
        return KeyShare(f.first, f.label, data, f.extra)
    residues = jnp.asarray(data)
    if kind is PartySecret:
        return PartySecret(f.first, f.label, bool(f.flag), residues)
    if kind is SecretShare:
        return SecretShare(f.first, f.second, f.label, residues)
    if kind is PartialDecryption:
        return PartialDecryption(f.first, f.subset, f.extra, residues)
    return PublicKey(residues) if kind is PublicKey else SecretKey(residues)


def _check(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECK_BYTES, person=b"fjp record").digest()
